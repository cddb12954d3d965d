"""PyTorch's side of the cases, eager, in its default layout and precision."""

import sys
from collections.abc import Callable

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from cases import CASES, LEARNING_RATE, MOMENTUM, batch, initial
from worker import Workload


def lenet() -> nn.Module:
    """The twin of ``minicnn.models.lenet``."""
    return nn.Sequential(
        nn.Conv2d(3, 6, 5), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(400, 128), nn.ReLU(), nn.Linear(128, 84), nn.ReLU(), nn.Linear(84, 10),
    )  # fmt: skip


MODELS: dict[str, Callable[[], nn.Module]] = {"lenet": lenet}


def build(case: str, batch_size: int, backend: str) -> Workload:
    """One task, "step": an SGD step or an inference of the case's model."""
    device = "cuda" if backend == "cupy" else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        print("this PyTorch finds no CUDA device: install a build of it for the machine's CUDA", file=sys.stderr)
        sys.exit(2)
    x, target = (torch.from_numpy(array).to(device) for array in batch(batch_size))
    model = MODELS[CASES[case].model]().to(device)
    with torch.no_grad():
        for position, (name, parameter) in enumerate(model.named_parameters()):
            parameter.copy_(torch.from_numpy(initial(position, name, tuple(parameter.shape))))
    optimizer = torch.optim.SGD(model.parameters(), LEARNING_RATE, MOMENTUM)

    def train() -> None:
        loss = cross_entropy(model(x), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    def infer() -> torch.Tensor:
        with torch.no_grad():
            return model(x)

    model.eval()
    facts = {"logits": infer()[:8].tolist()}
    model.train(CASES[case].train)
    workload = Workload({"step": train if CASES[case].train else infer}, facts=facts)
    if device == "cuda":
        workload.synchronize = torch.cuda.synchronize
        workload.device = torch.cuda.get_device_name()
        workload.device_peak_mib = lambda: torch.cuda.max_memory_reserved() / (1 << 20)
    return workload
