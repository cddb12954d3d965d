"""Folders that are decoded by threads, and those that stay on disk: the same pictures, batches and complaints."""

import os
import threading
import tracemalloc
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from minicnn import backend, data
from minicnn.data import Augment, ImageError, Loader, dataset, images
from minicnn.data import memory as memory_left
from minicnn.data.dataset import channel_statistics
from minicnn.data.images import ImageShape, load_image, load_images
from minicnn.data.stored import StoredImages

RNG = np.random.default_rng(0)


def fill(root, counts=(("cat", 14), ("dog", 9), ("eel", 5)), size=(11, 9)):
    """A folder of pictures of noise."""
    for name, count in counts:
        (root / name).mkdir(parents=True)
        for i in range(count):
            Image.fromarray(RNG.integers(0, 256, (*size, 3), dtype=np.uint8)).save(root / name / f"{i:02}.png")
    return root


def both(root, **options):
    """The folder in memory, and on disk: no picture fits into 0 GiB."""
    kept, stored = (data.load(str(root), memory=memory, **options) for memory in (None, 0))
    assert isinstance(kept.train.images, np.ndarray) and isinstance(stored.train.images, StoredImages)
    return kept, stored


def batches(dataset, epoch=0, start=0, batch_size=4, **options):
    how = {"mean": [0.4] * 3, "std": [0.2] * 3, "backend": backend.get("numpy"), "shuffle": True, "seed": 5} | options
    return [(x.copy(), y.copy()) for x, y in Loader(dataset, batch_size, **how).epoch(epoch, start)]


def assert_same(one, two):
    assert len(one) == len(two)
    for pair, other in zip(one, two, strict=True):
        for a, b in zip(pair, other, strict=True):
            np.testing.assert_array_equal(a, b)


def workers():
    return [thread for thread in threading.enumerate() if thread.name.startswith("ThreadPoolExecutor")]


@pytest.mark.parametrize(
    "options", [{}, {"image_size": 8, "resize": 10}, {"image_size": 8, "resize": 10, "margin": True}]
)
def test_on_disk_everything_is_as_in_memory(tmp_path, options):
    kept, stored = both(fill(tmp_path), seed=2, **options)
    assert kept.identity == stored.identity
    assert (kept.mean, kept.std) == (stored.mean, stored.std)
    assert stored.note.endswith("read from disk as they are needed, as they do not fit into the memory (--memory)")
    for part in ("train", "validation", "test"):
        one, two = getattr(kept, part), getattr(stored, part)
        assert one.images.shape == two.images.shape and len(one.images) == len(two.images)
        assert one.images.dtype == two.images.dtype and one.images.ndim == two.images.ndim
        assert one.files == two.files and one.labels.tolist() == two.labels.tolist()
        order = np.arange(len(one))[::-1]
        for index in (0, -1, np.int64(1), slice(1, 3), order, order > 1, []):
            np.testing.assert_array_equal(one.images[index], two.images[index])
        assert_same([(one.subset(order).images,)], [(two.subset(order).images[:],)])
        np.testing.assert_array_equal(one.center_crop(8).images, two.center_crop(8).images[:])
    with pytest.raises(IndexError):
        stored.train.images[len(stored.train)]


@pytest.mark.parametrize("name", ["reference", "numpy"])
@pytest.mark.parametrize("augment", [
    None, Augment(flip=0.5, shift=2, alternate=True),
    Augment(random_resized_crop=True, rotation=10, contrast=0.4, mixup=1),
])  # fmt: skip
def test_batches_have_the_same_bits(tmp_path, name, augment):
    kept, stored = both(fill(tmp_path), image_size=16)
    options = {"augment": augment, "backend": backend.get(name)}
    for start in (0, 3):
        one, two = (batches(splits.train, 1, start, **options) for splits in (kept, stored))
        assert_same(one, two)
    if augment is not None and augment.random_resized_crop:
        one, two = (batches(splits.train, image_size=12, **options) for splits in (kept, stored))
        assert_same(one, two)


def test_files_are_the_names_of_the_records(tmp_path):
    fill(tmp_path / "train")
    (tmp_path / "train" / "dog" / "deep").mkdir()
    (tmp_path / "train" / "dog" / "03.png").rename(tmp_path / "train" / "dog" / "deep" / "x.png")
    splits = data.load(str(tmp_path), seed=1)
    found = [name for part in (splits.train, splits.validation, splits.test) for name in part.files]
    assert sorted(found) == sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*.png"))
    assert "train/dog/deep/x.png" in found
    for part in (splits.train, splits.validation, splits.test):
        for name, image, label in zip(part.files, part.images, part.labels, strict=True):
            np.testing.assert_array_equal(image, load_image(tmp_path / name))
            assert Path(name).parts[1] == part.classes[label]


