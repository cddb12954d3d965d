"""Losses against PyTorch, finite differences and hand computation."""

import itertools
import math
from functools import partial

import numpy as np
import pytest

import minicnn.functional as F
from minicnn import Tensor, gradcheck

LOGITS = np.random.default_rng(0).standard_normal((7, 5))
LABELS = np.array([0, 4, 2, 2, 1, 0, 3])
WEIGHT = np.array([0.5, 2.0, 0.0, 1.0, 3.0])
OPTIONS = list(itertools.product(["mean", "sum", "none"], [0.0, 0.1, 1.0], [None, WEIGHT]))


@pytest.mark.parametrize("reduction, smoothing, weight", OPTIONS)
def test_cross_entropy_agrees_with_torch(reduction, smoothing, weight, dtype, backend_name, like_torch, torch):
    options = {"reduction": reduction, "label_smoothing": smoothing}
    factors = None if weight is None else weight.astype(dtype)
    ours = partial(F.cross_entropy, weight=None if weight is None else Tensor(factors), **options)
    theirs = partial(
        torch.nn.functional.cross_entropy, weight=None if weight is None else torch.tensor(factors), **options
    )
    for rows in (7, 1):
        labels = LABELS[:rows]
        like_torch(
            partial(ours, target=labels), partial(theirs, target=torch.tensor(labels)), LOGITS[:rows], dtype=dtype
        )  # fmt: skip


PROBABILITIES = np.random.default_rng(2).dirichlet(np.ones(5), 7)


@pytest.mark.parametrize("reduction, smoothing, weight", OPTIONS)
def test_cross_entropy_with_probabilities_agrees_with_torch(
    reduction, smoothing, weight, dtype, backend_name, like_torch, torch
):
    options = {"reduction": reduction, "label_smoothing": smoothing}
    target, factors = PROBABILITIES.astype(dtype), None if weight is None else weight.astype(dtype)

    def ours(x):
        return F.cross_entropy(x, target, None if weight is None else Tensor(factors), **options)

    def theirs(x):
        factor = None if weight is None else torch.tensor(factors)
        return torch.nn.functional.cross_entropy(x, torch.tensor(target), factor, **options)

    like_torch(ours, theirs, LOGITS, dtype=dtype)


def test_one_hot_probabilities_are_labels(backend_name):
    one_hot = np.eye(5)[LABELS]
    for smoothing in (0.0, 0.1):
        expected = F.cross_entropy(Tensor(LOGITS), LABELS, label_smoothing=smoothing).item()
        found = F.cross_entropy(Tensor(LOGITS), Tensor(one_hot), label_smoothing=smoothing).item()
        assert found == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize("reduction, smoothing, weight", OPTIONS)
def test_cross_entropy_passes_gradcheck(reduction, smoothing, weight, backend_name):
    weight = None if weight is None else Tensor(weight)

    def function(x):
        return F.cross_entropy(x, LABELS, weight, reduction=reduction, label_smoothing=smoothing)

    assert gradcheck(function, [Tensor(LOGITS, requires_grad=True)]) < 1e-6


def test_cross_entropy_by_hand(backend_name):
    x = Tensor(np.array([[0.0, math.log(3.0)], [math.log(7.0), 0.0]]), requires_grad=True)  # p: 1/4 3/4, 7/8 1/8
    loss = F.cross_entropy(x, np.array([1, 1]))
    loss.backward()
    assert loss.item() == pytest.approx((math.log(4 / 3) + math.log(8)) / 2)
    np.testing.assert_allclose(x.grad.numpy(), np.array([[0.25, -0.25], [0.875, -0.875]]) / 2, rtol=1e-14)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_extreme_logits_stay_finite(smoothing, dtype, backend_name):
    x = Tensor(np.array([[1e4, -1e4, 0.0], [-1e4, 1e4, 1e4]], dtype), requires_grad=True)
    loss = F.cross_entropy(x, np.array([1, 0]), label_smoothing=smoothing)
    loss.backward()
    assert np.isfinite(loss.item()) and np.isfinite(x.grad.numpy()).all()
    if smoothing == 0:
        assert loss.item() == pytest.approx(2e4 + math.log(2) / 2, rel=1e-7)
        np.testing.assert_allclose(x.grad.numpy(), [[0.5, -0.5, 0], [-0.5, 0.25, 0.25]])


