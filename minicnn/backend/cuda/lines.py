"""What elementwise kernels do: lines of CUDA C that make `out` of their operands, all of the type T.

A kernel called alone is its line in CuPy's ElementwiseKernel; :mod:`minicnn.backend.cuda.pointwise` joins the lines of
several, and kernels of ``.cu`` files call them as functions. So the results have the same bits everywhere.
"""

_GELU_TANH = "T t = tanh(T(0.79788456080286536) * (x + T(0.044715) * x * x * x))"  # sqrt(2 / pi)
_TANH_SLOPE = "T slope = T(0.79788456080286536) * (1 + 3 * T(0.044715) * x * x)"
_NORMAL_CDF = "T cdf = T(0.5) * erfc(-x * T(0.70710678118654752))"
_DENSITY = "exp(T(-0.5) * x * x) * T(0.39894228040143268)"  # 1 / sqrt(2 pi)

LINES = {  # names of the operands, and the line
    "add": ("a b", "out = a + b"),
    "subtract": ("a b", "out = a - b"),
    "multiply": ("a b", "out = a * b"),
    "divide": ("a b", "out = a / b"),
    "negative": ("a", "out = -a"),
    "exp": ("a", "out = exp(a)"),
    "log": ("a", "out = log(a)"),
    "sqrt": ("a", "out = sqrt(a)"),
    "sqrt_grad": ("gy y", "out = gy * T(0.5) / y"),
    "power": ("a exponent", "out = pow(a, exponent)"),
    "batch_norm": ("x mean inverse_std weight bias", "out = (x - mean) * inverse_std * weight + bias"),
    "relu": ("x", "out = x < 0 ? T(0) : x"),  # NaN stays
    "relu_grad": ("gy y", "out = y > 0 ? gy : T(0)"),
    "leaky_relu": ("x slope", "out = x > 0 ? x : x * slope"),
    "leaky_relu_grad": ("gy x slope", "out = x > 0 ? gy : gy * slope"),
    "elu": ("x alpha", "out = x > 0 ? x : alpha * expm1(x)"),
    "elu_grad": ("gy x alpha", "out = x > 0 ? gy : gy * (alpha * exp(x))"),
    "gelu": ("x", f"{_NORMAL_CDF}; out = x * cdf"),
    "gelu_grad": ("gy x", f"{_NORMAL_CDF}; out = gy * (cdf + x * {_DENSITY})"),
    "gelu_tanh": ("x", f"{_GELU_TANH}; out = T(0.5) * x * (1 + t)"),
    "gelu_tanh_grad": (
        "gy x",
        f"{_GELU_TANH}; {_TANH_SLOPE}; out = gy * (T(0.5) * (1 + t) + T(0.5) * x * (1 - t * t) * slope)",
    ),
    "sigmoid": ("x", "T e = exp(-fabs(x)); out = (x >= 0 ? T(1) : e) / (1 + e)"),
    "sigmoid_grad": ("gy y", "out = gy * (y * (1 - y))"),
    "tanh": ("x", "out = tanh(x)"),
    "tanh_grad": ("gy y", "out = gy * (1 - y * y)"),
}
_DECAYED = "T g = weight_decay ? gradient + T(weight_decay) * parameter : gradient"
IN_PLACE = {  # parameters of the line, those that it edits, and the line
    "sgd_step": ("T gradient, float64 lr, float64 weight_decay", "T parameter", f"{_DECAYED}; parameter -= T(lr) * g"),
    "sgd_momentum_step": (
        "T gradient, float64 lr, float64 weight_decay, float64 momentum, float64 fresh, bool first, bool nesterov",
        "T parameter, T velocity",
        f"{_DECAYED}; velocity = first ? g : T(momentum) * velocity + T(fresh) * g; "
        "parameter -= T(lr) * (nesterov ? g + T(momentum) * velocity : velocity)",
    ),
    "adam_step": (
        "T gradient, float64 keep, float64 weight_decay, float64 beta1, float64 fresh1, float64 beta2, float64 fresh2, "
        "float64 eps, float64 rate, float64 root",
        "T parameter, T mean, T square",
        "T value = parameter * T(keep), g = gradient + T(weight_decay) * value; "
        "mean = T(beta1) * mean + T(fresh1) * g; square = T(beta2) * square + T(fresh2) * g * g; "
        "parameter = value - T(rate) * mean / (sqrt(square) / T(root) + T(eps))",
    ),
    "clip_norm": (
        "float64 norm, float64 limit",
        "T a",
        "if (isfinite(norm) && norm > limit) a *= T(limit / (norm + 1e-6))",
    ),
    "lerp_into": ("T value, float64 weight", "T target", "target += T(weight) * (value - target)"),
}
_CALLED = ("power", "batch_norm", "relu", "relu_grad", "gelu", "gelu_grad", "gelu_tanh", "gelu_tanh_grad")
"""Those of :data:`LINES` that kernels of ``.cu`` files call; they call all of :data:`IN_PLACE`."""


def functions() -> str:
    """Return the lines that ``.cu`` files call as functions: real line_relu(real x)."""
    made = []
    for name in _CALLED:
        operands, line = LINES[name]
        parameters = ", ".join(f"T {operand}" for operand in operands.split())
        made.append(f"T line_{name}({parameters}) {{ T out; {line}; return out; }}")
    for name, (inputs, edited, line) in IN_PLACE.items():
        parameters = ", ".join(
            [inputs.replace("float64", "double"), *(e.replace(" ", "& ") for e in edited.split(", "))]
        )
        made.append(f"void line_{name}({parameters}) {{ {line}; }}")
    each = "\n".join(f"template <typename T>\n__device__ inline {function}" for function in made)
    return f"{each}\n"
