"""Batch norm, layer norm and dropout."""

import numpy as np
import pytest

import minicnn
import minicnn.functional as F
from minicnn import Tensor, gradcheck


def data(*shape, seed=0):
    return 1.5 * np.random.default_rng(seed).standard_normal(shape) + 0.5


def running(channels, dtype="float64"):
    return data(channels, seed=5).astype(dtype), (data(channels, seed=6) ** 2 + 0.1).astype(dtype)


BATCH = {"matrix": (5, 3), "sequence": (4, 3, 7), "images": (3, 2, 5, 4), "one image": (1, 3, 2, 5)}


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", BATCH)
def test_batch_norm_agrees_with_torch(name, training, affine, dtype, backend_name, like_torch, torch, close):
    shape = BATCH[name]
    channels = shape[1]
    arrays = [data(*shape), data(channels, seed=1), data(channels, seed=2)][: 1 + 2 * affine]
    ours = [Tensor(a) for a in running(channels, dtype)]
    theirs = [torch.tensor(a) for a in running(channels, dtype)]
    options = {"training": training, "momentum": 0.3, "eps": 1e-3}
    like_torch(
        lambda x, *wb: F.batch_norm(x, *ours, *wb, **options),
        lambda x, *wb: torch.nn.functional.batch_norm(x, *theirs, *wb, **options),
        *arrays,
        dtype=dtype,
    )
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.dtype == dtype
        close(mine.numpy(), other.numpy(), 1e-5 if dtype == "float32" else 1e-12)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", BATCH)
def test_batch_norm_passes_gradcheck(name, training, backend_name):
    shape = BATCH[name]
    inputs = [Tensor(a, requires_grad=True) for a in (data(*shape), data(shape[1], seed=1), data(shape[1], seed=2))]

    def function(x, w, b):
        return F.batch_norm(x, *map(Tensor, running(shape[1])), w, b, training=training)

    assert gradcheck(function, inputs) < 1e-6
    assert gradcheck(lambda x: function(x, None, None), inputs[:1]) < 1e-6
    assert gradcheck(lambda x, w: function(x, w, None), inputs[:2]) < 1e-6


def test_batch_norm_by_hand(backend_name):
    """Channel (1, 3, 5): mean 3, biased variance 8/3, unbiased 4."""
    mean, var = Tensor(np.array([1.0])), Tensor(np.array([2.0]))
    y = F.batch_norm(Tensor(np.array([[1.0], [3.0], [5.0]])), mean, var, training=True, momentum=0.25, eps=0.0)
    np.testing.assert_allclose(y.numpy().ravel(), np.array([-2, 0, 2]) / np.sqrt(8 / 3), rtol=1e-14)
    assert mean.item() == pytest.approx(1.5) and var.item() == pytest.approx(2.5)


def test_the_mean_of_large_values_is_exact_enough(backend_name):
    x = np.random.default_rng(0).standard_normal((64, 2, 9, 9)) + 1000
    y = F.batch_norm(Tensor(x.astype(np.float32)), None, None, training=True).numpy()
    centred = x - x.mean((0, 2, 3), keepdims=True)
    np.testing.assert_allclose(y, centred / np.sqrt((centred**2).mean((0, 2, 3), keepdims=True)), atol=2e-3)


def test_statistics_may_move_between_forward_and_backward(backend_name):
    """Two passes through one layer before backward, as siamese networks have them."""
    x, w = Tensor(data(4, 3), requires_grad=True), Tensor(data(3, seed=1), requires_grad=True)
    mean, var = map(Tensor, running(3))
    y = F.batch_norm(x, mean, var, w)
    F.batch_norm(x, mean, var, training=True)
    y.sum().backward()
    old_mean, old_var = running(3)
    np.testing.assert_allclose(w.grad.numpy(), ((x.numpy() - old_mean) / np.sqrt(old_var + 1e-5)).sum(0), rtol=1e-12)


