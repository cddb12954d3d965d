"""What a tensor's version says of its memory, and compiled predictions that rely on it."""

import copy
import pickle

import numpy as np
import pytest

import minicnn
import minicnn.functional as F
from minicnn import Tensor, backend, nn, optim
from minicnn.models import LeNet


def is_settled(tensor):
    """Whether two looks at a version agree."""
    return tensor._version.stamp() == tensor._version.stamp()


def test_what_minicnn_made_is_settled():
    for tensor in (
        nn.Linear(2, 3).weight,
        minicnn.tensor([1.0]),
        Tensor([1.0]) + 1,
        nn.Parameter(minicnn.tensor([1.0])),
    ):
        assert is_settled(tensor) and is_settled(tensor.detach()) and is_settled(tensor.reshape(-1))


def test_an_array_that_was_given_is_not():
    array = np.ones((2, 3), np.float32)
    for tensor in (Tensor(array), nn.Parameter(array), Tensor(Tensor(array)), Tensor(array)[0]):
        assert not is_settled(tensor)
    assert Tensor(array).data is array
    weight = nn.Linear(3, 2).weight
    weight.data = array
    assert not is_settled(weight)


@pytest.mark.parametrize("take", [lambda t: t.data, lambda t: t.numpy(), lambda t: np.asarray(t), lambda t: t[0].data])
def test_an_array_that_was_taken_is_watched_until_it_is_gone(take):
    tensor = minicnn.tensor([[1.0, 2.0]])
    before = tensor._version.stamp()
    array = take(tensor)
    part = array[..., 1:]  # a view keeps it alive
    assert np.shares_memory(part, tensor._data) and not is_settled(tensor)
    del array
    assert not is_settled(tensor)
    del part
    assert is_settled(tensor) and tensor._version.stamp() != before


def test_reading_takes_nothing():
    tensor = minicnn.tensor([1.0])
    before = tensor._version.stamp()
    assert tensor.tolist() == [1.0] and repr(tensor) and tensor.item() == 1 and len(tensor) == 1
    assert tensor._version.stamp() == before


def test_one_array_is_lent_while_it_is_held():
    tensor = minicnn.tensor([1.0])
    array = tensor.data
    assert tensor.data is array and tensor.numpy() is array


@pytest.mark.parametrize("twin", [copy.deepcopy, lambda t: pickle.loads(pickle.dumps(t))])
def test_a_copy_is_settled_while_the_array_is_out(twin):
    tensor = minicnn.tensor([1.0])
    held = tensor.data
    other = twin(tensor)
    assert is_settled(other) and not is_settled(tensor) and not np.shares_memory(other.data, held)


def steps_of_sgd(model, x):
    optimizer = optim.SGD(model.parameters(), 0.1)
    F.cross_entropy(model(Tensor(x)), Tensor(np.zeros(len(x), np.int64))).backward()
    optimizer.step()


def compiled_step(model, x):
    optimizer = optim.SGD(model.parameters(), 0.1)

    def step(x, y):
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
        return x.sum()

    minicnn.compile(step)(x, np.zeros(len(x), np.int64))


def in_place(model, x):
    with minicnn.no_grad():
        for p in model.parameters():
            p *= 1.1


def by_data(model, x):
    for p in model.parameters():
        p.data *= 1.1


def by_items(model, x):
    with minicnn.no_grad():
        for p in model.parameters():
            p[0] = p[0] * 1.5 + 0.1


def by_state(model, x):
    model.load_state_dict({name: value.numpy() * 1.1 for name, value in model.state_dict().items()})


def by_a_view(model, x):
    with minicnn.no_grad():
        for p in model.parameters():
            first = p.reshape(-1)[:1]
            first.copy_(first * 1.5 + 1)


def by_statistics(model, x):
    model.train()
    model(Tensor(x))


EDITS = [steps_of_sgd, compiled_step, in_place, by_data, by_items, by_state, by_a_view]


