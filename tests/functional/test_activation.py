"""Activations against PyTorch, finite differences and their formulas."""

import math
from functools import partial

import numpy as np
import pytest

import minicnn.functional as F
from minicnn import Tensor, gradcheck

CASES = {  # name: function, options
    "relu": ("relu", {}),
    "leaky_relu": ("leaky_relu", {}),
    "leaky_relu 0.3": ("leaky_relu", {"negative_slope": 0.3}),
    "elu": ("elu", {}),
    "elu 1.7": ("elu", {"alpha": 1.7}),
    "gelu": ("gelu", {}),
    "gelu tanh": ("gelu", {"approximate": "tanh"}),
    "sigmoid": ("sigmoid", {}),
    "tanh": ("tanh", {}),
    "softmax": ("softmax", {"dim": 1}),
    "softmax first": ("softmax", {"dim": 0}),
    "softmax last": ("softmax", {"dim": -1}),
    "log_softmax": ("log_softmax", {"dim": 1}),
    "log_softmax last": ("log_softmax", {"dim": -1}),
}
SPREAD = np.concatenate([np.linspace(-12, 12, 95), [0.0]]).reshape(4, 3, 8)
SMOOTH = np.random.default_rng(0).permutation(np.linspace(-4, 4, 60)).reshape(3, 4, 5)  # no element at the kink


@pytest.mark.parametrize("name", CASES)
def test_activation_agrees_with_torch(name, dtype, backend_name, like_torch, torch):
    function, options = CASES[name]
    ours, theirs = getattr(F, function), getattr(torch.nn.functional, function)
    like_torch(partial(ours, **options), partial(theirs, **options), SPREAD, dtype=dtype)


@pytest.mark.parametrize("name", CASES)
def test_activation_passes_gradcheck(name, backend_name):
    function, options = CASES[name]
    for array in (SMOOTH, SMOOTH[:1, :, :1]):
        x = Tensor(array, requires_grad=True)
        assert gradcheck(lambda x: getattr(F, function)(x, **options), [x]) < 1e-6


def test_values_from_formulas(backend_name):
    x = Tensor(np.array([-1.0, 0.0, 2.0]))
    expected = {
        "relu": [0, 0, 2],
        "leaky_relu": [-0.01, 0, 2],
        "elu": [1 / math.e - 1, 0, 2],
        "gelu": [-0.5 * math.erfc(1 / math.sqrt(2)), 0, 2 - math.erfc(math.sqrt(2))],
        "sigmoid": [1 / (1 + math.e), 0.5, 1 / (1 + math.exp(-2))],
        "tanh": [math.tanh(-1), 0, math.tanh(2)],
    }
    for name, values in expected.items():
        np.testing.assert_allclose(getattr(F, name)(x).numpy(), values, rtol=1e-14)
    weights = np.exp([-1.0, 0.0, 2.0])
    np.testing.assert_allclose(F.softmax(x, 0).numpy(), weights / weights.sum(), rtol=1e-14)
    np.testing.assert_allclose(F.log_softmax(x, 0).numpy(), [-1, 0, 2] - np.log(weights.sum()), rtol=1e-14)


@pytest.mark.parametrize("name", CASES)
def test_large_inputs_stay_finite(name, dtype, backend_name):
    function, options = CASES[name]
    x = Tensor(np.array([[[-1e4, 1e4], [0, 1e4]], [[1e4, -1e4], [1e4, 1e4]]], dtype=dtype), requires_grad=True)
    y = getattr(F, function)(x, **options)
    y.backward(Tensor(np.ones(y.shape, dtype)))
    assert np.isfinite(y.numpy()).all() and np.isfinite(x.grad.numpy()).all()


@pytest.mark.parametrize("name", CASES)
def test_nan_stays_nan(name, backend_name):
    function, options = CASES[name]
    x = np.ones((2, 2, 2))
    x[0, 1, 1] = np.nan
    assert np.isnan(getattr(F, function)(Tensor(x), **options).numpy()[0, 1, 1])


def test_numpy_options_do_not_promote(dtype, backend_name):
    x = Tensor(np.ones((2, 3), dtype), requires_grad=True)
    half = np.float64(0.5)
    for y in (F.leaky_relu(x, half), F.elu(x, half), F.layer_norm(x, 3, eps=half), F.dropout(x, half)):
        assert y.dtype == dtype
        y.sum().backward()
    assert F.batch_norm(x, None, None, training=True, eps=half).dtype == dtype
    assert x.grad.dtype == dtype


X = Tensor(np.zeros((2, 3)))
ERRORS = {
    "integers": (
        lambda: F.relu(Tensor([1, 2])),
        TypeError,
        "relu: expected input as float32 or float64, received int64",
    ),
    "array": (lambda: F.tanh(np.zeros(2)), TypeError, "tanh: expected input as a Tensor, received ndarray"),
    "gelu": (lambda: F.gelu(X, "erf"), ValueError, "gelu: expected approximate 'none' or 'tanh', received 'erf'"),
    "axis": (
        lambda: F.softmax(X, 2),
        ValueError,
        r"softmax: expected dim as a non-empty axis of shape \(2, 3\), received 2",
    ),
    "empty": (lambda: F.log_softmax(X[:, 3:], 1), ValueError, r"log_softmax: .* shape \(2, 0\), received 1"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name):
    action, error, message = ERRORS[name]
    with pytest.raises(error, match=message):
        action()


MASKED = np.array([[1.0, -np.inf, 2.0], [-np.inf, 0.5, -np.inf], [0.0, 1.0, 2.0]])


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
@pytest.mark.parametrize("dim", [0, 1])
def test_masked_logits_agree_with_torch(name, dim, dtype, backend_name, like_torch, torch):
    ours, theirs = getattr(F, name), getattr(torch.nn.functional, name)
    for logits in (MASKED, np.tile(MASKED, (5, 9))):
        like_torch(lambda x: ours(x, dim), lambda x: theirs(x, dim), logits, dtype=dtype)


RECTIFIERS = {
    "relu": (F.relu, "relu", {}),
    "leaky_relu": (F.leaky_relu, "leaky_relu", {"negative_slope": 0.1}),
    "elu": (F.elu, "elu", {"alpha": 1.5}),
}


@pytest.mark.parametrize("name", RECTIFIERS)
def test_infinities_agree_with_torch(name, dtype, backend_name, torch):
    """Of the input and of the gradient: an infinite gradient does not show where the unit is off."""
    ours, spelled, options = RECTIFIERS[name]
    values = np.array([-np.inf, -1e30, -2.0, -0.0, 0.0, 1e-30, 3.0, np.inf], dtype)
    for gradient in (np.inf, -np.inf, 1.0, 1e30):
        if name == "elu" and np.isinf(gradient):  # infinity times e^-infinity
            values = values[2:]
        x, twin = Tensor(values, requires_grad=True), torch.tensor(values, requires_grad=True)
        y, expected = ours(x, **options), getattr(torch.nn.functional, spelled)(twin, **options)
        y.backward(Tensor(np.full(y.shape, gradient, dtype)))
        expected.backward(torch.full(expected.shape, gradient, dtype=expected.dtype))
        np.testing.assert_allclose(y.numpy(), expected.detach().numpy(), rtol=1e-6)
        np.testing.assert_allclose(x.grad.numpy(), twin.grad.numpy(), rtol=1e-6)
