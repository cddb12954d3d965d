"""Places in memory: nothing lies where something else is still needed, and the zeros around blocks stay zeros."""

from itertools import combinations

import numpy as np
import pytest

import minicnn
import minicnn.functional as F
from minicnn import nn, optim
from minicnn.backend.cpu.jit import HAS_BFLOAT16
from minicnn.compile.allocate import _Packing
from minicnn.compile.graph import Block, Region
from minicnn.models import LeNet
from minicnn.models.resnet import BasicBlock, Projection, ResNet
from minicnn.models.vgg import VGG
from minicnn.models.vit import ViT
from shared.runs import Run, agree, batches, chain, conv, eager, fc, kinds, nodes_of

MODELS = {
    "lenet": (LeNet, 32),
    "vgg": (lambda: VGG(widths=(16, 24), dropout=(0.2, 0.3)), 32),
    "resnet": (lambda: ResNet(10, BasicBlock, (1, 1), (16, 24), Projection), 16),
    "odd": (lambda: ResNet(10, BasicBlock, (1, 1), (16, 136), Projection), 13),
    "even": (lambda: ResNet(10, BasicBlock, (1, 1), (16, 24), Projection), 10),
    "tokens": (lambda: ViT(depth=1, dim=24, heads=3, patch_size=8), 32),
}

BFLOAT16 = pytest.mark.skipif(not HAS_BFLOAT16, reason="no AVX512_BF16")


def meet(a, b):
    """Whether half-open intervals share something."""
    return a[0] < b[1] and b[0] < a[1]


# Packing


@pytest.mark.parametrize("start", [0, 48])
@pytest.mark.parametrize("seed", range(20))
def test_packing(seed, start):
    rng = np.random.default_rng(seed)
    packing, things = _Packing(start), []
    for _ in range(40):
        first, size = int(rng.integers(12)), int(rng.integers(1, 40))
        last = first + int(rng.integers(5))
        at = packing.place(size, first, last)
        things.append(((at, at + size), (first, last + 1)))
    for (place, use), (other_place, other_use) in combinations(things, 2):
        assert not (meet(place, other_place) and meet(use, other_use))
    assert min(place[0] for place, *_ in things) == start
    assert packing.end == max(place[1] for place, *_ in things)


def test_packing_shares_what_it_can():
    packing = _Packing(0)
    assert [packing.place(16, first, first) for first in (0, 1, 2, 0)] == [0, 0, 0, 16]
    assert [packing.place(8, first, first) for first in (0, 1, 0)] == [32, 16, 40]


# Plans


def plan_of(name, task, count=21):
    """The plan of a model after some replays."""
    build, size = MODELS[name]
    run = Run(build)
    data = batches(3, (count, 3, size, size))
    compiled = run.step
    if task == "train":
        run.train(data)
    else:
        compiled = minicnn.compile(run.model)
        for x, _ in data:
            compiled(x)
    (plan,) = compiled.plans.values()
    return plan


def things_of(plan):
    """(thing, its place, its use in time, its use in nodes) of all blocks and regions; reshapes are one thing.

    An odd phase is a program that does all at once; in an even one the calls have each a part of it, in their order.
    """
    code, places = plan.code, plan.code.allocation.places
    times, lines = {}, {}
    line = 0
    for phase, nodes in enumerate(code.phases):
        for i, node in enumerate(nodes):
            begin, end = (i / len(nodes), (i + 1) / len(nodes)) if phase % 2 == 0 else (0, 1)
            for thing in map(code.graph.place_of, (*node.reads, *node.writes)):
                thing = code.allocation.shared.get(thing, thing)
                if thing in places:
                    times.setdefault(thing, []).extend((phase + begin, phase + end))
                    lines.setdefault(thing, []).append(line)
            line += 1
    for value in plan.program.outputs:
        if value in code.graph.regions:
            times[code.graph.regions[value]].append(len(code.phases) + 1)
    for thing, used in times.items():
        (at, step), size = places[thing], room_of(plan, thing)
        copies = code.graph.count if step > 0 else 1
        yield thing, (at, at + size * copies), (min(used), max(used)), (min(lines[thing]), max(lines[thing]) + 1)


def room_of(plan, thing):
    """Floats that a region, or a block of images, takes."""
    if isinstance(thing, Region):
        return thing.length
    allocation = plan.code.allocation
    high, wide = allocation.halos[thing]  # the zeros behind the last plane
    behind = high * allocation.row(thing) + wide * allocation.lanes
    return thing.points * thing.channels * allocation.plane(thing) + behind


