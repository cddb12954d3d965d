"""Tensor operations against PyTorch and finite differences, their dtypes, views and errors."""

import math

import numpy as np
import pytest

import minicnn
from minicnn import Tensor, cat, gradcheck, stack, tensor


def data(*shape, low=-2.0, high=2.0, seed=0):
    return np.random.default_rng(seed).uniform(low, high, shape)


def positive(*shape):
    return data(*shape, low=0.5, high=2.0)


INDEX = np.array([2, 0, 2, 2])  # repeats
TIES = np.array([[[1.0, 3, 3], [2, 2, 3]], [[5, 0, 0], [5, 1, 0]]])
OPERATIONS = {  # name: function of tensors of either library, inputs
    "add": (lambda a, b: a + b, data(3, 2), data(3, 2, seed=1)),
    "add stretched": (lambda a, b: a + b, data(3, 1, 2), data(4, 1, seed=1)),
    "add scalar tensor": (lambda a, b: a + b, data(3, 2), data(seed=1)),
    "add numbers": (lambda a: 1 + a + 2.5, data(2, 3)),
    "subtract": (lambda a, b: a - b, data(2, 3), data(5, 1, 3, seed=1)),
    "subtract numbers": (lambda a: 1.5 - (a - 2), data(2, 3)),
    "multiply": (lambda a, b: a * b, data(1, 4), data(3, 1, seed=1)),
    "multiply by itself": (lambda a: a * a, data(2, 3)),
    "multiply numbers": (lambda a: 3 * a * 0.5, data(2, 3)),
    "divide": (lambda a, b: a / b, data(3, 1, 2), positive(4, 1)),
    "divide numbers": (lambda a: 2 / a / 3, positive(2, 3)),
    "negative": (lambda a: -a, data(2, 3)),
    "square": (lambda a: a**2, data(2, 3)),
    "cube": (lambda a: a**3.0, data(2, 3)),
    "power 0": (lambda a: a**0, np.array([0.0, -1.0, 2.0])),
    "power 1": (lambda a: a**1, np.array([0.0, -1.0, 2.0])),
    "power -1.5": (lambda a: a**-1.5, positive(2, 3)),
    "exp": (lambda a: a.exp(), data(2, 3)),
    "log": (lambda a: a.log(), positive(2, 3)),
    "sqrt": (lambda a: a.sqrt(), positive(2, 3)),
    "matmul": (lambda a, b: a @ b, data(3, 4), data(4, 2, seed=1)),
    "matmul 1x1": (lambda a, b: a @ b, data(1, 1), data(1, 1, seed=1)),
    "matmul batched": (lambda a, b: a @ b, data(2, 3, 4), data(2, 4, 5, seed=1)),
    "matmul broadcast": (lambda a, b: a @ b, data(5, 1, 3, 4), data(2, 4, 1, seed=1)),
    "matmul matrix left": (lambda a, b: a @ b, data(3, 4), data(2, 4, 5, seed=1)),
    "matmul transposed": (lambda a, b: a.transpose(0, 1) @ b.T, data(4, 3), data(2, 4, seed=1)),
    "matmul large": (lambda a, b: a @ b, data(150, 128), data(128, 130, seed=1)),
    "sum": (lambda a: a.sum(), data(2, 3)),
    "sum of a number": (lambda a: a.sum(), data()),
    "sum dim": (lambda a: a.sum(1), data(2, 3, 4)),
    "sum negative dim": (lambda a: a.sum(-1, keepdim=True), data(2, 3, 4)),
    "sum dims": (lambda a: a.sum((0, -1)), data(2, 3, 4)),
    "mean": (lambda a: a.mean(), data(2, 3)),
    "mean dims": (lambda a: a.mean((1, 2), keepdim=True), data(2, 3, 4)),
    "amax": (lambda a: a.amax(), data(2, 3)),
    "amax dims": (lambda a: a.amax((0, 2)), data(2, 3, 4)),
    "amax keepdim": (lambda a: a.amax(1, True), data(2, 3, 4)),
    "amin": (lambda a: a.amin((0, 2)), data(2, 3, 4)),
    "max": (lambda a: a.max(), TIES),
    "min": (lambda a: a.min(), TIES),
    "max along": (lambda a: a.max(1).values, TIES),
    "max along, keepdim": (lambda a: a.max(-1, keepdim=True)[0], TIES),
    "max along the first": (lambda a: a.max(0)[0], TIES),
    "max of a vector": (lambda a: a.max(0).values, data(5)),
    "min along": (lambda a: a.min(dim=1).values, TIES),
    "min along, keepdim": (lambda a: a.min(0, True).values, TIES),
    "reshape": (lambda a: a.reshape(4, -1), data(2, 3, 2)),
    "reshape tuple": (lambda a: a.reshape((3, 4)), data(2, 3, 2)),
    "reshape to number": (lambda a: a.reshape(()), data(1, 1)),
    "reshape of a view": (lambda a: a.transpose(0, 1).reshape(-1), data(2, 3)),
    "flatten": (lambda a: a.flatten(1, 2), data(2, 3, 4, 1)),
    "flatten number": (lambda a: a.flatten(), data()),
    "flatten one": (lambda a: a.flatten(1, 1), data(2, 3)),
    "permute": (lambda a: a.permute(2, 0, -2), data(2, 3, 4)),
    "transpose": (lambda a: a.transpose(-1, 0), data(2, 3, 4)),
    "T": (lambda a: a.T, data(2, 3)),
    "item": (lambda a: a[1], data(3, 2)),
    "element": (lambda a: a[1, -1], data(3, 2)),
    "slices": (lambda a: a[1:, ::2], data(3, 5)),
    "ellipsis and new axis": (lambda a: a[..., None, 1], data(3, 2)),
    "empty slice": (lambda a: a[3:], data(3, 2)),
    "repeated rows": (lambda a: a[INDEX], data(3, 2)),
    "repeated elements": (lambda a: a[INDEX, INDEX % 2], data(3, 2)),
    "mixed index": (lambda a: a[1:, INDEX], data(3, 4)),
    "mask": (lambda a: a[np.array([True, False, True])], data(3, 2)),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_operation_agrees_with_torch(name, dtype, backend_name, like_torch):
    function, *arrays = OPERATIONS[name]
    like_torch(function, function, *arrays, dtype=dtype)


@pytest.mark.parametrize("name", OPERATIONS)
def test_operation_passes_gradcheck(name, backend_name):
    function, *arrays = OPERATIONS[name]
    if arrays[0] is TIES:  # a kink
        arrays = [data(2, 2, 3)]
    assert gradcheck(function, [Tensor(np.asarray(a), requires_grad=True) for a in arrays]) < 1e-6


@pytest.mark.parametrize("dim", [0, 1, -1])
def test_joining_agrees_with_torch(dim, dtype, backend_name, like_torch, torch):
    arrays = [data(2, 3, seed=i) for i in range(3)]
    like_torch(lambda *t: stack(t, dim), lambda *t: torch.stack(t, dim), *arrays, dtype=dtype)
    arrays[1] = data(*((2, 1) if dim else (4, 3)))
    like_torch(lambda *t: cat(t, dim), lambda *t: torch.cat(t, dim), *arrays, dtype=dtype)


EXTREME = {  # name: function, operands whose squares over- or underflow in float32
    "divide": (lambda a, b: a / b, [1e20, 0.0, 1e-30, 1e30, 2e-25], [1e20, 1e-25, 1e-20, 3e25, 4e-25]),
    "number by": (lambda a: 1e20 / a, [1e20, 1e25, 3e19]),
    "small number by": (lambda a: 1e-25 / a, [1e-25, 3e-20, 2e-24]),
    "by number": (lambda a: a / 1e25, [1e25, 0.0, 1e-12]),
    "square": (lambda a: a**2, [1e18, 1e-18, 0.0]),
    "square root": (lambda a: a.sqrt(), [1e30, 1e-30, 1.0]),
    "power 0.5": (lambda a: a**0.5, [1e30, 1e-30, 1.0]),
    "power 0": (lambda a: a**0, [1e30, 0.0, np.inf]),
    "mean of squares": (lambda a: (a * a).mean(), [1e18, 2e-18, 0.0]),
    "max": (lambda a: a.max(), [np.inf, 1.0, -np.inf]),
    "amax": (lambda a: a.amax(0), [-np.inf, -np.inf, -np.inf]),
}


@pytest.mark.parametrize("gradient", [1.0, 1e10, np.inf])
@pytest.mark.parametrize("name", EXTREME)
def test_extreme_operands_agree_with_torch_in_float64(name, gradient, backend_name, torch):
    """Float32 goes wrong where its result does not fit, and nowhere else."""
    function, *values = EXTREME[name]
    arrays = [np.array(v, np.float32) for v in values]
    mine = [Tensor(a, requires_grad=True) for a in arrays]
    other = [torch.tensor(a.astype(np.float64), requires_grad=True) for a in arrays]
    with np.errstate(all="ignore"):
        y, expected = function(*mine), function(*other)
        y.backward(Tensor(np.full(y.shape, gradient, np.float32)))
        expected.backward(torch.full(expected.shape, gradient, dtype=torch.float64))
        np.testing.assert_allclose(y.numpy(), expected.detach().numpy().astype(np.float32), rtol=1e-6)
        for a, b in zip(mine, other, strict=True):
            np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy().astype(np.float32), rtol=1e-6)


