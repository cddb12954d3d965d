"""What augmentation does to pictures, against torchvision, Pillow, SciPy and formulas; the draws against their laws."""

import numpy as np
import pytest
from PIL import Image, ImageEnhance
from scipy import ndimage, stats

from minicnn.backend import get
from minicnn.backend.reference import data as reference
from minicnn.data import Augment, Dataset, Loader
from minicnn.data.augment import inverse_maps

RNG = np.random.default_rng(0)
BYTES = RNG.integers(0, 256, (4, 3, 9, 12), dtype=np.uint8)
SMOOTH = np.clip(ndimage.gaussian_filter(RNG.random((6, 3, 16, 11)), (0, 0, 2, 2)) * 3 - 1, 0, 1).astype(np.float32)
PLAIN = np.zeros(3, np.float32), np.ones(3, np.float32)
BACKENDS = ("reference", "numpy")
KINDS = {"constant": "grid-constant", "reflect": "mirror", "replicate": "nearest"}  # names of SciPy


@pytest.fixture(scope="module")
def torchvision():
    """(torch, torchvision's functions)."""
    torch = pytest.importorskip("torch")
    try:
        from torchvision.transforms.v2 import functional
    except (ImportError, RuntimeError) as error:  # the latter where it was compiled for another torch
        pytest.skip(f"torchvision: {error}")
    return torch, functional


def draw_maps(augment, n, size, seed=0):
    rng = np.random.default_rng(seed)
    return augment.draw_maps(rng, size, *augment.draw(rng, n))


def maps(size, **changes):
    """The map of one picture, from which nothing is drawn."""
    values = {"flip": False, "dy": 0, "dx": 0, "angle": 0.0, "shear": 0.0, "scale": 1.0, "right": 0.0, "down": 0.0}
    return inverse_maps(size, **{name: np.array([value]) for name, value in (values | changes).items()})


def sampled(image, matrix, mode):
    """One picture by SciPy in float64: (C, H, W) of bytes -> (C, H, W) in [0, 1]."""
    rows, columns = np.mgrid[: image.shape[1], : image.shape[2]]
    x, y = (m[0] * columns + m[1] * rows + m[2] for m in matrix.astype(np.float64))
    planes = [ndimage.map_coordinates(plane / 255, [y, x], order=1, mode=KINDS[mode]) for plane in image]
    return np.stack(planes)


@pytest.mark.parametrize("mode", KINDS)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("spread", [0.05, 0.5, 4])
def test_warping_is_bilinear_sampling_of_the_padded_picture(backend, mode, spread):
    rng = np.random.default_rng(1)
    index, matrix = rng.integers(0, 4, 20), rng.normal(np.eye(2, 3), spread, (20, 2, 3)).astype(np.float32)
    matrix[:, :, 2] *= 5
    found = get(backend).kernels.warp_images(BYTES, index, matrix, *PLAIN, mode)
    expected = [sampled(BYTES[i], m, mode) for i, m in zip(index, matrix, strict=True)]
    np.testing.assert_allclose(found, expected, atol=1e-4)  # float32 positions as far as 100 pixels away


