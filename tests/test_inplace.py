"""Arithmetic in place: values, the tape and its versions as PyTorch has them, and hand-written SGD."""

import operator

import numpy as np
import pytest

import minicnn
import minicnn.functional as F
from minicnn import Tensor, nn
from minicnn.autograd import no_grad

OPERATORS = [operator.iadd, operator.isub, operator.imul, operator.itruediv, operator.ipow]
TENSORS = OPERATORS[:4]  # those that take a tensor on the right


def pair(torch, array, requires_grad=False):
    return Tensor(array.copy(), requires_grad), torch.tensor(array, requires_grad=requires_grad)


@pytest.mark.parametrize("edit", OPERATORS)
def test_the_memory_is_edited_and_every_view_shows_it(edit, dtype, rng, backend_name, torch, close):
    array = rng.random((2, 3)).astype(dtype) + 1
    x, twin = pair(torch, array)
    memory, before, view = x.data, x, x.reshape(3, 2)
    x, twin = edit(x, 2.5), edit(twin, 2.5)
    assert x is before and x.data is memory and x.dtype == dtype
    close(view.numpy(), twin.numpy().reshape(3, 2), 1e-6)


@pytest.mark.parametrize("edit", TENSORS)
def test_a_tensor_that_broadcasts(edit, rng, backend_name, torch, close):
    x, twin = pair(torch, rng.random((4, 3)))
    row, other = pair(torch, rng.random((1, 3)) + 1)
    x, twin = edit(x, row), edit(twin, other)
    close(x.numpy(), twin.numpy(), 1e-12)
    x += x.T @ x if x.shape[0] == x.shape[1] else x  # its own elements
    close(x.numpy(), 2 * twin.numpy(), 1e-12)


@pytest.mark.parametrize("edit", TENSORS)
@pytest.mark.parametrize("constant", [False, True])
def test_the_tape_goes_on_through_an_edit(edit, constant, rng, backend_name, torch, close):
    """What was made of the tensor before keeps its values, and so does what made it."""
    (a, a2), (b, b2) = (pair(torch, rng.random((3, 4)) + 1, True) for _ in range(2))
    x, x2 = (Tensor(np.ones((3, 4))), torch.ones(3, 4, dtype=torch.float64)) if constant else (a * 3.0, a2 * 3.0)
    same = x
    x, x2 = edit(x, b), edit(x2, b2)
    x, x2 = edit(x, a), edit(x2, a2)
    assert same is x and not x.is_leaf and x.requires_grad
    close(x.numpy(), x2.detach().numpy(), 1e-12)
    (x * x).sum().backward()
    (x2 * x2).sum().backward()
    close(a.grad.numpy(), a2.grad.numpy(), 1e-11)
    close(b.grad.numpy(), b2.grad.numpy(), 1e-11)


def test_a_residual_sum_in_place(rng, torch, close):
    x, twin = pair(torch, rng.standard_normal((2, 3, 4, 4)).astype(np.float32), True)
    norm, other = nn.BatchNorm2d(3), torch.nn.BatchNorm2d(3)
    y, y2 = norm(x), other(twin)
    y += x
    y2 += twin
    F.relu(y).sum().backward()
    torch.relu(y2).sum().backward()
    close(x.grad.numpy(), twin.grad.numpy(), 1e-4)


@pytest.mark.parametrize("edit", OPERATORS)
def test_a_leaf_is_edited_without_a_tape_only(edit):
    w = nn.Parameter(np.ones(3))
    with pytest.raises(RuntimeError, match="=: a leaf that requires a gradient is edited under no_grad"):
        edit(w, 2.0)
    assert w.tolist() == [1, 1, 1] and w.is_leaf
    with no_grad():
        edited = edit(w, 2.0)
    assert edited is w and w.requires_grad and w.is_leaf


@pytest.mark.parametrize("edit", OPERATORS)
def test_an_edit_of_what_a_tape_needs_is_noticed(edit):
    w = nn.Parameter(np.full(3, 2.0))
    loss = (w * w).sum()
    with no_grad():
        edit(w, 3.0)
    with pytest.raises(RuntimeError, match="edited in place"):
        loss.backward()


@pytest.mark.parametrize("view", [lambda x: x.reshape(-1), lambda x: x.T, lambda x: x[0], lambda x: x.detach()])
@pytest.mark.parametrize("of", ["the tensor", "the view"])
def test_a_view_that_would_not_follow_is_an_error(view, of):
    x = Tensor(np.ones((2, 2)), requires_grad=True) * 2.0
    seen = view(x)
    edited = x if of == "the tensor" or not seen.requires_grad else seen
    with pytest.raises(RuntimeError, match=r"\+=: the tape cannot follow .* write x = x \+ y"):
        edited += 1.0


