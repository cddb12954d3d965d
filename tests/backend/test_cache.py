"""The cache of compiled kernels: whatever is wrong with its files or its folder, kernels compile and work."""

import errno
import os
import subprocess
import sys
import warnings
from pathlib import Path

import numba
import numpy as np
import pytest

from minicnn.backend.cpu import cache, jit

TINY = """
import sys, numpy as np
from minicnn.backend.cpu import jit
compiled = []
jit.event.register("numba:compile", type("Seen", (jit.event.Listener,), {
    "on_start": lambda self, event: compiled.append(event), "on_end": lambda self, event: None})())
exec(compile(open(sys.argv[1]).read(), sys.argv[1], "exec"))
a = np.arange(4.0)
double(a), triple(a)
print(a.tolist(), bool(compiled))
"""
FUNCTIONS = """
@jit.jit()
def double(a):
    for i in range(a.size):
        a[i] *= 2

@jit.jit()
def triple(a):
    for i in range(a.size):
        a[i] *= 3
"""


def double(a):
    for i in range(a.size):
        a[i] *= 2


def triple(a):
    for i in range(a.size):
        a[i] *= 3


@pytest.fixture
def folder(monkeypatch, tmp_path):
    """An empty folder for the cache, and nothing said yet."""
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(cache, "_warned", False)
    return tmp_path


def doubled(function=double):
    """Whether a function does its work in what could be a new process; and whether it was compiled for that."""
    kernel, numbers = jit.jit()(function), np.arange(4.0)
    kernel(numbers)
    assert numbers.tolist() == [0, 2, 4, 6] if function is double else [0, 3, 6, 9]
    return not kernel.stats.cache_hits


def kept(folder):
    (path,) = folder.rglob("double-*")
    return path


def test_a_kernel_is_compiled_once_and_loaded_from_then_on(folder):
    assert doubled() and kept(folder).suffix == ".nbc"
    assert not doubled()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda b: b"",
        lambda b: bytes(len(b)),
        lambda b: b[:10],
        lambda b: b[:-1],
        lambda b: np.random.default_rng(0).bytes(len(b)),
        lambda b: (
            b"\x80\x04\x95\x10\0\0\0\0\0\0\0\x8c\x060.60.0\x94."
        ),  # how Numba's own index of another version begins
        lambda b: b[:64] + b"\n" + b[70:],
        lambda b: b[:-500] + bytes([b[-500] ^ 1]) + b[-499:],
    ],
    ids=["empty", "zeros", "head", "cut", "random", "numba", "moved", "one bit"],
)
def test_a_damaged_file_is_compiled_again(folder, spoil):
    doubled()
    path = kept(folder)
    path.write_bytes(spoil(path.read_bytes()))
    assert doubled() and not doubled()


def test_a_file_that_cannot_be_read_is_compiled_again(folder):
    doubled()
    path = kept(folder)
    path.unlink()
    path.mkdir()
    with pytest.warns(UserWarning, match="compiled anew"):
        assert doubled()


@pytest.mark.parametrize("name", ["SOURCES", "version"])
def test_other_sources_and_versions_compile_again(folder, monkeypatch, name):
    doubled()
    if name == "SOURCES":
        monkeypatch.setattr(cache, "SOURCES", (*cache.SOURCES, ("another.py", 1)))
    else:
        monkeypatch.setattr(numba, "__version__", "0.99")
    assert doubled() and not doubled()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES])
@pytest.mark.parametrize("call", ["write_bytes", "replace"])
def test_a_full_disk_is_one_warning_that_names_the_file(folder, monkeypatch, number, call):
    def full(path, *_):
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(Path, call, full)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert doubled() and doubled(triple)
    (warning,) = said
    text = str(warning.message)
    assert str(folder) in text and os.strerror(number) in text and "NUMBA_CACHE_DIR" in text
    assert not list(folder.rglob("*.nbc")) and not [p for p in folder.rglob("*") if p.is_file()]  # nor a draft


