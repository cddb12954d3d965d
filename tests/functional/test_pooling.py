"""Pooling: by hand, against PyTorch and by finite differences, on windows that hang over the edges."""

from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minicnn.functional as F
from minicnn import Tensor, gradcheck


def data(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


SHAPES = [(2, 3, 7, 6), (1, 1, 5, 9), (9, 2, 8, 5)]
POOL = {  # options of both poolings
    "plain": {"kernel_size": 2},
    "one": {"kernel_size": 1},
    "flat": {"kernel_size": (1, 3)},
    "tall": {"kernel_size": (4, 1), "stride": (1, 2)},
    "stride > window": {"kernel_size": (2, 1), "stride": (3, 4)},
    "overlap": {"kernel_size": 3, "stride": (1, 2)},
    "padding": {"kernel_size": (3, 2), "stride": 2, "padding": (1, 0)},
    "hangs over": {"kernel_size": (3, 2), "stride": (2, 3), "padding": (1, 1), "ceil_mode": True},
    "ceil": {"kernel_size": 3, "stride": 2, "ceil_mode": True},
    "ceil, stride > window": {"kernel_size": 2, "stride": 4, "ceil_mode": True},
    "whole picture": {"kernel_size": (5, 5), "padding": 2},
}
CASES = {
    **{f"max {name}": ("max_pool2d", options) for name, options in POOL.items()},
    "max dilation": ("max_pool2d", {"kernel_size": (2, 3), "stride": 1, "dilation": (3, 2)}),
    "max dilation, padding": (
        "max_pool2d",
        {"kernel_size": 3, "stride": (2, 1), "padding": 1, "dilation": (1, 2), "ceil_mode": True},
    ),
    **{f"mean {name}": ("avg_pool2d", options) for name, options in POOL.items()},
    "mean without padding": ("avg_pool2d", POOL["hangs over"] | {"count_include_pad": False}),
    "mean divisor": ("avg_pool2d", POOL["hangs over"] | {"divisor_override": 7}),
    "adaptive 1": ("adaptive_avg_pool2d", {"output_size": 1}),
    "adaptive uneven": ("adaptive_avg_pool2d", {"output_size": (3, 4)}),
    "adaptive larger": ("adaptive_avg_pool2d", {"output_size": (11, 2)}),
}


@pytest.mark.parametrize("name", CASES)
def test_pooling_agrees_with_torch(name, dtype, backend_name, like_torch, torch):
    function, options = CASES[name]
    for shape in SHAPES:
        like_torch(
            lambda x: getattr(F, function)(x, **options),
            lambda x: getattr(torch.nn.functional, function)(x, **options),
            data(*shape),
            dtype=dtype,
        )


@pytest.mark.parametrize("name", CASES)
def test_pooling_passes_gradcheck(name, backend_name):
    function, options = CASES[name]
    spread = np.random.default_rng(0).permutation(2 * 3 * 7 * 6) / 10.0  # no ties within the step of the differences
    x = Tensor(spread.reshape(2, 3, 7, 6), requires_grad=True)
    assert gradcheck(lambda x: getattr(F, function)(x, **options), [x]) < 1e-6


def test_pooling_by_hand(backend_name):
    x = np.array([[1.0, 5.0, 2.0, 0.0], [4.0, 3.0, -1.0, 8.0], [7.0, 6.0, 9.0, 9.0]]).reshape(1, 1, 3, 4)
    largest = Tensor(x, requires_grad=True)
    y = F.max_pool2d(largest, (2, 2), stride=(1, 2))
    np.testing.assert_array_equal(y.numpy(), [[[[5, 8], [7, 9]]]])
    y.backward(Tensor(np.array([[[[1.0, 2.0], [3.0, 4.0]]]])))
    np.testing.assert_array_equal(largest.grad.numpy(), [[[[0, 1, 0, 0], [0, 0, 0, 2], [3, 0, 4, 0]]]])  # first of 9s
    mean = Tensor(x, requires_grad=True)
    y = F.avg_pool2d(mean, 2, ceil_mode=True)
    np.testing.assert_array_equal(y.numpy(), [[[[3.25, 2.25], [6.5, 9]]]])
    y.backward(Tensor(np.array([[[[4.0, 8.0], [2.0, 6.0]]]])))
    np.testing.assert_array_equal(mean.grad.numpy(), [[[[1, 1, 2, 2], [1, 1, 2, 2], [1, 1, 3, 3]]]])


pair = lambda low, high: st.tuples(st.integers(low, high), st.integers(low, high))  # noqa: E731
geometry = st.fixed_dictionaries(
    {"kernel_size": pair(1, 4), "stride": pair(1, 5), "padding": pair(0, 2), "ceil_mode": st.booleans()},
    optional={"dilation": pair(1, 3), "count_include_pad": st.booleans()},
)


@given(pair(1, 9), st.sampled_from(["max_pool2d", "avg_pool2d"]), geometry)
def test_any_geometry_agrees_with_torch_or_is_refused_by_both(torch, like_torch, backend_name, size, name, options):
    options.pop("dilation" if name == "avg_pool2d" else "count_include_pad", None)
    x = data(2, 3, *size)
    ours, theirs = (partial(getattr(library, name), **options) for library in (F, torch.nn.functional))
    try:
        defined = theirs(torch.tensor(x)).isfinite().all()  # dilated windows may step over the whole picture
    except RuntimeError:
        defined = False
    if defined:
        like_torch(ours, theirs, x)
    else:
        with pytest.raises(ValueError, match=f"{name}: "):
            ours(Tensor(x))


@given(pair(1, 9), pair(1, 12))
def test_any_adaptive_pooling_agrees_with_torch(torch, like_torch, size, output_size):
    like_torch(
        lambda x: F.adaptive_avg_pool2d(x, output_size),
        lambda x: torch.nn.functional.adaptive_avg_pool2d(x, output_size),
        data(2, 2, *size),
    )


OPTIONS = {"kernel_size": (3, 2), "stride": (2, 1), "padding": 1, "ceil_mode": True}


@pytest.mark.parametrize("fill", [-np.inf, np.finfo("float32").min, 0.0, np.inf])
def test_the_largest_of_equal_values_is_the_first(fill, dtype, backend_name, like_torch, torch):
    x = np.full((5, 2, 5, 4), fill)
    like_torch(partial(F.max_pool2d, **OPTIONS), partial(torch.nn.functional.max_pool2d, **OPTIONS), x, dtype=dtype)


@pytest.mark.parametrize("special", [np.nan, np.inf, -np.inf])
def test_a_special_value_shows_in_its_windows_alone(special, dtype, backend_name, like_torch, torch):
    x = data(5, 2, 5, 4)
    x[3, 1, 2, 1] = special
    like_torch(partial(F.max_pool2d, **OPTIONS), partial(torch.nn.functional.max_pool2d, **OPTIONS), x, dtype=dtype)


MEANS = {name: options for name, (function, options) in CASES.items() if function != "max_pool2d"}


@pytest.mark.parametrize("special", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", MEANS)
def test_a_special_value_shows_in_the_means_of_its_windows_alone(name, special, dtype, backend_name, torch, close):
    function, options = CASES[name]
    x = data(5, 2, 7, 6)
    x[3, 1, 2, 1] = x[0, 0, 6, 5] = special
    mine, other = Tensor(x.astype(dtype), requires_grad=True), torch.tensor(x.astype(dtype), requires_grad=True)
    y, expected = getattr(F, function)(mine, **options), getattr(torch.nn.functional, function)(other, **options)
    gradient = data(*y.shape, seed=1).astype(dtype)
    gradient[2, 1, 0, 0] = gradient[0, 1, -1, -1] = special
    y.backward(Tensor(gradient))
    expected.backward(torch.tensor(gradient))
    close(y.numpy(), expected.detach().numpy(), 1e-5)
    close(mine.grad.numpy(), other.grad.numpy(), 1e-5)


@pytest.mark.parametrize("special", [np.nan, np.inf, -np.inf])
def test_a_special_gradient_goes_to_the_largest_alone(special, dtype, backend_name, torch, close):
    x = data(5, 2, 5, 4).astype(dtype)
    mine, other = Tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    y, expected = F.max_pool2d(mine, **OPTIONS), torch.nn.functional.max_pool2d(other, **OPTIONS)
    gradient = data(*y.shape, seed=1).astype(dtype)
    gradient[2, 1, 1, 1] = special
    y.backward(Tensor(gradient))
    expected.backward(torch.tensor(gradient))
    close(mine.grad.numpy(), other.grad.numpy(), 1e-6)


X = Tensor(data(2, 3, 5, 6))
ERRORS = {
    "axes": (X[0], {"kernel_size": 2}, ValueError, r"an input \(N, C, H, W\) with pixels, received shape \(3, 5, 6\)"),
    "no pixels": (X[:, :, :0], {"kernel_size": 2}, ValueError, r"with pixels, received shape \(2, 3, 0, 6\)"),
    "window 0": (X, {"kernel_size": 0}, ValueError, "kernel_size as one or two integers from 1, received 0"),
    "stride 0": (X, {"kernel_size": 2, "stride": (1, 0)}, ValueError, r"stride as .* received \(1, 0\)"),
    "padding": (
        X,
        {"kernel_size": (2, 4), "padding": 2},
        ValueError,
        r"at most half the window \(2, 4\), received \(2, 2\)",
    ),
    "window": (
        X,
        {"kernel_size": (6, 2)},
        ValueError,
        r"fits into the input \(5, 6\) with padding \(0, 0\), received \(6, 2\)",
    ),
    "integers": (Tensor([[[[1]]]]), {"kernel_size": 1}, TypeError, "float32 or float64, received int64"),
}


@pytest.mark.parametrize("name", ERRORS)
@pytest.mark.parametrize("function", ["max_pool2d", "avg_pool2d"])
def test_errors_come_before_any_kernel(function, name, backend_name, kernel_calls):
    x, options, error, message = ERRORS[name]
    with pytest.raises(error, match=f"{function}: .*{message}"):
        getattr(F, function)(x, **options)
    assert not kernel_calls


def test_options_of_one_pooling_are_checked():
    with pytest.raises(ValueError, match="adaptive_avg_pool2d: expected output_size as .* from 1, received 0"):
        F.adaptive_avg_pool2d(X, 0)
    with pytest.raises(ValueError, match="avg_pool2d: expected divisor_override as a non-zero integer, received 0"):
        F.avg_pool2d(X, 2, divisor_override=0)
    with pytest.raises(ValueError, match=r"max_pool2d: expected a window of at most 65536 .* \(300, 300\)"):
        F.max_pool2d(Tensor(np.zeros((1, 1, 300, 300))), 300)
    with pytest.raises(ValueError, match=r"max_pool2d: .* meet the input \(5, 6\).* dilation \(6, 1\)"):
        F.max_pool2d(X, 2, padding=1, dilation=(6, 1))
