"""the delta rule S <- S + k beta (v - S'k)', out = S'q, at published and synthetic sizes (B, T, H, D): token by token, and in
chunks by the UT transform (Yang, Wang, Zhang, Shen, Kim 2024) with a triangular solve"""
from workload import Op


def unit(shape):
    import numpy as np

    def make(rng):
        k = rng.standard_normal(shape)
        return k / np.linalg.norm(k, axis=-1, keepdims=True)
    return make


def rates(shape):
    return lambda rng: rng.uniform(0.05, 0.95, shape)


def torch_recurrent(p):
    import torch
    q, k, v, beta = p["q"], p["k"], p["v"], p["beta"]
    s = q.new_zeros(q.shape[0], q.shape[2], q.shape[3], v.shape[3])
    out = []
    for t in range(q.shape[1]):
        e = v[:, t] - (k[:, t].unsqueeze(-2) @ s).squeeze(-2)
        s = s + k[:, t].unsqueeze(-1) * (beta[:, t].unsqueeze(-1) * e).unsqueeze(-2)
        out.append((q[:, t].unsqueeze(-2) @ s).squeeze(-2))
    return torch.stack(out, 1)


def torch_chunked(chunk):
    def run(p):
        import torch
        B, T, H, K = p["q"].shape
        C, N = chunk, T // chunk
        q, k, v, beta = (p[n].transpose(1, 2).reshape(B, H, N, C, -1) for n in ("q", "k", "v", "beta"))
        one = torch.eye(C, dtype=q.dtype)
        lower = one + ((beta * k) @ k.transpose(-1, -2)).tril(-1)
        solved = torch.linalg.solve_triangular(lower, torch.cat([beta * v, beta * k], -1), upper=False, unitriangular=True)
        u, w = solved[..., :v.shape[-1]], solved[..., v.shape[-1]:]
        inside = (q @ k.transpose(-1, -2)).tril()
        s = q.new_zeros(B, H, K, v.shape[-1])
        out = []
        for i in range(N):
            e = u[:, :, i] - w[:, :, i] @ s
            out.append(q[:, :, i] @ s + inside[:, :, i] @ e)
            s = s + k[:, :, i].transpose(-1, -2) @ e
        return torch.stack(out, 2).reshape(B, H, T, -1).transpose(1, 2)
    return run


def jax_scan(p):
    import jax

    def head(q, k, v, beta):  # (T, .)
        def step(s, x):
            q, k, v, beta = x
            s = s + jax.numpy.outer(k, beta * (v - k @ s))
            return s, q @ s
        return jax.lax.scan(step, jax.numpy.zeros((q.shape[-1], v.shape[-1])), (q, k, v, beta))[1]
    return jax.vmap(jax.vmap(head, 1, 1))(p["q"], p["k"], p["v"], p["beta"])


def jax_chunked(chunk):
    """(1 - n)^-1 = (1 + n)(1 + n^2)(1 + n^4) ...: JAX's triangular solve hangs now and then where it has two threads"""
    def run(p):
        import jax
        jnp = jax.numpy
        B, T, H, K = p["q"].shape
        V = p["v"].shape[-1]
        N = T // chunk
        q, k, v, beta = (p[n].swapaxes(1, 2).reshape(B, H, N, chunk, -1) for n in ("q", "k", "v", "beta"))
        power = -jnp.tril((beta * k) @ k.swapaxes(-1, -2), -1)
        inverse, terms = jnp.eye(chunk) + power, 2
        while terms < chunk:
            power = power @ power
            inverse, terms = inverse + inverse @ power, 2 * terms
        solved = inverse @ jnp.concatenate([beta * v, beta * k], -1)
        inside = jnp.tril(q @ k.swapaxes(-1, -2))

        def step(s, x):
            q, k, u, w, inside = x
            e = u - w @ s
            return s + k.swapaxes(-1, -2) @ e, q @ s + inside @ e
        parts = tuple(jnp.moveaxis(a, 2, 0) for a in (q, k, solved[..., :V], solved[..., V:], inside))
        _, out = jax.lax.scan(step, jnp.zeros((B, H, K, V)), parts)
        return jnp.moveaxis(out, 0, 2).reshape(B, H, T, V).swapaxes(1, 2)
    return run


def size(name, B, T, H, D, chunks):
    shape = (B, T, H, D)
    torch_forms = {f"chunk{c}": torch_chunked(c) for c in chunks}
    refuse = ()
    if T <= 256:
        torch_forms["recurrent"] = torch_recurrent
    if T > 64:  # a graph of T unrolled steps takes the compiler many minutes
        refuse = tuple((job, "torch_compile:recurrent") for job in ("gradient", "hvp"))
    return Op(name, "delta_rule", {"q": shape, "k": unit(shape), "v": shape, "beta": rates(shape[:3])}, torch_forms,
              {"scan": jax_scan, **{f"chunk{c}": jax_chunked(c) for c in chunks}}, out="out", refuse=refuse,
              settings=("state_out=none",))  # the peers' functions return no state either


WORKLOADS = [
    size("delta_6", 128, 6, 16, 16, (6,)),
    size("delta_64", 16, 64, 16, 16, (16, 32, 64)),
    size("delta_256", 8, 256, 8, 32, (32, 64)),
    size("delta_1024", 8, 1024, 8, 64, (64, 128)),
]
