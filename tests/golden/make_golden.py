#!/usr/bin/env python3
"""Golden values of every operation from an independent float64 program.

Needs PyTorch; run it only when an operation is added: `python3 make_golden.py [op ...]` rewrites <op>.txt here.
Each definition below is the textbook formula in torch; cotangents, tangents and second derivatives come from torch's own
automatic differentiation: d = J^T dy, t = J dx, td = d/ds of J(x + s t)^T (dy + s tdy) at s = 0.

    case SETTINGS            as in the tables of cases
    in WIRE values           row-major, dense
    out WIRE values          expected
"""
import math
import os
import random
import sys

import torch
import torch.nn.functional as F

torch.set_default_dtype(torch.float64)
HERE = os.path.dirname(os.path.abspath(__file__))
GOLDEN = {}


def golden(name, settings, shapes, out="y", saved=(), index=None, domain=None):
    """Registers f(*inputs) -> out or (out, saved...): shapes of differentiable inputs, index inputs by value."""

    def keep(f):
        GOLDEN.setdefault(name, []).append((settings, shapes, out, saved, index or {}, domain or {}, f))
        return f

    return keep


def draw(rng, shape, domain):
    def one():
        u = rng.random()
        x = {"any": 2 * u - 1, "positive": 0.5 + 1.5 * u, "away0": (0.2 + 0.8 * abs(2 * u - 1)) * (1 if u > 0.5 else -1),
             "unit": 0.05 + 0.9 * u, "hiding": 3 * u - 2 if u > 0.4 else -math.inf}[domain]
        return x if math.isinf(x) else round(x * 256) / 256 or 1 / 256

    return torch.tensor([one() for _ in range(math.prod(shape))]).reshape(shape)


# ---- elementwise ----
UNARY = {
    "relu": torch.relu, "silu": F.silu, "tanh": torch.tanh, "sigmoid": torch.sigmoid,
    "elu1": lambda x: F.elu(x) + 1, "softplus": lambda x: torch.log1p(torch.exp(x)), "exp": torch.exp, "log": torch.log,
    "sqrt": torch.sqrt, "abs": torch.abs, "neg": lambda x: -x, "reciprocal": lambda x: 1 / x, "square": lambda x: x * x,
    "sin": torch.sin, "cos": torch.cos,
}
for _name, _f in UNARY.items():
    _d = {"x": "positive" if _name in ("log", "sqrt") else "away0"}
    golden(_name, "B=2 R=2 C=3", {"x": (2, 2, 3)}, domain=_d)(_f)
golden("gelu", "B=1 R=2 C=3 approx=none", {"x": (1, 2, 3)})(lambda x: 0.5 * x * (1 + torch.erf(x / math.sqrt(2))))
golden("gelu", "B=1 R=2 C=3 approx=tanh", {"x": (1, 2, 3)})(
    lambda x: 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x ** 3))))
golden("clip", "B=1 R=2 C=5 lo=-0.3 hi=0.6", {"x": (1, 2, 5)})(lambda x: torch.clamp(x, -0.3, 0.6))
golden("scale", "B=1 R=2 C=3 alpha=-1.5 beta=0.25", {"x": (1, 2, 3)})(lambda x: -1.5 * x + 0.25)
golden("stop", "B=1 R=2 C=3", {"x": (1, 2, 3)})(lambda x: x.detach() + 0 * x)
BINARY = {
    "add": torch.add, "sub": torch.sub, "mul": torch.mul, "div": torch.div, "minimum": torch.minimum,
    "maximum": torch.maximum, "expand": lambda a, b: b.expand_as(a) + 0 * a,
    "lt": lambda a, b: (a < b).double() + 0 * a + 0 * b, "le": lambda a, b: (a <= b).double() + 0 * a + 0 * b,
    "gt": lambda a, b: (a > b).double() + 0 * a + 0 * b, "ge": lambda a, b: (a >= b).double() + 0 * a + 0 * b,
    "eq": lambda a, b: (a == b).double() + 0 * a + 0 * b, "ne": lambda a, b: (a != b).double() + 0 * a + 0 * b,
}
for _name, _f in BINARY.items():
    for _rb, _cb in ((3, 2), (1, 2), (3, 1), (1, 1)):
        golden(_name, f"B=2 R=3 C=2 Rb={_rb} Cb={_cb}", {"a": (2, 3, 2), "b": (2, _rb, _cb)}, domain={"b": "away0"})(_f)
