"""products with weights shared by all tasks, and with weights of each task's own"""
from workload import Op


def torch_linear(p):
    import torch
    return torch.nn.functional.linear(p["x"], p["w"], p["b"])


def torch_per_task(p):
    import torch
    return torch.baddbmm(p["b"].unsqueeze(1), p["x"], p["w"].transpose(1, 2))


def jax_linear(p):
    return p["x"] @ p["w"].T + p["b"]


def jax_per_task(p):
    import jax
    return jax.vmap(lambda x, w, b: x @ w.T + b)(p["x"], p["w"], p["b"])


WORKLOADS = [
    Op("linear_shared", "linear", {"x": (64, 82, 256), "w": (1024, 256), "b": (1024,)},
       {"linear": torch_linear}, {"matmul": jax_linear}),
    Op("linear_tasks", "linear", {"x": (1000, 10, 40), "w": (1000, 40, 40), "b": (1000, 40)},
       {"baddbmm": torch_per_task}, {"vmap": jax_per_task}),
]
