"""CIFAR-10 from small files in the two official layouts."""

import io
import os
import pickle
import socket
import struct
import tarfile
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from minicnn import data
from minicnn.data import cifar10

RECORDS = 40
FILES = (*cifar10.TRAIN, *cifar10.TEST)


@pytest.fixture(autouse=True)
def small(monkeypatch, tmp_path):
    """Files of 40 records, nothing in the environment, and no network."""
    monkeypatch.setattr(cifar10, "RECORDS", RECORDS)
    monkeypatch.delenv("MINICNN_DATA", raising=False)
    monkeypatch.setattr("platformdirs.user_cache_path", lambda name: tmp_path / "cache" / name)

    def refuse(*args, **kwargs):
        raise AssertionError("a request was made")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)


def records(name):
    """Labels 0..9 in turn; pixels that differ by file, record, channel and place."""
    pixels = np.random.default_rng(FILES.index(name)).integers(0, 256, (RECORDS, 3072), dtype=np.uint8)
    return pixels, np.arange(RECORDS) % 10


def binary(name):
    pixels, labels = records(name)
    return b"".join(bytes([label]) + row.tobytes() for label, row in zip(labels, pixels, strict=True))


def python2(name):
    """The bytes that Python 2 and the NumPy of 2009 wrote: byte strings, numpy.core."""
    pixels, labels = records(name)
    raw, length = pixels.tobytes(), struct.pack("<I", pixels.nbytes)
    content = pickle.dumps({"data": pixels, "labels": labels.tolist()}, protocol=3)
    assert b"B" + length + raw in content and b"C\x01b" in content
    content = content.replace(b"B" + length + raw, b"T" + length + raw).replace(b"C\x01b", b"U\x01b")
    return content.replace(b"cnumpy._core.", b"cnumpy.core.")


def python3(name):
    """The same, saved again today."""
    pixels, labels = records(name)
    return pickle.dumps({"data": pixels, "labels": labels.tolist()})


def write(folder, suffix=".bin", encode=binary):
    folder.mkdir(parents=True)
    for name in FILES:
        (folder / f"{name}{suffix}").write_bytes(encode(name))
    return folder


def load(where=None, **options):
    return cifar10.load(where, validation=20, **options)


def check(splits):
    train = np.concatenate([records(name)[0] for name in cifar10.TRAIN]).reshape(-1, 3, 32, 32)
    together = {image.tobytes() for part in (splits.train, splits.validation) for image in part.images}
    assert together == {image.tobytes() for image in train}
    pixels, labels = records("test_batch")
    np.testing.assert_array_equal(splits.test.images, pixels.reshape(-1, 3, 32, 32))
    np.testing.assert_array_equal(splits.test.labels, labels)
    assert splits.mean == (0.4914, 0.4822, 0.4465) and splits.std == (0.2470, 0.2435, 0.2616)


@pytest.mark.parametrize("below", ["cifar-10-batches-bin", "."])
def test_binary_folder_or_its_parent(tmp_path, below):
    write(tmp_path / "d" / below)
    check(load(tmp_path / "d"))


@pytest.mark.parametrize("below", ["cifar-10-batches-py", "."])
@pytest.mark.parametrize("encode", [python2, python3])
def test_python_folder_or_its_parent(tmp_path, below, encode):
    write(tmp_path / "d" / below, "", encode)
    check(load(tmp_path / "d"))


@pytest.mark.parametrize("layout", ["bin", "py"])
def test_golden_pixels(tmp_path, layout):
    """A record is its label, then the red, the green and the blue plane, each row by row."""
    row = bytes([10] * 1024 + [20] * 1024 + [30] * 1024)
    # At the top left 1, to the right of it 2, at the bottom left 3.
    row = bytes([1, 2]) + row[2 : 32 * 31] + bytes([3]) + row[32 * 31 + 1 :]
    if layout == "bin":
        write(tmp_path / "cifar-10-batches-bin", ".bin", lambda name: b"\x07" + row + binary(name)[3073:])
    else:
        pixels, labels = records("test_batch")
        pixels[0], labels[0] = np.frombuffer(row, np.uint8), 7
        content = pickle.dumps({"data": pixels, "labels": labels.tolist()})
        write(tmp_path / "cifar-10-batches-py", "", lambda name: content)
    test = load(tmp_path).test
    assert test.classes[test.labels[0]] == "horse"
    image = test.images[0]
    assert [image[0, 0, 0], image[0, 0, 1], image[0, 31, 0], image[0, 1, 0]] == [1, 2, 3, 10]
    assert image[1].tolist() == [[20] * 32] * 32 and image[2].tolist() == [[30] * 32] * 32