def test_equal_maxima_share_the_gradient():
    x = Tensor(np.array([[1.0, 3.0, 3.0], [2.0, 2.0, 2.0]]), requires_grad=True)
    x.amax(1).backward(Tensor(np.array([6.0, 6.0])))
    np.testing.assert_array_equal(x.grad.numpy(), [[0, 3, 3], [2, 2, 2]])


def test_the_hand_computed_chain():
    """loss = mean((x w - 1)^2): d/dw = 2 mean((x w - 1) x)."""
    x, w = Tensor(np.array([1.0, 2.0])), Tensor(np.array(3.0), requires_grad=True)
    loss = ((x * w - 1) ** 2).mean()
    loss.backward()
    assert loss.item() == (4 + 25) / 2 and w.grad.item() == 2 * 1 + 5 * 2


# dtypes

SCALARS = [2, 0.5, True, np.float64(0.5), np.float32(0.5), np.int64(2)]


@pytest.mark.parametrize("scalar", SCALARS, ids=lambda s: type(s).__name__)
def test_a_scalar_never_promotes(scalar, dtype):
    x = Tensor(positive(3).astype(dtype), requires_grad=True)
    results = [x + scalar, scalar + x, x - scalar, scalar - x, x * scalar, scalar * x, x / scalar, scalar / x]
    for y in (*results, x**scalar):
        assert y.dtype == dtype
        y.sum().backward()
    assert x.grad.dtype == dtype


