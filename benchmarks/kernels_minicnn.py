"""minicnn's side of ``kernels.py``: the kernels of the CPU, or their twins of the reference."""

from collections.abc import Callable
from functools import partial

from kernel_cases import converted, measurements
from minicnn import backend
from minicnn.backend.cpu.jit import HAS_BFLOAT16
from worker import Workload


def build(kernels: str) -> Workload:
    """One task a measurement, on the kernels of the backend ``kernels``: "numpy" or "reference".

    The fact "own" names the kernels that the backend has in its own right: the CPU leaves the others to the reference.
    Those that this processor lacks instructions for are not among them, but in the fact "lacking".
    """
    k = backend.get(kernels).kernels
    lacking = []
    if kernels == "numpy":
        lacking = ["tf32"] if HAS_BFLOAT16 else ["bfloat16", "tf32"]
    tasks: dict[str, Callable[[], object]] = {}
    for measurement in measurements():
        arguments = converted(measurement.arguments, lambda array: array)
        tasks[measurement.name] = partial(getattr(k, measurement.kernel), *arguments)
    own = [name for name in vars(k) if not name.startswith("_") and name not in lacking]
    return Workload(tasks, facts={"own": own, "lacking": lacking})
