"""Predictions of one to four images, one by one, vectors along the rows; more images, or training, use the lanes."""

import numpy as np
import pytest

import minicnn
import minicnn.functional as F
from minicnn import Tensor, backend, nn
from minicnn.models import LeNet
from shared.runs import Run, agree, batches, chain, conv, eager, fc, kinds, pool, same

ONE_BY_ONE = {"linear_single"}


def lanes_of(compiled):
    return [plan.code.allocation.lanes for plan in compiled.plans.values()]


def expect(model, x):
    with backend.use("reference"):
        return model(Tensor(x.astype(np.float64))).numpy()


def widened(model):
    """``model`` with parameters of float64, for the reference."""
    for p in model.parameters():
        p.data = p.data.astype(np.float64)
    return model


def check(build, count, shape, replays=2, lanes=None):
    """Compare compiled predictions with eager float64; -> kinds of the plan's nodes, which has so many ``lanes``."""
    model, wide = Run(build, compiled=False).model, widened(Run(build, compiled=False).model)
    compiled = minicnn.compile(model)
    for x, _ in batches(replays, (count, *shape)):
        agree([compiled(x).numpy()], [expect(wide, x)], 1e-5)
    assert lanes_of(compiled) == [lanes or (1 if count <= 4 else 8)]
    return kinds(compiled)


@pytest.mark.parametrize("count", range(1, 6))
def test_lenet(count):
    found = check(LeNet, count, (3, 32, 32), 3)
    assert not [kind for kind in found if kind.endswith("()")], found
    assert ("linear_single" in found) == (count <= 4)
    assert found["products"] == (2 if count <= 4 else 5) and "relu" not in found


@pytest.mark.parametrize("width", [8, 9, 15, 16, 17, 28])
@pytest.mark.parametrize("channels", [(1, 1), (3, 7), (17, 19)])
def test_widths(width, channels):
    found = check(chain(conv(*channels, 3), nn.ReLU), 3, (channels[0], 5, width + 2))
    assert found["products"] == 1 and not {"conv2d()", "relu()", "relu"} & set(found)


GEOMETRIES = {  # (outputs, kernel, stride, padding, dilation), whether it falls back
    "padding": ((4, 3, 1, 1, 1), False),
    "padding of columns": ((4, (1, 3), 1, (0, 2), 1), False),
    "padding of rows": ((4, (5, 2), 1, (4, 0), 1), False),
    "more padding than rows": ((4, (2, 3), 1, (3, 2), 1), False),
    "dilation": ((5, 3, 1, (1, 2), (2, 2)), False),
    "rows apart": ((4, 3, (2, 1), 1, 1), False),
    "rows far apart": ((4, (2, 3), (3, 1), (2, 1), 1), False),
    "columns apart": ((4, 3, (1, 2), 1, 1), True),
    "both apart": ((4, 3, 2, 1, 1), True),
    "narrow": ((4, (3, 16), 1, (1, 0), 1), True),
    "one pixel": ((4, 1, 1, 0, 1), False),
}


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("name", GEOMETRIES)
def test_geometry(name, bias):
    (outputs, kernel, stride, padding, dilation), falls_back = GEOMETRIES[name]
    options = {"stride": stride, "padding": padding, "dilation": dilation, "bias": bias}
    layers = chain(conv(3, 5, 3, padding=1), nn.ReLU, conv(5, outputs, kernel, **options), nn.ReLU)
    found = check(layers, 2, (3, 6, 19), lanes=8 if falls_back else 1)
    assert found["products"] == 2 and "conv2d()" not in found, found


def test_groups_fall_back():
    assert "conv2d()" in check(chain(conv(4, 6, 3, groups=2), nn.ReLU), 2, (4, 6, 12), lanes=8)


POOLS = {
    "2": (2,),
    "3 at 2": (3, 2),
    "3 x 2 at 1": ((3, 2), 1),
    "whole": ((8, 12),),
    "gaps": (1, 3),
}


@pytest.mark.parametrize("relu", ["before", "after", "none"])
@pytest.mark.parametrize("name", POOLS)
def test_pooling(name, relu):
    layers = {"before": (nn.ReLU, pool(*POOLS[name])), "after": (pool(*POOLS[name]), nn.ReLU)}
    found = check(chain(conv(3, 5, 3), *layers.get(relu, (pool(*POOLS[name]),)), nn.Flatten), 4, (3, 10, 14))
    assert found["max_pool_single"] == 1 and not {"max_pool2d()", "relu()", "relu_single"} & set(found), found


@pytest.mark.parametrize("layer", [pool(3, 2, padding=1), pool(2, dilation=2)])
def test_other_pooling_falls_back(layer):
    assert "max_pool2d()" in check(chain(conv(3, 5, 3), layer, nn.Flatten), 2, (3, 10, 14))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("inputs", range(1, 41))
def test_linear(inputs, bias):
    found = check(chain(fc(inputs, 7, bias=bias), nn.ReLU, fc(7, 3)), 1 + inputs % 4, (inputs,))
    assert found["linear_single"] == 2 and not {"linear()", "relu()"} & set(found)


@pytest.mark.parametrize("fused", [True, False])
def test_a_relu_is_fused_if_nobody_else_sees_its_input(fused):
    layer, linear = nn.Conv2d(3, 4, 3), nn.Linear(4 * 4 * 8, 5)

    def function(x):
        h = layer(x)
        y = linear(F.flatten(F.relu(h), 1))
        return (F.relu(y), F.relu(y)) if fused else (h, F.relu(y), y)

    compiled = minicnn.compile(function)
    ((x, _),) = batches(1, (3, 3, 6, 10))
    for _ in range(2):
        agree([t.numpy() for t in compiled(x)], [t.numpy() for t in function(Tensor(x))], 1e-5)
    assert lanes_of(compiled) == [1]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("count", [1, 4])