@pytest.mark.parametrize(
    "value, expected",
    [
        (1.5, "float32"),
        ([1.0, 2.0], "float32"),
        ([1, 2], "int64"),
        (True, "bool"),
        (np.float64(1), "float64"),
        (np.arange(3.0), "float64"),
        (np.arange(3, dtype=np.uint8), "uint8"),
    ],
)
def test_dtype_of_new_tensors(value, expected):
    assert Tensor(value).dtype == expected and minicnn.tensor(value).dtype == expected
    assert minicnn.tensor(value, dtype=np.float64).dtype == np.float64


def test_astype_brings_gradients_back_in_their_dtype():
    x = Tensor(np.ones(2, np.float32), requires_grad=True)
    (x.astype(np.float64) * 3).sum().backward()
    assert x.grad.dtype == np.float32 and x.grad.tolist() == [3, 3]


# Memory


def test_a_tensor_shares_the_array_it_is_given_and_tensor_copies():
    array = np.zeros(3)
    assert np.shares_memory(Tensor(array).numpy(), array)
    assert not np.shares_memory(minicnn.tensor(array).numpy(), array)
    assert not np.shares_memory(minicnn.tensor(Tensor(array)).numpy(), array)


@pytest.mark.parametrize(
    "view", [lambda x: x[1:], lambda x: x.T, lambda x: x.reshape(-1), lambda x: x.permute(1, 0), lambda x: x.detach()]
)
def test_views_share_memory(view):
    x = Tensor(np.zeros((3, 2)))
    view(x).copy_(np.float64(7))
    assert 7 in x.numpy()