@pytest.mark.parametrize("mode", KINDS)
def test_warping_normalises(mode):
    mean, std = np.float32([0.4, 0.5, 0.6]), np.float32([0.2, 0.3, 0.25])
    matrix, index = draw_maps(Augment(rotation=30, zoom=0.3), 4, (9, 12)), np.arange(4)
    plain = reference.warp_images(BYTES, index, matrix, *PLAIN, mode)
    found = reference.warp_images(BYTES, index, matrix, mean, std, mode)
    np.testing.assert_allclose(found, (plain - mean[:, None, None]) / std[:, None, None], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("mode", KINDS)
def test_maps_of_flips_and_shifts_alone_gather_the_same_bits(backend, mode):
    kernels, rng = get(backend).kernels, np.random.default_rng(2)
    flip, (dy, dx), index = rng.random(30) < 0.5, rng.integers(-6, 7, (2, 30)), rng.integers(0, 4, 30)
    zero = np.zeros(30)
    matrix = inverse_maps((9, 12), flip, dy, dx, zero, zero, zero + 1, zero, zero)
    scaling = np.float32([0.4, 0.5, 0.6]), np.float32([0.2, 0.3, 0.25])
    gathered = kernels.gather_images(BYTES, index, flip, dy, dx, *scaling, mode)
    np.testing.assert_array_equal(kernels.warp_images(BYTES, index, matrix, *scaling, mode), gathered)


def test_the_map_is_the_inverse_of_the_documented_product():
    h, w, angle, shear, scale, right, down, dy, dx = 9, 12, 0.4, -0.3, 1.2, 1.7, -2.1, 2, -3
    centre, move = np.eye(3), np.eye(3)
    centre[:2, 2], move[:2, 2] = ((w - 1) / 2, (h - 1) / 2), (right, down)
    rotate = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    slant = np.array([[scale, -scale * np.tan(shear), 0], [0, scale, 0], [0, 0, 1]])
    product = move @ centre @ rotate @ slant @ np.linalg.inv(centre)
    for flip in (False, True):
        first = np.array([[-1 if flip else 1, 0, (w - 1 if flip else 0) + dx], [0, 1, dy], [0, 0, 1]])
        found = maps((h, w), flip=flip, dy=dy, dx=dx, angle=angle, shear=shear, scale=scale, right=right, down=down)
        np.testing.assert_allclose(found[0], (first @ np.linalg.inv(product))[:2], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "angle, right, down, scale, shear",
    [(20, 0, 0, 1, 0), (0, 0, 0, 1, 15), (-35, 1.5, -2.25, 0.8, 10), (170, 3, 1, 1.4, -40)],
)
def test_warping_is_torchvisions_affine(torchvision, angle, right, down, scale, shear):
    torch, F = torchvision
    matrix = maps(
        (9, 12), angle=np.radians(angle), shear=np.radians(shear), scale=scale, right=float(right), down=float(down)
    )
    found = reference.warp_images(BYTES, np.array([1]), matrix, *PLAIN, "constant")
    expected = F.affine(
        torch.from_numpy(BYTES[1:2] / np.float32(255)), angle, [right, down], scale, [shear, 0],
        F.InterpolationMode.BILINEAR,
    )  # fmt: skip
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-4)


def test_a_quarter_turn_is_exact_and_clockwise():
    square = BYTES[:1, :, :9, :9].copy()
    found = reference.warp_images(square, np.array([0]), maps((9, 9), angle=np.pi / 2), *PLAIN, "constant")
    np.testing.assert_allclose(found[0], np.rot90(square[0], -1, (1, 2)) / 255, atol=1e-5)


def test_zooming_in_and_moving_is_what_pillow_does_inside():
    matrix = maps((9, 12), scale=1.6, right=0.75, angle=0.2)
    (a, b, c), (d, e, f) = matrix[0].astype(float)
    # Pillow counts from the corner of a pixel, not from its middle.
    data = (a, b, c + 0.5 - (a + b) / 2, d, e, f + 0.5 - (d + e) / 2)
    image = Image.fromarray(BYTES[0].transpose(1, 2, 0)).transform(
        (12, 9), Image.Transform.AFFINE, data, Image.Resampling.BILINEAR
    )
    found = reference.warp_images(BYTES[:1], np.array([0]), matrix, *PLAIN, "replicate")[0] * 255
    assert abs(found.transpose(1, 2, 0) - np.asarray(image))[1:-1, 1:-1].max() <= 1  # it rounds to bytes


# Colour


def one(x, factor):
    return np.full(len(x), factor, np.float32)


def colors(x, **factors):
    order = ("brightness", "contrast", "saturation")
    return reference.adjust_colors(x, *(one(x, factors.get(name, 1)) for name in order))


@pytest.mark.parametrize("factor", [0, 0.3, 0.9, 1, 1.4, 3])
@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation", "sharpness"])
def test_each_change_of_colour_is_torchvisions(torchvision, name, factor):
    torch, F = torchvision
    found = reference.adjust_sharpness(SMOOTH, one(SMOOTH, factor)) if name == "sharpness" else colors(
        SMOOTH, **{name: factor}
    )  # fmt: skip
    expected = getattr(F, f"adjust_{name}")(torch.from_numpy(SMOOTH), factor).numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("factor", [0, 0.3, 0.9, 1, 1.4, 3])
