"""The checker must catch what it is there for."""

import numpy as np
import pytest

from minicnn import Tensor, gradcheck
from minicnn.autograd import split_vjps


def inputs(*shapes):
    rng = np.random.default_rng(3)
    return [Tensor(rng.standard_normal(shape), requires_grad=True) for shape in shapes]


def with_gradient(change):
    """y = x^3 / 3 + x with ``change`` applied to its right gradient."""

    def cubic(x):
        a = x.data
        return Tensor.from_op(a**3 / 3 + a, (x,), (lambda gy: change(gy * (a * a + 1)),))

    return cubic


def one_wrong(position, factor):
    def change(gradient):
        gradient = gradient.copy()
        gradient[position] *= factor
        return gradient

    return change


@pytest.mark.parametrize("shape", [(), (1,), (7,), (3, 4, 5), (1000,)])
def test_a_right_gradient_passes(shape):
    assert gradcheck(with_gradient(lambda g: g), inputs(shape)) < 1e-8


@pytest.mark.parametrize("shape", [(), (1,), (7,), (3, 4, 5), (1000,)])
@pytest.mark.parametrize("factor", [1.0005, 0.9995, -1.0, 0.0, 2.0, np.nan])
def test_a_wrong_gradient_is_caught(shape, factor):
    with pytest.raises(
        AssertionError, match=r"gradcheck: input 0: expected .* by finite differences, received .* from backward"
    ):
        gradcheck(with_gradient(lambda g: g * factor), inputs(shape))


@pytest.mark.parametrize("position", [(0, 0), (29, 9), (17, 3)])
def test_one_wrong_element_is_caught(position):
    for factor in (1.01, 0.0, -1.0):
        with pytest.raises(AssertionError):
            gradcheck(with_gradient(one_wrong(position, factor)), inputs((30, 10)))


@pytest.mark.parametrize("permutation", [np.flip, np.transpose, lambda g: np.roll(g, 1)])
def test_right_elements_in_wrong_places_are_caught(permutation):
    with pytest.raises(AssertionError):
        gradcheck(with_gradient(permutation), inputs((4, 4)))


def test_a_missing_gradient_is_caught():
    with pytest.raises(AssertionError, match="expected a gradient of input 1, received none"):
        gradcheck(lambda x, y: x * 2 + y.detach() ** 2, inputs((3,), (3,)))


def test_a_gradient_of_the_other_input_is_caught():
    def swapped(x, y):
        a, b = x.data, y.data
        return Tensor.from_op(a * b, (x, y), split_vjps(lambda gy: (gy * a, gy * b), 2))

    with pytest.raises(AssertionError, match="input 0"):
        gradcheck(swapped, inputs((3,), (3,)))


def test_a_true_zero_gradient_passes():
    assert gradcheck(lambda x: x * 0 + 1, inputs((3,))) < 1e-6
    assert gradcheck(lambda x: (x.exp() / x.exp().sum()).sum(), inputs((5,))) < 1e-6


def test_a_zero_where_a_gradient_belongs_is_caught():
    with pytest.raises(AssertionError):
        gradcheck(with_gradient(lambda g: g * 0), inputs((5,)))


def test_inputs_that_ask_for_nothing_are_constants():
    x, index = inputs((4,))[0], Tensor(np.array([0, 2, 2]))
    assert gradcheck(lambda x, i: x[i], [x, index]) < 1e-6
    assert x.grad is None


@pytest.mark.parametrize(
    "tensors, error, message",
    [
        ([Tensor(np.ones(2, np.float32), requires_grad=True)], TypeError, "expected float64 inputs"),
        ([Tensor(np.ones(2))], ValueError, "an input that requires a gradient, received none"),
        ([], ValueError, "received none"),
    ],
)
def test_inputs_it_cannot_check_are_refused(tensors, error, message):
    with pytest.raises(error, match=f"gradcheck: .*{message}"):
        gradcheck(lambda *t: t[0] * 2, tensors)
