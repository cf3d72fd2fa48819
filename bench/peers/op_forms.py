"""forms of one operation, derived from a function of its inputs: what a user of the peer would write for the gradient, and
for the gradient with a Hessian-vector product."""


def names(op, job):
    """forms to try: peer's way, then which of the workload's functions"""
    ways = ["torch_eager", "torch_compile"] + (["torch_func"] if job == "hvp" else [])
    forms = [f"{way}:{label}" for label in op.torch for way in ways] + [f"jax_jit:{label}" for label in op.jax]
    return [f for f in forms if (job, f) not in op.refuse]


def torch_eager(f, job, x, rest, dy, t):
    """job(x) by the tape; the Hessian-vector product by a second backward"""
    import torch
    keys = list(x)

    def run():
        leaves = {k: v.detach().requires_grad_(True) for k, v in x.items()}
        y = f({**leaves, **rest})
        outs, inputs = [y[k] for k in dy], [leaves[k] for k in keys]
        if job == "gradient":
            return dict(zip(keys, torch.autograd.grad(outs, inputs, list(dy.values())))), None
        d = torch.autograd.grad(outs, inputs, list(dy.values()), create_graph=True, allow_unused=True, materialize_grads=True)
        moving = [(g, t[k]) for g, k in zip(d, keys) if g.requires_grad]
        td = torch.autograd.grad([g for g, _ in moving], inputs, [v for _, v in moving], allow_unused=True,
                                 materialize_grads=True)
        return {k: g.detach() for k, g in zip(keys, d)}, dict(zip(keys, td))
    return run


def torch_pure(f, x, rest, dy, t, compiled):
    """gradient and Hessian-vector product as jvp of vjp, one functional graph; compiled or not"""
    import torch

    def gradient(x):  # the values are part of the work: nobody may leave the forward out
        y, back = torch.func.vjp(lambda x: {k: v for k, v in f({**x, **rest}).items() if k in dy}, x)
        return y, back(dy)[0]

    def both(x, t):
        (y, d), (y_t, td) = torch.func.jvp(gradient, (x,), (t,))
        return d, td, y, y_t

    if compiled:
        both = torch.compile(both)

    def run():
        with torch.no_grad():
            return both(x, t)[:2]
    return run


def build_torch(op, form, job, arrays, threads, dtype=None):
    """run() -> ({port: d}, {port: td} or None)"""
    import torch
    torch.set_num_threads(threads)
    way, label = form.split(":")
    tensors = {k: torch.from_numpy(v) for k, v in arrays.items()}
    if dtype:
        tensors = {k: v.to(dtype) if v.is_floating_point() else v for k, v in tensors.items()}
    ports = {k[:-2]: v for k, v in tensors.items() if k.endswith(".v")}
    x = {k: v for k, v in ports.items() if v.is_floating_point()}
    rest = {k: v.long() for k, v in ports.items() if k not in x}
    dy = {k[:-2]: v for k, v in tensors.items() if k.endswith(".d")}
    t = {k[:-2]: v for k, v in tensors.items() if k.endswith(".t")}
    f = lambda inputs: op.outputs(op.torch[label](inputs))
    if way == "torch_eager":
        return torch_eager(f, job, x, rest, dy, t)
    if job == "gradient":
        return torch_eager(torch.compile(f), job, x, rest, dy, t)
    return torch_pure(f, x, rest, dy, t, way == "torch_compile")


def build_jax(op, form, job, arrays):
    import jax
    label = form.split(":")[1]
    put = {k: jax.numpy.asarray(v) for k, v in arrays.items()}
    ports = {k[:-2]: v for k, v in put.items() if k.endswith(".v")}
    x = {k: v for k, v in ports.items() if jax.numpy.issubdtype(v.dtype, jax.numpy.floating)}
    rest = {k: v for k, v in ports.items() if k not in x}
    dy = {k[:-2]: v for k, v in put.items() if k.endswith(".d")}
    t = {k[:-2]: v for k, v in put.items() if k.endswith(".t")}

    def gradient(x, dy):
        f = lambda x: {k: v for k, v in op.outputs(op.jax[label]({**x, **rest})).items() if k in dy}
        y, back = jax.vjp(f, x)  # the values are part of the work: nobody may leave the forward out
        return y, back(dy)[0]

    def both(x, t, dy):
        (y, d), (y_t, td) = jax.jvp(lambda x: gradient(x, dy), (x,), (t,))
        return d, td, y, y_t

    def one(x, t, dy):
        y, d = gradient(x, dy)
        return d, None, y

    jitted = jax.jit(one if job == "gradient" else both)
    return lambda: jax.block_until_ready(jitted(x, t, dy))[:2]
