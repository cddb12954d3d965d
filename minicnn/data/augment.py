"""Random changes of training pictures: what may happen, and the draws; the pixels are the backend's affair."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from minicnn.expected import Number, OneOf, check

_ERASED, _RATIO, _TRIES = (0.02, 0.33), (0.3, 3.3), 10  # of torchvision's RandomErasing: area, aspect, attempts
_AMOUNT, _SHARE = Number(), Number(most=1)
_PART, _PROPORTION = Number(most=1, above=True), Number(1e-3, 1e3)


def option(
    default: Any,
    help: str,
    expected: Any,
    panel: str = "Augmentation",
    needs: Mapping[str, Sequence[str]] | None = None,
) -> Any:
    """Return a field: a sentence with its unit and what turns it off, what it may be, and where it is listed.

    needs: without a field that has one of these values, or, where there are none, is on, this one does nothing.
    """
    made: dict[str, Any] = {"default_factory" if default is dict else "default": default}
    return field(**made, metadata={"help": help, "expected": expected, "panel": panel, "needs": needs or {}})


@dataclass(frozen=True)
class Augment:
    """What may happen to a training picture, in this order; each field's help says how much, and 0 is off.

    Crops: torchvision's RandomResizedCrop, a random part of the picture as it is stored, resized with antialiasing. A
    file is stored as the square about its middle, of `resize` pixels, so that parts are never of the sides of a long
    picture, where torchvision looks too.
    Geometry: flip and shift (the random crop of a padded picture), then rotation, shear, zoom and translate as one
    affine map about the centre: torchvision's RandomAffine, sampled bilinearly, with shifts of parts of a pixel.
    Colour on [0, 1]: brightness, contrast, saturation (ColorJitter, in this order), sharpness (RandomAdjustSharpness).
    After normalisation, to 0: erasing (RandomErasing), cutout (DeVries & Taylor, 2017).
    Of the batch: mixup (Zhang et al., 2018) or cutmix (Yun et al., 2019), one at random where both are on.
    Raises ValueError for a value out of range.
    """

    flip: float = option(0.0, "Probability of a mirrored picture.", _SHARE)
    shift: int = option(0, "Largest random shift, pixels.", Number(whole=True))
    padding_mode: str = option(
        "reflect",
        "What a move uncovers: reflect, constant (black) or replicate (the edge).",
        OneOf(("reflect", "constant", "replicate")),
        needs={"shift": (), "rotation": (), "translate": (), "shear": (), "zoom": ()},
    )
    rotation: float = option(0.0, "Largest random rotation, degrees.", Number(most=180))
    translate: float = option(0.0, "Largest random shift, share of the size.", _SHARE)
    shear: float = option(0.0, "Largest random shear, degrees.", Number(most=80))
    zoom: float = option(0.0, "Largest random change of scale: 0.2 is 80% to 120%.", Number(most=0.9))
    brightness: float = option(0.0, "Largest random change of brightness: 0.2 is 80% to 120%.", _AMOUNT)
    contrast: float = option(0.0, "Largest random change of contrast: 0.2 is 80% to 120%.", _AMOUNT)
    saturation: float = option(0.0, "Largest random change of saturation: 0.2 is 80% to 120%.", _AMOUNT)
    sharpness: float = option(1.0, "Sharpness of half of the pictures: 0 blurred, 1 off, 2 sharper.", _AMOUNT)
    erasing: float = option(0.0, "Probability of an erased rectangle.", _SHARE)
    cutout: int = option(0, "Side of an erased square, pixels.", Number(most=4096, whole=True))
    mixup: float = option(0.0, "Alpha of mixup, pictures blended in pairs.", _AMOUNT)
    cutmix: float = option(0.0, "Alpha of cutmix, rectangles exchanged in pairs.", _AMOUNT)
    alternate: bool = option(
        False, "Mirror each picture in every second epoch: those of the first are drawn with the probability of flip.",
        bool,
    )  # fmt: skip
    random_resized_crop: bool = option(
        False, "Show a random part of each picture, resized: torchvision's RandomResizedCrop.", bool
    )
    crop_scale: tuple[float, float] = option(
        (0.08, 1.0), "Least and largest share of the picture that such a part has, as 0.08,1.",
        (_PART, _PART), needs={"random_resized_crop": ()},
    )  # fmt: skip
    crop_ratio: tuple[float, float] = option(
        (3 / 4, 4 / 3), "Least and largest width of such a part by its height, as 0.75,1.33.",
        (_PROPORTION, _PROPORTION), needs={"random_resized_crop": ()},
    )  # fmt: skip

    def __post_init__(self) -> None:
        for each in fields(self):  # those of Config too
            check(getattr(self, each.name), each.metadata["expected"], each.name)
        for name in ("crop_scale", "crop_ratio"):
            least, most = getattr(self, name)
            if least > most:
                raise ValueError(f"{name}: expected the least first, received {least:g}, {most:g}")
            object.__setattr__(self, name, (least, most))  # TOML and JSON have lists

    @property
    def warps(self) -> bool:
        """Whether pictures are moved by more than flips and shifts."""
        return any((self.rotation, self.translate, self.shear, self.zoom))

    @property
    def jitters(self) -> bool:
        """Whether brightness, contrast or saturation change."""
        return any((self.brightness, self.contrast, self.saturation))

    @property
    def recolors(self) -> bool:
        """Whether pixels change as colours on [0, 1]."""
        return self.jitters or self.sharpness != 1

    @property
    def mixes(self) -> bool:
        """Whether pictures are mixed, so that labels become probabilities."""
        return bool(self.mixup or self.cutmix)

    def draw_crops(self, rng: np.random.Generator, n: int, size: tuple[int, int]) -> np.ndarray:
        """Top, bottom, left and right of parts of pictures of `size` (H, W), int64 (n, 4), as torchvision draws them.

        The first of ten whose area and ratio are drawn, the latter's logarithm evenly, that lies in the picture; else
        the largest about the centre whose ratio is allowed.
        """
        low, high = self.crop_ratio
        area = rng.uniform(*self.crop_scale, (_TRIES, n)) * size[0] * size[1]
        ratio = np.exp(rng.uniform(math.log(low), math.log(high), (_TRIES, n)))  # width by height
        extent = np.rint(np.sqrt([area / ratio, area * ratio])).astype(int)  # (2, tries, n)
        fits = ((extent > 0) & (extent <= np.reshape(size, (2, 1, 1)))).all(axis=0)
        drawn = fits.any(axis=0)
        extent = extent[:, fits.argmax(axis=0), np.arange(n)]
        (h, w), whole = size, np.array(size)
        if w < low * h:
            whole[0] = max(round(w / low), 1)
        elif w > high * h:
            whole[1] = max(round(h * high), 1)
        extent = np.where(drawn, extent, whole[:, None])
        room = np.reshape(size, (2, 1)) - extent
        first = np.where(drawn, rng.integers(0, room, endpoint=True), room // 2)
        return np.stack([first[0], first[0] + extent[0], first[1], first[1] + extent[1]], axis=1)

    def draw(self, rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """For n pictures: whether to flip, bool (n,); vertical and horizontal shift, int64 (n,) in -shift..shift."""
        flip = rng.random(n) < self.flip
        dy, dx = rng.integers(-self.shift, self.shift, (2, n), endpoint=True)
        return flip, dy, dx

    def draw_maps(
        self, rng: np.random.Generator, size: tuple[int, int], flip: np.ndarray, dy: np.ndarray, dx: np.ndarray
    ) -> np.ndarray:
        """Inverse affine maps of pictures of `size` (H, W) that were flipped and shifted before: float32 (n, 2, 3)."""
        n, (h, w) = len(flip), size
        angle, shear = (np.radians(rng.uniform(-most, most, n)) for most in (self.rotation, self.shear))
        scale = rng.uniform(1 - self.zoom, 1 + self.zoom, n)
        right, down = (rng.uniform(-self.translate, self.translate, n) * extent for extent in (w, h))
        return inverse_maps(size, flip, dy, dx, angle, shear, scale, right, down)

    def draw_colors(self, rng: np.random.Generator, n: int) -> np.ndarray:
        """Factors of brightness, contrast and saturation: float32 (3, n)."""
        strengths = (self.brightness, self.contrast, self.saturation)
        return np.stack([rng.uniform(max(0, 1 - x), 1 + x, n) for x in strengths]).astype(np.float32)

    def draw_sharpness(self, rng: np.random.Generator, n: int) -> np.ndarray:
        """The factor of each picture, float32 (n,): `sharpness` for a half, 1 for the others."""
        return np.where(rng.random(n) < 0.5, self.sharpness, 1).astype(np.float32)

    def draw_boxes(self, rng: np.random.Generator, n: int, size: tuple[int, int]) -> list[np.ndarray]:
        """Top, bottom, left and right of what to erase, int64 (n, 4), from erasing and from cutout as far as on."""
        boxes = []
        if self.erasing:
            boxes.append(self._erased(rng, n, size))
        if self.cutout:
            first = [rng.integers(0, extent, n) - self.cutout // 2 for extent in size]
            boxes.append(np.stack([edge for low in first for edge in (low, low + self.cutout)], axis=1))
        return boxes

    def draw_mix(
        self, rng: np.random.Generator, n: int, size: tuple[int, int]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Which picture to mix into each, int64 (n,); the share that each pixel keeps, float32 (H, W); its mean, ()."""
        h, w = size
        mixup = self.mixup > 0 and (not self.cutmix or rng.random() < 0.5)
        alpha = self.mixup if mixup else self.cutmix
        share = rng.beta(alpha, alpha)
        order = rng.permutation(n)
        keep = np.full(size, share if mixup else 1, np.float32)
        if not mixup:
            centre, half = rng.integers(0, size), (0.5 * math.sqrt(1 - share) * np.array(size)).astype(int)
            (top, left), (bottom, right) = np.maximum(centre - half, 0), centre + half
            keep[top:bottom, left:right] = 0
        return order, keep, keep.mean(dtype=np.float64)

    def _erased(self, rng: np.random.Generator, n: int, size: tuple[int, int]) -> np.ndarray:
        area = rng.uniform(*_ERASED, (_TRIES, n)) * size[0] * size[1]
        ratio = np.exp(rng.uniform(math.log(_RATIO[0]), math.log(_RATIO[1]), (_TRIES, n)))
        extent = np.rint(np.sqrt([area * ratio, area / ratio])).astype(int)  # (2, tries, n)
        fits = (extent < np.reshape(size, (2, 1, 1))).all(axis=0)
        extent = extent[:, fits.argmax(axis=0), np.arange(n)]  # of the first that fits
        chosen = fits.any(axis=0) & (rng.random(n) < self.erasing)
        first = rng.integers(0, np.reshape(size, (2, 1)) - extent * chosen, endpoint=True)
        last = first + extent * chosen
        return np.stack([first[0], last[0], first[1], last[1]], axis=1)


