"""mica op: list, describe and single faces on given arrays."""
import math

from support import Case, floats, main, tensors, write_tensors

FACES = ("forward", "backward", "jvp", "backward_jvp")


class Op(Case):
    def test_list_is_complete(self):
        rows = self.json("op", "--list")
        keys = {(r["op"], r["face"], r["backend"], r["dtype"]) for r in rows}
        self.assertEqual(len(keys), len(rows), "each face once")
        for op in {r["op"] for r in rows}:
            for face in FACES:
                self.assertIn((op, face, "ref", "f64"), keys)
                self.assertIn((op, face, "ref", "bf16"), keys)
                self.assertIn((op, face, "cpu", "f32"), keys)

    def test_describe_every_operation(self):
        for op in sorted({r["op"] for r in self.json("op", "--list")}):
            described = self.json("op", op, "--describe")
            self.assertTrue(described["ports"])
            self.mica("op", op, "--describe")

    def run_face(self, op, face, values, *options, **kwargs):
        write_tensors(self.path("in.safetensors"), values)
        self.mica("op", op, "--face", face, "--in", self.path("in.safetensors"), "--out", self.path("out.safetensors"),
                  *options, **kwargs)
        return {k: (v[1], floats(v)) for k, v in tensors(self.path("out.safetensors"))[0].items()}

    def test_linear_with_shared_weight(self):
        values = {"x.v": ([2, 1, 2], [1, 2, 3, 4]), "w.v": ([1, 2], [10, 1]), "b.v": ([1], [0.5]), "y.d": ([2, 1, 1], [1, 2])}
        for backend in ("ref", "cpu"):
            out = self.run_face("linear", "backward", values, "--backend", backend)
            self.assertEqual(out["y.v"], ([2, 1, 1], [12.5, 34.5]))
            self.assertEqual(out["w.d"], ([1, 2], [7, 10]))
            self.assertEqual(out["x.d"], ([2, 1, 2], [10, 1, 20, 2]))
            self.assertEqual(out["b.d"], ([1], [3]))

    def test_an_optional_port_is_left_out(self):
        ones = ([1, 2, 1, 1], [1, 1])
        values = {"q.v": ones, "k.v": ones, "v.v": ([1, 2, 1, 1], [3, 1]), "beta.v": ([1, 2, 1], [1, 0.5])}
        for backend in ("ref", "cpu"):
            out = self.run_face("delta_rule", "forward", values, "--backend", backend)
            self.assertEqual(out["state_out.v"][1], [2])
            out = self.run_face("delta_rule", "forward", values, "--backend", backend, "--set", "state_out=none beta=none")
            self.assertNotIn("state_out.v", out)
            self.assertEqual(out["out.v"][1], [3, 1], "without rates a key's value is overwritten")

    def test_a_ridge_that_cannot_be_solved_spoils_its_own_task_alone(self):
        values = {"x.v": ([2, 2, 1], [1, 1, 1, 1]), "y.v": ([2, 2, 1], [1, 3, 1, 3]), "ridge.v": ([2], [2, -1])}
        for backend in ("ref", "cpu"):
            w = self.run_face("ridge", "forward", values, "--backend", backend)["w.v"][1]
            self.assertEqual(w[0], 1)
            self.assertTrue(math.isnan(w[1]), w)

    def test_a_logistic_regression_that_cannot_be_solved_spoils_its_own_task_alone(self):
        # without a look at the sign of the ridge the second one would end at once, at 0
        values = {"x.v": ([2, 2, 1], [1, 1, 1, 1]), "y.v": ([2, 2, 1], [1, 0, 1, 0]), "ridge.v": ([2], [2, -0.1]),
                  "w.d": ([2, 1, 1], [1, 1])}
        for backend in ("ref", "cpu"):
            out = self.run_face("logistic", "backward", values, "--backend", backend)
            for port, first in (("w.v", 1), ("x.d", 2), ("y.d", 2), ("ridge.d", 1)):
                numbers = out[port][1]
                self.assertTrue(all(math.isfinite(v) for v in numbers[:first]), (port, numbers))
                self.assertTrue(all(math.isnan(v) for v in numbers[first:]), (port, numbers))

    def test_a_logistic_regression_whose_full_newton_steps_go_astray(self):
        rows, y, ridge = [(0.5, 1), (8, 1), (30, 30)], [0.9, 0, 1], 1e-4
        values = {"x.v": ([1, 3, 2], [v for row in rows for v in row]), "y.v": ([1, 3, 1], y), "ridge.v": ([1], [ridge])}
        for backend in ("ref", "cpu"):
            w = self.run_face("logistic", "forward", values, "--backend", backend)["w.v"][1]
            s = [1 / (1 + math.exp(-(row[0] * w[0] + row[1] * w[1]))) for row in rows]
            for i in range(2):  # the slope at the minimum
                self.assertLess(abs(sum((s[r] - y[r]) * rows[r][i] for r in range(3)) + ridge * w[i]), 1e-5, w)

    def test_second_order_of_softplus_like(self):
        # y = tanh(x): td = y.d * f''(x) * t where y.td is zero
        x = 0.7
        out = self.run_face("tanh", "backward_jvp", {"x.v": ([1, 1, 1], [x]), "x.t": ([1, 1, 1], [1]), "y.d": ([1, 1, 1], [2])},
                            "--backend", "ref")
        t = math.tanh(x)
        self.assertAlmostEqual(out["x.td"][1][0], 2 * -2 * t * (1 - t * t), places=6)

    def test_cuda_gives_what_the_cpu_gives(self):
        # the same arrays, shared parameters, all four faces
        if not self.json("info")["devices"]:
            _, err = self.mica("op", "tanh", "--backend", "cuda", "--in", "none", "--out", "none", code=5)
            self.assertIn("cuda", err)
            self.skipTest("no CUDA device")
        draw = lambda n, k: [math.sin(1.3 * i + k) for i in range(n)]
        values = {"x.v": ([2, 2, 3], draw(12, 0)), "w.v": ([3], draw(3, 1)), "b.v": ([3], draw(3, 2)),
                  "x.t": ([2, 2, 3], draw(12, 3)), "w.t": ([3], draw(3, 4)), "y.d": ([2, 2, 3], draw(12, 5)),
                  "y.td": ([2, 2, 3], draw(12, 6))}
        got = {b: self.run_face("layernorm", "backward_jvp", values, "--backend", b) for b in ("cpu", "cuda")}
        self.assertEqual(got["cpu"].keys(), got["cuda"].keys())
        for wire, (shape, numbers) in got["cpu"].items():
            self.assertEqual(shape, got["cuda"][wire][0])
            for a, b in zip(numbers, got["cuda"][wire][1]):
                self.assertAlmostEqual(a, b, delta=1e-5 * (1 + abs(a)), msg=wire)

    def test_errors(self):
        good = {"x.v": ([1, 2, 2], [1, 2, 3, 4])}
        write_tensors(self.path("in.safetensors"), {"y.q": ([1], [1])})
        io = ["--in", self.path("in.safetensors"), "--out", self.path("out.safetensors")]
        _, err = self.mica("op", "tanh", *io, code=4)
        self.assertIn("y.q", err)
        _, err = self.mica("op", "tnah", *io, code=3)
        self.assertIn("tanh", err)
        write_tensors(self.path("in.safetensors"), good)
        _, err = self.mica("op", "tanh", *io, "--dtype", "f64", code=5)
        for word in ("tanh", "forward", "cpu", "f64", "it has", "ref/f64"):
            self.assertIn(word, err)
        write_tensors(self.path("half.safetensors"), good)
        _, err = self.mica("op", "linear", "--in", self.path("half.safetensors"), *io[2:], code=2)
        self.assertIn("w.v is missing", err)
        _, err = self.mica("op", "tanh", *io, "--backend", "cuda", "--dtype", "f64", code=5)
        self.assertIn("cuda", err)
        _, err = self.mica("op", "tanh", *io, "--set", "nothing=1", code=2)
        self.assertIn("nothing", err)
        write_tensors(self.path("in.safetensors"), {"x.v": ([2, 2, 2], [0] * 8), "w.v": ([3, 5], [0] * 15)})
        _, err = self.mica("op", "linear", *io, code=3)
        self.assertIn("I", err)


if __name__ == "__main__":
    main()
