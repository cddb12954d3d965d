"""What is assigned to a tensor and no longer fits is refused before a kernel reads it."""

import numpy as np
import pytest

import minicnn
from minicnn import Tensor, nn, optim

OPTIMIZERS = {
    "sgd": lambda p: optim.SGD(p, lr=0.1),
    "momentum": lambda p: optim.SGD(p, lr=0.1, momentum=0.9),
    "adam": lambda p: optim.Adam(p),
    "adamw": lambda p: optim.AdamW(p),
}


@pytest.mark.parametrize("shape", [(), (1,), (2, 2), (3, 4), (4, 3, 1), (1000, 1000)], ids=str)
def test_a_gradient_has_the_shape_of_its_tensor(shape):
    weight = nn.Linear(3, 4).weight
    with pytest.raises(ValueError, match=r"grad: expected shape \(4, 3\), received"):
        weight.grad = Tensor(np.zeros(shape, dtype=np.float32))
    assert weight.grad is None


@pytest.mark.parametrize("wrong", [np.zeros((4, 3)), np.zeros((4, 3), np.float32), 0.0, [[0.0] * 3] * 4], ids=type)
def test_a_gradient_is_a_tensor_of_one_dtype(wrong):
    weight = nn.Linear(3, 4).weight
    with pytest.raises(TypeError, match="grad: expected "):
        weight.grad = Tensor(wrong) if isinstance(wrong, np.ndarray) and wrong.dtype == np.float64 else wrong


@pytest.mark.parametrize("wrong", [None, 1.0, [1.0], "x", np.zeros(3, dtype="f2"), np.zeros(3, dtype=">f4")], ids=str)
def test_data_is_an_array_of_numbers(wrong):
    with pytest.raises(TypeError, match="data: expected "):
        nn.Linear(3, 4).weight.data = wrong


def test_data_of_another_tensor_is_its_array():
    weight, other = nn.Linear(3, 4).weight, nn.Linear(3, 4).weight
    weight.data = other
    assert weight.data is other.data


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("change", ["larger", "smaller", "float64"])
def test_an_optimizer_refuses_parameters_that_became_others(name, change, compiled):
    layer = nn.Linear(3, 4)
    optimizer = OPTIMIZERS[name](layer.parameters())
    x = Tensor(np.ones((2, 3), dtype=np.float32))

    def step(x):
        optimizer.zero_grad()
        loss = layer(x).sum()
        loss.backward()
        optimizer.step()
        return loss

    take = minicnn.compile(step) if compiled else step
    take(x)
    if change == "float64":
        layer.astype(np.float64)
        x = Tensor(np.ones((2, 3)))
    else:
        rows = 400 if change == "larger" else 2
        layer.weight.data = np.ones((rows, 3), dtype=np.float32)
        layer.bias.data = np.ones(rows, dtype=np.float32)
    if optimizer.state_dict().keys() & {"velocity.0", "mean.0"}:
        with pytest.raises((ValueError, TypeError), match="of parameter 0, made before its data: expected"):
            take(x)
    else:
        assert np.isfinite(take(x).item())


def test_a_gradient_from_before_the_data_was_replaced_is_refused():
    layer = nn.Linear(3, 4)
    optimizer = optim.SGD(layer.parameters(), lr=0.1)
    layer(Tensor(np.ones((2, 3), dtype=np.float32))).sum().backward()
    layer.weight.data = np.ones((800, 800), dtype=np.float32)
    with pytest.raises(ValueError, match="SGD: the gradient of parameter 0: expected shape"):
        optimizer.step()
