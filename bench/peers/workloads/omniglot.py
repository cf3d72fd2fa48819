"""MAML on Omniglot's characters through convolutional nets: five steps, second order, AdamW outside, fp32. W2 is three valid
convolutions (torchbench, higher), 5-way 5-shot with 15 queries a class; the other one the four padded ones of Finn et al.
2017. peers: a loop over the tasks by autograd (torch, JAX), and torch.func over all tasks at once."""
from workload import Job


def load(path, dtype):
    import torch
    from safetensors import safe_open
    with safe_open(path, "pt") as f:
        meta = f.metadata()
        p = {k[5:]: f.get_tensor(k).to(dtype) for k in f.keys() if k.startswith("init/")}
        # images lie (task, row, height, width, channel)
        data = [f.get_tensor(k).to(dtype).movedim(-1, -3).contiguous() if k.endswith("_x") else f.get_tensor(k).long()
                for k in ("support_x", "support_y", "query_x", "query_y")]
    return p, data, meta


def torch_task(torch, meta):
    F, pad, blocks = torch.nn.functional, int(meta["model.pad"]), int(meta["model.blocks"])
    steps, lr = int(meta["inner.steps"]), float(meta["inner.lr"])

    def loss(p, x, y):
        for i in range(blocks):
            x = F.conv2d(x, p[f"blocks.{i}.conv.weight"], p[f"blocks.{i}.conv.bias"], padding=pad)
            x = F.batch_norm(x, None, None, p[f"blocks.{i}.norm.weight"], p[f"blocks.{i}.norm.bias"], training=True)
            x = F.max_pool2d(F.relu(x), 2)
        x = x.permute(0, 2, 3, 1).flatten(1)
        return F.cross_entropy(F.linear(x, p["head.weight"], p["head.bias"]), y)

    def task(p, sx, sy, qx, qy):
        for _ in range(steps):
            g = torch.func.grad(loss)(p, sx, sy)
            p = {k: v - lr * g[k] for k, v in p.items()}
        return loss(p, qx, qy)

    return task, loss, steps, lr


def build_torch(path, threads, micro, form="loop"):
    import torch
    p, data, meta = load(path, torch.float32)
    task, loss, steps, lr = torch_task(torch, meta)
    tasks = len(data[0])

    def adapted(p, sx, sy, qx, qy):  # the tape's own way: create_graph
        for _ in range(steps):
            g = torch.autograd.grad(loss(p, sx, sy), list(p.values()), create_graph=True)
            p = {k: v - lr * d for (k, v), d in zip(p.items(), g)}
        return loss(p, qx, qy)

    def tape(p, *d):
        p = {k: v.detach().requires_grad_(True) for k, v in p.items()}
        for i in range(tasks):
            (adapted(p, *(t[i] for t in d)) / tasks).backward()
        return {k: v.grad for k, v in p.items()}

    one = torch.func.grad(task)
    if form == "compile":
        one = torch.compile(one)

    def loop(p, *d):
        total = {k: torch.zeros_like(v) for k, v in p.items()}
        for i in range(tasks):
            for k, v in one(p, *(t[i] for t in d)).items():
                total[k] += v
        return {k: v / tasks for k, v in total.items()}

    every = torch.func.vmap(task, in_dims=(None, 0, 0, 0, 0))
    gradient = {"loop": tape, "compile": loop,
                "vmap": torch.func.grad(lambda p, *d: every(p, *d).mean())}[form]
    return torch_step(p, data, meta, gradient)


def torch_step(p, data, meta, gradient):
    """a step of AdamW, and the gradient in double"""
    import torch
    weights = {k: v.clone().requires_grad_(True) for k, v in p.items()}
    opt = torch.optim.AdamW(weights.values(), lr=float(meta["optimizer.lr"]), fused=True)

    def step():
        for k, g in gradient({k: v.detach() for k, v in weights.items()}, *data).items():
            weights[k].grad = g
        opt.step()

    return step, lambda: {k: v.double().numpy() for k, v in gradient(p, *data).items()}


def build_jax(path, threads, micro):
    import jax
    p, data, meta = jax_load(path)
    loss, steps, lr = jax_loss(meta)

    def task(p, sx, sy, qx, qy):
        for _ in range(steps):
            g = jax.grad(loss)(p, sx, sy)
            p = {k: v - lr * g[k] for k, v in p.items()}
        return loss(p, qx, qy)

    return jax_step(p, data, meta, jax.jit(jax.grad(task)))


