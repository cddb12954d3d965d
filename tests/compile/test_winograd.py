"""3 x 3 convolutions by Winograd's transform, and their gradients: exact on small integers, close to float64."""

import contextlib

import numpy as np
import pytest

import minicnn
import minicnn.functional as F
from minicnn import Tensor, backend, optim
from minicnn.backend.cpu import machine
from minicnn.backend.cpu.jit import HAS_BFLOAT16
from minicnn.backend.cpu.transforms import FILTERS, POINTS, matrices
from minicnn.models.vgg import VGG
from shared.runs import kinds, nodes_of

BFLOAT16 = pytest.mark.skipif(not HAS_BFLOAT16, reason="no AVX512_BF16")


@pytest.mark.parametrize("edge", [2, 4])
def test_matrices(edge):
    """In float64 the transforms are the convolution; A and B are exact in float32, and G too for 2 x 2 outputs."""
    a, b, g = matrices(POINTS[edge], 3)
    for exact in (a, b, *([g] if edge == 2 else [])):
        np.testing.assert_array_equal(exact, exact.astype(np.float32))
    (used,) = (f for f in FILTERS if len(f) == (edge + 2) ** 2)
    np.testing.assert_array_equal(used, np.kron(g, g).astype(np.float32))
    rng = np.random.default_rng(0)
    for _ in range(20):
        pixels, taps = rng.integers(-8, 9, (edge + 2, edge + 2)), rng.integers(-8, 9, (3, 3))
        direct = [[(pixels[i : i + 3, j : j + 3] * taps).sum() for j in range(edge)] for i in range(edge)]
        found = a.T @ (g @ taps @ g.T * (b @ pixels @ b.T)) @ a
        np.testing.assert_allclose(found, direct, rtol=0, atol=0 if edge == 2 else 1e-11)


