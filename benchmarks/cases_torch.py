"""PyTorch's side of the cases, eager, in its default layout and precision."""

import sys
from collections.abc import Callable
from functools import cache

import torch
from torch import nn
from torch.nn.functional import cross_entropy, relu

from cases import CASES, LEARNING_RATE, MOMENTUM, SGEMM, batch, initial
from worker import Workload


def lenet() -> nn.Module:
    """The twin of ``minicnn.models.lenet``."""
    return nn.Sequential(
        nn.Conv2d(3, 6, 5), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(400, 128), nn.ReLU(), nn.Linear(128, 84), nn.ReLU(), nn.Linear(84, 10),
    )  # fmt: skip


def vgg() -> nn.Module:
    """The twin of ``minicnn.models.vgg``."""
    layers: list[nn.Module] = []
    channels = 3
    for width, p in ((32, 0.2), (64, 0.3), (128, 0.4)):
        for _ in range(2):
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ELU(), nn.BatchNorm2d(width)]
            channels = width
        layers += [nn.MaxPool2d(2), nn.Dropout(p)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * 16, 10))


class BasicBlock(nn.Module):
    """The twin of ``minicnn.models.resnet.BasicBlock``."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut = nn.Sequential()
        if stride != 1 or channels != width:
            self.shortcut = nn.Sequential(nn.Conv2d(channels, width, 1, stride, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The residual block."""
        y = relu(self.bn1(self.conv1(x)))
        return relu(self.bn2(self.conv2(y)) + self.shortcut(x))


def resnet18() -> nn.Module:
    """The twin of ``minicnn.models.resnet18``."""
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64), nn.ReLU()]
    channels = 64
    for width in (64, 128, 256, 512):
        layers += [BasicBlock(channels, width, 1 if width == 64 else 2), BasicBlock(width, width, 1)]
        channels = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10))


MODELS: dict[str, Callable[[], nn.Module]] = {"lenet": lenet, "vgg": vgg, "resnet18": resnet18}


@cache
def _square(device: str) -> torch.Tensor:
    """A matrix made at the first use: it does not count among the memory of a step."""
    return torch.ones(SGEMM, SGEMM, device=device)


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
    with torch.no_grad():
        facts = {"logits": model(x[:8]).tolist()}
    model.train(CASES[case].train)
    tasks: dict[str, Callable[[], object]] = {"step": train if CASES[case].train else infer}
    tasks["sgemm"] = lambda: _square(device) @ _square(device)
    workload = Workload(tasks, facts=facts)
    if device == "cuda":
        workload.synchronize = torch.cuda.synchronize
        workload.device = torch.cuda.get_device_name()
        workload.device_peak_mib = lambda: torch.cuda.max_memory_reserved() / (1 << 20)
    return workload
