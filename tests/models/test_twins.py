"""The networks beside the same ones in PyTorch: from equal weights, the losses of some steps on random batches.

These are 20 for one network of each kind and 5 for its larger and similar relatives, whose layers are the same.
Parameters and buffers have the same names in both, so that the weights are copied by name. In float64 the runs stay
together but for rounding. In float32 (compiled, beside PyTorch in float64) a step along the steep gradients of a deep
network with batch norm makes a visible difference of a rounding, in PyTorch too; hence the small rates for these.
"""

import numpy as np
import pytest

import minicnn
import minicnn.functional as F
from minicnn import Tensor, models, optim
from minicnn.models.resnet import BasicBlock, Bottleneck, Projection, ResNet, Subsample

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.usefixtures("torch")

LONG = {"vgg", "resnet18", "resnet20", "vit"}
BATCH = 4
OPTIMIZERS = {
    "sgd": lambda library, parameters: library.SGD(parameters, 2e-5, momentum=0.9),
    "adam": lambda library, parameters: library.Adam(parameters, 2e-5),
}
RATES = {"resnet20": 2e-5, "resnet18": 2e-5, "resnet34": 4e-6, "resnet50": 2e-8}  # in float32; of the others 1e-4


class Block(torch.nn.Module):
    """He et al. (2016), figures 2 and 5."""

    def __init__(self, channels, width, stride, bottleneck, shortcut):
        super().__init__()
        conv, norm = torch.nn.Conv2d, torch.nn.BatchNorm2d
        if bottleneck:
            self.conv1, self.bn1 = conv(channels, width, 1, bias=False), norm(width)
            self.conv2, self.bn2 = conv(width, width, 3, stride, 1, bias=False), norm(width)
            self.conv3, self.bn3 = conv(width, 4 * width, 1, bias=False), norm(4 * width)
        else:
            self.conv1, self.bn1 = conv(channels, width, 3, stride, 1, bias=False), norm(width)
            self.conv2, self.bn2 = conv(width, width, 3, 1, 1, bias=False), norm(width)
        self.bottleneck, self.shortcut = bottleneck, shortcut

    def forward(self, x):
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        y = self.bn3(self.conv3(torch.relu(y))) if self.bottleneck else y
        return torch.relu(y + self.shortcut(x))


class Padding(torch.nn.Module):
    """Option A of the paper: every ``stride``-th pixel and channels of zeros."""

    def __init__(self, channels, stride):
        super().__init__()
        self.channels, self.stride = channels, stride

    def forward(self, x):
        y = x[:, :, :: self.stride, :: self.stride]
        return torch.nn.functional.pad(y, (0, 0, 0, 0, 0, self.channels - x.shape[1]))


class TorchResNet(torch.nn.Module):
    def __init__(self, blocks, widths, bottleneck=False, projection=True):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, widths[0], 3, 1, 1, bias=False)
        self.bn = torch.nn.BatchNorm2d(widths[0])
        channels, layers = widths[0], []
        for stage, width in enumerate(widths):
            for index in range(blocks[stage]):
                stride, outputs = 1 + (stage > 0 and index == 0), (4 if bottleneck else 1) * width
                shortcut = torch.nn.Identity()
                if stride > 1 or channels != outputs:
                    shortcut = Padding(outputs, stride)
                    if projection:
                        conv = torch.nn.Conv2d(channels, outputs, 1, stride, bias=False)
                        shortcut = torch.nn.Sequential(conv, torch.nn.BatchNorm2d(outputs))
                layers.append(Block(channels, width, stride, bottleneck, shortcut))
                channels = outputs
        self.blocks = torch.nn.Sequential(*layers)
        self.fc = torch.nn.Linear(channels, 10)

    def forward(self, x):
        return self.fc(self.blocks(torch.relu(self.bn(self.conv(x)))).mean((2, 3)))


