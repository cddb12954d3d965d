"""Activation functions. A gradient kernel takes what backward needs least: the output where that is enough."""

import math

from minicnn.backend.arrays import namespace


def relu(x):
    """max(x, 0); NaN stays NaN."""
    return namespace(x).maximum(x, 0)


def relu_grad(gy, y):
    """gy where y > 0, 0 elsewhere, whatever gy is there."""
    return namespace(gy).where(y > 0, gy, gy.dtype.type(0))


def leaky_relu(x, negative_slope):
    """x where x > 0, negative_slope * x elsewhere."""
    return namespace(x).where(x > 0, x, x * negative_slope)


def leaky_relu_grad(gy, x, negative_slope):
    """gy where x > 0, negative_slope * gy elsewhere."""
    return namespace(x).where(x > 0, gy, gy * negative_slope)


def elu(x, alpha):
    """x where x > 0, alpha (e^x - 1) elsewhere (Clevert et al., 2016)."""
    xp = namespace(x)
    return xp.where(x > 0, x, alpha * xp.expm1(xp.minimum(x, 0)))


def elu_grad(gy, x, alpha):
    """gy where x > 0, gy alpha e^x elsewhere."""
    xp = namespace(x)
    return xp.where(x > 0, gy, gy * (alpha * xp.exp(xp.minimum(x, 0))))


def gelu(x, approximate):
    """x Phi(x) (Hendrycks and Gimpel, 2016); ``approximate``: "none", or "tanh" for its tanh form."""
    if approximate == "tanh":
        return 0.5 * x * (1 + namespace(x).tanh(_gelu_argument(x)))
    return x * _normal_cdf(x)


def gelu_grad(gy, x, approximate):
    """gy (Phi(x) + x phi(x)), or the derivative of the tanh form."""
    xp = namespace(x)
    if approximate == "tanh":
        t = xp.tanh(_gelu_argument(x))
        slope = math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * x * x)
        return gy * (0.5 * (1 + t) + 0.5 * x * (1 - t * t) * slope)
    return gy * (_normal_cdf(x) + x * xp.exp(-0.5 * x * x) * (1 / math.sqrt(2 * math.pi)))


def _gelu_argument(x):
    return math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)


def _normal_cdf(x):
    """Phi(x) = erfc(-x / sqrt 2) / 2 by the rational Chebyshev form of W. J. Cody (1969), to 1e-15 in float64.

    NumPy has no erf, and the reference runs on array code alone.
    """
    xp = namespace(x)
    z = xp.abs(x) * math.sqrt(0.5)
    small = xp.minimum(z, 0.5)
    middle = xp.minimum(xp.maximum(z, 0.46875), 4)
    large = xp.maximum(z, 4)
    square = small * small
    erf_small = small * _ratio(square, _ERF_P, _ERF_Q)
    erfc_middle = xp.exp(-middle * middle) * _ratio(middle, _ERFC_P, _ERFC_Q)
    inverse = 1 / (large * large)
    tail = (1 / math.sqrt(math.pi) - inverse * _ratio(inverse, _TAIL_P, _TAIL_Q)) / large
    erfc_large = xp.exp(-large * large) * tail
    erfc = xp.where(z <= 0.46875, 1 - erf_small, xp.where(z <= 4, erfc_middle, erfc_large))
    return xp.where(x > 0, 1 - 0.5 * erfc, 0.5 * erfc)


def _ratio(x, numerator, denominator):
    """Quotient of two polynomials, coefficients from the highest power down."""
    top, bottom = x * 0 + numerator[0], x * 0 + denominator[0]
    for p in numerator[1:]:
        top = top * x + p
    for q in denominator[1:]:
        bottom = bottom * x + q
    return top / bottom


_ERF_P = (1.85777706184603153e-1, 3.16112374387056560, 1.13864154151050156e2, 3.77485237685302021e2,
          3.20937758913846947e3)  # fmt: skip
_ERF_Q = (1.0, 2.36012909523441209e1, 2.44024637934444173e2, 1.28261652607737228e3, 2.84423683343917062e3)
_ERFC_P = (2.15311535474403846e-8, 5.64188496988670089e-1, 8.88314979438837594, 6.61191906371416295e1,
           2.98635138197400131e2, 8.81952221241769090e2, 1.71204761263407058e3, 2.05107837782607147e3,
           1.23033935479799725e3)  # fmt: skip
_ERFC_Q = (1.0, 1.57449261107098347e1, 1.17693950891312499e2, 5.37181101862009858e2, 1.62138957456669019e3,
           3.29079923573345963e3, 4.36261909014324716e3, 3.43936767414372164e3, 1.23033935480374942e3)  # fmt: skip
_TAIL_P = (1.63153871373020978e-2, 3.05326634961232344e-1, 3.60344899949804439e-1, 1.25781726111229246e-1,
           1.60837851487422766e-2, 6.58749161529837803e-4)  # fmt: skip
_TAIL_Q = (1.0, 2.56852019228982242, 1.87295284992346047, 5.27905102951428412e-1, 6.05183413124413191e-2,
           2.33520497626869185e-3)  # fmt: skip


def sigmoid(x):
    """1 / (1 + e^-x), without overflow."""
    xp = namespace(x)
    e = xp.exp(-xp.abs(x))
    return xp.where(x >= 0, 1 / (1 + e), e / (1 + e))


def sigmoid_grad(gy, y):
    """gy y (1 - y)."""
    return gy * (y * (1 - y))


def tanh(x):
    """Hyperbolic tangent."""
    return namespace(x).tanh(x)


def tanh_grad(gy, y):
    """gy (1 - y^2)."""
    return gy * (1 - y * y)


def softmax(x, axis):
    """e^x / sum e^x along ``axis``, shifted by the maximum so that it never overflows."""
    e = namespace(x).exp(x - x.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def softmax_grad(gy, y, axis):
    """y (gy - sum(gy y))."""
    return y * (gy - (gy * y).sum(axis=axis, keepdims=True))


def log_softmax(x, axis):
    """x - log sum e^x along ``axis``."""
    xp = namespace(x)
    shifted = x - x.max(axis=axis, keepdims=True)
    return shifted - xp.log(xp.exp(shifted).sum(axis=axis, keepdims=True))


def log_softmax_grad(gy, y, axis):
    """gy - e^y sum(gy)."""
    return gy - namespace(y).exp(y) * gy.sum(axis=axis, keepdims=True)
