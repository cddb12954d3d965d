"""Plans in bfloat16: one layer at a time, for what is rounded twice may be rounded to two sides."""

import os
import subprocess
import sys
import warnings

import llvmlite.binding as llvm
import numpy as np
import pytest

import minicnn
import minicnn.functional as F
from minicnn import Tensor, backend, nn
from minicnn.backend.cpu import machine
from minicnn.backend.cpu.jit import HAS_BFLOAT16
from minicnn.compile import fuse
from shared.runs import kinds

pytestmark = pytest.mark.skipif(not HAS_BFLOAT16, reason="no AVX512_BF16")

LAYERS = {  # name: inputs without images, weight, options of the convolution or None, what multiplies
    "linear": ((37,), (11, 37), None, "pair_products"),
    "linear, one input": ((1,), (3, 1), None, "pair_products"),
    "1 x 1": ((6, 5, 7), (9, 6, 1, 1), {}, "pair_products"),
    "3 x 3, odd channels": ((5, 6, 7), (13, 5, 3, 3), {"padding": 1}, "pair_products"),
    "strided": ((16, 8, 8), (18, 16, 3, 3), {"stride": 2, "padding": 1}, "pair_products"),
    "two strides": ((7, 9, 8), (4, 7, 3, 2), {"stride": (3, 1), "padding": (0, 2)}, "pair_products"),
    "dilated": ((7, 9, 8), (4, 7, 3, 2), {"dilation": (1, 2)}, "pair_products"),
    "strided 1 x 1": ((20, 9, 9), (33, 20, 1, 1), {"stride": 2}, "pair_products"),
    "strided, dilated": (
        (17, 11, 13),
        (40, 17, 3, 3),
        {"stride": 2, "padding": 2, "dilation": (3, 3)},
        "pair_products",
    ),
    "by threes": ((17, 11, 13), (40, 17, 3, 5), {"stride": 3, "padding": (1, 2), "dilation": (1, 2)}, "pair_products"),
    "no picture seen": ((16, 2, 2), (16, 16, 1, 1), {"stride": 3, "padding": 3}, "pair_products"),
    "wide": ((130, 4, 4), (150, 130, 3, 3), {"stride": 2, "padding": 1}, "pair_products"),
    "by Winograd's method": ((16, 8, 8), (24, 16, 3, 3), {"padding": 1}, "winograd"),
    "by rows": ((3, 9, 12), (5, 3, 5, 5), {}, "products"),
    "wide rows": ((33, 7, 33), (35, 33, 3, 2), {"padding": 1}, "pair_products"),
    "groups": ((6, 5, 5), (4, 3, 3, 3), {"groups": 2}, "conv2d()"),
}

FEW = ("linear, one input", "1 x 1", "two strides", "dilated", "by rows", "groups")
"""Layers with too few channels to fill matrix registers."""
AMX = dict.fromkeys(LAYERS.keys() - FEW, "amx_products")


@pytest.fixture(autouse=True, params=["AMX", "AVX512_BF16"])
def registers(request, monkeypatch):
    """Which instructions multiply: those of matrix registers, where the processor has them, or of vectors alone."""
    if request.param == "AMX" and not machine.has_amx():
        pytest.skip("no AMX")
    monkeypatch.setattr(machine, "has_amx", lambda: request.param == "AMX")
    return request.param


def bfloat16(array):
    return backend.get("reference").kernels.bfloat16(array)


def parts(name, count):
    """The arrays of a layer, with some products that are exactly between two numbers; and the layer."""
    size, weight_size, options, kind = LAYERS[name]
    rng = np.random.default_rng(0)
    x, weight = rng.standard_normal((count, *size)), rng.standard_normal(weight_size)
    bias = rng.standard_normal(weight_size[0])
    x.flat[::7] = 1 + 2**-8
    layer = F.linear if options is None else lambda x, w, b: F.conv2d(x, w, b, **options)
    arrays = [a.astype(np.float32) for a in (x, weight, bias)]
    gradient = rng.standard_normal(layer(*map(Tensor, arrays)).shape).astype(np.float32)
    return arrays, gradient, layer, kind


