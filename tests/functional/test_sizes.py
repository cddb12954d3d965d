"""Numbers of pixels beyond the memory, beyond 64 bits, or of hundreds of digits: one line, at once."""

import numpy as np
import pytest

import minicnn.functional as F
from minicnn import Tensor

X = Tensor(np.zeros((1, 2, 8, 9), np.float32))
ONE, THREE = (Tensor(np.zeros((2, 2, k, k), np.float32)) for k in (1, 3))
HUGE = [2**31, 2**63 - 1, 2**63, 10**20, 10**400]
CALLS = {
    "conv2d padding": lambda n: F.conv2d(X, THREE, padding=n),
    "conv2d one padding": lambda n: F.conv2d(X, THREE, padding=(n, 0)),
    "conv2d stride": lambda n: F.conv2d(X, THREE, stride=n),
    "conv2d stride and padding": lambda n: F.conv2d(X, THREE, stride=n, padding=n),
    "conv2d dilation": lambda n: F.conv2d(X, ONE, dilation=n),
    "conv2d groups": lambda n: F.conv2d(X, THREE, groups=n),
    "max_pool2d kernel_size": lambda n: F.max_pool2d(X, n),
    "max_pool2d kernel_size and padding": lambda n: F.max_pool2d(X, (n, 1), stride=1, padding=(n // 2, 0)),
    "max_pool2d stride": lambda n: F.max_pool2d(X, 2, stride=n),
    "max_pool2d padding": lambda n: F.max_pool2d(X, 2, padding=n),
    "max_pool2d dilation": lambda n: F.max_pool2d(X, 1, dilation=n),
    "avg_pool2d kernel_size": lambda n: F.avg_pool2d(X, n),
    "avg_pool2d kernel_size and padding": lambda n: F.avg_pool2d(X, n, stride=1, padding=n // 2),
    "avg_pool2d stride": lambda n: F.avg_pool2d(X, 2, stride=n, ceil_mode=True),
    "avg_pool2d divisor_override": lambda n: F.avg_pool2d(X, 2, divisor_override=n),
    "adaptive_avg_pool2d output_size": lambda n: F.adaptive_avg_pool2d(X, n),
}


@pytest.mark.parametrize("n", HUGE, ids=lambda n: f"{len(str(n))} digits")
@pytest.mark.parametrize("name", CALLS)
def test_a_huge_argument_is_one_line(name, n):
    with pytest.raises(ValueError, match=f"^{name.split()[0]}: ") as caught:
        CALLS[name](n)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 250


@pytest.mark.parametrize("name", ["conv2d padding", "conv2d stride and padding", "adaptive_avg_pool2d output_size"])
def test_what_no_memory_holds_is_refused_before_it_is_asked_for(name):
    with pytest.raises(ValueError, match=r"expected .* that fits into the memory \([\d,]+ GiB\), received shape .*: "):
        CALLS[name](10**9)


def test_large_arguments_that_make_small_outputs_work():
    assert F.conv2d(X, THREE, stride=2**31 - 1).shape == (1, 2, 1, 1)
    assert F.conv2d(X, ONE, dilation=10**9).shape == (1, 2, 8, 9)
    assert F.max_pool2d(X, 2, stride=10**9).shape == (1, 2, 1, 1)
    assert F.avg_pool2d(X, 10**9, stride=1, padding=5 * 10**8).shape == (1, 2, 9, 10)
