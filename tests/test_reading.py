"""Tensors as Python and NumPy read them, and as they compare."""

import operator

import numpy as np
import pytest

import minicnn
import minicnn.functional as F
from minicnn import Tensor, backend, nn

A = np.array([[1.0, -2.0, 3.0], [0.0, np.nan, np.inf]])
B = np.array([[1.0, 2.0, 3.0], [-0.0, np.nan, -np.inf]])
COMPARISONS = [operator.eq, operator.ne, operator.lt, operator.le, operator.gt, operator.ge]


# Comparisons


@pytest.mark.parametrize("compare", COMPARISONS)
@pytest.mark.parametrize("other", [B, B[0], B[:, 1:2], B.astype(np.float32), B[:1].astype(np.int64), 1, 1.0, True])
def test_comparisons_agree_with_torch(compare, other, dtype, backend_name, torch):
    a = A.astype(dtype)
    theirs = torch.tensor(other) if isinstance(other, np.ndarray) else other
    ours = Tensor(other) if isinstance(other, np.ndarray) else other
    x = Tensor(a, requires_grad=True)
    for found, expected in (
        (compare(x, ours), compare(torch.tensor(a), theirs)),
        (compare(ours, x), compare(theirs, torch.tensor(a))),
    ):
        assert found.dtype == bool and not found.requires_grad
        np.testing.assert_array_equal(found.numpy(), expected.numpy())


@pytest.mark.parametrize("compare", COMPARISONS)
def test_comparison_with_something_else(compare):
    x = Tensor(A)
    for other in (A, [1.0, 2.0, 3.0]):
        with pytest.raises(TypeError, match="expected a Tensor or a number, received|not supported between"):
            compare(x, other)
        with pytest.raises(TypeError, match="expected a Tensor or a number, received|not supported between"):
            compare(other, x)
    with pytest.raises(ValueError, match=r"expected shapes that broadcast, received \(2, 3\) and \(2,\)"):
        compare(x, Tensor(A[:, 0]))
    if compare in COMPARISONS[:2]:
        assert compare(x, None) is compare(x, "text") is (compare is operator.ne)
    else:
        with pytest.raises(TypeError, match="not supported between"):
            compare(x, None)


def test_tensors_are_keys_by_identity():
    a, b = Tensor(A), Tensor(A)
    assert len({a, b, a}) == 2 and {a: 1, b: 2}[b] == 2
    p = nn.Parameter(A)
    assert {p: 1}[p] == 1 and hash(p) != hash(a)


def test_the_share_of_right_answers():
    logits = Tensor(np.array([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7]]))
    labels = Tensor(np.array([1, 0, 0], np.uint8))
    right = logits.argmax(1) == labels
    assert right.tolist() == [True, True, False] and right.sum().item() == 2 and float(right.mean()) == 2 / 3
    assert logits[right].tolist() == [[0.1, 0.9], [0.8, 0.2]]


# Extremes


@pytest.mark.parametrize("name", ["max", "min"])
@pytest.mark.parametrize("dim", [0, 1, -1, None])
@pytest.mark.parametrize("keepdim", [False, True])
def test_extremes_agree_with_torch(name, dim, keepdim, dtype, backend_name, torch):
    values = np.random.default_rng(0).integers(-2, 3, (4, 5, 3)).astype(dtype)  # with ties
    values[1, 2, 1] = np.nan
    x, twin = Tensor(values, requires_grad=True), torch.tensor(values, requires_grad=True)
    options = {} if dim is None else {"dim": dim, "keepdim": keepdim}
    ours, theirs = getattr(x, name)(**options), getattr(twin, name)(**options)
    if dim is not None:
        largest, where = ours
        assert largest is ours.values and where is ours.indices and where.dtype == np.int64
        positions = where.numpy() if keepdim else np.expand_dims(where.numpy(), dim)
        picked = np.take_along_axis(values, positions, dim).reshape(largest.shape)
        np.testing.assert_array_equal(picked, largest.numpy())
        ours, theirs = largest, theirs.values
    np.testing.assert_array_equal(ours.numpy(), theirs.detach().numpy())
    index = getattr(x, "arg" + name)(dim, keepdim)
    expected = getattr(np, "arg" + name)(values, axis=dim, keepdims=keepdim)
    assert not index.requires_grad and index.dtype == np.int64
    np.testing.assert_array_equal(index.numpy(), expected)