@pytest.mark.parametrize("name", ["Brightness", "Contrast", "Color", "Sharpness"])
def test_each_change_of_colour_is_pillows_up_to_its_rounding(name, factor):
    octets = np.rint(SMOOTH * 255).astype(np.uint8)
    x = octets / np.float32(255)
    if name == "Sharpness":
        found = reference.adjust_sharpness(x, one(x, factor))
    else:
        found = colors(x, **{"saturation" if name == "Color" else name.lower(): factor})
    for picture, octet in zip(found, octets, strict=True):
        image = getattr(ImageEnhance, name)(Image.fromarray(octet.transpose(1, 2, 0))).enhance(factor)
        difference = abs(picture.transpose(1, 2, 0) * 255 - np.asarray(image))
        # Pillow rounds the grey, its mean or the blurred picture to bytes before it blends, and the result.
        assert difference.max() <= 1.01 * abs(1 - factor) + 1


@pytest.mark.parametrize("factor", [0, 0.3, 1, 1.4, 3])
@pytest.mark.parametrize("channels", [1, 2, 5])
def test_colours_of_other_numbers_of_channels(channels, factor):
    """Grey is the mean of the channels; of one, the pixel itself, of which saturation changes no bit."""
    x = np.random.default_rng(6).random((3, channels, 4, 5), dtype=np.float32)
    np.testing.assert_allclose(colors(x, brightness=factor), np.clip(x * factor, 0, 1), atol=1e-6)
    mean = x.mean(axis=(1, 2, 3), keepdims=True)
    np.testing.assert_allclose(colors(x, contrast=factor), np.clip(factor * x + (1 - factor) * mean, 0, 1), atol=1e-6)
    grey = x.mean(axis=1, keepdims=True)
    expected = x if channels == 1 else np.clip(factor * x + (1 - factor) * grey, 0, 1)
    np.testing.assert_allclose(colors(x, saturation=factor), expected, atol=0 if channels == 1 else 1e-6)


@pytest.mark.parametrize("factor", [0, 0.3, 1.4])
@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation"])
def test_colours_of_grey_pictures_are_torchvisions(torchvision, name, factor):
    torch, F = torchvision
    expected = getattr(F, f"adjust_{name}")(torch.from_numpy(SMOOTH[:, :1].copy()), factor).numpy()
    np.testing.assert_allclose(colors(SMOOTH[:, :1], **{name: factor}), expected, rtol=0, atol=2e-6)


def test_changes_of_colour_come_one_after_the_other_and_differ_by_picture():
    factors = np.random.default_rng(3).uniform(0, 2, (3, 6)).astype(np.float32)
    found = reference.adjust_colors(SMOOTH, *factors)
    for i, (b, c, s) in enumerate(factors.astype(np.float64).T):
        x = np.clip(SMOOTH[i].astype(np.float64) * b, 0, 1)
        grey = np.tensordot([0.2989, 0.587, 0.114], x, 1)
        x = np.clip(c * x + (1 - c) * grey.mean(), 0, 1)
        grey = np.tensordot([0.2989, 0.587, 0.114], x, 1)
        np.testing.assert_allclose(found[i], np.clip(s * x + (1 - s) * grey, 0, 1), atol=1e-6)


@pytest.mark.parametrize("shape", [(1, 3, 1, 1), (1, 3, 5, 1), (2, 3, 2, 7), (1, 3, 3, 3)])
def test_no_strength_changes_no_bit(shape):
    x = np.random.default_rng(4).random(shape, dtype=np.float32)
    np.testing.assert_array_equal(colors(x), x)
    np.testing.assert_array_equal(reference.adjust_sharpness(x, one(x, 1)), x)
    nothing = np.zeros((len(x), 4), np.int64)
    np.testing.assert_array_equal(reference.erase_images(x, nothing), x)
    np.testing.assert_array_equal(reference.mix_images(x, np.arange(len(x))[::-1], np.ones(shape[2:], np.float32)), x)


