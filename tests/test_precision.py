"""bfloat16: what is rounded, against PyTorch on rounded operands, and where the precision holds."""

import copy
import os
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import numpy as np
import pytest

import minicnn
import minicnn.functional as F
from minicnn import Tensor, backend, get_precision, nn, precision
from minicnn.backend.cpu import jit

needs_bfloat16 = pytest.mark.skipif(not jit.HAS_BFLOAT16, reason="the processor has no AVX512_BF16")
ON_CPU = pytest.param("numpy", marks=needs_bfloat16)
COMPILED = pytest.param("compiled", marks=needs_bfloat16)
CONVOLUTIONS = {  # channels and size of the input, weight (O, C/groups, KH, KW), options
    "plain": ((3, 7, 6), (4, 3, 3, 2), {}),
    "stride and padding": ((5, 9, 8), (6, 5, 3, 3), {"stride": (2, 1), "padding": (1, 2)}),
    "groups": ((4, 6, 5), (6, 2, 3, 3), {"groups": 2, "padding": 1}),
    "3 x 3": ((16, 8, 12), (24, 16, 3, 3), {"padding": 1}),
    "5 x 5": ((6, 14, 14), (16, 6, 5, 5), {}),
    "1 x 1": ((16, 5, 6), (8, 16, 1, 1), {"stride": 2}),
}
TOLERANCE = 1e-4  # of sums in float32, by Winograd's methods too; rounding to bfloat16 changes results by 1e-3


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def results(way, function, x, gy, *weights):
    """Output and gradients, by the input first, of a step that is compiled or runs on a backend."""
    shift = Tensor(np.zeros_like(x), requires_grad=True)  # its gradient is that by the input
    parameters = [shift, *(Tensor(a, requires_grad=True) for a in weights)]

    def step(x, gy):
        for p in parameters:
            p.grad = None
        y = function(x + shift, *parameters[1:])
        y.backward(gy)
        return y, *(p.grad for p in parameters)

    with precision("bf16"):
        if way == "compiled":
            return [t.numpy() for t in minicnn.compile(step)(x, gy)]
        with backend.use(way):
            return [t.numpy() for t in step(Tensor(x), Tensor(gy))]


def expected(torch, function, x, gy, weight, bias):
    """The same by PyTorch in float64, of operands that PyTorch rounds; the bias and its gradient are not."""
    x, gy, weight, bias = map(torch.tensor, (x, gy, weight, bias))
    operands = [t.bfloat16().double().requires_grad_() for t in (x, weight)]
    y = function(*operands, bias.double())
    y.backward(gy.bfloat16().double())
    sums = gy.double().sum([axis for axis in range(gy.ndim) if axis != (1 if gy.ndim == 4 else gy.ndim - 1)])
    return [t.numpy() for t in (y.detach(), *(t.grad for t in operands), sums)]


def agree(found, expected, close):
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == np.float32 and a.shape == b.shape
        close(a, b, TOLERANCE)


# What is rounded


@pytest.mark.parametrize("count", [1, 8, 20])
@pytest.mark.parametrize("way", ["reference", ON_CPU, COMPILED])
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_a_convolution_is_that_of_rounded_operands(torch, close, name, way, count):
    shape, window, options = CONVOLUTIONS[name]
    x, weight, bias = normal(count, *shape), normal(*window, seed=1), normal(window[0], seed=2)
    gy = normal(*F.conv2d(Tensor(x), Tensor(weight), **options).shape, seed=3)
    found = results(way, lambda *t: F.conv2d(*t, **options), x, gy, weight, bias)
    theirs = expected(torch, lambda *t: torch.nn.functional.conv2d(*t, **options), x, gy, weight, bias)
    agree(found, theirs, close)


@pytest.mark.parametrize("shape", [(1, 20), (8, 20), (20, 20), (2, 7, 20)])
@pytest.mark.parametrize("way", ["reference", ON_CPU, COMPILED])
def test_a_linear_layer_is_that_of_rounded_operands(torch, close, way, shape):
    x, weight, bias = normal(*shape), normal(12, 20, seed=1), normal(12, seed=2)
    gy = normal(*shape[:-1], 12, seed=3)
    agree(
        results(way, F.linear, x, gy, weight, bias),
        expected(torch, torch.nn.functional.linear, x, gy, weight, bias),
        close,
    )


