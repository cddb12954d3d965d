"""Every kernel of minicnn in plain array code: the specification of the faster backends, and their oracle.

A kernel takes and returns plain arrays of one array library (NumPy or CuPy; :func:`minicnn.backend.arrays.namespace`
finds out which), works in the dtype it is given, and trusts its caller: arguments are checked in
``minicnn.functional``. Legend of the shapes: N images, C input channels, H x W input, O output channels, KH x KW
window, OH x OW output, G groups, K classes.
"""

from minicnn.backend.reference import (
    activation,
    arithmetic,
    attention,
    conv,
    data,
    fused,
    linear,
    loss,
    normalization,
    optimizer,
    pooling,
    reductions,
)


class Kernels:
    """The set of instructions; a backend derives from it, and overrides what it does in its own way.

    It is used as it is, without an instance. This list is what a type checker and an editor know the kernels by.
    """

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
    accumulate = arithmetic.accumulate
    add = arithmetic.add
    all_finite = arithmetic.all_finite
    bfloat16 = arithmetic.bfloat16
    broadcast_to = arithmetic.broadcast_to
    concatenate = arithmetic.concatenate
    convert = arithmetic.convert
    copy = arithmetic.copy
    copy_into = arithmetic.copy_into
    divide = arithmetic.divide
    equal = arithmetic.equal
    exp = arithmetic.exp
    getitem = arithmetic.getitem
    getitem_grad = arithmetic.getitem_grad
    setitem = arithmetic.setitem
    tf32 = arithmetic.tf32
    greater = arithmetic.greater
    greater_equal = arithmetic.greater_equal
    lerp_into = arithmetic.lerp_into
    less = arithmetic.less
    less_equal = arithmetic.less_equal
    log = arithmetic.log
    matmul = arithmetic.matmul
    multiply = arithmetic.multiply
    negative = arithmetic.negative
    not_equal = arithmetic.not_equal
    power = arithmetic.power
    power_grad = arithmetic.power_grad
    reshape = arithmetic.reshape
    sqrt = arithmetic.sqrt
    sqrt_grad = arithmetic.sqrt_grad
    subtract = arithmetic.subtract
    transpose = arithmetic.transpose
    attention_grad = attention.attention_grad
    attention = attention.attention  # last: it hides the module
    conv2d = conv.conv2d
    conv2d_grad_bias = conv.conv2d_grad_bias
    conv2d_grad_input = conv.conv2d_grad_input
    conv2d_grad_weight = conv.conv2d_grad_weight
    adjust_colors = data.adjust_colors
    adjust_sharpness = data.adjust_sharpness
    crop_images = data.crop_images
    erase_images = data.erase_images
    gather_images = data.gather_images
    mix_images = data.mix_images
    normalize_images = data.normalize_images
    warp_images = data.warp_images
    adam_steps = fused.adam_steps
    batch_norm_train = fused.batch_norm_train
    batch_norm_train_grad = fused.batch_norm_train_grad
    clip_norms = fused.clip_norms
    conv2d_grad_input_relu = fused.conv2d_grad_input_relu
    conv2d_relu = fused.conv2d_relu
    lerps_into = fused.lerps_into
    linear_grad_input_relu = fused.linear_grad_input_relu
    linear_relu = fused.linear_relu
    mean_of = fused.mean_of
    pointwise = fused.pointwise
    relu_max_pool2d = fused.relu_max_pool2d
    relu_max_pool2d_grad = fused.relu_max_pool2d_grad
    sgd_steps = fused.sgd_steps
    linear_grad_bias = linear.linear_grad_bias
    linear_grad_input = linear.linear_grad_input
    linear_grad_weight = linear.linear_grad_weight
    linear = linear.linear  # last: it hides the module
    cross_entropy = loss.cross_entropy
    cross_entropy_grad = loss.cross_entropy_grad
    label_weights = loss.label_weights
    label_range = loss.label_range
    note_step = loss.note_step
    batch_norm = normalization.batch_norm
    batch_norm_grad = normalization.batch_norm_grad
    batch_norm_statistics = normalization.batch_norm_statistics
    dropout = normalization.dropout
    layer_norm = normalization.layer_norm
    layer_norm_grad = normalization.layer_norm_grad
    adam_step = optimizer.adam_step
    clip_norm = optimizer.clip_norm
    clip_values = optimizer.clip_values
    sgd_step = optimizer.sgd_step
    total_norm = optimizer.total_norm
    avg_pool2d = pooling.avg_pool2d
    max_pool2d = pooling.max_pool2d
    max_pool2d_grad = pooling.max_pool2d_grad
    window_means = pooling.window_means
    argmax = reductions.argmax
    argmin = reductions.argmin
    extreme_grad = reductions.extreme_grad
    max = reductions.max
    min = reductions.min
    put_along_axis = reductions.put_along_axis
    sum = reductions.sum
    sum_to = reductions.sum_to
