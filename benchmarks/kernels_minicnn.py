"""minicnn's side of ``kernels.py``: the kernels of the CPU, or their twins of the reference."""

from collections.abc import Callable
from functools import partial

from kernel_cases import converted, measurements
from minicnn import backend
from worker import Workload


def build(kernels: str) -> Workload:
    """One task a measurement, on the kernels of the backend ``kernels``: "numpy" or "reference".

    The fact "own" names the kernels that the backend has in its own right: the CPU leaves the others to the reference.
    """
    k = backend.get(kernels).kernels
    tasks: dict[str, Callable[[], object]] = {}
    for measurement in measurements():
        arguments = converted(measurement.arguments, lambda array: array)
        tasks[measurement.name] = partial(getattr(k, measurement.kernel), *arguments)
    return Workload(tasks, facts={"own": [name for name in vars(k) if not name.startswith("_")]})
