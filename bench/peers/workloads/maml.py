"""MAML on sinusoids (Finn et al. 2017): one and five inner steps, second order, AdamW outside; 25 to 10,000 tasks, fp32.
the peers' best forms: torch.func over all tasks at once, the same compiled, a loop over the tasks, JAX jit."""
from workload import Job

WEIGHTS = [f"layers.{i}.{kind}" for i in range(3) for kind in ("weight", "bias")]


def load(path, dtype):
    import torch
    from safetensors import safe_open
    with safe_open(path, "pt") as f:
        meta = f.metadata()
        p = {k: f.get_tensor("init/" + k).to(dtype) for k in WEIGHTS}
        data = [f.get_tensor(k).to(dtype) for k in ("support_x", "support_y", "query_x", "query_y")]
    return p, data, int(meta["inner.steps"]), float(meta["inner.lr"]), float(meta["optimizer.lr"])


def torch_task(torch, steps, lr):
    def loss(p, x, y):
        for i in range(3):
            x = torch.nn.functional.linear(x, p[f"layers.{i}.weight"], p[f"layers.{i}.bias"])
            x = torch.relu(x) if i < 2 else x
        return ((x - y) ** 2).mean()

    def task(p, sx, sy, qx, qy):
        for _ in range(steps):
            g = torch.func.grad(loss)(p, sx, sy)
            p = {k: v - lr * g[k] for k, v in p.items()}
        return loss(p, qx, qy)

    return task


def build_torch(path, threads, micro, form="vmap"):
    import torch
    p, data, steps, lr, outer_lr = load(path, torch.float32)
    task = torch_task(torch, steps, lr)
    every = torch.func.vmap(task, in_dims=(None, 0, 0, 0, 0))
    gradient = torch.func.grad(lambda p, *d: every(p, *d).mean())
    if form == "compile":
        gradient = torch.compile(gradient)
    elif form == "loop":
        one, tasks = torch.func.grad(task), len(data[0])

        def gradient(p, *d):
            total = {k: torch.zeros_like(v) for k, v in p.items()}
            for i in range(tasks):
                for k, v in one(p, *(t[i] for t in d)).items():
                    total[k] += v
            return {k: v / tasks for k, v in total.items()}

    weights = {k: v.clone().requires_grad_(True) for k, v in p.items()}
    opt = torch.optim.AdamW(weights.values(), lr=outer_lr, fused=True)

    def step():
        for k, g in gradient({k: v.detach() for k, v in weights.items()}, *data).items():
            weights[k].grad = g
        opt.step()

    return step, lambda: {k: v.double().numpy() for k, v in gradient(p, *data).items()}


def build_jax(path, threads, micro):
    import jax
    import torch
    p, data, steps, lr, outer_lr = load(path, torch.float32)
    p = {k: jax.numpy.asarray(v.numpy()) for k, v in p.items()}
    data = [jax.numpy.asarray(v.numpy()) for v in data]

    def loss(p, x, y):
        for i in range(3):
            x = x @ p[f"layers.{i}.weight"].T + p[f"layers.{i}.bias"]
            x = jax.nn.relu(x) if i < 2 else x
        return ((x - y) ** 2).mean()

    def task(p, sx, sy, qx, qy):
        for _ in range(steps):
            g = jax.grad(loss)(p, sx, sy)
            p = {k: v - lr * g[k] for k, v in p.items()}
        return loss(p, qx, qy)

    def mean(p, *d):
        return jax.vmap(task, in_axes=(None, 0, 0, 0, 0))(p, *d).mean()

    return jax_train(p, data, outer_lr, mean)


def jax_train(p, data, lr, mean):
    """a step of AdamW down mean(p, *data), and its gradient in double"""
    import jax
    import numpy as np

    def update(p, m, v, t, *d):
        g = jax.grad(mean)(p, *d)
        m = {k: 0.9 * m[k] + 0.1 * g[k] for k in g}
        v = {k: 0.999 * v[k] + 0.001 * g[k] ** 2 for k in g}
        new = {k: p[k] - lr * (m[k] / (1 - 0.9 ** t)) / (jax.numpy.sqrt(v[k] / (1 - 0.999 ** t)) + 1e-8) for k in p}
        return new, m, v

    update, gradient = jax.jit(update, donate_argnums=(0, 1, 2)), jax.jit(jax.grad(mean))
    zeros = {k: jax.numpy.zeros_like(v) for k, v in p.items()}
    state = [{k: v.copy() for k, v in p.items()}, zeros, {k: v.copy() for k, v in zeros.items()}, 0]

    def step():
        state[3] += 1
        state[:3] = update(*state[:3], float(state[3]), *data)
        jax.block_until_ready(state[0])

    return step, lambda: {k: np.asarray(v, np.float64) for k, v in gradient(p, *data).items()}


def exact(path):
    import torch
    p, data, steps, lr, _ = load(path, torch.float64)
    every = torch.func.vmap(torch_task(torch, steps, lr), in_dims=(None, 0, 0, 0, 0))
    g = torch.func.grad(lambda p, *d: every(p, *d).mean())(p, *data)
    return {k: v.numpy() for k, v in g.items()}


FORMS = {
    "torch_func": build_torch,
    "torch_compile": lambda *args: build_torch(*args, form="compile"),
    "torch_loop": lambda *args: build_torch(*args, form="loop"),
    "jax_jit": build_jax,
}
NO_LOOP = {k: v for k, v in FORMS.items() if k != "torch_loop"}   # seconds a step, in all runs
WORKLOADS = [
    Job(f"maml_{tasks}_{steps}", "docs/recipes/maml_sinusoid.yaml", FORMS if tasks == 25 else NO_LOOP, exact,
        (f"batch={tasks}", f"grain={min(tasks, 100)}", f"inner.steps={steps}"))
    for tasks in (25, 1000, 10000) for steps in (1, 5)
]