LAYER = {"last": ((4, 5), (5,)), "int": ((2, 3, 5), 5), "two axes": ((2, 3, 5), (3, 5)), "all": ((3, 4), (3, 4))}


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("name", LAYER)
def test_layer_norm_agrees_with_torch(name, affine, dtype, backend_name, like_torch, torch):
    shape, normalized = LAYER[name]
    inner = (normalized,) if isinstance(normalized, int) else normalized
    arrays = [data(*shape), data(*inner, seed=1), data(*inner, seed=2)][: 1 + 2 * affine]
    like_torch(
        lambda x, *wb: F.layer_norm(x, normalized, *wb, eps=1e-3),
        lambda x, *wb: torch.nn.functional.layer_norm(x, inner, *wb, eps=1e-3),
        *arrays,
        dtype=dtype,
    )
    inputs = [Tensor(a, requires_grad=True) for a in arrays]
    assert gradcheck(lambda x, *wb: F.layer_norm(x, normalized, *wb), inputs) < 1e-6


# Dropout


def test_dropout_keeps_the_expected_value(dtype, backend_name):
    x = Tensor(np.ones((200, 500), dtype))
    for p in (0.1, 0.5, 0.9):
        y = F.dropout(x, p).numpy()
        kept = y[y != 0]
        np.testing.assert_allclose(kept, 1 / (1 - p), rtol=1e-6)
        assert len(kept) / y.size == pytest.approx(1 - p, abs=5 * np.sqrt(p * (1 - p) / y.size))


def test_dropout_has_the_same_mask_backward(backend_name):
    x = Tensor(data(5, 7), requires_grad=True)
    y = F.dropout(x, 0.4)
    y.backward(Tensor(np.ones(y.shape)))
    np.testing.assert_allclose(x.grad.numpy(), y.numpy() / x.numpy(), rtol=1e-12)

    def function(x):
        minicnn.manual_seed(3)
        return F.dropout(x, 0.4)

    assert gradcheck(function, [x]) < 1e-6


def test_dropout_at_its_limits(backend_name):
    x = Tensor(data(5, 7), requires_grad=True)
    assert F.dropout(x, 0.5, training=False) is x and F.dropout(x, 0.0) is x
    y = F.dropout(x, 1.0)
    y.sum().backward()
    assert not y.numpy().any() and not x.grad.numpy().any()


X, C = Tensor(data(4, 3, 2)), Tensor(data(3))
ERRORS = {
    "one value": (
        lambda: F.batch_norm(X[:1, :, :1], C, C, training=True),
        ValueError,
        r"batch_norm: expected more than one value a channel in training, received shape \(1, 3, 1\)",
    ),
    "no statistics": (lambda: F.batch_norm(X, None, None), ValueError, "batch_norm: expected running statistics"),
    "vector": (lambda: F.batch_norm(C, C, C), ValueError, r"batch_norm: expected an input .* shape \(3,\)"),
    "no channels": (
        lambda: F.batch_norm(X[:, :0], C, C),
        ValueError,
        r"batch_norm: .* with channels, .* \(\d+, 0, 2\)",
    ),
    "no images": (lambda: F.batch_norm(X[:0], C, C, training=True), ValueError, r"more than one value .* \(0, 3, 2\)"),
    "channels": (lambda: F.batch_norm(X, C, C[:2]), ValueError, r"running_var of shape \(3,\), received \(2,\)"),
    "weight": (lambda: F.batch_norm(X, C, C, C[:1]), ValueError, r"weight of shape \(3,\), received \(1,\)"),
    "dtype": (lambda: F.batch_norm(X, C, C, C.astype(np.float32)), TypeError, "weight as float64 .* received float32"),
    "layer": (
        lambda: F.layer_norm(X, 3),
        ValueError,
        r"layer_norm: expected an input that ends in \(3,\), .* \(4, 3, 2\)",
    ),
    "layer weight": (
        lambda: F.layer_norm(X, 2, C),
        ValueError,
        r"layer_norm: expected weight of shape \(2,\), .* \(3,\)",
    ),
    "p": (lambda: F.dropout(X, 1.5), ValueError, r"dropout: expected p in \[0, 1\], received 1.5"),
    "p nan": (lambda: F.dropout(X, float("nan")), ValueError, "dropout: .* received nan"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors_come_before_any_kernel(name, kernel_calls):
    action, error, message = ERRORS[name]
    with pytest.raises(error, match=message):
        action()
    assert not set(kernel_calls) - {"getitem", "convert"}  # which made the arguments
