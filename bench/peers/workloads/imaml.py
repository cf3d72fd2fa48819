"""iMAML on Omniglot's characters (W3; Rajeswaran et al. 2019): gradient steps towards the initial weights, then conjugate
gradients for (H + lambda + damping) v = the query's gradient, all tasks 5-way 1-shot; the hypergradient is lambda v. a task
whose curvature along a direction is not positive keeps the v it has. peers: a loop over the tasks by autograd, whose graph of the gradient serves all products with H; the same compiled; torch.func over all
tasks at once; a loop over a jitted task (JAX)."""
from workload import Job
from workloads.omniglot import jax_load, jax_loss, jax_step, load, torch_step, torch_task


def settings_of(meta):
    return float(meta["inner.proximal"]), float(meta["inner.damping"]), int(meta["inner.iterations"])


def dot(a, b):
    return sum((a[k] * b[k]).sum() for k in a)


def conjugate_gradients(product, u, iterations, where=None):
    """where: for functions that are traced; else the iterations end"""
    v, r, d, rr = {k: 0 * x for k, x in u.items()}, u, u, dot(u, u)
    step = 1 + 0 * rr
    for _ in range(iterations):
        q = product(d)
        curvature = dot(d, q)
        if where is None and not curvature > 0:
            break
        going = (curvature > 0) & (step > 0) if where else None
        step = where(going, rr / where(going, curvature, 1), 0) if where else rr / curvature
        v, r = {k: v[k] + step * d[k] for k in v}, {k: r[k] - step * q[k] for k in r}
        rr, before = dot(r, r), rr
        d = {k: r[k] + rr / before * d[k] for k in d}
    return v


def implicit(grad, jvp, where, loss, steps, lr, meta):
    """a task's hypergradient by grad and jvp of functions (torch.func, JAX)"""
    weight, damping, iterations = settings_of(meta)

    def task(p, sx, sy, qx, qy):
        def pull(q):
            return loss(q, sx, sy) + weight / 2 * dot(*[{k: q[k] - p[k] for k in p}] * 2)

        q = p
        for _ in range(steps):
            g = grad(pull)(q)
            q = {k: q[k] - lr * g[k] for k in q}

        def product(d):
            h = jvp(grad(pull), (q,), (d,))[1]
            return {k: h[k] + damping * d[k] for k in h}

        v = conjugate_gradients(product, grad(lambda w: loss(w, qx, qy))(q), iterations, where)
        return {k: weight * x for k, x in v.items()}

    return task


def tape(loss, steps, lr, meta):
    """the same by autograd: one graph of the inner gradient serves all products"""
    import torch
    weight, damping, iterations = settings_of(meta)

    def gradient(of, q, graph=False):
        return dict(zip(q, torch.autograd.grad(of, list(q.values()), create_graph=graph)))

    def task(p, sx, sy, qx, qy):
        def pull(q):
            return loss(q, sx, sy) + weight / 2 * dot(*[{k: q[k] - p[k] for k in p}] * 2)

        q = {k: v.detach().requires_grad_(True) for k, v in p.items()}
        for _ in range(steps):
            g = gradient(pull(q), q)
            q = {k: (v - lr * g[k]).detach().requires_grad_(True) for k, v in q.items()}
        u, g = gradient(loss(q, qx, qy), q), gradient(pull(q), q, graph=True)

        def product(d):
            h = torch.autograd.grad(list(g.values()), list(q.values()), list(d.values()), retain_graph=True)
            return {k: x + damping * d[k] for k, x in zip(q, h)}

        v = conjugate_gradients(product, u, iterations)
        return {k: weight * x for k, x in v.items()}

    return task


def build_torch(path, threads, micro, form="tape", double=False):
    import torch
    p, data, meta = load(path, torch.float64 if double else torch.float32)
    _, loss, steps, lr = torch_task(torch, meta)
    one = tape(loss, steps, lr, meta) if form == "tape" else implicit(torch.func.grad, torch.func.jvp, torch.where,
                                                                         loss, steps, lr, meta)
    if form == "compile":
        one = torch.compile(one)
    every = torch.func.vmap(one, in_dims=(None, 0, 0, 0, 0))

    def loop(p, *d):
        total = {k: torch.zeros_like(v) for k, v in p.items()}
        for i in range(len(d[0])):
            for k, v in one(p, *(t[i] for t in d)).items():
                total[k] += v / len(d[0])
        return total

    return torch_step(p, data, meta, (lambda p, *d: {k: v.mean(0) for k, v in every(p, *d).items()}) if form == "vmap" else loop)


def build_jax(path, threads, micro):
    import jax
    p, data, meta = jax_load(path)
    return jax_step(p, data, meta, jax.jit(implicit(jax.grad, jax.jvp, jax.numpy.where, *jax_loss(meta), meta)))


FORMS = {
    "torch_loop": build_torch,
    "torch_compile": lambda *args: build_torch(*args, form="compile"),
    "torch_vmap": lambda *args: build_torch(*args, form="vmap"),
    "jax_loop": build_jax,
}
WORKLOADS = [
    Job(f"imaml_{tasks}", "docs/recipes/imaml_omniglot.yaml", FORMS, lambda path: build_torch(path, 0, 0, double=True)[1](),
        # with more damping than the recipe: an untrained network's H has negative directions, along which rounding decides.
        # 16 steps carry a task over ties of relu and pooling, after which float32 and float64 part: of 32 tasks some always
        # do, of the first four none
        (f"batch={tasks}", "grain=4", "optimizer.clip=0", "inner.damping=20"), tolerance=3e-2,
        compared=("batch=4",) if tasks > 4 else ())
    for tasks in (4, 32)
]
