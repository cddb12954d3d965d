"""Convolution: by hand, against PyTorch, by finite differences and by its adjoint, on awkward geometry."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minicnn.functional as F
from minicnn import Tensor, gradcheck


def data(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


# name: input (N, C, H, W), weight (O, C/groups, KH, KW), options
CASES = {
    "plain": ((2, 3, 7, 6), (4, 3, 3, 3), {}),
    "one pixel": ((1, 1, 1, 1), (1, 1, 1, 1), {}),
    "one image": ((1, 3, 5, 8), (2, 3, 2, 4), {}),
    "flat window": ((2, 2, 5, 9), (3, 2, 1, 4), {"stride": (1, 2)}),
    "tall window": ((2, 2, 9, 4), (3, 2, 5, 1), {"padding": (2, 0)}),
    "whole picture": ((3, 2, 4, 5), (2, 2, 4, 5), {}),
    "stride > window": ((2, 2, 9, 8), (3, 2, 2, 1), {"stride": (4, 3)}),
    "asymmetric": ((2, 3, 9, 7), (2, 3, 3, 2), {"stride": (1, 3), "padding": (2, 1), "dilation": (1, 3)}),
    "padding > window": ((2, 1, 2, 3), (2, 1, 2, 1), {"padding": (3, 2)}),
    "dilation": ((2, 2, 9, 8), (2, 2, 3, 2), {"dilation": (3, 2), "stride": 2}),
    "unseen edge": ((2, 2, 8, 9), (2, 2, 3, 3), {"stride": 3}),
    "groups": ((2, 4, 5, 6), (6, 2, 2, 3), {"groups": 2, "padding": 1}),
    "depthwise": ((2, 3, 6, 5), (6, 1, 3, 2), {"groups": 3, "stride": (2, 1)}),
    "same": ((2, 2, 5, 6), (3, 2, 3, 5), {"padding": "same"}),
    "same, dilation": ((1, 2, 5, 6), (3, 2, 2, 3), {"padding": "same", "dilation": 2}),
    "valid": ((1, 2, 5, 6), (3, 2, 2, 3), {"padding": "valid"}),
    "blocks": ((17, 3, 6, 7), (5, 3, 3, 2), {"stride": (2, 1), "padding": 1}),
    "blocks, groups": ((9, 4, 5, 6), (10, 2, 3, 3), {"groups": 2, "dilation": (2, 1)}),
    "wide": ((4, 6, 14, 14), (16, 6, 5, 5), {}),
}


@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("name", CASES)
def test_conv2d_agrees_with_torch(name, with_bias, dtype, backend_name, like_torch, torch):
    x, w, options = CASES[name]
    arrays = [data(*x), data(*w, seed=1), data(w[0], seed=2)][: 2 + with_bias]
    like_torch(
        lambda *t: F.conv2d(*t, **options), lambda *t: torch.nn.functional.conv2d(*t, **options), *arrays, dtype=dtype
    )


@pytest.mark.parametrize("name", CASES)
def test_conv2d_passes_gradcheck(name, backend_name):
    x, w, options = CASES[name]
    inputs = [Tensor(a, requires_grad=True) for a in (data(*x), data(*w, seed=1), data(w[0], seed=2))]
    assert gradcheck(lambda *t: F.conv2d(*t, **options), inputs) < 1e-6


def test_conv2d_by_hand(backend_name):
    """Cross-correlation, not convolution: the window is not turned round."""
    x = Tensor(np.arange(1.0, 10).reshape(1, 1, 3, 3), requires_grad=True)
    w = Tensor(np.array([[[[1.0, 2.0], [0.0, -1.0]]]]), requires_grad=True)
    b = Tensor(np.array([10.0]), requires_grad=True)
    y = F.conv2d(x, w, b)
    np.testing.assert_array_equal(y.numpy(), [[[[10, 12], [16, 18]]]])  # 10 + 1 + 2*2 - 5, ...
    y.backward(Tensor(np.array([[[[1.0, 2.0], [3.0, 4.0]]]])))
    np.testing.assert_array_equal(x.grad.numpy(), [[[[1, 4, 4], [3, 9, 6], [0, -3, -4]]]])
    np.testing.assert_array_equal(w.grad.numpy(), [[[[37, 47], [67, 77]]]])
    assert b.grad.item() == 10


def test_height_and_width_are_not_exchanged(backend_name):
    x = np.zeros((1, 1, 4, 6))
    x[0, 0, 1, 4] = 1
    w = np.zeros((1, 1, 1, 3))
    w[0, 0, 0, 2] = 5
    y = F.conv2d(Tensor(x), Tensor(w), stride=(1, 2)).numpy()
    assert y.shape == (1, 1, 4, 2) and y[0, 0, 1, 1] == 5 and y.sum() == 5


geometry = st.fixed_dictionaries(
    {
        "n": st.sampled_from([1, 2, 5, 9]),
        "size": st.tuples(st.integers(1, 9), st.integers(1, 9)),
        "window": st.tuples(st.integers(1, 4), st.integers(1, 4)),
        "stride": st.tuples(st.integers(1, 4), st.integers(1, 4)),
        "padding": st.tuples(st.integers(0, 3), st.integers(0, 3)),
        "dilation": st.tuples(st.integers(1, 3), st.integers(1, 3)),
        "groups": st.integers(1, 3),
        "inputs": st.integers(1, 3),
        "outputs": st.integers(1, 3),
    }
)


@given(geometry)
def test_any_geometry_agrees_with_torch_or_is_refused_by_both(torch, like_torch, backend_name, g):
    options = {name: g[name] for name in ("stride", "padding", "dilation", "groups")}
    x = data(g["n"], g["inputs"] * g["groups"], *g["size"])
    w = data(g["outputs"] * g["groups"], g["inputs"], *g["window"], seed=1)
    try:
        torch.nn.functional.conv2d(torch.tensor(x), torch.tensor(w), **options)
    except RuntimeError:
        with pytest.raises(ValueError, match="expected a window that fits into the input"):
            F.conv2d(Tensor(x), Tensor(w), **options)
    else:
        like_torch(
            lambda *t: F.conv2d(*t, **options), lambda *t: torch.nn.functional.conv2d(*t, **options), x, w
        )  # fmt: skip


def test_the_gradient_for_the_input_is_the_adjoint(backend_name):
    """<conv(x), gy> = <x, conv^T(gy)>: exact in exact arithmetic, whatever the geometry."""
    x, w, options = CASES["asymmetric"]
    x, w = Tensor(data(*x), requires_grad=True), Tensor(data(*w, seed=1))
    y = F.conv2d(x, w, **options)
    gy = data(*y.shape, seed=2)
    y.backward(Tensor(gy))
    assert (y.numpy() * gy).sum() == pytest.approx((x.numpy() * x.grad.numpy()).sum(), rel=1e-12)


def test_numpy_integers_are_integers():
    x, w, two = Tensor(data(1, 1, 5, 5)), Tensor(data(1, 1, 2, 2)), np.int64(2)
    assert F.conv2d(x, w, stride=two, padding=(two, two)).shape == (1, 1, 4, 4)


X, W, B = Tensor(data(2, 4, 5, 6)), Tensor(data(6, 4, 3, 3)), Tensor(data(6))
ERRORS = {
    "axes": ((X[0], W), {}, ValueError, r"expected an input \(N, C, H, W\) with pixels, received shape \(4, 5, 6\)"),
    "no pixels": ((X[:, :, :0], W), {}, ValueError, r"expected an input .* received shape \(\d+, 4, 0, 6\)"),
    "weight axes": (
        (X, W[0]),
        {},
        ValueError,
        r"expected a weight \(O, C/groups, KH, KW\), received shape \(4, 3, 3\)",
    ),
    "channels": ((X[:, :3], W), {}, ValueError, r"expected weight of shape \(6, 3, 3, 3\), received \(6, 4, 3, 3\)"),
    "bias": ((X, W, B[:5]), {}, ValueError, r"expected bias of shape \(6,\), received \(5,\)"),
    "groups": ((X, W), {"groups": 3}, ValueError, "groups to divide 4 input and 6 output channels, received 3"),
    "groups 0": ((X, W), {"groups": 0}, ValueError, "groups to divide .* received 0"),
    "stride 0": ((X, W), {"stride": 0}, ValueError, "stride as one or two integers from 1, received 0"),
    "stride 2.5": ((X, W), {"stride": 2.5}, ValueError, "stride as one or two integers from 1, received 2.5"),
    "three strides": ((X, W), {"stride": (1, 1, 1)}, ValueError, "stride as one or two integers"),
    "dilation": ((X, W), {"dilation": (1, 0)}, ValueError, r"dilation as .* received \(1, 0\)"),
    "padding": ((X, W), {"padding": -1}, ValueError, "padding as one or two integers from 0, received -1"),
    "padding word": (
        (X, W),
        {"padding": "full"},
        ValueError,
        "padding as integers, 'valid' or 'same', received 'full'",
    ),
    "same": ((X, W), {"padding": "same", "stride": 2}, ValueError, "stride 1 and an odd window with padding 'same'"),
    "window": ((X, W), {"dilation": 3}, ValueError, r"fits .* \(5, 6\) .* received \(3, 3\) with dilation \(3, 3\)"),
    "dtype": ((X, W.astype(np.float32)), {}, TypeError, "expected weight as float64 .* received float32"),
    "integers": ((Tensor(np.ones((1, 4, 5, 5), int)), W), {}, TypeError, "input as float32 or float64, received int64"),
    "array": ((X, W.numpy()), {}, TypeError, "expected weight as a Tensor, received ndarray"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors_come_before_any_kernel(name, backend_name, kernel_calls):
    arguments, options, error, message = ERRORS[name]
    with pytest.raises(error, match=f"conv2d: .*{message}"):
        F.conv2d(*arguments, **options)
    assert not kernel_calls
