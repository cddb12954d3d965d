"""Picture files as the arrays a network reads.

One rule, for training and for prediction:

1. the orientation that the camera noted (EXIF) is applied;
2. the colours become RGB: grey is copied to the three channels; transparency is laid over white; CMYK and palettes
   are converted without a colour profile; 16-bit grey is divided by 257, so that 65535 is 255 (of 16-bit colour the
   high byte is kept);
3. a square is cut from the middle and resized with a bilinear filter (antialiased on the way down), so any aspect ratio
   works and a picture of the right size keeps its pixels: the square of the shorter side, or, where ``resize`` is
   given, torchvision's Resize(resize), CenterCrop(size);
4. where one channel is asked for, RGB becomes grey: 0.299 R + 0.587 G + 0.114 B.

Decoding stays under 1 GiB of memory in all threads together, whatever the files say: larger pictures are refused before
they are decoded, and large ones wait for each other. Of a JPEG over MAX_PIXELS the decoder makes an eighth of each side
at once (the mean of 8 x 8 pixels).
"""

import math
import os
import re
import threading
import warnings
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError, features
from PIL.JpegImagePlugin import JpegImageFile

from minicnn.data.memory import free_memory
from minicnn.expected import Number, check

_SUFFIXES = {
    "PNG": (".png",),
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "GIF": (".gif",),
    "BMP": (".bmp",),
    "WEBP": (".webp",),
    "TIFF": (".tif", ".tiff"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
}
if "avif" in features.modules and features.check_module("avif"):  # Pillow from 11.3 on, where it is built in
    _SUFFIXES["AVIF"] = (".avif",)
FORMATS = tuple(_SUFFIXES)
SUFFIXES = frozenset(suffix for suffixes in _SUFFIXES.values() for suffix in suffixes)
MAX_PIXELS = 50_000_000  # a 48 megapixel photograph passes
MAX_JPEG_PIXELS = 110_000_000  # a progressive one in four colours takes 8 bytes a pixel before it can be made smaller
MAX_SIDE = 65_535  # the largest side of a JPEG; each row of pixels has its own piece of memory
MAX_BYTES = 2**28  # of a file, which some decoders read whole
THREADS = min(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1, 16)
Image.core.set_block_size(2**26)  # type: ignore[attr-defined]  # of less, each thread's heap keeps what is freed
_KINDS = 8  # that a line names
MOST = 16_384  # pixels of a side of what a picture becomes
_BLOCK = 1024  # pictures that are resized together


class ImageError(ValueError):
    """A file that cannot be read as a picture; the message is one line with the file and the cause."""


@dataclass(frozen=True)
class ImageShape:
    """The array that a picture becomes, by the rule above.

    Attributes:
        size: height and width in pixels.
        channels: 3 for red, green and blue, or 1 for grey.
        resize: the length of the shorter side before the middle is cut out, in pixels; 0 is that of the middle, size.
        margin: whether what lies around the middle is kept, for random crops: the square of ``resize`` pixels.

    Raises:
        ValueError: other channels, a size below 1, or a resize below the size.
    """

    size: int = 32
    channels: int = 3
    resize: int = 0
    margin: bool = False

    def __post_init__(self) -> None:
        check(self.size, Number(1, MOST, whole=True), "image_size")
        if self.channels not in (1, 3):
            raise ValueError(f"channels: expected 1, for grey, or 3, for colours, received {self.channels}")
        check(self.resize, Number(most=MOST, whole=True), "resize")
        if 0 < self.resize < self.size:
            raise ValueError(f"resize: expected 0, or from image_size, {self.size}, received {self.resize}")

    @property
    def side(self) -> int:
        """Height and width of the array."""
        return self.resize if self.margin and self.resize else self.size

    @property
    def array(self) -> tuple[int, int, int]:
        """The shape of the array, (C, H, W)."""
        return self.channels, self.side, self.side

    def pixels(self, image: Image.Image) -> np.ndarray:
        """Return an upright picture of mode L, RGB or RGBA as uint8 (C, H, W)."""
        if self.resize:
            square = self._square(image)
        else:
            square = ImageOps.fit(image, (self.size, self.size), Image.Resampling.BILINEAR)
        square = _over_white(square).convert("L" if self.channels == 1 else "RGB")
        array = np.asarray(square).reshape(*square.size, -1).transpose(2, 0, 1)  # (H, W, C) -> (C, H, W)
        return np.ascontiguousarray(array if self.margin else center_crop(array, self.size))

    def resized(self, images: np.ndarray) -> np.ndarray:
        """Return pictures uint8 (N, 3, H, W) in this shape; they themselves where they have it.

        Raises what :meth:`check_memory` raises.
        """
        if images.shape[1:] == self.array and self.resize in (0, self.size):
            return images
        self.check_memory(len(images))
        made = np.empty((len(images), *self.array), np.uint8)
        with ThreadPoolExecutor(THREADS) as pool:
            for start in range(0, len(images), _BLOCK):  # not all at once: each is an object that waits
                turned = (Image.fromarray(image.transpose(1, 2, 0)) for image in images[start : start + _BLOCK])
                for place, picture in enumerate(pool.map(self.pixels, turned), start):
                    made[place] = picture
        return made

    def check_memory(self, count: int, copies: int = 1) -> None:
        """Raise ValueError where ``count`` pictures in this shape, so many times, take more memory than there is."""
        needed, free = copies * count * math.prod(self.array), free_memory()
        if needed > free:
            raise ValueError(
                f"image_size: {count:,} pictures of {self.side} x {self.side} take {needed / 2**30:.1f} GiB, "
                f"{free / 2**30:.1f} GiB are free; take a smaller one"
            )

    def _square(self, image: Image.Image) -> Image.Image:
        """The square of ``resize`` pixels whose middle is torchvision's centre crop, resized from its place alone."""
        box = []
        for extent in image.size:
            scaled = int(self.resize * extent / min(image.size))
            start = round((scaled - self.size) / 2) - round((self.resize - self.size) / 2)
            box.append((start * extent / scaled, min((start + self.resize) * extent / scaled, extent)))
        (left, right), (top, bottom) = box
        return image.resize((self.resize, self.resize), Image.Resampling.BILINEAR, box=(left, top, right, bottom))


SMALL = ImageShape()
"""The shape of pictures where none is asked for."""


def center_crop(images: np.ndarray, size: int) -> np.ndarray:
    """The middle of pictures (..., H, W): (..., size, size), where torchvision's CenterCrop has it."""
    top, bottom, left, right = middle(images.shape[-2:], (size, size))
    return images[..., top:bottom, left:right]


def middle(extent: tuple[int, int], size: tuple[int, int]) -> list[int]:
    """Top, bottom, left and right of the middle, of `size` (h, w), of pictures of `extent` (H, W)."""
    first = [round((whole - part) / 2) for whole, part in zip(extent, size, strict=True)]
    return [edge for start, part in zip(first, size, strict=True) for edge in (start, start + part)]


def load_image(
    path: str | os.PathLike[str], size: int = 32, channels: int = 3, resize: int = 0, margin: bool = False
) -> np.ndarray:
    """The picture at `path` as uint8 (channels, size, size), by the rule above; arguments as of :class:`ImageShape`.

    Raises ImageError for a file that is no picture; warns of further frames.
    """
    picture, warning = decode(Path(path), ImageShape(size, channels, resize, margin))
    if warning:
        warnings.warn(warning, stacklevel=2)
    return picture


def load_images(paths: Iterable[Path], shape: ImageShape) -> Iterator[np.ndarray | ImageError]:
    """Yield each picture, in their order, or what is wrong with it; threads decode ahead."""
    waiting: deque[Future[tuple[np.ndarray, str] | ImageError]] = deque()

    def read(path: Path) -> tuple[np.ndarray, str] | ImageError:
        try:
            return decode(path, shape)
        except ImageError as error:
            return error

    def first() -> np.ndarray | ImageError:
        found = waiting.popleft().result()
        if isinstance(found, ImageError):
            return found
        picture, warning = found
        if warning:
            warnings.warn(warning, stacklevel=3)
        return picture

    with ThreadPoolExecutor(THREADS) as pool:
        try:
            for path in paths:
                waiting.append(pool.submit(read, path))
                if len(waiting) > 4 * THREADS:
                    yield first()
            while waiting:
                yield first()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def decode(path: Path, shape: ImageShape) -> tuple[np.ndarray, str]:
    """The picture at `path` as :func:`load_image` has it, and its warning, or ""; any thread may call it."""
    shown = repr(str(path))  # a name may hold line breaks, or bytes that no terminal can print
    try:
        if not path.is_file():
            raise ImageError("is a folder" if path.is_dir() else "is not a file" if path.exists() else "does not exist")
        if not (length := path.stat().st_size):
            raise ImageError("is empty")
        if length > MAX_BYTES:
            raise ImageError(f"has {length:,} bytes, more than {MAX_BYTES:,} are refused")
        with _silent_pillow(), Image.open(path, formats=FORMATS) as image:
            pixels = (
                image.width * image.height * (1 if isinstance(image, JpegImageFile) else 2)
            )  # others are copied more
            _bound(image, max(shape.size, shape.resize))
            with _ROOM.of(pixels):
                frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)  # MPO: a photograph's previews
                ImageOps.exif_transpose(image, in_place=True)
                picture = shape.pixels(_converted(image))
    except ImageError as error:
        raise ImageError(f"{shown} {error}") from None
    except UnidentifiedImageError:
        raise ImageError(f"{shown} is not a picture of a known format ({', '.join(FORMATS)})") from None
    except Image.DecompressionBombError:
        raise ImageError(f"{shown} has more than {MAX_PIXELS:,} pixels, which are refused") from None
    except Exception as error:  # a damaged file can fail anywhere in a decoder
        if isinstance(error, OSError) and error.strerror:
            raise ImageError(f"{shown} cannot be read: {error.strerror}") from error
        cause = " ".join(str(error).split()) or type(error).__name__
        raise ImageError(f"{shown} is damaged: {cause}") from error
    return picture, f"{shown} has {frames} frames, the first is used" if frames > 1 else ""