@needs_bfloat16
@pytest.mark.parametrize("count", [1, 8, 20])
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_a_compiled_prediction_is_that_of_rounded_operands(torch, close, name, count):
    shape, (outputs, _, *window), options = CONVOLUTIONS[name]
    layer, x = nn.Conv2d(shape[0], outputs, tuple(window), **options), normal(count, *shape)
    found = minicnn.compile(layer, precision="bf16")(x).numpy()
    operands = (torch.tensor(a).bfloat16().double() for a in (x, layer.weight.numpy()))
    y = torch.nn.functional.conv2d(*operands, torch.tensor(layer.bias.numpy()).double(), **options)
    close(found, y.numpy(), TOLERANCE)


@pytest.mark.parametrize("way", ["reference", ON_CPU, COMPILED])
def test_to_the_nearest_and_of_two_to_the_even_one(way):
    """Eight bits of significand: between 1 and 2 the numbers are 2^-7 apart."""
    given = [1 + 2**-9, 1 + 2**-8, 1 + 2**-8 + 2**-20, 1 + 3 * 2**-8, -1 - 3 * 2**-8, 0.0]
    nearest = [1, 1, 1 + 2**-7, 1 + 2**-6, -1 - 2**-6, 0.0]
    column, one = np.float32(given)[:, None], np.ones((1, 1), np.float32)
    y, gx, gw = results(way, F.linear, column, column, one)
    assert y.ravel().tolist() == gx.ravel().tolist() == nearest
    assert gw.item() == np.float32(np.square(nearest).sum())


def test_float64_stays_as_it_is():
    x, weight, gy = (normal(*shape).astype(np.float64) for shape in ((8, 3, 6, 6), (4, 3, 3, 3), (8, 4, 4, 4)))

    def step(x, gy):
        w = Tensor(weight, requires_grad=True)
        y = F.conv2d(x, w)
        y.backward(gy)
        return y.numpy(), w.grad.numpy()

    plain = step(Tensor(x), Tensor(gy))
    with precision("bf16"):
        for a, b in zip(step(Tensor(x), Tensor(gy)), plain, strict=True):
            np.testing.assert_array_equal(a, b)
        layer = minicnn.compile(lambda x: F.conv2d(x, Tensor(weight)))
        np.testing.assert_allclose(layer(x).numpy(), plain[0], rtol=1e-12, atol=1e-12)


def test_a_processor_without_bfloat16(monkeypatch):
    monkeypatch.setattr(jit, "HAS_BFLOAT16", False)
    layer, x = nn.Conv2d(3, 4, 3), normal(8, 3, 6, 6)
    with precision("bf16"):
        for predict in (layer, minicnn.compile(layer)):
            with pytest.raises(RuntimeError, match="bf16: expected a processor with AVX512_BF16, this one has none"):
                predict(Tensor(x))
        with backend.use("reference"):
            assert layer(Tensor(x)).shape == (8, 4, 4, 4)
    assert minicnn.compile(layer, precision="float32")(x).shape == (8, 4, 4, 4)


# Where it holds


def test_inside_outside_and_after_an_error():
    assert get_precision() == "float32"
    half = precision("bf16")
    with half:
        assert get_precision() == "bf16"
        with precision("float32"):
            assert get_precision() == "float32"
            with half:
                assert get_precision() == "bf16"
        assert get_precision() == "bf16"
    with pytest.raises(KeyError), half:
        raise KeyError
    assert get_precision() == "float32"


def test_a_generator_that_is_closed_within_another():
    def inside():
        with precision("bf16"):
            yield

    opened = inside()
    next(opened)
    with precision("float32"):
        opened.close()
        assert get_precision() == "float32"
    assert get_precision() == "float32"


