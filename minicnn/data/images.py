"""Picture files as the arrays a network reads.

One rule, for training and for prediction:

1. the orientation that the camera noted (EXIF) is applied;
2. the colours become RGB: grey is copied to the three channels; transparency is laid over white; CMYK and palettes
   are converted without a colour profile; 16-bit grey is divided by 257, so that 65535 is 255 (of 16-bit colour the
   high byte is kept);
3. the square of the shorter side is cut from the middle and resized with a bilinear filter (antialiased on the way
   down), so any aspect ratio works and a picture of the right size keeps its pixels.

Decoding stays under 1 GiB of memory, whatever the file says: larger pictures are refused before they are decoded. Of a
JPEG over MAX_PIXELS the decoder makes an eighth of each side at once (the mean of 8 x 8 pixels).
"""

import os
import re
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError, features
from PIL.JpegImagePlugin import JpegImageFile

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
_KINDS = 8  # that a line names


class ImageError(ValueError):
    """A file that cannot be read as a picture; the message is one line with the file and the cause."""


def load_image(path: str | os.PathLike[str], size: int = 32) -> np.ndarray:
    """The picture at `path` as uint8 (3, size, size), by the rule above. Raises ImageError; warns of further frames."""
    path = Path(path)
    shown = repr(str(path))  # a name may hold line breaks, or bytes that no terminal can print
    try:
        if not path.is_file():
            raise ImageError("is a folder" if path.is_dir() else "is not a file" if path.exists() else "does not exist")
        if not (length := path.stat().st_size):
            raise ImageError("is empty")
        if length > MAX_BYTES:
            raise ImageError(f"has {length:,} bytes, more than {MAX_BYTES:,} are refused")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's: what matters is an error below
            with Image.open(path, formats=FORMATS) as image:
                _bound(image, size)
                frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)  # MPO: a photograph's previews
                ImageOps.exif_transpose(image, in_place=True)
                square = _over_white(ImageOps.fit(_converted(image), (size, size), Image.Resampling.BILINEAR))
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
    if frames > 1:
        warnings.warn(f"{shown} has {frames} frames, the first is used", stacklevel=2)
    return np.ascontiguousarray(np.asarray(square).transpose(2, 0, 1))  # (size, size, 3) -> (3, size, size)


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
    """RGBA or RGB as RGB. Done after resizing, which weights by alpha, so that only a small picture is laid over."""
    if image.mode == "RGB":
        return image
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
