"""3 x 3 convolutions by Winograd's transform, and their gradients: exact on small integers, close to float64."""

import numpy as np
import pytest

import minicnn
import minicnn.functional as F
from minicnn import Tensor, backend
from minicnn.backend.cpu.winograd import FILTER
from shared.runs import kinds

SPREAD = np.array([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]])  # B^T
GATHER = np.array([[1, 1, 1, 0], [0, 1, -1, -1]])  # A^T


def test_filter_matrix_is_exact_on_integers():
    rng = np.random.default_rng(0)
    for _ in range(20):
        pixels, taps = rng.integers(-8, 9, (4, 4)), rng.integers(-8, 9, (3, 3))
        direct = [[(pixels[i : i + 3, j : j + 3] * taps).sum() for j in range(2)] for i in range(2)]
        u = (FILTER @ taps.ravel()).reshape(4, 4)
        np.testing.assert_array_equal(GATHER @ (u * (SPREAD @ pixels @ SPREAD.T)) @ GATHER.T, direct)


def step(x, weight, bias, g, relu):
    """Convolution and its three gradients; the one for x exists where x is not the pictures themselves."""
    leaves = [Tensor(t.data, requires_grad=True) for t in (x, weight, *([] if bias is None else [bias]))]
    y = F.conv2d(*leaves, padding=1)
    y = F.relu(y) if relu else y
    y.backward(g)
    return y, *(leaf.grad for leaf in leaves)


CASES = [  # images, inputs, outputs, height, width, bias, relu, how the gradient is made
    (8, 16, 16, 2, 2, True, False, "winograd_gradient"),
    (1, 16, 16, 16, 12, True, True, "winograd_gradient"),
    (5, 24, 17, 4, 6, False, False, "winograd_gradient"),
    (13, 16, 136, 2, 8, True, True, "winograd_gradient"),
    (17, 17, 16, 6, 4, True, True, "weight_gradient"),
    (9, 20, 30, 4, 4, False, True, "weight_gradient"),
    (8, 131, 129, 2, 2, True, False, "weight_gradient"),
    (1, 136, 136, 4, 2, True, True, "winograd_operands"),
    (17, 136, 121, 2, 4, False, False, "winograd_operands"),
    (9, 128, 128, 2, 2, False, True, "winograd_gradient"),
    (9, 128, 129, 6, 2, True, False, "winograd_operands"),
]


@pytest.mark.parametrize("count, inputs, outputs, height, width, bias, relu, kind", CASES)
def test_close_to_float64(count, inputs, outputs, height, width, bias, relu, kind):
    rng = np.random.default_rng(0)
    sizes = [(count, inputs, height, width), (outputs, inputs, 3, 3), (outputs,), (count, outputs, height, width)]
    x, weight, b, g = (rng.standard_normal(size).astype(np.float32) for size in sizes)
    arrays = [x, weight, b if bias else None, g]
    narrow, wide = ([None if a is None else Tensor(a.astype(d)) for a in arrays] for d in ("float32", "float64"))
    compiled = minicnn.compile(lambda x, g: step(x, *narrow[1:3], g, relu))
    with backend.use("reference"):
        expected = [t.numpy() for t in step(*wide, relu)]
    for _ in range(2):
        found = [t.numpy() for t in compiled(x, g)]
        for a, e in zip(found, expected, strict=True):
            assert np.abs(a - e).max() < 2e-6 * np.abs(e).max()
    nodes = kinds(compiled)
    assert nodes["winograd"] == 2 and nodes[kind] == 1 and "products" not in nodes, nodes


@pytest.mark.parametrize(
    "inputs, outputs, height, width", [(15, 16, 4, 4), (16, 15, 4, 4), (16, 16, 3, 4), (16, 16, 4, 5)]
)
def test_other_sizes_go_the_plain_way(inputs, outputs, height, width):
    weight = Tensor(np.ones((outputs, inputs, 3, 3), np.float32))
    compiled = minicnn.compile(lambda x: F.conv2d(x, weight, padding=1))
    y = compiled(np.ones((9, inputs, height, width), np.float32)).numpy()
    assert "winograd" not in kinds(compiled) and y[0, 0, 1, 1] == 9 * inputs and y[0, 0, 0, 0] == 4 * inputs


def test_integers_are_exact():
    """What is small enough for float32 is not rounded, in values and in gradients."""
    rng = np.random.default_rng(0)
    x, g = rng.integers(-3, 4, (2, 11, 16, 6, 8)).astype(np.float32)
    weight = Tensor(4.0 * rng.integers(-3, 4, (16, 16, 3, 3)).astype(np.float32))
    compiled = minicnn.compile(lambda x, g: step(x, weight, None, g, False))
    with backend.use("reference"):
        expected = step(Tensor(x), weight, None, Tensor(g), False)
    for found, e in zip(compiled(x, g), expected, strict=True):
        np.testing.assert_array_equal(found.numpy(), e.numpy())


def test_a_changed_weight_is_transformed_again():
    weight = Tensor(np.ones((16, 16, 3, 3), np.float32))
    compiled = minicnn.compile(lambda x: F.conv2d(x, weight, padding=1))
    x = np.ones((9, 16, 4, 4), np.float32)
    before = compiled(x).numpy()
    weight.data *= 2
    np.testing.assert_array_equal(compiled(x).numpy(), 2 * before)