MASK = torch.tensor([1, 0, 0, 1, 1, 0]).reshape(2, 3, 1)
golden("where", "B=2 R=3 C=2 Rb=1 Cb=2 Rm=3 Cm=1", {"a": (2, 3, 2), "b": (2, 1, 2)}, index={"mask": MASK})(
    lambda a, b: torch.where(MASK.bool(), a, b))


# ---- norm ----
def layernorm(x, w=None, b=None, eps=1e-5):
    mean = x.mean(-1, keepdim=True)
    rstd = 1 / torch.sqrt(((x - mean) ** 2).mean(-1, keepdim=True) + eps)
    y = (x - mean) * rstd
    y = y * w[:, None] if w is not None else y
    y = y + b[:, None] if b is not None else y
    return y, mean[..., 0], rstd[..., 0]


def rmsnorm(x, w=None, eps=1e-5):
    rstd = 1 / torch.sqrt((x * x).mean(-1, keepdim=True) + eps)
    return (x * rstd * w[:, None] if w is not None else x * rstd), rstd[..., 0]


golden("layernorm", "B=2 R=2 C=3", {"x": (2, 2, 3), "w": (2, 3), "b": (2, 3)}, saved=("mean", "rstd"))(layernorm)
golden("layernorm", "B=1 R=2 C=4 eps=0.1 w=none b=none", {"x": (1, 2, 4)}, saved=("mean", "rstd"))(
    lambda x: layernorm(x, eps=0.1))
golden("rmsnorm", "B=2 R=2 C=3", {"x": (2, 2, 3), "w": (2, 3)}, saved=("rstd",))(rmsnorm)
golden("rmsnorm", "B=1 R=2 C=4 eps=0.1 w=none", {"x": (1, 2, 4)}, saved=("rstd",))(lambda x: rmsnorm(x, eps=0.1))

# ---- linear ----
ACTS = {"none": lambda z: z, "relu": torch.relu, "gelu": F.gelu, "gelu_tanh": lambda z: F.gelu(z, approximate="tanh"),
        "silu": F.silu, "tanh": torch.tanh, "sigmoid": torch.sigmoid}
for _name, _f in ACTS.items():
    golden("linear", f"B=2 R=2 I=3 O=2 act={_name}",
           {"x": (2, 2, 3), "w": (2, 2, 3), "b": (2, 2), "res": (2, 2, 2)})(
        lambda x, w, b, res, f=_f: f(torch.einsum("bri,boi->bro", x, w) + b[:, None]) + res)
golden("linear", "B=1 R=3 I=2 O=4 b=none res=none", {"x": (1, 3, 2), "w": (1, 4, 2)})(
    lambda x, w: torch.einsum("bri,boi->bro", x, w))
for _ta in (0, 1):
    for _tb in (0, 1):
        golden("matmul", f"B=2 M=2 N=3 K=2 ta={_ta} tb={_tb}", {"a": (2, 2, 2), "b": (2, 3, 2) if _tb else (2, 2, 3)},
               out="c")(lambda a, b, ta=_ta, tb=_tb: (a.mT if ta else a) @ (b.mT if tb else b))


# ---- images, channels last ----
def conv2d(x, w, b=None, pad=0, stride=1):
    tasks = [F.conv2d(x[i].permute(0, 3, 1, 2), w[i], None if b is None else b[i], stride, pad).permute(0, 2, 3, 1)
             for i in range(x.shape[0])]
    return torch.stack(tasks)


golden("conv2d", "B=2 T=2 H=3 W=4 I=2 O=2 K=3 pad=1",
       {"x": (2, 2, 3, 4, 2), "w": (2, 2, 2, 3, 3), "b": (2, 2)})(lambda x, w, b: conv2d(x, w, b, 1))
golden("conv2d", "B=1 T=1 H=5 W=4 I=1 O=3 K=2 stride=2 b=none",
       {"x": (1, 1, 5, 4, 1), "w": (1, 3, 1, 2, 2)})(lambda x, w: conv2d(x, w, None, 0, 2))


def batch_norm(x, w=None, b=None, eps=1e-5):
    mean = x.mean((1, 2))
    rstd = 1 / torch.sqrt(((x - mean[:, None, None]) ** 2).mean((1, 2)) + eps)
    y = (x - mean[:, None, None]) * rstd[:, None, None]
    y = y if w is None else y * w[:, None, None]
    return (y if b is None else y + b[:, None, None]), mean, rstd