def test_sharpness_leaves_narrow_pictures_and_borders_alone():
    x = np.random.default_rng(5).random((2, 3, 2, 7), dtype=np.float32)
    np.testing.assert_array_equal(reference.adjust_sharpness(x, one(x, 3)), x)
    found = reference.adjust_sharpness(SMOOTH, one(SMOOTH, 3))
    changed = (found != SMOOTH).any(axis=(0, 1))
    assert changed[1:-1, 1:-1].all() and not changed[[0, -1]].any() and not changed[:, [0, -1]].any()


# Draws


def uniform(values, low, high):
    """Values follow the uniform law: Kolmogorov and Smirnov's test."""
    assert low <= values.min() and values.max() <= high
    assert stats.kstest(values, "uniform", (low, high - low)).pvalue > 1e-3


def test_maps_cover_their_ranges_evenly():
    n, size = 20_000, (9, 12)
    linear = draw_maps(Augment(0, rotation=30), n, size).astype(np.float64)
    uniform(np.degrees(np.arctan2(linear[:, 0, 1], linear[:, 0, 0])), -30.001, 30.001)
    linear = draw_maps(Augment(0, zoom=0.4), n, size).astype(np.float64)
    uniform(1 / linear[:, 0, 0], 0.6 - 1e-6, 1.4 + 1e-6)
    linear = draw_maps(Augment(0, shear=20), n, size).astype(np.float64)
    uniform(np.degrees(np.arctan(linear[:, 0, 1])), -20.001, 20.001)
    linear = draw_maps(Augment(0, translate=0.25), n, size).astype(np.float64)
    uniform(linear[:, 0, 2], -3.00001, 3.00001)
    uniform(linear[:, 1, 2], -2.25001, 2.25001)
    assert abs(np.corrcoef(linear[:, :, 2].T)[0, 1]) < 0.03


def test_factors_of_colour_cover_their_ranges_evenly():
    rng = np.random.default_rng(0)
    factors = Augment(brightness=0.2, contrast=1.5, saturation=0.7).draw_colors(rng, 20_000)
    assert factors.dtype == np.float32
    for values, (low, high) in zip(factors, ((0.8, 1.2), (0, 2.5), (0.3, 1.7)), strict=True):
        uniform(values, low - 1e-6, high + 1e-6)
    np.testing.assert_allclose(np.corrcoef(factors), np.eye(3), atol=0.03)
    (bright, contrast, saturation) = Augment(brightness=0.2).draw_colors(rng, 9)
    assert (contrast == 1).all() and (saturation == 1).all() and len(set(bright)) == 9


def test_half_of_the_pictures_are_sharpened():
    factors = Augment(sharpness=2.5).draw_sharpness(np.random.default_rng(0), 20_000)
    assert set(factors) == {1.0, 2.5} and (factors == 2.5).mean() == pytest.approx(0.5, abs=0.015)


@pytest.mark.parametrize("size", [(32, 32), (20, 48)])
def test_erased_rectangles_follow_their_law(size):
    h, w = size
    (boxes,) = Augment(erasing=0.75).draw_boxes(np.random.default_rng(0), 20_000, size)
    erased = boxes[boxes[:, 1] > boxes[:, 0]]
    assert len(erased) / len(boxes) == pytest.approx(0.75, abs=0.015)
    high, wide = erased[:, 1] - erased[:, 0], erased[:, 3] - erased[:, 2]
    assert (erased >= 0).all() and (high < h).all() and (wide < w).all()
    assert (erased[:, 1] <= h).all() and (erased[:, 3] <= w).all()
    exact = (high + 0.5) * (wide + 0.5) >= 0.02 * h * w, (high - 0.5) * (wide - 0.5) <= 0.33 * h * w
    assert np.all(exact)
    assert ((high + 0.5) / (wide - 0.5) >= 0.3).all() and ((high - 0.5) / (wide + 0.5) <= 3.3).all()
    for first, free in ((erased[:, 0], h - high), (erased[:, 2], w - wide)):  # every place is as likely
        assert ((first >= 0) & (first <= free)).all() and (first == 0).any() and (first == free).any()
        assert np.mean(first / free) == pytest.approx(0.5, abs=0.01)