def test_extremes_of_integers_and_booleans():
    x = Tensor(np.array([[3, 1], [2, 7]]))
    largest, where = x.max(1)
    assert largest.tolist() == [3, 7] and where.tolist() == [0, 1] and largest.dtype == np.int64
    assert x.min().item() == 1 and (x > 2).max(0)[0].tolist() == [True, True] and x.argmin().item() == 1


@pytest.mark.parametrize("name", ["max", "min", "amax", "amin", "argmax", "argmin"])
def test_extremes_of_nothing_and_wrong_axes(name):
    extreme = getattr(Tensor(np.zeros((0, 3))), name)
    with pytest.raises(ValueError, match=rf"{name}: expected at least one element .* received shape \(0, 3\)"):
        extreme()
    with pytest.raises(ValueError, match=rf"{name}: expected at least one element .* received shape \(0, 3\)"):
        extreme(0)
    with pytest.raises(ValueError, match=f"{name}: expected distinct axes"):
        extreme(2)
    if name in ("max", "min"):
        for other in ((0, 1), Tensor(np.zeros(3)), 1.0):
            with pytest.raises(TypeError, match=f"{name}: expected dim as one axis, received .*; use a{name}"):
                getattr(Tensor(np.zeros((2, 3))), name)(other)


# Reading


@pytest.mark.parametrize("value", [2.5, -0.0, 3, True])
@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
def test_one_element_is_a_number(value, shape):
    x = Tensor(np.full(shape, value))
    assert float(x) == value and int(x) == int(value) and bool(x) is bool(value)
    assert f"{x:.3f}" == f"{value:.3f}" and x.item() == value and complex(x) == value
    if isinstance(value, int):
        assert operator.index(x) == value and [10, 11, 12, 13][x] == 10 + value
    else:
        with pytest.raises(TypeError, match="index: expected a tensor of integers, received float64"):
            operator.index(x)


def test_loss_as_text():
    loss = F.cross_entropy(Tensor(np.zeros((2, 4), np.float32), requires_grad=True), np.array([0, 1]))
    assert f"{loss:.3f}" == "1.386" and f"{loss}" == str(loss.item()) and f"{float(loss):.2f}" == "1.39"
    rows = Tensor(np.zeros((1, 2), np.float32))
    assert f"{rows}" == str(rows) == repr(rows)
    with pytest.raises(TypeError, match=r"format: expected a tensor of one element for '.2f', received shape \(1, 2\)"):
        f"{rows:.2f}"


@pytest.mark.parametrize("shape", [(0,), (2,), (1, 2)])
@pytest.mark.parametrize("read", [bool, float, int, operator.index])
def test_more_elements_are_no_number(read, shape):
    x = Tensor(np.zeros(shape, np.int64))
    with pytest.raises(ValueError, match="expected a tensor of one element, received shape"):
        read(x)
    with pytest.raises(ValueError, match=r"bool: .* received shape \(2, 3\); ask numpy\(\).any\(\)"):
        assert Tensor(A) == Tensor(A)


def test_walking_and_finding():
    x = Tensor(np.arange(6.0).reshape(3, 2), requires_grad=True)
    rows = list(x)
    assert [row.tolist() for row in rows] == [[0, 1], [2, 3], [4, 5]]
    (rows[1].sum() + rows[2][0]).backward()
    assert x.grad.tolist() == [[0, 0], [1, 1], [1, 0]]
    first, second, third = x
    assert third.tolist() == [4, 5] and len(x) == 3
    assert 3 in x and 3.5 not in x and Tensor(5.0) in x and Tensor(np.array([2.0, 3.0])) in x
    with pytest.raises(TypeError, match="in: expected a number or a Tensor, received str"):
        "a" in x  # noqa: B015
    with pytest.raises(TypeError, match="iter: expected a tensor with axes"):
        iter(Tensor(1.0))


