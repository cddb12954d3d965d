"""A batch of no images: functions return no results and gradients of zeros, as PyTorch's, or name what they miss."""

import numpy as np
import pytest

import minicnn
import minicnn.functional as F
from minicnn import Tensor, nn

FUNCTIONS = {  # name: function of tensors and of the library's functional, shapes; the first is of no images
    "relu": (lambda f, x: f.relu(x), (0, 3)),
    "leaky_relu": (lambda f, x: f.leaky_relu(x), (0, 3)),
    "elu": (lambda f, x: f.elu(x), (0, 3)),
    "gelu": (lambda f, x: f.gelu(x), (0, 3)),
    "gelu by tanh": (lambda f, x: f.gelu(x, approximate="tanh"), (0, 3)),
    "softmax": (lambda f, x: f.softmax(x, -1), (0, 3)),
    "log_softmax": (lambda f, x: f.log_softmax(x, 1), (0, 3, 2)),
    "linear": (lambda f, *t: f.linear(*t), (0, 3), (2, 3), (2,)),
    "linear of rows": (lambda f, *t: f.linear(*t), (0, 5, 3), (2, 3), (2,)),
    "conv2d": (lambda f, *t: f.conv2d(*t, stride=2, padding=1), (0, 4, 7, 6), (6, 4, 3, 2), (6,)),
    "conv2d in groups": (lambda f, *t: f.conv2d(*t, groups=2), (0, 4, 7, 6), (6, 2, 3, 2), (6,)),
    "max_pool2d": (lambda f, x: f.max_pool2d(x, 2), (0, 3, 6, 7)),
    "avg_pool2d": (lambda f, x: f.avg_pool2d(x, 2), (0, 3, 6, 7)),
    "adaptive_avg_pool2d": (lambda f, x: f.adaptive_avg_pool2d(x, 1), (0, 3, 6, 7)),
    "batch_norm": (
        lambda f, x, w, b, m, v: f.batch_norm(x, m.detach(), v.detach() * 0 + 1, w, b),
        *((0, 3, 2), (3,), (3,), (3,), (3,)),
    ),
    "layer_norm": (lambda f, x, w, b: f.layer_norm(x, (3,), w, b), (0, 2, 3), (3,), (3,)),
    "mse_loss": (lambda f, *t: f.mse_loss(*t, reduction="sum"), (0, 3), (0, 3)),
    "attention": (lambda f, *t: f.scaled_dot_product_attention(*t), (0, 4, 6), (0, 5, 6), (0, 5, 6)),
    "sum": (lambda f, x: x.sum(0), (0, 3)),
    "mean of each": (lambda f, x: x.mean(1), (0, 3)),
    "max of each": (lambda f, x: x.max(1)[0], (0, 3)),
    "bias": (lambda f, x, b: x + b, (0, 3), (3,)),
    "matmul": (lambda f, *t: t[0] @ t[1], (0, 3), (3, 2)),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_function_agrees_with_torch(name, dtype, backend_name, torch):
    function, *shapes = FUNCTIONS[name]
    arrays = [np.ones(shape, dtype) for shape in shapes]
    mine, other = [Tensor(a, requires_grad=True) for a in arrays], [torch.tensor(a, requires_grad=True) for a in arrays]
    y, expected = function(F, *mine), function(torch.nn.functional, *other)
    assert y.shape == tuple(expected.shape) and y.dtype == dtype
    np.testing.assert_array_equal(y.numpy(), expected.detach().numpy())
    y.backward(Tensor(np.ones(y.shape, dtype)))
    for tensor in mine:
        if tensor.grad is not None:  # not of the statistics
            np.testing.assert_array_equal(tensor.grad.numpy(), np.zeros(tensor.shape))


@pytest.mark.parametrize("name", ["lenet", "vgg", "resnet20", "vit"])
def test_models_answer_nothing(name):
    model = minicnn.models.create(name).eval()
    assert model(Tensor(np.zeros((0, 3, 32, 32), np.float32))).shape == (0, 10)
    rows = Tensor(np.zeros((0, 3, 4), np.float32))
    assert nn.MultiheadAttention(4, 2, batch_first=True)(rows, rows, rows)[0].shape == (0, 3, 4)


X = Tensor(np.zeros((0, 3), np.float32))
ERRORS = {  # there is no mean of nothing; PyTorch returns NaN
    "cross_entropy": (lambda: F.cross_entropy(X, np.zeros(0, int)), r"cross_entropy: .* received shape \(0, 3\)"),
    "mse_loss": (lambda: F.mse_loss(X, X), r"mean: expected at least one element .* received shape \(0, 3\)"),
    "batch_norm": (lambda: F.batch_norm(X, None, None, training=True), r"more than one value .* shape \(0, 3\)"),
    "softmax": (lambda: F.softmax(X, 0), r"softmax: expected dim as a non-empty axis of shape \(0, 3\), received 0"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_what_needs_an_image_says_so(name, backend_name):
    function, message = ERRORS[name]
    with pytest.raises(ValueError, match=message):
        function()