golden("batch_norm", "B=2 T=3 P=2 C=3", {"x": (2, 3, 2, 3), "w": (2, 3), "b": (2, 3)}, saved=("mean", "rstd"))(
    batch_norm)
golden("batch_norm", "B=1 T=2 P=3 C=2 eps=0.1 w=none b=none", {"x": (1, 2, 3, 2)}, saved=("mean", "rstd"))(
    lambda x: batch_norm(x, eps=0.1))


def batch_norm_pool(x, w, b, size=2):
    y, mean, rstd = batch_norm(x.flatten(2, 3), w, b)
    y = torch.stack([F.max_pool2d(i.permute(0, 3, 1, 2), size).permute(0, 2, 3, 1) for i in y.view(x.shape)])
    return F.relu(y), mean, rstd


golden("batch_norm_pool", "B=2 T=2 H=4 W=5 C=3 act=relu", {"x": (2, 2, 4, 5, 3), "w": (2, 3), "b": (2, 3)},
       saved=("mean", "rstd"))(batch_norm_pool)
golden("max_pool", "B=2 T=1 H=5 W=4 C=2", {"x": (2, 1, 5, 4, 2)})(
    lambda x: torch.stack([F.max_pool2d(i.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1) for i in x]))
golden("max_pool", "B=1 T=2 H=3 W=6 C=1 size=3", {"x": (1, 2, 3, 6, 1)})(
    lambda x: torch.stack([F.max_pool2d(i.permute(0, 3, 1, 2), 3).permute(0, 2, 3, 1) for i in x]))


