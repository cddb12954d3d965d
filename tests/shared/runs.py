"""What the tests of compile share: runs of a model, eager or compiled, their comparison, and small networks."""

import numpy as np

import minicnn
import minicnn.functional as F
from minicnn import Tensor, backend, nn, optim
from minicnn.models.resnet import BasicBlock, Projection, ResNet
from minicnn.models.vgg import VGG


def batches(count, shape, classes=10, dtype="float32"):
    """``count`` pairs of images and labels, from a stream of their own."""
    rng = np.random.default_rng(1)
    return [(rng.standard_normal(shape).astype(dtype), rng.integers(0, classes, shape[0])) for _ in range(count)]


class Run:
    """A model, its optimizer and a training step, from a fixed seed; ``step`` is eager or compiled."""

    def __init__(self, build, optimizer=None, smoothing=0.0, dtype="float32", compiled=True):
        minicnn.manual_seed(3)
        self.model = build()
        for tensor in (*self.model.parameters(), *dict(self.model.named_buffers()).values()):
            tensor.data = tensor.data.astype(dtype) if tensor.dtype.kind == "f" else tensor.data
        self.optimizer = (optimizer or (lambda p: optim.SGD(p, 0.05, momentum=0.9)))(self.model.parameters())
        self.smoothing = smoothing
        self.step = minicnn.compile(self.eager) if compiled else self.eager

    def eager(self, images, labels):
        logits = self.model(images)
        loss = F.cross_entropy(logits, labels, label_smoothing=self.smoothing)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss, logits

    def train(self, data):
        """Losses and logits of a step on each batch, then all that the run has changed."""
        results = [t.numpy() for images, labels in data for t in self.step(Tensor(images), Tensor(labels))]
        return results + self.state()

    def state(self):
        state = [v.numpy().copy() for v in self.model.state_dict().values()]
        return state + [np.array(v) for v in self.optimizer.state_dict().values()]


def eager(data, *arguments, **options):
    with backend.use("reference"):
        return Run(*arguments, compiled=False, **options).train(data)


def agree(found, expected, tolerance=1e-4):
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        scale = np.abs(b).max(initial=1e-2)
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * scale)


def same(found, expected):
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)


def kinds(compiled):
    """How often each kind of node occurs in the last plan; calls as "kernel()"."""
    (*_, plan) = compiled.plans.values()
    names = [n.options["call"].kernel + "()" if n.kind == "call" else n.kind for n in plan.nodes]
    return {name: names.count(name) for name in names}


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 7, 3, padding=1), nn.Conv2d(7, 7, 3, padding=1)
        self.fc = nn.Linear(7 * 3 * 2, 10)

    def forward(self, input):
        x = F.relu(self.conv1(input))
        x = F.relu(x + self.conv2(x))
        return self.fc(F.flatten(F.max_pool2d(x, (3, 4)), 1))


