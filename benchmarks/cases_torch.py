"""PyTorch's side of the cases: in its default layout or channels-last, in float32 or autocast to bfloat16.

It is eager, but on a GPU it may be one CUDA graph, or compiled.
"""

import sys
from collections.abc import Callable
from functools import cache, partial

import torch
from torch import nn
from torch.nn.functional import cross_entropy, pad, relu

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


class Subsample(nn.Module):
    """The twin of ``minicnn.models.resnet.Subsample``."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.stride, self.added = stride, width - channels

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Every ``stride``-th pixel, then channels of zeros."""
        return pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.added))


class Projection(nn.Sequential):
    """The twin of ``minicnn.models.resnet.Projection``."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__(nn.Conv2d(channels, width, 1, stride, bias=False), nn.BatchNorm2d(width))


class BasicBlock(nn.Module):
    """The twin of ``minicnn.models.resnet.BasicBlock``."""

    def __init__(self, channels: int, width: int, stride: int, shortcut: type[Subsample | Projection]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        same = stride == 1 and channels == width
        self.shortcut = nn.Identity() if same else shortcut(channels, width, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The residual block."""
        y = relu(self.bn1(self.conv1(x)))
        return relu(self.bn2(self.conv2(y)) + self.shortcut(x))


def resnet(blocks: int, widths: tuple[int, ...], shortcut: type[Subsample | Projection]) -> nn.Module:
    """The twin of ``minicnn.models.resnet.ResNet`` with as many basic blocks in each stage."""
    channels = widths[0]
    layers: list[nn.Module] = [nn.Conv2d(3, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU()]
    for width in widths:
        for index in range(blocks):
            stride = 2 if index == 0 and width != widths[0] else 1
            layers.append(BasicBlock(channels, width, stride, shortcut))
            channels = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10))


class Block(nn.Module):
    """The twin of ``minicnn.models.vit.Block``."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attention = nn.MultiheadAttention(dim, heads, batch_first=True)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, tokens, dim) -> the same shape."""
        y = self.norm1(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        return x + self.mlp(self.norm2(x))


class ViT(nn.Module):
    """The twin of ``minicnn.models.ViT`` with its defaults."""

    def __init__(self, dim: int = 128, heads: int = 4, depth: int = 6) -> None:
        super().__init__()
        self.positions = nn.Parameter(torch.empty(1, 64, dim))
        self.patches = nn.Conv2d(3, dim, 4, 4)
        self.blocks = nn.Sequential(*(Block(dim, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, 3, 32, 32) -> logits (N, 10)."""
        x = self.patches(x).flatten(2).transpose(1, 2) + self.positions
        return self.head(self.norm(self.blocks(x)).mean(1))


MODELS: dict[str, Callable[[], nn.Module]] = {
    "lenet": lenet,
    "vgg": vgg,
    "resnet20": partial(resnet, 3, (16, 32, 64), Subsample),
    "vit": ViT,
    "resnet18": partial(resnet, 2, (64, 128, 256, 512), Projection),
}


def make(name: str) -> nn.Module:
    """The model of this name with the parameters that all contenders start from."""
    model = MODELS[name]()
    with torch.no_grad():
        for position, (key, parameter) in enumerate(model.named_parameters()):
            parameter.copy_(torch.from_numpy(initial(position, key, tuple(parameter.shape))))
    return model


@cache
def _square(device: str) -> torch.Tensor:
    """A matrix made at the first use: it does not count among the memory of a step."""
    return torch.ones(SGEMM, SGEMM, device=device)


def build(
    case: str,
    batch_size: int,
    backend: str,
    channels_last: bool = False,
    bfloat16: bool = False,
    graph: bool = False,
    compiled: bool = False,
) -> Workload:
    """Two tasks: "step", an SGD step or an inference of the case's model, and "sgemm".

    graph: the step is one CUDA graph. compiled: the model is compiled in the mode "max-autotune". In evaluation mode,
    where its logits are compared, it is neither.
    """
    device = "cuda" if backend == "cupy" else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        print("this PyTorch finds no CUDA device: install a build of it for the machine's CUDA", file=sys.stderr)
        sys.exit(2)
    x, target = (torch.from_numpy(array).to(device) for array in batch(batch_size))
    layout = torch.channels_last if channels_last else torch.contiguous_format
    x, model = x.contiguous(memory_format=layout), make(CASES[case].model).to(device)
    model.to(memory_format=layout)  # type: ignore[call-overload]  # the signatures lack it
    autocast = partial(torch.autocast, device, torch.bfloat16, enabled=bfloat16)
    optimizer = torch.optim.SGD(model.parameters(), LEARNING_RATE, MOMENTUM)
    torch.backends.cudnn.benchmark = True
    called = torch.compile(model, mode="max-autotune") if compiled else model

    def train() -> None:
        with autocast():
            loss = cross_entropy(called(x), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    def infer() -> torch.Tensor:
        with torch.no_grad(), autocast():
            return called(x)

    model.eval()
    with torch.no_grad(), autocast():
        facts = {"logits": model(x[:8]).tolist()}
    model.train(CASES[case].train)
    step: Callable[[], object] = train if CASES[case].train else infer
    if graph:
        step = _recorded(step, optimizer)
    tasks = {"step": step, "sgemm": lambda: _square(device) @ _square(device)}
    plain = "tf32" if device == "cuda" and torch.backends.cudnn.allow_tf32 else "float32"
    workload = Workload(tasks, precision="bfloat16" if bfloat16 else plain, facts=facts)
    if device == "cuda":
        workload.synchronize = torch.cuda.synchronize
        workload.device = torch.cuda.get_device_name()
        workload.device_peak_mib = lambda: torch.cuda.max_memory_reserved() / (1 << 20)
    return workload


def _recorded(step: Callable[[], object], optimizer: torch.optim.Optimizer) -> Callable[[], object]:
    """Return the step as one CUDA graph, recorded after some calls that make momentum and choose algorithms."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    optimizer.zero_grad()  # gradients are made in memory of the graph
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay
