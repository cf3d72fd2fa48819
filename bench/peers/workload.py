"""what a workload is. every file in workloads/ lists some in WORKLOADS; README.md beside this file shows how to add one."""
import dataclasses
import importlib.util
import os
from typing import Callable

HERE = os.path.dirname(os.path.abspath(__file__))


@dataclasses.dataclass
class Job:
    """a whole job: steps of training by a recipe, against the same job written with a peer"""
    name: str
    recipe: str                    # from the top of the sources
    forms: dict                    # form -> build(grad_file, threads, micro) -> (step(), gradient() -> {name: float64 array})
    exact: Callable                # exact(grad_file) -> {name: float64 array}: the gradient in double
    settings: tuple = ()           # overrides of the recipe, KEY=VALUE; {bin} is the folder of the programs
    mica: dict = dataclasses.field(default_factory=lambda: {"mica": ()})  # mica's forms: more overrides of each
    tolerance: float = 2e-4        # |error| / |gradient| of a form that may be timed
    compared: tuple = ()           # overrides of the run whose gradient is compared; (): of the timed one
    bytes_a_param: int = 16        # parameters, gradients and two moments: not counted as extra memory


@dataclasses.dataclass
class Op:
    """one operation: its gradient (forward, backward), or gradient and Hessian-vector product (all four faces)"""
    name: str
    op: str                        # mica's name
    inputs: dict                   # port -> shape (normal values), or function of a numpy Generator -> array
    torch: dict                    # label -> function of {port: tensor} -> {port: tensor}, or a tensor for a port `out`
    jax: dict = dataclasses.field(default_factory=dict)
    out: str = "y"                 # the output port, where the functions return one tensor
    settings: tuple = ()           # KEY=VALUE, as for mica op --set
    jobs: tuple = ("gradient", "hvp")
    tolerance: float = 2e-4        # |error| / |exact| of every d and td, largest
    refuse: tuple = ()             # (job, form) that a peer is known not to do: not tried

    def arrays(self):
        """inputs by port, float32 or integers: the same in every process"""
        import numpy as np
        rng = np.random.default_rng(1)
        make = {k: v if callable(v) else (lambda rng, shape=v: rng.standard_normal(shape)) for k, v in self.inputs.items()}
        arrays = {k: np.asarray(f(rng)) for k, f in make.items()}
        return {k: a.astype(np.float32) if a.dtype.kind == "f" else a.astype(np.int32) for k, a in arrays.items()}

    def outputs(self, result):
        return result if isinstance(result, dict) else {self.out: result}


def load():
    """name -> workload, from all files"""
    found = {}
    folder = os.path.join(HERE, "workloads")
    for file in sorted(os.listdir(folder)):
        if not file.endswith(".py"):
            continue
        spec = importlib.util.spec_from_file_location("workloads_" + file[:-3], os.path.join(folder, file))
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        for workload in module.WORKLOADS:
            if workload.name in found:
                raise SystemExit(f"workloads/{file}: there is a '{workload.name}' already")
            found[workload.name] = workload
    return found