def test_the_named_folder_goes_before_the_environment_and_that_before_the_cache(tmp_path, monkeypatch):
    write(tmp_path / "cache" / "minicnn" / "cifar-10-batches-bin")
    assert load().note == f"CIFAR-10 from {tmp_path / 'cache' / 'minicnn'}"
    monkeypatch.setenv("MINICNN_DATA", str(write(tmp_path / "environment")))
    assert load().note == f"CIFAR-10 from {tmp_path / 'environment'}"
    assert load(write(tmp_path / "named")).note == f"CIFAR-10 from {tmp_path / 'named'}"


def test_sizes_and_seed(tmp_path):
    write(tmp_path / "d")
    splits = load(tmp_path / "d", seed=3, train_size=50)
    assert np.bincount(splits.train.labels).tolist() == [5] * 10
    assert np.bincount(splits.validation.labels).tolist() == [2] * 10
    again, other = load(tmp_path / "d", seed=3, train_size=50), load(tmp_path / "d", seed=4, train_size=50)
    np.testing.assert_array_equal(splits.train.images, again.train.images)
    assert not np.array_equal(splits.train.images, other.train.images)


@pytest.mark.parametrize("change", [lambda content: content[:-1], lambda content: content + b"\0"])
def test_wrong_length_names_the_file(tmp_path, change):
    folder = write(tmp_path / "d")
    path = folder / "data_batch_3.bin"
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(ValueError, match=r"data_batch_3\.bin: wrong length.*instead of 122,920"):
        load(folder)


def test_python_batch_of_wrong_length_names_the_file(tmp_path):
    folder = write(tmp_path / "d", "", python2)
    pixels, labels = records("test_batch")
    (folder / "test_batch").write_bytes(pickle.dumps({"data": pixels[:-1], "labels": labels.tolist()}))
    with pytest.raises(ValueError, match="test_batch: 39 pictures and 40 labels instead of 40"):
        load(folder)


@pytest.mark.parametrize("suffix, encode", [(".bin", binary), ("", python2)])
def test_label_outside_names_file_and_record(tmp_path, suffix, encode):
    folder = write(tmp_path / "d", suffix, encode)
    pixels, labels = records("data_batch_2")
    labels[17] = 10
    if suffix:
        content = b"".join(bytes([label]) + row.tobytes() for label, row in zip(labels, pixels, strict=True))
    else:
        content = pickle.dumps({"data": pixels, "labels": labels.tolist()})
    (folder / f"data_batch_2{suffix}").write_bytes(content)
    with pytest.raises(ValueError, match=r"data_batch_2.*: record 17 has label 10, expected one in 0\.\.9"):
        load(folder)


def test_missing_file_is_named_and_nothing_is_downloaded(tmp_path):
    folder = write(tmp_path / "d")
    (folder / "test_batch.bin").unlink()
    with pytest.raises(FileNotFoundError, match=r"test_batch\.bin is missing"):
        load(folder)


class Hostile:
    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return self.call[0], self.call[1:]


@pytest.mark.parametrize("function, name", [(os.system, "system"), (eval, "eval"), (np.load, "load")])
@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_hostile_pickle_is_refused_by_name_and_does_not_run(tmp_path, function, name, protocol):
    sentinel = tmp_path / "sentinel"
    argument = {os.system: f"touch {sentinel}", eval: f"open({str(sentinel)!r}, 'w')", np.load: "x"}[function]
    folder = write(tmp_path / "d", "", python2)
    (folder / "data_batch_1").write_bytes(pickle.dumps({"data": Hostile(function, argument)}, protocol))
    with pytest.raises(ValueError, match=rf"data_batch_1 is not a CIFAR-10 batch: .*({name}'|b'd') is refused"):
        load(folder)
    assert not sentinel.exists()


@pytest.mark.parametrize("content", [b"", b"\x80", b"text", pickle.dumps([1]), pickle.dumps({"data": 1, "labels": 2})])
def test_what_is_no_batch_is_named(tmp_path, content):
    folder = write(tmp_path / "d", "", python2)
    (folder / "data_batch_1").write_bytes(content)
    with pytest.raises(ValueError, match="data_batch_1 is not a CIFAR-10 batch"):
        load(folder)


