"""Arguments for every kernel on awkward geometry, and the comparison with the reference: one list for all backends."""

import numpy as np
import pytest

from minicnn.backend import reference, to_numpy

# n, c, h, w, outputs, kernel, stride, padding, dilation, groups
CONVOLUTIONS = [
    (2, 3, 7, 9, 4, (3, 2), (1, 1), (0, 0), (1, 1), 1),
    (1, 4, 8, 5, 6, (2, 3), (2, 1), (1, 2), (1, 2), 2),
    (3, 4, 6, 7, 4, (3, 3), (2, 3), (1, 1), (2, 1), 4),
    (2, 2, 9, 4, 3, (1, 1), (3, 2), (0, 0), (1, 1), 1),
    (5, 3, 12, 11, 5, (5, 4), (1, 2), (2, 3), (1, 1), 1),
    (1, 1, 3, 3, 1, (3, 3), (1, 1), (0, 0), (1, 1), 1),
    (0, 4, 6, 5, 6, (3, 2), (2, 1), (1, 0), (1, 1), 2),
]
# n, c, h, w, kernel, stride, padding, dilation, output size (past the padding in the fourth)
POOLINGS = [
    (2, 3, 8, 6, (2, 2), (2, 2), (0, 0), (1, 1), (4, 3)),
    (1, 2, 7, 9, (3, 2), (1, 2), (1, 1), (1, 1), (7, 5)),
    (3, 1, 9, 8, (2, 3), (3, 1), (0, 1), (2, 2), (3, 6)),
    (2, 2, 7, 5, (3, 3), (2, 2), (1, 1), (1, 1), (4, 3)),
    (1, 1, 6, 6, (3, 3), (2, 2), (0, 0), (1, 1), (3, 3)),
    (1, 2, 3, 4, (2, 2), (1, 1), (1, 1), (5, 4), (1, 2)),
]


def check(kernels, to_device, dtype, tolerance, names=None):
    """Run the cases (of ``names``) on arrays that ``to_device`` makes, and on NumPy arrays by the reference.

    Results, and arguments afterwards, must agree in shape, dtype and value, relative to the value and to the largest of
    the array: an argument that reference leaves alone must stay as it is.
    """
    for index, (name, arguments) in enumerate(cases(dtype)):
        if names and name not in names:
            continue
        case = f"{name}, case {index}"
        there = moved(arguments, to_device)
        expected = flat([getattr(reference, name)(*arguments), arguments])
        found = flat([getattr(kernels, name)(*there), there])
        assert len(found) == len(expected), case
        for x, y in zip(found, expected, strict=True):
            if not hasattr(y, "dtype"):
                numbers = isinstance(y, bool | int | float)
                assert not numbers or (type(x) is type(y) and x == pytest.approx(y, rel=tolerance, nan_ok=True)), case
                continue
            assert type(x) is type(to_device(y)) or isinstance(x, np.generic), case
            assert x.shape == y.shape and x.dtype == y.dtype, case
            finite = np.abs(y[np.isfinite(y)])
            atol = tolerance * float(finite.max(initial=0)) if y.dtype.kind == "f" else 0
            np.testing.assert_allclose(to_numpy(x), y, rtol=tolerance, atol=atol, err_msg=case)


def moved(value, to_device):
    """A nest of arguments with its arrays on the device."""
    if isinstance(value, tuple | list):
        return type(value)(moved(v, to_device) for v in value)
    return to_device(value) if is_array(value) else value


def flat(value):
    """The leaves of a nest."""
    return [leaf for v in value for leaf in flat(v)] if isinstance(value, tuple | list) else [value]


def is_array(value):
    return hasattr(value, "dtype") and not isinstance(value, np.generic)


