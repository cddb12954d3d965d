"""Plans on a GPU: CUDA graphs with the bits of the same function called as it is."""

import gc
import re
import warnings
import weakref

import numpy as np
import pytest

import minicnn
import minicnn.functional as F
from minicnn import Tensor, backend, models, nn, optim
from minicnn.compile import device
from minicnn.recording import per_replay
from minicnn.tensor import kernels_of

pytestmark = pytest.mark.gpu
STEPS = 5


@pytest.fixture(autouse=True)
def gpu():
    with backend.use("cupy") as chosen, warnings.catch_warnings():
        warnings.simplefilter("error")
        yield chosen


def small():
    return nn.Sequential(
        nn.Conv2d(3, 20, 3, padding=1, bias=False), nn.BatchNorm2d(20), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(0.3),
        nn.Conv2d(20, 18, 3, stride=2, padding=1, groups=2), nn.GELU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(18, 10),
    )  # fmt: skip


NETWORKS = {
    "lenet": lambda: models.create("lenet"),
    "small": small,
    "resnet20": lambda: models.create("resnet20"),
    "vit": lambda: models.create("vit", depth=1),
}
OPTIMIZERS = {
    "sgd": lambda parameters: optim.SGD(parameters, lr=0.1),
    "momentum": lambda parameters: optim.SGD(parameters, 0.1, momentum=0.9, weight_decay=1e-3, nesterov=True),
    "adamw": lambda parameters: optim.AdamW(parameters, lr=1e-2),
}


def trained(network, optimizer, wrap, gpu, clipped=False):
    """Losses and final weights after some steps, whose learning rate falls; and what was called."""
    minicnn.manual_seed(3)
    model = NETWORKS[network]()
    taken = OPTIMIZERS[optimizer](model.parameters())

    def step(images, labels):
        loss = F.cross_entropy(model(images), labels, label_smoothing=0.1)
        taken.zero_grad()
        loss.backward()
        if clipped:
            optim.clip_grad_norm_(model.parameters(), 0.5)
        taken.step()
        return loss

    called, rng, losses = wrap(step), np.random.default_rng(4), []
    for number in range(STEPS):
        taken.lr = 0.1 / (1 + number)
        images = gpu.asarray(rng.standard_normal((6, 3, 32, 32), dtype=np.float32))
        losses.append(called(Tensor(images), Tensor(gpu.asarray(rng.integers(0, 10, 6)))).item())
    return losses, {name: tensor.numpy() for name, tensor in model.state_dict().items()}, called


def is_recorded(compiled):
    """Whether all its plans became graphs."""
    runs = [run for memory in compiled._memories._all for run in memory._runs.values()]
    return bool(runs) and all(run.graph is not None for run in runs)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("network", NETWORKS)
def test_a_graph_trains_bit_for_bit_as_the_function(gpu, network, optimizer):
    expected, weights, _ = trained(network, optimizer, lambda step: step, gpu)
    losses, found, compiled = trained(network, optimizer, minicnn.compile, gpu)
    assert is_recorded(compiled)
    assert losses == expected
    for name, array in weights.items():
        np.testing.assert_array_equal(found[name], array, name)


LAUNCHES = {"lenet": 28, "resnet20": 121}
"""Calls of kernels in a step; batch norm and sums of biases of convolutions take a second launch each."""


@pytest.mark.parametrize("network", LAUNCHES)
def test_a_step_has_few_launches(gpu, network):
    _, _, compiled = trained(network, "momentum", minicnn.compile, gpu)
    ((plan,),) = (compiled.plans.values(),)
    views = {"reshape", "transpose", "broadcast_to", "check_on_replay"}
    assert sum(call.kernel not in views for call in plan.calls) <= LAUNCHES[network]
    names = [call.kernel for call in plan.calls]
    assert names.count("sgd_steps") == 1
    norms = {"lenet": 0, "resnet20": 19}[network]
    assert names.count("batch_norm_train") == norms and "batch_norm_statistics" not in names
    assert names.count("relu_max_pool2d") == names.count("relu_max_pool2d_grad") == {"lenet": 2, "resnet20": 0}[network]


def test_a_plan_that_is_dropped_gives_its_memory_back(gpu, monkeypatch):
    kept = []

    class Memory(gpu.xp.cuda.Memory):
        def __init__(self, size):
            super().__init__(size)
            kept.append(weakref.ref(self))

    monkeypatch.setattr(device._Memory, "allocate", lambda _, size: gpu.xp.cuda.MemoryPointer(Memory(size), 0))
    _, _, compiled = trained("small", "momentum", minicnn.compile, gpu)
    assert kept and any(memory() for memory in kept)
    del compiled
    gc.collect()
    assert not any(memory() for memory in kept)


def test_a_plan_shows_what_is_joined_with_the_layers(gpu):
    _, _, compiled = trained("small", "momentum", minicnn.compile, gpu)
    (plan,) = compiled.plans.values()
    assert re.search(r"^1\+?\S* +batch_norm_train", str(plan), re.MULTILINE)
    assert plan._repr_html_().count("<tr>") == len(plan.calls) + 1


