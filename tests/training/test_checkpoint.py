import json
import os
import pickle
import random
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.numpy import load_file, save_file

from minicnn.training.checkpoint import FORMAT, MAX_HEADER, CheckpointError, compare_keys, load, save

METADATA = {"model": "lenet", "epoch": 3, "classes": ["cat", "Hündin"], "best": 0.1 + 0.2, "random": {"key": 2**64 - 1}}


def assert_same_bits(found, expected):
    assert found.shape == expected.shape and found.dtype == expected.dtype.newbyteorder("=")
    assert found.tobytes() == expected.astype(expected.dtype.newbyteorder("=")).tobytes()


def raw(header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def entry(shape, begin, end, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def test_round_trip_is_exact_and_readable_by_safetensors(tmp_path):
    path = tmp_path / "last.safetensors"
    arrays = {
        "nan": np.array([np.nan, -0.0, np.inf, 5e-324]),
        "scalar": np.array(7, np.int64),
        "empty": np.zeros((0, 3), np.float32),
        "mask": np.array([True, False]),
        "pixels": np.arange(256, dtype=np.uint8),
        "half": np.array([[1.5]], np.float16),
    }
    save(path, arrays, METADATA)
    loaded = load(path)
    assert loaded.metadata == METADATA
    assert loaded.arrays.keys() == arrays.keys()
    for name, array in load_file(path).items():
        assert_same_bits(array, arrays[name])
        assert_same_bits(loaded.arrays[name], arrays[name])
        assert loaded.arrays[name].flags.writeable


@pytest.mark.parametrize(
    "view",
    [
        lambda a: np.asfortranarray(a),
        lambda a: a.transpose(2, 0, 1),
        lambda a: a[::-1, :, ::-2],
        lambda a: a[:, 1:2],
        lambda a: np.broadcast_to(a[0], (5, *a.shape[1:])),
        lambda a: a.astype(">f4"),
        lambda a: a.T.astype(">f8"),
    ],
)
def test_any_memory_layout_is_stored_as_its_values(tmp_path, view):
    array = view(np.arange(60, dtype=np.float32).reshape(3, 4, 5))
    before = array.copy()
    save(tmp_path / "a.safetensors", {"a": array}, {})
    assert_same_bits(load(tmp_path / "a.safetensors").arrays["a"], before)
    np.testing.assert_array_equal(array, before)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    array=hnp.arrays(
        st.sampled_from([np.bool_, np.uint8, np.int32, np.uint64, np.float16, np.float32, np.float64]),
        hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4),
    ),
    axes=st.randoms(use_true_random=False),
    name=st.text(min_size=1, max_size=8).filter(lambda text: text.isprintable()),
)
def test_any_array_and_name_round_trip(tmp_path, array, axes, name):
    array = array.transpose(axes.sample(range(array.ndim), array.ndim))
    save(tmp_path / "a.safetensors", {name: array}, {name: name})
    loaded = load(tmp_path / "a.safetensors")
    assert_same_bits(loaded.arrays[name], array)
    assert loaded.metadata == {name: name}


def test_a_file_of_another_program_has_no_metadata(tmp_path):
    save_file({"w": np.ones((2, 3), np.float32)}, tmp_path / "theirs.safetensors", {"format": "pt"})
    loaded = load(tmp_path / "theirs.safetensors")
    assert loaded.metadata == {} and loaded.arrays["w"].sum() == 6