ERRORS = {
    "shape": (lambda: operator.iadd(Tensor([1.0]), Tensor([1.0, 2.0])), ValueError, r"\+=: .* \(1,\), received \(2,\)"),
    "integers": (lambda: operator.itruediv(Tensor([1, 2]), 2), TypeError, "/=: expected a result of int64, received"),
    "fraction": (lambda: operator.iadd(Tensor([1, 2]), 0.5), TypeError, r"\+=: expected a result of int64, received"),
    "text": (lambda: operator.imul(Tensor([1.0]), "2"), TypeError, "multiply: expected a Tensor or a number"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name):
    action, error, message = ERRORS[name]
    with pytest.raises(error, match=message):
        action()


def sgd_by_hand(model, compiled):
    def step(x, y):
        for p in model.parameters():
            p.grad = None
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        with no_grad():
            for p in model.parameters():
                p -= 0.1 * p.grad
        return loss

    return minicnn.compile(step) if compiled else step


@pytest.mark.parametrize("compiled", [False, True])
def test_sgd_by_hand_trains_as_in_torch(compiled, rng, torch, close):
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 9, 3))
    conv, linear = torch.nn.Conv2d(2, 4, 3), torch.nn.Linear(4 * 9, 3)
    twin = torch.nn.Sequential(conv, torch.nn.ReLU(), torch.nn.Flatten(), linear)
    twin.load_state_dict({name: torch.tensor(t.numpy()) for name, t in model.state_dict().items()})
    x, y = rng.standard_normal((13, 2, 5, 5)).astype(np.float32), rng.integers(0, 3, 13)
    parameters, step = list(model.parameters()), sgd_by_hand(model, compiled)
    for _ in range(5):
        loss = step(Tensor(x), Tensor(y))
        twin.zero_grad()
        expected = torch.nn.functional.cross_entropy(twin(torch.tensor(x)), torch.tensor(y))
        expected.backward()
        with torch.no_grad():
            for p in twin.parameters():
                p -= 0.1 * p.grad
        assert loss.item() == pytest.approx(expected.item(), rel=1e-4)
    for mine, again, other in zip(parameters, model.parameters(), twin.parameters(), strict=True):
        assert mine is again
        close(mine.numpy(), other.detach().numpy(), 1e-4)


@pytest.mark.parametrize("edit", TENSORS)
def test_an_edit_inside_a_compiled_function(edit, rng):
    """Of what was made there, of its views, and of a buffer, at every replay."""
    total = Tensor(np.ones((1, 4), np.float32))
    weight = Tensor(rng.random((4, 4)).astype(np.float32) + 1)

    def function(x):
        y = F.relu(F.linear(x, weight))
        seen = y.reshape(-1)
        y = edit(y, x + 2.0)
        edit(total, y.amax(0, keepdim=True) + 1.0)
        return y + total, seen

    x = rng.random((9, 4)).astype(np.float32)
    compiled = minicnn.compile(function)
    found = [[t.numpy() for t in compiled(Tensor(x))] for _ in range(3)]
    total.copy_(1.0)
    for results in found:
        for result, expected in zip(results, function(Tensor(x)), strict=True):
            np.testing.assert_allclose(result, expected.numpy(), rtol=1e-5)


def test_a_replay_counts_its_edits():
    """A tape that was made before it is out of date after it."""
    model = nn.Linear(3, 2)
    step = sgd_by_hand(model, compiled=True)
    x, y = Tensor(np.ones((4, 3), np.float32)), Tensor(np.array([0, 1, 0, 1]))
    step(x, y)
    loss = F.cross_entropy(model(Tensor(x.data, requires_grad=True)), y)
    step(x, y)
    with pytest.raises(RuntimeError, match="edited in place"):
        loss.backward()


def test_losses_that_are_added_up_inside_a_compiled_function(rng):
    w = nn.Parameter(rng.standard_normal((3, 4)).astype(np.float32))

    def function(x):
        total = Tensor(np.zeros((), np.float32))
        for factor in (1.0, 2.0):
            total += (F.linear(x, w) * factor).mean()
        w.grad = None
        total.backward()
        return total, w.grad

    x = Tensor(rng.standard_normal((5, 4)).astype(np.float32))
    compiled = minicnn.compile(function)
    expected = [t.numpy() for t in function(x)]
    for _ in range(2):
        for found, other in zip(compiled(x), expected, strict=True):
            np.testing.assert_allclose(found.numpy(), other, rtol=1e-5)


def test_a_tensor_from_outside_cannot_become_a_result_inside():
    w, total = nn.Parameter(np.ones((3, 4), np.float32)), Tensor(np.zeros((), np.float32))

    def function(x):
        nonlocal total
        total += F.linear(x, w).sum()
        return total

    with pytest.raises(RuntimeError, match="compile: another array for a tensor"):
        minicnn.compile(function)(Tensor(np.ones((2, 4), np.float32)))
    assert total.item() == 0 and total.is_leaf


def test_an_edit_of_what_a_tape_needs_is_noticed_inside_a_compiled_function():
    w = nn.Parameter(np.ones((3, 4), np.float32))

    def function(x):
        loss = (F.linear(x, w) ** 2).mean()
        with no_grad():
            operator.imul(w, 2.0)
        loss.backward()
        return loss

    with pytest.raises(RuntimeError, match="edited in place"):
        minicnn.compile(function)(Tensor(np.ones((2, 4), np.float32)))
    assert w.tolist() == [[1] * 4] * 3
