"""Block instructions between two 1 x 1 convolutions: values and gradients, against eager float64 of the reference."""

import numpy as np
import pytest

import minicnn
import minicnn.functional as F
from minicnn import Tensor, backend, nn, random
from shared.runs import agree, conv, kinds, same

LAYERS = {
    "first": conv(3, 4, 1, bias=False),
    "second": conv(3, 4, 1, bias=False),
    "padded": conv(4, 4, 3, padding=1, bias=False),
    "last": conv(4, 5, 1),
    "norm": lambda: nn.BatchNorm2d(4),
    "bare": lambda: nn.BatchNorm2d(4, affine=False),
    "batch": lambda: nn.BatchNorm2d(4, track_running_stats=False),
    "frozen": lambda: nn.BatchNorm2d(4).eval(),
    "flat": lambda: nn.BatchNorm1d(120),
    "fc": lambda: nn.Linear(120, 6),
    "small": lambda: nn.Linear(24, 6),
    "whole": conv(4, 6, (5, 6)),
}
LEFT = {
    f"{name}()"
    for name in (
        "relu",
        "relu_grad",
        "elu",
        "elu_grad",
        "gelu",
        "gelu_grad",
        "dropout",
        "batch_norm",
        "batch_norm_grad",
    )
}
LEFT |= {f"{name}()" for name in ("batch_norm_statistics", "conv2d", "conv2d_grad_input", "max_pool2d_grad")}


class Net(nn.Module):
    """All layers, with random parameters and statistics; ``function`` says how they are used."""

    def __init__(self, function, dtype):
        super().__init__()
        minicnn.manual_seed(2)
        rng = np.random.default_rng(5)
        self.function = function
        for name, build in LAYERS.items():
            setattr(self, name, build())
        for name, tensor in self.state_dict().items():
            layer = name.split(".")[0]
            if layer in ("norm", "bare", "batch", "frozen", "flat"):
                tensor.data[...] = rng.uniform(0.5, 1.5, tensor.shape)
        for tensor in (*self.parameters(), *dict(self.named_buffers()).values()):
            tensor.data = tensor.data.astype(dtype)

    def step(self, x, g):
        """The result, and the gradients for x and the parameters where that for the result is g."""
        leaf = Tensor(x.data, requires_grad=True)
        for p in self.parameters():
            p.grad = None
        y = self.function(self, leaf)
        y.backward(g)
        return y, leaf.grad, *(p.grad for p in self.parameters() if p.grad is not None)

    def run(self, step, data):
        random.manual_seed(4)
        results = [t.numpy() for pair in data for t in step(*pair)]
        return results + [b.numpy() for b in dict(self.named_buffers()).values()]


def check(function, count, tolerance=1e-5):
    """Compare two compiled steps; -> kinds of the plan's nodes."""
    rng = np.random.default_rng(count)
    narrow, wide = Net(function, "float32"), Net(function, "float64")
    shape = function(Net(function, "float32"), Tensor(np.zeros((count, 3, 5, 6), np.float32))).shape
    data = [[rng.standard_normal(s).astype(np.float32) for s in ((count, 3, 5, 6), shape)] for _ in range(2)]
    compiled = minicnn.compile(narrow.step)
    found = narrow.run(compiled, data)
    with backend.use("reference"):
        expected = wide.run(wide.step, [[Tensor(a.astype(np.float64)) for a in pair] for pair in data])
    agree(found, expected, tolerance)
    return kinds(compiled)


def inner(f):
    """f between two convolutions."""
    return lambda m, x: m.last(f(m, m.first(x)))


def twice(f):
    """The same, and what f returns is also the input of another convolution."""
    return lambda m, x: m.last(m.padded(h := f(m, m.first(x))) + h)


def flat(x):
    return F.flatten(x, 1)


