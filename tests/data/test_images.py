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
from minicnn.data.images import FORMATS, MAX_PIXELS, MAX_SIDE, SUFFIXES


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


def test_avif(tmp_path):
    if "AVIF" not in FORMATS:
        pytest.skip("this Pillow has no AVIF")
    assert np.allclose(one_color(tmp_path / "a.avif", "RGB", (10, 200, 30)), [10, 200, 30], atol=3)
    assert find_images(tmp_path) == [tmp_path / "a.avif"]


def test_every_suffix_is_read(tmp_path):
    for suffix in sorted(SUFFIXES):
        kind = Image.registered_extensions()[suffix]
        Image.new("1" if suffix == ".pbm" else "L" if suffix == ".pgm" else "RGB", (8, 8)).save(
            tmp_path / f"a{suffix}", kind
        )
        assert load_image(tmp_path / f"a{suffix}").max() <= 2


@pytest.mark.parametrize("side", [7072, 30_000])
def test_decompression_bombs_are_refused_in_bounded_memory(tmp_path, side):
    assert side * side > MAX_PIXELS
    path = png(tmp_path / "bomb.png", side, side, 1, 0, [bytes(side // 8 + 1)] * 100)
    with pytest.raises(ImageError, match=r"bomb\.png' has .* refused"):
        load_image(path)


@pytest.mark.parametrize(("width", "height"), [(1, 50_000_000), (50_000_000, 1), (MAX_SIDE + 1, 2)])
def test_long_sides_are_refused(tmp_path, width, height):
    path = png(tmp_path / "thin.png", width, height, 1, 0, [bytes(width // 8 + 1)])
    with pytest.raises(ImageError, match=f"thin.png' has {width} x {height} pixels, sides over 65,535 are refused"):
        load_image(path)


def test_the_longest_sides(tmp_path):
    assert (load_image(png(tmp_path / "a.png", 1, MAX_SIDE, 8, 0, [b"\x07"] * MAX_SIDE)) == 7).all()
    assert (load_image(png(tmp_path / "b.png", MAX_SIDE, 1, 8, 0, [b"\x07" * MAX_SIDE])) == 7).all()


@pytest.mark.parametrize(
    "start", [b"RIFF\0\0\0\0WEBPVP8 ", b"\0\0\0\x20ftypavif", b"BM", b"\xff\xd8\xff", b"II*\0", b""]
)
def test_files_of_too_many_bytes_are_not_opened(tmp_path, start):
    path = tmp_path / "huge.webp"
    with path.open("wb") as file:
        file.write(start)
        file.truncate(2**33)
    with pytest.raises(ImageError, match="webp' has 8,589,934,592 bytes, more than 268,435,456 are refused"):
        load_image(path)


MEMORY = """
import sys
from pathlib import Path
from minicnn.data import ImageError, load_image
try:
    image = load_image(sys.argv[1])
    print(*image.reshape(3, -1).mean(1).round().astype(int))
except ImageError as error:
    print("refused")
print(Path('/proc/self/status').read_text().partition('VmHWM:')[2].split()[0])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is there on Linux only")
@pytest.mark.parametrize("kind", ["grey with alpha", "thin", "photograph"])
def test_the_largest_pictures_stay_in_bounded_memory(tmp_path, kind):
    side, answer = int(MAX_PIXELS**0.5), "255 255 255"
    if kind == "grey with alpha":
        path = png(tmp_path / "a.png", side, side, 8, 4, [bytes(2 * side)] * side)  # all transparent
    elif kind == "thin":
        path, answer = png(tmp_path / "a.png", 1, 50_000_000, 1, 0, [b"\0"]), "refused"
    else:
        path = tmp_path / "a.jpg"
        Image.new("L", (12_000, 9_000), 255).save(path, progressive=True)
    done = subprocess.run([sys.executable, "-c", MEMORY, str(path)], capture_output=True, text=True, check=True)
    found, memory = done.stdout.splitlines()
    assert found == answer and int(memory) < 2**20


def test_a_large_jpeg_is_decoded_smaller(tmp_path):
    """The two halves of more pixels than a PNG may have, with the orientation that its camera noted."""
    picture = Image.new("L", (8000, 7000))
    picture.paste(200, (4000, 0, 8000, 7000))
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned clockwise: the left half is at the top
    picture.save(tmp_path / "a.jpg", exif=exif)
    image = load_image(tmp_path / "a.jpg").astype(int)
    assert abs(image[:, :15] - 0).max() <= 2 and abs(image[:, 17:] - 200).max() <= 2
    with pytest.raises(ImageError, match="has 8000 x 7000 pixels"):
        load_image(tmp_path / "a.jpg", 8000)  # for such a size, it cannot be made smaller
    Image.new("L", (11_000, 11_000)).save(tmp_path / "b.jpg")
    with pytest.raises(ImageError, match="has 11000 x 11000 pixels, more than 110,000,000 are refused"):
        load_image(tmp_path / "b.jpg")


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
    (tmp_path / "e.png").mkdir()
    for name in ("b.PNG", "a.jpg", "d.webp", "e.png/f.jfif", "e.png/a.jpe"):
        (tmp_path / name).touch()
    found = [path.relative_to(tmp_path).as_posix() for path in find_images(tmp_path)]
    assert found == ["a.jpg", "b.PNG", "d.webp", "e.png/a.jpe", "e.png/f.jfif"]


def test_find_images_counts_what_it_leaves_out(tmp_path):
    names = ("a.png", "b.heic", "c.HEIC", "d.txt", ".hidden.png", "none", "odd.\x1b[1m", "x.toolongforasuffix")
    for name in names:
        (tmp_path / name).touch()
    with pytest.warns(UserWarning) as caught:
        assert find_images(tmp_path) == [tmp_path / "a.png"]
    assert len(caught) == 1 and sorted(str(caught[0].message).partition("not read: ")[2].split(", ")) == [
        "1 .txt", "1 hidden", "1 without a suffix", "2 .heic", "2 with another suffix"
    ]  # fmt: skip


def test_find_images_names_some_kinds(tmp_path):
    for i in range(20):
        (tmp_path / f"a.{i:03}").touch()
    with pytest.warns(UserWarning, match=r"1 \.\d{3}, 12 of other kinds$"):
        assert find_images(tmp_path) == []


def test_find_images_follows_links_once(tmp_path):
    """Neither a link to itself, nor one to a folder above, nor two to one folder lead in circles or read twice."""
    inner = tmp_path / "class" / "inner"
    inner.mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    for picture in (inner / "a.png", tmp_path / "elsewhere" / "b.png", tmp_path / "other.png"):
        picture.touch()
    (inner / "self").symlink_to(inner)
    (inner / "up").symlink_to(tmp_path)
    (inner / "none").symlink_to("none")
    for name in ("one", "two"):
        (tmp_path / "class" / name).symlink_to(tmp_path / "elsewhere")
    with pytest.warns(UserWarning, match="3 link to a folder above or read before, 1 without a suffix"):
        found = find_images(tmp_path / "class")
    assert found == [inner / "a.png", tmp_path / "class" / "one" / "b.png"]
