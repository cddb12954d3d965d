"""The fully connected layer and flatten."""

import numpy as np
import pytest

import minicnn.functional as F
from minicnn import Tensor, gradcheck


def data(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


SHAPES = {"batch": (5, 3), "one": (1, 3), "vector": (3,), "sequence": (2, 4, 3), "none": (0, 3), "large": (700, 3)}


@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("name", SHAPES)
def test_linear_agrees_with_torch(name, with_bias, dtype, backend_name, like_torch, torch):
    arrays = [data(*SHAPES[name]), data(4, 3, seed=1), data(4, seed=2)][: 2 + with_bias]
    like_torch(F.linear, torch.nn.functional.linear, *arrays, dtype=dtype)


@pytest.mark.parametrize("name", [name for name in SHAPES if name != "none"])
def test_linear_passes_gradcheck(name, backend_name):
    inputs = [Tensor(a, requires_grad=True) for a in (data(*SHAPES[name]), data(4, 3, seed=1), data(4, seed=2))]
    assert gradcheck(F.linear, inputs) < 1e-6


def test_linear_by_hand(backend_name):
    x, w, b = Tensor([[1.0, 2.0]]), Tensor([[3.0, 4.0], [5.0, 6.0], [7.0, 8.0]]), Tensor([0.5, 0.0, -1.0])
    assert F.linear(x, w, b).tolist() == [[11.5, 17.0, 22.0]]


def test_flatten_keeps_an_empty_batch():
    assert F.flatten(Tensor(np.zeros((0, 16, 5, 5))), 1).shape == (0, 400)
    assert F.flatten(Tensor(np.zeros((2, 3, 4)))).shape == (24,)
    assert F.flatten(Tensor(np.zeros((2, 3, 4))), 0, 1).shape == (6, 4)


X, W = Tensor(data(5, 3)), Tensor(data(4, 3))
ERRORS = {
    "inputs": ((X[:, :2], W), ValueError, r"expected an input \(..., 3\), received shape \(5, 2\)"),
    "number": ((X[0, 0], W), ValueError, r"expected an input \(..., 3\), received shape \(\)"),
    "weight": ((X, W[0]), ValueError, r"expected a weight \(outputs, inputs\), received shape \(3,\)"),
    "bias": ((X, W, X[0]), ValueError, r"expected bias of shape \(4,\), received \(3,\)"),
    "dtype": ((X.astype(np.float32), W), TypeError, "expected weight as float32 .* received float64"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors_come_before_any_kernel(name, backend_name, kernel_calls):
    arguments, error, message = ERRORS[name]
    with pytest.raises(error, match=f"linear: .*{message}"):
        F.linear(*arguments)
    assert not kernel_calls
