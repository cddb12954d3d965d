"""Picture files as the arrays a network reads. One rule, for training and for prediction:

1. the orientation that the camera noted (EXIF) is applied;
2. the colours become RGB: grey is copied to the three channels; transparency is laid over white; CMYK and palettes
   are converted without a colour profile; 16-bit grey is divided by 257, so that 65535 is 255 (of 16-bit colour the
   high byte is kept);
3. the square of the shorter side is cut from the middle and resized with a bilinear filter (antialiased on the way
   down), so any aspect ratio works and a picture of the right size keeps its pixels.
"""

import os
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

FORMATS = ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF", "PPM")
SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".gif", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm"))
MAX_PIXELS = 50_000_000  # a 48 megapixel photograph passes; decoding stays under 1 GiB of memory


class ImageError(ValueError):
    """A file that cannot be read as a picture; the message is one line with the file and the cause."""


def load_image(path: str | os.PathLike, size: int = 32) -> np.ndarray:
    """The picture at `path` as uint8 (3, size, size), by the rule above. Raises ImageError; warns of further frames."""
    path = Path(path)
    shown = repr(str(path))  # a name may hold line breaks, or bytes that no terminal can print
    try:
        if not path.is_file():
            raise ImageError("is a folder" if path.is_dir() else "is not a file" if path.exists() else "does not exist")
        if path.stat().st_size == 0:
            raise ImageError("is empty")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's: what matters is an error below
            with Image.open(path, formats=FORMATS) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise ImageError(f"has {image.width} x {image.height} pixels, more than {MAX_PIXELS:,} are refused")
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


def find_images(path: str | os.PathLike) -> list[Path]:
    """The picture files directly in the folder `path`, known by their suffix, in the order of their names."""
    return sorted(
        entry
        for entry in Path(path).iterdir()
        if entry.suffix.lower() in SUFFIXES and not entry.name.startswith(".") and entry.is_file()
    )


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
