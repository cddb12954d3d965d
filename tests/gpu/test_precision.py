"""bfloat16 and TF32 on a GPU, eager and in plans: what the reference makes of operands rounded in the same way."""

import numpy as np
import pytest

import minicnn
import minicnn.functional as F
from minicnn import backend, models

pytestmark = pytest.mark.gpu

LAYERS = {  # inputs, weight, what the layer is given beside
    "conv2d": ((5, 3, 9, 8), (7, 3, 3, 3), {"stride": (2, 1), "padding": 1}),
    "wide": ((3, 20, 6, 7), (70, 20, 3, 2), {"dilation": (1, 2)}),
    "1 x 1": ((4, 40, 5, 5), (9, 40, 1, 1), {}),
    "grouped": ((2, 16, 6, 6), (24, 8, 3, 3), {"groups": 2, "padding": 1}),
    "depthwise": ((2, 6, 6, 6), (6, 1, 3, 3), {"groups": 6}),
    "linear": ((33, 21), (10, 21), {}),
    "tokens": ((3, 5, 12), (130, 12), {}),
}


def layer_and_gradients(name, precision, compiled=False):
    """Result and gradients of a layer in this context's backend, as NumPy arrays."""
    shape, window, options = LAYERS[name]
    rng = np.random.default_rng(1)
    function = F.conv2d if len(window) == 4 else F.linear
    weight, bias = rng.standard_normal(window, np.float32), rng.standard_normal(window[0], np.float32)
    shift = np.zeros(shape, np.float32)
    leaves = [minicnn.tensor(a, requires_grad=True) for a in (shift, weight, bias)]
    x = minicnn.tensor(rng.standard_normal(shape, np.float32))
    gy = minicnn.tensor(rng.standard_normal(function(x, *leaves[1:], **options).shape, np.float32))

    def step(x, gy):
        for leaf in leaves:
            leaf.grad = None
        y = function(x + leaves[0], *leaves[1:], **options)
        y.backward(gy)
        return y, *(leaf.grad for leaf in leaves)

    with minicnn.precision(precision):
        call = minicnn.compile(step) if compiled else step
        for _ in range(3):  # eager, recorded, started as a graph
            results = call(x, gy)
    return [t.numpy() for t in results]


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize("precision", ["bf16", "tf32"])
@pytest.mark.parametrize("name", LAYERS)
def test_layers_multiply_rounded_operands(name, precision, compiled):
    with backend.use("cupy"):
        found = layer_and_gradients(name, precision, compiled)
    with backend.use("reference"):
        expected = layer_and_gradients(name, precision)
        other = layer_and_gradients(name, "float32")
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=2e-5 * np.abs(b).max())
    assert not np.allclose(found[0], other[0], rtol=0, atol=2e-5 * np.abs(other[0]).max())


@pytest.mark.parametrize("precision", ["bf16", "tf32"])
def test_a_compiled_step_is_the_eager_one(precision):
    def losses(compiled):
        with backend.use("cupy"), minicnn.precision(precision):
            minicnn.manual_seed(3)
            model = models.create("lenet")
            optimizer = minicnn.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)

            def step(images, labels):
                loss = F.cross_entropy(model(images), labels)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                return loss

            call, rng = minicnn.compile(step) if compiled else step, np.random.default_rng(4)
            batches = [(rng.standard_normal((16, 3, 32, 32), np.float32), rng.integers(0, 10, 16)) for _ in range(4)]
            return [call(*map(minicnn.tensor, batch)).item() for batch in batches]

    np.testing.assert_allclose(losses(True), losses(False), rtol=1e-6)