def test_matrices_of_two_outputs():
    """Those of Lavin and Gray, 2016, but for signs that cancel."""
    a, b, g = matrices(POINTS[2], 3)
    np.testing.assert_array_equal(a.T, [[1, 1, 1, 0], [0, 1, -1, 1]])
    np.testing.assert_array_equal(b, [[-1, 0, 1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, -1, 0, 1]])
    np.testing.assert_array_equal(g, [[-1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])


def step(x, weight, bias, g, relu):
    """Convolution and its three gradients; the one for x exists where x is not the pictures themselves."""
    leaves = [Tensor(t.data, requires_grad=True) for t in (x, weight, *([] if bias is None else [bias]))]
    y = F.conv2d(*leaves, padding=1)
    y = F.relu(y) if relu else y
    y.backward(g)
    return y, *(leaf.grad for leaf in leaves)


CASES = [  # images, inputs, outputs, height, width, bias, relu, tiles of the convolution, of the gradient and its kind
    (8, 16, 16, 2, 2, True, False, 2, 2, "winograd_gradient"),
    (1, 16, 16, 2, 12, True, True, 2, 2, "winograd_gradient"),
    (5, 24, 17, 4, 6, False, False, 2, 2, "winograd_gradient"),
    (13, 16, 136, 2, 8, True, True, 2, 2, "winograd_gradient"),
    (17, 17, 16, 6, 2, True, True, 2, 0, "weight_gradient"),
    (9, 20, 30, 4, 4, False, True, 2, 0, "weight_gradient"),
    (8, 131, 129, 2, 2, True, False, 2, 0, "weight_gradient"),
    (1, 136, 136, 4, 2, True, True, 2, 2, "winograd_operands"),
    (17, 136, 121, 2, 4, False, False, 2, 2, "winograd_operands"),
    (9, 128, 128, 2, 2, False, True, 2, 2, "winograd_gradient"),
    (9, 128, 129, 6, 2, True, False, 2, 2, "winograd_operands"),
    (1, 16, 16, 16, 12, True, True, 4, 4, "winograd_gradient"),
    (5, 24, 17, 4, 12, False, False, 4, 4, "winograd_gradient"),
    (13, 16, 136, 12, 4, True, True, 4, 4, "winograd_gradient"),
    (9, 128, 128, 8, 8, False, True, 4, 4, "winograd_gradient"),
    (17, 17, 19, 20, 4, True, True, 4, 0, "weight_gradient"),
    (8, 131, 129, 8, 8, True, False, 4, 0, "weight_gradient"),
    (1, 136, 121, 8, 12, True, True, 4, 4, "winograd_operands"),
    (17, 136, 129, 4, 12, False, False, 4, 4, "winograd_operands"),
    (9, 136, 136, 4, 4, True, True, 4, 4, "winograd_operands"),
    (3, 136, 128, 4, 8, False, True, 2, 4, "winograd_operands"),
    (1, 16, 16, 18, 12, True, True, 4, 4, "winograd_gradient"),  # from here on tiles stand over the picture
    (9, 24, 17, 31, 31, True, True, 4, 4, "winograd_gradient"),
    (13, 16, 17, 7, 9, False, True, 4, 4, "winograd_gradient"),
    (5, 16, 24, 13, 6, True, False, 4, 4, "winograd_gradient"),
    (9, 16, 20, 10, 14, True, False, 4, 4, "winograd_gradient"),
    (5, 24, 16, 5, 5, False, True, 2, 2, "winograd_gradient"),
    (9, 17, 19, 7, 7, True, True, 4, 0, "weight_gradient"),
    (17, 136, 121, 3, 3, True, True, 4, 4, "winograd_operands"),
    (9, 136, 129, 7, 15, False, True, 4, 4, "winograd_operands"),
    (3, 136, 128, 5, 10, True, False, 4, 4, "winograd_operands"),
    (9, 136, 128, 5, 5, True, False, 2, 2, "winograd_operands"),
]
TOLERANCE = {0: 2e-6, 2: 2e-6, 4: 4e-6}
"""Of the largest result, by the tiles. The transforms of F(4 x 4) round more: what they make was within 2.2e-6."""


@pytest.mark.parametrize("count, inputs, outputs, height, width, bias, relu, edge, gradient_edge, kind", CASES)
def test_close_to_float64(count, inputs, outputs, height, width, bias, relu, edge, gradient_edge, kind):
    rng = np.random.default_rng(0)
    sizes = [(count, inputs, height, width), (outputs, inputs, 3, 3), (outputs,), (count, outputs, height, width)]
    x, weight, b, g = (rng.standard_normal(size).astype(np.float32) for size in sizes)
    arrays = [x, weight, b if bias else None, g]
    narrow, wide = ([None if a is None else Tensor(a.astype(d)) for a in arrays] for d in ("float32", "float64"))
    compiled = minicnn.compile(lambda x, g: step(x, *narrow[1:3], g, relu))
    with backend.use("reference"):
        expected = [t.numpy() for t in step(*wide, relu)]
    for _ in range(2):
        found = [t.numpy() for t in compiled(x, g)]
        for a, e, tiles in zip(found, expected, (edge, edge, gradient_edge, 0), strict=False):
            assert np.abs(a - e).max() < TOLERANCE[tiles] * np.abs(e).max()
    nodes = kinds(compiled)
    # where blocks share a weight that is in no cache, products are made for all of them at once
    transform = "spread_tiles" if count > 8 and inputs * outputs > 128 * 128 else "winograd"
    assert nodes[transform] == 2 and nodes[kind] == 1 and "products" not in nodes, nodes
    (plan,) = compiled.plans.values()
    edges = {node.kind: node.operands.get("edge", 0) for node in nodes_of(plan)}
    assert edges[transform] == edge and edges[kind] == gradient_edge


def test_a_network_rounds_little_more_than_direct_sums():
    """Errors against float64, of the largest logit: the plan's F(4 x 4), and eager float32, which sums directly."""
    minicnn.manual_seed(0)
    model = VGG(widths=(32, 64), dropout=0.0).eval()
    x = np.random.default_rng(0).standard_normal((17, 3, 32, 32)).astype(np.float32)
    compiled = minicnn.compile(model)
    found = [compiled(x).numpy(), model(Tensor(x)).numpy()]
    edges = {node.operands["edge"] for node in nodes_of(next(iter(compiled.plans.values()))) if node.kind == "winograd"}
    for tensor in (*model.parameters(), *dict(model.named_buffers()).values()):
        tensor.data = tensor.data.astype(np.float64)
    with backend.use("reference"):
        expected = model(Tensor(x.astype(np.float64))).numpy()
    winograd, direct = (np.sqrt(np.mean((y - expected) ** 2)) for y in found)
    assert edges == {4} and winograd < 3 * direct and winograd < 5e-6 * np.abs(expected).max()


@pytest.mark.parametrize("precision", ["float32", pytest.param("bf16", marks=BFLOAT16)])
@pytest.mark.parametrize(
    "count, inputs, outputs, height, width",
    [(17, 136, 129, 4, 12), (70, 144, 121, 8, 4), (9, 24, 1000, 4, 4), (9, 136, 129, 15, 15)],
)
def test_a_weight_that_is_trained_is_transformed_in_the_products(
    count, inputs, outputs, height, width, precision, monkeypatch
):
    """And rounded there, where no matrix registers multiply it; of what the transforms make nothing is kept.

    Sizes are no multiples of vectors and tiles.
    """
    monkeypatch.setattr(machine, "has_amx", lambda: False)
    rng = np.random.default_rng(0)
    states = [0.1 * rng.standard_normal(shape) for shape in ((inputs, 3, 1, 1), (outputs, inputs, 3, 3))]
    x = rng.standard_normal((count, 3, height, width))

    def trained(compiled, dtype):
        first, weight = parameters = [Tensor(a.astype(dtype), requires_grad=True) for a in states]
        optimizer = optim.SGD(parameters, lr=0.1, momentum=0.9)

        def step(x):
            loss = (F.conv2d(F.conv2d(x, first), weight, padding=1) ** 2).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return loss

        step = minicnn.compile(step) if compiled else step
        with minicnn.precision(precision):
            losses = [step(Tensor(x.astype(dtype))).item() for _ in range(3)]
        return step, [np.array(losses), *(t.numpy() for t in parameters)]

    step, found = trained(True, np.float32)
    with backend.use("reference") if precision == "float32" else contextlib.nullcontext():
        _, expected = trained(False, np.float64 if precision == "float32" else np.float32)
    for a, e in zip(found, expected, strict=True):
        assert np.abs(a - e).max() < (1e-5 if precision == "float32" else 1e-3) * np.abs(e).max()
    nodes = kinds(step)
    assert nodes["wide_products"] == 2 and nodes["matrices"] == 1 and not {"filters", "unfilter"} & nodes.keys()
    assert nodes.get("bfloat16()", 0) == (precision == "bf16")  # of the first weight


@pytest.mark.parametrize(
    "inputs, outputs, height, width", [(15, 16, 4, 4), (16, 15, 4, 4), (16, 16, 3, 3), (16, 16, 1, 8), (256, 256, 1, 1)]
)
def test_few_channels_and_pixels_go_the_plain_way(inputs, outputs, height, width):
    weight = Tensor(np.ones((outputs, inputs, 3, 3), np.float32))
    compiled = minicnn.compile(lambda x: F.conv2d(x, weight, padding=1))
    y = compiled(np.ones((9, inputs, height, width), np.float32)).numpy()
    assert not {"winograd", "spread_tiles"} & set(kinds(compiled))
    ones = np.pad(np.ones((height, width)), 1)
    seen = sum(ones[i : i + height, j : j + width] for i in range(3) for j in range(3))
    np.testing.assert_array_equal(y, np.broadcast_to(inputs * seen, y.shape))


@pytest.mark.parametrize("height, width", [(2, 8), (5, 5)])
def test_integers_are_exact(height, width):
    """What is small enough for float32 is not rounded by F(2 x 2), in values and in gradients."""
    rng = np.random.default_rng(0)
    x, g = rng.integers(-3, 4, (2, 11, 16, height, width)).astype(np.float32)
    weight = Tensor(4.0 * rng.integers(-3, 4, (16, 16, 3, 3)).astype(np.float32))
    compiled = minicnn.compile(lambda x, g: step(x, weight, None, g, False))
    with backend.use("reference"):
        expected = step(Tensor(x), weight, None, Tensor(g), False)
    for found, e in zip(compiled(x, g), expected, strict=True):
        np.testing.assert_array_equal(found.numpy(), e.numpy())


def test_a_changed_weight_is_transformed_again():
    weight = Tensor(np.ones((16, 16, 3, 3), np.float32))
    compiled = minicnn.compile(lambda x: F.conv2d(x, weight, padding=1))
    x = np.ones((9, 16, 8, 8), np.float32)
    before = compiled(x).numpy()
    weight.data *= 2
    np.testing.assert_array_equal(compiled(x).numpy(), 2 * before)


@pytest.mark.parametrize(("channels", "stride"), [(16, 1), (136, 1), (136, 2), (8, 2)])
def test_batch_norm_of_a_gradient_is_not_folded_into_the_weight(channels, stride):
    """The weight's rows are then those of the other side."""
    rng = np.random.default_rng(0)
    weight = Tensor(rng.standard_normal((channels, channels, 3, 3)).astype(np.float32))
    mean, var = (Tensor(rng.random(channels).astype(np.float32) + 0.5) for _ in range(2))

    def function(x):
        leaf = Tensor(x.data, requires_grad=True)
        (F.conv2d(leaf, weight, padding=1, stride=stride) ** 2).sum().backward()
        return F.batch_norm(leaf.grad, mean, var)

    compiled = minicnn.compile(function)
    x = rng.standard_normal((17, channels, 8, 8)).astype(np.float32)
    expected = function(Tensor(x)).numpy()
    for _ in range(2):
        np.testing.assert_allclose(compiled(x).numpy(), expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())