MASKED = np.array([[1.0, -np.inf, 2.0, 0.5], [0.0, 1.0, -np.inf, -np.inf], [3.0, -np.inf, 0.0, 0.1]])
ALLOWED = np.array([0, 1, 2])


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("weight", [None, np.array([0.5, 2.0, 1.0, 3.0])])
def test_a_masked_class_agrees_with_torch(reduction, weight, dtype, backend_name, like_torch, torch):
    ours = partial(F.cross_entropy, reduction=reduction)
    theirs = partial(torch.nn.functional.cross_entropy, reduction=reduction)
    if weight is not None:
        factors = weight.astype(dtype)
        ours, theirs = partial(ours, weight=Tensor(factors)), partial(theirs, weight=torch.tensor(factors))
    for labels in (ALLOWED, np.array([1, 1, 0])):  # of the latter one is masked: an infinite loss
        like_torch(partial(ours, target=labels), partial(theirs, target=torch.tensor(labels)), MASKED, dtype=dtype)


def test_soft_labels_of_a_masked_class(dtype, backend_name, torch, close):
    """0 log 0 is 0, so the loss is that over the classes that are left, where PyTorch has NaN."""
    target = np.array([[0.25, 0, 0.5, 0.25], [0.3, 0.7, 0, 0], [1, 0, 0, 0]], dtype)
    x = Tensor(MASKED.astype(dtype), requires_grad=True)
    loss = F.cross_entropy(x, target, reduction="none")
    loss.sum().backward()
    kept = np.isfinite(MASKED)
    shifted = np.where(kept, MASKED, 0)
    p = np.where(kept, np.exp(shifted), 0)
    p /= p.sum(1, keepdims=True)
    tolerance = 1e-6 if dtype == "float32" else 1e-13
    close(loss.numpy(), -np.where(kept, target * np.log(np.where(kept, p, 1)), 0).sum(1), tolerance)
    close(x.grad.numpy(), p - target, tolerance)
    twin = torch.tensor(MASKED.astype(dtype), requires_grad=True)
    torch.nn.functional.cross_entropy(twin, torch.tensor(target), reduction="sum").backward()
    close(x.grad.numpy(), twin.grad.numpy(), tolerance)
    assert F.cross_entropy(x, np.full_like(target, 0.25)).item() == np.inf


def test_smoothing_gives_a_masked_class_a_share(dtype, backend_name, torch, close):
    """So the loss is infinite, as PyTorch's, and the gradient finite; with weight 0 that class has none."""
    x, twin = Tensor(MASKED.astype(dtype), requires_grad=True), torch.tensor(MASKED.astype(dtype), requires_grad=True)
    loss = F.cross_entropy(x, ALLOWED, label_smoothing=0.1)
    expected = torch.nn.functional.cross_entropy(twin, torch.tensor(ALLOWED), label_smoothing=0.1)
    assert loss.item() == expected.item() == np.inf
    loss.backward()
    expected.backward()
    close(x.grad.numpy(), twin.grad.numpy(), 1e-6)
    row, weight = Tensor(MASKED[:1].astype(dtype)), Tensor(np.array([1, 0, 1, 1], dtype))
    assert np.isfinite(F.cross_entropy(row, ALLOWED[:1], weight, label_smoothing=0.1).item())


@pytest.mark.parametrize(
    "labels", [LABELS.tolist(), LABELS.astype(np.uint8), LABELS.astype(np.int32), Tensor(LABELS), LABELS.repeat(2)[::2]]
)
def test_labels_of_any_integer_kind_are_taken(labels, backend_name):
    expected = F.cross_entropy(Tensor(LOGITS), LABELS).item()
    assert F.cross_entropy(Tensor(LOGITS), labels).item() == expected


