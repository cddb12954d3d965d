"""Predictions of few images, whose lanes are channels; those of many images, and training, have images in the lanes."""

import numpy as np
import pytest

import minicnn
import minicnn.functional as F
from minicnn import Tensor, backend, nn
from minicnn.compile import channels as channels_layout
from minicnn.compile import passes
from minicnn.models import LeNet
from shared.runs import Run, agree, batches, chain, conv, eager, fc, kinds, pool, same

FEW = {"channel_products"}


@pytest.fixture(autouse=True)
def few(monkeypatch):
    """Prefer this layout, where it is possible: some of these networks would be faster in the other."""
    monkeypatch.setattr(passes, "_MORE", 1e-9)


def shared(compiled):
    """Whether the threads share the instructions of each plan."""
    return [plan.code.graph.layout.is_shared for plan in compiled.plans.values()]


def expect(model, x):
    with backend.use("reference"):
        return model(Tensor(x.astype(np.float64))).numpy()


def widened(model):
    """``model`` in evaluation mode with float64, for the reference."""
    return model.eval().astype("float64")


def check(build, count, shape, replays=2, few=None):
    """Compare compiled predictions with eager float64; -> kinds of the plan's nodes; few: are lanes channels?"""
    model, wide = Run(build, compiled=False).model, widened(Run(build, compiled=False).model)
    compiled = minicnn.compile(model)
    for x, _ in batches(replays, (count, *shape)):
        agree([compiled(x).numpy()], [expect(wide, x)], 1e-5)
    assert shared(compiled) == [count <= 16 if few is None else few]
    return kinds(compiled)


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8])
def test_lenet(count):
    found = check(LeNet, count, (3, 32, 32), 3)
    assert not [kind for kind in found if kind.endswith("()")], found
    assert found["channel_products"] == 5 and not {"relu", "load", "packed"} & set(found)


@pytest.mark.parametrize("width", [1, 2, 8, 9, 17, 28])
@pytest.mark.parametrize("channels", [(1, 1), (3, 7), (17, 19), (8, 48)])
def test_widths(width, channels):
    found = check(chain(conv(*channels, 3), nn.ReLU), 3, (channels[0], 5, width + 2))
    assert found["channel_products"] == 1 and not {"conv2d()", "relu()", "relu"} & set(found)


GEOMETRIES = {  # outputs, kernel, stride, padding, dilation
    "padding": (4, 3, 1, 1, 1),
    "padding of columns": (4, (1, 3), 1, (0, 2), 1),
    "padding of rows": (4, (5, 2), 1, (4, 0), 1),
    "more padding than rows": (4, (2, 3), 1, (3, 2), 1),
    "pixels that see padding alone": (4, 1, 1, 2, 1),
    "dilation": (5, 3, 1, (1, 2), (2, 2)),
    "rows apart": (4, 3, (2, 1), 1, 1),
    "rows far apart": (4, (2, 3), (3, 1), (2, 1), 1),
    "columns apart": (4, 3, (1, 2), 1, 1),
    "both apart": (4, 3, 2, 1, 1),
    "narrow": (4, (3, 16), 1, (1, 0), 1),
    "one column": (4, (1, 19), 1, 0, 1),
    "one pixel": (17, (6, 19), 1, 0, 1),
    "one tap": (4, 1, 1, 0, 1),
    "one tap of every other pixel": (9, 1, 2, 0, 1),
}


@pytest.mark.parametrize("count", [1, 6])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("name", GEOMETRIES)
def test_geometry(name, bias, count):
    outputs, kernel, stride, padding, dilation = GEOMETRIES[name]
    options = {"stride": stride, "padding": padding, "dilation": dilation, "bias": bias}
    layers = chain(conv(3, 5, 3, padding=1), nn.ReLU, conv(5, outputs, kernel, **options), nn.ReLU)
    found = check(layers, count, (3, 6, 19))
    assert found["channel_products"] == 2 and "conv2d()" not in found, found


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize(
    ("inputs", "outputs", "groups"),
    [(4, 6, 2), (16, 16, 2), (16, 32, 2), (24, 24, 24), (5, 5, 5), (6, 12, 6), (10, 15, 5), (12, 12, 3), (9, 27, 3)],
)
def test_groups(inputs, outputs, groups, count):
    layers = chain(conv(3, inputs, 1), nn.ReLU, conv(inputs, outputs, 3, groups=groups, padding=1, stride=2), nn.ReLU)
    found = check(layers, count, (3, 6, 13))
    assert found["channel_products"] == 2 and "conv2d()" not in found