class _Room:
    """So many pixels may be decoded at once; who wants more than are left waits."""

    def __init__(self, pixels: int) -> None:
        self._most = self._left = pixels
        self._changed = threading.Condition()

    @contextmanager
    def of(self, pixels: int) -> Iterator[None]:
        pixels = min(pixels, self._most)
        with self._changed:
            self._changed.wait_for(lambda: self._left >= pixels)
            self._left -= pixels
        try:
            yield
        finally:
            with self._changed:
                self._left += pixels
                self._changed.notify_all()


_ROOM = _Room(MAX_JPEG_PIXELS)
_PILLOW = ("ignore", None, Warning, re.compile(r"PIL\."), 0)  # an entry of warnings.filters
_decoders = 0
_count = threading.Lock()


@contextmanager
def _silent_pillow() -> Iterator[None]:
    """Ignore Pillow's warnings: what matters is an error.

    ``warnings.catch_warnings`` is not for threads, as one that leaves undoes what another has changed. So the first of
    those that decode adds one filter, and the last takes it away.
    """
    global _decoders
    with _count:
        _decoders += 1
        if _PILLOW not in warnings.filters:
            warnings.filters.insert(0, _PILLOW)  # type: ignore[attr-defined]
    try:
        yield
    finally:
        with _count:
            _decoders -= 1
            if not _decoders and _PILLOW in warnings.filters:
                warnings.filters.remove(_PILLOW)  # type: ignore[attr-defined]


