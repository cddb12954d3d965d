"""Tokens in blocks: layer norm, attention and linear layers on (N, L, E), against float64 on awkward sizes."""

import numpy as np
import pytest

import minicnn
import minicnn.functional as F
from minicnn import Tensor, backend, nn, optim
from minicnn.backend.cpu import machine
from minicnn.backend.cpu.jit import HAS_BFLOAT16
from minicnn.models import ViT
from minicnn.models.vit import Block
from shared.runs import kinds

BFLOAT16 = pytest.mark.skipif(not HAS_BFLOAT16, reason="no AVX512_BF16")
CALLS = {"layer_norm()", "layer_norm_grad()", "linear()", "linear_grad_weight()", "attention()", "attention_grad()"}
"""Kernels that blocks do where they can."""


def results(make, x, gradient, compiled=False, dtype=np.float32):
    """Output, gradient of x and of all parameters, and the function."""
    minicnn.manual_seed(0)
    model = make()
    rng = np.random.default_rng(5)
    for parameter in model.parameters():
        parameter.data = (rng.standard_normal(parameter.shape) / np.sqrt(parameter.shape[-1])).astype(dtype)
    parameters = list(model.parameters())

    def step(x, gradient):
        leaf = Tensor(x.data, requires_grad=True)
        y = model(leaf)
        for parameter in parameters:
            parameter.grad = None
        y.backward(gradient)
        return y, leaf.grad, *(p.grad for p in parameters)

    step = minicnn.compile(step) if compiled else step
    for _ in range(2):
        found = step(Tensor(x.astype(dtype)), Tensor(gradient.astype(dtype)))
    return [t.numpy() for t in found], step


def check(make, shape, expected_calls=()):
    """The plan is as close to float64 as eager float32, or nearly; -> what it is made of."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal(shape).astype(np.float32)
    gradient = rng.standard_normal(make()(Tensor(x)).shape).astype(np.float32)
    found, step = results(make, x, gradient, compiled=True)
    plain, _ = results(make, x, gradient)
    with backend.use("reference"):
        expected, _ = results(make, x.astype(np.float64), gradient, dtype=np.float64)
    for a, b, e in zip(found, plain, expected, strict=True):
        size = np.abs(e).max()
        assert np.abs(a - e).max() <= 4 * np.abs(b - e).max() + 1e-6 * size
    made = kinds(step)
    assert CALLS & set(made) == set(expected_calls), made
    return made


@pytest.mark.parametrize(
    "count, length, dim, heads",
    [(16, 8, 16, 2), (19, 9, 24, 3), (23, 17, 33, 3), (8, 64, 32, 4), (30, 11, 20, 2), (16, 6, 12, 2), (6, 13, 8, 1)],
)
def test_block_of_a_transformer(count, length, dim, heads):
    made = check(lambda: Block(dim, heads, 2 * dim + 1, 0.0), (count, length, dim))
    assert made["attention"] == made["attention_grad"] == 1 and made["layer_norm"] == made["layer_norm_grad"] == 2


@pytest.mark.parametrize("length, dim, heads", [(4, 16, 2), (16, 8, 4), (1, 8, 1)])
def test_small_heads_are_left_to_the_kernel(length, dim, heads):
    """Those with fewer tokens or channels than a tile has rows."""
    made = check(lambda: Block(dim, heads, dim, 0.0), (16, length, dim), ("attention()", "attention_grad()"))
    assert made["layer_norm"] == 2


@pytest.mark.parametrize("count", [1, 3, 5, 9, 10])
def test_few_images_do_not_fill_the_lanes(count):
    made = check(lambda: Block(16, 2, 16, 0.0), (count, 8, 16), CALLS)
    assert "layer_norm" not in made


class Mixer(nn.Module):
    """Layers of tokens by other names, and what is between them: another order of axes, no bias, no affine norm."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(12, 20, bias=False), nn.Linear(20, 12)
        self.tokens, self.norm = nn.Linear(10, 10), nn.LayerNorm(12)

    def forward(self, x):
        x = x + self.second(F.relu(self.first(self.norm(x))))
        x = x + self.tokens(x.transpose(1, 2)).transpose(1, 2)
        return F.layer_norm(x, (12,)) * 0.5


def test_layers_by_other_names():
    made = check(Mixer, (17, 10, 12), ("layer_norm()", "layer_norm_grad()"))
    assert made["layer_norm"] == 1 and made["weight_gradient"] == 3


def test_heads_from_reshapes_and_products():
    """Tokens that become (N, L, H, E / H), as attention is written out by hand."""

    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.query, self.key = nn.LayerNorm(12), nn.Linear(12, 12), nn.Linear(12, 12)

        def heads(self, x):
            return x.reshape(*x.shape[:2], 3, 4).permute(0, 2, 1, 3)

        def forward(self, x):
            x = self.norm(x)
            q, k, v = (self.heads(t) for t in (self.query(x), self.key(x), x))
            weights = F.softmax(q @ k.transpose(2, 3), -1)
            return x + F.flatten((weights @ v).permute(0, 2, 1, 3), 2)

    check(Attention, (16, 9, 12))