def test_erased_rectangles_are_as_large_as_torchvisions(torchvision):
    torch, _ = torchvision
    from torchvision.transforms import RandomErasing

    torch.manual_seed(0)
    picture = torch.zeros(3, 20, 48)
    theirs = np.array([RandomErasing.get_params(picture, (0.02, 0.33), (0.3, 3.3), [0.0])[2:4] for _ in range(4000)])
    (boxes,) = Augment(erasing=1).draw_boxes(np.random.default_rng(1), 4000, (20, 48))
    ours = np.stack([boxes[:, 1] - boxes[:, 0], boxes[:, 3] - boxes[:, 2]], axis=1)
    for axis in (0, 1):
        assert stats.ks_2samp(ours[:, axis], theirs[:, axis]).pvalue > 1e-3
    assert stats.ks_2samp(ours.prod(axis=1), theirs.prod(axis=1)).pvalue > 1e-3


def test_what_does_not_fit_is_not_erased():
    (boxes,) = Augment(erasing=1).draw_boxes(np.random.default_rng(0), 100, (1, 9))
    assert (boxes[:, 1] == boxes[:, 0]).all()  # no height is below 1
    x = np.ones((100, 3, 1, 9), np.float32)
    np.testing.assert_array_equal(reference.erase_images(x, boxes), x)


def test_a_box_is_erased_and_nothing_else():
    boxes = np.array([[2, 5, 3, 9], [-4, 2, 10, 30], [3, 3, 0, 12], [0, 9, 0, 12]])
    x = np.random.default_rng(6).random((4, 3, 9, 12), dtype=np.float32) + 1
    expected = x.copy()
    expected[0, :, 2:5, 3:9], expected[1, :, :2, 10:], expected[3] = 0, 0, 0
    np.testing.assert_array_equal(reference.erase_images(x, boxes), expected)