def find_images(path: str | os.PathLike[str]) -> list[Path]:
    """The picture files in the folder `path` and in its subfolders, sorted; a warning counts what else is there."""
    images, others = scan_folder(path)
    if others:
        warnings.warn(f"{str(path)!r}: {not_read(others)}", stacklevel=2)
    return images


def scan_folder(path: str | os.PathLike[str]) -> tuple[list[Path], Counter[str]]:
    """-> the files in `path` and its subfolders with the suffix of a picture, sorted; the number of others by kind.

    Links are followed, but not to a folder above, and a folder is entered once, however many lead there. What is hidden
    (its name begins with a point) is counted and not entered. Raises OSError for a folder that cannot be read.
    """
    images: list[Path] = []
    others: Counter[str] = Counter()
    entered, waiting = {_identity(above) for above in Path(path).resolve().parents}, [Path(path)]
    while waiting:
        folder = waiting.pop()
        if (identity := _identity(folder)) in entered:
            others["link to a folder above or read before"] += 1
            continue
        entered.add(identity)
        for entry in sorted(folder.iterdir(), reverse=True):  # the first folder of those that wait is the next
            if entry.name.startswith("."):
                others["hidden"] += 1
            elif entry.is_dir():
                waiting.append(entry)
            elif entry.suffix.lower() in SUFFIXES:
                images.append(entry)
            else:
                others[_kind(entry)] += 1
    return sorted(images), others


