#!/usr/bin/env python3
"""A recipe trained on the CUDA device beside the CPU, and on several devices beside one.

    training.py MICA [--steps 50] [--device-steps 10] [--devices 1,2,4] [KEY=VALUE ...]

MICA is a program with the CUDA backend: build/simt/bin/mica, build/ptxsim/bin/mica or a GPU's. Red when a step's loss
differs from the CPU's by more than 1e-4 of it, or when any number of devices ends with other bits than one device: the
weights of last.safetensors, and loss and gradient norm of every step. KEY=VALUE settings hold for all runs.
On the SIMT device the race detector is off unless MICA_SIMT_RACE=1 asks for it: a step takes five times as long with it, and
it has looked at every kernel before. Exit code 77 where there is no CUDA device.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile
import time

SOURCES = os.path.normpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
RECIPE = os.path.join(SOURCES, "docs/recipes/linear_regression.yaml")
MOST = 1e-4


def train(mica, run, steps, settings):
    """the lines of metrics.jsonl, one a step, the weights' file, seconds a step; None: not so many devices"""
    from_time = time.time()
    done = subprocess.run([mica, "train", RECIPE, "--out", run, "--quiet", f"steps={steps}", "log_every=1"] + settings,
                          capture_output=True, text=True, env={"PTXSIM_DEVICES": "4", "MICA_SIMT_RACE": "0", **os.environ})
    if done.returncode == 5 and "no CUDA" in done.stderr:
        print("skipped: " + done.stderr.strip())
        sys.exit(77)
    if done.returncode == 3 and "no device cuda:" in done.stderr:
        return None
    if done.returncode:
        sys.exit(f"training.py: {' '.join(settings)}: exit code {done.returncode}: {done.stderr[-2000:]}")
    with open(os.path.join(run, "metrics.jsonl")) as file:
        lines = [json.loads(line) for line in file]
    with open(os.path.join(run, "last.safetensors"), "rb") as file:
        weights = file.read()
    lines = [line for line in lines if "loss" in line and "step" in line]
    if [line["step"] for line in lines] != list(range(1, steps + 1)):
        sys.exit(f"training.py: {' '.join(settings)}: metrics.jsonl has not one line a step")
    return lines, weights, (time.time() - from_time) / steps


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("mica")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--device-steps", type=int, default=10)
    parser.add_argument("--devices", default="1,2,4")
    parser.add_argument("settings", nargs="*", metavar="KEY=VALUE")
    o = parser.parse_intermixed_args()
    red = 0
    with tempfile.TemporaryDirectory() as folder:
        cpu = train(o.mica, os.path.join(folder, "cpu"), o.steps, o.settings + ["device=cpu"])
        cuda = train(o.mica, os.path.join(folder, "cuda"), o.steps, o.settings + ["device=cuda"])
        off = [abs(b["loss"] - a["loss"]) / abs(a["loss"]) for a, b in zip(cpu[0], cuda[0])]
        worst = max(range(o.steps), key=lambda i: off[i])
        print(f"{o.steps} steps beside the CPU: loss off by at most {off[worst]:.2g} (step {worst + 1}; {MOST:g} allowed), "
              f"{cuda[2]:.1f} s a step", flush=True)
        if not off[worst] <= MOST:
            red += 1
            for i, (a, b) in enumerate(zip(cpu[0], cuda[0])):
                print(f"RED step {i + 1}: loss {a['loss']:.9g} on the CPU, {b['loss']:.9g} on CUDA: {off[i]:.2g}")
        first = cuda if o.device_steps == o.steps else None
        for n in [int(n) for n in o.devices.split(",")]:
            if n == 1 and first:
                continue
            got = train(o.mica, os.path.join(folder, f"devices_{n}"), o.device_steps,
                        o.settings + ["device=cuda", f"devices={n}"])
            if not got:
                print(f"skipped: {n} devices: not so many here")
                continue
            if not first:
                first = got
                continue
            keys = ("loss", "grad_norm")
            same = got[1] == first[1] and all(a[k] == b[k] for a, b in zip(first[0], got[0]) for k in keys)
            print(f"{o.device_steps} steps on {n} devices: {'the same bits' if same else 'RED other bits than on one'}", flush=True)
            red += not same
    sys.exit(1 if red else 0)


if __name__ == "__main__":
    main()
