"""Infinities and NaN inside a plan: they stay where eager functions leave them."""

from functools import partial

import numpy as np
import pytest

import minicnn
import minicnn.functional as F
from minicnn import Tensor, backend, nn
from shared.runs import kinds

COUNTS = [5, 8, 13]
SPECIAL = [np.inf, -np.inf]


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_a_masked_class(count, smoothing):
    def step(logits, labels):
        leaf = Tensor(logits.data, requires_grad=True)
        loss = F.cross_entropy(leaf, labels, reduction="none", label_smoothing=smoothing)
        loss.sum().backward()
        return loss, leaf.grad

    rng = np.random.default_rng(count)
    logits, labels = rng.standard_normal((count, 7)).astype(np.float32), rng.integers(0, 7, count)
    logits[:, 2] = logits[:3, 4] = -np.inf
    labels[labels == 2] = 3
    labels[0] = 2  # an infinite loss
    compiled = minicnn.compile(step)
    found = compiled(logits, labels)
    assert {"cross_entropy", "cross_entropy_grad"} <= set(kinds(compiled))
    with backend.use("reference"):
        expected = step(Tensor(logits), Tensor(labels))
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-5, atol=1e-6)
    finite = np.isfinite(found[0].numpy())
    assert not finite[0] and (smoothing > 0 or finite[3:].all()) and np.isfinite(found[1].numpy()).all()


LAYERS = {  # name: function of (N, 1, 6, 6), the instructions that it needs
    "mean of all": (partial(F.adaptive_avg_pool2d, output_size=1), {"avg_pool", "avg_pool_grad"}),
    "mean of some": (partial(F.avg_pool2d, kernel_size=4), {"avg_pool", "avg_pool_grad"}),
    "means": (partial(F.avg_pool2d, kernel_size=2), set()),
    "largest": (partial(F.max_pool2d, kernel_size=2), {"max_pool_and_taps", "max_pool_grad"}),
    "overlapping": (partial(F.max_pool2d, kernel_size=3, stride=1), {"max_pool_and_taps", "max_pool_grad"}),
    "largest above 0": (lambda x: F.relu(F.max_pool2d(x, 2)), {"max_pool_and_taps", "max_pool_grad"}),
    "largest of what is above 0": (lambda x: F.max_pool2d(F.relu(x), 2), {"max_pool_and_taps", "max_pool_grad"}),
    "relu": (F.relu, {"relu_grad"}),
    "relu apart": (lambda x: F.relu(x) + x, {"relu", "relu_grad"}),
    "elu": (F.elu, {"elu", "elu_grad"}),
    "leaky relu": (F.leaky_relu, set()),
}


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("special", [*SPECIAL, np.nan])
@pytest.mark.parametrize("name", LAYERS)
def test_layers(name, special, count):
    """Between two convolutions by 1: the special value is a pixel, then a gradient."""
    function, needed = LAYERS[name]
    one = nn.Conv2d(1, 1, 1, bias=False)
    one.weight.detach().copy_(1)

    def step(x, g):
        leaf = Tensor(x.data, requires_grad=True)
        y = one(function(one(leaf)))
        y.backward(g)
        return y, leaf.grad

    rng = np.random.default_rng(count)
    x = rng.standard_normal((count, 1, 6, 6)).astype(np.float32)
    x[1, 0, 2, 3] = x[2, 0, 5, 5] = x[3, 0, 0, 0] = special
    x[4] = -np.inf if name != "elu" else -3
    with backend.use("reference"):
        shape = function(Tensor(x)).shape
    g = rng.standard_normal(shape).astype(np.float32)
    if name != "elu":
        g[0, 0, 0, 0] = g[2, 0, -1, -1] = special
    compiled = minicnn.compile(step)
    found = compiled(x, g)
    assert needed <= set(kinds(compiled)), kinds(compiled)
    with backend.use("reference"), np.errstate(invalid="ignore"):  # infinity times 0
        expected = step(Tensor(x), Tensor(g))
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-5, atol=1e-6)
