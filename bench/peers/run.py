#!/usr/bin/env python3
"""mica and its peers side by side: same input, same work, interleaved in one session.

first every form's results are compared with float64 ones; a form that is off is not timed. then rounds are run in turn, and
medians, ratios and peak memory are printed. workloads: see README.md here, and --list.

examples:
  build/peers/bin/python bench/peers/run.py w5
  build/peers/bin/python bench/peers/run.py w4 --threads 1 2 --rounds 7 --json w4.json
  build/peers/bin/python bench/peers/run.py linear_tasks --jobs gradient
"""
import argparse
import fnmatch
import json
import math
import os
import platform
import select
import statistics
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path.insert(0, HERE)
import workload  # noqa: E402

# leaves out what the peers do not do
SAME_WORK = ["optimizer.clip=0", "checkpoint_every=0"]


class Ended(RuntimeError):
    pass


class Process:
    """a worker that answers one JSON line to each line, within `wait` seconds: compilers and thread pools of peers may hang"""
    wait = 900

    def __init__(self, command):
        self.errors = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors,
                                        text=True, cwd=ROOT)
        self.answer()

    def answer(self):
        if not select.select([self.process.stdout], [], [], self.wait)[0]:  # lines come one for one: none is in the buffer
            self.process.kill()
            self.process.wait()
            raise Ended(f"no answer in {self.wait} s (--wait)")
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            self.errors.seek(0)
            lines = [w.strip() for w in self.errors.read().splitlines() if w.strip()]
            raise Ended(lines[-1][:200] if lines else f"exit code {self.process.returncode}")
        return json.loads(line)

    def ask(self, text):
        try:
            self.process.stdin.write(text + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass
        return self.answer()

    def close(self):
        if self.process.poll() is None:
            self.process.stdin.write("quit\n")
            self.process.stdin.flush()
            self.process.wait()


def error(a, exact):
    """|a - exact| / |exact| over all arrays"""
    import numpy as np
    top = sum(float(((a[k] - exact[k]) ** 2).sum()) for k in exact)
    return float(np.sqrt(top / sum(float((exact[k] ** 2).sum()) for k in exact)))


def worst_error(a, exact):
    """the largest |a - exact| / |exact| of an array; one that is zero counts by the largest of the others"""
    import numpy as np
    size = {k: float(np.sqrt((exact[k] ** 2).sum())) for k in exact}
    most = max(size.values())
    return max(float(np.sqrt(((a[k] - exact[k]) ** 2).sum())) / (size[k] if size[k] > 1e-9 * most else most) for k in exact)


def saved(process, folder):
    """the results of a peer's form"""
    import numpy as np
    path = os.path.join(folder, "result.npz")
    process.ask("grad " + path)
    return dict(np.load(path))


def start_peers(args, work, job, file, threads, micro, folder, forms, check, exact, timed=None):
    """form -> process of those that compute the right thing; errors of all. timed: a file beside the one that is compared"""
    processes, errors = {}, {}
    for form in forms:
        if args.forms and not any(fnmatch.fnmatch(form, pattern) for pattern in args.forms):
            continue
        command = [sys.executable, HERE + "/worker.py", "--workload", work.name, "--form", form, "--job", job,
                   "--threads", str(threads), "--micro", str(micro), "--device", args.device, "--file"]
        try:
            process = Process(command + [file])
            errors[form] = check(saved(process, folder), exact)
            if timed:
                process.close()
                process = Process(command + [timed])
            processes[form] = process
        except Ended as failure:
            print(f"  {form}: cannot do it: {failure}", file=sys.stderr)
    return processes, errors


def interleave(args, processes, steps_of):
    """form -> seconds of its steps, in rounds by turn; workers are warm and start a new peak of memory"""
    times, steps = {}, {}

    def ask(name, text):
        """an answer's seconds; None where the form ended: it is out"""
        try:
            return processes[name].ask(text)["seconds"]
        except Ended as failure:
            print(f"  {name}: ended while it was timed: {failure}", file=sys.stderr)
            processes.pop(name)
            times.pop(name)

    for name in list(processes):
        times[name] = []
        warm = ask(name, "steps 2")  # compile, fault pages in
        if warm:
            steps[name] = steps_of(min(warm))
            processes[name].ask("reset")
    order = list(processes)
    for _ in range(args.rounds):
        for name in [n for n in order if n in processes]:
            times.get(name, []).extend(ask(name, f"steps {steps[name]}") or [])
        order = order[1:] + order[:1]  # nobody always runs after the same neighbour
    return times


def drop_wrong(processes, errors, tolerance):
    for name in [n for n, e in errors.items() if not e < tolerance]:
        print(f"  {name}: result is off by {errors[name]:.1e}, not timed", file=sys.stderr)
        processes.pop(name).close()


def row(times, memory, error, extra):
    return {"median_ms": 1e3 * statistics.median(times), "min_ms": 1e3 * min(times), "max_ms": 1e3 * max(times),
            "steps": len(times), "error": error, "extra_mib": extra / 2**20}


def measure_job(args, work, threads, folder):
    overrides = [o.replace("{bin}", os.path.abspath(args.bin)) for o in SAME_WORK + list(work.settings)]
    overrides += [f"threads={threads}", "steps=100000", f"device={args.device}"] + args.set
    grad = os.path.join(folder, "grad.safetensors")
    from safetensors.numpy import load_file
    timed = os.path.join(folder, "timed.safetensors") if work.compared else None
    processes, errors, exact = {}, {}, None

    def mica_grad(file, more):
        subprocess.run([args.bin + "/mica", "grad", work.recipe, "--out", file] + overrides + list(more), check=True, cwd=ROOT,
                       stdout=subprocess.DEVNULL)

    if timed:
        mica_grad(timed, ())
    for form, more in work.mica.items():
        file = grad if exact is None else os.path.join(folder, form + ".safetensors")
        mica_grad(file, (*work.compared, *more))
        exact = exact or work.exact(grad)
        errors[form] = error({k[5:]: v for k, v in load_file(file).items() if k.startswith("grad/")}, exact)
        processes[form] = Process([args.bin + "/bench_train", work.recipe] + overrides + list(more))
    info = next(iter(processes.values())).ask("info")
    micro = info["launch_tasks"] if args.micro else 0
    peers, wrong = start_peers(args, work, "gradient", grad, threads, micro, folder, work.forms, error, exact, timed)
    processes.update(peers)
    errors.update(wrong)
    drop_wrong(processes, errors, work.tolerance)
    times = interleave(args, processes, lambda seconds: max(1, min(50, int(args.seconds / seconds))))
    rows = {}
    for name, process in processes.items():
        memory = process.ask("memory")
        extra = memory["peak"] - memory["base"] - work.bytes_a_param * info["params"]
        rows[name] = row(times[name], memory, errors[name], extra if args.device == "cpu" else float("nan"))  # the host's
        process.close()
    title = f"{work.recipe}, launches of {info['launch_tasks']} tasks{', peers micro-batched alike' if args.micro else ''}"
    title += f", results compared with {' '.join(work.compared)}" if timed else ""
    return rows, title


def exact_op(work, arrays, job):
    """{port.d, port.td: float64}"""
    import numpy as np
    import op_forms
    import torch
    run = op_forms.build_torch(work, f"torch_eager:{next(iter(work.torch))}", job, arrays, os.cpu_count(), torch.float64)
    d, td = run()
    return {f"{k}.{wire}": np.asarray(v) for wire, part in (("d", d), ("td", td)) for k, v in (part or {}).items()}


def op_ports(work, job):
    """values, tangents and output cotangents; which outputs there are says the peer's own function"""
    import numpy as np
    import torch
    rng = np.random.default_rng(2)
    arrays = {}
    inputs = work.arrays()
    with torch.no_grad():
        ports = {k: torch.from_numpy(v) if v.dtype.kind == "f" else torch.from_numpy(v).long() for k, v in inputs.items()}
        outputs = work.outputs(next(iter(work.torch.values()))(ports))
    for k, v in inputs.items():
        arrays[k + ".v"] = v
        if job == "hvp" and v.dtype.kind == "f":
            arrays[k + ".t"] = rng.standard_normal(v.shape).astype(np.float32)
    for k, v in outputs.items():
        arrays[k + ".d"] = rng.standard_normal(tuple(v.shape)).astype(np.float32)
    return arrays


def measure_op(args, work, job, threads, folder):
    import op_forms
    from safetensors.numpy import load_file, save_file
    arrays = op_ports(work, job)
    ports, out = os.path.join(folder, "ports.safetensors"), os.path.join(folder, "out.safetensors")
    save_file(arrays, ports)
    exact = exact_op(work, arrays, job)
    face = "backward" if job == "gradient" else "backward_jvp"
    mica = Process([args.bin + "/bench_op", work.op, face, ports, str(threads)] + list(work.settings))
    ready = mica.ask("memory")["rss"]
    mica.ask("steps 1")
    mica.ask("write " + out)
    results = load_file(out)
    written = sum(v.nbytes for v in results.values())
    peers, errors = start_peers(args, work, job, ports, threads, 0, folder, op_forms.names(work, job), worst_error, exact)
    processes = {"mica": mica, **peers}
    errors["mica"] = worst_error(results, exact)
    drop_wrong(processes, errors, work.tolerance)
    times = interleave(args, processes, lambda seconds: max(1, min(200, int(args.seconds / seconds))))
    rows = {}
    for name, process in processes.items():
        memory = process.ask("memory")
        # beyond the inputs: results and all that lies between
        extra = memory["peak"] - ready + written if name == "mica" else memory["peak"] - memory["base"]
        rows[name] = row(times[name], memory, errors[name], extra)
        process.close()
    shapes = " ".join(f"{k}{tuple(v.shape)}".replace(" ", "") for k, v in work.arrays().items())
    return rows, f"{work.op} {' '.join(work.settings)} {job}: {shapes}"


def report(figures, name, job, threads, rows, title, micro):
    print(f"\n{name}: {title}; {threads} thread(s)")
    print(f"  {'form':24} {'median ms':>10} {'min':>9} {'max':>9} {'x mica':>7} {'error':>8} {'extra MiB':>10}")
    for form, r in sorted(rows.items(), key=lambda item: item[1]["median_ms"]):
        ratio = r["median_ms"] / rows["mica"]["median_ms"] if "mica" in rows else float("nan")
        print(f"  {form:24} {r['median_ms']:10.3f} {r['min_ms']:9.3f} {r['max_ms']:9.3f} {ratio:7.2f} {r['error']:8.1e} "
              f"{r['extra_mib']:10.1f}")
        figures.append({"workload": name, "job": job, "threads": threads, "form": form, "micro": micro, **r})
    peers = {form: r for form, r in rows.items() if not form.startswith("mica")}
    for form in [f for f in rows if f.startswith("mica") and peers]:
        fastest = min(peers, key=lambda form: peers[form]["median_ms"])
        leanest = min(peers, key=lambda form: peers[form]["extra_mib"])
        text = f"  {form} is {peers[fastest]['median_ms'] / rows[form]['median_ms']:.2f} x the fastest peer ({fastest})"
        if not math.isnan(rows[form]["extra_mib"]):
            text += (f"; its extra memory is {rows[form]['extra_mib'] / max(peers[fastest]['extra_mib'], 1e-3):.2f} of that "
                     f"peer's, {rows[form]['extra_mib'] / max(peers[leanest]['extra_mib'], 1e-3):.2f} of the leanest's ({leanest})")
        print(text)
    sys.stdout.flush()


def main():
    works = workload.load()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workload", nargs="*", help="names, * and ? may be used")
    parser.add_argument("--list", action="store_true", help="workloads and their forms")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.15, help="of one form in one round; at least one step")
    parser.add_argument("--wait", type=int, default=Process.wait, help="seconds for a form to answer, compiling included; then it is out")
    parser.add_argument("--forms", nargs="+", help="only these peers; * and ? may be used")
    parser.add_argument("--jobs", nargs="+", choices=["gradient", "hvp"], help="of single operations; default: as the workload says")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"], help="cuda: whole jobs on a GPU (--bin build/cuda/bin)")
    parser.add_argument("--micro", action="store_true", help="peers micro-batched as mica's launches (for memory)")
    parser.add_argument("--bin", default=ROOT + "/build/release/bin")
    parser.add_argument("--set", nargs="*", default=[], help="more overrides of a whole job, KEY=VALUE")
    parser.add_argument("--json", help="write all figures here")
    args = parser.parse_args()
    Process.wait = args.wait
    if args.list or not args.workload:
        for work in works.values():
            forms = list(work.forms) if isinstance(work, workload.Job) else [f"torch:{k}" for k in work.torch] + [f"jax:{k}" for k in work.jax]
            print(f"{work.name:24} {getattr(work, 'recipe', None) or work.op + ' ' + ' '.join(work.jobs):40} {' '.join(forms)}")
        return
    chosen = [n for n in works if any(fnmatch.fnmatch(n, pattern) for pattern in args.workload)]
    if not chosen:
        parser.error(f"no workload '{' '.join(args.workload)}'; there are {' '.join(works)}")
    from importlib.metadata import version
    if args.device == "cuda" and any(isinstance(works[name], workload.Op) for name in chosen):
        parser.error("--device cuda runs whole jobs; bench_ops --backend cuda times single operations")
    cpu = next((l.split(":")[1].strip() for l in open("/proc/cpuinfo") if l.startswith("model name")), "?")
    machine = (f"{cpu}, {os.cpu_count()} cores; torch {version('torch')}, jax {version('jax')}, Python {platform.python_version()}")
    print(machine)
    figures = []
    for name in chosen:
        work = works[name]
        for threads in args.threads:
            for job in ["train"] if isinstance(work, workload.Job) else [j for j in work.jobs if j in (args.jobs or work.jobs)]:
                with tempfile.TemporaryDirectory() as folder:
                    rows, title = (measure_job(args, work, threads, folder) if job == "train" else
                                   measure_op(args, work, job, threads, folder))
                report(figures, name, job, threads, rows, title, args.micro)
    if args.json:
        with open(args.json, "w") as f:
            json.dump({"machine": machine, "rows": figures}, f, indent=1)


if __name__ == "__main__":
    main()