def test_numpy_reads_the_elements():
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    for x in (Tensor(array), Tensor(array, requires_grad=True), nn.Parameter(array)):
        assert np.shares_memory(np.asarray(x), array) and np.asarray(x).dtype == np.float32
        assert not np.shares_memory(np.array(x), array)
        assert np.asarray(x, dtype=np.float64).dtype == np.float64
        assert np.shares_memory(np.asarray(x, copy=False), array)
        with pytest.raises(ValueError, match="copy is False, received float64"):
            np.asarray(x, dtype=np.float64, copy=False)
        assert np.mean(x) == 2.5 and np.allclose(x, array) and np.max(x) == 5 and np.argmax(x) == 5
        np.testing.assert_array_equal(np.sum(x, axis=0), array.sum(0))
        np.testing.assert_array_equal(np.stack([x, x]), np.stack([array, array]))
        np.testing.assert_array_equal(np.array(list(x)), array)
        np.testing.assert_array_equal(np.where(x > 2, x, 0), np.where(array > 2, array, 0))
        np.testing.assert_array_equal(np.interp([0.5], x[0], x[1]), [3.5])
    assert Tensor(Tensor(array)).numpy() is array and minicnn.tensor([Tensor(1.0), Tensor(2.0)]).tolist() == [1, 2]
    with pytest.raises(TypeError, match="does not support ufuncs"):
        np.exp(Tensor(array))


def test_numpy_receives_a_copy_from_a_gpu():
    class Elsewhere:
        """An array as CuPy's."""

        shape, ndim, dtype = (2,), 1, np.dtype(np.float32)

        def get(self):
            return np.ones(2, np.float32)

    x = Tensor(np.zeros(2, np.float32))
    x.data = Elsewhere()
    assert np.asarray(x).tolist() == np.array(x).tolist() == [1, 1] and np.mean(x) == 1
    with pytest.raises(ValueError, match="expected float32 in the memory of the CPU where copy is False"):
        np.asarray(x, copy=False)


# In a function that is recorded

READS = {
    "bool": bool,
    "float": float,
    "int": int,
    "format": lambda x: f"{x:.3f}",
    "text": lambda x: f"{x}",
    "in": lambda x: 1.0 in x,
    "asarray": np.asarray,
    "mean": np.mean,
    "list of tensors": lambda x: np.stack([x, x]),
    "item": Tensor.item,
    "tolist": Tensor.tolist,
    "branch": lambda x: 1 if x > 0 else 2,
    "index": lambda x: operator.index(x.reshape(1).argmax(0)),
    "mask": lambda x: x.reshape(1)[x.reshape(1) > 0],
}


@pytest.mark.parametrize("name", READS)
def test_reading_inside_a_compiled_function_is_an_error(name):
    def function(x):
        READS[name](x.sum())
        return x

    x = Tensor(np.ones((2, 3), np.float32))
    function(x)
    with pytest.raises(RuntimeError, match="compile: .* goes past the kernels"):
        minicnn.compile(function)(x)


def test_comparisons_inside_a_compiled_function_follow_its_input():
    def function(x, y):
        values, indices = x.max(1)
        return (x > y).astype("float32"), x == y, values, indices, (indices != x.argmin(1)).sum()

    compiled = minicnn.compile(function)
    rng = np.random.default_rng(0)
    for _ in range(3):
        x, y = (rng.integers(0, 3, (9, 4)).astype(np.float32) for _ in range(2))
        with backend.use("reference"):
            expected = function(Tensor(x), Tensor(y))
        for found, wanted in zip(compiled(x, y), expected, strict=True):
            assert found.dtype == wanted.dtype
            np.testing.assert_array_equal(found.numpy(), wanted.numpy())