X = Tensor(LOGITS)
ERRORS = {
    "negative": ((X, LABELS - 1), {}, ValueError, "expected labels from 0 to 4, received -1 to 3"),
    "too large": ((X, LABELS + 1), {}, ValueError, "expected labels from 0 to 4, received 1 to 5"),
    "wrapped": ((X, LABELS.astype(np.uint64) + np.uint64(2**63)), {}, ValueError, "expected labels from 0 to 4"),
    "float": ((X, LABELS.astype(np.float32)), {}, TypeError, "expected integer labels, received float32"),
    "float list": ((X, [0.0] * 7), {}, TypeError, "expected integer labels, received float32"),
    "bool": ((X, LABELS > 2), {}, TypeError, "expected integer labels, received bool"),
    "count": ((X, LABELS[:6]), {}, ValueError, r"expected labels of shape \(7,\), received \(6,\)"),
    "one-hot": ((X, np.eye(7, 5, dtype=int)), {}, ValueError, r"expected labels of shape \(7,\), received \(7, 5\)"),
    "probabilities": ((X, PROBABILITIES[:, :4]), {}, ValueError, r"target of shape \(7, 5\), received \(7, 4\)"),
    "precision": ((X, PROBABILITIES.astype(np.float32)), {}, TypeError, "target as float64 .* received float32"),
    "logits": ((X[0], LABELS), {}, ValueError, r"expected logits \(N, K\), received shape \(5,\)"),
    "empty": ((X[:0], LABELS[:0]), {}, ValueError, r"expected logits \(N, K\), received shape \(0, 5\)"),
    "reduction": ((X, LABELS), {"reduction": "avg"}, ValueError, "'mean', 'sum' or 'none', received 'avg'"),
    "smoothing": ((X, LABELS), {"label_smoothing": 1.5}, ValueError, r"label_smoothing in \[0, 1\], received 1.5"),
    "weight": ((X, LABELS, Tensor(WEIGHT[:4])), {}, ValueError, r"weight of shape \(5,\), received \(4,\)"),
    "dtype": ((X, LABELS, Tensor(WEIGHT.astype(np.float32))), {}, TypeError, "weight as float64 .* received float32"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors_come_before_any_kernel(name, backend_name, kernel_calls):
    arguments, options, error, message = ERRORS[name]
    with pytest.raises(error, match=f"cross_entropy: .*{message}"):
        F.cross_entropy(*arguments, **options)
    assert set(kernel_calls) <= {"label_range"}


def test_labels_that_are_known_are_not_looked_at(backend_name, kernel_calls):
    found = F.cross_entropy(X, LABELS, check_labels=False)
    assert "label_range" not in kernel_calls
    np.testing.assert_array_equal(found.numpy(), F.cross_entropy(X, LABELS).numpy())
    assert "label_range" in kernel_calls
    for name in ("float", "count", "probabilities"):  # of types and shapes
        arguments, options, error, message = ERRORS[name]
        with pytest.raises(error, match=message):
            F.cross_entropy(*arguments, **options, check_labels=False)


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["negative", "too large", "wrapped", "float", "count"])
def test_bad_labels_are_refused_on_the_gpu(name):
    (logits, labels), options, error, message = ERRORS[name]
    with pytest.raises(error, match=f"cross_entropy: .*{message}"):
        F.cross_entropy(logits.to("cupy"), labels, **options)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_mse_loss_agrees_with_torch(reduction, dtype, backend_name, like_torch, torch):
    target = np.random.default_rng(1).standard_normal(LOGITS.shape)
    like_torch(
        lambda x, t: F.mse_loss(x, t, reduction),
        lambda x, t: torch.nn.functional.mse_loss(x, t, reduction=reduction),
        LOGITS,
        target,
        dtype=dtype,
    )
    inputs = [Tensor(a, requires_grad=True) for a in (LOGITS, target)]
    assert gradcheck(lambda x, t: F.mse_loss(x, t, reduction), inputs) < 1e-6


def test_mse_loss_refuses_what_would_broadcast():
    with pytest.raises(ValueError, match=r"mse_loss: expected target of shape \(7, 5\), received \(5,\)"):
        F.mse_loss(X, X[0])
    with pytest.raises(ValueError, match="mse_loss: expected reduction .* received 'max'"):
        F.mse_loss(X, X, "max")