@pytest.mark.parametrize("task", ["train", "predict"])
@pytest.mark.parametrize("name", MODELS)
def test_no_place_is_taken_twice_at_a_time(name, task):
    plan = plan_of(name, task)
    things, places = list(things_of(plan)), plan.code.allocation.places
    assert sum(isinstance(thing, Block) for thing, *_ in things) > 5
    shared = 0
    for (a, place, times, lines), (b, other_place, other_times, other_lines) in combinations(things, 2):
        if not meet(place, other_place):
            continue
        shared += 1
        alone = [places[t].step < 0 for t in (a, b)]
        assert alone[0] == alone[1], (a, b)  # scratch is apart
        assert not meet(times, other_times) or (alone[0] and not meet(lines, other_lines)), (a, b)
    assert shared


@pytest.mark.parametrize("task, count", [("train", 21), ("predict", 21), ("predict", 3)])
@pytest.mark.parametrize("name", MODELS)
def test_nothing_is_read_that_was_not_written(name, task, count):
    """A replay does not see what its memory held before, in halos either: NaN, or large numbers, change nothing."""
    plan = plan_of(name, task, count)
    allocation, size = plan.code.allocation, MODELS[name][1]
    room = np.zeros(allocation.length + 16, dtype=np.float32)
    memory = room[-room.ctypes.data % 64 // 4 :][: allocation.length]
    run, results = plan.bind(memory), []
    ((x, labels),) = batches(1, (count, 3, size, size))
    read = dict.fromkeys(v for call in plan.program.calls for v in call.reads() if v.call is None)
    states = [(v.array, v.array.copy()) for v in read if v.array is not None]  # parameters, and momentum
    for before in (0, np.nan, -1e30):
        memory[...] = before
        run.clean()
        minicnn.manual_seed(0)
        for array, state in states:
            array[...] = state
        results.append(run([x, labels] if task == "train" else [x], plan.program.outputs))
        results[-1] += [array.copy() for array, _ in states]
    framed = any(map(any, allocation.halos.values()))
    assert framed or name in ("lenet", "tokens")  # which have no padding
    assert all(np.isfinite(result).all() for result in results[0])
    for other in results[1:]:
        assert all(map(np.array_equal, other, results[0]))


# Views

VIEWS = {
    "reshape": lambda x: x.reshape(-1, 8),
    "getitem": lambda x: x[2:5],
    "transpose": lambda x: x.transpose(0, 1),
    "two": lambda x: x.reshape(-1, 8)[:100],
}


@pytest.mark.parametrize("view", VIEWS)
def test_what_a_view_sees_is_kept_as_long_as_the_view(view):
    data = batches(3, (13, 3, 8, 8))
    found = []
    for compiled in (False, True):
        run = Run(chain(conv(3, 16, 3, padding=1), lambda: nn.BatchNorm2d(16), nn.ReLU, nn.Flatten, fc(1024, 10)))
        convolution, *layers = run.model

        def step(images, labels, run=run, convolution=convolution, layers=layers):
            x = y = convolution(images)
            for layer in layers:
                y = layer(y)
            seen, loss = VIEWS[view](x), F.cross_entropy(y, labels)
            loss = loss + (seen * seen * loss).mean()  # needs the view when the blocks are no longer needed
            run.optimizer.zero_grad()
            loss.backward()
            run.optimizer.step()
            return loss, seen

        run.step = minicnn.compile(step) if compiled else step
        found.append(run.train(data))
    agree(found[1], found[0], 3e-4)


# Batch norm again


@pytest.mark.parametrize("count", [5, 13])
def test_batch_norm_is_applied_again_where_it_is_needed_later(count):
    data = batches(3, (count, 3, 32, 32))
    run = Run(MODELS["vgg"][0])
    wide = [(images.astype(np.float64), labels) for images, labels in data]
    agree(run.train(data), eager(wide, MODELS["vgg"][0], dtype="float64"), 2e-4)
    (plan,) = run.step.plans.values()
    made = [node for node in nodes_of(plan) if node.kind == "affine"]
    assert len(made) > 4 and len({node.operands["y"] for node in made}) == len(made)
    for node in made:
        y = node.operands["y"]
        assert plan.code.allocation.places[y].step == -1  # its readers are in its phase
        assert node.operands["a"] in node.reads and node.operands["terms"] in node.reads


def norm(channels=5):
    return nn.BatchNorm2d(channels)


def last():
    """A second batch norm: its sums end the phase in which the first is used."""
    return norm(4)


def frozen():
    return norm().eval()


@pytest.mark.parametrize(
    "layers, left, count",
    [
        ((conv(3, 5, 3), norm, conv(5, 4, 3, padding=1), last), 256, 3),
        ((conv(3, 5, 3), norm, nn.ReLU, conv(5, 4, 3), last), 144, 3),
        ((conv(3, 5, 3), nn.ELU, norm, nn.ReLU, conv(5, 4, 3, padding=1), last), 256, 3),
        ((conv(3, 5, 3), norm, nn.ELU, conv(5, 4, 3), last), 144, 2),  # edited in place
        ((conv(3, 5, 3), frozen, nn.ELU, conv(5, 4, 3), last), 144, 2),
        ((conv(3, 5, 3), norm, conv(5, 4, 3, padding=1)), 256, 1),  # used in one phase
        ((conv(3, 5, 3), norm, nn.ReLU, conv(5, 4, 3)), 144, 1),
    ],
)
def test_how_often_batch_norm_is_applied(layers, left, count):
    build = chain(*layers, nn.Flatten, fc(left, 10))
    data = batches(3, (11, 3, 10, 10))
    run = Run(build)
    agree(run.train(data), eager(data, build), 3e-4)
    assert kinds(run.step)["affine"] == count


def test_a_prediction_applies_each_batch_norm_once():
    plan = plan_of("vgg", "predict")
    assert sum(node.kind == "affine" for node in nodes_of(plan)) == 4


def test_what_is_made_anew_is_made_of_what_was_read_before():
    """The sum is in the place of x, which is also that of its reshape: dropout is not made of that again."""
    convolutions = [nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1)]
    norm, dropout, one, two = nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Linear(64, 64), nn.Linear(64, 64)

    def function(images):
        x = convolutions[0](images)
        flat = x.reshape(24, 64)
        dropped = dropout(flat)
        h = norm(convolutions[1](x))
        first, total = flat + one(h.reshape(24, 64)), x + h
        return first, total, two(total.reshape(24, 64)) + dropped

    images = minicnn.tensor(np.random.default_rng(0).standard_normal((24, 3, 4, 4)).astype(np.float32))
    found = []
    with minicnn.no_grad():
        for run in (function, minicnn.compile(function)):
            minicnn.manual_seed(3)
            found.append(run(images))
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("precision", ["float32", pytest.param("bf16", marks=BFLOAT16)])
@pytest.mark.parametrize("layer", [lambda: nn.Dropout(0.3), lambda: nn.BatchNorm2d(32)])
def test_two_steps_in_one_function(layer, precision):
    """What is rounded in its place is one block that two instructions write."""

    def losses(compiled):
        minicnn.manual_seed(0)
        first, middle, last = nn.Conv2d(16, 32, 3, padding=1), layer(), nn.Conv2d(32, 32, 3, padding=1)
        optimizers = [optim.SGD([*module.parameters()], lr=0.01) for module in (last, nn.Sequential(first, last))]

        def step(x):
            for optimizer in optimizers:
                y = last(middle(F.relu(first(x))))
                optimizer.zero_grad()
                loss = (y * y).mean()
                loss.backward()
                optimizer.step()
            return loss

        step = minicnn.compile(step) if compiled else step
        x = np.random.default_rng(0).standard_normal((24, 16, 8, 8)).astype(np.float32)
        with minicnn.precision(precision):
            return [step(minicnn.tensor(x)).item() for _ in range(3)]

    np.testing.assert_allclose(losses(True), losses(False), rtol=1e-4)


@pytest.mark.parametrize("norm", [False, True])
def test_filters_of_a_prediction_are_transformed_once(norm):
    layers = [conv(3, 144, 3, padding=1), conv(144, 136, 3, padding=1), *[lambda: nn.BatchNorm2d(136)] * norm]
    model = chain(*layers)().eval()
    compiled = minicnn.compile(model)
    compiled(np.ones((17, 3, 8, 8), np.float32))
    (plan,) = compiled.plans.values()
    (products,) = (node for node in nodes_of(plan) if node.kind == "wide_products")
    assert products.operands["weight"] in plan.code.graph.constants
