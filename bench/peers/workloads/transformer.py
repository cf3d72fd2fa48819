"""training a transformer in context: forward, backward and AdamW, fp32. published sizes and the quickstart's."""
from workload import Job


def build_torch(path, threads, micro, device="cpu", compiled=False):
    import torch
    import transformer_torch as model
    p, data, s, _ = model.load(path, torch.float32, device)
    for t in p.values():
        t.requires_grad_(True)
    groups = [{"params": [t for t in p.values() if t.dim() > 1], "weight_decay": s["decay"]},
              {"params": [t for t in p.values() if t.dim() <= 1], "weight_decay": 0.0}]
    opt = torch.optim.AdamW(groups, lr=s["lr"], betas=(s["beta1"], s["beta2"]), eps=s["opt_eps"], fused=True)
    total = model.total_weight(data)
    # on a GPU launches cost more than small kernels: its best form replays CUDA graphs
    mode = "reduce-overhead" if device == "cuda" else "default"
    loss_fn = torch.compile(model.mean_loss, mode=mode) if compiled else model.mean_loss
    tasks = data["target"].shape[0]
    micro = micro or tasks
    chunks = [{k: v[i:i + micro] for k, v in data.items()} for i in range(0, tasks, micro)]

    def gradient():
        opt.zero_grad(set_to_none=True)
        for chunk in chunks:
            loss_fn(p, s, chunk, total).backward()
        return {k: v.grad for k, v in p.items()}

    def step():
        gradient()
        opt.step()
        if device == "cuda":
            torch.cuda.synchronize()

    return step, lambda: {k: v.double().cpu().numpy() for k, v in gradient().items()}


def build_jax(path, threads, micro, device="cpu"):
    import jax
    import numpy as np
    import torch
    import transformer_jax as model
    import transformer_torch
    jax.config.update("jax_default_matmul_precision", "highest")  # fp32, as the others: a GPU's default is TF32
    p, data, s, _ = transformer_torch.load(path, torch.float32)
    total = float(transformer_torch.total_weight(data))
    p = {k: jax.numpy.asarray(v.numpy()) for k, v in p.items()}
    data = {k: jax.numpy.asarray(v.numpy()) for k, v in data.items()}
    tasks = data["target"].shape[0]
    micro = micro or tasks
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

    return step, lambda: {k: np.asarray(v, np.float64) for k, v in grad(state[0]).items()}


def exact(path):
    import torch
    import transformer_torch as model
    p, data, s, _ = model.load(path, torch.float64)
    for t in p.values():
        t.requires_grad_(True)
    total = model.total_weight(data)
    tasks = data["target"].shape[0]
    for i in range(0, tasks, 16):
        model.mean_loss(p, s, {k: v[i:i + 16] for k, v in data.items()}, total).backward()
    return {k: v.grad.numpy() for k, v in p.items()}


FORMS = {
    "torch_eager": build_torch,
    "torch_compile": lambda *args: build_torch(*args, compiled=True),
    "jax_jit": build_jax,
}
WORKLOADS = [
    # the whole length: its curriculum starts short
    Job("w4", "docs/recipes/icl_linreg_w4.yaml", FORMS, exact, ("family.points_start=0", "family.dim_start=0")),
    Job("w5", "docs/recipes/linreg_w5.yaml", FORMS, exact),
    Job("small", "docs/recipes/linear_regression.yaml", FORMS, exact),
]