def test_averages_of_weights_are_one_launch(gpu):
    """With the share as a number that each replay reads, which is another each time."""
    results = []
    for wrap in (lambda function: function, minicnn.compile):
        shares = iter((0.5, 0.25, 0.125, 1.0))
        targets = [Tensor(gpu.asarray(np.full(n, 2.0, np.float32))) for n in (3, 5000)]

        def step(x, targets=targets, shares=shares):
            share = per_replay(lambda: next(shares))
            for target in targets:
                target._edit(kernels_of(target).lerp_into, x[: len(target)]._operand, share)
            return x

        called = wrap(step)
        for _ in range(4):
            called(Tensor(gpu.asarray(np.arange(5000, dtype=np.float32))))
        results.append([target.numpy() for target in targets])
    (plan,) = called.plans.values()
    assert [call.kernel for call in plan.calls].count("lerps_into") == 1
    for eager, compiled in zip(*results, strict=True):
        np.testing.assert_array_equal(compiled, eager)


def test_a_clipped_gradient(gpu):
    expected, _, _ = trained("lenet", "momentum", lambda step: step, gpu, clipped=True)
    losses, _, compiled = trained("lenet", "momentum", minicnn.compile, gpu, clipped=True)
    assert is_recorded(compiled) and losses == expected


def test_predictions_of_several_sizes(gpu):
    model = small().eval()
    compiled, rng = minicnn.compile(model), np.random.default_rng(0)
    for count in (1, 5, 1, 5, 1, 5, 32):
        images = gpu.asarray(rng.standard_normal((count, 3, 32, 32), dtype=np.float32))
        with minicnn.no_grad():
            np.testing.assert_array_equal(compiled(images).numpy(), model(Tensor(images)).numpy())
    assert len(compiled.plans) == 3


def test_what_cannot_be_recorded_is_said_and_called_one_by_one(gpu):
    places = np.array([2, 0, 2])

    def step(x):
        leaf = Tensor(x.data, requires_grad=True)
        (leaf[places] * 2.0).sum().backward()
        return leaf.grad

    compiled = minicnn.compile(step)
    x = gpu.asarray(np.ones((3, 2), np.float32))
    for number in range(3):
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            np.testing.assert_array_equal(compiled(x).numpy(), [[2, 2], [0, 0], [4, 4]])
        assert [str(w.message).startswith("compile: no CUDA graph, kernels are called one by one: ") for w in said] == [
            True
        ] * (number == 1)


def test_labels_out_of_range_raise_before_anything_is_edited(gpu):
    weight = Tensor(gpu.asarray(np.ones((4, 3), np.float32)), requires_grad=True)
    taken = optim.SGD([weight], lr=1.0)

    @minicnn.compile
    def step(x, labels):
        loss = F.cross_entropy(x @ weight, labels)
        taken.zero_grad()
        loss.backward()
        taken.step()
        return loss

    x = gpu.asarray(np.eye(2, 4, dtype=np.float32))
    for _ in range(3):
        step(x, gpu.asarray(np.array([0, 1])))
    before = weight.numpy()
    with pytest.raises(ValueError, match="labels from 0 to 2"):
        step(x, gpu.asarray(np.array([0, 3])))
    np.testing.assert_array_equal(weight.numpy(), before)
    assert taken.steps == 3


def test_options_of_an_optimizer_may_be_whole_numbers_or_numpys(gpu):
    weights = []
    for wrap in (lambda step: step, minicnn.compile):
        weight = Tensor(gpu.asarray(np.ones(3, np.float32)), requires_grad=True)
        taken = optim.SGD([weight], lr=1, momentum=0.5, weight_decay=0)

        def step(x, weight=weight, taken=taken):
            taken.zero_grad()
            (weight * x).sum().backward()
            taken.step()
            return weight

        called = wrap(step)
        for lr in (1, 0.25, np.float32(0.5), 2):
            taken.lr = lr
            called(Tensor(gpu.asarray(np.ones(3, np.float32))))
        weights.append(weight.numpy())
    np.testing.assert_array_equal(*weights)


def test_a_replay_that_fails_counts_no_step(gpu, monkeypatch):
    weight = Tensor(gpu.asarray(np.ones(3, np.float32)), requires_grad=True)
    taken = optim.SGD([weight], lr=1.0, momentum=0.5)

    @minicnn.compile
    def step(x):
        taken.zero_grad()
        (weight * x).sum().backward()
        taken.step()
        return weight

    def fail(*_):
        raise MemoryError("no more")

    x = gpu.asarray(np.ones(3, np.float32))
    step(x)
    ((run,),) = ([*memory._runs.values()] for memory in step._memories._all)
    monkeypatch.setattr(run, "_call", fail)
    with pytest.raises(MemoryError):
        step(x)
    assert taken.steps == 1
    monkeypatch.undo()
    step(x)
    assert taken.steps == 2 and run.graph is not None


def test_products_of_nothing(gpu):
    for left, right in (((2, 0, 3), (2, 3, 4)), ((2, 2, 0), (1, 0, 4)), ((2, 2, 0), (0, 4))):
        x, y = (np.zeros(shape, np.float32) for shape in (left, right))
        found = (Tensor(gpu.asarray(x)) @ Tensor(gpu.asarray(y))).numpy()
        np.testing.assert_array_equal(found, x @ y)


def test_a_replay_reads_what_was_edited_since(gpu):
    weight = Tensor(gpu.asarray(np.ones((3, 2), np.float32)))
    compiled = minicnn.compile(lambda x: F.linear(x, weight))
    x = gpu.asarray(np.ones((4, 2), np.float32))
    for number in range(1, 5):
        weight.copy_(np.full((3, 2), number, np.float32))
        np.testing.assert_array_equal(compiled(x).numpy(), np.full((4, 3), 2.0 * number))