class Normed(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.fc = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.Linear(6, 10)

    def forward(self, x):
        return self.fc(F.flatten(F.adaptive_avg_pool2d(F.relu(self.norm(self.conv(x))), 1), 1))


@pytest.mark.parametrize("count", [1, 3, 24])
@pytest.mark.parametrize("build", [LeNet, Normed])
@pytest.mark.parametrize("edit", [*EDITS, by_statistics])
def test_predictions_follow_every_edit(edit, build, count):
    model = build()
    predict = minicnn.compile(model)
    x = np.random.default_rng(0).standard_normal((count, 3, 32, 32)).astype(np.float32)
    for _ in range(2):
        before = predict(x).numpy().copy()
        edit(model, x)
        with nn.module.evaluating():
            expected = model(Tensor(x)).numpy()
        found = predict(x).numpy()
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())
        assert (build is LeNet and edit is by_statistics) or not np.allclose(found, before, rtol=1e-5)


def test_predictions_follow_an_array_that_is_held():
    model = LeNet()
    predict, x = minicnn.compile(model), np.ones((1, 3, 32, 32), np.float32)
    before = predict(x).numpy()
    weight = model.fc3.weight.numpy()
    bias = model.fc3.bias.data[:1]
    for i in range(3):
        weight += 0.1
        bias -= i
        np.testing.assert_allclose(predict(x).numpy(), model(Tensor(x)).numpy(), rtol=1e-4, atol=1e-5)
    assert not np.allclose(predict(x).numpy(), before)
    del weight, bias
    np.testing.assert_allclose(predict(x).numpy(), model(Tensor(x)).numpy(), rtol=1e-4, atol=1e-5)


def test_weights_are_packed_once_for_all_batch_sizes():
    model = Normed()
    predict = minicnn.compile(model)
    for count in (1, 2, 3):
        predict(np.zeros((count, 3, 8, 8), np.float32))
    first, *others = (plan.code.constants for plan in predict.plans.values())
    for other in others:
        assert set(map(id, first._members)) == set(map(id, other._members))
    made = [member._stamps for member in first._members]
    predict(np.zeros((1, 3, 8, 8), np.float32))
    assert all(before is member._stamps for before, member in zip(made, first._members, strict=True))
    in_place(model, None)
    predict(np.zeros((2, 3, 8, 8), np.float32))
    assert any(before is not member._stamps for before, member in zip(made, first._members, strict=True))


def test_constants_go_with_their_plans():
    predict = minicnn.compile(Normed())
    predict(np.zeros((1, 3, 8, 8), np.float32))
    assert len(predict._store._known)
    predict.plans.clear()
    predict._latest = None
    predict._memories.keep(set())
    import gc

    gc.collect()
    assert not len(predict._store._known)


@pytest.mark.parametrize("edit", [in_place, by_items, by_state, by_a_view, steps_of_sgd, by_statistics])
def test_a_prediction_during_an_edit_does_not_pass_for_one_after_it(edit, monkeypatch):
    """What another thread computes just before the memory is written; the same call, from inside of the edit."""
    model, x = Normed(), np.random.default_rng(0).standard_normal((3, 3, 8, 8)).astype(np.float32)
    predict = minicnn.compile(model)
    predict(x)
    editing = False

    def watched(kernel):
        def meanwhile(*arguments):
            nonlocal editing
            if not editing:
                editing = True
                predict(x)
                editing = False
            return kernel(*arguments)

        return meanwhile

    kernels = backend.get("numpy").kernels
    with monkeypatch.context() as patch:
        for name in ("copy_into", "lerp_into", "setitem", "sgd_step"):
            patch.setattr(kernels, name, staticmethod(watched(getattr(kernels, name))))
        edit(model, x)
    with nn.module.evaluating():
        expected = model(Tensor(x)).numpy()
    np.testing.assert_allclose(predict(x).numpy(), expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())