class Odd(nn.Module):
    """Reshapes: two in a row, back to pictures under a padded convolution, and one whose input is used twice."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(6, 5, 3, padding=1)
        self.fc1, self.fc2 = nn.Linear(4 * 4 * 4, 6 * 3 * 5), nn.Linear(5 * 3 * 5, 10)

    def forward(self, input):
        n = input.shape[0]
        x = F.max_pool2d(self.conv1(input), 2)
        x = self.fc1(F.flatten(x.reshape(n, 8, 8, 1).reshape(n, 2, 32), 1))
        x = x + F.relu(x.reshape(n, 90))
        x = self.conv2(x.reshape(n, 6, 3, 5))
        return self.fc2(F.relu(F.flatten(x, 1)))


def chain(*layers):
    return lambda: nn.Sequential(*(layer() for layer in layers))


def conv(*arguments, **options):
    return lambda: nn.Conv2d(*arguments, **options)


def fc(*arguments, **options):
    return lambda: nn.Linear(*arguments, **options)


def pool(*arguments, **options):
    return lambda: nn.MaxPool2d(*arguments, **options)


NETWORKS = {  # name: model, (C, H, W)
    "padding": (chain(conv(3, 5, (3, 2), padding=(2, 1)), nn.ReLU, pool(2), nn.Flatten, fc(5 * 5 * 3, 10)), (3, 8, 5)),
    "two padded": (
        chain(conv(3, 5, 3, padding=1), nn.ReLU, conv(5, 9, 5, padding=2), nn.ReLU, nn.Flatten, fc(9 * 42, 10)),
        (3, 6, 7),
    ),
    "stride": (
        chain(conv(3, 7, 3), conv(7, 6, (3, 2), (2, 3), bias=False), nn.ReLU, nn.Flatten, fc(6 * 12, 10)),
        (3, 11, 11),
    ),
    "stride leaves pixels": (
        chain(conv(3, 7, 1), conv(7, 6, 3, 2, padding=1), conv(6, 6, 1, 2), nn.Flatten, fc(24, 10)),
        (3, 8, 7),
    ),
    "dilation": (
        chain(conv(3, 4, 1), conv(4, 6, 3, padding=2, dilation=(2, 1)), nn.ReLU, nn.Flatten, fc(6 * 6 * 10, 10)),
        (3, 6, 8),
    ),
    "much padding": (chain(conv(3, 4, 1), conv(4, 6, 2, padding=2), nn.ReLU, nn.Flatten, fc(6 * 42, 10)), (3, 3, 4)),
    "groups": (chain(conv(3, 4, 3), nn.ReLU, conv(4, 6, 3, groups=2), nn.ReLU, nn.Flatten, fc(72, 10)), (3, 8, 7)),
    "elu": (chain(conv(3, 4, 3), nn.ELU, pool(2), nn.Flatten, fc(24, 10)), (3, 8, 7)),
    "elu under avg pool": (
        chain(conv(3, 4, 3), nn.ELU, lambda: nn.AvgPool2d(2), nn.Flatten, fc(24, 10)),
        (3, 8, 7),
    ),
    "avg pool": (
        chain(conv(3, 4, 3), nn.ReLU, lambda: nn.AvgPool2d(2), nn.Flatten, fc(24, 10)),
        (3, 8, 7),
    ),
    "overlapping pool": (
        chain(
            conv(3, 5, 3, padding=1),
            nn.ReLU,
            pool(3, 2),
            conv(5, 4, 2),
            pool((2, 1), 1),
            nn.ReLU,
            nn.Flatten,
            fc(16, 10),
        ),
        (3, 9, 7),
    ),
    "padded pool": (chain(conv(3, 5, 3), nn.ReLU, pool(3, 2, padding=1), nn.Flatten, fc(60, 10)), (3, 9, 8)),
    "linear": (chain(nn.Flatten, fc(15, 13), nn.ReLU, fc(13, 3), nn.ReLU, fc(3, 9), nn.ReLU, fc(9, 10)), (3, 1, 5)),
    "wide linear": (chain(nn.Flatten, fc(105, 67), nn.ReLU, fc(67, 129, bias=False), fc(129, 10)), (3, 7, 5)),
    "batch norm": (chain(conv(3, 5, 3), lambda: nn.BatchNorm2d(5), nn.ReLU, nn.Flatten, fc(60, 10)), (3, 6, 5)),
    "dropout": (chain(conv(3, 5, 3), nn.ReLU, lambda: nn.Dropout(0.4), nn.Flatten, fc(60, 10)), (3, 6, 5)),
    "residual": (Residual, (3, 9, 8)),
    "reshapes": (Odd, (3, 8, 8)),
    "vgg": (lambda: VGG(widths=(4, 6), dropout=(0.2, 0.3)), (3, 32, 32)),
    "resnet": (lambda: ResNet(10, BasicBlock, (1, 1), (4, 6), Projection), (3, 16, 16)),
}
