"""Arguments for every kernel, many of awkward geometry or with special values: for all backends.

Arrays of float64 stand for those of either precision (see :mod:`shared.contract`).
"""

import numpy as np

from minicnn.backend.reference import Kernels as reference

RNG = np.random.default_rng(0)
MORE = np.random.default_rng(1)  # for cases that came later, so that the others keep their numbers


def real(*shape):
    return np.asarray(RNG.standard_normal(shape))


def positive(*shape):
    return np.asarray(RNG.uniform(0.5, 2.0, shape))


def repeated(*shape):
    """The gradient that a sum hands back: one number in memory."""
    return np.broadcast_to(real(), shape)


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
HALFWAY = np.array([1 + 2**-8, 1 + 3 * 2**-8, -1 - 2**-8, -1 - 3 * 2**-8, 1 + 2**-8 + 2**-20, 3.4e38, -3.4e38, 2**-120])
BETWEEN = np.array([1 + 2**-11, 1 + 3 * 2**-11, -1 - 2**-11, 1 + 2**-11 - 2**-20, 3.4e38, -3.4e38, 2**-120, 0.1])
BROADCAST = [
    *PAIRS,
    (real(3, 1, 2), real(4, 1)),
    (real(5), real()),
    (real(2, 3), 2),
    (real(2, 3), 0.5),
    (real(6, 3, 5, 5), real(3, 1, 1)),
]
SPECIAL = np.array([-0.0, 0.0, np.nan, np.inf, -np.inf, 40.0, -40.0, 1e-30, -7.0, -1.0, 0.4, 2.0, 5.0])
MIXED = [*ELEMENTWISE, SPECIAL]
FINITE = np.where(np.isfinite(SPECIAL), SPECIAL, 0.3)
WITH_SPECIAL = [*PAIRS, (real(13), SPECIAL), (real(13), FINITE), (repeated(4, 5), real(4, 5))]
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
    (2, 3, (7, 9), 4, (3, 2), (1, 1), (0, 0), (1, 1), 1),
    (1, 4, (8, 5), 6, (2, 3), (2, 1), (1, 2), (1, 2), 2),
    (3, 4, (6, 7), 4, (3, 3), (2, 3), (1, 1), (2, 1), 4),
    (2, 2, (9, 4), 3, (1, 1), (3, 2), (0, 0), (1, 1), 1),
    (5, 3, (12, 11), 5, (5, 4), (1, 2), (2, 3), (1, 1), 1),
    (1, 1, (3, 3), 1, (3, 3), (1, 1), (0, 0), (1, 1), 1),
    (3, 16, (6, 5), 32, (3, 3), (1, 2), (1, 1), (1, 1), 2),
    (5, 21, (9, 8), 70, (3, 2), (2, 1), (1, 0), (1, 2), 1),
]


