#!/usr/bin/env python3
"""Golden gradient and Hessian-vector product through a 4-layer transformer, by PyTorch's double backward in float64.

Needs PyTorch and the program: `python3 make_attention_hvp.py path/to/mica` rewrites attention_hvp.safetensors here. Attention
is the textbook formula (a matrix of scores, softmax), differentiated twice by PyTorch's tape. The file holds weights and
direction (f32), the task data, grad and hvp (f64), and of each hvp the error that PyTorch itself makes in float32.
"""
import math
import os
import subprocess
import sys
import tempfile

import torch
from safetensors.torch import save_file

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "..", "bench", "peers"))
import transformer_torch as model  # noqa: E402

CONFIG = """family: {name: linear_regression, dim: 3, points: 6, noise: 0.5}
model: {name: transformer, layers: 4, width: 8, heads: 2, mlp: 2, init: 0.3}
loss: {name: mse}
batch: 3
seed: 5
"""


def attention(q, k, v, is_causal):
    scores = q @ k.mT / math.sqrt(q.shape[-1])
    if is_causal:
        scores = scores.masked_fill(torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1), -math.inf)
    return torch.softmax(scores, -1) @ v


def second(path, direction, dtype):
    p, data, s, raw = model.load(path, dtype)
    leaves = {k: v.float().to(dtype).requires_grad_(True) for k, v in p.items()}  # what fits float32
    loss = model.mean_loss(leaves, s, data, model.total_weight(data))
    grad = torch.autograd.grad(loss, list(leaves.values()), create_graph=True)
    along = sum((g * direction[k].to(dtype)).sum() for g, k in zip(grad, leaves))
    hvp = torch.autograd.grad(along, list(leaves.values()))
    return {k: g.detach() for k, g in zip(leaves, grad)}, dict(zip(leaves, hvp)), raw


def main():
    model.F.scaled_dot_product_attention = attention
    with tempfile.TemporaryDirectory() as folder:
        config, out = os.path.join(folder, "c.yaml"), os.path.join(folder, "g.safetensors")
        with open(config, "w") as file:
            file.write(CONFIG)
        subprocess.run([sys.argv[1], "grad", config, "--out", out, "--dtype", "f64"], check=True)
        p, _, _, raw = model.load(out, torch.float32)
        torch.manual_seed(1)
        direction = {k: torch.randn(v.shape) for k, v in p.items()}
        grad, hvp, _ = second(out, direction, torch.float64)
        naive = second(out, direction, torch.float32)[1]
    tensors = {"data/" + k: v.double() for k, v in raw.items() if k in ("tokens", "target", "weight")}
    for k in p:
        tensors |= {"init/" + k: p[k].float(), "dir/" + k: direction[k], "grad/" + k: grad[k], "hvp/" + k: hvp[k],
                    "naive/" + k: (naive[k].double() - hvp[k]).abs().max().reshape(1)}
    save_file({k: v.contiguous() for k, v in tensors.items()}, os.path.join(HERE, "attention_hvp.safetensors"),
              {"config": CONFIG})


if __name__ == "__main__":
    main()