def inverse_maps(
    size: tuple[int, int],
    flip: np.ndarray,
    dy: np.ndarray,
    dx: np.ndarray,
    angle: np.ndarray,
    shear: np.ndarray,
    scale: np.ndarray,
    right: np.ndarray,
    down: np.ndarray,
) -> np.ndarray:
    """From pixels of the new picture to those of the stored one, float32 (n, 2, 3).

    The new picture is the flipped and shifted one under T C R S C^-1: sheared by S = scale [[1, -tan shear], [0, 1]],
    rotated clockwise by R, both about the centre C, and moved by T (torchvision's `affine`).
    flip: bool (n,); dy, dx, right, down: pixels (n,); angle, shear: radians (n,); scale: (n,).
    """
    h, w = size
    sine, cosine, slope = np.sin(angle), np.cos(angle), np.tan(shear)
    linear = np.array([[cosine - sine * slope, sine + cosine * slope], [-sine, cosine]]) / scale  # (2, 2, n)
    centre = np.array([[(w - 1) / 2], [(h - 1) / 2]])
    offset = centre - np.einsum("ijn,jn->in", linear, centre + np.stack([right, down]))
    linear[0, :, flip], offset[0, flip] = -linear[0, :, flip], w - 1 - offset[0, flip]
    offset += np.stack([dx, dy])
    return np.concatenate([linear, offset[:, None]], axis=1).transpose(2, 0, 1).astype(np.float32)  # (n, 2, 3)