def pack(path, monkeypatch, layout, members):
    """Write an archive of (member, content) and make it the official one."""
    with tarfile.open(path, "w:gz") as archive:
        for member, content in members:
            info = tarfile.TarInfo(member) if isinstance(member, str) else member
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    official = replace(getattr(cifar10, layout), size=path.stat().st_size, sha256=sha256(path.read_bytes()).hexdigest())
    monkeypatch.setattr(cifar10, layout, official)


@pytest.mark.parametrize("layout, suffix, encode", [("BINARY", ".bin", binary), ("PYTHON", "", python2)])
@pytest.mark.parametrize("named", [False, True])
def test_archive_is_read_in_place(tmp_path, monkeypatch, layout, suffix, encode, named):
    path = tmp_path / getattr(cifar10, layout).archive
    members = [("x/readme.html", b"hello")] + [(f"x/{name}{suffix}", encode(name)) for name in FILES]
    pack(path, monkeypatch, layout, members)
    check(load(path if named else tmp_path))
    assert list(tmp_path.iterdir()) == [path]


def test_altered_truncated_and_unknown_archives_are_refused(tmp_path, monkeypatch):
    path = tmp_path / "cifar-10-binary.tar.gz"
    pack(path, monkeypatch, "BINARY", [(f"x/{name}.bin", binary(name)) for name in FILES])
    content = bytearray(path.read_bytes())
    content[1000] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"cifar-10-binary\.tar\.gz: wrong SHA-256, .* instead of .*; remove it"):
        load(tmp_path)
    path.write_bytes(content[:-1])
    with pytest.raises(ValueError, match="wrong size, .* instead of"):
        load(tmp_path)
    (tmp_path / "other.tar.gz").write_bytes(content)
    with pytest.raises(ValueError, match="neither a folder nor one of"):
        load(tmp_path / "other.tar.gz")


def special(kind, name="x/link", target="/etc/passwd"):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize(
    "member",
    ["../outside", "x/../../outside", "/outside", special(tarfile.SYMTYPE), special(tarfile.LNKTYPE)]
    + [special(kind) for kind in (tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE)],
    ids=str,
)
def test_unsafe_members_are_refused_and_nothing_is_written(tmp_path, monkeypatch, member):
    folder = tmp_path / "d"
    folder.mkdir()
    path = folder / "cifar-10-binary.tar.gz"
    pack(path, monkeypatch, "BINARY", [(member, b"")] + [(f"x/{name}.bin", binary(name)) for name in FILES])
    with pytest.raises(ValueError, match="unsafe member .* refused"):
        load(folder)
    assert set(tmp_path.rglob("*")) == {folder, path} and not Path("/outside").exists()


def test_without_data_and_network_the_error_says_what_to_do(tmp_path, monkeypatch):
    def fetch(*args, **kwargs):
        raise ConnectionError("no answer within 8 s")

    monkeypatch.setattr(cifar10, "fetch", fetch)
    with pytest.raises(data.DatasetUnavailable) as caught:
        data.load("cifar10", tmp_path)
    for part in (
        cifar10.URL,
        cifar10.BINARY.sha256,
        str(tmp_path),
        "no answer within 8 s",
        "--data-dir",
        "MINICNN_DATA",
    ):
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(data.DatasetUnavailable, match="download is off"):
        data.load("cifar10", tmp_path, download=False)
    splits = data.load("auto", tmp_path)
    assert splits.name == "digits" and splits.note.startswith("digits of scikit-learn instead of CIFAR-10: ")


def test_auto_takes_what_is_on_disk(tmp_path):
    assert data.load("auto", write(tmp_path / "d"), validation=0.1).name == "cifar10"


def test_auto_does_not_hide_damaged_data(tmp_path):
    folder = write(tmp_path / "d")
    (folder / "test_batch.bin").write_bytes(b"")
    with pytest.raises(ValueError, match="wrong length"):
        data.load("auto", folder)


def test_a_download_is_put_into_the_data_folder_and_read(tmp_path, monkeypatch):
    source = tmp_path / "source.tar.gz"
    pack(source, monkeypatch, "BINARY", [(f"x/{name}.bin", binary(name)) for name in FILES])

    def fetch(url, path, *, size, sha256):
        assert url.startswith("https://") and size == source.stat().st_size
        path.parent.mkdir()
        path.write_bytes(source.read_bytes())

    monkeypatch.setattr(cifar10, "fetch", fetch)
    check(load(tmp_path / "new"))
    monkeypatch.setattr(cifar10, "fetch", None)
    check(load(tmp_path / "new"))
