"""Convolutions by kernels of 5 columns, by Winograd's transform of the rows, and their gradients."""

import numpy as np
import pytest

import minicnn
import minicnn.functional as F
from minicnn import Tensor, backend, nn
from minicnn.backend.cpu.winograd_rows import FILTER
from shared.runs import kinds, nodes_of

POINTS = [0, 1, -1, 2, -2, 0.5, -0.5]
ROWS = {"spread_rows", "spread_rows_grad", "gather_rows", "gather_rows_grad"}


def test_filter_matrix():
    """G from the definition: A^T evaluates at the points, B^T has the polynomials that are zero at the others."""
    gather = np.array([[*(p**k for p in POINTS), float(k == 3)] for k in range(4)])
    spread = np.array([*(np.poly([p for p in POINTS if p != own])[::-1].tolist() + [0] for own in POINTS), [0] * 8])
    spread[0] *= -1
    spread[7] = np.poly(POINTS)[::-1]
    rng = np.random.default_rng(0)
    for _ in range(20):
        pixels, taps = rng.standard_normal(8), rng.standard_normal(5)
        found = gather @ ((FILTER @ taps) * (spread @ pixels))
        np.testing.assert_allclose(found, np.correlate(pixels, taps), rtol=0, atol=1e-5)


def step(x, weight, bias, g, geometry, relu):
    """Convolution and its gradients, also the one for x."""
    leaves = [Tensor(t.data, requires_grad=True) for t in (x, weight, *([] if bias is None else [bias]))]
    y = F.conv2d(*leaves, **geometry)
    y = F.relu(y) if relu else y
    y.backward(g)
    return y, *(leaf.grad for leaf in leaves)


CASES = [  # images, inputs, outputs, height, width, rows of the kernel, geometry, bias, relu
    (8, 3, 6, 12, 12, 5, {}, True, True),
    (9, 6, 16, 14, 14, 5, {}, True, False),
    (5, 2, 7, 6, 8, 5, {}, False, True),  # one tile a row
    (13, 1, 1, 5, 9, 1, {}, True, False),
    (8, 4, 10, 7, 10, 3, {"padding": (0, 2)}, True, True),
    (17, 5, 9, 8, 11, 5, {"padding": 2}, True, True),
    (8, 3, 13, 9, 7, 5, {"padding": (1, 1)}, False, False),
    (11, 3, 4, 6, 4, 5, {"padding": (2, 4)}, True, True),  # more padding than a tile is wide
    (8, 2, 3, 1, 1, 1, {"padding": (0, 6)}, True, False),  # tiles of padding alone
    (9, 4, 6, 11, 13, 5, {"stride": (2, 1), "padding": (2, 2)}, True, True),
    (8, 4, 6, 13, 12, 3, {"dilation": (3, 1), "padding": (1, 0)}, True, False),
    (8, 3, 5, 2, 12, 5, {"padding": (3, 1)}, True, True),  # rows that see the bias alone
    (24, 24, 17, 5, 8, 7, {"padding": (3, 2)}, True, True),
]


@pytest.mark.parametrize("count, inputs, outputs, height, width, taps, geometry, bias, relu", CASES)
def test_close_to_float64(count, inputs, outputs, height, width, taps, geometry, bias, relu):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((count, inputs, height, width))
    weight, b = rng.standard_normal((outputs, inputs, taps, 5)), rng.standard_normal(outputs)
    with backend.use("reference"):
        shape = F.conv2d(Tensor(x), Tensor(weight), **geometry).shape
        g = rng.standard_normal(shape)
        arrays = [x, weight, b if bias else None, g]
        narrow = [None if a is None else Tensor(a.astype(np.float32)) for a in arrays]
        wide = [
            None if a is None else Tensor(t.numpy().astype(np.float64)) for a, t in zip(arrays, narrow, strict=True)
        ]
        expected = [t.numpy() for t in step(*wide, geometry, relu)]
    compiled = minicnn.compile(lambda x, g: step(x, *narrow[1:3], g, geometry, relu))
    for _ in range(2):
        found = [t.numpy() for t in compiled(narrow[0].numpy(), narrow[3].numpy())]
        for a, e in zip(found, expected, strict=True):
            assert np.abs(a - e).max() < 4e-6 * np.abs(e).max()
    assert set(kinds(compiled)) >= ROWS


