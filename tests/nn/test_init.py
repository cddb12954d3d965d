"""Initial weights: bounds and statistics from the formulas, the same numbers on every backend."""

import math

import numpy as np
import pytest

import minicnn
from minicnn import Tensor, backend, nn
from minicnn.nn import init

SHAPE = (64, 32, 5, 3)
FAN_IN, FAN_OUT = 32 * 15, 64 * 15


def fresh(shape=SHAPE):
    return Tensor(np.full(shape, np.nan, np.float32))


UNIFORM = {  # bound of the distribution
    "uniform": (lambda t: init.uniform_(t, -0.3, 0.3), 0.3),
    "xavier": (init.xavier_uniform_, math.sqrt(6 / (FAN_IN + FAN_OUT))),
    "xavier gain": (lambda t: init.xavier_uniform_(t, 2.0), 2 * math.sqrt(6 / (FAN_IN + FAN_OUT))),
    "kaiming": (init.kaiming_uniform_, math.sqrt(6 / FAN_IN)),
    "kaiming out": (lambda t: init.kaiming_uniform_(t, mode="fan_out"), math.sqrt(6 / FAN_OUT)),
    "kaiming slope": (lambda t: init.kaiming_uniform_(t, a=math.sqrt(5)), 1 / math.sqrt(FAN_IN)),
}
NORMAL = {  # mean and deviation
    "normal": (lambda t: init.normal_(t, 0.5, 0.2), 0.5, 0.2),
    "xavier": (init.xavier_normal_, 0, math.sqrt(2 / (FAN_IN + FAN_OUT))),
    "kaiming": (init.kaiming_normal_, 0, math.sqrt(2 / FAN_IN)),
    "kaiming linear": (lambda t: init.kaiming_normal_(t, nonlinearity="linear"), 0, 1 / math.sqrt(FAN_IN)),
}


@pytest.mark.parametrize("name", UNIFORM)
def test_uniform(name):
    fill, bound = UNIFORM[name]
    a = fill(fresh()).numpy()
    assert a.dtype == np.float32 and np.abs(a).max() <= np.float32(bound)
    assert np.abs(a).max() > 0.999 * bound and abs(a.mean()) < 0.02 * bound
    assert a.std() == pytest.approx(bound / math.sqrt(3), rel=0.02)
    assert len(np.unique(a)) > 0.9 * a.size


@pytest.mark.parametrize("name", NORMAL)
def test_normal(name):
    fill, mean, std = NORMAL[name]
    a = fill(fresh()).numpy()
    assert a.mean() == pytest.approx(mean, abs=0.03 * std) and a.std() == pytest.approx(std, rel=0.02)
    assert 2.9 < ((a - a.mean()) ** 4).mean() / a.std() ** 4 < 3.1  # kurtosis


def test_constants():
    for fill, value in ((init.zeros_, 0), (init.ones_, 1), (lambda t: init.constant_(t, 2.5), 2.5)):
        assert (fill(fresh((2, 3))).numpy() == value).all()
    assert init.constant_(fresh((2, 3)), 4).tolist() == [[4] * 3] * 2


@pytest.mark.parametrize("shape", [(4, 4, 1, 1), (6, 3, 3, 3), (2, 5, 4, 3), (3, 3, 2, 5)])
def test_dirac_agrees_with_torch(shape, torch):
    expected = torch.nn.init.dirac_(torch.full(shape, np.nan))
    np.testing.assert_array_equal(init.dirac_(fresh(shape)).numpy(), expected.numpy())


@pytest.mark.parametrize("name, options", [("linear", ()), ("relu", ()), ("tanh", ()), ("leaky_relu", (0.3,))])
def test_gains_agree_with_torch(name, options, torch):
    assert init.calculate_gain(name, *options) == pytest.approx(torch.nn.init.calculate_gain(name, *options))


@pytest.mark.parametrize("name", ["Linear", "Conv2d"])
def test_layers_start_as_those_of_torch(name, torch):
    arguments = (400, 300) if name == "Linear" else (20, 300, 5)
    fan_in = 400 if name == "Linear" else 500
    for library in (nn, torch.nn):  # one and the same claim of both
        layer = getattr(library, name)(*arguments)
        for parameter in (layer.weight, layer.bias):
            a = np.asarray(parameter.detach().numpy())
            assert np.abs(a).max() <= 1 / math.sqrt(fan_in) < 1.02 * np.abs(a).max()
            assert a.std() == pytest.approx(1 / math.sqrt(3 * fan_in), rel=0.1)


