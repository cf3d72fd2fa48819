"""one peer in its own process: steps on command, one JSON line out for each line in (see ../bench_worker.h)."""
import argparse
import ctypes
import gc
import json
import os
import sys
import time

import workload


def status_bytes(name):
    for line in open("/proc/self/status"):
        if line.startswith(name):
            return 1024 * int(line.split()[1])
    return 0


def start_library(form, threads, device):
    """imports and a first small product, so that what libraries keep for themselves is not counted as the job's"""
    if device == "cuda":
        os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    elif form.startswith("jax"):
        os.environ["JAX_PLATFORMS"] = "cpu"
    if form.startswith("jax"):
        # XLA takes its threads from the cores it may run on
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
        os.environ["XLA_FLAGS"] = f"--xla_cpu_multi_thread_eigen={'true' if threads > 1 else 'false'}"
        import jax
        jax.block_until_ready(jax.jit(lambda a: a @ a)(jax.numpy.ones((64, 64))))
    else:
        import torch
        torch.set_num_threads(threads)
        a = torch.ones(64, 64, requires_grad=True, device=device)
        (a @ a).sum().backward()


def job_steps(job, args):
    base = status_bytes("VmRSS:")
    step, gradient = job.forms[args.form](args.file, args.threads, args.micro, *(["cuda"] if args.device == "cuda" else []))
    return base, step, gradient


def op_steps(op, args):
    import numpy as np
    import op_forms
    from safetensors.numpy import load_file
    arrays = load_file(args.file)
    if args.form.startswith("jax"):
        run = op_forms.build_jax(op, args.form, args.job, arrays)
    else:
        run = op_forms.build_torch(op, args.form, args.job, arrays, args.threads)
    del arrays
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    base = status_bytes("VmRSS:")  # inputs are there; results and what lies between count

    def gradient():
        d, td = run()
        return {f"{k}.{wire}": np.asarray(v, np.float64) for wire, part in (("d", d), ("td", td)) for k, v in (part or {}).items()}

    return base, run, gradient


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--workload", required=True)
    parser.add_argument("--form", required=True)
    parser.add_argument("--job", default="gradient", help="of one operation: gradient or hvp")
    parser.add_argument("--file", required=True, help="output of mica grad, or ports of an operation")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--micro", type=int, default=0, help="tasks a micro-batch; 0: all at once")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    args = parser.parse_args()
    start_library(args.form, args.threads, args.device)
    work = workload.load()[args.workload]
    base, step, gradient = (job_steps if isinstance(work, workload.Job) else op_steps)(work, args)
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        words = line.split()
        if words[0] == "quit":
            break
        if words[0] == "steps":
            seconds = []
            for _ in range(int(words[1])):
                start = time.perf_counter()
                step()
                seconds.append(time.perf_counter() - start)
            out = {"seconds": seconds}
        elif words[0] == "grad":
            import numpy as np
            np.savez(words[1], **gradient())
            out = {"saved": words[1]}
        elif words[0] == "memory":
            out = {"base": base, "peak": status_bytes("VmHWM:"), "rss": status_bytes("VmRSS:")}
        elif words[0] == "reset":
            gc.collect()
            ctypes.CDLL(None).malloc_trim(0)  # what compilers left behind
            open("/proc/self/clear_refs", "w").write("5")
            out = {"reset": True}
        print(json.dumps(out), flush=True)


if __name__ == "__main__":
    main()
