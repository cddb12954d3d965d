"""Which taps see which pixels: brute force, and convolutions of awkward geometry against the reference."""

import itertools

import numpy as np
import pytest

import minicnn
import minicnn.functional as F
from minicnn import Tensor, backend
from minicnn.backend.cpu.geometry import sweeps
from shared.runs import agree, kinds


def axes():
    """(kernel, stride, padding, dilation, pixels, windows) of every convolution along an axis that has an output."""
    for k, s, p, d, n in itertools.product(range(1, 6), (1, 2, 3), range(5), (1, 2), range(1, 10)):
        out = (n + 2 * p - d * (k - 1) - 1) // s + 1
        if out > 0:
            yield k, s, p, d, n, out


@pytest.mark.parametrize("halo", [False, True])
@pytest.mark.parametrize("turned", [False, True])
def test_every_pair_once(turned, halo):
    for k, s, p, d, n, out in axes():
        source, result = (out, n) if turned else (n, out)
        found = sweeps(k, s, p, d, source, result, turned, halo)
        triples = [
            (place, tap, start + distance)
            for sweep in found
            for place, start in zip(sweep.places, sweep.starts, strict=True)
            for tap, distance in sweep.taps
        ]
        pairs = [(i, u, i * s - p + u * d) for i in range(out) for u in range(k)]
        expected = [(pixel, u, i) if turned else (i, u, pixel) for i, u, pixel in pairs if 0 <= pixel < n]
        inside = [t for t in triples if 0 <= t[2] < source]
        assert sorted(inside) == sorted(expected), (k, s, p, d, n)
        assert halo or inside == triples  # outside is seen only where there are zeros to be seen
        assert sorted(place for sweep in found for place in sweep.places) == list(range(result))
        assert len({sweep.taps for sweep in found}) == len(found)
        for sweep in found:
            seen = [start + distance for start in sweep.starts for _, distance in sweep.taps] or sweep.starts
            assert sweep.reach == (min(seen), max(seen))


GEOMETRIES = [  # kernel, stride, padding, dilation, (H, W)
    ((3, 3), (2, 2), (1, 1), (1, 1), (7, 6)),
    ((3, 3), (2, 2), (1, 1), (1, 1), (8, 8)),
    ((1, 1), (2, 2), (0, 0), (1, 1), (7, 8)),
    ((1, 1), (3, 2), (0, 0), (1, 1), (8, 7)),
    ((5, 5), (1, 1), (2, 2), (1, 1), (3, 2)),
    ((5, 4), (3, 2), (4, 3), (1, 1), (2, 5)),
    ((2, 3), (1, 2), (4, 4), (1, 1), (1, 1)),
    ((3, 2), (2, 3), (2, 1), (2, 1), (6, 9)),
    ((3, 3), (1, 1), (2, 2), (2, 2), (5, 4)),
    ((3, 5), (2, 1), (0, 4), (1, 2), (9, 5)),
    ((1, 1), (1, 1), (2, 1), (1, 1), (3, 3)),
    ((2, 2), (3, 3), (0, 0), (1, 1), (5, 8)),
    ((4, 1), (1, 3), (3, 0), (1, 1), (1, 7)),
]


@pytest.mark.parametrize("channels", [(4, 7), (19, 3)])
@pytest.mark.parametrize("kernel, stride, padding, dilation, size", GEOMETRIES)
def test_convolution(kernel, stride, padding, dilation, size, channels):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((11, channels[0], *size)).astype(np.float32)
    weight, bias = (
        rng.standard_normal(s).astype(np.float32) for s in ((channels[1], channels[0], *kernel), channels[1])
    )
    g = rng.standard_normal(F.conv2d(*map(Tensor, (x, weight, bias)), stride, padding, dilation).shape)

    def step(x, g, weight=weight, bias=bias):
        leaves = [Tensor(a, requires_grad=True) for a in (x.data, weight, bias)]
        y = F.conv2d(*leaves, stride, padding, dilation)
        y.backward(g)
        return y, *(leaf.grad for leaf in leaves)

    compiled = minicnn.compile(step)
    wide = [a.astype(np.float64) for a in (x, g, weight, bias)]
    with backend.use("reference"):
        expected = [t.numpy() for t in step(Tensor(wide[0]), Tensor(wide[1]), *wide[2:])]
    for _ in range(2):
        agree([t.numpy() for t in compiled(x, g.astype(np.float32))], expected, 1e-5)
    assert not [kind for kind in kinds(compiled) if kind.startswith("conv2d")]
