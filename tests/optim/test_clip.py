"""Gradient clipping by norm and by value."""

import math

import numpy as np
import pytest

from minicnn import Tensor, nn
from minicnn.optim import clip_grad_norm_, clip_grad_value_

GRADIENTS = [np.array([[3.0, -4.0], [0.0, 12.0]]), np.array(84.0), None]  # norm 85


def parameters(dtype="float64", gradients=GRADIENTS):
    result = []
    for g in gradients:
        result.append(Tensor(np.zeros(() if g is None else g.shape, dtype), requires_grad=True))
        result[-1].grad = None if g is None else Tensor(g.astype(dtype))
    return result


@pytest.mark.parametrize("max_norm", [0.01, 17.0, 84.0, 86.0])
def test_norm_agrees_with_torch(max_norm, dtype, backend_name, torch, close):
    ours, theirs = parameters(dtype), []
    for g in GRADIENTS:
        theirs.append(torch.zeros(() if g is None else g.shape, dtype=getattr(torch, dtype), requires_grad=True))
        theirs[-1].grad = None if g is None else torch.tensor(g.astype(dtype))
    norm = clip_grad_norm_(iter(ours), max_norm)
    assert norm.shape == () and norm.item() == pytest.approx(85)
    torch.nn.utils.clip_grad_norm_(theirs, max_norm)
    for mine, other in zip(ours, theirs, strict=True):
        assert (mine.grad is None) == (other.grad is None)
        if mine.grad is not None:
            assert mine.grad.dtype == dtype
            close(mine.grad.numpy(), other.grad.numpy(), 1e-6)


def test_norm_by_hand(backend_name):
    ours = parameters()
    clip_grad_norm_(ours, 8.5)
    np.testing.assert_allclose(ours[0].grad.numpy(), GRADIENTS[0] / 10, rtol=1e-6)
    assert clip_grad_norm_(ours, 100).item() == pytest.approx(8.5, rel=1e-6)
    np.testing.assert_allclose(ours[0].grad.numpy(), GRADIENTS[0] / 10, rtol=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_norm_that_is_not_finite_scales_nothing(bad, backend_name):
    ours = parameters(gradients=[np.array([1.0, bad]), np.array([100.0])])
    assert not math.isfinite(clip_grad_norm_(ours, 1.0).item())
    assert ours[1].grad.tolist() == [100]


def test_large_float32_gradients_do_not_overflow(backend_name):
    ours = parameters("float32", [np.array([3e30, 4e30])])
    assert clip_grad_norm_(ours, 1.0).item() == pytest.approx(5e30)
    np.testing.assert_allclose(ours[0].grad.numpy(), [0.6, 0.8], rtol=1e-6)


def test_value(dtype, backend_name):
    ours = parameters(dtype)
    clip_grad_value_(ours, 3.5)
    assert ours[0].grad.tolist() == [[3, -3.5], [0, 3.5]] and ours[1].grad.item() == 3.5 and ours[2].grad is None


def test_nothing_to_clip():
    assert clip_grad_norm_([], 1.0).item() == 0
    for function in (clip_grad_norm_, clip_grad_value_):
        for limit in (0, -1, float("nan")):
            with pytest.raises(ValueError, match=f"{function.__name__}: expected .* above 0, received {limit}"):
                function([], limit)


@pytest.mark.parametrize("function", [clip_grad_norm_, clip_grad_value_])
def test_a_single_tensor(function, torch, close):
    (ours,), theirs = parameters(gradients=GRADIENTS[:1]), torch.zeros((2, 2), dtype=torch.float64, requires_grad=True)
    theirs.grad = torch.tensor(GRADIENTS[0])
    function(ours, 2.0)
    getattr(torch.nn.utils, function.__name__)(theirs, 2.0)
    close(ours.grad.numpy(), theirs.grad.numpy(), 1e-6)
    ours.grad = None
    function(ours, 2.0)


@pytest.mark.parametrize("function", [clip_grad_norm_, clip_grad_value_])
@pytest.mark.parametrize("given", [nn.Linear(1, 1), nn.Sequential(nn.ReLU()), [None], [[Tensor([1.0])]], 3, "w"])
def test_what_is_no_tensor(function, given):
    with pytest.raises(TypeError, match=rf"{function.__name__}: expected .* received .*; pass .parameters\(\)"):
        function(given, 1.0)
