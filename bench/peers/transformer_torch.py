"""mica's transformer in PyTorch, from the weights, data and settings of `mica grad`."""
import torch
import torch.nn.functional as F


def settings(meta):
    """sizes as numbers, names as strings"""
    get = lambda key, default: meta.get(key, default)
    return {
        "layers": int(get("model.layers", 4)), "heads": int(get("model.heads", 4)), "eps": float(get("model.eps", 1e-5)),
        "act": get("model.activation", "gelu"), "norm": get("model.norm", "layernorm"),
        "mask": get("model.mask", "causal"), "positions": get("model.positions", "learned"),
        "lr": float(get("optimizer.lr", 1e-3)), "beta1": float(get("optimizer.beta1", 0.9)),
        "beta2": float(get("optimizer.beta2", 0.999)), "opt_eps": float(get("optimizer.eps", 1e-8)),
        "decay": float(get("optimizer.weight_decay", 0.0)), "loss": get("loss.name", "mse"),
    }


ACT = {"gelu": F.gelu, "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"), "relu": F.relu, "silu": F.silu}


def forward(p, s, tokens):
    """tokens (B,T,C) float or (B,T) int -> predictions (B,T,outputs); p: name -> tensor"""
    def linear(x, name):
        return F.linear(x, p[name + ".weight"], p.get(name + ".bias"))

    def norm(x, name):
        if s["norm"] == "layernorm":
            return F.layer_norm(x, x.shape[-1:], p[name + ".weight"], p.get(name + ".bias"), s["eps"])
        return F.rms_norm(x, x.shape[-1:], p[name + ".weight"], s["eps"])

    x = F.embedding(tokens, p["embed.weight"]) if not tokens.is_floating_point() else linear(tokens, "read_in")
    B, T, C = x.shape
    if s["positions"] == "learned":
        x = x + p["pos.weight"][:T]
    for i in range(s["layers"]):
        b = f"blocks.{i}."
        q, k, v = linear(norm(x, b + "ln1"), b + "attn.qkv").split(C, dim=-1)
        q, k, v = (t.view(B, T, s["heads"], C // s["heads"]).transpose(1, 2) for t in (q, k, v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=s["mask"] == "causal")
        x = x + linear(y.transpose(1, 2).reshape(B, T, C), b + "attn.proj")
        x = x + linear(ACT[s["act"]](linear(norm(x, b + "ln2"), b + "mlp.up")), b + "mlp.down")
    return linear(norm(x, "ln_f"), "read_out")


def row_losses(s, prediction, target, weight):
    """rows of loss (B,T) times weight"""
    if s["loss"] == "cross_entropy":
        rows = F.cross_entropy(prediction.flatten(0, 1), target.flatten().long(), reduction="none").view(target.shape)
    else:
        rows = (prediction.squeeze(-1) - target).square()
    return rows if weight is None else rows * weight


def mean_loss(p, s, data, total):
    """sum of weighted rows over `total` weight"""
    return row_losses(s, forward(p, s, data["tokens"]), data["target"], data.get("weight")).sum() / total


def load(path, dtype, device="cpu"):
    """weights, data with (B,T,...) shapes, settings, all the file's tensors"""
    from safetensors import safe_open
    with safe_open(path, "pt") as f:
        meta = f.metadata()
        raw = {k: f.get_tensor(k).to(device) for k in f.keys()}
    p = {k[5:]: v.to(dtype) for k, v in raw.items() if k.startswith("init/")}
    tasks = raw["loss"].shape[0]
    data = {}
    for name in ("tokens", "target", "weight"):
        if name in raw:
            t = raw[name]
            t = t.to(dtype) if t.is_floating_point() else t.long()
            if t.shape[0] != tasks or t.dim() < 2:
                t = t.reshape(tasks, t.shape[0] // tasks, *t.shape[1:])
            if name != "tokens" and t.dim() == 3:
                t = t.squeeze(-1)
            data[name] = t
    return p, data, settings(meta), raw


def total_weight(data):
    return data["weight"].sum() if "weight" in data else torch.tensor(float(data["target"].numel()), device=data["target"].device)
