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
        self.assertGreaterEqual(len(self.text("out.csv").splitlines()), 5)

    def test_grad_and_hvp(self):
        config = self.write("small.yaml", SMALL)
        out = self.path("g.safetensors")
        self.mica("grad", config, "--out", out, "--dtype", "f64", "batch=4")
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