NORM = {"moments", "statistics", "affine_terms", "affine", "norm_sums", "norm_terms", "norm_grad"}
ALONE = {  # name: function, the instructions it needs
    "elu": (inner(lambda m, h: F.elu(h)), {"elu", "elu_grad"}),
    "elu 0.5": (inner(lambda m, h: F.elu(h, 0.5)), {"elu", "elu_grad"}),
    "elu 0": (inner(lambda m, h: F.elu(h, 0.0)), {"elu", "elu_grad"}),
    "gelu": (inner(lambda m, h: F.gelu(h)), {"gelu_and_slope", "multiply"}),
    "add": (lambda m, x: m.last(m.first(x) + m.second(x)), {"add"}),
    "norm": (inner(lambda m, h: m.norm(h)), NORM),
    "norm relu": (inner(lambda m, h: F.relu(m.norm(h))), NORM | {"relu_grad"}),
    "norm without affine": (inner(lambda m, h: m.bare(h)), NORM),
    "norm without statistics": (inner(lambda m, h: m.batch(h)), NORM),
    "norm in evaluation": (inner(lambda m, h: m.frozen(h)), NORM - {"moments", "statistics", "affine_terms"}),
    "norm between halos": (inner(lambda m, h: m.padded(m.norm(m.padded(h)))), NORM),
    "norm of vectors": (lambda m, x: m.fc(m.flat(flat(m.first(x)))), NORM),
    "dropout": (inner(lambda m, h: F.dropout(h, 0.3)), {"dropout"}),
    "dropout between halos": (inner(lambda m, h: m.padded(F.dropout(m.padded(h), 0.3))), {"dropout"}),
}


@pytest.mark.parametrize("count", [1, 5, 8, 13, 17])
@pytest.mark.parametrize("name", ALONE)
def test_alone(name, count):
    if name == "norm of vectors":
        count += 1  # one value a channel has no variance
    function, present = ALONE[name]
    found = check(function, count, 5e-5)
    if count <= 4 and name.startswith("dropout"):
        return  # nothing in it that says that it trains: calls
    assert present <= set(found) and not LEFT & set(found), found
    assert "add()" not in found or "affine" in found  # only eps is added by a call


