"""Predictions of random networks, compiled for few and for many images, beside eager float64."""

import copy

import numpy as np
import pytest

import minicnn
import minicnn.functional as F
from minicnn import Tensor, nn


class Shortcut(nn.Module):
    """conv(x), with batch norm, plus x or a convolution of it."""

    def __init__(self, channels, projected, relu_first, relu_last):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)
        self.shortcut = nn.Conv2d(channels, channels, 1) if projected else None
        self.relu_first, self.relu_last = relu_first, relu_last

    def forward(self, x):
        y = self.norm(self.conv(F.relu(x) if self.relu_first else x))
        y = y + (x if self.shortcut is None else self.shortcut(x))
        return F.relu(y) if self.relu_last else y


def network(rng):
    """A network of random layers, and the shape of its images."""
    channels, height, width = (int(n) for n in rng.integers((1, 4, 4), 20))
    shape, layers = (channels, height, width), []
    for kind in rng.choice(["any", "wide", "norm", "relu", "elu", "pool", "shortcut", "depthwise"], rng.integers(1, 7)):
        if kind in ("any", "depthwise"):
            kernel = tuple(int(rng.integers(1, min(5, n) + 1)) for n in (height, width))
            stride, padding = (tuple(map(int, rng.integers(low, low + 2 + (low == 0), 2))) for low in (1, 0))
            divisors = [d for d in range(1, channels + 1) if channels % d == 0]
            groups = channels if kind == "depthwise" else int(rng.choice(divisors))
            outputs = groups * int(rng.integers(1, max(2, 40 // groups + 1)))
            layers.append(
                nn.Conv2d(channels, outputs, kernel, stride, padding, groups=groups, bias=bool(rng.integers(2)))
            )
            sizes = zip((height, width), kernel, stride, padding, strict=True)
            height, width = ((n + 2 * p - k) // s + 1 for n, k, s, p in sizes)
            channels = outputs
        elif kind == "wide":
            outputs = int(rng.choice([8, 16, 17, 24, 32, 64, 136]))
            layers.append(nn.Conv2d(channels, outputs, 3, padding=1, bias=bool(rng.integers(2))))
            channels = outputs
        elif kind == "shortcut":
            layers.append(Shortcut(channels, *map(bool, rng.integers(2, size=3))))
        elif kind == "pool" and min(height, width) >= 2:
            layers.append(nn.MaxPool2d(2))
            height, width = height // 2, width // 2
        else:
            layers.append({"norm": nn.BatchNorm2d(channels), "elu": nn.ELU()}.get(kind, nn.ReLU()))
    if rng.integers(2):
        layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 5)]
    elif rng.integers(2):
        layers += [nn.Flatten(), nn.Linear(channels * height * width, 5)]
    model = nn.Sequential(*layers)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.copy_(0.3 * rng.standard_normal(module.num_features).astype(np.float32))
            module.running_var.copy_(rng.random(module.num_features).astype(np.float32) + 0.5)
    return model.eval(), shape


@pytest.mark.parametrize("seed", range(40))
def test_predictions(seed):
    rng = np.random.default_rng(seed)
    minicnn.manual_seed(seed)
    model, shape = network(rng)
    predict, wide = minicnn.compile(model), copy.deepcopy(model).astype("float64")
    for count in (1, int(rng.integers(2, 9)), int(rng.integers(9, 30))):
        for _ in range(2):
            x = rng.standard_normal((count, *shape)).astype(np.float32)
            expected = wide(Tensor(x.astype(np.float64))).numpy()
            error = np.abs(predict(x).numpy() - expected).max()
            assert error < 3e-5 * max(np.abs(expected).max(), 1e-2), (model, count)


@pytest.mark.parametrize("count", [1, 3, 24])
@pytest.mark.parametrize("size", [6, 8, 16])
@pytest.mark.parametrize("channels", [9, 16, 136])
def test_a_sum_is_not_made_in_the_place_of_what_its_convolution_reads(channels, size, count):
    stem, block = nn.Conv2d(3, channels, 1), Shortcut(channels, False, False, True)
    model = nn.Sequential(stem, block, nn.Conv2d(channels, 2, 1)).eval()
    x = np.random.default_rng(0).standard_normal((count, 3, size, size)).astype(np.float32)
    expected = model(Tensor(x)).numpy()
    np.testing.assert_allclose(minicnn.compile(model)(x).numpy(), expected, rtol=1e-4, atol=1e-5)