def test_a_pixel_that_is_no_number(count, value):
    """It reaches what it reaches eagerly, and is gone in the next replay."""
    model = Run(
        chain(conv(2, 3, 3), nn.ReLU, pool(2), conv(3, 4, (1, 3), padding=(0, 5)), pool(1, 2), nn.Flatten, fc(64, 5)),
        compiled=False,
    ).model
    parts = minicnn.compile(lambda x: (F.max_pool2d(F.relu(model[0](x)), 2), model(x)))
    ((x, _),) = batches(1, (count, 2, 8, 18))
    before = [t.numpy() for t in parts(x)]
    spoilt = x.copy()
    spoilt[count - 1, 1, 3, 4] = value
    with backend.use("reference"), np.errstate(invalid="ignore"):
        expected = [F.max_pool2d(F.relu(model[0](Tensor(spoilt))), 2).numpy(), model(Tensor(spoilt)).numpy()]
    found = [t.numpy() for t in parts(spoilt)]
    assert not np.isfinite(expected[0]).all()
    for a, e in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, e, rtol=1e-4, atol=1e-4)
    same([t.numpy() for t in parts(x)], before)
    assert lanes_of(parts) == [1]


def test_nan_stays_through_pool_and_linear():
    layer = nn.Conv2d(1, 1, 1, bias=False)
    layer.weight.data[...] = 1
    linear = nn.Linear(19, 2)
    compiled = minicnn.compile(lambda x, v: (F.max_pool2d(layer(x), 2), F.relu(linear(v))))
    for place in range(19):
        x, v = np.zeros((1, 1, 4, 10), np.float32), np.zeros((1, 19), np.float32)
        x[0, 0, place % 4, place % 10] = v[0, place] = np.nan
        pooled, y = (t.numpy() for t in compiled(x, v))
        assert np.argwhere(np.isnan(pooled)).tolist() == [[0, 0, place % 4 // 2, place % 10 // 2]]
        assert np.isnan(y).all()


@pytest.mark.parametrize("count", [1, 4])
def test_changed_weights_are_seen(count):
    model = LeNet()
    compiled = minicnn.compile(model)
    ((x, _),) = batches(1, (count, 3, 32, 32))
    before = compiled(x).numpy()
    for p in model.parameters():
        p.data *= 1.5
    agree([compiled(x).numpy()], [model(Tensor(x)).numpy()])
    assert not np.allclose(compiled(x).numpy(), before)


def test_each_image_is_the_same_alone():
    compiled = minicnn.compile(LeNet())
    ((x, _),) = batches(1, (4, 3, 32, 32))
    same([compiled(x).numpy()], [np.concatenate([compiled(x[i : i + 1]).numpy() for i in range(4)])])


@pytest.mark.parametrize("count", [1, 4])
def test_training_uses_the_lanes(count):
    data = batches(3, (count, 3, 32, 32))
    run = Run(LeNet)
    agree(run.train(data), eager(data, LeNet))
    assert lanes_of(run.step) == [8] and not ONE_BY_ONE & set(kinds(run.step))


def test_a_gradient_alone_uses_the_lanes_too():
    model = LeNet()

    def gradient(x):
        leaf = Tensor(x.data, requires_grad=True)
        model(leaf).sum().backward()
        return leaf.grad

    compiled = minicnn.compile(gradient)
    ((x, _),) = batches(1, (2, 3, 32, 32))
    agree([compiled(x).numpy()], [gradient(Tensor(x)).numpy()], 1e-4)
    assert lanes_of(compiled) == [8]


@pytest.mark.parametrize("count", [3, 4])
def test_threads_change_no_bit(threads, count):
    ((x, _),) = batches(1, (count, 3, 32, 32))
    compiled, found = minicnn.compile(LeNet()), []
    for number in (1, 2):
        threads(number)
        found.append(compiled(x).numpy())
    same(found[:1], found[1:])


@pytest.mark.parametrize("count", [1, 4])
def test_a_vector_becomes_a_picture_with_a_halo(count):
    linear, conv = nn.Linear(12, 6 * 8 * 10), nn.Conv2d(6, 3, 3, padding=1)
    function = lambda z: conv(linear(z).reshape(z.shape[0], 6, 8, 10))  # noqa: E731
    compiled = minicnn.compile(function)
    z = np.random.default_rng(0).standard_normal((count, 12)).astype(np.float32)
    agree([compiled(z).numpy()], [function(Tensor(z)).numpy()], 1e-5)


@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize("flat_first", [False, True])
def test_a_picture_with_a_halo_becomes_a_vector(count, flat_first):
    first, second, side = nn.Conv2d(1, 9, 3, padding=1), nn.Conv2d(9, 3, 3, padding=1), nn.Conv2d(1, 6, 3, padding=1)
    head = nn.Linear(720, 5)

    def function(x):
        h = F.relu(first(x))
        if flat_first:
            return head(F.flatten(h, 1)), second(h), side(x)
        return second(h), head(F.flatten(h, 1)), side(x)

    compiled = minicnn.compile(function)
    ((x, _),) = batches(1, (count, 1, 8, 10))
    agree([t.numpy() for t in compiled(x)], [t.numpy() for t in function(Tensor(x))], 1e-5)
    assert lanes_of(compiled) == [1]