def cases(dtype):
    """Return [(kernel, arguments)]: float arrays in ``dtype``. Equal from call to call."""
    rng = np.random.default_rng(7)
    found = []

    def normal(*shape):
        return rng.standard_normal(shape).astype(dtype)

    def case(name, *arguments):
        found.append((name, arguments))

    a, b, positive = normal(3, 4, 5), normal(4, 5), np.abs(normal(3, 4, 5)) + 0.1
    strided = normal(5, 6, 8)[::2, ::-1, 1:6].transpose(2, 0, 1)  # (5, 3, 6), no two axes contiguous
    for name in ("add", "subtract", "multiply"):
        case(name, a, b)
        case(name, a, 3)
    case("divide", a, positive)
    case("divide", a, 3)
    for name in ("exp", "negative", "sigmoid", "tanh", "relu"):
        case(name, a)
        case(name, strided)
    for name in ("log", "sqrt"):
        case(name, positive)
    case("sqrt_grad", a, positive)
    for exponent in (0, 1, 2, 3, -0.5):
        case("power", positive, exponent)
        case("power_grad", a, positive, exponent)
    case("matmul", normal(2, 3, 4), normal(4, 5))
    case("matmul", normal(6, 4), normal(7, 4).T)
    for axis in ((0,), (0, 2), (0, 1, 2)):
        for keepdims in (False, True):
            case("sum", a, axis, keepdims)
            case("max", a, axis, keepdims)
            case("min", a, axis, keepdims)
    case("extreme_grad", normal(3, 1, 5), a, a.max(1, keepdims=True))
    case("extreme_grad", normal(3, 1, 5), a, a.min(1, keepdims=True))
    for name in ("argmax", "argmin"):
        case(name, a, 1)
    case("put_along_axis", normal(3, 1, 5), rng.integers(0, 4, (3, 1, 5)), 1, 4)
    for name in ("equal", "not_equal", "less", "less_equal", "greater", "greater_equal"):
        case(name, a, b)
        case(name, a.round(), b.round())
        case(name, a.round(), 1.0)
    for shape, axes in (((700, 3), (0,)), ((5, 300, 4), (0, 1)), ((3, 4, 50), (0, 2)), ((129, 2, 2, 2), (0, 2, 3))):
        case("sum", normal(*shape), axes, False)
    case("sum", normal(700, 5)[:, 1:3], (0, 1), True)
    case("reshape", a, (5, 12))
    case("transpose", a, (2, 0, 1))
    case("getitem", a, (slice(None, None, 2), 1))
    case("getitem", a, (np.array([2, 0, 2]),))
    case("getitem_grad", normal(2, 5), (slice(None, None, 2), 1), (3, 4, 5))
    case("getitem_grad", normal(5), (-1, Ellipsis, 2, slice(None)), (3, 4, 5))
    case("getitem_grad", normal(6, 4, 5), np.array([2, 0, 2, 2, -1, 0]), (3, 4, 5))
    case("getitem_grad", normal(4, 3), (np.array([1, 1, 2, 1]), slice(0, 3), 4), (3, 4, 5))
    case("getitem_grad", normal(int((a > 0).sum())), a > 0, (3, 4, 5))
    case("concatenate", [a, normal(3, 2, 5)], 1)
    case("broadcast_to", normal(4, 1), (3, 4, 5))
    case("sum_to", a, (4, 1))
    case("accumulate", a.copy(), b)
    case("copy", a)
    case("convert", a, "float64")
    case("copy_into", a.copy(), b)
    case("linear", normal(5, 7), normal(3, 7), normal(3))
    case("linear", normal(5, 7), normal(3, 7), None)
    case("linear_grad_input", normal(5, 3), normal(3, 7))
    case("linear_grad_weight", normal(5, 3), normal(5, 7))
    case("linear_grad_bias", normal(5, 3))
    case("lerp_into", normal(17), normal(17), 0.1)
    case("lerp_into", normal(6, 4).T, normal(4, 6), 0.1)
    for value in (1.0, np.nan, -np.inf):
        case("all_finite", np.array([[1.0, 2.0], [value, 3.0]], dtype))
    case("all_finite", normal(40, 70))

    special = np.array([-0.0, 0.0, np.nan, np.inf, -np.inf, 40.0, -40.0, 1e-30, -7.0, -1.0, 0.4, 2.0, 5.0], dtype)
    gy = normal(13)
    for x, g in ((special, gy), (normal(3, 300), normal(3, 300)), (strided, strided[::-1])):
        finite = np.where(np.isfinite(x), x, dtype(0.3))
        case("relu", x)
        case("relu_grad", g, x)
        case("sigmoid", x)
        case("sigmoid_grad", g, finite)
        case("tanh_grad", g, finite)
        case("leaky_relu", x, 0.01)
        case("leaky_relu_grad", g, x, 0.01)
        case("elu", x, 1.5)
        case("elu_grad", g, x, 1.5)
        for approximate in ("none", "tanh"):
            case("gelu", finite, approximate)
            case("gelu_grad", g, finite, approximate)
    for shape in ((5, 10), (2, 3, 70), (1, 1), (3, 32)):
        x = normal(*shape) * 20
        for axis in (-1, 0):
            for name in ("softmax", "log_softmax"):
                case(name, x, axis)
            case("softmax_grad", normal(*shape), np.exp(normal(*shape)), axis)
            case("log_softmax_grad", normal(*shape), -np.exp(normal(*shape)), axis)
    case("softmax", np.array([[1e4, -1e4, 0], [np.nan, 0, 1], [-np.inf, 1, 2]], dtype), 1)

    for n, c, h, w, o, kernel, stride, padding, dilation, groups in CONVOLUTIONS:
        x, weight = normal(n, c, h, w), normal(o, c // groups, *kernel)
        oh, ow = (
            (size + 2 * padding[i] - dilation[i] * (kernel[i] - 1) - 1) // stride[i] + 1
            for i, size in enumerate((h, w))
        )
        options, gy = (stride, padding, dilation, groups), normal(n, o, oh, ow)
        case("conv2d", x, weight, normal(o), *options)
        case("conv2d", x[::-1, :, ::-1], weight.transpose(0, 1, 3, 2).copy().transpose(0, 1, 3, 2), None, *options)
        case("conv2d_grad_input", gy, weight, x.shape, *options)
        case("conv2d_grad_weight", gy[..., ::-1], x, weight.shape, *options)
        case("conv2d_grad_bias", gy)
    case("conv2d_grad_bias", normal(20, 3, 30, 31))  # several blocks a channel
    for n, c, h, w, kernel, stride, padding, dilation, size in POOLINGS:
        x = rng.integers(-3, 3, (n, c, h, w)).astype(dtype)  # with ties
        x[0, 0, 1, 1], x[0, 0, 2, :] = np.nan, -np.inf
        case("max_pool2d", x, kernel, stride, padding, dilation, size)
        case("max_pool2d", np.full_like(x, -np.inf), kernel, stride, padding, dilation, size)
        taps = rng.integers(0, kernel[0] * kernel[1], (n, c, *size)).astype(np.uint16)
        case("max_pool2d_grad", normal(n, c, *size), taps, x.shape, kernel, stride, padding, dilation)
    case("max_pool2d", normal(0, 2, 4, 6), (2, 2), (2, 2), (0, 0), (1, 1), (2, 3))
    case(
        "max_pool2d_grad",
        normal(0, 2, 2, 3),
        np.zeros((0, 2, 2, 3), np.uint16),
        (0, 2, 4, 6),
        (2, 2),
        (2, 2),
        (0, 0),
        (1, 1),
    )
    case("avg_pool2d", normal(0, 2, 4, 6), normal(2, 4), normal(3, 6))
    case("batch_norm", normal(0, 2, 3), normal(2), normal(2), normal(2), normal(2))
    case("batch_norm_grad", normal(0, 2, 3), normal(0, 2, 3), normal(2), normal(2), normal(2), False)
    case("window_means", a, 7, [0, 2, 5], [3, 5, 7], [3, 4, 2])
    case("avg_pool2d", normal(2, 3, 6, 5), normal(4, 6), normal(2, 5))
    rows, columns = (reference.window_means(a, n, [0, 2, 3], [2, 4, 6], [2, 2, 3]) for n in (7, 6))
    for special in (np.inf, -np.inf, np.nan):
        x = normal(2, 3, 7, 6)
        x[1, 2, 2, 3] = x[0, 0, 6, 0] = special
        case("avg_pool2d", x, rows, columns)
        case("avg_pool2d", np.ascontiguousarray(x[:, :, :3, :3]), rows.T, columns.T)

    for shape in ((6, 3), (2, 5, 7, 4), (20, 3, 30, 31), (2, 3, 5, 1, 2)):
        c = shape[1]
        x = normal(*shape) * 3 + 50
        mean, inverse_std, weight, bias = normal(c) + 50, np.abs(normal(c)) + 0.5, normal(c), normal(c)
        case("batch_norm_statistics", x)
        case("batch_norm", x, mean, inverse_std, weight, bias)
        case("batch_norm", x, mean, inverse_std, None, None)
        for training in (True, False):
            case("batch_norm_grad", normal(*shape), x, mean, inverse_std, weight, training)
            case("batch_norm_grad", normal(*shape), x, mean, inverse_std, None, training)
    for shape, dims in (((4, 10), 1), ((2, 3, 70), 1), ((5, 4, 6), 2), ((2, 3), 2), ((300, 33), 1)):
        x, inner = normal(*shape) * 2 + 3, shape[len(shape) - dims :]
        kept = (*shape[: len(shape) - dims], *(1,) * dims)
        case("layer_norm", x, dims, normal(*inner), normal(*inner), 1e-5)
        case("layer_norm", x, dims, None, None, 1e-5)
        for weight in (normal(*inner), None):
            case("layer_norm_grad", normal(*shape), x, dims, normal(*kept) + 3, np.abs(normal(*kept)) + 0.3, weight)
    for key, p in ((0, 0.5), (2**64 - 3, 0.1), (0x123456789ABCDEF0, 0.9)):
        case("dropout", normal(3, 333), key, p)
    case("dropout", strided, 42, 0.3)

    for rows, k in ((7, 10), (3, 40), (1, 2)):
        labels = rng.integers(0, k, rows)
        for weight, smoothing in ((None, 0.0), (np.abs(normal(k)), 0.1)):
            case("cross_entropy", normal(rows, k) * 5, labels, weight, smoothing)
            uniform = np.full((rows, k), 1 / k, dtype)
            case("cross_entropy_grad", normal(rows), uniform, labels, weight, smoothing)
            target = rng.random((rows, k)).astype(dtype)
            case("cross_entropy", normal(rows, k) * 5, target, weight, smoothing)
            case("cross_entropy_grad", normal(rows), uniform, target.T.copy().T, weight, smoothing)
    case("cross_entropy", np.array([[1e4, -1e4, 0], [-1e4, 1e4, 3]], dtype), np.array([1, 1]), None, 0.0)
    masked = normal(3, 4)
    masked[:, 1] = -np.inf
    case("cross_entropy", masked, np.array([0, 2, 1]), None, 0.0)
    case("cross_entropy", masked, np.array([0, 2, 3]), None, 0.1)
    case("cross_entropy", masked, np.array([[0.5, 0, 0.5, 0]] * 3, dtype), np.array([1, 0, 2, 3], dtype), 0.0)
    case("softmax", masked, 1)
    case("log_softmax", masked, 1)
    case(
        "cross_entropy_grad",
        np.broadcast_to(dtype(0.25), (4,)),
        np.full((4, 3), 1 / 3, dtype),
        np.arange(4) % 3,
        None,
        0.0,
    )
    case("label_range", np.array([4, -2, 9, 3]))
    case("label_range", rng.integers(0, 50, 777).astype(np.int32))
    case("label_range", np.array([3, 1], np.uint8))

    for momentum, dampening, decay, nesterov in (
        (0.9, 0.0, 1e-2, True),
        (0.9, 0.3, 0.0, False),
        (0.5, 0.1, 0.1, False),
    ):
        for first in (True, False):
            case(
                "sgd_step",
                normal(9, 35),
                normal(9, 35),
                normal(9, 35),
                first,
                0.1,
                momentum,
                dampening,
                decay,
                nesterov,
            )
    case("sgd_step", normal(9), normal(9), None, True, 0.1, 0.0, 0.0, 0.1, False)
    case("sgd_step", normal(4, 9).T, normal(9, 4), normal(9, 4), False, 0.1, 0.9, 0.0, 0.0, True)
    for step, decay, decoupled in ((1, 0.0, False), (7, 0.1, False), (3, 0.1, True)):
        for parameter in (normal(9, 35), normal(35, 9).T):
            state = (parameter, normal(9, 35), normal(9, 35), np.abs(normal(9, 35)))
            case("adam_step", *state, step, 0.01, 0.9, 0.999, 1e-8, decay, decoupled)
    case("total_norm", [normal(3, 7)])
    case("total_norm", [normal(70, 80) * 1e3, normal(4), normal(3, 2)[:, ::2], np.asarray(dtype(3))])
    for norm, limit in ((2.5, 0.7), (0.5, 0.7), (np.nan, 0.7), (np.inf, 0.7)):
        case("clip_norm", normal(5, 3), np.asarray(norm), limit)
    case("clip_norm", normal(5, 3).T, np.asarray(3.0), 0.3)
    case("clip_values", normal(5, 3), 0.7)

    images = rng.integers(0, 256, (5, 3, 8, 6), dtype=np.uint8)
    shifts = rng.integers(-5, 6, (2, 7))
    mean, std = np.float32([0.4, 0.5, 0.6]), np.float32([0.2, 0.3, 0.25])
    for mode in ("reflect", "constant", "replicate"):
        drawn = (rng.integers(0, 5, 7), rng.random(7) < 0.5, *shifts)
        case("gather_images", images, *drawn, mean, std, mode)
        case("gather_images", images, *drawn[:2], *(3 * shifts), mean, std, mode)
        for spread in (0.2, 3):
            matrix = rng.normal(np.eye(2, 3), spread, (7, 2, 3)).astype(np.float32)
            case("warp_images", images, drawn[0], matrix, mean, std, mode)
            case("warp_images", images[:, :, 2:3, 3:4], drawn[0], matrix, mean, std, mode)
    for shape in ((1, 3, 1, 1), (4, 3, 7, 2), (5, 3, 6, 9)):
        x, n = rng.random(shape).astype(dtype), shape[0]
        case("adjust_colors", x, *rng.uniform(0, 2, (3, n)).astype(dtype))
        case("adjust_sharpness", x, rng.uniform(0, 3, n).astype(dtype))
        case("normalize_images", x, mean, std)
        case("erase_images", x, rng.integers(-3, 12, (n, 4)))
        case("mix_images", x, rng.permutation(n), rng.random(shape[2:]).astype(dtype))
    return found