def test_what_cannot_be_stored_is_refused_before_writing(tmp_path):
    with pytest.raises(TypeError, match="received for 'a': object"):
        save(tmp_path / "a.safetensors", {"a": np.array([None])}, {})
    with pytest.raises(TypeError, match="received for 'a': list"):
        save(tmp_path / "a.safetensors", {"a": [1.0]}, {})  # type: ignore[dict-item]
    with pytest.raises(TypeError, match="JSON"):
        save(tmp_path / "a.safetensors", {}, {"model": object()})
    with pytest.raises(ValueError, match="store less"):
        save(tmp_path / "a.safetensors", {}, {"history": "x" * MAX_HEADER})
    with pytest.raises(ValueError, match=r"ends in .safetensors, .h5, .hdf5, received .*a\.pt"):
        save(tmp_path / "a.pt", {}, {})
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_keeps_the_old_checkpoint(tmp_path):
    path = tmp_path / "best.safetensors"
    save(path, {"a": np.ones(3)}, {"epoch": 1})
    script = (
        "import resource, sys, numpy; from minicnn.training.checkpoint import save\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try: save(sys.argv[1], {'a': numpy.ones(1000)}, {})\n"
        "except OSError as error: print(error)"
    )
    output = subprocess.run([sys.executable, "-c", script, path], capture_output=True, text=True, check=True).stdout
    assert output.startswith(f"cannot write {path}: ") and output.count("\n") == 1
    assert load(path).metadata == {"epoch": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["best.safetensors"]


def test_kills_while_saving_never_cost_a_checkpoint(tmp_path):
    """A hundred, and on a busy machine as many as it takes to hit some saves and miss some."""
    path = tmp_path / "last.safetensors"
    moments = random.Random(0)
    kills, newest, interrupted = 0, 0, 0
    save(path, {"a": np.full(50_000, 0.0), "b": np.full((7, 9), 0, np.float32)}, {"version": 0})
    while kills < 100 or newest <= 10 or interrupted <= 10:
        kills += 1
        child = os.fork()
        if child == 0:
            try:
                for version in range(newest + 1, newest + 100_000):
                    arrays = {"a": np.full(50_000, version, float), "b": np.full((7, 9), version, np.float32)}
                    save(path, arrays, {"version": version})
            finally:
                os._exit(1)
        time.sleep(moments.uniform(0.001, 0.02))
        os.kill(child, signal.SIGKILL)
        assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
        loaded = load(path)
        version = loaded.metadata["version"]
        assert version >= newest
        assert (loaded.arrays["a"] == version).all() and (loaded.arrays["b"] == version).all()
        newest = version
        for leftover in tmp_path.glob(".*.tmp"):
            interrupted += 1
            leftover.unlink()


class Sentinel:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".pkl", ".npz", ".npy", ".h5", ".safetensors", ".bin", ""])
@pytest.mark.parametrize("kind", ["pickle", "zip", "npy"])
def test_files_that_can_run_code_are_refused_unopened(tmp_path, suffix, kind):
    sentinel, path = tmp_path / "sentinel", tmp_path / f"weights{suffix}"
    payload = pickle.dumps({"w": Sentinel(str(sentinel))}, protocol=2)
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", payload)
    elif kind == "npy":
        with path.open("wb") as file:
            np.save(file, np.array([Sentinel(str(sentinel))], object), allow_pickle=True)
    else:
        path.write_bytes(payload)
    with pytest.raises(CheckpointError, match=r"\.safetensors") as error:
        load(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)
    assert not sentinel.exists()


