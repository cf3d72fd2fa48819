"""memory of 64 inner steps, second order, fp32: a perceptron on 64 tasks at once, a small transformer on one task. numbers
are noise; only what a step costs matters. mica's forms: as it runs by itself; its general path (mica_steps), which keeps the
weights of every step; with checkpoints. peers: PyTorch's tape with create_graph, JAX jit with jax.checkpoint of each step."""
from workload import Job
from workloads.maml import jax_train

LENGTH = 64


def load(path, dtype):
    import torch
    from safetensors import safe_open
    with safe_open(path, "pt") as f:
        meta = f.metadata()
        p = {k[5:]: f.get_tensor(k).to(dtype) for k in f.keys() if k.startswith("init/")}
        data = [f.get_tensor(k).to(dtype) for k in ("support_x", "support_y", "query_x", "query_y")]
    return p, data, int(meta["inner.steps"]), float(meta["inner.lr"]), float(meta["optimizer.lr"])


# losses of one task, in the words of numpy: `lib` has what torch and jax.numpy name alike

def mlp_loss(lib, p, x, y):
    for i in range(3):
        x = x @ p[f"layers.{i}.weight"].T + p[f"layers.{i}.bias"]
        x = lib.relu(x) if i < 2 else x
    return ((x - y) ** 2).mean()


def transformer_loss(lib, p, x, y):
    """x (positions x sequences, dim), positions outermost"""
    def linear(x, name):
        return x @ p[name + ".weight"].T + p[name + ".bias"]

    def norm(x, name):
        return x / lib.sqrt((x * x).mean(-1)[..., None] + 1e-5) * p[name + ".weight"]

    x = linear(x, "read_in")
    W, heads = x.shape[-1], 4
    split = lambda x: lib.transpose(x.reshape(LENGTH, -1, W // heads), 0, 1)  # (sequences x heads, positions, size)
    hidden = lib.triu(lib.ones((LENGTH, LENGTH), dtype=bool), 1)
    for i in range(2):
        b = f"blocks.{i}."
        h = norm(x, b + "norm1")
        q, k, v = (split(linear(h, b + c)) for c in "qkv")
        s = lib.where(hidden, -float("inf"), q @ lib.transpose(k, 1, 2) * (W // heads) ** -0.5)
        x = x + linear(lib.transpose(lib.softmax(s, -1) @ v, 0, 1).reshape(-1, W), b + "proj")
        x = x + linear(lib.gelu(linear(norm(x, b + "norm2"), b + "up")), b + "down")
    return ((linear(norm(x, "norm"), "read_out")[:, 0] - y) ** 2).mean()


class Torch:
    def __init__(self):
        import torch
        F = torch.nn.functional
        self.relu, self.gelu, self.softmax = torch.relu, F.gelu, torch.softmax
        self.sqrt, self.triu, self.ones, self.where, self.transpose = torch.sqrt, torch.triu, torch.ones, torch.where, torch.transpose


class Jax:
    def __init__(self):
        import functools
        import jax
        jnp = jax.numpy
        self.relu, self.gelu, self.softmax = jax.nn.relu, functools.partial(jax.nn.gelu, approximate=False), jax.nn.softmax
        self.sqrt, self.triu, self.ones, self.where, self.transpose = jnp.sqrt, jnp.triu, jnp.ones, jnp.where, jnp.swapaxes


def build_torch(path, loss, dtype=None):
    """all tasks at once: each has weights of its own, and the sum of the tasks' losses one graph"""
    import torch
    p, data, steps, lr, outer_lr = load(path, dtype or torch.float32)
    lib, tasks = Torch(), len(data[0])
    every = torch.func.vmap(lambda p, x, y: loss(lib, p, x, y))
    # no vmap over one task: the tape alone
    each = every if tasks > 1 else lambda p, x, y: loss(lib, {k: v[0] for k, v in p.items()}, x[0], y[0])[None]

    def gradient(p):
        leaf = {k: v.detach().requires_grad_(True) for k, v in p.items()}
        q = {k: v.expand(tasks, *v.shape) for k, v in leaf.items()}
        for _ in range(steps):
            g = torch.autograd.grad(each(q, *data[:2]).sum(), list(q.values()), create_graph=True)
            q = {k: v - lr * d for (k, v), d in zip(q.items(), g)}
        each(q, *data[2:]).mean().backward()
        return {k: v.grad for k, v in leaf.items()}

    weights = {k: v.clone().requires_grad_(True) for k, v in p.items()}
    opt = torch.optim.AdamW(weights.values(), lr=outer_lr, weight_decay=0, fused=True)

    def step():
        for k, g in gradient(weights).items():
            weights[k].grad = g
        opt.step()

    return step, lambda: {k: v.double().numpy() for k, v in gradient(p).items()}


def build_jax(path, loss):
    import jax
    import torch
    p, data, steps, lr, outer_lr = load(path, torch.float32)
    lib = Jax()
    p = {k: jax.numpy.asarray(v.numpy()) for k, v in p.items()}
    data = [jax.numpy.asarray(v.numpy()) for v in data]

    def task(p, sx, sy, qx, qy):
        @jax.checkpoint
        def inner(q):
            g = jax.grad(lambda q: loss(lib, q, sx, sy))(q)
            return {k: q[k] - lr * g[k] for k in q}

        q, _ = jax.lax.scan(lambda q, _: (inner(q), None), p, None, length=steps)
        return loss(lib, q, qx, qy)

    def mean(p, *d):
        return jax.vmap(task, in_axes=(None, 0, 0, 0, 0))(p, *d).mean()

    return jax_train(p, data, outer_lr, mean)


def exact(path, loss):
    import torch
    return build_torch(path, loss, torch.float64)[1]()


def job(net, loss, mica, tolerance):
    forms = {"torch_create_graph": lambda path, threads, micro: build_torch(path, loss),
             "jax_checkpoint": lambda path, threads, micro: build_jax(path, loss)}
    return Job(f"long_loops_{net}", f"bench/peers/recipes/long_{net}.yaml", forms, lambda path: exact(path, loss),
               ("plugins=[{bin}/long_loops.so]",), mica=mica, tolerance=tolerance)


# rates of one number each, all alike, are what the kernel of a whole loop does not do
STEPS, CHECKPOINTS = "inner.rates=element", "inner.checkpoints=yes"
WORKLOADS = [
    # 64 steps through relu: rounding that turns one of them shows in the third digit
    job("mlp", mlp_loss, {"mica": (), "mica_steps": (STEPS,), "mica_checkpoints": (STEPS, CHECKPOINTS)}, 1e-2),
    job("transformer", transformer_loss, {"mica": (), "mica_checkpoints": (CHECKPOINTS,)}, 2e-4),
]