class TorchVGG(torch.nn.Module):
    def __init__(self, widths, activation, norm):
        super().__init__()
        layers, channels = [], 3
        for width in widths:
            for _ in range(2):
                layers += [torch.nn.Conv2d(channels, width, 3, padding=1), activation()]
                layers += [torch.nn.BatchNorm2d(width)] if norm else []
                channels = width
            layers.append(torch.nn.MaxPool2d(2))
        self.features = torch.nn.Sequential(*layers)
        self.classifier = torch.nn.Linear(channels * (32 // 2 ** len(widths)) ** 2, 10)

    def forward(self, x):
        return self.classifier(self.features(x).flatten(1))


class Encoder(torch.nn.Module):
    def __init__(self, dim, heads, hidden):
        super().__init__()
        self.norm1, self.norm2 = torch.nn.LayerNorm(dim), torch.nn.LayerNorm(dim)
        self.attention = torch.nn.MultiheadAttention(dim, heads, batch_first=True)
        first, second = torch.nn.Linear(dim, hidden), torch.nn.Linear(hidden, dim)
        self.mlp = torch.nn.Sequential(first, torch.nn.GELU(), torch.nn.Identity(), second)

    def forward(self, x):
        y = self.norm1(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        return x + self.mlp(self.norm2(x))


class TorchViT(torch.nn.Module):
    def __init__(self, depth, dim, heads, hidden, own_token):
        super().__init__()
        self.patches = torch.nn.Conv2d(3, dim, 4, 4)
        self.class_token = torch.nn.Parameter(torch.zeros(1, 1, dim)) if own_token else None
        self.positions = torch.nn.Parameter(torch.zeros(1, 64 + own_token, dim))
        self.blocks = torch.nn.Sequential(*(Encoder(dim, heads, hidden) for _ in range(depth)))
        self.norm, self.head = torch.nn.LayerNorm(dim), torch.nn.Linear(dim, 10)

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        if self.class_token is not None:
            x = torch.cat([self.class_token.expand(len(x), -1, -1), x], 1)
        x = self.norm(self.blocks(x + self.positions))
        return self.head(x.mean(1) if self.class_token is None else x[:, 0])


def vgg(**options):
    return lambda: models.create("vgg", widths=(4, 6, 8), dropout=0, **options)


def vit(pool):
    return lambda: models.create("vit", depth=3, dim=24, heads=3, mlp_ratio=1.5, pool=pool)


TWINS = {  # ours, PyTorch's; the deep ones with few channels
    "vgg": (vgg(), lambda: TorchVGG((4, 6, 8), torch.nn.ELU, True)),
    "vgg without batch norm": (
        vgg(batch_norm=False, activation="relu"),
        lambda: TorchVGG((4, 6, 8), torch.nn.ReLU, False),
    ),
    "resnet20": (
        lambda: ResNet(10, BasicBlock, (3, 3, 3), (4, 6, 8), Subsample),
        lambda: TorchResNet((3, 3, 3), (4, 6, 8), projection=False),
    ),
    "resnet18": (
        lambda: ResNet(10, BasicBlock, (2, 2, 2, 2), (4, 6, 8, 10), Projection),
        lambda: TorchResNet((2, 2, 2, 2), (4, 6, 8, 10)),
    ),
    "resnet34": (
        lambda: ResNet(10, BasicBlock, (3, 4, 6, 3), (6, 8, 10, 12), Projection),
        lambda: TorchResNet((3, 4, 6, 3), (6, 8, 10, 12)),
    ),
    "resnet50": (
        lambda: ResNet(10, Bottleneck, (3, 4, 6, 3), (4, 6, 8, 10), Projection),
        lambda: TorchResNet((3, 4, 6, 3), (4, 6, 8, 10), bottleneck=True),
    ),
    "vit": (vit("mean"), lambda: TorchViT(3, 24, 3, 36, False)),
    "vit with a class token": (vit("class"), lambda: TorchViT(3, 24, 3, 36, True)),
}
FULL = {  # by the names that a recipe gives them
    "resnet18": lambda: TorchResNet((2, 2, 2, 2), (64, 128, 256, 512)),
    "resnet20": lambda: TorchResNet((3, 3, 3), (16, 32, 64), projection=False),
    "resnet32": lambda: TorchResNet((5, 5, 5), (16, 32, 64), projection=False),
    "resnet34": lambda: TorchResNet((3, 4, 6, 3), (64, 128, 256, 512)),
    "resnet50": lambda: TorchResNet((3, 4, 6, 3), (64, 128, 256, 512), bottleneck=True),
    "resnet56": lambda: TorchResNet((9, 9, 9), (16, 32, 64), projection=False),
    "vit": lambda: TorchViT(6, 128, 4, 256, False),
}


def steps(name):
    return 20 if name in LONG else 5


def batches(steps, size):
    rng = np.random.default_rng(5)
    return [(rng.standard_normal((size, 3, 32, 32)), rng.integers(0, 10, size)) for _ in range(steps)]


def copied(model, twin):
    """Copy our weights into the twin by name; a matrix that selects channels is no weight."""
    state = {n: torch.tensor(t.numpy()) for n, t in model.state_dict().items() if not n.endswith("selection")}
    wanted = {n for n in twin.state_dict() if not n.endswith("num_batches_tracked")}
    assert set(state) == wanted
    twin.load_state_dict(state, strict=False)
    return twin


def our_losses(model, make, data, dtype, compiled):
    model.astype(dtype)
    optimizer = make(optim, model.parameters())

    def step(images, labels):
        loss = F.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    run = minicnn.compile(step) if compiled else step
    return [run(Tensor(images.astype(dtype)), Tensor(labels)).item() for images, labels in data]


def twin_losses(twin, make, data):
    optimizer, losses = make(torch.optim, twin.double().parameters()), []
    for images, labels in data:
        loss = torch.nn.functional.cross_entropy(twin(torch.tensor(images)), torch.tensor(labels))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("name", TWINS)
def test_losses_follow_the_twin(name, optimizer):
    (build, build_twin), make, data = TWINS[name], OPTIMIZERS[optimizer], batches(steps(name), BATCH)
    model = build()
    expected = twin_losses(copied(model, build_twin()), make, data)
    np.testing.assert_allclose(our_losses(model, make, data, "float64", False), expected, rtol=1e-8)


@pytest.mark.parametrize("name", TWINS)
def test_compiled_losses_follow_the_twin(name):
    (build, build_twin), data = TWINS[name], batches(steps(name), BATCH)
    model = build()

    def make(library, parameters):
        return library.SGD(parameters, RATES.get(name, 1e-4), momentum=0.9)

    expected = twin_losses(copied(model, build_twin()), make, data)
    np.testing.assert_allclose(our_losses(model, make, data, "float32", True), expected, rtol=2e-5)


@pytest.mark.parametrize("name", FULL)
def test_the_full_network_is_that_of_the_twin(name):
    model, twin = models.create(name), FULL[name]()
    ours = {n: p.shape for n, p in model.named_parameters()}
    assert ours == {n: tuple(p.shape) for n, p in twin.named_parameters()}
    ((images, _),) = batches(1, 2)
    expected = copied(model, twin).double().eval()(torch.tensor(images)).detach().numpy()
    logits = minicnn.compile(model)(Tensor(images.astype(np.float32))).numpy()
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