def nothing_can_be_written(monkeypatch):
    def refused(*_, **__):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(cache.tempfile, "TemporaryFile", refused)
    cache._folder.cache_clear()


def test_where_no_folder_takes_files_there_is_one_warning(folder, monkeypatch):
    nothing_can_be_written(monkeypatch)
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            assert doubled() and doubled(triple) and doubled()
        (warning,) = said
        assert "compiled anew in every process: cannot write into" in str(warning.message)
        assert str(folder) in str(warning.message) and "__pycache__" in str(warning.message)
    finally:
        cache._folder.cache_clear()


def test_a_user_without_a_home_gets_no_folder_named_tilde(folder, monkeypatch, tmp_path):
    class Unknown:
        def __init__(self, *_, **__):
            self.user_cache_dir = "~/.cache/numba"  # what expanduser leaves of it

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cache, "AppDirs", Unknown)
    nothing_can_be_written(monkeypatch)
    try:
        with pytest.warns(UserWarning, match="cannot write into"):
            assert cache._folder("") is None
        assert not Path("~").exists()
    finally:
        cache._folder.cache_clear()


def test_a_tilde_in_the_name_of_the_folder_is_the_home(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setattr(numba.config, "CACHE_DIR", "~/kernels")
    doubled()
    assert kept(folder / "kernels")


def start(tmp_path, **environment):
    functions = tmp_path / "functions.py"
    functions.write_text(FUNCTIONS)
    return subprocess.Popen(
        [sys.executable, "-c", TINY, str(functions)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / "cache")} | environment,
    )  # fmt: skip


def test_processes_that_compile_at_once_all_succeed(tmp_path):
    for process in [start(tmp_path) for _ in range(3)]:
        out, err = process.communicate(timeout=600)
        assert out.startswith("[0.0, 6.0, 12.0, 18.0]"), err
    assert {path.suffix for path in (tmp_path / "cache").rglob("*") if path.is_file()} == {".nbc"}
    assert start(tmp_path).communicate(timeout=600)[0] == "[0.0, 6.0, 12.0, 18.0] False\n"


def test_kernels_compile_although_numba_is_told_not_to(tmp_path):
    process = start(tmp_path, NUMBA_DISABLE_JIT="1")
    out, err = process.communicate(timeout=600)
    assert out == "[0.0, 6.0, 12.0, 18.0] True\n"
    assert "NUMBA_DISABLE_JIT is ignored" in err and "Traceback" not in err


SUMS = """
from hashlib import sha256
import numpy as np
from minicnn import backend
k, rng = backend.get("numpy").kernels, np.random.default_rng(0)
gy, x = (rng.standard_normal((9, 5, 37, 41)).astype("float32") for _ in range(2))
mean, var = k.batch_norm_statistics(x)
rows = x[:, 0, 0]
y, centre, scale = k.layer_norm(rows, 1, None, None, 1e-5)
found = [mean, var, *k.batch_norm_grad(gy, x, mean, 1 / np.sqrt(var), None, True), k.conv2d_grad_bias(gy)]
found += [y, centre, scale, *k.layer_norm_grad(gy[:, 0, 0], rows, 1, centre, scale, None)]
found += [k.softmax(rows, -1), k.softmax_grad(gy[:, 0, 0], y, -1)]
print(*(sha256(array.tobytes()).hexdigest()[:8] for array in found))
"""


def test_the_process_that_compiles_has_the_bits_of_those_that_load(tmp_path):
    """Kernels whose sums the compiler may put into another order."""
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    runs = [subprocess.run([sys.executable, "-c", SUMS], env=environment, capture_output=True, text=True) for _ in "ab"]
    assert [run.returncode for run in runs] == [0, 0], runs
    assert "compiling" in runs[0].stderr and runs[1].stderr == ""
    assert runs[0].stdout == runs[1].stdout