# ---- attention: scores as a matrix, softmax by its definition ----
def attention(q, k, v, scale=None, bias=None, slopes=None, see=lambda own, j: j <= own, show=None):
    """see(own key, key): the mask; show (B,T,S): a mask of its own"""
    t, s, h, g = q.shape[1], k.shape[1], q.shape[2], k.shape[2]
    head = torch.tensor([i * g // h for i in range(h)])
    k, v = k[:, :, head], v[:, :, head]
    own, j = (torch.arange(t) + s - t)[:, None], torch.arange(s)[None]
    factor = scale[:, :, None, None] if scale is not None else 1 / math.sqrt(q.shape[3])
    scores = torch.einsum("bthd,bshd->bhts", q, k) * factor
    seen = see(own, j).expand(scores.shape)
    if show is not None:
        seen = seen & show[:, None]
    if bias is not None:
        bias = bias[:, :, :t, :s]
        seen = seen & ~torch.isinf(bias.detach())
        scores = scores + torch.where(seen, bias, 0)
    if slopes is not None:
        scores = scores - slopes[:, :, None, None] * (own - j).abs()
    some = seen.any(-1)
    lse = torch.where(some, torch.logsumexp(torch.where(seen, scores, -1e30), -1), 0)
    p = torch.where(seen, torch.exp(torch.where(seen, scores - lse[..., None], 0)), 0)
    return torch.einsum("bhts,bshd->bthd", p, v), lse.transpose(1, 2)


def attention_case(settings, b, t, s, h, g, d, more=(), index=None, domain=None, **how):
    sizes = {"scale": (b, h), "bias": (b, h, t + how.pop("rows", 0), s + how.pop("keys", 0)), "slopes": (b, h)}
    shapes = {"q": (b, t, h, d), "k": (b, s, g, d), "v": (b, s, g, d)} | {n: sizes[n] for n in more}
    optional = ("scale", "bias", "slopes", "prefix_lengths", "block_mask")
    absent = " ".join(n + "=none" for n in optional if n not in (*more, *(index or {})))
    if "bias" in more:
        settings += " P=%d Q=%d" % shapes["bias"][2:]
    golden("attention", f"B={b} T={t} S={s} H={h} G={g} D={d} {settings} {absent}", shapes, out="out", saved=("lse",),
           index=index, domain=domain)(
        lambda *x: attention(*x[:3], **dict(zip(more, x[3:])), **how))


def EVERY(own, j):
    return j == j


attention_case("", 2, 3, 3, 2, 2, 2)
attention_case("", 1, 2, 4, 3, 2, 2, more=["scale"])
attention_case("mask=full", 1, 3, 2, 2, 1, 3, see=EVERY)
attention_case("", 1, 4, 2, 1, 1, 2, more=["scale"])  # two rows see nothing
PREFIXES = {"prefix": lambda own, j, n: (j < n) | (j <= own), "context": lambda own, j, n: (j < n) | (j == own)}
for _mask, _see in PREFIXES.items():
    attention_case(f"mask={_mask} prefix=2", 1, 5, 5, 2, 2, 2, see=lambda own, j, f=_see: f(own, j, 2))
    attention_case(f"mask={_mask} prefix=9", 1, 2, 3, 1, 1, 2, see=lambda own, j, f=_see: f(own, j, 9))
    _n = torch.tensor([3, 0])
    attention_case(f"mask={_mask} prefix=1", 2, 3, 4, 2, 1, 2, index={"prefix_lengths": _n},
                   see=lambda own, j, f=_see: f(own, j, _n[:, None, None, None]))
attention_case("mask=window window=2", 1, 5, 4, 2, 1, 2, see=lambda own, j: (j <= own) & (j > own - 2))
attention_case("mask=window window=1", 1, 3, 3, 1, 1, 2, see=lambda own, j: j == own)
attention_case("", 2, 3, 4, 2, 1, 2, more=["slopes"])
attention_case("mask=full", 1, 3, 5, 2, 2, 2, more=["scale", "slopes"], see=EVERY)
attention_case("", 2, 3, 3, 2, 1, 2, more=["bias"])
attention_case("mask=full", 1, 3, 4, 2, 2, 2, more=["scale", "bias", "slopes"], rows=1, keys=2, see=EVERY)
attention_case("mask=full", 2, 4, 3, 2, 1, 2, more=["bias"], domain={"bias": "hiding"}, see=EVERY)
_blocks = torch.tensor([[[1, 0, 1], [0, 0, 0], [0, 7, 1]], [[0, 1, 1], [1, 1, 0], [0, 0, 1]]])
_show = _blocks.bool().repeat_interleave(2, 1).repeat_interleave(2, 2)[:, :5, :6]
attention_case("mask=full block_q=2 block_k=2", 2, 5, 6, 2, 1, 2, index={"block_mask": _blocks}, show=_show,
               see=EVERY)
attention_case("block_q=2 block_k=2", 2, 5, 6, 2, 1, 2, more=["slopes"], index={"block_mask": _blocks}, show=_show)
_meta = torch.tensor([0, 2, 3])  # meta tokens see earlier meta tokens only
_marks = torch.zeros(1, 5, 5, dtype=torch.long)
_marks[0, _meta[:, None], _meta] = 1
attention_case("", 1, 5, 5, 1, 1, 2, index={"block_mask": _marks}, show=_marks.bool())

# ---- memories written by outer products, token by token ----
def memory(q, k, v, beta=None, decay=None, state=None, norm=None, delta=False, normalise=False, eps=0.0):
    b, t, h, dk, dv = *k.shape, v.shape[-1]
    s = state if state is not None else torch.zeros(b, h, dk, dv)
    z = norm if norm is not None else torch.zeros(b, h, dk)
    rows = []
    for i in range(t):
        if decay is not None:
            s = s * decay[:, i, :, :, None]
        e = v[:, i] - torch.einsum("bhkv,bhk->bhv", s, k[:, i]) if delta else v[:, i]
        u = e * beta[:, i, :, None] if beta is not None else e
        s = s + torch.einsum("bhk,bhv->bhkv", k[:, i], u)
        z = z + k[:, i]
        o = torch.einsum("bhkv,bhk->bhv", s, q[:, i])
        rows.append(o / (torch.einsum("bhk,bhk->bh", z, q[:, i]) + eps)[..., None] if normalise else o)
    out = torch.stack(rows, 1)
    return (out, s, z) if normalise else (out, s)


_QKV = {"q": (2, 3, 2, 3), "k": (2, 3, 2, 3), "v": (2, 3, 2, 2)}
for _form in ("recurrent", "chunked chunk=2"):
    golden("linear_attention", f"B=2 T=3 H=2 K=3 V=2 decay=none form={_form}", {**_QKV, "state_in": (2, 2, 3, 2)}, out="out",
           saved=("state_out",))(lambda q, k, v, s: memory(q, k, v, state=s))
    for _a in (1, 3):
        golden("linear_attention", f"B=2 T=3 H=2 K=3 V=2 A={_a} norm_in=none norm_out=none form={_form}",
               {**_QKV, "decay": (2, 3, 2, _a), "state_in": (2, 2, 3, 2)}, out="out", saved=("state_out",),
               domain={"decay": "unit"})(lambda q, k, v, a, s: memory(q, k, v, None, a, s))
    golden("linear_attention", f"B=2 T=3 H=2 K=3 V=2 decay=none normalise=yes eps=0.125 form={_form}",
           {**_QKV, "state_in": (2, 2, 3, 2), "norm_in": (2, 2, 3)}, out="out", saved=("state_out", "norm_out"),
           domain={"q": "positive", "k": "positive", "norm_in": "positive"})(
        lambda q, k, v, s, z: memory(q, k, v, state=s, norm=z, normalise=True, eps=0.125))
_RATES = {"beta": (2, 3, 2)}
for _form in ("recurrent", "chunked chunk=2"):
    golden("delta_rule", f"B=2 T=3 H=2 K=3 V=2 form={_form}", {**_QKV, **_RATES, "state_in": (2, 2, 3, 2)}, out="out",
           saved=("state_out",))(lambda q, k, v, beta, s: memory(q, k, v, beta, state=s, delta=True))
    golden("delta_rule", f"B=2 T=3 H=2 K=3 V=2 beta=none form={_form}", _QKV, out="out", saved=("state_out",))(
        lambda q, k, v: memory(q, k, v, delta=True))
    for _a in (1, 3):
        golden("gated_delta", f"B=2 T=3 H=2 K=3 V=2 A={_a} form={_form}",
               {**_QKV, **_RATES, "decay": (2, 3, 2, _a), "state_in": (2, 2, 3, 2)}, out="out", saved=("state_out",))(
            lambda q, k, v, beta, decay, s: memory(q, k, v, beta, decay, s, delta=True))


# ---- a matrix that rewrites itself: x (B,T,H,K), w (B,H,K,V+2K+4) ----
def srwm(x, w, sizes):
    k, out = x.shape[-1], []
    for i in range(x.shape[1]):
        read = lambda f: torch.einsum("bhkr,bhk->bhr", w, f)
        y, q, key, rate = torch.split(read(torch.softmax(x[:, i], -1)), sizes, -1)
        key = torch.softmax(key, -1)
        rates = torch.repeat_interleave(torch.sigmoid(rate), torch.tensor(sizes), dim=-1)
        w = w + torch.einsum("bhk,bhr->bhkr", key, rates * (read(torch.softmax(q, -1)) - read(key)))
        out.append(y)
    return torch.stack(out, 1), w


golden("srwm", "B=2 T=3 H=2 K=3 V=2", {"x": (2, 3, 2, 3), "state_in": (2, 2, 3, 12)}, out="out", saved=("state_out",))(
    lambda x, w: srwm(x, w, [2, 3, 3, 4]))

# ---- a matrix trained while the sequence is read: S, Y (B,H,K,V) ----
def gradient_memory(q, k, v, beta, decay, momentum, s, y, period=1, held=False):
    out = []
    for i in range(q.shape[1]):
        if i % period == 0:
            a = s
        e = v[:, i] - torch.einsum("bhkv,bhk->bhv", a, k[:, i])
        y = momentum[:, i, :, None, None] * y + torch.einsum("bhk,bhv,bh->bhkv", k[:, i], e, beta[:, i])
        s = decay[:, i, :, None, None] * s + y
        out.append(torch.einsum("bhkv,bhk->bhv", a if held else s, q[:, i]))
    return torch.stack(out, 1), s, y


for _settings, _how in {"period=1": {}, "period=2 read=held": {"period": 2, "held": True}}.items():
    golden("gradient_memory", f"B=2 T=3 H=2 K=3 V=2 {_settings}",
           {**_QKV, "beta": (2, 3, 2), "decay": (2, 3, 2), "momentum": (2, 3, 2), "state_in": (2, 2, 3, 2),
            "moment_in": (2, 2, 3, 2)}, out="out", saved=("state_out", "moment_out"))(
        lambda *a, how=_how: gradient_memory(*a, **how))


def mlp_memory(q, k, v, beta, decay, momentum, w1, w2, m1, m2):
    out = []
    for t in range(k.shape[1]):
        x, y = k[:, t, :, :, None], v[:, t, :, :, None]
        rate, keep, mu = (n[:, t, :, None, None] for n in (beta, decay, momentum))
        z = w1.mT @ x
        e = w2.mT @ F.silu(z) - y
        s = torch.sigmoid(z)
        g = (w2 @ e) * (s + z * s * (1 - s))
        m1, m2 = mu * m1 - rate * x @ g.mT, mu * m2 - rate * F.silu(z) @ e.mT
        w1, w2 = keep * w1 + m1, keep * w2 + m2
        out.append((w2.mT @ F.silu(w1.mT @ q[:, t, :, :, None]))[..., 0])
    return torch.stack(out, 1), w1, w2, m1, m2


golden("mlp_memory", "B=2 T=3 H=2 K=3 F=4 V=2",
       {"q": (2, 3, 2, 3), "k": (2, 3, 2, 3), "v": (2, 3, 2, 2), "beta": (2, 3, 2), "decay": (2, 3, 2), "momentum": (2, 3, 2),
        "first_in": (2, 2, 3, 4), "second_in": (2, 2, 4, 2), "first_moment_in": (2, 2, 3, 4), "second_moment_in": (2, 2, 4, 2)},
       out="out", saved=("first_out", "second_out", "first_moment_out", "second_moment_out"))(mlp_memory)


def short_conv(x, w, state):
    past, rows = w.shape[1] - 1, torch.cat((state, x), 1)
    y = sum(w[:, j:j + 1] * rows[:, past - j:past - j + x.shape[1]] for j in range(past + 1))
    return y, rows[:, rows.shape[1] - past:]


for _T in (5, 2):
    golden("short_conv", f"B=2 T={_T} C=3 W=4", {"x": (2, _T, 3), "w": (2, 4, 3), "state_in": (2, 3, 3)},
           saved=("state_out",))(short_conv)


# ---- ridge regression ----
def ridge(x, y, strength):
    gram = x.mT @ x + strength[:, None, None] * torch.eye(x.shape[-1])
    return torch.linalg.solve(gram, x.mT @ y).mT


for _R, _I in ((4, 2), (2, 3)):
    golden("ridge", f"B=2 R={_R} I={_I} O=2 label=none", {"x": (2, _R, _I), "y": (2, _R, 2), "ridge": (2,)}, out="w",
           domain={"ridge": "positive"})(ridge)

_LABEL = torch.tensor([[1, 0, 1], [2, -1, 0]])
golden("ridge", "B=2 R=3 I=2 O=3 y=none", {"x": (2, 3, 2), "ridge": (2,)}, out="w", index={"label": _LABEL},
       domain={"ridge": "positive"})(lambda x, k: ridge(x, (_LABEL[..., None] == torch.arange(3)).double(), k))


# ---- logistic regression: the minimum by Newton's method, then three steps that autograd sees, which give its first
# derivatives exactly, and those of every order below eight ----
def logistic(x, y, strength):
    def step(w):  # (B, O, I)
        p = torch.sigmoid(w @ x.mT)
        slope = p - y.mT
        g = slope @ x + strength[:, None, None] * w
        h = torch.einsum("bor,bri,brj->boij", p * (1 - p), x, x) + strength[:, None, None, None] * torch.eye(x.shape[-1])
        return w - torch.linalg.solve(h, g[..., None])[..., 0]

    w = torch.zeros(x.shape[0], y.shape[-1], x.shape[-1], dtype=torch.float64)
    with torch.no_grad():
        for _ in range(50):
            w = step(w)
    for _ in range(3):
        w = step(w)
    return w


for _R, _I in ((5, 3), (2, 4)):
    golden("logistic", f"B=2 R={_R} I={_I} O=2 label=none", {"x": (2, _R, _I), "y": (2, _R, 2), "ridge": (2,)}, out="w",
           domain={"ridge": "positive"})(logistic)
golden("logistic", "B=2 R=3 I=2 O=3 y=none", {"x": (2, 3, 2), "ridge": (2,)}, out="w", index={"label": _LABEL},
       domain={"ridge": "positive"})(lambda x, k: logistic(x, (_LABEL[..., None] == torch.arange(3)).double(), k))

# ---- feature maps ----
def dpfp(x, nu):
    r = torch.cat([torch.relu(x), torch.relu(-x)], -1)
    return torch.cat([r * torch.roll(r, i, -1) for i in range(1, nu + 1)], -1)


for _map, _f in {"identity": lambda x: x * 1, "elu1": lambda x: F.elu(x) + 1, "dpfp nu=2": lambda x: dpfp(x, 2),
                 "softmax": lambda x: torch.softmax(x, -1),
                 "silu_l2 eps=0.25": lambda x: F.silu(x) / torch.sqrt((F.silu(x) ** 2).sum(-1, keepdim=True) + 0.25),
                 "l1 eps=0.25": lambda x: x / (x.abs().sum(-1, keepdim=True) + 0.25),
                 "l2 eps=0.25": lambda x: x / torch.sqrt((x ** 2).sum(-1, keepdim=True) + 0.25)}.items():
    golden("feature_map", f"B=2 T=2 H=2 D=3 map={_map}", {"x": (2, 2, 2, 3)}, domain={"x": "away0"})(_f)

# ---- embedding, positions ----
TOKENS = torch.tensor([[1, 3, 1], [0, 0, 2]])
golden("embedding", "B=2 R=3 V=4 C=2", {"w": (2, 4, 2)}, index={"tokens": TOKENS})(
    lambda w: torch.stack([w[i][TOKENS[i]] for i in range(2)]))
golden("position_add", "B=2 R=2 P=3 C=2", {"x": (2, 2, 2), "w": (2, 3, 2)})(lambda x, w: x + w[:, :2])


def rotary(x, position, base, half):
    d = x.shape[-1]
    angle = position[..., None, None] * base ** (-2 * torch.arange(d // 2) / d)
    p, q = (x[..., :d // 2], x[..., d // 2:]) if half else (x[..., 0::2], x[..., 1::2])
    a, b = p * torch.cos(angle) - q * torch.sin(angle), q * torch.cos(angle) + p * torch.sin(angle)
    return torch.cat([a, b], -1) if half else torch.stack([a, b], -1).reshape(x.shape)


POSITION = torch.tensor([[4, 0, 2]])
golden("rotary", "B=1 R=3 H=2 D=4 position=none", {"x": (1, 3, 2, 4)})(
    lambda x: rotary(x, torch.arange(3.0)[None], 10000.0, True))
golden("rotary", "B=1 R=3 H=1 D=4 pairing=interleaved base=50", {"x": (1, 3, 1, 4)}, index={"position": POSITION})(
    lambda x: rotary(x, POSITION.double(), 50.0, False))

# ---- losses ----
golden("mse", "B=2 R=2 C=3", {"pred": (2, 2, 3), "target": (2, 2, 3), "weight": (2, 2)}, out="loss")(
    lambda pred, target, weight: weight * ((pred - target) ** 2).sum(-1))
golden("mse", "B=1 R=2 C=3 reduction=mean weight=none", {"pred": (1, 2, 3), "target": (1, 2, 3)}, out="loss")(
    lambda pred, target: ((pred - target) ** 2).mean(-1))
LABEL = torch.tensor([[2, -1], [0, 1]])


def cross_entropy(logits, weight, target=None):
    lse = torch.logsumexp(logits, -1)
    if target is not None:
        return weight * (target * (lse[..., None] - logits)).sum(-1), lse
    known = (LABEL >= 0).double()
    picked = torch.gather(logits, -1, LABEL.clamp(min=0)[..., None])[..., 0]
    return weight * known * (lse - picked), lse * known


golden("cross_entropy", "B=2 R=2 C=3 target=none", {"logits": (2, 2, 3), "weight": (2, 2)}, out="loss", saved=("lse",),
       index={"label": LABEL})(cross_entropy)
golden("cross_entropy", "B=2 R=2 C=3 label=none", {"logits": (2, 2, 3), "weight": (2, 2), "target": (2, 2, 3)}, out="loss",
       saved=("lse",), domain={"target": "unit"})(cross_entropy)
golden("softmax", "B=2 R=2 C=3", {"x": (2, 2, 3)})(lambda x: torch.exp(x) / torch.exp(x).sum(-1, keepdim=True))
golden("log_softmax", "B=2 R=2 C=3", {"x": (2, 2, 3)})(lambda x: x - torch.log(torch.exp(x).sum(-1, keepdim=True)))

# ---- reductions and moves ----
AXES = {"row": (1,), "column": (2,), "all": (1, 2)}
REDUCE = {"sum": torch.sum, "mean": torch.mean, "max": torch.amax, "logsumexp": torch.logsumexp}
for _name, _f in REDUCE.items():
    for _axis, _dims in AXES.items():
        golden(_name, f"B=2 R=3 C=2 axis={_axis}", {"x": (2, 3, 2)})(lambda x, f=_f, d=_dims: f(x, d, keepdim=True))
golden("concat", "B=2 Ra=2 Ca=1 Rb=2 Cb=2", {"a": (2, 2, 1), "b": (2, 2, 2)})(lambda a, b: torch.cat([a, b], 2))
golden("concat", "B=2 Ra=2 Ca=2 Rb=1 Cb=2 axis=row", {"a": (2, 2, 2), "b": (2, 1, 2)})(lambda a, b: torch.cat([a, b], 1))
golden("slice", "B=2 R=5 C=3 row=1 step=2 column=1 Cy=2", {"x": (2, 5, 3)})(lambda x: x[:, 1::2, 1:3])
golden("transpose", "B=2 R=2 C=3", {"x": (2, 2, 3)})(lambda x: x.mT + 0)
PICK = torch.tensor([[2, -1, 0, 2], [1, 1, -1, 0]])
PICKED = F.one_hot(PICK + 1, 4)[..., 1:].double()  # -1 picks nothing
golden("gather", "B=2 R=4 V=3 C=2", {"x": (2, 3, 2)}, index={"index": PICK})(lambda x: PICKED @ x)
golden("scatter_add", "B=2 R=4 V=3 C=2", {"x": (2, 4, 2)}, index={"index": PICK})(lambda x: PICKED.mT @ x)


# ---- values ----
def line(kind, wire, x):
    return f"{kind} {wire} " + " ".join(format(v, ".17g") for v in x.double().reshape(-1).tolist())


def one_case(op, number, settings, shapes, out, saved, index, domain, f):
    rng = random.Random(f"{op} {number}")
    names = list(shapes)
    x = [draw(rng, shapes[n], domain.get(n, "any")) for n in names]
    t = [draw(rng, shapes[n], "any") for n in names]

    def outputs(*values):
        y = f(*values)
        return y if isinstance(y, tuple) else (y,)

    def gradient(dy, *values):
        values = [v.clone().requires_grad_() if not v.requires_grad else v for v in values]
        y = outputs(*values)[0]
        return torch.autograd.grad(y, values, dy, create_graph=True, allow_unused=True, materialize_grads=True)

    y = outputs(*x)
    dy, tdy = draw(rng, y[0].shape, "any"), draw(rng, y[0].shape, "any")
    # J t by the double-backward trick: <u, J t> is linear in u
    leaves = [v.clone().requires_grad_() for v in x]
    tangents = []
    for each in outputs(*leaves):
        u = torch.zeros_like(each, requires_grad=True)
        g = torch.autograd.grad(each, leaves, u, create_graph=True, allow_unused=True, materialize_grads=True)
        total = sum((a * b).sum() for a, b in zip(g, t))
        tangents.append(torch.autograd.grad(total, u, allow_unused=True, materialize_grads=True)[0])
    d = gradient(dy, *x)
    # td: derivative of the gradient along (t, tdy), again through <u, .>
    leaves = [v.clone().requires_grad_() for v in x] + [dy.clone().requires_grad_()]
    g = gradient(leaves[-1], *leaves[:-1])
    td = []
    for each in g:
        u = torch.zeros_like(each, requires_grad=True)
        h = torch.autograd.grad((each * u).sum(), leaves, create_graph=True, allow_unused=True, materialize_grads=True)
        total = sum((a * b).sum() for a, b in zip(h, t + [tdy]))
        if not total.requires_grad:
            td.append(torch.zeros_like(each))
            continue
        td.append(torch.autograd.grad(total, u, allow_unused=True, materialize_grads=True)[0])
    lines = ["case " + settings]
    lines += [line("in", n + ".v", v) for n, v in index.items()]
    for n, v, w in zip(names, x, t):
        lines += [line("in", n + ".v", v), line("in", n + ".t", w)]
    lines += [line("in", out + ".d", dy), line("in", out + ".td", tdy)]
    for n, v, w in zip((out,) + tuple(saved), y, tangents):
        lines += [line("out", n + ".v", v), line("out", n + ".t", w)]
    for n, v, w in zip(names, d, td):
        lines += [line("out", n + ".d", v), line("out", n + ".td", w)]
    return lines


def main():
    for op in sys.argv[1:] or GOLDEN:
        lines = [f"# {op}: made by make_golden.py with torch in float64; do not edit"]
        for number, case in enumerate(GOLDEN[op]):
            lines += one_case(op, number, *case)
        with open(os.path.join(HERE, op + ".txt"), "w") as file:
            file.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
