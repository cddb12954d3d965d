"""Picture files of every kind; expected pixels by hand."""

import struct
import subprocess
import sys
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from minicnn.data import ImageError, find_images, load_image
from minicnn.data.images import MAX_PIXELS


@pytest.fixture(autouse=True)
def warnings_are_errors():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def png(path, width, height, depth, color, rows, extra=b""):
    """A PNG file from its unfiltered rows of samples (bytes)."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    content = chunk(b"IHDR", header) + extra + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + content)
    return path


def one_color(path, mode, color, **options):
    Image.new(mode, (3, 2), color).save(path, **options)
    image = load_image(path)
    assert image.shape == (3, 32, 32) and image.dtype == np.uint8 and image.flags.c_contiguous
    assert (image == image[:, :1, :1]).all()
    return image[:, 0, 0].tolist()


@pytest.mark.parametrize(
    "mode, color, name, expected",
    [
        ("RGB", (1, 2, 3), "a.png", [1, 2, 3]),
        ("RGB", (1, 2, 3), "a.bmp", [1, 2, 3]),
        ("RGB", (1, 2, 3), "a.tiff", [1, 2, 3]),
        ("RGB", (1, 2, 3), "a.ppm", [1, 2, 3]),
        ("L", 7, "a.png", [7, 7, 7]),
        ("1", 1, "a.png", [255, 255, 255]),
        ("LA", (100, 255), "a.png", [100, 100, 100]),
        ("LA", (100, 0), "a.png", [255, 255, 255]),
        ("LA", (0, 51), "a.png", [204, 204, 204]),  # a fifth of black over white
        ("RGBA", (255, 0, 0, 51), "a.png", [255, 204, 204]),
        ("RGBA", (9, 9, 9, 0), "a.png", [255, 255, 255]),
        ("CMYK", (255, 0, 0, 0), "a.tiff", [0, 255, 255]),
        ("CMYK", (0, 0, 0, 0), "a.jpg", [255, 255, 255]),
        ("CMYK", (0, 0, 0, 255), "a.jpg", [0, 0, 0]),
    ],
)
def test_golden_colours(tmp_path, mode, color, name, expected):
    assert one_color(tmp_path / name, mode, color) == expected


def test_webp_and_jpeg_are_close_and_lossless_webp_is_equal(tmp_path):
    assert one_color(tmp_path / "a.webp", "RGB", (10, 200, 30), lossless=True) == [10, 200, 30]
    assert np.allclose(one_color(tmp_path / "a.jpg", "RGB", (10, 200, 30)), [10, 200, 30], atol=3)


def test_palette_with_a_transparent_entry(tmp_path):
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((1, 0), 1)
    image.resize((64, 32), Image.Resampling.NEAREST).save(tmp_path / "a.png", transparency=1)
    assert load_image(tmp_path / "a.png")[:, 0, 0].tolist() == [10, 20, 30]
    assert load_image(tmp_path / "a.png")[:, 0, 31].tolist() == [255, 255, 255]


@pytest.mark.parametrize("sample, expected", [(0, 0), (257, 1), (256 * 128, 128), (65535 - 257, 254), (65535, 255)])
def test_sixteen_bit_grey_is_scaled(tmp_path, sample, expected):
    path = png(tmp_path / "a.png", 1, 1, 16, 0, [struct.pack(">H", sample)])
    assert load_image(path)[:, 5, 5].tolist() == [expected] * 3
    (tmp_path / "a.pgm").write_bytes(b"P5 1 1 65535\n" + struct.pack(">H", sample))
    assert load_image(tmp_path / "a.pgm")[:, 5, 5].tolist() == [expected] * 3
    Image.fromarray(np.array([[sample]], np.uint16)).save(tmp_path / "a.tiff")
    assert load_image(tmp_path / "a.tiff")[:, 5, 5].tolist() == [expected] * 3


def test_sixteen_bit_colour_keeps_the_high_byte(tmp_path):
    path = png(tmp_path / "a.png", 1, 1, 16, 2, [struct.pack(">HHH", 0x01FF, 0x8000, 0xFFFF)])
    assert load_image(path)[:, 0, 0].tolist() == [1, 128, 255]


@pytest.mark.parametrize("array", [np.full((2, 2), 0.5, np.float32), np.full((2, 2), -1, np.int32)])
def test_pixels_of_unknown_range_are_refused(tmp_path, array):
    Image.fromarray(array).save(tmp_path / "a.tiff")
    with pytest.raises(ImageError, match="range is unknown"):
        load_image(tmp_path / "a.tiff")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientations_equal_the_upright_picture(tmp_path, orientation):
    upright = np.random.default_rng(0).integers(0, 256, (41, 60, 3), dtype=np.uint8)
    # What a camera stores so that the viewer's undoing gives `upright` (EXIF 2.32, tag 0x0112).
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright),
        7: np.rot90(upright.transpose(1, 0, 2), 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(upright).save(tmp_path / "upright.png")
    Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / "stored.png", exif=exif)
    np.testing.assert_array_equal(load_image(tmp_path / "stored.png"), load_image(tmp_path / "upright.png"))


def test_a_picture_of_the_right_size_keeps_its_pixels(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    np.testing.assert_array_equal(load_image(tmp_path / "a.png"), pixels.transpose(2, 0, 1))


@pytest.mark.parametrize("width, height", [(1, 1), (1, 2000), (2000, 1), (7, 3), (500, 499)])
def test_any_aspect_ratio(tmp_path, width, height):
    Image.new("RGB", (width, height), (4, 5, 6)).save(tmp_path / "a.png")
    assert load_image(tmp_path / "a.png", 48).shape == (3, 48, 48)
    assert load_image(tmp_path / "a.png").reshape(3, -1).T.tolist() == [[4, 5, 6]] * 1024


def test_the_middle_square_is_used(tmp_path):
    pixels = np.zeros((32, 96, 3), np.uint8)
    pixels[:, 32:64] = 200
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert (load_image(tmp_path / "a.png") == 200).all()


def test_reduction_is_antialiased(tmp_path):
    """A fine chequerboard becomes grey, not one of its two colours."""
    board = (np.indices((256, 256)).sum(0) % 2 * 255).astype(np.uint8)
    Image.fromarray(board).save(tmp_path / "a.png")
    assert abs(load_image(tmp_path / "a.png").astype(int) - 127).max() <= 2


def test_an_animation_gives_its_first_frame_and_a_warning(tmp_path):
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "lime", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    with pytest.warns(UserWarning, match=r"a\.gif' has 3 frames, the first is used"):
        image = load_image(tmp_path / "a.gif")
    assert image[:, 0, 0].tolist() == [255, 0, 0]


NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 50, 3), dtype=np.uint8))


@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "bmp", "webp", "tiff", "ppm"])
def test_truncated_files(tmp_path, suffix):
    path = tmp_path / f"half.{suffix}"
    NOISE.save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ImageError, match=rf"half\.{suffix}' is (damaged: \w|not a picture)") as caught:
        load_image(path)
    assert "\n" not in str(caught.value)


def test_files_that_are_no_pictures(tmp_path):
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("not a picture")
    (tmp_path / "folder.png").mkdir()
    for name, cause in {
        "empty.png": "is empty",
        "text.png": "is not a picture of a known format",
        "folder.png": "is a folder",
        "missing.png": "does not exist",
        "null\0.png": "does not exist",
        f"{'long' * 99}.png": "cannot be read: File name too long",
    }.items():
        with pytest.raises(ImageError, match=f"png' {cause}"):
            load_image(tmp_path / name)


def test_formats_that_are_not_listed_are_refused(tmp_path):
    NOISE.save(tmp_path / "a.eps")
    NOISE.save(tmp_path / "a.pdf")
    (tmp_path / "a.fits").write_bytes(b"SIMPLE  =                    T".ljust(2880))
    for name in ("a.eps", "a.pdf", "a.fits"):
        (tmp_path / "disguised.png").write_bytes((tmp_path / name).read_bytes())
        for path in (tmp_path / name, tmp_path / "disguised.png"):
            with pytest.raises(ImageError, match="is not a picture of a known format"):
                load_image(path)


@pytest.mark.parametrize("side", [7072, 30_000])
def test_decompression_bombs_are_refused_in_bounded_memory(tmp_path, side):
    assert side * side > MAX_PIXELS
    path = png(tmp_path / "bomb.png", side, side, 1, 0, [bytes(side // 8 + 1)] * 100)
    with pytest.raises(ImageError, match=r"bomb\.png' has .* refused"):
        load_image(path)


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is there on Linux only")
def test_the_largest_picture_stays_in_bounded_memory(tmp_path):
    side = int(MAX_PIXELS**0.5)
    path = png(tmp_path / "large.png", side, side, 8, 4, [bytes(2 * side)] * side)  # grey with alpha, all transparent
    code = (
        "import sys; from pathlib import Path; from minicnn.data import load_image; image = load_image(sys.argv[1]); "
        "assert (image == 255).all(); status = Path('/proc/self/status').read_text(); "
        "print(status.partition('VmHWM:')[2].split()[0])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 2**20


@pytest.mark.parametrize("name", ["ärger 中.png", "with spaces.png", "-leading.png", "line\nbreak.png"])
def test_names(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    NOISE.save(tmp_path / name)
    assert load_image(name).shape == (3, 32, 32)
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(ImageError) as caught:
        load_image(name)
    assert "\n" not in str(caught.value)


def test_find_images_lists_pictures_in_order(tmp_path):
    for name in ("b.PNG", "a.jpg", "c.txt", ".hidden.png", "d.webp"):
        (tmp_path / name).touch()
    (tmp_path / "e.png").mkdir()
    assert [path.name for path in find_images(tmp_path)] == ["a.jpg", "b.PNG", "d.webp"]