def test_editing_items():
    x = Tensor(np.zeros((2, 3)))
    x[0] = Tensor(np.array([1.0, 2.0, 3.0]))
    x[1, 1:] = 5
    np.testing.assert_array_equal(x.numpy(), [[1, 2, 3], [0, 5, 5]])
    x.copy_(Tensor(np.arange(3.0)))
    np.testing.assert_array_equal(x.numpy(), [[0, 1, 2], [0, 1, 2]])


def test_what_it_is():
    x = Tensor(np.arange(6, dtype=np.float32).reshape(2, 3), requires_grad=True)
    assert (x.shape, x.ndim, len(x), x.numel(), x.is_leaf) == ((2, 3), 2, 2, 6, True)
    assert repr(x) == "tensor([[0., 1., 2.],\n        [3., 4., 5.]], dtype=float32, requires_grad=True)"
    assert repr(Tensor(2.5)) == "tensor(2.5, dtype=float32)"
    assert x[1, 2].item() == 5 and isinstance(x[1, 2].item(), float) and x[1, 2].shape == ()
    assert x.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert x.argmax(1).tolist() == [2, 2] and x.argmax(0).dtype.kind == "i"
    assert [row.tolist() for row in x] == x.tolist()
    assert x.to("reference").numpy() is x.numpy() and x.to("reference").is_leaf


# Errors: operation, expectation, received

