"""Long sums of a plan round little: they are made of short ones."""

import numpy as np
import pytest

import minicnn
import minicnn.functional as F
from minicnn import Tensor
from shared.runs import kinds

CASES = {  # name: function of x and a weight, their sizes, what sums
    "linear": (F.linear, (4096,), (19, 4096), {"products", "channel_products"}),
    "strided": (lambda x, w: F.conv2d(x, w, stride=2), (256, 5, 5), (19, 256, 4, 4), {"products", "channel_products"}),
    "3 x 3": (
        lambda x, w: F.conv2d(x, w, padding=1), (512, 4, 4), (64, 512, 3, 3),
        {"wide_products", "winograd", "channel_products"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("count", [1, 8, 33])
@pytest.mark.parametrize("name", CASES)
def test_rounding(name, count):
    """The terms are positive, so that what is rounded grows with every term: in one go by 6e-7 of the sum and more."""
    function, x_size, weight_size, summing = CASES[name]
    rng = np.random.default_rng(0)
    x, weight = rng.random((count, *x_size), dtype=np.float32), rng.random(weight_size, dtype=np.float32)
    compiled = minicnn.compile(lambda x: function(x, Tensor(weight)))
    found = compiled(x).numpy()
    expected = function(Tensor(x.astype(np.float64)), Tensor(weight.astype(np.float64))).numpy()
    assert set(kinds(compiled)) & summing
    assert np.sqrt(np.mean((found / expected - 1) ** 2)) < 4e-7
