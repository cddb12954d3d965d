"""Differentiable functions of tensors, spelled as in ``torch.nn.functional``; each forward beside its gradient.

In the formulas x is the input; in the shapes N counts images, C and O input and output channels, H x W and OH x OW are
input and output pixels, KH x KW is a window.

Every function checks its arguments before a kernel runs. It raises TypeError for an input that is no tensor of floats,
or not of the dtype and on the backend of the others, and ValueError for shapes or options that do not fit. What a
function raises beyond that stands under Raises.
"""

from minicnn.functional.activation import elu, gelu, leaky_relu, log_softmax, relu, sigmoid, softmax, tanh
from minicnn.functional.attention import scaled_dot_product_attention
from minicnn.functional.conv import conv2d
from minicnn.functional.joining import broadcast_to, cat, stack
from minicnn.functional.linear import flatten, linear
from minicnn.functional.loss import cross_entropy, mse_loss
from minicnn.functional.normalization import batch_norm, dropout, layer_norm
from minicnn.functional.pooling import adaptive_avg_pool2d, avg_pool2d, max_pool2d

__all__ = [
    "adaptive_avg_pool2d", "avg_pool2d", "batch_norm", "broadcast_to", "cat", "conv2d", "cross_entropy", "dropout",
    "elu", "flatten", "gelu", "layer_norm", "leaky_relu", "linear", "log_softmax", "max_pool2d", "mse_loss", "relu",
    "scaled_dot_product_attention", "sigmoid", "softmax", "stack", "tanh",
]  # fmt: skip
