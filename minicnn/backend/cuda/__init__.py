"""The kernels for the GPU: CUDA C on CuPy arrays where it pays, the reference for the rest.

The modules here mirror those of the reference, which holds the docstrings too. Elementwise kernels are lines for CuPy's
``ElementwiseKernel`` (:mod:`~minicnn.backend.cuda.lines`); the others of a module are in the ``.cu`` file of the same
name. What is left to the reference is a single launch of CuPy's own, a view, or seldom used.
"""

from minicnn.backend import reference
from minicnn.backend.cuda import (
    activation,
    arithmetic,
    attention,
    conv,
    data,
    linear,
    loss,
    normalization,
    optimizer,
    pointwise,
    pooling,
    product,
    reductions,
)
from minicnn.backend.cuda.launch import device_memory as device_memory
from minicnn.backend.cuda.launch import require_device as require_device
from minicnn.backend.cuda.launch import require_precision as require_precision


class Kernels(reference.Kernels):
    """The reference, and what CUDA does in its place."""

    elu = activation.elu
    elu_grad = activation.elu_grad
    gelu = activation.gelu
    gelu_grad = activation.gelu_grad
    leaky_relu = activation.leaky_relu
    leaky_relu_grad = activation.leaky_relu_grad
    log_softmax = activation.log_softmax
    log_softmax_grad = activation.log_softmax_grad
    relu = activation.relu
    relu_grad = activation.relu_grad
    sigmoid = activation.sigmoid
    sigmoid_grad = activation.sigmoid_grad
    softmax = activation.softmax
    softmax_grad = activation.softmax_grad
    tanh = activation.tanh
    tanh_grad = activation.tanh_grad
    all_finite = arithmetic.all_finite
    bfloat16 = arithmetic.bfloat16
    exp = arithmetic.exp
    getitem = arithmetic.getitem
    getitem_grad = arithmetic.getitem_grad
    lerp_into = arithmetic.lerp_into
    log = arithmetic.log
    power = arithmetic.power
    setitem = arithmetic.setitem
    tf32 = arithmetic.tf32
    attention_grad = attention.attention_grad
    attention = attention.attention  # last: it hides the module
    conv2d = conv.conv2d
    conv2d_grad_bias = conv.conv2d_grad_bias
    conv2d_grad_input = conv.conv2d_grad_input
    conv2d_grad_input_relu = conv.conv2d_grad_input_relu
    conv2d_grad_weight = conv.conv2d_grad_weight
    conv2d_relu = conv.conv2d_relu
    gather_images = data.gather_images
    warp_images = data.warp_images
    linear_grad_input = linear.linear_grad_input
    linear_grad_input_relu = linear.linear_grad_input_relu
    linear_grad_weight = linear.linear_grad_weight
    linear_relu = linear.linear_relu
    linear = linear.linear  # last: it hides the module
    cross_entropy = loss.cross_entropy
    cross_entropy_grad = loss.cross_entropy_grad
    label_range = loss.label_range
    note_step = loss.note_step
    batch_norm = normalization.batch_norm
    batch_norm_grad = normalization.batch_norm_grad
    batch_norm_statistics = normalization.batch_norm_statistics
    batch_norm_train = normalization.batch_norm_train
    batch_norm_train_grad = normalization.batch_norm_train_grad
    dropout = normalization.dropout
    layer_norm = normalization.layer_norm
    layer_norm_grad = normalization.layer_norm_grad
    adam_step = optimizer.adam_step
    adam_steps = optimizer.adam_steps
    clip_norm = optimizer.clip_norm
    clip_norms = optimizer.clip_norms
    lerps_into = optimizer.lerps_into
    sgd_step = optimizer.sgd_step
    sgd_steps = optimizer.sgd_steps
    total_norm = optimizer.total_norm
    matmul = product.matmul
    avg_pool2d = pooling.avg_pool2d
    max_pool2d = pooling.max_pool2d
    max_pool2d_grad = pooling.max_pool2d_grad
    relu_max_pool2d = pooling.relu_max_pool2d
    relu_max_pool2d_grad = pooling.relu_max_pool2d_grad
    window_means = pooling.window_means
    mean_of = reductions.mean_of
    sum = reductions.sum
    pointwise = pointwise.pointwise  # last: it hides the module
