"""Optimizer steps and gradient clipping, in place on parameters and their state."""

from minicnn.backend.arrays import namespace
from minicnn.backend.kernel import kernel


@kernel(writes="parameter velocity", consumes="gradient")
def sgd_step(parameter, gradient, velocity, first, lr, momentum, dampening, weight_decay, nesterov):
    """One step of SGD on ``parameter``; ``velocity`` is None without momentum.

    g += weight_decay w;  v = momentum v + (1 - dampening) g, or v = g on the ``first`` step;
    w -= lr (g + momentum v if nesterov, else v)  (Sutskever et al., 2013).
    """
    if weight_decay:
        gradient = gradient + weight_decay * parameter
    if velocity is not None:
        if first:
            velocity[...] = gradient
        else:
            velocity *= momentum
            velocity += (1 - dampening) * gradient
        gradient = gradient + momentum * velocity if nesterov else velocity
    parameter -= lr * gradient


@kernel(writes="parameter mean square", consumes="gradient")
def adam_step(parameter, gradient, mean, square, step, lr, beta1, beta2, eps, weight_decay, decoupled):
    """Step number ``step`` (from 1) of Adam (Kingma and Ba, 2015), or of AdamW (Loshchilov and Hutter, 2019).

    m = beta1 m + (1 - beta1) g;  s = beta2 s + (1 - beta2) g^2;
    w -= lr (m / (1 - beta1^t)) / (sqrt(s / (1 - beta2^t)) + eps). ``decoupled`` weight decay shrinks w itself, the
    other adds weight_decay w to g.
    """
    if weight_decay and decoupled:
        parameter *= 1 - lr * weight_decay
    elif weight_decay:
        gradient = gradient + weight_decay * parameter
    mean *= beta1
    mean += (1 - beta1) * gradient
    square *= beta2
    square += (1 - beta2) * gradient * gradient
    denominator = namespace(square).sqrt(square) / (1 - beta2**step) ** 0.5 + eps
    parameter -= lr / (1 - beta1**step) * mean / denominator


@kernel(lambda arrays: (), "float64")
def total_norm(arrays):
    """2-norm of all elements of a list of arrays together, computed and returned as one float64."""
    return namespace(arrays[0]).sqrt(sum((a.astype("float64") ** 2).sum() for a in arrays))


@kernel(writes="a")
def clip_norm(a, norm, limit):
    """a *= limit / (norm + 1e-6) in place where ``norm``, an array of one element, is finite and above ``limit``."""
    xp = namespace(a)
    factor = xp.where(xp.isfinite(norm) & (norm > limit), limit / (norm + 1e-6), 1.0)
    a *= factor.astype(a.dtype)


@kernel(writes="a")
def clip_values(a, limit):
    """a clipped to [-limit, limit], in place."""
    namespace(a).clip(a, -limit, limit, out=a)
