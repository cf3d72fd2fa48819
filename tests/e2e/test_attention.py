"""second derivatives through a 4-layer transformer against PyTorch's double backward in float64 (golden file)."""
import os

from support import SOURCE, Case, floats, main, tensors, write_tensors


class Attention(Case):
    def setUp(self):
        super().setUp()
        self.golden, meta = tensors(os.path.join(SOURCE, "tests/golden/attention_hvp.safetensors"))
        self.config = self.write("c.yaml", meta["config"])
        self.names = [k[5:] for k in self.golden if k.startswith("init/")]
        for kind, prefix, file in (("init/", "", "w.safetensors"), ("dir/", "dir/", "v.safetensors")):
            write_tensors(self.path(file), {prefix + n: (self.golden[kind + n][1], floats(self.golden[kind + n]))
                                            for n in self.names})

    def run_grad(self, dtype):
        out = self.path(dtype + ".safetensors")
        self.mica("grad", self.config, "--out", out, "--dtype", dtype, "--weights", self.path("w.safetensors"),
                  "--direction", self.path("v.safetensors"))
        return tensors(out)[0]

    def worst(self, got, kind, name):
        want = floats(self.golden[kind + name])
        return max(abs(a - b) for a, b in zip(floats(got[kind + name]), want)), max(map(abs, want))

    def test_reference(self):
        got = self.run_grad("f64")
        for name in [k[5:] for k in self.golden if k.startswith("data/")]:
            self.assertEqual(floats(got[name]), floats(self.golden["data/" + name]), name)
        most = {kind: max(self.worst(got, kind, n)[1] for n in self.names) for kind in ("grad/", "hvp/")}
        for kind in ("grad/", "hvp/"):
            for name in self.names:
                error, scale = self.worst(got, kind, name)
                self.assertLessEqual(error, 1e-10 * max(scale, 1e-6 * most[kind]), kind + name)

    def test_kernels_in_fp32(self):
        got = self.run_grad("f32")
        for name in self.names:
            error, scale = self.worst(got, "hvp/", name)
            naive = floats(self.golden["naive/" + name])[0]
            self.assertLessEqual(error, 2 * naive + 4 * 2.0 ** -23 * scale, name)


main()