X = Tensor(np.zeros((2, 3)))
ERRORS = {
    "shapes": (lambda: X + Tensor(np.zeros((2, 4))), ValueError, r"add: expected .* received \(2, 3\) and \(2, 4\)"),
    "dtypes": (lambda: X * Tensor(np.zeros(3, np.float32)), TypeError, "multiply: .*float64 and float32; use astype"),
    "array": (lambda: X + np.zeros(3), TypeError, "add: expected a Tensor or a number, received ndarray"),
    "array left": (lambda: np.zeros(3) * X, TypeError, "multiply: expected a Tensor or a number, received ndarray"),
    "string": (lambda: X / "2", TypeError, "divide: .* received str"),
    "none": (lambda: X - None, TypeError, "subtract: .* received NoneType"),
    "tensor exponent": (lambda: X**X, TypeError, "power: .* received Tensor"),
    "matmul": (
        lambda: X @ X,
        ValueError,
        r"matmul: expected \(..., M, K\) @ \(..., K, N\), received \(2, 3\) @ \(2, 3\)",
    ),
    "matmul vector": (lambda: X @ X[0], ValueError, r"matmul: .* received \(2, 3\) @ \(3,\)"),
    "matmul batch": (
        lambda: Tensor(np.zeros((2, 3, 4))) @ Tensor(np.zeros((5, 4, 6))),
        ValueError,
        r"matmul: .* received \(2, 3, 4\) @ \(5, 4, 6\)",
    ),
    "matmul array": (lambda: X @ np.zeros((3, 2)), TypeError, "matmul: expected a Tensor, received ndarray"),
    "axis": (lambda: X.sum(2), ValueError, "sum: expected distinct axes from -2 to 1, received 2"),
    "axis twice": (lambda: X.mean((0, -2)), ValueError, r"mean: expected distinct axes .* received \(0, -2\)"),
    "mean of nothing": (
        lambda: X[2:].mean(),
        ValueError,
        r"mean: expected at least one element .* \(0, 3\)",
    ),
    "max of nothing": (lambda: X[2:].max(0), ValueError, r"max: expected at least one element .* \(0, 3\)"),
    "reshape": (lambda: X.reshape(4, 2), ValueError, r"reshape: .* 6 elements for \(2, 3\), received \(4, 2\)"),
    "reshape -1 twice": (lambda: X.reshape(-1, -1), ValueError, "reshape: expected a shape of 6 elements"),
    "reshape -1 over": (lambda: X.reshape(4, -1), ValueError, "reshape: expected a shape of 6 elements"),
    "permute": (lambda: X.permute(0), ValueError, r"permute: expected 2 axes, received \(0,\)"),
    "transpose": (lambda: X.transpose(0, 2), ValueError, "transpose: .* received 2"),
    "T": (lambda: X[0].T, ValueError, r"T: expected a matrix, received shape \(3,\)"),
    "flatten": (lambda: X.flatten(1, 0), ValueError, "flatten: expected start_dim before end_dim"),
    "item": (lambda: X.item(), ValueError, r"item: expected a tensor of one element, received shape \(2, 3\)"),
    "length": (lambda: len(X.sum()), TypeError, "len: expected a tensor with axes"),
    "float16": (lambda: Tensor(np.zeros(1, np.float16)), TypeError, "expected float32, float64 .* received float16"),
    "longdouble": (lambda: Tensor(np.zeros(1, np.longdouble)), TypeError, "expected float32, float64 .* received"),
    "complex": (lambda: Tensor(np.zeros(1, complex)), TypeError, "received complex128"),
    "text": (lambda: Tensor("1"), TypeError, "received <U1"),
    "integer gradient": (lambda: Tensor([1, 2], requires_grad=True), TypeError, "take gradients, received int64"),
    "asked later": (lambda: Tensor([1]).requires_grad_(), TypeError, "take gradients, received int64"),
    "cat nothing": (lambda: cat([]), ValueError, "cat: expected at least one tensor"),
    "cat shapes": (lambda: cat([X, X.T]), ValueError, r"cat: expected \(2, 3\).*received \(3, 2\)"),
    "cat axes": (lambda: cat([X, X.sum(1)], 1), ValueError, r"cat: expected \(2, 3\).*received \(2,\)"),
    "cat dtypes": (lambda: cat([X, X.astype(np.float32)]), ValueError, "received .* and float32"),
    "cat axis": (lambda: cat([X], 2), ValueError, "cat: expected distinct axes from -2 to 1, received 2"),
    "stack axis": (lambda: stack([X], 3), ValueError, "stack: expected distinct axes from -3 to 2, received 3"),
    "stack shapes": (lambda: stack([X, X.T]), ValueError, "expected .* received"),
    "unknown backend": (lambda: X.to("numpi"), ValueError, "backend: expected auto, numpy, .* received 'numpi'"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors_say_what_was_expected_and_received(name):
    action, error, message = ERRORS[name]
    with pytest.raises(error, match=message):
        action()


@pytest.mark.parametrize("write", [lambda x, value: x.copy_(value), lambda x, value: x.__setitem__(slice(None), value)])
def test_a_list_that_is_written_has_the_dtype_of_the_tensor(write):
    whole = tensor(np.zeros(2, np.int64))
    write(whole, [2**53 + 1, 0.5])
    assert whole.tolist() == [2**53 + 1, 0]
    wrong = [
        ("uint8", [300, 1], OverflowError),
        ("uint8", [-1, 1], OverflowError),
        ("int64", [math.nan, 1], ValueError),
    ]
    for dtype, values, error in [*wrong, ("int64", [2**63, 1], OverflowError), ("float32", [1j, 1], TypeError)]:
        with pytest.raises(error):
            write(tensor(np.zeros(2, dtype)), values)
