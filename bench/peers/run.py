#!/usr/bin/env python3
"""mica and its peers side by side: same weights, same data, same work, interleaved in one session.

first every form's gradient is compared with PyTorch's in float64; a form that is off is not timed. then rounds of steps
(forward + backward + AdamW, fp32) are run in turn, and medians, ratios and peak memory are printed.

examples:
  build/peers/bin/python bench/peers/run.py w5
  build/peers/bin/python bench/peers/run.py w4 --threads 1 2 --rounds 7 --json w4.json
"""
import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))

# recipe, steps a round, overrides
WORKLOADS = {
    # the whole length: its curriculum starts short
    "w4": ("docs/recipes/icl_linreg_w4.yaml", 1, ["family.points_start=0", "family.dim_start=0"]),
    "w5": ("docs/recipes/linreg_w5.yaml", 2, []),
    "small": ("docs/recipes/linear_regression.yaml", 10, []),
}
# leaves out what the peers do not do
SAME_WORK = ["optimizer.clip=0", "checkpoint_every=0"]
FORMS = ["torch_eager", "torch_compile", "jax_jit"]
TOLERANCE = 2e-4  # relative error of the whole gradient in fp32


class Process:
    """a worker that answers one JSON line to each command"""

    def __init__(self, command):
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        self.answer()

    def answer(self):
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"a worker ended: {self.process.args}")
        return json.loads(line)

    def ask(self, text):
        self.process.stdin.write(text + "\n")
        self.process.stdin.flush()
        return self.answer()

    def close(self):
        self.process.stdin.write("quit\n")
        self.process.stdin.flush()
        self.process.wait()


def float64_gradient(path):
    import torch
    import transformer_torch as model
    p, data, s, raw = model.load(path, torch.float64)
    for t in p.values():
        t.requires_grad_(True)
    model.mean_loss(p, s, data, model.total_weight(data)).backward()
    mica = {k[5:]: v.double().numpy() for k, v in raw.items() if k.startswith("grad/")}
    return {k: v.grad.numpy() for k, v in p.items()}, mica


def error(a, exact):
    """|a - exact| / |exact| over all parameters"""
    import numpy as np
    top = sum(float(((a[k] - exact[k]) ** 2).sum()) for k in exact)
    return float(np.sqrt(top / sum(float((exact[k] ** 2).sum()) for k in exact)))


def measure(args, workload, threads, folder):
    recipe, steps, settings = workload
    overrides = SAME_WORK + settings + [f"threads={threads}", "steps=100000"] + args.set
    grad = os.path.join(folder, "grad.safetensors")
    subprocess.run([args.bin + "/mica", "grad", recipe, "--out", grad] + overrides, check=True, cwd=ROOT,
                   stdout=subprocess.DEVNULL)
    exact, mica_grad = float64_gradient(grad)
    errors = {"mica": error(mica_grad, exact)}
    forms = {"mica": Process([args.bin + "/bench_train", recipe] + overrides)}
    info = forms["mica"].ask("info")
    for form in args.forms:
        forms[form] = Process([sys.executable, HERE + "/worker.py", "--form", form, "--grad", grad, "--threads",
                               str(threads), "--micro", str(info["launch_tasks"] if args.micro else 0)])
        saved = os.path.join(folder, form + ".npz")
        forms[form].ask("grad " + saved)
        import numpy as np
        errors[form] = error(dict(np.load(saved)), exact)
    bad = [name for name, e in errors.items() if not e < TOLERANCE]
    for name in bad:
        print(f"  {name}: gradient is off by {errors[name]:.1e}, not timed", file=sys.stderr)
        forms.pop(name).close()
    times = {name: [] for name in forms}
    for process in forms.values():
        process.ask(f"steps {max(2, steps)}")  # compile, fault pages in
        process.ask("reset")
    for _ in range(args.rounds):
        for name, process in forms.items():
            times[name] += process.ask(f"steps {steps}")["seconds"]
    rows = {}
    for name, process in forms.items():
        memory = process.ask("memory")
        rows[name] = {"median_ms": 1e3 * statistics.median(times[name]), "min_ms": 1e3 * min(times[name]),
                      "max_ms": 1e3 * max(times[name]), "error": errors[name],
                      # beyond parameters, gradients and two moments
                      "extra_mib": (memory["peak"] - memory["base"] - 16 * info["params"]) / 2**20}
        process.close()
    return rows, info


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workload", nargs="+", choices=list(WORKLOADS))
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--forms", nargs="+", default=FORMS, choices=FORMS)
    parser.add_argument("--micro", action="store_true", help="peers micro-batched as mica's launches (for memory)")
    parser.add_argument("--bin", default=ROOT + "/build/release/bin")
    parser.add_argument("--set", nargs="*", default=[], help="more overrides for mica, KEY=VALUE")
    parser.add_argument("--json", help="write all figures here")
    args = parser.parse_args()
    sys.path.insert(0, HERE)
    import jax
    import torch
    cpu = next((l.split(":")[1].strip() for l in open("/proc/cpuinfo") if l.startswith("model name")), "?")
    versions = f"{cpu}, {os.cpu_count()} cores; torch {torch.__version__}, jax {jax.__version__}, Python {platform.python_version()}"
    print(versions)
    figures = {"machine": versions, "rows": []}
    for name in args.workload:
        for threads in args.threads:
            with tempfile.TemporaryDirectory() as folder:
                rows, info = measure(args, WORKLOADS[name], threads, folder)
            best = min((r["median_ms"], n) for n, r in rows.items() if n != "mica") if len(rows) > 1 else (0, "-")
            print(f"\n{name}: {WORKLOADS[name][0]}, {threads} thread(s), launches of {info['launch_tasks']} tasks"
                  f"{', peers micro-batched alike' if args.micro else ''}")
            print(f"  {'form':14} {'median ms':>10} {'min':>9} {'max':>9} {'x mica':>7} {'error':>8} {'extra MiB':>10}")
            for form, r in sorted(rows.items(), key=lambda item: item[1]["median_ms"]):
                ratio = r["median_ms"] / rows["mica"]["median_ms"] if "mica" in rows else float("nan")
                print(f"  {form:14} {r['median_ms']:10.2f} {r['min_ms']:9.2f} {r['max_ms']:9.2f} {ratio:7.2f} "
                      f"{r['error']:8.1e} {r['extra_mib']:10.1f}")
                figures["rows"].append({"workload": name, "threads": threads, "form": form, "micro": args.micro, **r})
            if "mica" in rows and best[0]:
                print(f"  mica is {best[0] / rows['mica']['median_ms']:.2f} x the fastest peer ({best[1]})")
    if args.json:
        with open(args.json, "w") as f:
            json.dump(figures, f, indent=1)


if __name__ == "__main__":
    main()
