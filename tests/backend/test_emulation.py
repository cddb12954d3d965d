"""The emulation of CUDA finds what a GPU does not forgive: kernels with a fault have another result in some order."""

import importlib.util
import shutil
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.skipif(not shutil.which("g++"), reason="g++ compiles the kernels for the CPU; not found")
ORDERS = [0, -1, 1, 2, 3]
THREADS, BLOCKS = 64, 5
HEAD = """
#define KERNEL extern "C" __global__ void
#define BARRIER __syncthreads();
KERNEL kernel(const float* x, float* y) {
    __shared__ float line[64];
    const int t = threadIdx.x, i = blockIdx.x * 64 + t;
"""
X = np.arange(THREADS * BLOCKS, dtype=np.float32).reshape(BLOCKS, THREADS)
KERNELS = {  # what a kernel does, with HERE for what is right there, or for what is wrong; and its result
    "written and read": ("line[t] = x[i]; HERE y[i] = line[63 - t];", "BARRIER", "", X[:, ::-1]),
    "read and written again": (
        "line[t] = x[i]; BARRIER float a = line[t ^ 32]; HERE line[t] = a; BARRIER y[i] = line[63 - t];",
        "BARRIER",
        "",
        X[:, ::-1].reshape(BLOCKS, 2, 32)[:, ::-1],
    ),
    "within a warp": ("line[t] = x[i]; HERE y[i] = line[t ^ 1];", "__syncwarp();", "", X.reshape(-1, 2)[:, ::-1]),
    "behind an exchange": (  # which holds the threads of one warp
        "line[t] = x[i]; float own = __shfl_sync(0xffffffffu, x[i], t % 32); HERE y[i] = own + line[t ^ 32];",
        "BARRIER",
        "",
        X + np.roll(X, 32, 1),
    ),
    "begun with nothing": (  # and not with what the block before has left
        "if (t == 0) HERE; BARRIER if (t == 63) line[0] += x[i]; BARRIER y[i] = line[0];",
        "line[0] = 0",
        "line[1] = 0",
        np.repeat(X[:, 63:], THREADS, 1),
    ),
    "blocks apart": (
        "if (HERE) y[t] = x[i]; if (blockIdx.x) y[i] = 0;",
        "blockIdx.x == 4",
        "true",
        np.concatenate([X[4:], 0 * X[1:]]),
    ),
}


@pytest.fixture(scope="module")
def cupy():
    spec = importlib.util.spec_from_file_location("fake_cupy", Path(__file__).with_name("fake_cupy.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def results(cupy, monkeypatch, body):
    """The result of a kernel in each order."""
    kernel = cupy.RawModule(code=f"{HEAD}{body}}}", options=()).get_function("kernel")
    for order in ORDERS:
        monkeypatch.setattr(cupy, "order", order)
        y = cupy.empty(X.shape, np.float32)
        kernel((BLOCKS,), (THREADS,), (cupy.asarray(X), y))
        yield y.get()


@pytest.mark.parametrize("name", KERNELS)
def test_a_fault_shows_in_some_order(cupy, monkeypatch, name):
    body, right, wrong, expected = KERNELS[name]
    expected = expected.reshape(X.shape)
    for y in results(cupy, monkeypatch, body.replace("HERE", right)):
        np.testing.assert_array_equal(y, expected)
    found = results(cupy, monkeypatch, body.replace("HERE", wrong))
    assert not all(np.array_equal(y, expected) for y in found)


LANES = X.reshape(-1, 32)
EXCHANGES = {  # between the threads of a warp
    "__shfl_sync(0xffffffffu, x[i], 3)": LANES[:, np.full(32, 3)],
    "__shfl_sync(0xffffffffu, x[i], t + 1, 8)": np.roll(LANES.reshape(-1, 8), -1, 1),
    "__shfl_xor_sync(0xffffffffu, x[i], 5)": LANES[:, np.arange(32) ^ 5],
    "__shfl_up_sync(0xffffffffu, x[i], 2)": LANES[:, np.r_[:2, :30]],
    "__shfl_down_sync(0xffffffffu, x[i], 2, 4)": LANES.reshape(-1, 4)[:, [2, 3, 2, 3]],
    "__ballot_sync(0xffffffffu, t % 32 == 3 || t % 32 == 10)": 1032 + 0 * LANES,
    "t % 32 < 4 ? __shfl_sync(15u, x[i], 2) : 0": np.where(np.arange(32) < 4, LANES[:, 2:3], 0),
    "t % 32 < 4 ? __shfl_sync(15u, x[i], 4) : 0": np.where(
        np.arange(32) < 4, np.nan, 0 * LANES
    ),  # none of the named lanes
}


@pytest.mark.parametrize("exchange", EXCHANGES)
def test_exchanges(cupy, monkeypatch, exchange):
    for y in results(cupy, monkeypatch, f"y[i] = {exchange};"):
        np.testing.assert_array_equal(y, EXCHANGES[exchange].reshape(X.shape))


@pytest.mark.parametrize(
    "body",
    [
        "if (t < 40) { __syncthreads(); if (t < 8) __syncwarp(); }",
        "if (t == 5) __syncwarp();",
        "if (t < 4) __syncwarp(7u);",  # one that is not among those named
        "__syncwarp(t % 2 ? 0xffffffffu : 0x55555555u);",
    ],
)
def test_a_barrier_that_some_never_reach(cupy, monkeypatch, body):
    with pytest.raises(AssertionError, match="a barrier that some threads never reach"):
        list(results(cupy, monkeypatch, body))