@pytest.mark.parametrize("count", [5, 8, 20])
@pytest.mark.parametrize("name", LAYERS)
def test_products_of_rounded_operands(name, count, registers):
    """Result and gradients are those in float64 of operands rounded to bfloat16."""
    (x, weight, bias), gradient, layer, kind = parts(name, count)
    states = [Tensor(a, requires_grad=True) for a in (weight, bias)]

    def step(x, gradient):
        leaf = Tensor(x.data, requires_grad=True)
        y = layer(leaf, *states)
        y.backward(gradient)
        return y, leaf.grad, *(state.grad for state in states)

    compiled = minicnn.compile(step, precision="bf16")
    with minicnn.no_grad():
        exact = layer(*(Tensor(a.astype(np.float64)) for a in (bfloat16(x), bfloat16(weight), bias))).numpy()
    for _ in range(2):
        for state in states:
            state.grad = None
        y, gx, gw, gb = (t.numpy() for t in compiled(x, gradient))
        assert np.abs(y - exact).max() < 4e-6 * np.abs(exact).max()
    leaves = [Tensor(bfloat16(a).astype(np.float64), requires_grad=True) for a in (x, weight)]
    layer(*leaves, Tensor(bias.astype(np.float64))).backward(Tensor(bfloat16(gradient).astype(np.float64)))
    for found, leaf in zip((gx, gw), leaves, strict=True):
        expected = leaf.grad.numpy()
        assert np.abs(found - expected).max() < 4e-6 * np.abs(expected).max()
    axes = (0, *range(2, gradient.ndim))
    np.testing.assert_allclose(gb, gradient.sum(axes, dtype=np.float64), rtol=1e-5, atol=1e-5)  # is not rounded
    assert (AMX.get(name, kind) if registers == "AMX" else kind) in kinds(compiled)


@pytest.mark.parametrize("count", [1, 3, 20])
def test_a_prediction_rounds_before_batch_norm_is_folded(count):
    model = nn.Sequential(nn.Conv2d(3, 20, 3, stride=2, bias=False), nn.BatchNorm2d(20), nn.ReLU()).eval()
    rng = np.random.default_rng(count)
    for value in dict(model.named_buffers()).values():
        value.data = rng.random(value.shape, dtype=np.float32) + 0.5
    x = rng.standard_normal((count, 3, 9, 9)).astype(np.float32)
    compiled = minicnn.compile(model, precision="bf16")
    for scale in (1.0, 3.0):
        with minicnn.no_grad():
            model[0].weight *= scale
        found = compiled(x).numpy()
        with minicnn.precision("bf16"), backend.use("reference"), minicnn.no_grad():
            expected = model(Tensor(x)).numpy()
        np.testing.assert_allclose(found, expected, rtol=0, atol=4e-6 * np.abs(expected).max())


def test_a_weight_that_the_step_makes_in_blocks():
    """As many filters as pictures, so that the weight looks like a batch, and its gradient for the input is asked."""
    maker, rng = (
        Tensor(np.random.default_rng(1).standard_normal((16, 3, 3, 3)).astype(np.float32)),
        np.random.default_rng(0),
    )

    def step(x, u, g):
        leaf = Tensor(x.data, requires_grad=True)
        y = F.conv2d(leaf, F.relu(F.conv2d(u, maker, padding=1)), padding=1)
        y.backward(F.relu(g))
        return y, leaf.grad

    x, u, g = (rng.standard_normal(s).astype(np.float32) for s in ((16, 16, 5, 5), (16, 3, 3, 3), (16, 16, 5, 5)))
    compiled = minicnn.compile(step, precision="bf16")
    with minicnn.precision("bf16"), backend.use("reference"):
        expected = [t.numpy() for t in step(Tensor(x), Tensor(u), Tensor(g))]
    for _ in range(2):
        for found, y in zip(compiled(x, u, g), expected, strict=True):
            assert np.abs(found.numpy() - y).max() <= 1e-2 * np.abs(y).max()  # what it makes is rounded twice


def test_without_matrix_registers_none_of_their_code_is_compiled():
    """As for a processor without them, in a process of its own: LLVM would end it."""
    features = llvm.get_host_cpu_features()
    for name in features:
        features[name] = features[name] and not name.startswith("amx")
    variables = {"NUMBA_CPU_NAME": "x86-64-v4", "NUMBA_CPU_FEATURES": features.flatten()}
    code = """if True:
        import numpy as np, minicnn
        from minicnn import nn
        from minicnn.backend.cpu import machine
        assert machine.require_bfloat16() is None and not machine.has_amx()
        model = nn.Conv2d(16, 32, 3, stride=2)
        print(minicnn.compile(model, precision="bf16")(np.ones((20, 16, 8, 8), np.float32)).shape)"""
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | variables, capture_output=True, text=True, timeout=600
    )
    assert done.stdout == "(20, 32, 3, 3)\n", done.stderr


def test_what_two_layers_read_is_rounded_once():
    a, b = nn.Conv2d(4, 6, 1), nn.Conv2d(4, 6, 1)
    compiled = minicnn.compile(lambda x: a(x) + b(x), precision="bf16")
    compiled(np.ones((20, 4, 3, 3), np.float32))
    assert kinds(compiled)["pair"] == 1 and kinds(compiled)["pair_products"] == 2


