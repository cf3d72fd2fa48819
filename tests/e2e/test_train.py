"""train, eval, report, predict, grad as a user runs them."""
import math
import os
import subprocess

from support import MICA, SMALL, Case, floats, main, tensors, write_tensors


class Train(Case):
    def test_run_folder_explains_itself(self):
        config = self.write("small.yaml", SMALL)
        run = self.path("run")
        summary = self.json("train", config, "--out", run, "--quiet", "steps=20")
        self.assertTrue(summary["finished"])
        lines = self.metrics("run")
        self.assertEqual([line["step"] for line in lines], list(range(1, 21)))
        self.assertTrue(all(math.isfinite(line["loss"]) for line in lines))
        weights, _ = tensors(self.path("run", "last.safetensors"))
        self.assertIn("blocks.1.mlp.down.weight", weights)
        self.assertEqual(weights["blocks.0.attn.qkv.weight"][1], [48, 16])
        # the resolved configuration is a configuration: the same run again, the same weights
        self.mica("train", self.path("run", "config.yaml"), "--out", self.path("again"), "--quiet")
        self.assertEqual(self.bytes("run", "last.safetensors"), self.bytes("again", "last.safetensors"))

    def test_soft_prompts_adapt(self):
        config = self.write("prompts.yaml", """
family: {name: few_shot_sinusoid, support: 5, query: 4}
model: {name: transformer, layers: 1, width: 8, heads: 2, prompt_length: 3, init: 0.3}
inner: {steps: 2, lr: 0.05, trained: 'prompt.*'}
batch: 6
grain: 2
steps: 6
""")
        self.mica("train", config, "--out", self.path("one"), "--quiet", "threads=1")
        weights, _ = tensors(self.path("one", "last.safetensors"))
        self.assertEqual(weights["prompt.weight"][1], [3, 8])
        # any threads, and the tasks in one launch, the same bits
        self.mica("train", config, "--out", self.path("two"), "--quiet", "threads=2")
        self.assertEqual(self.bytes("one", "last.safetensors"), self.bytes("two", "last.safetensors"))
        self.assertTrue(math.isfinite(self.json("eval", self.path("one"), "--tasks", "20")["loss"]))

    def test_loss_falls(self):
        self.small("run", "family.dim=1", "steps=600", "batch=64", "model.width=32", "checkpoint_every=0")
        lines = self.metrics("run")
        first = sum(line["loss"] for line in lines[:20]) / 20
        last = sum(line["loss"] for line in lines[-20:]) / 20
        self.assertLess(last, 0.7 * first)

    def test_eval_has_exact_predictor(self):
        run = self.small("run", "steps=5")
        result = self.json("eval", run)
        self.assertEqual(len(result["loss_by_position"]), 8)
        self.assertEqual(len(result["exact_loss_by_position"]), 8)
        self.assertGreater(result["loss"], result["exact_loss"])
        # at position 1 nothing is known: prior variance dim + noise^2
        many = self.json("eval", run, "--tasks", "4000")
        self.assertAlmostEqual(many["exact_loss_by_position"][0], 3.25, delta=0.5)
        # the same tasks, the same numbers
        first, second = self.json("eval", run), self.json("eval", run)
        first.pop("seconds"), second.pop("seconds")
        self.assertEqual(first, second)

    def test_report_is_one_page(self):
        run = self.small("run", "steps=20")
        self.mica("report", run)
        page = self.text("run", "report.html")
        self.assertGreaterEqual(page.count("<svg"), 3)
        for outside in ("src=\"http", "href=\"http", "@import"):
            self.assertNotIn(outside, page)

    def test_predict_own_points(self):
        run = self.small("run", "steps=5")
        rows = "\n".join("%g,%g,%g,%s" % (i, -i, 0.5, "nan" if i == 4 else i) for i in range(5))
        result = self.json("predict", run, "--in", self.write("points.csv", "a,b,c,y\n" + rows + "\n"), "--out",
                           self.path("out.csv"))
        self.assertEqual(result["sequences"], 1)
        lines = [line.split(",") for line in self.text("out.csv").splitlines()]
        self.assertEqual(lines[0], ["sequence", "position", "loss", "y0"])
        self.assertEqual([line[:2] for line in lines[1:]], [["1", str(i + 1)] for i in range(5)])
        self.assertEqual([line[2] != "" for line in lines[1:]], [True] * 4 + [False], "the loss where the answer is known")
        # the same as text: what is known, by position
        out, _ = self.mica("predict", run, "--in", self.path("points.csv"), "--out", self.path("out.npy"))
        table = [line.split() for line in out.split("position loss\n")[1].splitlines()]
        self.assertEqual(table, [[str(i + 1), "%.4f" % v] for i, v in enumerate(result["loss_by_position"][:4])])
        self.assertEqual(self.bytes("out.npy")[:6], b"\x93NUMPY")

    def test_byte_model_by_position(self):
        """bits by position, as JSON of each and as tables of means over about twenty spans"""
        text = self.write("text.txt", "".join("%d times %d is %d. " % (i, i + 1, i * (i + 1)) for i in range(200)))
        config = self.write("bytes.yaml", f"family: {{name: bytes, path: {text}, length: 30, test_windows: 0}}\n"
                            "model: {name: transformer, layers: 1, width: 16, heads: 2}\nloss: {name: cross_entropy}\n"
                            "steps: 20\nbatch: 8\ngrain: 4\noptimizer: {lr: 1e-2}\n")
        run = self.path("run")
        self.mica("train", config, "--out", run, "--quiet")
        letter = self.write("letter.bin", bytes(range(200)))
        predict = ["predict", run, "--in", letter, "--out", self.path("o.csv")]
        cases = ((self.json("eval", run), self.mica("eval", run)[0], "bits by position\n"),
                 (self.json(*predict), self.mica(*predict)[0], "\n\n"))
        for result, out, before in cases:
            bits = result["bits_by_position"]
            self.assertEqual(len(bits), 30)
            for a, b in zip(bits, result["loss_by_position"]):
                self.assertAlmostEqual(a, b / math.log(2), places=6)
            rows = [line.split()[:2] for line in out.split(before)[1].splitlines()[1:]]
            self.assertEqual([row[0] for row in rows], ["%d-%d" % (k + 1, k + 2) for k in range(0, 30, 2)])
            for k in range(9):  # only the last window is shorter, and it has 20
                self.assertAlmostEqual(float(rows[k][1]), (bits[2 * k] + bits[2 * k + 1]) / 2, places=3)
        lines = self.text("o.csv").splitlines()
        self.assertEqual([len(lines), lines[-1].split(",")[:3]], [201, ["7", "20", "199"]])

    def test_grad_and_hvp(self):
        config = self.write("small.yaml", SMALL)
        out = self.path("g.safetensors")
        self.mica("grad", config, "--out", out, "--dtype", "f64", "batch=4")
        self.mica("grad", config, "--out", self.path("again.safetensors"), "--dtype", "f64", "batch=4")
        self.assertEqual(self.bytes("g.safetensors"), self.bytes("again.safetensors"))
        g, meta = tensors(out)
        self.assertEqual(meta["model.layers"], "2")
        names = [k[5:] for k in g if k.startswith("init/")]
        self.assertTrue(names and all("grad/" + n in g for n in names))
        # hvp along v against the difference of gradients at init + h v and init - h v, in double
        direction = {"dir/" + n: (g["init/" + n][1], [((i * 37 + len(n)) % 11 - 5) / 8 for i in
                                                      range(len(g["init/" + n][2]) // 8)]) for n in names}
        write_tensors(self.path("v.safetensors"), direction)
        self.mica("grad", config, "--out", out, "--dtype", "f64", "batch=4", "--direction", self.path("v.safetensors"))
        h, _ = tensors(out)
        self.assertTrue(all("hvp/" + n in h for n in names))
        self.assertTrue(any(abs(x) > 0 for n in names for x in floats(h["hvp/" + n])))
        # symmetric: the same product at f32 is near
        self.mica("grad", config, "--out", self.path("f.safetensors"), "batch=4", "--direction", self.path("v.safetensors"))
        f, _ = tensors(self.path("f.safetensors"))
        for kind in ("grad/", "hvp/"):
            top = sum((a - b) ** 2 for n in names for a, b in zip(floats(f[kind + n]), floats(h[kind + n])))
            norm = sum(b * b for n in names for b in floats(h[kind + n]))
            self.assertLess(math.sqrt(top / norm), 1e-4, kind)

    def test_help_everywhere(self):
        out, _ = self.mica("--help")
        for command in ("train", "eval", "predict", "op", "grad", "report", "tasks", "info"):
            self.assertIn(command, out)
            text, _ = self.mica(command, "--help")
            self.assertIn("mica " + command, text)
        self.assertTrue(os.path.exists(MICA))


class Streams(Case):
    def test_json_is_alone_on_stdout(self):
        for command in (["info"], ["tasks"], ["op", "--list"]):
            self.json(*command)

    def test_quarantine_keeps_training(self):
        # a learning rate that blows the model up must not end in silence or a crash
        config = self.write("small.yaml", SMALL)
        result = subprocess.run([MICA, "train", config, "--out", self.path("run"), "--quiet",
                                               "optimizer.lr=1000", "model.init=10", "optimizer.clip=0"], capture_output=True, text=True)
        self.assertIn(result.returncode, (0, 6), result.stderr)
        if result.returncode == 6:
            self.assertIn("finite", result.stderr)


if __name__ == "__main__":
    main()