def test_the_processor_that_numba_compiles_for_decides():
    code = "from minicnn.backend.cpu.jit import HAS_BFLOAT16; assert not HAS_BFLOAT16"
    environment = os.environ | {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


def test_another_thread_keeps_its_own():
    with ThreadPoolExecutor(1) as pool, precision("bf16"):
        assert pool.submit(get_precision).result() == "float32" and get_precision() == "bf16"


def test_threads_that_share_one():
    """It is entered and left in each in its own order."""
    shared, inside = precision("bf16"), Barrier(2, timeout=600)

    def first():
        with shared:
            inside.wait()
            inside.wait()  # the other has left it
            assert get_precision() == "bf16"
        return get_precision()

    def second():
        inside.wait()
        with shared:
            assert get_precision() == "bf16"
        left = get_precision()
        inside.wait()
        return left

    with ThreadPoolExecutor(2) as pool:
        assert [future.result() for future in [pool.submit(first), pool.submit(second)]] == ["float32", "float32"]


def test_tf32_is_of_gpus():
    with precision("tf32"), pytest.raises(RuntimeError, match="tf32: expected a GPU, received arrays of the CPU"):
        F.linear(Tensor(np.ones((2, 3), np.float32)), Tensor(np.ones((4, 3), np.float32)))
    with backend.use("reference"), precision("tf32"):
        y = F.linear(Tensor(np.float32([[1 + 2**-11]])), Tensor(np.float32([[3]])))
    assert y.item() == 3 * (1 + 2**-10)


@pytest.mark.parametrize(
    ("where", "make"),
    [("precision", precision), ("compile", lambda name: minicnn.compile(F.relu, precision=name))],
)
def test_an_unknown_name(where, make):
    with pytest.raises(ValueError, match=f"{where}: expected precision float32, tf32 or bf16, received 'fp16'"):
        make("fp16")


LAYERS = {
    "conv2d": (F.conv2d, (8, 3, 6, 6), (4, 3, 3, 3)),
    "linear": (F.linear, (8, 20), (12, 20)),
}


def gradients(function, x, w, forward, backward):
    """The gradients of y^2 / 2 summed, where forward and backward run within precisions of their own."""
    x, w = Tensor(x, requires_grad=True), Tensor(w, requires_grad=True)
    with precision(forward):
        y = function(x, w)
    with precision(backward):
        y.backward(y.detach())
    return x.grad.numpy(), w.grad.numpy()


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("way", ["reference", ON_CPU])
def test_backward_rounds_as_forward_did(name, way):
    function, *shapes = LAYERS[name]
    x, w = (normal(*shape) for shape in shapes)
    with backend.use(way):
        pairs = {
            (one, other): gradients(function, x, w, one, other)
            for one in ("float32", "bf16")
            for other in ("float32", "bf16")
        }
    for kind in range(2):
        for one in ("float32", "bf16"):
            np.testing.assert_array_equal(pairs[one, "float32"][kind], pairs[one, "bf16"][kind])
        assert not np.allclose(pairs["float32", "float32"][kind], pairs["bf16", "bf16"][kind], rtol=1e-4)


# Compiled


@pytest.fixture
def answers():
    """A layer, an input, and what the layer makes of it within each precision."""
    layer, x = nn.Linear(20, 12), normal(8, 20)
    found = {}
    for name in ("float32", "bf16"):
        with precision(name):
            found[name] = layer(Tensor(x)).detach().numpy()
    assert not np.allclose(found["float32"], found["bf16"], rtol=1e-4)
    return layer, x, found


@needs_bfloat16
def test_a_compiled_function_follows_its_caller_with_a_plan_for_each(answers, close):
    layer, x, found = answers
    fast = minicnn.compile(layer)
    for _ in range(2):
        for name in ("bf16", "float32"):
            with precision(name):
                close(fast(x).numpy(), found[name], 1e-5)
    assert len(fast.plans) == 2


@needs_bfloat16
@pytest.mark.parametrize("around", ["float32", "bf16"])
@pytest.mark.parametrize("name", ["float32", "bf16"])
def test_a_compiled_function_with_a_precision_of_its_own(answers, close, name, around):
    layer, x, found = answers
    fast = minicnn.compile(layer, precision=name)
    with precision(around):
        close(fast(x).numpy(), found[name], 1e-5)
        assert get_precision() == around
    assert len(fast.plans) == 1


@needs_bfloat16
@pytest.mark.parametrize("twin", [copy.deepcopy, lambda f: pickle.loads(pickle.dumps(f))])
def test_a_copy_keeps_its_precision(answers, twin):
    layer, x, _ = answers
    fast = minicnn.compile(layer, precision="bf16")
    other = twin(fast)
    assert other.precision == "bf16" and not other.plans
    np.testing.assert_array_equal(other(x).numpy(), fast(x).numpy())
    assert twin(minicnn.compile(layer)).precision is None