def jax_load(path):
    import jax
    import torch
    p, data, meta = load(path, torch.float32)
    return {k: jax.numpy.asarray(v.numpy()) for k, v in p.items()}, [jax.numpy.asarray(v.numpy()) for v in data], meta


def jax_loss(meta):
    import jax
    jnp, lax, pad, blocks = jax.numpy, jax.lax, int(meta["model.pad"]), int(meta["model.blocks"])

    def loss(p, x, y):
        for i in range(blocks):
            x = lax.conv_general_dilated(x, p[f"blocks.{i}.conv.weight"], (1, 1), [(pad, pad)] * 2)
            x = x + p[f"blocks.{i}.conv.bias"][:, None, None]
            mean, var = x.mean((0, 2, 3), keepdims=True), x.var((0, 2, 3), keepdims=True)
            x = (x - mean) / jnp.sqrt(var + 1e-5)
            x = x * p[f"blocks.{i}.norm.weight"][:, None, None] + p[f"blocks.{i}.norm.bias"][:, None, None]
            x = lax.reduce_window(jax.nn.relu(x), -jnp.inf, lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID")
        x = x.transpose(0, 2, 3, 1).reshape(len(x), -1)
        logits = jax.nn.log_softmax(x @ p["head.weight"].T + p["head.bias"])
        return -jnp.take_along_axis(logits, y[:, None], 1).mean()

    return loss, int(meta["inner.steps"]), float(meta["inner.lr"])


def jax_step(p, data, meta, one):
    """a step of AdamW with the mean of one(p, task's data) over the tasks, and that gradient in double"""
    import jax
    import numpy as np
    jnp, tasks, outer_lr = jax.numpy, len(data[0]), float(meta["optimizer.lr"])

    def gradient(p):
        total = {k: jnp.zeros_like(v) for k, v in p.items()}
        for i in range(tasks):
            g = one(p, *(t[i] for t in data))
            total = {k: total[k] + g[k] / tasks for k in g}
        return total

    @jax.jit
    def update(p, m, v, t, g):
        m = {k: 0.9 * m[k] + 0.1 * g[k] for k in g}
        v = {k: 0.999 * v[k] + 0.001 * g[k] ** 2 for k in g}
        return {k: p[k] - outer_lr * (m[k] / (1 - 0.9 ** t)) / (jnp.sqrt(v[k] / (1 - 0.999 ** t)) + 1e-8) for k in p}, m, v

    zeros = {k: jnp.zeros_like(v) for k, v in p.items()}
    state = [p, zeros, zeros, 0]

    def step():
        state[3] += 1
        state[:3] = update(*state[:3], float(state[3]), gradient(state[0]))
        jax.block_until_ready(state[0])

    return step, lambda: {k: np.asarray(v, np.float64) for k, v in gradient(p).items()}


def exact(path):
    import torch
    p, data, meta = load(path, torch.float64)
    task, loss, steps, lr = torch_task(torch, meta)
    total = {k: torch.zeros_like(v) for k, v in p.items()}
    for i in range(len(data[0])):
        for k, v in torch.func.grad(task)(p, *(t[i] for t in data)).items():
            total[k] += v / len(data[0])
    return {k: v.numpy() for k, v in total.items()}


FORMS = {
    "torch_loop": build_torch,
    "torch_vmap": lambda *args: build_torch(*args, form="vmap"),
    "torch_compile": lambda *args: build_torch(*args, form="compile"),
    "jax_loop": build_jax,
}
# seed 1 draws four tasks where a near tie of a pooling is decided by rounding in four layers
NETS = {"w2": ("model.blocks=3", "model.pad=0"), "conv4": ("model.blocks=4", "model.pad=1", "seed=3")}
WORKLOADS = [
    # five steps through relu, pooling and small batches: rounding that turns one of them shows in the third digit
    Job(f"omniglot_{net}_{tasks}", "docs/recipes/maml_omniglot.yaml", FORMS, exact,
        settings + (f"batch={tasks}", "grain=4", "inner.steps=5", "inner.lr=0.1", "family.shots=5", "family.train_queries=15",
                    "optimizer.clip=0"), tolerance=3e-2)
    for net, settings in NETS.items() for tasks in (4, 32)
]
