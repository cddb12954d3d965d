"""Repeating along axes, against NumPy."""

import numpy as np
import pytest

import minicnn.functional as F
from minicnn import Tensor, gradcheck, tensor


@pytest.mark.parametrize(("before", "after"), [((1, 3), (4, 3)), ((3,), (2, 5, 3)), ((2, 1, 1), (2, 3, 4)), ((), (2,))])
def test_broadcast_to(before, after):
    a = np.random.default_rng(0).standard_normal(before)
    np.testing.assert_array_equal(F.broadcast_to(Tensor(a), after).numpy(), np.broadcast_to(a, after))
    x = tensor(a, requires_grad=True)
    F.broadcast_to(x, after).sum().backward()
    assert x.grad is not None
    np.testing.assert_array_equal(x.grad.numpy(), np.full(before, np.prod(after) / np.prod(before)))
    assert gradcheck(lambda x: F.broadcast_to(x, after) ** 2, [tensor(a, requires_grad=True)])


@pytest.mark.parametrize("after", [(4,), (3, 2), (2, 3, 1)])
def test_broadcast_to_a_shape_that_does_not_fit(after):
    with pytest.raises(ValueError, match=r"broadcast_to: expected a shape that \(1, 3\) broadcasts to, received"):
        F.broadcast_to(Tensor(np.zeros((1, 3))), after)
