"""Weights as HDF5: the same bits as .safetensors, and what is refused."""

import json
import os
import random
import subprocess
import sys
import time

import numpy as np
import pytest

from minicnn import backend
from minicnn.training import checkpoint, pretrained
from minicnn.training.checkpoint import CheckpointError, load, save

h5py = pytest.importorskip("h5py")
METADATA = {"kind": "weights", "classes": ["cat", "Hündin"], "best": 0.1 + 0.2, "key": 2**64 - 1}
ARRAYS = {
    "features.0.weight": np.random.default_rng(0).standard_normal((6, 3, 5, 4)).astype(np.float32),
    "nan": np.array([np.nan, -0.0, np.inf, 5e-324]),
    "scalar": np.array(7, np.int64),
    "empty": np.zeros((0, 3), np.float32),
    "mask": np.array([True, False]),
    "half": np.array([[1.5]], np.float16),
    **{f"layer.{i}": np.full(i, i, np.uint8) for i in range(12)},
}


def assert_same_bits(found, expected):
    assert found.shape == expected.shape and found.dtype == expected.dtype and found.tobytes() == expected.tobytes()


def written(path, change, **options):
    """A file of another program: ``change`` fills it."""
    with h5py.File(path, "w", **{"libver": "v110", **options}) as file:
        change(file)
    return path


@pytest.mark.parametrize("suffix", [".h5", ".hdf5"])
def test_round_trip_is_exact_and_readable_by_h5py(tmp_path, suffix):
    path = tmp_path / f"w{suffix}"
    save(path, ARRAYS, METADATA)
    loaded = load(path)
    assert loaded.metadata == METADATA and loaded.arrays.keys() == ARRAYS.keys()
    with h5py.File(path) as file:
        assert json.loads(file.attrs["minicnn"])["metadata"] == METADATA
        assert set(file) == set(ARRAYS)
        for name, array in ARRAYS.items():
            assert_same_bits(file[name][()], array)
            assert_same_bits(loaded.arrays[name], array)
            assert loaded.arrays[name].flags.writeable
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize(
    "view", [np.asfortranarray, lambda a: a[::-1, ::2], lambda a: a.astype(">f4"), lambda a: a.transpose(2, 0, 1)]
)
def test_any_memory_layout_is_stored_as_its_values(tmp_path, view):
    array = view(np.arange(60, dtype=np.float32).reshape(3, 4, 5))
    save(tmp_path / "a.h5", {"a": array}, {})
    np.testing.assert_array_equal(load(tmp_path / "a.h5").arrays["a"], array)


def test_the_same_weights_give_the_same_bytes(tmp_path):
    save(tmp_path / "a.h5", ARRAYS, METADATA)
    time.sleep(1.1)  # a time stamp of whole seconds would differ
    save(tmp_path / "b.h5", ARRAYS, METADATA)
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_a_model_comes_back_through_hdf5(trainer, tmp_path):
    arrays, metadata = trainer().weights()
    save(tmp_path / "w.h5", arrays, metadata)
    trained = pretrained.load(tmp_path / "w.h5", backend.get("numpy"))
    for name, tensor in trained.model.state_dict().items():
        assert_same_bits(tensor.numpy(), arrays[name])
    cut = {name: array[:1] for name, array in arrays.items() if name != "fc1.bias"} | {"more": np.zeros(1)}
    save(tmp_path / "cut.h5", cut, metadata)
    with pytest.raises(CheckpointError) as caught:
        pretrained.load(tmp_path / "cut.h5", backend.get("numpy"))
    for words in ("missing: fc1.bias (128,)", "expected (84,), found (1,)", "extra: more (1,)"):
        assert words in str(caught.value)


def test_what_cannot_be_stored_is_refused_before_writing(tmp_path):
    with pytest.raises(ValueError, match="metadata takes more than 60000 bytes"):
        save(tmp_path / "a.h5", {}, {"history": "x" * 60_000})
    for name in ("a/b", "", "."):
        with pytest.raises(ValueError, match="cannot have the name"):
            save(tmp_path / "a.h5", {name: np.ones(1)}, {})
    with pytest.raises(TypeError, match="received for 'a': object"):
        save(tmp_path / "a.h5", {"a": np.array([None])}, {})
    assert list(tmp_path.iterdir()) == []


def _external_storage(file):
    file.create_dataset("a", (4,), "f4", external=[("secret", 0, 16)])


def _virtual(file, source="secret.h5", length=4):
    """Of ``length`` elements of another file; h5py.h5s.UNLIMITED: of as many as it has."""
    shape = {"shape": (4,), "maxshape": (None,) if length == h5py.h5s.UNLIMITED else None}
    layout = h5py.VirtualLayout(dtype="f4", **shape)
    layout[0:length] = h5py.VirtualSource(source, "a", **shape)[0:length]
    file.create_virtual_dataset("a", layout)


def _same_bytes_often(file):
    file["a0"] = np.ones(1000)
    for number in range(1, 50):
        file[f"a{number}"] = file["a0"]