def test_damaged_pictures_are_reported_alike(tmp_path):
    fill(tmp_path)
    for name in ("cat/03.png", "dog/00.png", "eel/04.png"):
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:60])
    (tmp_path / "dog" / "gone.png").symlink_to("nowhere")
    complaints = []
    for memory in (None, 0):
        with pytest.raises(ImageError) as caught:
            data.load(str(tmp_path), memory=memory)
        complaints.append(str(caught.value))
    assert complaints[0] == complaints[1] and complaints[0].startswith("4 pictures cannot be used: ")
    lines = []
    for memory in (None, 0):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            splits = data.load(str(tmp_path), memory=memory, skip_damaged=True)
        lines.append([str(each.message) for each in caught])
        assert len(splits.train) + len(splits.validation) + len(splits.test) == 25
    assert lines[0] == lines[1] and len(lines[0]) == 4
    assert [line.split("/")[-2] for line in lines[0]] == ["cat", "dog", "dog", "eel"]


def test_a_class_of_damaged_pictures_alone_is_named_alike(tmp_path):
    fill(tmp_path, (("cat", 6), ("dog", 2)))
    for i in range(2):
        (tmp_path / "dog" / f"0{i}.png").write_bytes(b"bad")
    for memory in (None, 0):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with pytest.raises(ValueError, match="train: no pictures in dog but damaged ones"):
                data.load(str(tmp_path), memory=memory, skip_damaged=True)


@pytest.mark.parametrize("threads", [1, 5])
def test_threads_keep_the_order_and_warn_like_one(tmp_path, monkeypatch, threads):
    monkeypatch.setattr(images, "THREADS", threads)
    fill(tmp_path, (("a", 40),))
    frames = [Image.new("RGB", (4, 4), color) for color in ("red", "blue")]
    frames[0].save(tmp_path / "a" / "07.gif", save_all=True, append_images=frames[1:])
    (tmp_path / "a" / "13.png").write_bytes(b"bad")
    paths = sorted((tmp_path / "a").iterdir())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = list(load_images(paths, ImageShape(9)))
    animation = tmp_path / "a" / "07.gif"
    assert [str(each.message) for each in caught] == [f"{str(animation)!r} has 2 frames, the first is used"]
    for path, picture in zip(paths, found, strict=True):
        if path.name == "13.png":
            assert isinstance(picture, ImageError) and "13.png" in str(picture)
        elif path.suffix == ".png":
            np.testing.assert_array_equal(picture, load_image(path, 9))


def test_a_picture_that_vanishes_or_changes_is_named(tmp_path):
    _, stored = both(fill(tmp_path))
    victim = tmp_path / stored.train.files[5]
    content = victim.read_bytes()
    victim.unlink()
    with pytest.raises(ImageError, match=rf"{victim.name}' is gone since the data set was loaded .*put it back"):
        batches(stored.train)
    with pytest.raises(ImageError, match="is gone since"):
        _ = stored.train.images[5]
    victim.write_bytes(content + b"more")
    with pytest.raises(ImageError, match=rf"{victim.name}' has changed since the data set was loaded; load it again"):
        batches(stored.train)
    assert not workers()


def test_an_epoch_that_is_left_leaves_no_thread(tmp_path):
    _, stored = both(fill(tmp_path))
    loader = Loader(stored.train, 2, mean=[0] * 3, std=[1] * 3, backend=backend.get("numpy"))
    for _ in loader.epoch(0):
        assert workers()
        break
    assert not workers()
    epoch = loader.epoch(0)
    next(epoch)
    with pytest.raises(KeyboardInterrupt):
        epoch.throw(KeyboardInterrupt)
    assert not workers()