@pytest.mark.parametrize("side", [1, 4, 7])
def test_cutout_is_a_square_with_its_middle_anywhere(side):
    (boxes,) = Augment(cutout=side).draw_boxes(np.random.default_rng(0), 20_000, (9, 12))
    for first, last, extent in ((0, 1, 9), (2, 3, 12)):
        assert (boxes[:, last] - boxes[:, first] == side).all()
        counts = np.bincount(boxes[:, first] + side // 2, minlength=extent)
        assert len(counts) == extent and stats.chisquare(counts).pvalue > 1e-3
    both = Augment(cutout=side, erasing=1.0).draw_boxes(np.random.default_rng(0), 5, (9, 12))
    assert [array.shape for array in both] == [(5, 4), (5, 4)]


@pytest.mark.parametrize("alpha", [0.2, 1.0, 5.0])
def test_mixups_share_follows_the_beta_law(alpha):
    rng, augment = np.random.default_rng(0), Augment(mixup=alpha)
    drawn = [augment.draw_mix(rng, 6, (3, 4)) for _ in range(3000)]
    assert stats.kstest([share for _, _, share in drawn], "beta", (alpha, alpha)).pvalue > 1e-3
    for order, keep, share in drawn[:20]:
        assert sorted(order) == list(range(6)) and keep.shape == (3, 4) and keep.dtype == np.float32
        np.testing.assert_allclose(keep, share, rtol=1e-6)


def test_cutmix_takes_a_rectangle_of_the_pictures_shape_and_counts_its_area():
    rng, augment, size = np.random.default_rng(0), Augment(cutmix=1.0), (20, 30)
    shares, middles = [], []
    for _ in range(3000):
        _, keep, share = augment.draw_mix(rng, 5, size)
        rows, columns = (np.flatnonzero((keep == 0).any(axis=axis)) for axis in (1, 0))
        assert set(np.unique(keep)) <= {0, 1} and share == pytest.approx(keep.mean())
        assert (keep == 0).sum() == len(rows) * len(columns) == round((1 - share) * 600)
        shares.append(share)
        if len(rows) and 0 < rows[0] <= rows[-1] < 19 and 0 < columns[0] <= columns[-1] < 29:
            assert len(columns) / 3 == pytest.approx(len(rows) / 2, abs=1)
            middles.append(((rows[0] + rows[-1] + 1) / 2, (columns[0] + columns[-1] + 1) / 2))
    assert np.mean(middles, axis=0) == pytest.approx([10, 15], abs=0.5)
    # lambda is uniform and the middle any pixel: the mean area within the picture, by summing over them
    side, within = np.sqrt(1 - (np.arange(500) + 0.5) / 500), 1
    for extent in size:
        half, middle = np.floor(side[:, None] * extent / 2), np.arange(extent)
        within = within * (np.minimum(middle + half, extent) - np.maximum(middle - half, 0)).mean(axis=1) / extent
    assert 1 - np.mean(shares) == pytest.approx(within.mean(), abs=0.015)


def test_cutmix_takes_as_much_as_torchvisions(torchvision):
    torch, _ = torchvision
    from torchvision.transforms import v2

    torch.manual_seed(0)
    theirs_of, picture = v2.CutMix(alpha=0.7, num_classes=2), torch.zeros(4, 3, 20, 30)
    theirs = [theirs_of.make_params([picture])["lam_adjusted"] for _ in range(3000)]
    rng, augment = np.random.default_rng(0), Augment(cutmix=0.7)
    ours = [augment.draw_mix(rng, 4, (20, 30))[2] for _ in range(3000)]
    assert stats.ks_2samp(ours, theirs).pvalue > 1e-3


def test_mixup_and_cutmix_take_turns():
    rng, augment = np.random.default_rng(0), Augment(mixup=1.0, cutmix=1.0)
    cut = [set(np.unique(augment.draw_mix(rng, 5, (8, 8))[1])) <= {0, 1} for _ in range(2000)]
    assert np.mean(cut) == pytest.approx(0.5, abs=0.05)


def test_mixing_is_a_weighted_mean_per_pixel():
    weight, order = np.random.default_rng(7).random((16, 11)), np.array([3, 0, 5, 1, 4, 2])
    found = reference.mix_images(SMOOTH, order, weight.astype(np.float32))
    np.testing.assert_allclose(found, SMOOTH * weight + SMOOTH[order] * (1 - weight), atol=1e-6)


def test_a_batch_is_what_the_operations_make_of_it_one_after_the_other(torchvision):
    """Geometry by SciPy, colours and normalisation by torchvision, the rest by hand, on the draws of the batch."""
    torch, F = torchvision
    mean, std = (0.5, 0.4, 0.3), (0.25, 0.2, 0.3)
    augment = Augment(
        shift=2, padding_mode="replicate", rotation=20, translate=0.1, shear=10, zoom=0.2, brightness=0.4, contrast=0.3,
        saturation=0.5, sharpness=3, erasing=0.7, cutout=3, mixup=0.4,
    )  # fmt: skip
    dataset = Dataset(BYTES, np.array([2, 0, 1, 1]), ("a", "b", "c"), "made")
    loader = Loader(dataset, 4, mean=mean, std=std, augment=augment, seed=3, backend=get("numpy"))
    found, labels = next(loader.epoch(6))

    rng = loader._rng(6, 1)
    matrix = augment.draw_maps(rng, (9, 12), *augment.draw(rng, 4))
    factors, sharpness = augment.draw_colors(rng, 4), augment.draw_sharpness(rng, 4)
    boxes = augment.draw_boxes(rng, 4, (9, 12))
    order, _, share = augment.draw_mix(rng, 4, (9, 12))
    pictures = []
    for i in range(4):
        x = torch.from_numpy(sampled(BYTES[i], matrix[i], "replicate").astype(np.float32))
        for name, factor in zip(("brightness", "contrast", "saturation"), factors[:, i].tolist(), strict=True):
            x = getattr(F, f"adjust_{name}")(x, factor)
        x = F.normalize(F.adjust_sharpness(x, float(sharpness[i])), mean, std).numpy()
        for top, bottom, left, right in (box[i] for box in boxes):
            x[:, max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)] = 0
        pictures.append(x)
    expected = share * np.stack(pictures) + (1 - share) * np.stack(pictures)[order]
    np.testing.assert_allclose(found, expected, atol=1e-3)  # the position of a sample in float32, sharpened
    one_hot = np.eye(3)[dataset.labels]
    np.testing.assert_allclose(labels, share * one_hot + (1 - share) * one_hot[order], atol=1e-6)
