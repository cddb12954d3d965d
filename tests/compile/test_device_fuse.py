"""Passes for plans on a GPU: joined calls have the results of those that they replace, and only what may be is joined.

Both are run by the reference on NumPy arrays, bit for bit.
"""

import numpy as np
import pytest

import minicnn
import minicnn.functional as F
from minicnn import Tensor, models, nn, optim
from minicnn.backend.reference import Kernels as reference
from minicnn.compile.device_fuse import fused, title
from minicnn.compile.program import Action, PerReplay, Value
from minicnn.compile.record import record
from minicnn.tensor import kernels_of

RNG = np.random.default_rng(0)


def run(program, calls, inputs):
    """Return outputs and edited states after the calls; states start as they are, and stay."""
    arrays = dict(zip(program.inputs, inputs, strict=True))
    states = {value.memory: value.array.copy() for value in program.written}
    numbers = {}
    for thing in program.before:
        if isinstance(thing, Action):
            thing.do()
        else:
            numbers[thing] = thing.read()
    for thing in reversed(program.before):
        if isinstance(thing, Action) and thing.undo is not None:
            thing.undo()

    def found(argument):
        if isinstance(argument, list | tuple):
            return type(argument)(map(found, argument))
        if isinstance(argument, PerReplay):
            return numbers[argument]
        if not isinstance(argument, Value):
            return argument
        return arrays[argument] if argument in arrays else states.get(argument.memory, argument.array)

    for call in calls:
        if call.kernel != "check_on_replay":
            result = getattr(reference, call.kernel)(*found(call.arguments))
            results = result if isinstance(result, tuple) else (result,)
            arrays |= zip(call.outputs, (r for r in results if r is not None), strict=True)
    return [arrays[value] for value in program.outputs], list(states.values())


def compare(function, *shapes):
    """Return the calls after the passes, whose results are those of the calls before."""
    inputs = [RNG.standard_normal(shape).astype(np.float32) for shape in shapes]
    program = record(function, inputs)
    calls = fused(program)
    for expected, got in zip(run(program, program.calls, inputs), run(program, calls, inputs), strict=True):
        for x, y in zip(expected, got, strict=True):
            np.testing.assert_array_equal(x, y)
    return [title(call) for call in calls]


def network():
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.MaxPool2d(2), nn.BatchNorm2d(4), nn.GELU(), nn.Conv2d(4, 5, 3), nn.ReLU(),
        nn.MaxPool2d(2), nn.BatchNorm2d(5), nn.ReLU(), nn.Flatten(), nn.Linear(45, 4),
    )  # fmt: skip


MODELS = {
    "small": (network, 16),
    "resnet20": (lambda: models.create("resnet20"), 8),
    "lenet": (lambda: models.create("lenet"), 32),
}


@pytest.mark.parametrize("optimizer", [lambda p: optim.SGD(p, 0.1, momentum=0.9), lambda p: optim.AdamW(p)])
@pytest.mark.parametrize("name", MODELS)
def test_training_steps(name, optimizer):
    make, size = MODELS[name]
    model = make()
    taken = optimizer(model.parameters())

    def step(images):
        loss = F.cross_entropy(model(images), minicnn.tensor([1, 0, 3]))
        taken.zero_grad()
        loss.backward()
        optim.clip_grad_norm_(model.parameters(), 0.5)
        taken.step()
        return loss

    calls = compare(step, (3, 3, size, size))
    assert sum(name in ("sgd_steps", "adam_steps") for name in calls) == calls.count("clip_norms") == 1
    norms = sum(isinstance(module, nn.BatchNorm2d) for _, module in model.named_modules())
    assert sum(name.startswith("batch_norm_train_grad") or name == "batch_norm_grad" for name in calls) == norms
    assert sum(name.startswith("batch_norm_train") and "grad" not in name for name in calls) == norms
    assert not {"batch_norm_statistics", "lerp_into", "sgd_step", "adam_step", "clip_norm"} & set(calls)


def test_a_chain_is_one_call():
    calls = compare(lambda a, b: F.relu((a * 2 + b).exp() - 1), (3, 4), (4,))
    assert calls == ["pointwise(multiply, add, exp, subtract, relu)"]


def test_what_is_read_twice_or_returned_stays():
    calls = compare(lambda a: ((y := F.relu(a)), y + 1), (3, 4))
    assert calls == ["relu", "add"]
    calls = compare(lambda a: (y := F.relu(a)) * y.sum(), (3, 4))
    assert calls.count("relu") == 1


def test_a_smaller_result_is_not_made_again_for_every_element():
    assert compare(lambda a, b: a * b.exp(), (3, 4), (4,)) == ["exp", "multiply"]


def test_an_edit_between_keeps_the_order():
    weight = minicnn.tensor(np.ones((3, 4), np.float32))

    def step(x):
        y = x * weight
        with minicnn.no_grad():
            weight.copy_(x)
        return y + weight

    assert compare(step, (3, 4)) == ["multiply", "copy_into", "add"]


def test_a_copy_of_what_is_edited_stays():
    weight = minicnn.tensor(np.ones(4, np.float32))

    def step(x):
        before = Tensor(kernels_of(weight).copy(weight._operand))
        weight.copy_(x)
        return before + 0.0

    assert "copy" in compare(step, (4,))


def test_rows_of_two_dtypes_are_two_calls():
    weights = [Tensor(np.ones(3, dtype), requires_grad=True) for dtype in (np.float32, np.float64) for _ in range(2)]
    taken = optim.SGD(weights, 0.1)

    def step(x):
        taken.zero_grad()
        for weight in weights:
            (weight * x.astype(weight.dtype)).sum().backward()
        taken.step()
        return x

    assert compare(step, (3,)).count("sgd_steps") == 2