def test_so_many_batches_are_read_ahead_as_the_memory_holds(tmp_path, monkeypatch):
    """A batch of 4 pictures has 4 * 3 * 32 * 32 bytes; beside those ahead there are five times as many."""
    fill(tmp_path, (("a", 30), ("b", 30)))
    size, asked = 4 * 3 * 32 * 32, []
    for memory, ahead in ((0, 1), (5 * size, 1), (7 * size, 2), (8 * size, 3), (100 * size, 4)):
        images_now = data.load(str(tmp_path), memory=0, validation=0).train.images
        object.__setattr__(images_now, "memory", memory)
        asked.clear()

        def order():
            for start in range(0, 40, 4):
                asked.append(start)
                yield np.arange(start, start + 4)

        found = images_now.batches(order())
        next(found)
        assert len(asked) == 1 + ahead
        found.close()


def test_memory_that_is_large_enough_keeps_pictures(tmp_path):
    """28 pictures of 3 * 8 * 8 bytes, and the copy that a split makes."""
    fill(tmp_path)
    needed = 2 * 28 * 3 * 8 * 8
    for memory, kind in ((needed, np.ndarray), (needed - 1, StoredImages)):
        splits = data.load(str(tmp_path), memory=memory / 2**30, image_size=8)
        assert all(isinstance(part.images, kind) for part in (splits.train, splits.validation, splits.test))


def test_large_pictures_wait_for_each_other():
    room, inside, most = images._Room(100), [], []

    def decode():
        with room.of(60):
            inside.append(1)
            most.append(len(inside))
            inside.pop()

    threads = [threading.Thread(target=decode) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 8
    with room.of(10**9):  # more than there is: all of it
        pass


def test_pillows_warnings_are_ignored_while_it_decodes_alone(tmp_path):
    fill(tmp_path, (("a", 3),))
    before = list(warnings.filters)
    with images._silent_pillow():
        assert warnings.filters[0] == images._PILLOW
        load_image(tmp_path / "a" / "00.png")
        assert warnings.filters[0] == images._PILLOW
    assert warnings.filters == before


def test_the_middle_of_pictures_on_disk_is_described_as_in_memory(tmp_path):
    """What was read of them was the whole."""
    kept, stored = both(fill(tmp_path), image_size=8, resize=12, margin=True)
    one, two = kept.train.center_crop(8), stored.train.center_crop(8)
    assert channel_statistics(one.images) == channel_statistics(two.images)
    assert one.fingerprint() == two.fingerprint() != stored.train.fingerprint()


def peak(load):
    """The most memory that a call takes, in bytes."""
    tracemalloc.start()
    try:
        splits = load()
        return tracemalloc.get_traced_memory()[1], splits
    finally:
        tracemalloc.stop()


def test_the_bound_of_the_memory_is_kept(tmp_path, monkeypatch):
    """On disk a few pictures are in memory at once, else all and a copy; beside some of which sums are taken."""
    monkeypatch.setattr(images, "THREADS", 1)
    monkeypatch.setattr(dataset, "_BLOCK_PIXELS", 1)
    fill(tmp_path, (("a", 60), ("b", 60)))
    everything = 120 * 3 * 128 * 128
    data.load(str(tmp_path))  # imports
    taken, splits = peak(lambda: data.load(str(tmp_path), image_size=128, memory=(2 * everything - 1) / 2**30))
    assert isinstance(splits.train.images, StoredImages) and taken < 0.5 * everything
    taken, splits = peak(lambda: data.load(str(tmp_path), image_size=128, memory=2 * everything / 2**30))
    assert isinstance(splits.train.images, np.ndarray) and taken < 2.2 * everything


@pytest.mark.parametrize("memory", [-1, float("nan")])
def test_a_bound_that_is_none_is_refused(tmp_path, memory):
    with pytest.raises(ValueError, match=f"^memory: expected GiB from 0, received {memory}$"):
        data.load(str(fill(tmp_path)), memory=memory)


def test_no_bound(tmp_path):
    assert isinstance(data.load(str(fill(tmp_path)), memory=float("inf")).train.images, np.ndarray)


@pytest.mark.parametrize("files, free", [
    ({"memory.max": "3000", "memory.current": "2500", "memory.stat": "active_file 7\ninactive_file 100"}, 600),
    ({"memory.max": "max", "memory.current": "2500"}, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")),
    ({"memory/memory.limit_in_bytes": "900", "memory/memory.usage_in_bytes": "950"}, 0),
])  # fmt: skip
def test_files_that_are_cached_count_as_free_in_a_container(monkeypatch, files, free):
    found = {f"/sys/fs/cgroup/{name}": [line.split() for line in text.split("\n")] for name, text in files.items()}
    monkeypatch.setattr(memory_left, "_lines", lambda path: found.get(path, []))
    assert memory_left.free_memory() == free