def test_the_second_axis_of_a_batch_norm_is_its_channels():
    """Also of what a linear layer made of tokens."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.norm = nn.Linear(6, 6), nn.LayerNorm(6)

        def forward(self, x):
            x = self.fc(self.norm(x))
            x = F.batch_norm(x, None, None, training=True)
            return self.norm(x)

    check(Net, (16, 5, 6))


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_dropout_draws_as_eager_does(dropout):
    x = np.random.default_rng(0).standard_normal((16, 8, 16)).astype(np.float32)
    found = []
    for compiled in (False, True):
        minicnn.manual_seed(3)
        model = nn.Sequential(nn.LayerNorm(16), nn.Linear(16, 16), nn.Dropout(dropout), nn.Linear(16, 16))
        function = minicnn.compile(lambda x, model=model: model(x)) if compiled else model
        minicnn.manual_seed(4)
        found.append([function(Tensor(x)).numpy() for _ in range(3)])
    np.testing.assert_allclose(found[0], found[1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("pool", ["mean", "class"])
@pytest.mark.parametrize("count", [3, 16])
def test_vit_predicts_as_eager_does(pool, count):
    minicnn.manual_seed(0)
    model = ViT(depth=2, dim=24, heads=3, pool=pool).eval()
    x = np.random.default_rng(0).standard_normal((count, 3, 32, 32)).astype(np.float32)
    predict = minicnn.compile(model)
    np.testing.assert_allclose(predict(x).numpy(), model(Tensor(x)).numpy(), rtol=1e-4, atol=1e-5)
    assert ("attention" in kinds(predict)) == (count == 16)


@pytest.mark.parametrize("registers", ["AMX", "AVX512_BF16"])
@BFLOAT16
def test_rounded_operands(registers, monkeypatch):
    """A step in bfloat16 is that of the eager kernels, which round the operands of linear layers too."""
    if registers == "AMX" and not machine.has_amx():
        pytest.skip("no AMX")
    monkeypatch.setattr(machine, "has_amx", lambda: registers == "AMX")
    rng = np.random.default_rng(0)
    x, labels = rng.standard_normal((19, 3, 32, 32)).astype(np.float32), rng.integers(0, 10, 19)

    def trained(compiled):
        minicnn.manual_seed(0)
        model = ViT(depth=2, dim=48, heads=3)
        optimizer = optim.SGD(model.parameters(), lr=0.1)

        def step(x, labels):
            loss = F.cross_entropy(model(x), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return loss

        step = minicnn.compile(step) if compiled else step
        with minicnn.precision("bf16"):
            losses = [step(Tensor(x), Tensor(labels)).item() for _ in range(4)]
        return losses, step

    losses, step = trained(True)
    np.testing.assert_allclose(losses, trained(False)[0], rtol=2e-3)
    made = kinds(step)
    assert ("amx_products" if registers == "AMX" else "pair_products") in made and not CALLS & set(made)


class Norm(nn.Module):
    """A layer norm before a linear layer."""

    def __init__(self, width, eps=1e-5):
        super().__init__()
        self.norm, self.fc = nn.LayerNorm(width, eps), nn.Linear(width, 9)

    def forward(self, x):
        return self.fc(self.norm(x))


def test_the_variance_of_absent_images_is_0():
    """Without eps too, which keeps that of others from 0."""
    check(lambda: Norm(8, eps=0.0), (17, 9, 8))


@pytest.mark.parametrize("count", [13, 16])
@pytest.mark.parametrize("layer", ["linear", "conv2d", "batch_norm", "layer_norm"])
def test_absent_images_add_nothing_to_a_gradient(layer, count):
    """A gradient that is a result itself: a bias has made something of lanes that hold no image."""
    shape = (count, 9, 8) if layer in ("linear", "layer_norm") else (count, 8, 9, 7)
    rng = np.random.default_rng(0)
    x, states = rng.standard_normal(shape), [rng.standard_normal(8) for _ in range(2)]
    if layer in ("linear", "conv2d"):
        states[0] = rng.standard_normal((8, 8) if layer == "linear" else (8, 8, 3, 3))
    apply = {
        "linear": F.linear,
        "conv2d": lambda x, w, b: F.conv2d(x, w, b, padding=1),
        "batch_norm": lambda x, w, b: F.batch_norm(x, None, None, w, b, training=True),
        "layer_norm": lambda x, w, b: F.layer_norm(x, 8, w, b),
    }[layer]

    def gradients(compiled, dtype):
        leaves = [Tensor(a.astype(dtype), requires_grad=True) for a in states]

        def step(x):
            for leaf in leaves:
                leaf.grad = None
            y = apply(x, *leaves)
            y.backward(y.detach())
            return [leaf.grad for leaf in leaves]

        step = minicnn.compile(step) if compiled else step
        return [g.numpy() for g in step(Tensor(x.astype(dtype)))]

    with backend.use("reference"):
        expected = gradients(False, np.float64)
    for found, e in zip(gradients(True, np.float32), expected, strict=True):
        assert np.abs(found - e).max() < 1e-5 * np.abs(e).max()


@pytest.mark.parametrize("mean", [0, 1000])
def test_wide_vectors_are_summed_in_pieces(mean):
    width = 1024
    x = (mean + np.random.default_rng(0).standard_normal((16, 3, width))).astype(np.float32)
    norm = minicnn.compile(nn.LayerNorm(width))
    with backend.use("reference"):
        expected = F.layer_norm(Tensor(x.astype(np.float64)), width).numpy()
    found = norm(x).numpy()
    assert "layer_norm" in kinds(norm)
    assert np.abs(found - expected).max() < (1e-6 if mean == 0 else 5e-5)


def test_a_nan_stays_in_its_image():
    model = Block(16, 2, 24, 0.0).eval()
    x = np.random.default_rng(0).standard_normal((16, 9, 16)).astype(np.float32)
    x[3, 2, 1] = np.nan
    y = minicnn.compile(model)(x).numpy()
    assert np.isnan(y[3]).any() and np.isfinite(np.delete(y, 3, 0)).all()