class Block(nn.Module):
    """A residual block; ``projected``: its shortcut is a convolution, computed last."""

    def __init__(self, channels, projected, halo):
        super().__init__()
        self.stem = nn.Conv2d(3, channels, 3, padding=1)
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm = nn.BatchNorm2d(channels)
        self.second = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)
        self.shortcut = nn.Conv2d(channels, channels, 1) if projected else None
        self.last = nn.Conv2d(channels, 4, 3, padding=1) if halo else nn.Conv2d(channels, 4, 1)

    def forward(self, x):
        x = F.relu(self.stem(x))
        y = self.norm2(self.second(F.relu(self.norm(self.first(x)))))
        y = F.relu(y + (x if self.shortcut is None else self.shortcut(x)))
        return self.last(y)


def moved(model):
    """``model`` with statistics and scales of batch norm that change something."""
    rng = np.random.default_rng(5)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.copy_(rng.standard_normal(module.num_features).astype("float32"))
            module.running_var.copy_(rng.random(module.num_features).astype("float32") + 0.5)
            with minicnn.no_grad():
                module.weight.copy_(rng.random(module.num_features).astype("float32") + 0.5)
                module.bias.copy_(rng.standard_normal(module.num_features).astype("float32"))
    return model


@pytest.mark.parametrize("count", [1, 3, 24])
@pytest.mark.parametrize("projected", [True, False])
@pytest.mark.parametrize("halo", [True, False])
def test_a_residual_block_is_convolutions_alone(count, projected, halo):
    found = check(lambda: moved(Block(9, projected, halo)), count, (3, 5, 6), few=count <= 8)
    made = found["channel_products" if count <= 8 else "products"]
    assert made == 4 + projected and not {"affine", "channel_affine", "relu", "add()"} & set(found), found
    if count <= 8 and halo:
        assert "add" not in found, found


@pytest.mark.parametrize("count", [1, 3, 24])
def test_batch_norm_that_no_convolution_takes(count):
    layers = chain(
        conv(3, 11, 3), nn.ReLU, lambda: nn.BatchNorm2d(11), lambda: nn.BatchNorm2d(11), nn.ReLU, conv(11, 2, 3)
    )
    found = check(lambda: moved(layers()), count, (3, 7, 9), few=count <= 8)
    assert found["channel_affine" if count <= 8 else "affine"] == 2 and "batch_norm()" not in found


@pytest.mark.parametrize("count", [1, 3, 24])
def test_a_convolution_that_others_see_keeps_its_batch_norm(count):
    layer, norm = nn.Conv2d(3, 9, 3), moved(nn.Sequential(nn.BatchNorm2d(9)))

    def function(x):
        h = layer(x)
        return h, norm(h)

    with minicnn.nn.module.evaluating():
        compiled = minicnn.compile(function)
        ((x, _),) = batches(1, (count, 3, 6, 7))
        for _ in range(2):
            agree([t.numpy() for t in compiled(x)], [t.numpy() for t in function(Tensor(x))], 1e-5)


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
    assert found["max_pool"] == 1 and not {"max_pool2d()", "relu()", "relu"} & set(found), found


@pytest.mark.parametrize("layer", [pool(3, 2, padding=1), pool(2, dilation=2)])
def test_other_pooling_falls_back(layer):
    assert "max_pool2d()" in check(chain(conv(3, 5, 3), layer, nn.Flatten), 2, (3, 10, 14))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("inputs", range(1, 41))
def test_linear(inputs, bias):
    found = check(chain(fc(inputs, 7, bias=bias), nn.ReLU, fc(7, 3)), 1 + inputs % 4, (inputs,))
    assert found["channel_products"] == 2 and not {"linear()", "relu()"} & set(found)


