"""Every kernel of every fast backend against the reference, on a table of awkward cases."""

import numpy as np
import pytest

from minicnn import backend
from minicnn.backend import cpu, reference

RNG = np.random.default_rng(0)


def real(*shape):
    return np.asarray(RNG.standard_normal(shape))


def positive(*shape):
    return np.asarray(RNG.uniform(0.5, 2.0, shape))


def ties(*shape):
    return RNG.integers(-2, 3, shape).astype(np.float64)


def labels(count, classes):
    return RNG.integers(0, classes, count)


def specials(*shape):
    a = real(*shape)
    a.flat[:: max(a.size // 5, 1)] = np.nan
    a.flat[1 :: max(a.size // 4, 1)] = -np.inf
    return a


ELEMENTWISE = [real(3, 4), real(), real(0, 3), real(2, 3, 5, 7), real(1), real(40, 300)]
PAIRS = [(a, real(*a.shape)) for a in ELEMENTWISE]
BROADCAST = [
    *PAIRS,
    (real(3, 1, 2), real(4, 1)),
    (real(5), real()),
    (real(2, 3), 2),
    (real(2, 3), 0.5),
    (real(6, 3, 5, 5), real(3, 1, 1)),
]
CONVOLUTIONS = [  # N, C, (H, W), O, (KH, KW), stride, padding, dilation, groups
    (1, 1, (1, 1), 1, (1, 1), (1, 1), (0, 0), (1, 1), 1),
    (1, 3, (5, 8), 2, (2, 4), (1, 1), (0, 0), (1, 1), 1),
    (3, 2, (9, 4), 3, (5, 1), (2, 1), (2, 0), (1, 1), 1),
    (9, 3, (9, 7), 2, (3, 2), (1, 3), (2, 1), (1, 3), 1),
    (8, 2, (9, 8), 3, (2, 1), (4, 3), (0, 0), (1, 1), 1),
    (5, 1, (2, 3), 2, (2, 1), (1, 1), (3, 2), (1, 1), 1),
    (17, 4, (5, 6), 6, (2, 3), (1, 1), (1, 1), (1, 1), 2),
    (6, 3, (6, 5), 6, (3, 2), (2, 1), (1, 0), (1, 2), 3),
    (4, 2, (8, 9), 7, (3, 3), (3, 3), (0, 0), (1, 1), 1),
    (33, 3, (12, 11), 6, (5, 5), (1, 1), (2, 2), (1, 1), 1),
    (137, 2, (6, 6), 17, (3, 3), (1, 1), (1, 1), (1, 1), 1),
    (0, 2, (6, 5), 4, (3, 2), (2, 1), (1, 0), (1, 1), 2),
]


def convolutions():
    for n, c, size, o, window, *options in CONVOLUTIONS:
        stride, padding, dilation, groups = options
        axes = zip(size, window, stride, padding, dilation, strict=True)
        output = [(s + 2 * p - d * (k - 1) - 1) // t + 1 for s, k, t, p, d in axes]
        yield real(n, c, *size), real(o, c // groups, *window), real(o), real(n, o, *output), options


CONV = list(convolutions())
POOLS = [  # kernel_size, stride, padding, dilation, output_size of a 7 x 6 picture
    ((2, 2), (2, 2), (0, 0), (1, 1), (3, 3)),
    ((1, 3), (1, 2), (0, 1), (1, 1), (7, 3)),
    ((3, 2), (2, 3), (1, 1), (1, 1), (4, 3)),  # hangs over both edges
    ((2, 1), (3, 4), (0, 0), (1, 1), (2, 2)),
    ((2, 3), (1, 1), (1, 1), (3, 2), (6, 4)),
    ((7, 6), (1, 1), (0, 0), (1, 1), (1, 1)),
]
PICTURES = [real(2, 3, 7, 6), ties(9, 2, 7, 6), specials(3, 1, 7, 6), np.full((1, 2, 7, 6), -np.inf), real(40, 5, 7, 6)]


def pool_gradients():
    for options in POOLS:
        for x in (PICTURES[0], PICTURES[1], PICTURES[4]):
            y, taps = reference.max_pool2d(x, *options)
            yield real(*y.shape), taps, x.shape, *options[:4]


NORMS = [real(5, 3), real(4, 3, 7), real(9, 2, 5, 4) * 3 + 1, real(1, 3, 2, 5), real(64, 4, 6, 6)]


def batch_norms():
    for x in NORMS:
        c = x.shape[1]
        for weight, bias in ((real(c), real(c)), (None, None), (real(c), None), (None, real(c))):
            yield x, real(c), positive(c), weight, bias


def layer_norms():
    for shape, dims in (((4, 5), 1), ((2, 3, 5), 2), ((3, 4), 2), ((40, 33), 1), ((3, 70, 17), 1)):
        inner = shape[-dims:]
        for weight, bias in ((real(*inner), real(*inner)), (None, None)):
            yield real(*shape), dims, weight, bias


def layer_norm_gradients():
    for x, dims, weight, _ in layer_norms():
        _, mean, inverse_std = reference.layer_norm(x, dims, weight, None, 1e-5)
        yield real(*x.shape), x, dims, mean, inverse_std, weight


LOSSES = [
    (logits, target, weight, smoothing)
    for logits in (real(5, 4), real(1, 1), real(300, 10), real(3, 2) * 1e4)
    for target in (labels(*logits.shape), positive(*logits.shape))
    for weight in (None, positive(logits.shape[1]))
    for smoothing in (0.0, 0.1)
]
COMPARISONS = [*BROADCAST, (ties(3, 4), ties(4)), (ties(3, 4), 1), (specials(3, 5), specials(3, 5))]
MATRICES = [
    (real(3, 4), real(4, 2)),
    (real(1, 1), real(1, 1)),
    (real(0, 3), real(3, 2)),
    (real(2, 3, 4), real(2, 4, 5)),
    (real(5, 1, 3, 4), real(2, 4, 1)),
    (real(3, 4), real(2, 4, 5)),
    (real(200, 130), real(130, 150)),
    (real(3, 70, 200), real(3, 200, 90)),
    (real(513, 64), real(64, 128)),
]
IMAGES = RNG.integers(0, 256, (6, 3, 8, 7), dtype=np.uint8)
MODES = ("reflect", "constant", "replicate")
SHAPES = [(3,), (2, 3, 4), (), (5000,)]


def gathers():
    mean, std = np.array([0.5, 0.4, 0.3], np.float32), np.array([0.25, 0.2, 0.3], np.float32)
    for n in (1, 19):
        index, flip = RNG.integers(0, 6, n), RNG.integers(0, 2, n).astype(bool)
        for mode in MODES:
            yield IMAGES, index, flip, RNG.integers(-6, 7, n), RNG.integers(-6, 7, n), mean, std, mode


def warps():
    mean, std = np.array([0.5, 0.4, 0.3], np.float32), np.array([0.25, 0.2, 0.3], np.float32)
    for n, spread in ((1, 0.1), (19, 3.0)):  # the latter far past the edges
        matrix = RNG.normal(np.eye(2, 3), spread, (n, 2, 3)).astype(np.float32)
        for mode in MODES:
            yield IMAGES, RNG.integers(0, 6, n), matrix, mean, std, mode
            yield IMAGES[:, :, :1, 5:6], RNG.integers(0, 6, n), matrix, mean, std, mode


def sgd():
    for shape in SHAPES:
        yield real(*shape), real(*shape), None, True, 0.1, 0.0, 0.0, 0.0, False
        for first in (True, False):
            yield real(*shape), real(*shape), real(*shape), first, 0.1, 0.9, 0.0, 0.01, True
            yield real(*shape), real(*shape), real(*shape), first, 0.1, 0.9, 0.3, 0.0, False


LINEARS = ((1, 1, 1), (5, 7, 3), (256, 120, 80))  # images, inputs, outputs; the last is worth two threads
BATCHES = [RNG.random(shape) for shape in ((1, 3, 1, 1), (5, 3, 7, 2), (4, 3, 6, 9), (40, 3, 32, 32))]
CASES = {  # kernel: list of arguments; float arrays are tried in both precisions and several layouts
    "accumulate": PAIRS + [(real(4, 3), real(3))],
    "adam_step": [
        (real(*s), real(*s), real(*s), positive(*s), step, 0.01, 0.9, 0.99, 1e-8, decay, decoupled)
        for s in SHAPES
        for step, decay, decoupled in ((1, 0.0, False), (7, 0.1, False), (3, 0.1, True))
    ],
    "add": BROADCAST,
    "adjust_colors": [(x, *RNG.uniform(0, 2, (3, len(x)))) for x in BATCHES],
    "adjust_sharpness": [(x, RNG.uniform(0, 3, len(x))) for x in BATCHES],
    "all_finite": [(real(3, 4),), (specials(3, 4),), (real(0),), (np.array([np.inf]),)],
    "argmin": [(real(3, 4), 0), (ties(5, 6, 2), 1), (ties(300, 10), 1), (specials(4, 5), 1)],
    "argmax": [(real(3, 4), 0), (ties(5, 6, 2), 1), (ties(300, 10), 1)],
    "avg_pool2d": [
        (real(2, 3, 7, 6), real(4, 7), real(2, 6)),
        (real(9, 1, 5, 4), real(5, 5), real(1, 4)),
        (specials(2, 3, 7, 6), np.kron(np.eye(3, 3), [0.5, 0.5])[:, [0, 1, 2, 3, 4, 5, 5]], np.eye(6)[1::2]),
    ],
    "batch_norm": list(batch_norms()),
    "batch_norm_grad": [(real(*x.shape), x, m, s, w, t) for x, m, s, w, _ in batch_norms() for t in (True, False)],
    "batch_norm_statistics": [(x,) for x in NORMS],
    "broadcast_to": [(real(3, 1), (2, 3, 4)), (real(), (2, 3))],
    "clip_norm": [(real(3, 4), np.asarray(norm), 0.5) for norm in (2.0, 0.3, np.nan, np.inf)] + [(real(), real(), 1.0)],
    "clip_values": [(real(3, 4), 0.5), (real(), 0.1), (real(7), 100.0)],
    "concatenate": [([real(2, 3), real(2, 1), real(2, 4)], 1), ([real(2, 3)], 0)],
    "conv2d": [(x, w, bias, *options) for x, w, b, _, options in CONV for bias in (b, None)],
    "conv2d_grad_bias": [(gy,) for *_, gy, _ in CONV],
    "conv2d_grad_input": [(gy, w, x.shape, *options) for x, w, _, gy, options in CONV],
    "conv2d_grad_weight": [(gy, x, w.shape, *options) for x, w, _, gy, options in CONV],
    "copy": [(x,) for x in ELEMENTWISE],
    "convert": [(x, dtype) for x in ELEMENTWISE for dtype in ("float32", "float64")],
    "copy_into": [(real(3, 4), real(3, 4)), (real(3, 4), real(4)), (real(2), 1.5), (real(2), np.array([1, 2]))],
    "cross_entropy": LOSSES,
    "cross_entropy_grad": [(real(len(x)), reference.cross_entropy(x, t, w, s)[1], t, w, s) for x, t, w, s in LOSSES],
    "divide": [(a, np.asarray(b + 10) if isinstance(b, np.ndarray) else b) for a, b in BROADCAST],
    "dropout": [(x, key, p) for x in ELEMENTWISE for key, p in ((0, 0.5), (2**64 - 1, 0.1), (12345, 0.999))],
    "elu": [(x, 1.3) for x in ELEMENTWISE],
    "elu_grad": [(gy, x, 1.3) for gy, x in PAIRS],
    "erase_images": [(x, RNG.integers(-3, 12, (len(x), 4))) for x in [*BATCHES, real(2, 1, 8, 9)]],
    "exp": [(x,) for x in ELEMENTWISE],
    "extreme_grad": [
        (real(3, 1), (x := ties(3, 5)), x.max(1, keepdims=True)),
        (real(3, 1), x, x.min(1, keepdims=True)),
        (real(1, 1), x, x.max(keepdims=True)),
        (real(4, 1), (x := specials(4, 5)), x.max(1, keepdims=True)),
    ],
    "gather_images": list(gathers()),
    "gelu": [(np.asarray(x * 4), form) for x in ELEMENTWISE for form in ("none", "tanh")],
    "gelu_grad": [(gy, np.asarray(x * 4), form) for gy, x in PAIRS for form in ("none", "tanh")],
    "getitem": [(real(4, 3), (slice(1, None), 0)), (real(4, 3), np.array([2, 0, 2])), (real(4), ...)],
    "getitem_grad": [(real(3), (slice(1, None), 0), (4, 3)), (real(3, 3), np.array([2, 0, 2]), (4, 3))],
    "label_range": [(labels(7, 9),), (np.array([-3, 200], np.int16),), (np.array([5], np.uint8),)],
    "layer_norm": [(*case, 1e-5) for case in layer_norms()],
    "layer_norm_grad": list(layer_norm_gradients()),
    "leaky_relu": [(x, 0.2) for x in ELEMENTWISE],
    "leaky_relu_grad": [(gy, x, 0.2) for gy, x in PAIRS],
    "lerp_into": [(real(5), real(5), 0.1), (real(2, 3), real(2, 3), 1.0)],
    "log": [(positive(3, 4),), (positive(),)],
    "log_softmax": [(real(3, 4), 1), (real(3, 4, 2), 0), (real(300, 10) * 100, 1)],
    "log_softmax_grad": [(real(3, 4), reference.log_softmax(real(3, 4), 1), 1)],
    "linear": [(real(n, i), real(o, i), bias) for n, i, o in LINEARS for bias in (None, real(o))],
    "linear_grad_bias": [(real(n, o),) for n, _, o in LINEARS],
    "linear_grad_input": [(real(n, o), real(o, i)) for n, i, o in LINEARS],
    "linear_grad_weight": [(real(n, o), real(n, i)) for n, i, o in LINEARS],
    "matmul": MATRICES,
    "min": [(real(3, 4), (1,), True), (ties(3, 4, 5), (0, 2), False), (specials(3, 5), (0,), False)],
    "max": [(real(3, 4), (1,), True), (ties(3, 4, 5), (0, 2), False), (real(3), (0,), False)],
    "max_pool2d": [(x, *options) for x in PICTURES for options in POOLS],
    "max_pool2d_grad": list(pool_gradients()),
    "mix_images": [(x, RNG.permutation(len(x)), RNG.random(x.shape[2:])) for x in BATCHES],
    "multiply": BROADCAST,
    "negative": [(x,) for x in ELEMENTWISE],
    "normalize_images": [(x, positive(3), positive(3)) for x in BATCHES],
    "power": [(positive(3, 4), p) for p in (2, -1, 0.5, 0, 3.0)],
    "power_grad": [(real(3, 4), positive(3, 4), p) for p in (2, -1, 0.5, 0, 3.0)],
    "relu": [(x,) for x in [*ELEMENTWISE, specials(4, 5)]],
    "relu_grad": PAIRS,
    "put_along_axis": [(real(3, 1, 2), RNG.integers(0, 4, (3, 1, 2)), 1, 4), (real(1), np.array([2]), 0, 3)],
    "reshape": [(real(3, 4), (2, 6)), (real(1), ()), (real(3, 4), (-1,))],
    "sgd_step": list(sgd()),
    "sigmoid": [(np.asarray(x * 20),) for x in ELEMENTWISE],
    "sigmoid_grad": [(gy, positive(*y.shape)) for gy, y in PAIRS],
    "softmax": [
        (real(3, 4), 1),
        (real(3, 4, 2), 0),
        (real(300, 10) * 100, 1),
        (real(4, 30, 67), 2),
        (specials(9, 9), 1),
    ],
    "softmax_grad": [
        (real(*s), reference.softmax(real(*s), axis), axis) for s, axis in (((3, 4), 1), ((4, 300, 67), 2))
    ],
    "sqrt": [(positive(3, 4),), (positive(),)],
    "sqrt_grad": [(real(3, 4), positive(3, 4))],
    "subtract": BROADCAST,
    "sum": [
        *((real(3, 4), (0, 1), False), (real(3, 4, 5), (1,), True), (real(), (), False), (real(60, 70), (0,), False)),
        *((real(700, 3), (0,), False), (real(5, 300, 4), (0, 1), True), (real(129, 3, 2, 2), (0, 2, 3), False)),
    ],
    "sum_to": [(real(4, 3, 2), (3, 1)), (real(3, 2), (3, 2)), (real(4, 3), ()), (real(64, 30), (30,))],
    "tanh": [(x,) for x in ELEMENTWISE],
    "tanh_grad": [(gy, np.asarray(np.tanh(y))) for gy, y in PAIRS],
    "total_norm": [([real(3, 4)],), ([real(0), real(), real(7, 2)],), ([np.array(1e30), np.array([-1e30])],)],
    "transpose": [(real(3, 4, 2), (2, 0, 1)), (real(3, 4), (1, 0))],
    "warp_images": list(warps()),
    "window_means": [(real(1), 7, [0, 2, 5], [3, 5, 7], [3, 4, 9])],
}
EDITED = {  # arguments that a kernel works on in place
    "accumulate": (0,),
    "adam_step": (0, 2, 3),
    "clip_norm": (0,),
    "clip_values": (0,),
    "copy_into": (0,),
    "lerp_into": (0,),
    "sgd_step": (0, 2),
}
CASES |= dict.fromkeys(("equal", "not_equal", "less", "less_equal", "greater", "greater_equal"), COMPARISONS)
ANY_DTYPE = {  # their result is not in that of x
    "convert",
    "gather_images", "warp_images", "label_range", "total_norm", "all_finite", "argmax", "argmin",
}  # fmt: skip


def strided(a):
    return a.repeat(2, axis=-1)[..., ::2] if a.ndim else a


def fortran(a):
    return np.array(a, order="F")


def reversed_(a):
    return np.ascontiguousarray(a[::-1])[::-1] if a.ndim else a


def read_only(a):
    a = a.copy()
    a.flags.writeable = False
    return a


LAYOUTS = {"contiguous": np.array, "Fortran": fortran, "strided": strided, "reversed": reversed_}


def prepare(arguments, dtype, layout, edited=()):
    """Fresh arguments: floats in ``dtype``, every array in ``layout`` and, unless it is edited, read-only if asked."""
    result = []
    for position, argument in enumerate(arguments):
        if isinstance(argument, list) and argument and isinstance(argument[0], np.ndarray):
            argument = prepare(argument, dtype, layout)
        elif isinstance(argument, np.ndarray):
            argument = argument.astype(dtype) if argument.dtype == np.float64 else argument.copy()
            argument = argument if layout is read_only and position in edited else layout(argument)
        result.append(argument)
    return result


def outcome(kernel, arguments, edited, xp=np):
    """Results and edited arguments as one list of arrays; what is not edited must stay."""
    before = [np.array(a) if isinstance(a, np.ndarray) else None for a in arguments]
    moved = [move(a, xp) for a in arguments]
    result = kernel(*moved)
    results = list(result) if isinstance(result, tuple) else [] if result is None else [result]
    for position, copy in enumerate(before):
        if copy is not None and position not in edited:
            np.testing.assert_array_equal(backend.to_numpy(moved[position]), copy, f"argument {position} was modified")
    return [np.asarray(backend.to_numpy(r)) for r in (*results, *(moved[i] for i in edited if moved[i] is not None))]


def move(argument, xp):
    if isinstance(argument, list):
        return [move(a, xp) for a in argument]
    return xp.asarray(argument) if isinstance(argument, np.ndarray) and xp is not np else argument


def compare(kernels, name, dtype, layout, xp=np):
    edited = EDITED.get(name, ())
    tolerance = 2e-5 if dtype == "float32" else 1e-11
    for number, arguments in enumerate(CASES[name]):
        expected = outcome(getattr(reference, name), prepare(arguments, dtype, np.array), edited)
        found = outcome(getattr(kernels, name), prepare(arguments, dtype, layout, edited), edited, xp)
        assert len(found) == len(expected)
        for f, e in zip(found, expected, strict=True):
            where = f"{name}, case {number}"
            assert f.shape == e.shape and f.dtype == e.dtype, where
            assert name in ANY_DTYPE or e.dtype.kind != "f" or e.dtype == dtype, f"{where}: {e.dtype}"
            scale = np.abs(e[np.isfinite(e)]).max(initial=0.1) if e.dtype.kind == "f" else 0
            np.testing.assert_allclose(f, e, rtol=tolerance, atol=tolerance * scale, err_msg=where)


@pytest.mark.parametrize("name", sorted(reference.__all__))
def test_the_reference_itself_accepts_every_case(name, dtype):
    """Any layout, no promotion, inputs unmodified: what the comparison below rests on."""
    with np.errstate(all="ignore"):
        for layout in (*LAYOUTS.values(), read_only):
            compare(reference, name, dtype, layout)


DIFFERENT = sorted(name for name in reference.__all__ if getattr(cpu, name) is not getattr(reference, name))


@pytest.mark.parametrize("layout", [*LAYOUTS, "read-only"])
@pytest.mark.parametrize("name", DIFFERENT)
def test_cpu_kernel_agrees_with_reference(name, layout, dtype):
    with np.errstate(all="ignore"):
        compare(cpu, name, dtype, LAYOUTS.get(layout, read_only))


@pytest.mark.parametrize("name", DIFFERENT)
def test_bits_do_not_depend_on_the_number_of_threads(name, dtype):
    edited, threads, runs = EDITED.get(name, ()), cpu.get_num_threads(), []
    try:
        for count in (1, 2):
            cpu.set_num_threads(min(count, threads))
            with np.errstate(all="ignore"):
                runs.append([outcome(getattr(cpu, name), prepare(a, dtype, np.array), edited) for a in CASES[name]])
    finally:
        cpu.set_num_threads(threads)
    for one, two in zip(*runs, strict=True):
        assert [a.tobytes() for a in one] == [a.tobytes() for a in two]


@pytest.mark.gpu
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", sorted(reference.__all__))
def test_cuda_kernel_agrees_with_reference(name, layout, dtype):
    gpu = backend.get("cupy")
    with np.errstate(all="ignore"):
        compare(gpu.kernels, name, dtype, LAYOUTS[layout], gpu.xp)


def test_every_kernel_has_a_case():
    assert set(CASES) == set(reference.__all__) and all(CASES.values())
    assert set(reference.__all__) <= set(cpu.__all__)
