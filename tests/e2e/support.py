"""what the end-to-end tests share: running mica, small configurations, reading safetensors."""
import json
import os
import struct
import subprocess
import sys
import tempfile
import unittest

SOURCE = os.environ.get("MICA_SOURCE") or os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BIN = os.environ.get("MICA_BIN") or os.path.join(SOURCE, "build/release/bin")
MICA = os.path.join(BIN, "mica")

# a run of a second or two
SMALL = """family: {name: linear_regression, dim: 3, points: 8, noise: 0.5}
model: {name: transformer, layers: 2, width: 16, heads: 2}
loss: {name: mse}
optimizer: {name: adamw, lr: 2e-3, weight_decay: 0.01}
steps: 60
batch: 16
grain: 4
checkpoint_every: 7
eval_tasks: 64
seed: 3
"""


def data_folder():
    """real data: MICA_DATA, or shared/data beside the tree; None when neither is there"""
    for folder in (os.environ.get("MICA_DATA"), os.path.join(SOURCE, "../shared/data")):
        if folder and os.path.isdir(folder):
            return os.path.abspath(folder)
    return None


def tensors(path):
    """safetensors as {name: (dtype, shape, bytes)} and metadata"""
    with open(path, "rb") as f:
        raw = f.read()
    n = struct.unpack("<Q", raw[:8])[0]
    header = json.loads(raw[8:8 + n])
    meta = header.pop("__metadata__", {})
    return {k: (v["dtype"], v["shape"], raw[8 + n + v["data_offsets"][0]:8 + n + v["data_offsets"][1]])
            for k, v in header.items()}, meta


def floats(entry):
    kind = {"F32": "f", "F64": "d", "I32": "i", "I64": "q"}[entry[0]]
    return list(struct.unpack("<%d%s" % (len(entry[2]) // struct.calcsize(kind), kind), entry[2]))


def write_tensors(path, values, meta=None):
    """values: {name: (shape, list of floats)} as F32"""
    header, data = {}, b""
    for name, (shape, numbers) in values.items():
        part = struct.pack("<%df" % len(numbers), *numbers)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [len(data), len(data) + len(part)]}
        data += part
    if meta:
        header["__metadata__"] = meta
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + data)


class Case(unittest.TestCase):
    def setUp(self):
        self.temporary = tempfile.TemporaryDirectory()
        self.folder = self.temporary.name
        self.addCleanup(self.temporary.cleanup)

    def path(self, *parts):
        return os.path.join(self.folder, *parts)

    def write(self, name, text):
        mode = "wb" if isinstance(text, bytes) else "w"
        with open(self.path(name), mode) as f:
            f.write(text)
        return self.path(name)

    def mica(self, *args, code=0, cwd=None, env=None):
        """run mica, check the exit code, return (stdout, stderr)"""
        result = subprocess.run([MICA, *map(str, args)], capture_output=True, text=True, cwd=cwd,
                                env={**os.environ, **(env or {})}, timeout=600)
        self.assertEqual(result.returncode, code,
                         f"mica {' '.join(map(str, args))}\nstdout: {result.stdout[-2000:]}\nstderr: {result.stderr[-2000:]}")
        return result.stdout, result.stderr

    def json(self, *args, **kwargs):
        """the same with --json; stdout must be exactly one JSON value"""
        out, _ = self.mica(*args, "--json", **kwargs)
        self.assertEqual(out.count("\n"), 1, out[:500])
        return json.loads(out)

    def text(self, *parts):
        return self.bytes(*parts).decode()

    def metrics(self, run):
        """the lines of metrics.jsonl"""
        return [json.loads(line) for line in self.text(run, "metrics.jsonl").splitlines()]

    def bytes(self, *parts):
        with open(self.path(*parts), "rb") as f:
            return f.read()

    def small(self, run="run", *overrides):
        config = self.write("small.yaml", SMALL)
        self.mica("train", config, "--out", self.path(run), "--quiet", *overrides)
        return self.path(run)


def main():
    unittest.main(module=sys.modules["__main__"])
