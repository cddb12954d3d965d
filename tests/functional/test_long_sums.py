"""Sums of many float32: exact to 1e-6 over every axis, whatever the layout, and the same bits with every thread."""

import numpy as np
import pytest

import minicnn
import minicnn.functional as F
from minicnn import Tensor, backend, nn
from minicnn.backend import cpu

MANY = 1_000_000
TENTH = float(np.float32(0.1))


def tenths(*shape):
    return np.full(shape, 0.1, np.float32)


def leaf(array):
    return Tensor(array, requires_grad=True)


def gradient(function, *shapes):
    """The gradient for the last of some tensors of tenths, where that for the result is 0.1 everywhere."""
    *others, last = (Tensor(tenths(*shape)) for shape in shapes)
    last.requires_grad_()
    y = function(*others, last)
    y.backward(Tensor(tenths(*y.shape)))
    return last.grad


SUMS = {  # name: what is made of how many tenths
    "all": (lambda: Tensor(tenths(MANY)).sum(), MANY),
    "all of a matrix": (lambda: Tensor(tenths(MANY // 4, 4)).sum(), MANY),
    "first axis": (lambda: Tensor(tenths(MANY, 2)).sum(0), MANY),
    "column": (lambda: Tensor(tenths(MANY, 1)).sum(0), MANY),
    "columns of a view": (lambda: Tensor(tenths(MANY // 2, 3))[:, :2].sum(), MANY),
    "turned": (lambda: Tensor(tenths(MANY, 2)).T.sum(1), MANY),
    "middle axis": (lambda: Tensor(tenths(2, MANY // 2, 3)).sum((0, 1), keepdim=True), MANY),
    "two axes": (lambda: Tensor(tenths(1000, 1000, 2)).sum((0, 1)), MANY),
    "channels": (lambda: Tensor(tenths(MANY // 20, 2, 4, 5)).sum((0, 2, 3)), MANY),
    "odd length": (lambda: Tensor(tenths(MANY + 7, 2)).sum(0), MANY + 7),
    "broadcast": (lambda: gradient(lambda a, b: a + b, (MANY, 2), (2,)), MANY),
    "broadcast to images": (lambda: gradient(lambda a, b: a + b, (MANY // 20, 2, 4, 5), (2, 1, 1)), MANY),
    "bias of linear": (lambda: gradient(F.linear, (MANY, 1), (2, 1), (2,)), MANY),
    "bias of a convolution": (lambda: gradient(F.conv2d, (MANY // 20, 1, 4, 5), (2, 1, 1, 1), (2,)), MANY),
    "bias of a large picture": (lambda: gradient(F.conv2d, (1, 1, 1000, 1000), (2, 1, 1, 1), (2,)), MANY),
    "bias of layer norm": (lambda: gradient(lambda x, w, b: F.layer_norm(x, 2, w, b), (MANY, 2), (2,), (2,)), MANY),
    "bias of batch norm": (
        lambda: gradient(lambda x, w, b: F.batch_norm(x, None, None, w, b, True), (MANY // 4, 2, 4), (2,), (2,)),
        MANY,
    ),
}


@pytest.mark.parametrize("name", SUMS)
def test_sum(name, backend_name):
    function, count = SUMS[name]
    np.testing.assert_allclose(function().numpy(), count * TENTH, rtol=1e-6)


@pytest.mark.parametrize("name", ["first axis", "two axes", "channels", "bias of a convolution", "bias of batch norm"])
def test_bits_do_not_depend_on_threads(name):
    threads, found = cpu.get_num_threads(), []
    try:
        for count in (1, threads):
            cpu.set_num_threads(count)
            found.append(SUMS[name][0]().numpy().tobytes())
    finally:
        cpu.set_num_threads(threads)
    assert found[0] == found[1]


def test_mean_of_a_million_tenths(backend_name):
    for x in (tenths(MANY), tenths(MANY, 1), tenths(1000, 1000).T):
        assert Tensor(x).mean().item() == pytest.approx(0.1, rel=1e-6)


SHAPES = [(MANY, 2), (MANY // 20, 2, 4, 5), (1, 2, 1000, 1000)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_statistics_of_batch_norm(shape, backend_name):
    x = tenths(*shape)
    x[:, 1] = 0.3
    x.reshape(shape[0], 2, -1)[..., : x[0, 0].size // 2 or 1][::2, 1] += 1
    mean, var = (Tensor(np.zeros(2, np.float32)) for _ in range(2))
    F.batch_norm(Tensor(x), mean, var, training=True, momentum=1.0)
    axes = (0, *range(2, x.ndim))
    np.testing.assert_allclose(mean.numpy(), x.mean(axes, dtype=np.float64), rtol=1e-6)
    np.testing.assert_allclose(var.numpy(), x.var(axes, dtype=np.float64, ddof=1), rtol=2e-6, atol=1e-14)


@pytest.mark.parametrize("shape", SHAPES[:2], ids=str)
def test_compiled_sums(shape):
    """The bias of a linear layer or a convolution, and the bias and the statistics of batch norm, by the machine."""
    images = len(shape) == 4
    first, last = (nn.Conv2d(2, 2, 1) if images else nn.Linear(2, 2) for _ in range(2))
    norm = nn.BatchNorm2d(2, momentum=1.0) if images else nn.BatchNorm1d(2, momentum=1.0)
    for layer in (first, last):
        layer.weight.detach().copy_(np.eye(2).reshape(layer.weight.shape))
        layer.bias.detach().copy_(0)

    def step(x, g):
        h = first(x)
        h.backward(g, retain_graph=True)
        last(norm(h.detach())).backward(g)
        return first.bias.grad, last.bias.grad, norm.bias.grad

    compiled = minicnn.compile(step)
    for grad in compiled(Tensor(tenths(*shape)), Tensor(tenths(*shape))):
        np.testing.assert_allclose(grad.numpy(), np.prod(shape) // 2 * TENTH, rtol=1e-6)
    np.testing.assert_allclose(norm.running_mean.numpy(), 0.1, rtol=1e-6)
    np.testing.assert_allclose(norm.running_var.numpy(), 0, atol=1e-14)
    (plan,) = compiled.plans.values()
    assert {"channel_sums", "norm_sums", "moments"} <= {node.kind for nodes in plan.code.phases for node in nodes}


def test_short_sums_are_those_of_numpy(rng):
    x = rng.standard_normal((128, 6)).astype(np.float32)
    with backend.use("reference"):
        np.testing.assert_array_equal(Tensor(x).sum(0).numpy(), x.sum(0))
