"""Every function gives the same for any memory layout of its inputs, and leaves them as they were."""

import numpy as np
import pytest

import minicnn
import minicnn.functional as F
from minicnn import Tensor

LABELS = np.array([2, 0, 1, 4, 3])

FUNCTIONS = {  # every public function: call, shapes of its float inputs
    "adaptive_avg_pool2d": (lambda x: F.adaptive_avg_pool2d(x, (3, 2)), (5, 2, 7, 4)),
    "avg_pool2d": (lambda x: F.avg_pool2d(x, (2, 3), 2, 1), (5, 2, 7, 4)),
    "batch_norm": (lambda x, w, b: F.batch_norm(x, None, None, w, b, training=True), (5, 3, 4, 2), (3,), (3,)),
    "broadcast_to": (lambda x: F.broadcast_to(x, (4, 5, 3)), (5, 1)),
    "cat": (lambda a, b: F.cat([a, b], 1), (5, 3), (5, 4)),
    "conv2d": (lambda x, w, b: F.conv2d(x, w, b, (1, 2), 1, groups=2), (5, 4, 6, 7), (6, 2, 3, 2), (6,)),
    "cross_entropy": (lambda x, w: F.cross_entropy(x, LABELS, w.detach() * w.detach()), (5, 5), (5,)),
    "dropout": (lambda x: F.dropout(x, 0.3), (5, 6)),
    "elu": (F.elu, (5, 6)),
    "flatten": (lambda x: F.flatten(x, 1), (5, 3, 2)),
    "gelu": (F.gelu, (5, 6)),
    "layer_norm": (lambda x, w, b: F.layer_norm(x, (3, 2), w, b), (5, 3, 2), (3, 2), (3, 2)),
    "leaky_relu": (F.leaky_relu, (5, 6)),
    "linear": (F.linear, (5, 3), (4, 3), (4,)),
    "log_softmax": (lambda x: F.log_softmax(x, 1), (5, 6)),
    "max_pool2d": (lambda x: F.max_pool2d(x, (3, 2), 2, 1), (5, 2, 7, 4)),
    "mse_loss": (F.mse_loss, (5, 6), (5, 6)),
    "relu": (F.relu, (5, 6)),
    "scaled_dot_product_attention": (F.scaled_dot_product_attention, (5, 2, 4, 3), (5, 2, 6, 3), (5, 2, 6, 2)),
    "sigmoid": (F.sigmoid, (5, 6)),
    "softmax": (lambda x: F.softmax(x, 1), (5, 6)),
    "stack": (lambda a, b: F.stack([a, b], 1), (5, 3), (5, 3)),
    "tanh": (F.tanh, (5, 6)),
}


def strided(a):
    return a.repeat(2, axis=-1)[..., ::2]


def negative(a):
    return np.ascontiguousarray(a[::-1])[::-1]


def transposed(a):
    """The layout that a permuted picture (N, H, W, C) has."""
    return np.ascontiguousarray(np.moveaxis(a, 1, -1) if a.ndim > 1 else a).transpose(
        (0, a.ndim - 1, *range(1, a.ndim - 1)) if a.ndim > 1 else (0,)
    )


def read_only(a):
    a = a.copy()
    a.flags.writeable = False
    return a


def offset(a):
    """Contiguous, but not at the start of its memory."""
    memory = np.zeros(a.size + 1, a.dtype)
    memory[1:] = a.ravel()
    return memory[1:].reshape(a.shape)


LAYOUTS = [np.asfortranarray, strided, negative, transposed, read_only, offset]


def run(function, arrays, layout):
    minicnn.manual_seed(1)
    tensors = [Tensor(layout(a), requires_grad=True) for a in arrays]
    before = [t.numpy().copy() for t in tensors]
    y = function(*tensors)
    cotangent = np.random.default_rng(9).standard_normal(y.shape).astype(y.dtype)
    cotangent = Tensor(layout(cotangent) if y.ndim else cotangent)
    gradient_before = cotangent.numpy().copy()
    y.backward(cotangent)
    for tensor, copy in zip([*tensors, cotangent], [*before, gradient_before], strict=True):
        np.testing.assert_array_equal(tensor.numpy(), copy, "an input was modified")
    return [y.numpy(), *(t.grad.numpy() for t in tensors if t.grad is not None)]


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_layout_of_memory_does_not_matter(name, layout, dtype, backend_name):
    function, *shapes = FUNCTIONS[name]
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(shape).astype(dtype) for shape in shapes]
    expected = run(function, arrays, np.array)
    for found, value in zip(run(function, arrays, layout), expected, strict=True):
        np.testing.assert_allclose(found, value, rtol=1e-5, atol=1e-6)


def test_no_function_is_left_out():
    assert set(FUNCTIONS) == set(F.__all__)
