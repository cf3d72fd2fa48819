"""mica's transformer in JAX, from the same weights and data."""
import jax
import jax.numpy as jnp


ACT = {"gelu": lambda x: jax.nn.gelu(x, approximate=False), "gelu_tanh": jax.nn.gelu, "relu": jax.nn.relu, "silu": jax.nn.silu}


def forward(p, s, tokens):
    def linear(x, name):
        y = x @ p[name + ".weight"].T
        return y + p[name + ".bias"] if name + ".bias" in p else y

    def norm(x, name):
        m = x.mean(-1, keepdims=True) if s["norm"] == "layernorm" else 0.0
        x = x - m
        y = x * jax.lax.rsqrt((x * x).mean(-1, keepdims=True) + s["eps"]) * p[name + ".weight"]
        return y + p[name + ".bias"] if name + ".bias" in p else y

    x = linear(tokens, "read_in") if jnp.issubdtype(tokens.dtype, jnp.floating) else p["embed.weight"][tokens]
    B, T, C = x.shape
    if s["positions"] == "learned":
        x = x + p["pos.weight"][:T]
    for i in range(s["layers"]):
        b = f"blocks.{i}."
        q, k, v = jnp.split(linear(norm(x, b + "ln1"), b + "attn.qkv"), 3, axis=-1)
        q, k, v = (t.reshape(B, T, s["heads"], C // s["heads"]) for t in (q, k, v))
        y = jax.nn.dot_product_attention(q, k, v, is_causal=s["mask"] == "causal")
        x = x + linear(y.reshape(B, T, C), b + "attn.proj")
        x = x + linear(ACT[s["act"]](linear(norm(x, b + "ln2"), b + "mlp.up")), b + "mlp.down")
    return linear(norm(x, "ln_f"), "read_out")


def mean_loss(p, s, data, total):
    prediction = forward(p, s, data["tokens"])
    if s["loss"] == "cross_entropy":
        rows = -jnp.take_along_axis(jax.nn.log_softmax(prediction), data["target"][..., None], -1)[..., 0]
    else:
        rows = (prediction[..., 0] - data["target"]) ** 2
    if "weight" in data:
        rows = rows * data["weight"]
    return rows.sum() / total


def adamw(p, g, m, v, step, s):
    """decoupled weight decay on matrices, as mica's groups"""
    c1, c2 = 1 - s["beta1"] ** step, 1 - s["beta2"] ** step
    m = {k: s["beta1"] * m[k] + (1 - s["beta1"]) * g[k] for k in p}
    v = {k: s["beta2"] * v[k] + (1 - s["beta2"]) * g[k] * g[k] for k in p}
    new = {}
    for k in p:
        decay = s["decay"] if p[k].ndim > 1 else 0.0
        new[k] = p[k] * (1 - s["lr"] * decay) - s["lr"] * (m[k] / c1) / (jnp.sqrt(v[k] / c2) + s["opt_eps"])
    return new, m, v
