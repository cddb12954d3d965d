"""Functions kept as object files: they do what was compiled, and are compiled again when they must be."""

import ctypes
import functools
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np
import pytest
from numba import carray

from minicnn.backend.cpu import cache, machine, objects

ADDRESS = machine._floats  # an address as a pointer to float32


def double(numbers, count):
    numbers = carray(ADDRESS(numbers), count)
    for i in range(count):
        numbers[i] *= 2


@pytest.fixture
def compilations(monkeypatch, tmp_path):
    """The functions that are compiled; with an empty folder for the cache."""
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    seen, compiled = [], objects._compiled
    monkeypatch.setattr(objects, "_compiled", lambda *a: seen.append(a) or compiled(*a))
    for name in ("_loaded", "_engine"):  # those of plans made before this test stay as they are
        monkeypatch.setattr(objects, name, functools.cache(getattr(objects, name).__wrapped__))
    return seen


def doubled():
    objects._loaded.cache_clear()  # as a new process would
    objects._engine.cache_clear()
    numbers = np.arange(1000, dtype=np.float32)
    objects.c_function(double)(numbers.ctypes.data, numbers.size)
    return numbers.tolist() == list(range(0, 2000, 2))


def kept(folder):
    (path,) = folder.rglob("double-*")
    return path


def test_a_function_is_compiled_once_and_loaded_from_then_on(compilations, tmp_path):
    assert doubled()
    assert len(compilations) == 1 and kept(tmp_path).suffix == ".o"
    assert doubled() and len(compilations) == 1


def test_threads_load_a_function_once(compilations):
    objects._loaded.cache_clear()
    objects._engine.cache_clear()
    with ThreadPoolExecutor(4) as pool:
        loaded = list(pool.map(lambda _: objects.c_function(double), range(4)))
    assert len(set(map(id, loaded))) == len(compilations) == 1


@pytest.mark.parametrize(
    "spoil", [lambda b: b"", lambda b: b"{}\n", lambda b: b[:-1], lambda b: b[:-9] + bytes([b[-9] ^ 1]) + b[-8:]]
)
def test_a_damaged_file_is_compiled_again(compilations, tmp_path, spoil):
    assert doubled()
    path = kept(tmp_path)
    path.write_bytes(spoil(path.read_bytes()))
    assert doubled() and doubled() and len(compilations) == 2


def test_a_change_of_the_sources_compiles_again(compilations, monkeypatch):
    assert doubled()
    monkeypatch.setattr(cache, "SOURCES", (*cache.SOURCES, ("another.py", 1)))
    assert doubled() and len(compilations) == 2


def test_a_folder_that_takes_no_files_warns_and_works(compilations, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setattr(objects, "place", lambda *_: tmp_path / "file" / "double.o")
    monkeypatch.setattr(cache, "_warned", False)
    with pytest.warns(UserWarning, match="compiled anew in every process.*NUMBA_CACHE_DIR"):
        assert doubled()


def test_what_numba_does_not_have_is_named_instead_of_called(compilations, monkeypatch):
    compiled = objects._compiled

    def wanting(*arguments):
        line, _, code = compiled(*arguments).partition(b"\n")
        header = json.loads(line)
        header["calls"].append("numba_of_tomorrow")
        return json.dumps(header).encode() + b"\n" + code

    monkeypatch.setattr(objects, "_compiled", wanting)
    with pytest.raises(RuntimeError, match=r"double: Numba .* does not have numba_of_tomorrow"):
        doubled()


def test_code_with_addresses_of_this_process_is_not_kept(compilations, tmp_path):
    library = ctypes.CDLL(None)
    library.abs.argtypes, library.abs.restype = [ctypes.c_int], ctypes.c_int
    absolute = library.abs

    def calls(number):
        absolute(number)

    with pytest.raises(RuntimeError, match="calls: its code contains addresses of this process"):
        objects.c_function(calls)
    assert not list(tmp_path.rglob("calls-*"))


def test_a_plan_from_the_cache_runs_without_the_compiler():
    """LeNet's training step needs none of what Numba loads to compile: neither its BLAS nor its types."""
    program = """
import sys, numpy as np, minicnn, minicnn.functional as F
from minicnn import Tensor, optim
model = minicnn.models.create("lenet")
optimizer = optim.SGD(model.parameters(), 0.01, momentum=0.9)
def step(images, labels):
    loss = F.cross_entropy(model(images), labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss
step = minicnn.compile(step)
loss = [step(Tensor(np.ones((8, 3, 32, 32), np.float32)), np.arange(8)).item() for _ in range(2)]
print(loss[1] < loss[0], sorted({"scipy.linalg", "numba.np.linalg", "numba.np.arraymath"} & set(sys.modules)))
"""
    run = [sys.executable, "-c", program]
    subprocess.run(run, check=True, capture_output=True)  # compiles what is not there yet
    assert subprocess.run(run, check=True, capture_output=True, text=True).stdout == "True []\n"
