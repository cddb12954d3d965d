"""Recording: what it refuses, and that it leaves nothing behind."""

import numpy as np
import pytest

import minicnn
import minicnn.functional as F
from minicnn import Tensor, backend, nn, optim, random, recording
from shared.runs import nodes_of

X = np.random.default_rng(0).standard_normal((5, 3, 6, 5)).astype(np.float32)
LABELS = np.array([0, 2, 1, 2, 0])


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.fc = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(48, 3)

    def forward(self, input):
        return self.fc(F.dropout(F.flatten(self.norm(self.conv(input)), 1), 0.5, self.training))


def returns_a_number(model, loss):
    return 1.0


def fails(model, loss):
    raise ZeroDivisionError("of the function itself")


CASES = {
    "item": (lambda model, loss: loss.item(), RuntimeError, "item"),
    "numpy": (lambda model, loss: loss.numpy(), RuntimeError, "numpy"),
    "tolist": (lambda model, loss: loss.tolist(), RuntimeError, "numpy"),
    "assignment": (lambda model, loss: loss.detach().__setitem__((), 0.0), RuntimeError, "item assignment"),
    "number": (returns_a_number, TypeError, "tensor"),
    "list of numbers": (lambda model, loss: [loss, 1], TypeError, "tensor"),
    "own error": (fails, ZeroDivisionError, "itself"),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("where", ["before the step", "after the step"])
def test_failed_record_changes_nothing(name, where):
    ending, error, message = CASES[name]
    model = Net()
    optimizer = optim.SGD(model.parameters(), 0.1, momentum=0.9)

    def step(x, y):
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        if where == "before the step":
            ending(model, loss)
        optimizer.step()
        return ending(model, loss)

    def state():
        arrays = {k: v.numpy() for k, v in model.state_dict().items()} | optimizer.state_dict()
        return {name: np.array(value) for name, value in arrays.items()}

    before, streams = state(), random.get_state()
    compiled = minicnn.compile(step)
    with pytest.raises(error, match=message):
        compiled(X, LABELS)
    for key, value in state().items():
        np.testing.assert_array_equal(value, before[key], err_msg=key)
    assert random.get_state() == streams and optimizer.steps == 0 and not compiled.plans
    assert recording.current.get() is None
    assert backend.of(X).kernels is backend.get("numpy").kernels
    assert Tensor(X).numpy() is not None and loss_is_readable(model)


def loss_is_readable(model):
    return np.isfinite(F.cross_entropy(model(Tensor(X)), LABELS).item())


def test_labels_out_of_range_at_the_first_call():
    model = Net()
    compiled = minicnn.compile(lambda x, y: F.cross_entropy(model(x), y))
    with pytest.raises(ValueError, match="expected labels from 0 to 2"):
        compiled(X, LABELS + 1)
    assert np.isfinite(compiled(X, LABELS).item())


@pytest.mark.parametrize("returned", [tuple, list])
def test_results_keep_their_number(returned):
    assert isinstance(minicnn.compile(lambda x: x + 1.0)(X), Tensor)
    results = minicnn.compile(lambda x: returned([x + 1.0, x]))(X)
    assert len(results) == 2
    np.testing.assert_array_equal(results[0].numpy(), X + 1)
    np.testing.assert_array_equal(results[1].numpy(), X)


def test_the_result_of_a_replay_has_no_tape():
    model = Net()
    result = minicnn.compile(lambda x: model(x).sum())(X)
    with pytest.raises(RuntimeError, match="tape"):
        result.backward()


@pytest.mark.parametrize("name", ["reference", "numpy"])
def test_each_backend_uses_its_own_kernels(name):
    model = Net().eval()
    with backend.use(name):
        compiled = minicnn.compile(lambda x: model(x))
        np.testing.assert_allclose(compiled(X).numpy(), model(Tensor(X)).numpy(), rtol=1e-4, atol=1e-5)
        (plan,) = compiled.plans.values()
        assert any(n.kind == "channel_products" for n in nodes_of(plan)) == (name == "numpy")
