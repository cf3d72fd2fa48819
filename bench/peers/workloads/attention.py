"""causal softmax attention, the shapes of small transformers trained in context and one long one"""
import math

from workload import Op


def torch_sdpa(p):
    import torch
    q, k, v = (p[n].transpose(1, 2) for n in "qkv")
    return torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2)


def torch_math(p):
    import torch
    q, k, v = (p[n].transpose(1, 2) for n in "qkv")
    scores = q @ k.transpose(2, 3) / math.sqrt(q.shape[3])
    hidden = torch.ones(scores.shape[2:], dtype=torch.bool).triu(1)
    return (scores.masked_fill(hidden, -math.inf).softmax(-1) @ v).transpose(1, 2)


def jax_math(p):
    import jax
    jnp = jax.numpy
    q, k, v = p["q"], p["k"], p["v"]
    scores = jnp.einsum("bthd,bshd->bhts", q, k) / math.sqrt(q.shape[3])
    seen = jnp.tril(jnp.ones(scores.shape[2:], dtype=bool))
    return jnp.einsum("bhts,bshd->bthd", jax.nn.softmax(jnp.where(seen, scores, -jnp.inf), -1), v)


# SDPA's fused kernels have no second derivative
SDPA_HVP = tuple(("hvp", f"{way}:sdpa") for way in ("torch_eager", "torch_func", "torch_compile"))
SHAPES = [(512, 41, 8, 32), (512, 82, 8, 32), (512, 128, 8, 32), (4, 1024, 8, 64)]
LENGTHS = (512, 1024, 2048, 4096)            # what memory grows with; 8192 of plain math would take 25 GB
WORKLOADS = [
    Op("attention_" + "x".join(map(str, shape)), "attention", {n: shape for n in "qkv"},
       {"math": torch_math, "sdpa": torch_sdpa}, {"math": jax_math}, out="out", refuse=SDPA_HVP)
    for shape in SHAPES
] + [
    Op(f"attention_memory_{T}", "attention", {n: (1, T, 8, 64) for n in "qkv"}, {"math": torch_math}, out="out", jobs=("hvp",))
    for T in LENGTHS
]