REUSED = {  # a result in the place of an operand, and who else needs that
    "sum, both again": lambda m, x: m.last((s := (a := m.first(x)) + (b := m.second(x))) + a + b + s),
    "sum, left again": lambda m, x: m.last(m.padded(a := m.first(x)) + (a + m.second(x))),
    "sum, right again": lambda m, x: m.last((m.second(x) + (a := m.first(x))) + m.padded(a)),
    "sum of one": inner(lambda m, h: h + h),
    "sum with the pictures": lambda m, x: m.first(x + m.first(x)[:, :3]) + m.second(x),
    "sum, relu": lambda m, x: m.last(F.relu(s := m.first(x) + m.second(x)) + s),
    "residual": inner(lambda m, h: F.relu(m.norm(m.padded(h)) + h)),
    "relu twice": twice(lambda m, h: F.relu(h)),
    "elu twice": twice(lambda m, h: F.elu(h)),
    "gelu twice": twice(lambda m, h: F.gelu(h)),
    "gelu, its input again": inner(lambda m, h: F.gelu(h) + h),
    "gelus of one": lambda m, x: m.last(F.gelu(h := m.first(x))) + m.last(F.gelu(h)),
    "norm, gelu": inner(lambda m, h: F.gelu(m.norm(h))),
    "gelu, gelu": inner(lambda m, h: F.gelu(F.gelu(h))),
    "elu, its input again": inner(lambda m, h: F.elu(h) + h),
    "elu, dropout": inner(lambda m, h: F.dropout(F.elu(h), 0.4)),
    "elu, sum": lambda m, x: m.last(F.elu(m.first(x)) + m.second(x)),
    "elu, elu": inner(lambda m, h: F.elu(F.elu(h), 0.5)),
    "elu, norm": inner(lambda m, h: m.norm(F.elu(h))),
    "elu, norm in evaluation": inner(lambda m, h: m.frozen(F.elu(h))),
    "elu, relu": inner(lambda m, h: F.relu(F.elu(h))),
    "elus of one": lambda m, x: m.last(F.elu(h := m.first(x))) + m.last(F.elu(h, 0.5)),
    "relu, elu": inner(lambda m, h: F.elu(F.relu(h))),
    "relu, dropout, sum": lambda m, x: m.last(F.dropout(F.relu(m.first(x)), 0.4) + m.second(x)),
    "norm twice": twice(lambda m, h: m.norm(h)),
    "norm, relu and itself": inner(lambda m, h: F.relu(n := m.norm(h)) + n),
    "norm, elu and itself": inner(lambda m, h: F.elu(n := m.norm(h)) + n),
    "norm, its input again": inner(lambda m, h: m.norm(h) + h),
    "norms of one": inner(lambda m, h: m.norm(h) + m.bare(h) + m.frozen(h)),
    "norm, norm": inner(lambda m, h: m.frozen(m.norm(h))),
    "norm again": inner(lambda m, h: m.norm(m.padded(m.norm(h)))),
    "dropout twice": twice(lambda m, h: F.dropout(h, 0.4)),
    "dropout, its input again": inner(lambda m, h: F.dropout(h, 0.4) + h),
    "dropouts of one": inner(lambda m, h: F.dropout(h, 0.4) + F.dropout(h, 0.4)),
    "pool, dropout": inner(lambda m, h: F.dropout(F.max_pool2d(h, 2), 0.4)),
    "pool, elu": inner(lambda m, h: F.elu(F.max_pool2d(h, 2))),
    "pool, norm in evaluation": inner(lambda m, h: m.frozen(F.max_pool2d(h, 2))),
    "relu, pool, dropout": inner(lambda m, h: F.dropout(F.max_pool2d(F.relu(h), 2), 0.4)),
    "pool, flat, dropout": lambda m, x: m.small(F.dropout(flat(F.max_pool2d(m.first(x), 2)), 0.4)),
    "relu, flat, dropout": lambda m, x: m.fc(F.dropout(flat(F.relu(m.first(x))), 0.4)),
    "elu, flat, dropout": lambda m, x: m.fc(F.dropout(flat(F.elu(m.first(x))), 0.4)),
    "flat elu, its input again": lambda m, x: m.fc(F.elu(flat(h := m.first(x)))) + flat(m.whole(h)),
    "flat relu, its input again": lambda m, x: m.fc(F.relu(flat(h := m.first(x)))) + flat(m.whole(h)),
    "flat sum, its input again": lambda m, x: m.fc(flat(h := m.first(x)) + flat(m.second(x))) + flat(m.whole(h)),
    "flat, of the same size": lambda m, x: m.fc(F.elu(flat(f := flat(m.first(x)))) + f),
}


@pytest.mark.parametrize("name", REUSED)
def test_nothing_that_is_still_needed_is_overwritten(name):
    found = check(REUSED[name], 11, 5e-5)
    assert not LEFT & set(found), found


RESULTS = {
    "relu": lambda m, h: F.relu(h),
    "elu": lambda m, h: F.elu(h),
    "dropout": lambda m, h: F.dropout(h, 0.4),
    "norm": lambda m, h: m.frozen(h),
    "sum": lambda m, h: h + m.norm(h),
    "flat elu": lambda m, h: F.elu(flat(h)).reshape(*h.shape),
    "flat dropout": lambda m, h: F.dropout(flat(h), 0.4).reshape(*h.shape),
}


@pytest.mark.parametrize("name", RESULTS)
def test_results_on_the_way_keep_their_values(name):
    def function(x):
        h = model.first(x)
        y = RESULTS[name](model, h)
        z = RESULTS[name](model, y)
        return h, y, z, model.last(z)

    model = Net(None, "float32")
    compiled = minicnn.compile(function)
    x = np.random.default_rng(0).standard_normal((11, 3, 5, 6)).astype(np.float32)
    random.manual_seed(4)
    found = [t.numpy() for t in compiled(x)]
    random.manual_seed(4)
    model = Net(None, "float32")
    random.manual_seed(4)
    with backend.use("reference"):
        agree(found, [t.numpy() for t in function(Tensor(x))], 1e-5)


