"""Idioms: what a student or a researcher writes around a model is in a compiled function what it is outside."""

import asyncio
import contextvars
import copy
import pickle

import numpy as np
import pytest

import minicnn
import minicnn.functional as F
from minicnn import Tensor, nn, no_grad, optim

ROUNDS = 6


def pairs(count=9, rounds=ROUNDS):
    rng = np.random.default_rng(0)
    return [
        (Tensor(rng.standard_normal((count, 12)).astype(np.float32)), Tensor(rng.integers(0, 10, count)))
        for _ in range(rounds)
    ]


class Net(nn.Module):
    """Layers in a list and in a box, which are not called themselves, and an attribute."""

    def __init__(self):
        super().__init__()
        self.layers, self.box = nn.ModuleList([nn.Linear(12, 12)]), nn.Module()
        self.box.fc, self.scale = nn.Linear(12, 10), 1.0

    def forward(self, input):
        for layer in self.layers:
            input = F.relu(layer(input))
        return self.box.fc(input) * self.scale


def both(play):
    """Play a script eagerly and compiled, from the same seed; it takes what makes a function of a function."""
    results = []
    for make in (lambda function: function, minicnn.compile):
        minicnn.manual_seed(5)
        results.append([np.array(t) for t in play(make)])
    eager, compiled = results
    assert len(eager) == len(compiled)
    for a, b in zip(compiled, eager, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


# What a function reads of modules that it does not call


def put(model, name, value):
    setattr(model, name, value)


EDITS = {
    "append": lambda m: m.layers.append(nn.Linear(12, 12)),
    "element": lambda m: m.layers.__setitem__(0, nn.Linear(12, 12)),
    "in a box": lambda m: put(m.box, "fc", nn.Linear(12, 10)),
    "parameter": lambda m: put(m.box.fc, "weight", nn.Parameter(np.ones((10, 12), np.float32))),
    "attribute": lambda m: put(m, "scale", 3.0),
    "mode": lambda m: m.eval(),
}
READERS = {
    "model": lambda m: m,
    "parts": lambda m: lambda x: m.box.fc(m.layers[0](x)) * m.scale,
    "weights": lambda m: lambda x: F.linear(F.linear(x, m.layers[0].weight), m.box.fc.weight) * m.scale,
    "all parameters": lambda m: lambda x: x * sum(((p * p).sum() for p in m.parameters()), Tensor(0.0)),
    "its mode": lambda m: lambda x: x * 2.0 if m.training else x,
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("edit", EDITS)
def test_a_module_is_edited_between_calls(edit, reader):
    def play(make):
        model, found = Net(), []
        function = make(READERS[reader](model))
        for i, (x, _) in enumerate(pairs()):
            if i in (2, 4):
                EDITS[edit](model)
            found.append(function(x))
        return found

    both(play)


def test_a_tensor_read_without_a_tape_first_is_frozen_later():
    """The teacher is the model itself: its first reading asks for no gradient, and the next one does."""

    def play(make):
        model, found = Net(), []
        optimizer = optim.SGD(model.parameters(), 0.1)

        @make
        def step(x, y):
            with no_grad():
                before = model(x)
            optimizer.zero_grad()
            logits = model(x)
            loss = F.cross_entropy(logits, y) + ((logits - before + 1.0) ** 2).mean()
            loss.backward()
            optimizer.step()
            return loss

        for i, (x, y) in enumerate(pairs()):
            if i == 2:
                model.layers.requires_grad_(False)
            found.append(step(x, y))
        return [*found, *model.state_dict().values()]

    both(play)


# Edits in place

MAKERS = {
    "linear": lambda m, x: m["linear"](x.flatten(1)),
    "relu": lambda m, x: F.relu(m["linear"](x.flatten(1))),
    "convolution": lambda m, x: m["conv"](x),
    "pool": lambda m, x: F.max_pool2d(m["conv"](x), 2),
    "product": lambda m, x: x * 1.0,
    "state": lambda m, x: m["state"],
}
VIEWS = {
    "itself": lambda z: z,
    "detached": lambda z: z.detach(),
    "flat": lambda z: z.flatten(1),
    "one axis": lambda z: z.reshape(-1),
    "slice": lambda z: z[2:5],
    "transposed": lambda z: z.transpose(0, 1),
    "there and back": lambda z: z.flatten(1).reshape(z.shape),
}


@pytest.mark.parametrize("count", [2, 9])
@pytest.mark.parametrize("read", [False, True])
@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("maker", MAKERS)
def test_an_edit_through_a_view_is_seen_everywhere(maker, view, read, count):
    def readings(modules, z):
        found = [z * 1.0, F.relu(z), F.linear(z.flatten(1), Tensor(np.ones((3, z.numel() // count), np.float32)))]
        return [*found, modules["conv"](z)] if z.shape[1:] == (3, 4, 4) else found

    def play(make):
        rng = np.random.default_rng(1)
        state = Tensor(rng.standard_normal((count, 3, 4, 4)).astype(np.float32))
        modules = {"linear": nn.Linear(48, 24), "conv": nn.Conv2d(3, 4, 3, padding=1), "state": state}

        @make
        @no_grad()
        def function(x):
            z = MAKERS[maker](modules, x)
            found = readings(modules, z) if read else []
            seen = VIEWS[view](z)
            seen.copy_(seen * 0.5 - 0.25)
            return [*found, *readings(modules, z), seen * 1.0]

        inputs = [Tensor(rng.standard_normal((count, 3, 4, 4)).astype(np.float32)) for _ in range(2)]
        return [t for x in inputs for t in function(x)] + [state]

    both(play)


@pytest.mark.parametrize("optimizer", [optim.SGD, optim.Adam])
def test_weights_that_share_memory_in_another_shape(optimizer):
    def play(make):
        first, second = nn.Linear(12, 16), nn.Linear(16, 12)
        second.weight = nn.Parameter(first.weight.detach().T)
        trained = optimizer(first.parameters(), 0.1)

        @make
        def steps(x, y):
            losses = []
            for _ in range(2):
                trained.zero_grad()
                losses.append(F.cross_entropy(second(F.relu(first(x))), y))
                losses[-1].backward()
                trained.step()
            return losses

        return [t for x, y in pairs() for t in steps(x, y)] + [first.weight, second.weight]

    both(play)


MADE = {
    "number": lambda x: Tensor(0.0),
    "list": lambda x: Tensor([0.0]),
    "tensor of a list": lambda x: minicnn.tensor([0.0, 1.0]),
    "tensor of an array": lambda x: minicnn.tensor(np.zeros(12, np.float32)),
    "tensor of a tensor": lambda x: minicnn.tensor(x[0]),
}


@pytest.mark.parametrize("name", MADE)
def test_a_tensor_made_inside_is_made_anew_by_every_replay(name):
    def play(make):
        @make
        def function(x):
            total = MADE[name](x)
            for _ in range(3):
                total += x.mean()
            return total

        return [function(x) for x, _ in pairs()]

    both(play)


def test_an_array_that_becomes_a_tensor_inside_is_not_edited():
    function = minicnn.compile(lambda x: Tensor(np.zeros((9, 12), np.float32)).copy_(x))
    with pytest.raises(RuntimeError, match=r"edits a NumPy array .*minicnn\.tensor"):
        function(pairs()[0][0])


def test_an_input_that_is_a_state_of_the_function():
    """It is edited while it is read: as in eager mode."""

    def play(make):
        state, found = Tensor(np.ones((9, 12), np.float32)), []

        @make
        def function(x, before):
            state.copy_(state * 0.5 + x)
            return before * 2.0, F.relu(before[:4])

        for x, _ in pairs():
            found += [t.numpy().copy() for given in (state, state[:], x) for t in function(x, given)]
        return [*found, state]

    both(play)


# What Python would do once


def refusals():
    layer = nn.Linear(12, 10)
    optimizer, mask = optim.SGD(layer.parameters(), 0.1), np.arange(9) < 3

    def all_of(x):
        optimizer.lr = 0.1 / (1 + optimizer.steps)
        return x

    def of_a_group(x):
        optimizer.param_groups[0]["lr"] = 0.1
        return x

    return {
        "lr": (all_of, "setting lr"),
        "lr of a group": (of_a_group, "setting lr"),
        "mask of NumPy": (lambda x: x[mask], "an index by booleans"),
        "mask among others": (lambda x: x[mask, 0], "an index by booleans"),
        "copy of a model": (lambda x: copy.deepcopy(layer)(x), "a copy"),
        "copy of a tensor": (lambda x: copy.deepcopy(x), "a copy"),
        "pickle": (lambda x: x * len(pickle.dumps(layer.weight)), "a copy"),
    }


@pytest.mark.parametrize("name", refusals())
def test_what_a_plan_could_not_repeat_raises(name):
    function, message = refusals()[name]
    with pytest.raises(RuntimeError, match=message):
        minicnn.compile(function)(pairs()[0][0])


# Copies


@pytest.mark.parametrize("how", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["deepcopy", "pickle"])
def test_a_model_is_copied_after_a_compiled_step(how):
    """Its gradients stayed in the plan; those of the copy raise as they do, until they are reset."""
    model = nn.Linear(12, 10)
    optimizer = optim.SGD(model.parameters(), 0.1)

    @minicnn.compile
    def step(x, y):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    (x, y), *_ = pairs()
    step(x, y)
    twin = how(model)
    np.testing.assert_array_equal(twin(x).numpy(), model(x).numpy())
    assert twin.weight.grad.shape == (10, 12)
    with pytest.raises(RuntimeError, match="used up"):
        twin.weight.grad * 2.0
    twin.zero_grad()
    F.cross_entropy(twin(x), y).backward()
    assert np.isfinite(twin.weight.grad.numpy()).all()


@pytest.mark.parametrize("how", [copy.deepcopy, lambda f: pickle.loads(pickle.dumps(f))], ids=["deepcopy", "pickle"])
def test_a_compiled_function_is_copied(how):
    model = nn.Linear(12, 10)
    model.predict = minicnn.compile(model)  # a cycle
    (x, _), *_ = pairs()
    expected = model.predict(x).numpy()
    twin = how(model)
    assert twin.predict.function is twin and not twin.predict.plans
    np.testing.assert_array_equal(twin.predict(x).numpy(), expected)


# Contexts


def test_a_context_copied_while_a_run_was_recorded():
    contexts = []

    def function(x):
        contexts.append(contextvars.copy_context())
        return asyncio.run(asyncio.to_thread(lambda: x * 2.0))

    compiled = minicnn.compile(function)
    (x, _), (other, _), *_ = pairs()
    compiled(x)
    np.testing.assert_array_equal(compiled(other).numpy(), other.numpy() * 2)
    with pytest.raises(RuntimeError, match="context was copied"):
        contexts[0].run(lambda: Tensor([1.0]) * 2.0)
