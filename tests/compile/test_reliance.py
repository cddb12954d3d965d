"""What a plan takes as fixed is noticed when it changes, or raises; nothing is frozen in silence."""

import numpy as np
import pytest

import minicnn
import minicnn.functional as F
from minicnn import Tensor, nn, optim
from minicnn.nn import init

X = np.random.default_rng(0).standard_normal((5, 3, 6, 5)).astype(np.float32)


def network():
    minicnn.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(48, 3)
    )


def scaled(tensor):
    return Tensor(tensor.numpy() * 2)


def add_hook(model):
    model[2].register_forward_hook(lambda module, output: output.data)  # which only looks


CHANGES = {
    "data of a parameter": lambda m: setattr(m[0].weight, "data", m[0].weight.numpy() * 2),
    "another parameter": lambda m: setattr(m[5], "weight", nn.Parameter(m[5].weight.numpy() * 2)),
    "no parameter": lambda m: setattr(m[5], "bias", None),
    "another buffer": lambda m: setattr(m[1], "running_mean", scaled(m[1].running_mean + 1.0)),
    "another layer": lambda m: m.__setitem__(5, nn.Linear(48, 3)),
    "one layer more": lambda m: m.append(nn.Linear(3, 2)),
    "one layer less": lambda m: m.__delitem__(5),
    "an activation": lambda m: m.__setitem__(2, nn.ELU()),
    "an option": lambda m: setattr(m[1], "eps", 0.5),
    "weights in place": lambda m: init.ones_(m[0].weight),
    "weights loaded": lambda m: m.load_state_dict({k: v.numpy() * 2 for k, v in m.state_dict().items()}),
    "a hook": add_hook,
}


@pytest.mark.parametrize("name", CHANGES)
def test_changes_of_a_model_are_followed(name):
    model = network()
    predict = minicnn.compile(model)
    predict(X)
    CHANGES[name](model)
    model.eval()
    np.testing.assert_allclose(predict(X).numpy(), model(Tensor(X)).numpy(), rtol=1e-5, atol=1e-6)


def test_a_hook_runs_when_it_is_recorded_and_ends():
    model, seen = network(), []
    predict = minicnn.compile(model)
    predict(X)
    remove = model[5].register_forward_hook(lambda module, output: seen.append(output.shape))
    predict(X)
    remove()
    predict(X)
    assert seen == [(5, 3)]


def test_the_mode_of_a_module_is_followed():
    """Of a function that calls it; a module that is compiled itself is always evaluated."""
    norm = nn.BatchNorm2d(3)
    function, model = minicnn.compile(lambda x: norm(x * 1.0)), minicnn.compile(norm)
    for mode in (True, False, True):
        norm.train(mode)
        before = norm.running_mean.numpy().copy()
        found = function(X).numpy()
        assert np.array_equal(norm.running_mean.numpy(), before) != mode
        norm.load_state_dict({**norm.state_dict(), "running_mean": before})
        np.testing.assert_allclose(found, norm(Tensor(X)).numpy(), rtol=1e-4, atol=1e-5)
        before = norm.running_mean.numpy().copy()
        model(X)
        assert np.array_equal(norm.running_mean.numpy(), before) and norm.training == mode


def test_the_mode_inside_a_tree_is_followed():
    model = network()
    step = minicnn.compile(lambda x: model(x).sum())
    step(X)
    for module in (model[3], model[1]):
        module.eval()
        step(X)
    assert step(X).item() == pytest.approx(model(Tensor(X)).sum().item(), rel=1e-5)