REFUSED = {
    "2^40 elements that are not stored": (lambda f: f.create_dataset("a", (2**40,), "f4"), "in one piece"),
    "2^40 chunked elements": (lambda f: f.create_dataset("a", (2**40,), "f4", chunks=(2**20,)), "in one piece"),
    "compressed": (lambda f: f.create_dataset("a", data=np.zeros(10**6), compression="gzip"), "in one piece"),
    "storage in another file": (_external_storage, "in one piece"),
    "virtual": (_virtual, "in one piece"),
    "a link to another file": (lambda f: f.__setitem__("a", h5py.ExternalLink("x.h5", "a")), "'a' is not a dataset"),
    "a link by name": (lambda f: f.__setitem__("a", h5py.SoftLink("/a")), "'a' is not a dataset"),
    "a group": (lambda f: f.create_group("a"), "'a' is not a dataset"),
    "nothing": (lambda f: f.create_dataset("a", dtype="f4"), "'a' is not a dataset with an array"),
    "the same bytes 50 times": (_same_bytes_often, "its arrays take 400000 bytes, where the file has"),
    "text": (lambda f: f.create_dataset("a", data="word"), "the dtype of 'a' is 'object'"),
    "complex": (lambda f: f.create_dataset("a", data=np.ones(2, complex)), "the dtype of 'a' is 'complex128'"),
    "metadata is a number": (lambda f: f.attrs.__setitem__("minicnn", 3), "metadata is not text"),
    "metadata is a list": (lambda f: f.attrs.__setitem__("minicnn", ["a", "b"]), "metadata is not text"),
    "metadata is not JSON": (lambda f: f.attrs.__setitem__("minicnn", "{"), "Expecting property name"),
    "no version": (lambda f: f.attrs.__setitem__("minicnn", "{}"), "no format version"),
}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
def test_no_other_file_is_opened(tmp_path):
    """A named pipe without a writer would keep whoever opens it waiting: the loader is a process of its own here."""
    pipe = str(tmp_path / "pipe.h5")
    os.mkfifo(pipe)
    referring = {
        "unlimited": lambda f: _virtual(f, pipe, h5py.h5s.UNLIMITED),
        "virtual": lambda f: _virtual(f, pipe, 4),
        "storage": lambda f: f.create_dataset("a", (4,), "f4", external=[(pipe, 0, 16)]),
        "link": lambda f: f.__setitem__("a", h5py.ExternalLink(pipe, "a")),
        "link in a group": lambda f: f.create_group("g").__setitem__("a", h5py.ExternalLink(pipe, "a")),
    }
    paths = [written(tmp_path / f"{name}.h5", change) for name, change in referring.items()]
    script = (
        "import sys\n"
        "from minicnn.training.checkpoint import CheckpointError, load\n"
        "for path in sys.argv[1:]:\n"
        "    print(path, flush=True)\n"
        "    try: load(path)\n"
        "    except CheckpointError: continue\n"
        "    sys.exit('loaded')\n"
    )
    run = [sys.executable, "-c", script, *paths]
    done = subprocess.run(run, capture_output=True, text=True, timeout=600)
    assert (done.returncode, done.stdout.splitlines()) == (0, [str(path) for path in paths]), done.stderr


@pytest.mark.parametrize(("change", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_no_plain_array_is_refused_at_once(tmp_path, change, message):
    start = time.process_time()
    with pytest.raises(CheckpointError, match=message) as error:
        load(written(tmp_path / "w.h5", change))
    assert time.process_time() - start < 1
    assert str(tmp_path) in str(error.value) and "\n" not in str(error.value) and len(str(error.value)) < 500


def test_files_of_other_programs(tmp_path):
    theirs = written(tmp_path / "theirs.h5", lambda file: file.create_dataset("w", data=np.arange(3.0)))
    assert load(theirs).metadata == {} and load(theirs).arrays["w"].tolist() == [0, 1, 2]
    with pytest.raises(CheckpointError, match="expected weights written by minicnn"):
        pretrained.load(theirs, backend.get("numpy"))
    old = written(tmp_path / "old.h5", lambda file: file.create_dataset("w", data=np.ones(3)), libver="earliest")
    with pytest.raises(CheckpointError, match="no checksums; write it anew"):
        load(old)
    (tmp_path / "text.h5").write_text("not HDF5 at all, but long enough to be taken for something")
    with pytest.raises(CheckpointError, match="it is not a .safetensors file; minicnn reads .safetensors and HDF5"):
        load(tmp_path / "text.h5")


def test_a_file_of_any_length_but_its_own_is_an_error(tmp_path):
    path = tmp_path / "w.h5"
    save(path, ARRAYS, METADATA)
    content = path.read_bytes()
    for length in (0, 5, 8, 9, 48, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(CheckpointError) as error:
            load(path)
        assert "\n" not in str(error.value)


def test_a_file_with_wrong_bytes_loads_or_is_a_checkpoint_error(tmp_path):
    path, rng = tmp_path / "w.h5", random.Random(0)
    save(path, ARRAYS, METADATA)
    content = path.read_bytes()
    refused = 0
    for _ in range(400):
        changed = bytearray(content)
        position, count = rng.randrange(len(content)), rng.choice([1, 1, 4, 8])
        changed[position : position + count] = rng.choice([bytes(count), b"\xff" * count, rng.randbytes(count)])
        path.write_bytes(changed)
        start = time.process_time()
        try:
            load(path)
        except CheckpointError:
            refused += 1
        assert time.process_time() - start < 1
    assert refused > 50


def test_without_h5py_the_error_names_the_extra(tmp_path):
    save(tmp_path / "w.h5", ARRAYS, METADATA)
    script = (
        "import sys; sys.modules['h5py'] = None\n"
        "from minicnn.training import checkpoint\n"
        "for call in (lambda: checkpoint.load(sys.argv[1]), lambda: checkpoint.save(sys.argv[1], {}, {})):\n"
        "    try: call()\n"
        "    except ValueError as error: print(error)\n"
    )
    run = [sys.executable, "-c", script, tmp_path / "w.h5"]
    lines = subprocess.run(run, capture_output=True, text=True, check=True).stdout.splitlines()
    assert lines == [
        f'cannot {what} {tmp_path / "w.h5"}: HDF5 needs the package h5py: pip install "minicnn[hdf5]"'
        for what in ("load", "write")
    ]
    assert checkpoint.load(tmp_path / "w.h5").metadata == METADATA