@pytest.mark.parametrize(
    "width, geometry", [(7, {}), (12, {"stride": (1, 2)}), (12, {"dilation": (1, 2)}), (3, {"padding": (0, 2)})]
)
def test_other_geometries_go_the_plain_way(width, geometry):
    weight = Tensor(np.ones((4, 3, 3, 5), np.float32))
    compiled = minicnn.compile(lambda x: F.conv2d(x, weight, **geometry))
    y = compiled(np.ones((9, 3, 5, width), np.float32)).numpy()
    assert not ROWS & set(kinds(compiled)) and y.max() == (45 if width > 3 else 27)


def test_a_changed_weight_is_transformed_again():
    weight = Tensor(np.ones((6, 3, 5, 5), np.float32))
    compiled = minicnn.compile(lambda x: F.conv2d(x, weight))
    x = np.ones((9, 3, 9, 9), np.float32)
    before = compiled(x).numpy()
    weight.data *= 2
    np.testing.assert_array_equal(compiled(x).numpy(), 2 * before)


def test_one_transform_serves_all_that_read_it():
    """Two convolutions of one picture; forward, the gradient for the filter and that for the picture."""
    first, second = nn.Conv2d(3, 4, 5), nn.Conv2d(3, 6, 5)

    def train(x):
        first.zero_grad()
        second.zero_grad()
        x = Tensor(x.data, requires_grad=True)
        (first(x).sum() + second(x).sum()).backward()
        return first.weight.grad, second.weight.grad, x.grad

    compiled = minicnn.compile(train)
    x = np.random.default_rng(0).standard_normal((9, 3, 8, 12)).astype(np.float32)
    for found, expected in zip(compiled(x), train(Tensor(x)), strict=True):
        np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=0, atol=2e-5 * np.abs(expected.numpy()).max())
    found = kinds(compiled)
    assert found["spread_rows"] == 1 and found["gather_rows_grad"] == 2 and "filters" not in found  # a constant


def test_points_are_not_kept_between_phases():
    """Batch norm parts forward from backward: what the backward pass needs of the transform is made there."""
    layers = nn.Sequential(nn.Conv2d(3, 8, 5, padding=2), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 5, padding=2))

    def train(x):
        for p in layers.parameters():
            p.grad = None
        loss = (layers(x) ** 2).mean()
        loss.backward()
        return loss, *(p.grad for p in layers.parameters())

    compiled = minicnn.compile(train)
    x = np.random.default_rng(0).standard_normal((20, 3, 8, 12)).astype(np.float32)
    for _ in range(2):
        for found, expected in zip(compiled(x), train(Tensor(x)), strict=True):
            found, expected = found.numpy(), expected.numpy()
            np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5 * max(np.abs(expected).max(), 1e-2))
    (plan,) = compiled.plans.values()
    points = [n.operands["y"] for n in nodes_of(plan) if n.kind in ("spread_rows", "gather_rows_grad")]
    assert len(points) == 2 + 2 + 2  # of each convolution: the input twice, the gradient
    assert all(plan.code.allocation.places[block].step == -1 for block in points)  # scratch


def test_not_a_number_spreads_over_its_tiles_alone():
    x = np.zeros((9, 3, 8, 20), np.float32)
    x[4, 1, 6, 18] = np.nan
    weight = Tensor(np.ones((2, 3, 5, 5), np.float32))
    y = minicnn.compile(lambda x: F.relu(F.conv2d(x, weight)))(x).numpy()
    assert np.isnan(y[4, :, 2:, 14:]).all()
    assert not np.isnan(y[:4]).any() and not np.isnan(y[5:]).any() and not np.isnan(y[4, :, :, :12]).any()
