"""one peer in its own process: training steps on command, as bench_train speaks it (see there)."""
import argparse
import json
import os
import sys
import time


def status_bytes(name):
    for line in open("/proc/self/status"):
        if line.startswith(name):
            return 1024 * int(line.split()[1])
    return 0


def torch_form(args):
    import torch
    import transformer_torch as model
    torch.set_num_threads(args.threads)
    base = status_bytes("VmRSS:")
    p, data, s, _ = model.load(args.grad, torch.float32)
    for t in p.values():
        t.requires_grad_(True)
    groups = [{"params": [t for t in p.values() if t.dim() > 1], "weight_decay": s["decay"]},
              {"params": [t for t in p.values() if t.dim() <= 1], "weight_decay": 0.0}]
    opt = torch.optim.AdamW(groups, lr=s["lr"], betas=(s["beta1"], s["beta2"]), eps=s["opt_eps"], fused=True)
    total = model.total_weight(data)
    loss_fn = model.mean_loss
    if args.form == "torch_compile":
        loss_fn = torch.compile(model.mean_loss)
    tasks = data["target"].shape[0]
    micro = args.micro or tasks
    chunks = [{k: v[i:i + micro] for k, v in data.items()} for i in range(0, tasks, micro)]

    def gradient():
        opt.zero_grad(set_to_none=True)
        for chunk in chunks:
            loss_fn(p, s, chunk, total).backward()
        return {k: v.grad for k, v in p.items()}

    def step():
        gradient()
        opt.step()

    return base, step, lambda: {k: v.double().numpy() for k, v in gradient().items()}


def jax_form(args):
    import jax
    import numpy as np
    import torch
    import transformer_jax as model
    import transformer_torch
    base = status_bytes("VmRSS:")
    p, data, s, _ = transformer_torch.load(args.grad, torch.float32)
    total = float(transformer_torch.total_weight(data))
    p = {k: jax.numpy.asarray(v.numpy()) for k, v in p.items()}
    data = {k: jax.numpy.asarray(v.numpy()) for k, v in data.items()}
    tasks = data["target"].shape[0]
    micro = args.micro or tasks
    chunks = [{k: v[i:i + micro] for k, v in data.items()} for i in range(0, tasks, micro)]

    def gradient(p):
        g = None
        for chunk in chunks:
            part = jax.grad(model.mean_loss)(p, s, chunk, total)
            g = part if g is None else {k: g[k] + part[k] for k in g}
        return g

    # the old state is donated: its memory is reused, the best form
    update = jax.jit(lambda p, m, v, t: model.adamw(p, gradient(p), m, v, t, s), donate_argnums=(0, 1, 2))
    grad = jax.jit(gradient)
    state = [p, {k: jax.numpy.zeros_like(v) for k, v in p.items()}, {k: jax.numpy.zeros_like(v) for k, v in p.items()}, 0]

    def step():
        state[3] += 1
        state[:3] = update(state[0], state[1], state[2], float(state[3]))
        jax.block_until_ready(state[0])

    return base, step, lambda: {k: np.asarray(v, np.float64) for k, v in grad(state[0]).items()}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--form", choices=["torch_eager", "torch_compile", "jax_jit"], required=True)
    parser.add_argument("--grad", required=True, help="output of mica grad")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--micro", type=int, default=0, help="tasks a micro-batch; 0: all at once")
    args = parser.parse_args()
    if args.form == "jax_jit":
        # XLA takes its threads from the cores it may run on
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:args.threads])
        os.environ["XLA_FLAGS"] = f"--xla_cpu_multi_thread_eigen={'true' if args.threads > 1 else 'false'}"
    base, step, gradient = (jax_form if args.form == "jax_jit" else torch_form)(args)
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
            open("/proc/self/clear_refs", "w").write("5")
            out = {"reset": True}
        print(json.dumps(out), flush=True)


if __name__ == "__main__":
    main()