def test_the_seed_determines_the_weights_on_every_backend():
    weights = []
    for name in ("reference", "numpy", "numpy"):
        minicnn.manual_seed(len(weights) // 2 + 5)
        with backend.use(name):
            weights.append({n: t.numpy().copy() for n, t in minicnn.models.create("lenet").state_dict().items()})
    for n, a in weights[0].items():
        np.testing.assert_array_equal(a, weights[1][n])
        assert not np.array_equal(a, weights[2][n])


@pytest.mark.gpu
def test_the_seed_determines_the_weights_on_the_gpu():
    models = []
    for name in ("reference", "cupy"):
        minicnn.manual_seed(5)
        with backend.use(name):
            models.append(minicnn.models.create("lenet").state_dict())
    for n, a in models[0].items():
        np.testing.assert_array_equal(a.numpy(), models[1][n].numpy())


def test_every_array_of_every_model_counts_where_they_are_limited():
    """Parameters and buffers, whichever layer makes them; the limit ends with the block."""
    for name in minicnn.models.names():
        sizes = [tensor.numel() for tensor in minicnn.models.create(name).state_dict().values()]
        with init.limited(len(sizes), sum(sizes)):
            minicnn.models.create(name)
        for arrays, elements in ((len(sizes) - 1, sum(sizes)), (len(sizes), sum(sizes) - 1)):
            with pytest.raises(ValueError, match="more or larger arrays"), init.limited(arrays, elements):
                minicnn.models.create(name)
        minicnn.models.create(name)


def test_nothing_is_allocated_beyond_the_limit():
    for shape in ((2**40, 2**40), (10**400,), (-(2**40), 2**40, 2**40, -1)):
        with pytest.raises(ValueError, match="more or larger arrays"), init.limited(10, 10**6):
            init.empty(*shape)


def test_errors():
    with pytest.raises(ValueError, match=r"dirac_: expected a weight \(O, I, KH, KW\), received shape \(3, 2\)"):
        init.dirac_(fresh((3, 2)))
    with pytest.raises(ValueError, match=r"init: expected at least two axes, received shape \(3,\)"):
        init.kaiming_uniform_(fresh((3,)))
    with pytest.raises(ValueError, match="expected mode 'fan_in' or 'fan_out', received 'in'"):
        init.kaiming_normal_(fresh(), mode="in")
    with pytest.raises(ValueError, match="calculate_gain: expected .* received 'swish'"):
        init.calculate_gain("swish")


def test_whitening_takes_the_largest_directions_first(backend_name):
    """A weight with few outputs has the directions with the largest variance; one with many keeps its last rows."""
    rng = np.random.default_rng(0)
    images = rng.standard_normal((20, 2, 6, 5)).astype(np.float32) * np.array([3, 1], np.float32)[:, None, None]
    few = init.whitening_(init.zeros_(init.empty(2, 2, 1, 1)), images, eps=0.0).numpy()[:, :, 0, 0]
    deviations = np.sqrt((images.astype(np.float64) ** 2).mean((0, 2, 3)))
    assert np.abs(few[0]).argmax() == 0 and np.abs(few[1]).argmax() == 1
    np.testing.assert_allclose(np.abs(np.diag(few)), 1 / deviations, rtol=1e-2)
    many = init.whitening_(init.constant_(init.empty(7, 2, 1, 1), 5.0), Tensor(images), eps=0.0).numpy()[:, :, 0, 0]
    np.testing.assert_array_equal(many[:2], few)
    np.testing.assert_array_equal(many[2:4], -few)
    assert (many[4:] == 5).all()


@pytest.mark.parametrize("shape", [(0, 2, 6, 5), (3, 1, 6, 5), (3, 2, 1, 5), (2, 6, 5)])
def test_whitening_needs_patches(shape):
    with pytest.raises(ValueError, match="whitening_: expected images .* with patches for a weight of shape"):
        init.whitening_(init.empty(4, 2, 2, 2), np.zeros(shape, np.float32))