@pytest.mark.parametrize("freeze", [True, False])
def test_which_parameters_want_a_gradient_is_followed(freeze):
    model = network()
    model[0].requires_grad_(not freeze)
    optimizer = optim.SGD(model.parameters(), 0.1)

    def step(x):
        loss = (model(x) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    compiled = minicnn.compile(step)
    compiled(X)
    model[0].requires_grad_(freeze)
    weight = model[0].weight  # under batch norm the gradient of the bias is nothing but rounding
    before = weight.numpy().copy()
    compiled(X)
    assert np.array_equal(weight.numpy(), before) != freeze


def test_what_did_not_change_is_not_recorded_anew():
    model, calls = network(), []
    compiled = minicnn.compile(lambda x: calls.append(1) or model(x))
    for _ in range(3):
        compiled(X)
        network()  # other modules come and go
        model.load_state_dict(model.state_dict())
        model.train(model.training)
    assert len(calls) == 1


def test_tensors_outside_of_modules_are_followed():
    weight = Tensor(np.ones((3, 90), dtype=np.float32), requires_grad=True)
    compiled = minicnn.compile(lambda x: F.linear(F.flatten(x, 1), weight))
    compiled(X)
    weight.data = np.full((3, 90), 2, dtype=np.float32)
    np.testing.assert_allclose(compiled(X).numpy(), 2 * X.reshape(5, -1).sum(1, keepdims=True) * np.ones(3), rtol=1e-4)


# What raises

REFUSED = {
    "a ufunc": lambda x: Tensor(np.exp(x.data)),
    "a ufunc on the right": lambda x: Tensor(np.ones(5, np.float32).reshape(5, 1, 1, 1) * x.data),
    "arithmetic": lambda x: Tensor(x.data * 2),
    "arithmetic in place": lambda x: x.data.__imul__(2),
    "a comparison": lambda x: Tensor(x.data > 0),
    "a function": lambda x: Tensor(np.concatenate([x.data, x.data])),
    "a reduction": lambda x: Tensor(np.sum(x.data)),
    "a method": lambda x: Tensor(x.data.sum()),
    "an attribute": lambda x: Tensor(x.data.T),
    "an index": lambda x: Tensor(x.data[0]),
    "an assignment": lambda x: x.data.__setitem__(0, 0.0),
    "a copy": lambda x: Tensor(np.array(x.data)),
    "a conversion": lambda x: Tensor(np.asarray(x.data, dtype=np.float32)),
    "a truth": lambda x: x if x.data else x,
    "a number": lambda x: x * float(x.mean().data),
    "iteration": lambda x: Tensor(next(iter(x.data))),
    "item": lambda x: x * x.mean().item(),
    "float": lambda x: x * float(x.mean()),
    "a truth of a tensor": lambda x: x if x.mean() > 0 else -x,
    "numpy": lambda x: Tensor(x.numpy() * 2),
    "NumPy on a tensor": lambda x: Tensor(np.asarray(x)),
    "a format": lambda x: x if f"{x.mean():.2f}" else x,
    "a replaced array": lambda x: setattr(x, "data", X) or x,
}


@pytest.mark.parametrize("of", ["an input", "a result", "a state"])
@pytest.mark.parametrize("name", REFUSED)
def test_what_a_plan_could_not_repeat_raises(name, of):
    state = Tensor(X.copy())
    before = state.numpy().copy()

    def function(x):
        seen = {"an input": x, "a result": x + 0.0, "a state": state}[of]
        return x + REFUSED[name](seen)

    compiled = minicnn.compile(function)
    for _ in range(2):
        with pytest.raises((RuntimeError, TypeError), match="compile: "):
            compiled(X)
    assert not compiled.plans
    np.testing.assert_array_equal(state.numpy(), before)


@pytest.mark.parametrize("draw", [lambda: nn.Linear(3, 3), lambda: init.normal_(init.empty(3))], ids=["layer", "init"])
def test_weights_are_not_drawn_inside(draw):
    compiled = minicnn.compile(lambda x: (draw(), x + 1.0)[1])
    with pytest.raises(RuntimeError, match="a draw of random numbers"):
        compiled(X)


EDITS = {
    "copy_": lambda x: x.copy_(x + 1.0),
    "in-place arithmetic": lambda x: x.__iadd__(1.0),
    "through a view": lambda x: x.reshape(-1).copy_(0.0),
    "through a slice": lambda x: x[1:].copy_(0.0),
}


@pytest.mark.parametrize("name", EDITS)
def test_edits_of_inputs_raise(name):
    x = Tensor(X.copy())
    compiled = minicnn.compile(lambda x: (EDITS[name](x), x * 2.0)[1])
    with pytest.raises(RuntimeError, match="edits an input in place"):
        compiled(x)
    np.testing.assert_array_equal(x.numpy(), X)


@pytest.mark.parametrize("view", [lambda t: t, lambda t: t.reshape(-1), lambda t: t[1:]], ids=["itself", "all", "part"])
def test_edits_of_other_tensors_are_done_by_each_replay(view):
    state = Tensor(np.zeros((5, 3, 6, 5), dtype=np.float32))

    def function(x):
        part = view(state)
        part.copy_(part + 1.0)
        return x + state

    compiled = minicnn.compile(function)
    for count in (1, 2, 3):
        expected = view(Tensor(np.zeros_like(X)))
        assert compiled(X).shape == X.shape and state.numpy().max() == count
        assert (state.numpy() == count).sum() == expected.numel()


def test_an_edit_by_a_replay_is_counted():
    """A tape from before that needs what was there is an error, as after an eager edit."""
    model = nn.Linear(4, 2)
    optimizer = optim.SGD(model.parameters(), 0.1)

    def step(x):
        optimizer.zero_grad()
        loss = (model(x) ** 2).sum()
        loss.backward()
        optimizer.step()
        return loss

    compiled = minicnn.compile(step)
    x = np.ones((3, 4), dtype=np.float32)
    for _ in range(2):  # the record, and a replay
        before = model(Tensor(x, requires_grad=True)).sum()
        compiled(x)
        with pytest.raises(RuntimeError, match="edited in place"):
            before.backward()


# What is called as it is


@pytest.mark.parametrize("shape", [(0, 3, 6, 5), (0, 3, 8, 8)])
def test_an_empty_batch_is_answered_as_in_eager_mode(shape):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten())
    predict = minicnn.compile(model)
    x = np.zeros(shape, dtype=np.float32)
    assert predict(x).shape == model(Tensor(x)).shape and not predict.plans
    predict(X)
    assert predict(x).shape == model(Tensor(x)).shape


def test_inputs_that_want_a_gradient_get_it():
    model = nn.Linear(4, 2)
    head = minicnn.compile(lambda h: (model(h) ** 2).sum())
    x = Tensor(np.ones((3, 4), dtype=np.float32), requires_grad=True)
    head(x * 2.0).backward()
    expected = Tensor(np.ones((3, 4), dtype=np.float32), requires_grad=True)
    (model(expected * 2.0) ** 2).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), expected.grad.numpy())


def test_whether_there_is_a_tape_is_part_of_the_plan():
    model = nn.Linear(4, 2)
    function = minicnn.compile(lambda x: model(x))
    x = np.ones((3, 4), dtype=np.float32)
    assert function(x).requires_grad
    with minicnn.no_grad():
        assert not function(x).requires_grad
    with pytest.raises(RuntimeError, match="whose tape is not kept"):
        function(x).sum().backward()