def not_read(others: Counter[str]) -> str:
    """One line: the numbers of `others`, the most frequent first."""
    kinds = [f"{count:,} {kind}" for kind, count in others.most_common(_KINDS)]
    if rest := others.total() - sum(count for _, count in others.most_common(_KINDS)):
        kinds.append(f"{rest:,} of other kinds")
    return f"not read: {', '.join(kinds)}"


def _identity(folder: Path) -> tuple[int, int]:
    """What all paths to a folder have in common."""
    status = folder.stat()
    return status.st_dev, status.st_ino


def _kind(path: Path) -> str:
    """The suffix of a file; a strange one is not repeated."""
    suffix = path.suffix.lower()
    if re.fullmatch(r"\.[a-z0-9_+-]{1,10}", suffix):
        return suffix
    return "with another suffix" if suffix else "without a suffix"


def _bound(image: Image.Image, size: int) -> None:
    """Refuse a picture that needs too much memory, before it is decoded; a large JPEG is to be decoded smaller."""
    pixels, most = image.width * image.height, MAX_PIXELS
    shown = f"has {image.width} x {image.height} pixels"
    if isinstance(image, JpegImageFile):
        most = MAX_JPEG_PIXELS
        if pixels > MAX_PIXELS:
            image.draft(None, (size, size))
    if pixels > most or image.width * image.height > MAX_PIXELS:
        raise ImageError(f"{shown}, more than {most:,} are refused")
    if max(image.size) > MAX_SIDE:
        raise ImageError(f"{shown}, sides over {MAX_SIDE:,} are refused")


def _converted(image: Image.Image) -> Image.Image:
    """Any mode as RGB, or RGBA where something is transparent."""
    if image.mode == "F":
        raise ImageError("has floating point pixels, whose range is unknown")
    if image.mode.startswith("I"):  # 16 bits; or 32 bits, where Pillow puts the 16 of some formats
        grey = np.asarray(image)
        if grey.min() < 0 or grey.max() > 65535:
            raise ImageError("has 32-bit pixels beyond 0..65535, whose range is unknown")
        return Image.fromarray(((grey.astype(np.uint32) + 128) // 257).astype(np.uint8)).convert("RGB")
    return image.convert("RGBA" if image.has_transparency_data else "RGB")


def _over_white(image: Image.Image) -> Image.Image:
    """RGBA as RGB, others as they are. Done after resizing, which weights by alpha, so that it is of few pixels."""
    if image.mode != "RGBA":
        return image
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
