"""minicnn's side of the cases."""

import sys
from collections.abc import Callable
from typing import Any

import gpu
import minicnn
import minicnn.functional as F
from cases import CASES, LEARNING_RATE, MOMENTUM, batch, initial
from minicnn import Tensor, nn, optim
from minicnn.backend import BackendUnavailable, to_numpy
from worker import Workload


def make(name: str) -> nn.Module:
    """The model of this name with the parameters that all contenders start from."""
    model = minicnn.models.create(name)
    values = {key: initial(i, key, p.shape) for i, (key, p) in enumerate(model.named_parameters())}
    model.load_state_dict(values, strict=False)
    return model


def build(case: str, batch_size: int, backend: str, precision: str = "float32") -> Workload:
    """One task, "step": an SGD step or an inference of the case's model."""
    try:
        chosen = minicnn.set_default_backend(backend)
        chosen.require_precision(precision)
    except (BackendUnavailable, RuntimeError) as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    within = minicnn.precision(precision)
    images, labels = (chosen.asarray(array) for array in batch(batch_size))
    model = make(CASES[case].model)
    x, target = Tensor(images), Tensor(labels)
    optimizer = optim.SGD(model.parameters(), LEARNING_RATE, MOMENTUM)

    def train(x: Tensor, target: Tensor) -> Tensor:
        loss = F.cross_entropy(model(x), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    def infer(x: Tensor) -> Tensor:
        with minicnn.no_grad():
            return model(x)

    def forward() -> Callable[..., Tensor]:
        return infer if CASES[case].eager else minicnn.compile(model)

    model.eval()
    with within:
        facts: dict[str, Any] = {"logits": to_numpy(forward()(Tensor(images[:8])).data).tolist(), "flop": None}
    model.train(CASES[case].train)
    inputs: tuple[Tensor, ...] = (x,)
    task = forward()
    if CASES[case].train:
        task, inputs = train if CASES[case].eager else minicnn.compile(train), (x, target)

    def step() -> None:
        with within:
            task(*inputs)

    if isinstance(task, minicnn.compile):
        step()
        *_, plan = task.plans.values()
        facts |= {"flop": plan.flop(), "calls": len(plan.program.calls)}
    name = {"bf16": "bfloat16"}.get(precision, precision)
    workload = Workload({"step": step}, precision=name, synchronize=chosen.synchronize, facts=facts)
    if backend == "cupy":
        workload.device, workload.device_peak_mib = gpu.name(chosen.xp), lambda: _held_mib(chosen.xp, task)
    return workload


def _held_mib(xp: Any, task: Any) -> float:
    """Memory of the device that the process holds, and has held at most: its pools give nothing back."""
    memories = task._memories._all if isinstance(task, minicnn.compile) else ()
    pools = [run._memory.pool for memory in memories for run in memory._runs.values()]
    return sum(pool.total_bytes() for pool in (xp.get_default_memory_pool(), *pools)) / (1 << 20)
