"""every malformed configuration ends in its clear error, whatever the cause."""
import os
import re

from support import SMALL, Case, main

# replacement in SMALL, and what the message must say besides the file's name
BAD = [
    ("steps: 60", "stepz: 60", r"stepz.*steps"),
    ("steps: 60", "steps: many", r"steps.*many"),
    ("steps: 60", "steps: -1", r"steps.*-1"),
    ("steps: 60", "steps: 1.5", r"steps.*1\.5"),
    ("steps: 60", "steps: [1, 2]", r"steps"),
    ("steps: 60", "steps: 60\nsteps: 61", r"steps"),
    ("batch: 16", "batch: 0", r"batch"),
    ("grain: 4", "grain: 0", r"grain"),
    ("name: linear_regression", "name: linear_regresion", r"linear_regression"),
    ("dim: 3", "dmi: 3", r"dmi.*dim"),
    ("dim: 3", "dim: 0", r"dim"),
    ("dim: 3", "dim: 1e99", r"dim"),
    ("points: 8", "points: \"eight\"", r"points.*eight"),
    ("noise: 0.5", "noise: -1", r"noise"),
    ("noise: 0.5", "noise: .nan", r"noise"),
    ("name: transformer", "name: transfomer", r"transformer"),
    ("layers: 2", "layer: 2", r"layer.*layers"),
    ("layers: 2", "layers: 0", r"layers"),
    ("width: 16", "width: 15", r"width.*heads|heads.*width"),
    ("heads: 2", "heads: two", r"heads.*two"),
    ("name: mse", "name: msee", r"mse"),
    ("name: mse", "name: cross_entropy", r"target|label|cross_entropy"),
    ("name: adamw", "name: adam_w", r"adamw"),
    ("lr: 2e-3", "lr: fast", r"lr.*fast"),
    ("lr: 2e-3", "lr: -1", r"lr"),
    ("weight_decay: 0.01", "weight_deacy: 0.01", r"weight_decay"),
    ("seed: 3", "seed: x", r"seed"),
    ("seed: 3", "device: gpu7", r"device"),
    ("seed: 3", "plugins: [nowhere.so]", r"nowhere\.so"),
    ("model: {name: transformer, layers: 2, width: 16, heads: 2}", "model: transformer", r"model"),
    ("model: {name: transformer, layers: 2, width: 16, heads: 2}", "", r"model"),
    ("family: {name: linear_regression, dim: 3, points: 8, noise: 0.5}", "", r"family"),
    ("loss: {name: mse}", "loss: {name: mse", r":\d+"),
    ("seed: 3", "seed: 3\n\tx: 1", r":\d+"),
    ("seed: 3", "seed: *anchor", r"anchor|alias"),
    ("seed: 3", "checkpoint_every: 1e400", r"checkpoint_every"),
    ("family: {name: linear_regression, dim: 3, points: 8, noise: 0.5}",
     "family: {name: bytes, path: nowhere.txt, length: 8}", r"nowhere\.txt"),
    ("family: {name: linear_regression, dim: 3, points: 8, noise: 0.5}", "family: {name: categorical, symbols: 1}", r"symbols"),
    ("family: {name: linear_regression, dim: 3, points: 8, noise: 0.5}", "family: {name: bytes, length: 8}", r"path"),
]


class Config(Case):
    def test_malformed(self):
        for index, (old, new, pattern) in enumerate(BAD):
            with self.subTest(new):
                self.assertIn(old, SMALL)
                name = f"bad{index}.yaml"
                config = self.write(name, SMALL.replace(old, new))
                _, err = self.mica("train", config, "--out", self.path(f"run{index}"), "--quiet", code=3)
                self.assertIn(name, err)
                self.assertRegex(err, re.compile(pattern, re.S))
                self.assertFalse(os.path.exists(self.path(f"run{index}", "last.safetensors")))

    def test_command_line_errors_name_the_file_too(self):
        config = self.write("small.yaml", SMALL)
        for bad in ("stpes=3", "model.layers=none", "model.nothing=1", "optimizer.lr="):
            _, err = self.mica("train", config, "--out", self.path("run"), "--quiet", bad, code=3)
            self.assertIn("small.yaml", err, bad)
        self.mica("train", config, "--out", self.path("a"), "--quiet", "--steps", "3")
        self.mica("train", config, "--out", self.path("b"), "--quiet", "steps=3")
        self.assertEqual(self.bytes("a", "last.safetensors"), self.bytes("b", "last.safetensors"))

    def test_empty_and_missing(self):
        _, err = self.mica("train", self.write("empty.yaml", ""), "--out", self.path("r"), code=3)
        self.assertIn("empty.yaml", err)
        _, err = self.mica("train", self.write("binary.yaml", bytes(range(256))), "--out", self.path("r"), code=3)
        self.assertIn("binary.yaml", err)
        _, err = self.mica("train", self.path("nothing.yaml"), "--out", self.path("r"), code=4)
        self.assertIn("nothing.yaml", err)

    def test_wrong_command_lines(self):
        for words in (["trian"], ["train"], ["train", "a.yaml"], ["eval"], ["op", "--nope"], ["predict", "x"], []):
            self.mica(*words, code=2)

    def test_fewer_steps_shrink_the_schedule(self):
        config = self.write("small.yaml", SMALL.replace("steps: 60", "steps: 600\nschedule: {warmup: 100}"))
        self.mica("train", config, "--out", self.path("r"), "--quiet", "steps=6")


if __name__ == "__main__":
    main()