BETWEEN = {  # two convolutions: what makes pairs at once, forward or backward
    "norm": (lambda c: nn.BatchNorm2d(c), {"norm_grad_and_pair"}),
    "gelu": (lambda c: nn.GELU(), {"gelu_and_slope_and_pair"}),
    "norm, gelu": (
        lambda c: nn.Sequential(nn.BatchNorm2d(c), nn.GELU()),
        {"norm_grad_and_pair", "gelu_and_slope_and_pair"},
    ),
    "pool": (lambda c: nn.MaxPool2d(2), {"max_pool_grad_and_pair"}),
    "high pool": (lambda c: nn.MaxPool2d((3, 2)), {"max_pool_grad_and_pair"}),
    "relu, pool": (lambda c: nn.Sequential(nn.ReLU(), nn.MaxPool2d(2)), {"max_pool_grad_and_pair"}),
    "overlapping pool": (lambda c: nn.MaxPool2d(3, 2), set()),
    "pool with gaps": (lambda c: nn.MaxPool2d(2, 3), set()),
}


@pytest.mark.parametrize("channels", [22, 33])
@pytest.mark.parametrize("count", [5, 16])
@pytest.mark.parametrize("between", BETWEEN)
def test_pairs_that_are_made_at_once_are_those_made_after(between, count, channels, registers, monkeypatch):
    """Bit for bit. Of an odd number of channels they are made after; without AMX too, as others read the numbers."""
    layer, fused = BETWEEN[between]
    x = np.random.default_rng(0).standard_normal((count, 16, 9, 11)).astype(np.float32)

    def trained():
        minicnn.manual_seed(1)
        model = nn.Sequential(
            nn.Conv2d(16, 16, 1),
            nn.Conv2d(16, channels, 3, 2, 1, bias=False),  # the gradient of a bias is of numbers that are not rounded
            layer(channels),
            nn.Conv2d(channels, 18, 3, 2, 1),
        )

        def step(x):
            h = model(x)
            (h * h).mean().backward()
            return [p.grad for p in model.parameters()]

        compiled = minicnn.compile(step, precision="bf16")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return [gradient.numpy() for gradient in compiled(x)], set(kinds(compiled))

    at_once, found = trained()
    whole = {
        kind for kind in fused if count % 8 == 0 or "pool" not in kind
    }  # else zeros for absent images are made between
    expected = set() if channels % 2 or registers != "AMX" else whole
    assert {kind for kind in found if kind.endswith("_and_pair")} == expected
    monkeypatch.setattr(fuse, "_PAIRING", {})
    after, others = trained()
    assert not any(kind.endswith("_and_pair") for kind in others) and "pair" in others
    for a, b in zip(at_once, after, strict=True):
        np.testing.assert_array_equal(a, b)


def test_values_edited_in_between_are_rounded_when_they_are_read():
    weight = Tensor(np.full((2, 4), 1 + 2**-8, np.float32))

    def run(x):
        y = F.linear(x, weight)
        y *= 1.0 + 2**-7
        return F.linear(y, weight[:, :2])

    x = np.random.default_rng(0).standard_normal((9, 4)).astype(np.float32)
    compiled = minicnn.compile(run, precision="bf16")
    with minicnn.precision("bf16"), backend.use("reference"):
        expected = run(Tensor(x)).numpy()
    np.testing.assert_allclose(compiled(x).numpy(), expected, rtol=2e-6)


@pytest.mark.parametrize("count", [1, 5, 8, 20])
@pytest.mark.parametrize("size", [(12,), (16, 6, 6)])
def test_a_weight_may_be_an_input_as_long_as_the_batch(count, size):
    """And the weight of two layers, or what it is multiplied with."""

    def run(x, w):
        layer = F.linear if w.ndim == 2 else (lambda x, w: F.conv2d(x, w, padding=1))
        return layer(x, w), layer(x, w) + layer(x, w * 2.0), layer(x, x[..., :3, :3] if x.ndim == 4 else x)

    rng = np.random.default_rng(0)
    x = rng.standard_normal((count, *size)).astype(np.float32)
    w = rng.standard_normal((count, *size[:1], *[3] * (len(size) - 1))).astype(np.float32)
    compiled = minicnn.compile(run, precision="bf16")
    with minicnn.precision("bf16"), backend.use("reference"):
        expected = [y.numpy() for y in run(Tensor(x), Tensor(w))]
    for _ in range(2):
        for found, y in zip(compiled(x, w), expected, strict=True):
            assert np.abs(found.numpy() - y).max() <= 4e-6 * np.abs(y).max()


@pytest.mark.parametrize("count", [1, 20])
def test_every_nan_stays(count):
    """Also one whose upper half is that of infinity."""
    x = np.ones((count, 4), np.float32)
    x[0, 2] = np.array(0x7F800001, np.uint32).view(np.float32)
    weight = Tensor(np.ones((3, 4), np.float32))
    y = minicnn.compile(lambda x: F.linear(x, weight), precision="bf16")(x).numpy()
    assert np.isnan(y[0]).all() and (y[1:] == 4).all()