DATA = bytes(16)
DAMAGED = {
    "empty file": b"",
    "shorter than a length": b"\x02\0\0",
    "header of 2^63 bytes": (2**63).to_bytes(8, "little") + b"{}",
    "header of 2^64 - 1 bytes": b"\xff" * 8 + b"{}",
    "header longer than the file": raw({"a": entry([4], 0, 16)}, DATA)[:30],
    "header over the bound": raw(b"{" + b" " * MAX_HEADER + b"}"),
    "header is a list": raw(b"[]"),
    "not JSON": raw(b"{'a': 1}"),
    "not UTF-8": raw(b'{"\xff": 1}'),
    "deep nesting": raw(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    "number of a million digits": raw(b'{"a":' + b"9" * 1_000_000 + b"}"),
    "a name twice": raw(
        b'{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]},'
        b'"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}',
        DATA,
    ),
    "a field twice": raw(b'{"a":{"dtype":"F32","shape":[4],"shape":[4],"data_offsets":[0,16]}}', DATA),
    "overlapping": raw({"a": entry([3], 0, 12), "b": entry([2], 8, 16)}, DATA),
    "the same bytes": raw({"a": entry([4], 0, 16), "b": entry([4], 0, 16)}, DATA),
    "gap": raw({"a": entry([1], 0, 4), "b": entry([1], 12, 16)}, DATA),
    "bytes left over": raw({"a": entry([3], 0, 12)}, DATA),
    "bytes missing": raw({"a": entry([8], 0, 32)}, DATA),
    "range backwards": raw({"a": entry([4], 16, 0)}, DATA),
    "negative range": raw({"a": entry([4], -16, 0)}, DATA),
    "range against shape": raw({"a": entry([5], 0, 16)}, DATA),
    "2^62 elements": raw({"a": entry([2**31, 2**31], 0, 16)}, DATA),
    "product of 2^64": raw({"a": entry([2**32, 2**32], 0, 0)}),
    "many huge dimensions": raw({"a": entry([2**62] * 50_000, 0, 16)}, DATA),
    "zero times huge beyond an index": raw({"a": entry([0, 2**70], 0, 0)}),
    "33 dimensions": raw({"a": entry([1] * 33, 0, 4)}, bytes(4)),
    "negative dimension": raw({"a": entry([-2, -2], 0, 16)}, DATA),
    "fraction as dimension": raw({"a": entry([4.0], 0, 16)}, DATA),
    "true as dimension": raw({"a": entry([True], 0, 4)}, bytes(4)),
    "unknown dtype": raw({"a": entry([4], 0, 16, "F13")}, DATA),
    "dtype NumPy lacks": raw({"a": entry([8], 0, 16, "BF16")}, DATA),
    "dtype is a list": raw({"a": entry([4], 0, 16, ["F32"])}, DATA),
    "field missing": raw({"a": {"dtype": "F32", "shape": [4]}}, DATA),
    "field too many": raw({"a": {**entry([4], 0, 16), "class": "os.system"}}, DATA),
    "metadata is no mapping": raw({"__metadata__": "x"}),
    "metadata is not text": raw({"__metadata__": {"minicnn": 3}}),
    "minicnn metadata is not JSON": raw({"__metadata__": {"minicnn": "{"}}),
    "no version": raw({"__metadata__": {"minicnn": "{}"}}),
    "version 0": raw({"__metadata__": {"minicnn": '{"format": 0, "metadata": {}}'}}),
    "version is true": raw({"__metadata__": {"minicnn": '{"format": true, "metadata": {}}'}}),
    "name of a megabyte": raw({"a" * 1_000_000: entry([4], 0, 8)}, DATA),
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED.keys())
def test_a_damaged_file_is_an_error_at_once(tmp_path, content):
    path = tmp_path / "w.safetensors"
    path.write_bytes(content)
    start = time.process_time()
    with pytest.raises(CheckpointError) as error:
        load(path)
    assert time.process_time() - start < 1
    assert str(path) in str(error.value) and "\n" not in str(error.value) and len(str(error.value)) < 600


def test_a_hostile_header_costs_little_memory(tmp_path):
    """All the damaged files, and a sparse one of 1 TB, within 256 MB beyond what the imports take."""
    with (tmp_path / "sparse.safetensors").open("wb") as file:
        file.write(raw({"a": entry([2**38 - 1], 0, 2**40 - 4)}))
        file.truncate(2**40)
    for name, content in DAMAGED.items():
        (tmp_path / f"{name.replace(' ', '-')}.safetensors").write_bytes(content)
    script = """if True:
        import pathlib, resource, sys, time
        from minicnn.training.checkpoint import CheckpointError, load
        used = int(pathlib.Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + 2**28, used + 2**28))
        for path in sorted(pathlib.Path(sys.argv[1]).iterdir()):
            try: load(path)
            except CheckpointError: continue
            sys.exit(f"loaded {path}")
    """
    if not Path("/proc/self/statm").exists():
        pytest.skip("the memory in use is read from /proc, which this system does not have")
    subprocess.run([sys.executable, "-c", script, tmp_path], check=True, timeout=600)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    position=st.integers(0, 10_000),
    change=st.one_of(st.binary(min_size=1, max_size=9), st.sampled_from([b"[[", b"9" * 40, b'"a":', b"-1", b"1e9"])),
    how=st.sampled_from(["overwrite", "insert", "cut"]),
)
def test_a_fuzzed_file_loads_or_is_a_checkpoint_error(tmp_path, position, change, how):
    path = tmp_path / "w.safetensors"
    save(path, {"a": np.ones((2, 3), np.float32), "b": np.arange(4)}, METADATA)
    content = path.read_bytes()
    position %= len(content)
    rest = {"overwrite": content[position + len(change) :], "insert": content[position:], "cut": b""}[how]
    path.write_bytes(content[:position] + (b"" if how == "cut" else change) + rest)
    try:
        loaded = load(path)
    except CheckpointError:
        return
    assert sum(array.nbytes for array in loaded.arrays.values()) < len(content) + 20


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    header=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["F32", "BOOL", ""]),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(
                st.sampled_from(["a", "dtype", "shape", "data_offsets", "__metadata__", "minicnn"]), inner
            )
        ),
        max_leaves=12,
    ),
    data=st.binary(max_size=16),
)
def test_any_json_as_header_loads_or_is_a_checkpoint_error(tmp_path, header, data):
    path = tmp_path / "w.safetensors"
    path.write_bytes(raw(header, data))
    try:
        load(path)
    except CheckpointError:
        return


def test_a_newer_format_is_refused_with_the_remedy(tmp_path):
    path = tmp_path / "w.safetensors"
    stored = json.dumps({"format": FORMAT + 1, "metadata": {}, "novelty": 1})
    save_file({"w": np.ones(2)}, path, {"minicnn": stored})
    with pytest.raises(CheckpointError, match=rf"format version {FORMAT + 1}.* up to {FORMAT}; update minicnn"):
        load(path)


def test_metadata_that_names_a_class_stays_plain_data(tmp_path):
    metadata = {"model": {"__class__": "subprocess.Popen", "args": ["touch", str(tmp_path / "x")]}, "py/object": "os"}
    save(tmp_path / "w.safetensors", {}, metadata)
    assert load(tmp_path / "w.safetensors").metadata == metadata
    assert not (tmp_path / "x").exists()


def test_missing_files_and_folders_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no weight file .*none.safetensors"):
        load(tmp_path / "none.safetensors")
    with pytest.raises(CheckpointError, match="is not a file"):
        load(tmp_path)
    pointer = tmp_path / "w.safetensors"
    pointer.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(CheckpointError, match="Git LFS pointer"):
        load(pointer)


def test_compare_keys_lists_every_difference():
    expected = {"conv.weight": (6, 3, 5, 5), "fc.weight": (10, 84), "fc.bias": (10,)}
    found = {"conv.weight": (6, 3, 5, 5), "fc.weight": (100, 84), "head.bias": ()}
    assert compare_keys(expected, found) == [
        "misshaped: fc.weight expected (10, 84), found (100, 84)",
        "missing: fc.bias (10,)",
        "extra: head.bias ()",
    ]
    assert compare_keys(expected, dict(reversed(expected.items()))) == []