# Numbers


def identity(channels=1):
    """A convolution that returns its input, so that what follows works on blocks."""
    layer = nn.Conv2d(channels, channels, 1, bias=False)
    layer.weight.data[...] = np.eye(channels)[:, :, None, None]
    return layer


def with_gradient(function, x, g):
    """Value and gradient, compiled, of ``function`` between identities; and the plan's kinds."""
    before, after = identity(x.shape[1]), identity(x.shape[1])

    def step(x, g):
        leaf = Tensor(x.data, requires_grad=True)
        y = after(function(before(leaf)))
        y.backward(g)
        return y, leaf.grad

    compiled = minicnn.compile(step)
    return *(t.numpy() for t in compiled(x, g)), kinds(compiled)


@pytest.mark.parametrize("alpha", [1.0, 0.5, 0.0])
def test_elu_of_extreme_numbers(alpha):
    column = np.array([-1e-6, -1e-30, -90, -88, -87, -1, -0.0, 0, 1e-30, 1e-6, 3, 1e30, -1e30, np.inf, -np.inf, np.nan])
    x = np.tile(column.astype(np.float32), (9, 1, 1, 1))
    y, gx, found = with_gradient(lambda t: F.elu(t, alpha), x, np.full_like(x, 2))
    wide = x.astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        np.testing.assert_allclose(y, np.where(wide > 0, wide, alpha * np.expm1(wide)), rtol=3e-7, atol=0)
        slope = np.where(wide > 0, 2, 2 * alpha * np.exp(wide))
    np.testing.assert_allclose(gx[..., :-1], slope[..., :-1], rtol=3e-7, atol=3e-7)
    assert found["elu"] == found["elu_grad"] == 1


@pytest.mark.parametrize("count", [1, 8, 13])
@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_dropout_has_the_bits_of_the_eager_mask(count, p):
    rng = np.random.default_rng(0)
    x, g = rng.standard_normal((2, count, 3, 5, 7)).astype(np.float32)
    random.manual_seed(9)
    y, gx, found = with_gradient(lambda t: F.dropout(t, p), x, g)
    random.manual_seed(9)
    with backend.use("reference"):
        leaf = Tensor(x, requires_grad=True)
        expected = F.dropout(leaf, p)
        expected.backward(Tensor(g))
    same([y, gx], [expected.numpy(), leaf.grad.numpy()])
    assert (count <= 4 or found["dropout"] == 2) and 0 < np.count_nonzero(y) < y.size


@pytest.mark.parametrize("mean, std", [(100, 1), (-1000, 10), (0, 1e-3)])
def test_statistics_of_a_large_mean(mean, std):
    rng = np.random.default_rng(0)
    x = (mean + std * rng.standard_normal((21, 2, 6, 4))).astype(np.float32)
    g = rng.standard_normal(x.shape).astype(np.float32)
    norm = nn.BatchNorm2d(2, eps=1e-9)
    y, gx, found = with_gradient(norm, x, g)
    wide = nn.BatchNorm2d(2, eps=1e-9)
    for tensor in (*wide.parameters(), *dict(wide.named_buffers()).values()):
        tensor.data = tensor.data.astype(np.float64)
    with backend.use("reference"):
        leaf = Tensor(x.astype(np.float64), requires_grad=True)
        expected = wide(leaf)
        expected.backward(Tensor(g.astype(np.float64)))
    agree([y], [expected.numpy()], 3e-5)
    agree([gx * std], [leaf.grad.numpy() * std], 3e-5)
    np.testing.assert_allclose(norm.running_mean.numpy(), wide.running_mean.numpy(), rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(norm.running_var.numpy(), wide.running_var.numpy(), rtol=1e-6)
    assert set(found) >= NORM