def convolutions():
    for n, c, size, o, window, *options in CONVOLUTIONS:
        stride, padding, dilation, groups = options
        axes = zip(size, window, stride, padding, dilation, strict=True)
        output = [(s + 2 * p - d * (k - 1) - 1) // t + 1 for s, k, t, p, d in axes]
        yield real(n, c, *size), real(o, c // groups, *window), real(o), real(n, o, *output), options


CONV = list(convolutions())
SUMMED = (*CONV[6][:3], repeated(*CONV[6][3].shape), CONV[6][4])
POOLS = [  # kernel_size, stride, padding, dilation, output_size of a 7 x 6 picture
    ((2, 2), (2, 2), (0, 0), (1, 1), (3, 3)),
    ((1, 3), (1, 2), (0, 1), (1, 1), (7, 3)),
    ((3, 2), (2, 3), (1, 1), (1, 1), (4, 3)),  # hangs over both edges
    ((2, 1), (3, 4), (0, 0), (1, 1), (2, 2)),
    ((2, 3), (1, 1), (1, 1), (3, 2), (6, 4)),
    ((7, 6), (1, 1), (0, 0), (1, 1), (1, 1)),
]
PICTURES = [real(2, 3, 7, 6), ties(9, 2, 7, 6), specials(3, 1, 7, 6), np.full((1, 2, 7, 6), -np.inf), real(40, 5, 7, 6)]
PICTURES += [real(0, 2, 7, 6)]
WIDER = [  # pictures, and a window: smaller and larger ones, with ties, NaN and infinities
    ((2, 3, 8, 6), ((2, 2), (2, 2), (0, 0), (1, 1), (4, 3))),
    ((1, 2, 7, 9), ((3, 2), (1, 2), (1, 1), (1, 1), (7, 5))),
    ((3, 1, 9, 8), ((2, 3), (3, 1), (0, 1), (2, 2), (3, 6))),
    ((2, 2, 7, 5), ((3, 3), (2, 2), (1, 1), (1, 1), (4, 3))),
    ((1, 1, 6, 6), ((3, 3), (2, 2), (0, 0), (1, 1), (3, 3))),  # past the padding
]


def poolings():
    for options in POOLS:
        for x in PICTURES:
            yield x, *options
    for shape, options in WIDER:
        x = ties(*shape)
        x[0, 0, 1, 1], x[0, 0, 2, :] = np.nan, -np.inf
        yield x, *options


def pool_gradients():
    for x, *options in poolings():
        y, taps = reference.max_pool2d(x, *options)
        yield real(*y.shape), taps, x.shape, *options[:4]
    yield repeated(*y.shape), taps, x.shape, *options[:4]


NORMS = [real(5, 3), real(4, 3, 7), real(9, 2, 5, 4) * 3 + 1, real(1, 3, 2, 5), real(64, 4, 6, 6), real(2, 3, 5, 1, 2)]
FAR = real(20, 3, 30, 31) * 3 + 50  # from its mean


def batch_norms():
    for x in NORMS:
        c = x.shape[1]
        for weight, bias in ((real(c), real(c)), (None, None), (real(c), None), (None, real(c))):
            yield x, real(c), positive(c), weight, bias
    yield FAR, real(3) + 50, positive(3), real(3), real(3)
    yield real(0, 2, 3), real(2), positive(2), real(2), real(2)


def layer_norms():
    for shape, dims in (
        ((4, 5), 1),
        ((2, 3, 5), 2),
        ((3, 4), 2),
        ((40, 33), 1),
        ((3, 70, 17), 1),
        ((5, 4, 6), 2),
        ((300, 33), 1),
    ):
        inner = shape[-dims:]
        for weight, bias in ((real(*inner), real(*inner)), (None, None)):
            yield real(*shape), dims, weight, bias


def attentions():
    for n, length, heads, width in (
        (2, 5, 1, 4),
        (3, 8, 2, 8),
        (1, 1, 3, 1),
        (2, 17, 3, 5),
        (0, 4, 2, 3),
        (4, 33, 2, 16),
    ):
        yield real(n, length, 3 * heads * width), heads
    yield 100 * real(2, 6, 12), 2


def attention_gradients():
    for qkv, heads in attentions():
        y, weights = reference.attention(qkv, heads)
        yield qkv, real(*y.shape), weights


def layer_norm_gradients():
    for x, dims, weight, _ in layer_norms():
        _, mean, inverse_std = reference.layer_norm(x, dims, weight, None, 1e-5)
        yield real(*x.shape), x, dims, mean, inverse_std, weight
    yield repeated(*x.shape), x, dims, mean, inverse_std, real(*x.shape[-dims:])


MASKED = np.where(np.arange(4) == 1, -np.inf, real(3, 4))
LOSSES = [
    (logits, target, weight, smoothing)
    for logits in (real(5, 4), real(1, 1), real(300, 10), real(3, 2) * 1e4)
    for target in (labels(*logits.shape), positive(*logits.shape))
    for weight in (None, positive(logits.shape[1]))
    for smoothing in (0.0, 0.1)
]
LOSSES += [
    (np.array([[1e4, -1e4, 0], [-1e4, 1e4, 3]]), np.array([1, 1]), None, 0.0),
    (MASKED, np.array([0, 2, 1]), None, 0.0),
    (MASKED, np.array([0, 2, 3]), None, 0.1),
    (MASKED, np.array([[0.5, 0, 0.5, 0]] * 3), np.array([1.0, 0, 2, 3]), 0.0),
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
    (repeated(6, 4), np.broadcast_to(real(4, 1), (4, 5))),
]
IMAGES = RNG.integers(0, 256, (6, 3, 8, 7), dtype=np.uint8)
OTHERS = [  # of other types and numbers of channels, the last wide enough for vectors
    MORE.integers(0, 256, (6, 1, 8, 7), dtype=np.uint8),
    MORE.standard_normal((6, 2, 7, 9), np.float32),
    MORE.standard_normal((6, 5, 3, 35), np.float32),
]
MODES = ("reflect", "constant", "replicate")
SHAPES = [(3,), (2, 3, 4), (), (9, 35), (5000,)]
ROWS = [(real(3, 4), 1), (real(3, 4, 2), 0), (real(300, 10) * 100, 1), (real(4, 30, 67), 2), (specials(9, 9), 1)]
ROWS += [(real(*shape) * 20, axis) for shape in ((5, 10), (2, 3, 70), (1, 1), (3, 32)) for axis in (-1, 0)]
ROWS += [(np.array([[1e4, -1e4, 0], [np.nan, 0, 1], [-np.inf, 1, 2]]), 1), (MASKED, 1)]
PLACES = [  # what is written back, an index, and the shape of what it picks from
    (real(3), (slice(1, None), 0), (4, 3)),
    (real(3, 3), np.array([2, 0, 2]), (4, 3)),
    (real(2, 5), (slice(None, None, 2), 1), (3, 4, 5)),
    (real(5), (-1, Ellipsis, 2, slice(None)), (3, 4, 5)),
    (real(6, 4, 5), np.array([2, 0, 2, 2, -1, 0]), (3, 4, 5)),
    (real(4, 3), (np.array([1, 1, 2, 1]), slice(0, 3), 4), (3, 4, 5)),
    (real(30), np.arange(60).reshape(3, 4, 5) % 2 == 0, (3, 4, 5)),
]
PLACES_TO_SET = [  # an array, places in it, each once, and what becomes of them
    (real(4, 3), (slice(1, None), 0), real(3)),
    (real(3, 4, 5), (-1, Ellipsis, 2, slice(None)), real(5)),
    (real(3, 4, 5), np.arange(60).reshape(3, 4, 5) % 2 == 0, real(30)),
    (real(4, 3), np.array([2, -4]), real(2, 3)),
    (real(4, 3), ..., 2.5),
    (real(3, 4, 5), (..., None, np.array([4, 0])), np.arange(4)[:, None, None]),
    (real(3, 4), (np.array([0, 2]), slice(1, 3)), real(2)),
]
AXES = [(axis, keepdims) for axis in ((0,), (0, 2), (0, 1, 2)) for keepdims in (False, True)]


def gathers():
    mean, std = np.array([0.5, 0.4, 0.3], np.float32), np.array([0.25, 0.2, 0.3], np.float32)
    for n in (1, 19):
        index, flip = RNG.integers(0, 6, n), RNG.integers(0, 2, n).astype(bool)
        for mode in MODES:
            for reach in (6, 18):
                shifts = RNG.integers(-reach, reach + 1, (2, n))
                yield IMAGES, index, flip, *shifts, mean, std, mode
                for images in OTHERS:
                    own = np.resize(mean, images.shape[1]), np.resize(std, images.shape[1])
                    yield images, index, flip, *shifts, *own, mode


def warps():
    mean, std = np.array([0.5, 0.4, 0.3], np.float32), np.array([0.25, 0.2, 0.3], np.float32)
    for n, spread in ((1, 0.1), (19, 3.0)):  # the latter far past the edges
        matrix = RNG.normal(np.eye(2, 3), spread, (n, 2, 3)).astype(np.float32)
        for mode in MODES:
            yield IMAGES, RNG.integers(0, 6, n), matrix, mean, std, mode
            yield IMAGES[:, :, :1, 5:6], RNG.integers(0, 6, n), matrix, mean, std, mode
            for images in OTHERS:
                own = np.resize(mean, images.shape[1]), np.resize(std, images.shape[1])
                yield images, MORE.integers(0, 6, n), matrix, *own, mode


def crops():
    """Parts of all sizes, resized to more, to less and to as many pixels."""
    for images, size in (
        (IMAGES, (8, 7)),
        (IMAGES, (3, 16)),
        (OTHERS[0], (4, 2)),
        (OTHERS[2], (9, 5)),
        (IMAGES, (1, 1)),
    ):
        n, extent = 9, np.reshape(images.shape[2:], (2, 1))
        first = MORE.integers(0, extent, (2, n))
        last = MORE.integers(first, extent) + 1
        boxes = np.stack([first[0], last[0], first[1], last[1]], axis=1)
        boxes[0] = [0, extent[0, 0], 0, extent[1, 0]]
        yield images, MORE.integers(0, 6, n), boxes, size


def sgd():
    for shape in SHAPES:
        yield real(*shape), real(*shape), None, True, 0.1, 0.0, 0.0, 0.0, False
        for first in (True, False):
            yield real(*shape), real(*shape), real(*shape), first, 0.1, 0.9, 0.0, 0.01, True
            yield real(*shape), real(*shape), real(*shape), first, 0.1, 0.9, 0.3, 0.0, False
            yield real(*shape), real(*shape), real(*shape), first, 0.1, 0.5, 0.1, 0.1, False


MEANS = [reference.window_means(real(1), n, [0, 2, 3], [2, 4, 6], [2, 2, 3]) for n in (7, 6)]
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
    "adjust_colors": [
        *((x, *RNG.uniform(0, 2, (3, len(x)))) for x in BATCHES),
        *((MORE.random((4, c, 6, 9)), *MORE.uniform(0, 2, (3, 4))) for c in (1, 2, 5)),
    ],
    "adjust_sharpness": [(x, RNG.uniform(0, 3, len(x))) for x in BATCHES],
    "all_finite": [(real(3, 4),), (specials(3, 4),), (real(0),), (np.array([np.inf]),), (real(40, 70),)],
    "argmin": [(real(3, 4), 0), (ties(5, 6, 2), 1), (ties(300, 10), 1), (specials(4, 5), 1)],
    "argmax": [(real(3, 4), 0), (ties(5, 6, 2), 1), (ties(300, 10), 1)],
    "avg_pool2d": [
        (real(2, 3, 7, 6), real(4, 7), real(2, 6)),
        (real(9, 1, 5, 4), real(5, 5), real(1, 4)),
        (specials(2, 3, 7, 6), np.kron(np.eye(3, 3), [0.5, 0.5])[:, [0, 1, 2, 3, 4, 5, 5]], np.eye(6)[1::2]),
        (real(0, 2, 4, 6), real(2, 4), real(3, 6)),
        *((specials(2, 3, 7, 6), *MEANS), (specials(2, 3, 3, 3), *(np.ascontiguousarray(m.T) for m in MEANS))),
    ],
    "batch_norm": list(batch_norms()),
    "batch_norm_grad": [
        (real(*x.shape), x, m, s, w, t) for x, m, s, w, _ in batch_norms() for t in (True, False) if x.size or not t
    ]
    + [(repeated(4, 3, 7), real(4, 3, 7), real(3), positive(3), real(3), True)],
    "batch_norm_statistics": [(x,) for x in [*NORMS, FAR]],
    "bfloat16": [(x,) for x in [*ELEMENTWISE, HALFWAY, HALFWAY.reshape(1, 2, 2, 2), specials(4, 5)]],
    "broadcast_to": [(real(3, 1), (2, 3, 4)), (real(), (2, 3))],
    "clip_norm": [(real(3, 4), np.asarray(norm), 0.5) for norm in (2.0, 0.3, np.nan, np.inf)]
    + [(real(), np.asarray(1.7), 1.0)],
    "clip_values": [(real(3, 4), 0.5), (real(), 0.1), (real(7), 100.0)],
    "concatenate": [([real(2, 3), real(2, 1), real(2, 4)], 1), ([real(2, 3)], 0), ([real(3, 4, 5), real(3, 2, 5)], 1)],
    "conv2d": [(x, w, bias, *options) for x, w, b, _, options in CONV for bias in (b, None)],
    "conv2d_grad_bias": [(gy,) for *_, gy, _ in CONV]
    + [(real(20, 3, 30, 31),), (repeated(3, 2, 4, 5),)],  # the former several blocks a channel
    "conv2d_grad_input": [(gy, w, x.shape, *options) for x, w, _, gy, options in [*CONV, SUMMED]],
    "conv2d_grad_weight": [(gy, x, w.shape, *options) for x, w, _, gy, options in [*CONV, SUMMED]],
    "copy": [(x,) for x in ELEMENTWISE],
    "crop_images": list(crops()),
    "convert": [(x, dtype) for x in ELEMENTWISE for dtype in ("float32", "float64")],
    "copy_into": [(real(3, 4), real(3, 4)), (real(3, 4), real(4)), (real(2), 1.5), (real(2), np.array([1, 2]))],
    "cross_entropy": LOSSES,
    "cross_entropy_grad": [
        *((real(len(x)), reference.cross_entropy(x, t, w, s)[1], t, w, s) for x, t, w, s in LOSSES),
        (np.broadcast_to(0.25, (4,)), np.full((4, 3), 1 / 3), np.arange(4) % 3, None, 0.0),
    ],
    "divide": [(a, np.asarray(b + 10) if isinstance(b, np.ndarray) else b) for a, b in BROADCAST],
    "dropout": [
        (x, key, p)
        for x in ELEMENTWISE
        for key, p in ((0, 0.5), (2**64 - 1, 0.1), (0x123456789ABCDEF0, 0.9), (7, 0.999))
    ],
    "elu": [(x, 1.3) for x in MIXED],
    "elu_grad": [(gy, x, 1.3) for gy, x in WITH_SPECIAL],
    "erase_images": [(x, RNG.integers(-3, 12, (len(x), 4))) for x in [*BATCHES, real(2, 1, 8, 9)]],
    "exp": [(x,) for x in ELEMENTWISE],
    "extreme_grad": [
        *((real(3, 1, 5), (x := real(3, 4, 5)), pick(x, 1, keepdims=True)) for pick in (np.max, np.min)),
        (real(3, 1), (x := ties(3, 5)), x.max(1, keepdims=True)),
        (real(3, 1), x, x.min(1, keepdims=True)),
        (real(1, 1), x, x.max(keepdims=True)),
        (real(4, 1), (x := specials(4, 5)), x.max(1, keepdims=True)),
    ],
    "gather_images": list(gathers()),
    "gelu": [(np.asarray(x * 4), form) for x in [*ELEMENTWISE, FINITE] for form in ("none", "tanh")],
    "gelu_grad": [(gy, np.asarray(x * 4), form) for gy, x in [*PAIRS, (real(13), FINITE)] for form in ("none", "tanh")],
    "getitem": [*((real(*shape), index) for _, index, shape in PLACES), (real(4), ...)],
    "getitem_grad": PLACES,
    "setitem": PLACES_TO_SET,
    "attention": list(attentions()),
    "attention_grad": list(attention_gradients()),
    "label_weights": [(real(4), np.array([3, 0, 0, 2, 1])), (real(1), np.zeros(2, np.int64))],
    "label_range": [
        (labels(7, 9),),
        (np.array([-3, 200], np.int16),),
        (np.array([5], np.uint8),),
        (labels(777, 50).astype(np.int32),),
    ],
    "note_step": [
        (real(4, 3), place, np.asarray(loss), norm, logits, target)
        for place, loss, norm in ((0, 2.5, None), (3, np.nan, np.asarray(0.25)), (1, np.inf, np.asarray(np.inf)))
        for logits in (real(5, 4), real(1, 1), real(700, 10), ties(300, 10).astype(np.float64), specials(9, 5))
        for target in (labels(*logits.shape), positive(*logits.shape))
    ],
    "layer_norm": [(*case, 1e-5) for case in layer_norms()],
    "layer_norm_grad": list(layer_norm_gradients()),
    "leaky_relu": [(x, 0.2) for x in MIXED],
    "leaky_relu_grad": [(gy, x, 0.2) for gy, x in WITH_SPECIAL],
    "lerp_into": [(real(5), real(5), 0.1), (real(2, 3), real(2, 3), 1.0), (real(17), real(17), 0.1)],
    "log": [(positive(3, 4),), (positive(),)],
    "log_softmax": ROWS,
    "log_softmax_grad": [(real(*x.shape), np.asarray(-np.exp(real(*x.shape))), axis) for x, axis in ROWS],
    "linear": [(real(n, i), real(o, i), bias) for n, i, o in LINEARS for bias in (None, real(o))],
    "linear_grad_bias": [(real(n, o),) for n, _, o in LINEARS],
    "linear_grad_input": [(gy(n, o), real(o, i)) for n, i, o in LINEARS for gy in (real, repeated)],
    "linear_grad_weight": [(gy(n, o), real(n, i)) for n, i, o in LINEARS for gy in (real, repeated)],
    "matmul": MATRICES,
    "min": [
        (real(3, 4), (1,), True),
        (ties(3, 4, 5), (0, 2), False),
        (specials(3, 5), (0,), False),
        *((real(3, 4, 5), *axis) for axis in AXES),
    ],
    "max": [
        (real(3, 4), (1,), True),
        (ties(3, 4, 5), (0, 2), False),
        (real(3), (0,), False),
        *((real(3, 4, 5), *axis) for axis in AXES),
    ],
    "max_pool2d": list(poolings()),
    "max_pool2d_grad": list(pool_gradients()),
    "mix_images": [(x, RNG.permutation(len(x)), RNG.random(x.shape[2:])) for x in BATCHES],
    "multiply": BROADCAST,
    "negative": [(x,) for x in ELEMENTWISE],
    "normalize_images": [(x, positive(3), positive(3)) for x in BATCHES],
    "power": [(positive(3, 4), p) for p in (2, -1, 0.5, -0.5, 0, 1, 3.0)],
    "power_grad": [(real(3, 4), positive(3, 4), p) for p in (2, -1, 0.5, -0.5, 0, 1, 3.0)],
    "relu": [(x,) for x in [*MIXED, specials(4, 5)]],
    "relu_grad": WITH_SPECIAL,
    "put_along_axis": [
        (real(3, 1, 2), RNG.integers(0, 4, (3, 1, 2)), 1, 4),
        (real(1), np.array([2]), 0, 3),
        (real(3, 1, 5), labels((3, 1, 5), 4), 1, 4),
    ],
    "reshape": [(real(3, 4), (2, 6)), (real(1), ()), (real(3, 4), (-1,)), (real(3, 4, 5), (5, 12))],
    "sgd_step": list(sgd()),
    "sigmoid": [(np.asarray(x * 20),) for x in MIXED],
    "sigmoid_grad": [(gy, y) for gy, y in WITH_SPECIAL],
    "softmax": ROWS,
    "softmax_grad": [
        *((real(*s), reference.softmax(real(*s), axis), axis) for s, axis in (((3, 4), 1), ((4, 300, 67), 2))),
        *((real(*x.shape), np.exp(real(*x.shape)), axis) for x, axis in ROWS),
    ],
    "sqrt": [(positive(3, 4),), (positive(),)],
    "sqrt_grad": [(real(3, 4), positive(3, 4))],
    "subtract": BROADCAST,
    "sum": [
        *((real(3, 4), (0, 1), False), (real(3, 4, 5), (1,), True), (real(), (), False), (real(60, 70), (0,), False)),
        *((real(3, 4, 5), *axis) for axis in AXES),
        *((real(3, 4, 50), (0, 2), False), (real(700, 2), (0, 1), True)),
        *((real(700, 3), (0,), False), (real(5, 300, 4), (0, 1), True), (real(129, 3, 2, 2), (0, 2, 3), False)),
    ],
    "sum_to": [(real(4, 3, 2), (3, 1)), (real(3, 2), (3, 2)), (real(4, 3), ()), (real(64, 30), (30,))],
    "tanh": [(x,) for x in MIXED],
    "tanh_grad": [(gy, np.asarray(np.tanh(y))) for gy, y in WITH_SPECIAL],
    "total_norm": [
        ([real(3, 4)],),
        ([real(0), real(), real(7, 2)],),
        ([np.array(1e30), np.array([-1e30])],),
        ([real(70, 80) * 1e3, real(3, 2)],),
    ],
    "tf32": [(x,) for x in [*ELEMENTWISE, BETWEEN, BETWEEN.reshape(1, 2, 2, 2), specials(4, 5)]],
    "transpose": [(real(3, 4, 2), (2, 0, 1)), (real(3, 4), (1, 0))],
    "warp_images": list(warps()),
    "window_means": [(real(1), 7, [0, 2, 5], [3, 5, 7], [3, 4, 9])],
}
CASES |= dict.fromkeys(("equal", "not_equal", "less", "less_equal", "greater", "greater_equal"), COMPARISONS)
