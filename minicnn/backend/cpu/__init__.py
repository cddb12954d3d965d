"""The kernels for the CPU: Numba where it pays, the reference for the rest.

What is left to the reference is bound by memory or called on small arrays, and Numba gained nothing there.
"""

from minicnn.backend import reference
from minicnn.backend.cpu import (
    activation,
    attention,
    conv,
    data,
    elementwise,
    layer_norm,
    linear,
    matmul,
    normalization,
    pooling,
)
from minicnn.backend.cpu import machine as machine  # of compiled plans; not a kernel
from minicnn.backend.cpu.jit import require_precision as require_precision
from minicnn.backend.cpu.threads import get_num_threads as get_num_threads
from minicnn.backend.cpu.threads import set_num_threads as set_num_threads


class Kernels(reference.Kernels):
    """The reference, and what Numba does in its place."""

    gelu = activation.gelu
    gelu_grad = activation.gelu_grad
    softmax = activation.softmax
    softmax_grad = activation.softmax_grad
    attention_grad = attention.attention_grad
    attention = attention.attention  # last: it hides the module
    conv2d = conv.conv2d
    conv2d_grad_bias = conv.conv2d_grad_bias
    conv2d_grad_input = conv.conv2d_grad_input
    conv2d_grad_weight = conv.conv2d_grad_weight
    crop_images = data.crop_images
    gather_images = data.gather_images
    warp_images = data.warp_images
    adam_step = elementwise.adam_step
    bfloat16 = elementwise.bfloat16
    tf32 = elementwise.tf32
    dropout = elementwise.dropout
    relu_grad = elementwise.relu_grad
    sgd_step = elementwise.sgd_step
    layer_norm_grad = layer_norm.layer_norm_grad
    layer_norm = layer_norm.layer_norm
    linear_grad_input = linear.linear_grad_input
    linear_grad_weight = linear.linear_grad_weight
    linear = linear.linear  # last: it hides the module
    matmul = matmul.matmul
    batch_norm = normalization.batch_norm
    batch_norm_grad = normalization.batch_norm_grad
    batch_norm_statistics = normalization.batch_norm_statistics
    avg_pool2d = pooling.avg_pool2d
    max_pool2d = pooling.max_pool2d
    max_pool2d_grad = pooling.max_pool2d_grad