@pytest.mark.parametrize("outputs", [1, 8, 33, 128, 200])
def test_outputs(outputs):
    check(chain(fc(19, outputs), nn.ReLU, fc(outputs, 3)), 1, (19,))


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
    assert shared(compiled) == [True]


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
    assert shared(parts) == [True]


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
    assert shared(run.step) == [False] and not FEW & set(kinds(run.step))


def test_a_gradient_alone_uses_the_lanes_too():
    model = LeNet()

    def gradient(x):
        leaf = Tensor(x.data, requires_grad=True)
        model(leaf).sum().backward()
        return leaf.grad

    compiled = minicnn.compile(gradient)
    ((x, _),) = batches(1, (2, 3, 32, 32))
    agree([compiled(x).numpy()], [gradient(Tensor(x)).numpy()], 1e-4)
    assert shared(compiled) == [False]


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
    assert shared(compiled) == [True]


SIZES = {
    "4": (4, 4), "8": (8, 8), "4 x 12": (4, 12), "6 x 10": (6, 10), "2 x 8": (2, 8), "16": (16, 16),
    "12 x 20": (12, 20), "18": (18, 18), "7 x 8": (7, 8), "5": (5, 5), "3": (3, 3), "13 x 31": (13, 31),
}  # fmt: skip


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("channels", [(16, 16), (17, 33), (32, 24)])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("edge", [2, 4])
def test_winograd(edge, size, channels, count, monkeypatch):
    """It is taken where it is estimated to be faster; here everywhere."""
    monkeypatch.setattr(channels_layout, "_edge", lambda low, weight, result: edge)
    layers = chain(conv(3, channels[0], 1), conv(*channels, 3, padding=1), nn.ReLU, conv(channels[1], 4, 1))
    found = check(layers, count, (3, *SIZES[size]))
    assert {"channel_winograd", "gather_tiles"} & set(found) and not {"relu", "load", "filters"} & set(found), found


@pytest.mark.parametrize("size", [(8, 12), (15, 13)])
@pytest.mark.parametrize("projected", [True, False])
@pytest.mark.parametrize("count", [1, 2])
def test_winograd_in_a_residual_block(count, projected, size):
    found = check(lambda: moved(Block(24, projected, halo=True)), count, (3, *size))
    assert found.get("channel_winograd", 0) + found.get("gather_tiles", 0) == 2 and not {
        "add",
        "channel_affine",
        "relu",
    } & set(found), found


def test_the_cheaper_layout_is_taken(monkeypatch):
    monkeypatch.undo()
    wide, narrow = minicnn.compile(moved(Block(32, True, True)).eval()), minicnn.compile(chain(conv(3, 3, 3))())
    for count in (1, 8):
        for predict in (wide, narrow):
            predict(np.zeros((count, 3, 8, 8), np.float32))
    assert shared(wide) == [True, True] and shared(narrow) == [True, False]


@pytest.mark.parametrize("count", [9, 12, 16])
def test_layouts_are_compared_where_products_are_made_for_all_blocks(count, monkeypatch):
    monkeypatch.undo()
    layers = chain(conv(3, 136, 3, padding=1), nn.ReLU, conv(136, 136, 3, padding=1), conv(136, 3, 3, padding=1))
    model = layers()
    ((x, _),) = batches(1, (count, 3, 8, 8))
    agree([minicnn.compile(model)(x).numpy()], [model(Tensor(x)).numpy()], 1e-5)


def test_an_instruction_waits_for_those_before_it():
    """Of every program that threads share, the instructions of a node come after all of the nodes before it."""
    predict = minicnn.compile(LeNet())
    predict(np.zeros((2, 3, 32, 32), np.float32))
    (plan,) = predict.plans.values()
    (program,) = [step for step in plan.code.steps if hasattr(step, "rows")]
    begun = {node: i for i, node in reversed(list(enumerate(program.nodes)))}
    assert program.rows[:, 1].tolist() == [begun[node] for node in program.nodes]
    assert len(program.rows) > len(begun)
