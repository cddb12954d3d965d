"""The CUDA kernels and the reference kernels on a strict stand-in for CuPy, both against the reference on NumPy arrays.

The CUDA C runs on the CPU; see fake_cupy.py. tests/gpu runs the same cases on a GPU.
"""

import importlib
import importlib.util
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import special

import minicnn
import minicnn.functional as F
from minicnn import backend
from minicnn.backend.reference import Kernels as reference
from minicnn.compile.record import record
from shared.contract import CASES, LAYOUTS, NAMES, PRODUCTS, ROUNDINGS, check, check_rounded, prepare

STAND_IN = Path(__file__).with_name("fake_cupy.py")
IN_TURN = list(LAYOUTS)
ORDERS = [0, -1, 1, 2, 3]  # of threads, warps and blocks: ascending, descending, and at random from these seeds
needs_compiler = pytest.mark.skipif(not shutil.which("g++"), reason="g++ compiles the kernels for the CPU; not found")


@pytest.fixture(scope="module")
def cupy():
    spec = importlib.util.spec_from_file_location("cupy", STAND_IN)
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "cupy", module)
        spec.loader.exec_module(module)
        patch.setitem(sys.modules, "cupyx.scipy.special", SimpleNamespace(erfc=module.strict(special.erfc)))
        yield module


@pytest.fixture(scope="module")
def cuda(cupy):
    """The kernels of minicnn.backend.cuda, imported anew over the stand-in."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in sys.modules if name.startswith("minicnn.backend.cuda")]:
            patch.delitem(sys.modules, name)
        yield importlib.import_module("minicnn.backend.cuda").Kernels
        for name in [name for name in sys.modules if name.startswith("minicnn.backend.cuda")]:
            del sys.modules[name]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_reference_runs_on_a_second_array_library(cupy, dtype):
    for name in NAMES:
        check(reference, name, dtype, 1e-6 if dtype is np.float32 else 1e-14, IN_TURN, cupy)


def test_layouts_are_those_of_the_host(cupy):
    case = CASES["relu_grad"][-1]  # with an array of which one number is in memory
    for layout in LAYOUTS:
        there, here = (prepare("relu_grad", case, np.float32, layout, xp) for xp in (cupy, np))
        assert [a.strides for a in there] == [a.strides for a in here], layout
        assert there[0].strides == (0, 0) and there[1].flags.c_contiguous == (layout == "contiguous"), layout


@needs_compiler
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_cuda_agrees_with_reference(cupy, cuda, monkeypatch, dtype, order):
    monkeypatch.setattr(cupy, "order", order)
    first = ORDERS.index(order) % len(IN_TURN)
    for name in NAMES:
        layouts = IN_TURN[first:] + IN_TURN[:first]
        check(cuda, name, dtype, 3e-5 if dtype is np.float32 else 1e-12, layouts, cupy)


@needs_compiler
def test_cuda_with_wide_indices(cupy, cuda, monkeypatch):
    monkeypatch.setattr(sys.modules["minicnn.backend.cuda.launch"], "_WIDE", 1)
    for name in NAMES:
        check(cuda, name, np.float32, 3e-5, xp=cupy)


@needs_compiler
def test_products_of_whole_numbers(cupy, cuda):
    a, b = np.arange(6).reshape(2, 3), np.arange(12).reshape(3, 4)
    found = cuda.matmul(cupy.asarray(a), cupy.asarray(b))
    np.testing.assert_array_equal(backend.to_numpy(found), a @ b)


@needs_compiler
def test_masks_winners_and_exact_sums_bit_for_bit(cupy, cuda):
    names = ("dropout", "max_pool2d", "max_pool2d_grad", "relu_grad", "getitem_grad", "sgd_step")
    for name in (*names, "crop_images", "gather_images", "warp_images"):
        check(cuda, name, np.float32, 0, IN_TURN, cupy)


@needs_compiler
def test_network_trains_as_on_the_reference(cupy, cuda, monkeypatch):
    """Three steps of a small network through tape, layers and optimizer."""
    monkeypatch.setitem(backend._loaded, "cupy", backend.Backend("cupy", cupy, cuda))
    losses = {}
    for name in ("reference", "cupy"):
        with backend.use(name):
            minicnn.manual_seed(3)
            rng = np.random.default_rng(0)
            images = minicnn.tensor(rng.standard_normal((4, 2, 9, 8)).astype(np.float32))
            labels = backend.default().asarray(rng.integers(0, 3, 4))
            model = minicnn.nn.Sequential(
                minicnn.nn.Conv2d(2, 5, 3, padding=1), minicnn.nn.BatchNorm2d(5), minicnn.nn.GELU(),
                minicnn.nn.MaxPool2d(2), minicnn.nn.Dropout(0.3), minicnn.nn.Flatten(), minicnn.nn.Linear(80, 3),
            )  # fmt: skip
            optimizer = minicnn.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-3)
            losses[name] = []
            for _ in range(3):
                loss = F.cross_entropy(model(images), labels, label_smoothing=0.1)
                optimizer.zero_grad()
                loss.backward()
                minicnn.optim.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                losses[name].append(loss.item())
            assert type(model[0].weight.data) is backend.default().xp.ndarray
    assert losses["cupy"] == pytest.approx(losses["reference"], rel=1e-5)
    assert losses["cupy"][2] < losses["cupy"][0]


@needs_compiler
def test_a_step_is_recorded_as_on_the_cpu(cupy, cuda, monkeypatch):
    """The list of kernel calls is all that a CUDA graph would need: the same on both, and nothing has been changed."""
    monkeypatch.setitem(backend._loaded, "cupy", backend.Backend("cupy", cupy, cuda))
    calls = {}
    for name in ("numpy", "cupy"):
        with backend.use(name):
            model = minicnn.models.create("lenet")
            optimizer = minicnn.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

            def step(images, labels, model=model, optimizer=optimizer):
                loss = F.cross_entropy(model(images), labels)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                return loss

            weight = backend.to_numpy(model.conv1.weight.data).copy()
            inputs = [np.ones((2, 3, 32, 32), np.float32), np.zeros(2, np.int64)]
            program = record(step, [backend.default().asarray(a) for a in inputs])
            calls[name] = [(call.kernel, [v.shape for v in call.reads()]) for call in program.calls]
            np.testing.assert_array_equal(backend.to_numpy(model.conv1.weight.data), weight)
    assert calls["cupy"] == calls["numpy"]
    assert [kernel for kernel, _ in calls["cupy"]].count("sgd_step") == 10


@needs_compiler
@pytest.mark.parametrize("order", [0, -1, 1])
@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_products_of_rounded_operands(cupy, cuda, monkeypatch, rounding, order):
    monkeypatch.setattr(cupy, "order", order)
    for name in PRODUCTS:
        check_rounded(cuda, name, rounding, 1e-5, cupy)


def test_a_gpu_without_tensor_cores(cupy, cuda, monkeypatch):
    launch = sys.modules["minicnn.backend.cuda.launch"]
    monkeypatch.setattr(cupy.cuda, "Device", lambda: SimpleNamespace(compute_capability="75"))
    launch.require_tensor_cores.cache_clear()
    launch.require_precision("float32")
    for call in (lambda: launch.require_precision("tf32"), lambda: cuda.bfloat16(cupy.zeros((2, 3), "float32"))):
        with pytest.raises(
            RuntimeError, match="bf16 and tf32: expected a GPU of compute capability 8.0 or newer, .* 7.5"
        ):
            call()
    launch.require_tensor_cores.cache_clear()


def test_places_out_of_range(cupy, cuda):
    """CuPy takes them modulo the length; here they are errors, with NumPy's words."""
    array, a = np.arange(60.0).reshape(3, 4, 5), cupy.asarray(np.arange(60.0).reshape(3, 4, 5))
    every = slice(None)
    for index in [
        [3], np.array([0, -4]), (every, np.array([[0], [4]])), (..., np.array([5])), (0, ..., np.array([-6])),
        (None, np.array([2]), None, np.array([9])), (np.array([True, False, True]), np.array([4])),
        (np.ones((3, 4), bool), np.array([5])), np.array([300], np.uint16), (np.array([0, 1]), every, [0, 5]),
    ]:  # fmt: skip
        there = index if isinstance(index, list) else cupy_index(cupy, index)
        with pytest.raises(IndexError, match="out of bounds for axis") as expected:
            array[index]
        for use in (lambda: cuda.getitem(a, there), lambda: cuda.setitem(a, there, 1.0)):  # noqa: B023
            with pytest.raises(IndexError) as found:
                use()
            assert str(found.value) == str(expected.value)
    for index in [np.array([0.0]), (0, np.array([1.5])), 1.0, "a", ["a"]]:
        with pytest.raises(IndexError, match="arrays used as indices must be of integer or boolean type, received"):
            cuda.getitem(a, cupy_index(cupy, index))
    with pytest.raises(IndexError, match="too many indices"):
        cuda.getitem(a, (0, 0, ..., 0, [9]))
    for index in [np.array([], np.int64), [], (np.array([-3, 2]), ..., np.array([4, -5])), (None, [1], -1)]:
        found = cuda.getitem(a, cupy_index(cupy, index))
        np.testing.assert_array_equal(found.get(), array[index])


def cupy_index(cupy, index):
    """The index with CuPy's arrays for those of NumPy."""
    if isinstance(index, tuple):
        return tuple(cupy_index(cupy, part) for part in index)
    return cupy.asarray(index) if isinstance(index, np.ndarray) else index


@pytest.mark.parametrize("index", [np.arange(1, 6), np.arange(6) > 0, (np.arange(1, 6), None), slice(1, None)], ids=str)
def test_what_is_written_is_read_before(cupy, cuda, monkeypatch, index):
    """On a GPU places are written while the values for others are read: here one after the other."""

    def in_turn(a, where, value):
        places, values = np.arange(6)[cpu_index(where)].ravel(), value._array
        for i, place in enumerate(places):
            a._array[place] = values.ravel()[i]

    a = cupy.asarray(np.arange(6.0))
    value = a[:-1] if not isinstance(index, tuple) else a[:-1][:, None]
    if not isinstance(index, slice):
        monkeypatch.setattr(cupy.ndarray, "__setitem__", in_turn)
    cuda.setitem(a, cupy_index(cupy, index), value)
    np.testing.assert_array_equal(a.get(), [0, 0, 1, 2, 3, 4])


def cpu_index(index):
    """The index with NumPy's arrays for those of CuPy."""
    if isinstance(index, tuple):
        return tuple(map(cpu_index, index))
    return index.get() if hasattr(index, "get") else index


def test_what_is_written_into_a_tensor_becomes_an_array_of_its_backend(cupy, cuda, monkeypatch):
    monkeypatch.setitem(backend._loaded, "cupy", backend.Backend("cupy", cupy, cuda))
    with backend.use("cupy"):
        x = minicnn.tensor(np.zeros((2, 3), np.float32))
        x[0] = np.arange(3)
        x[1] = [3, 4, 5]
        np.testing.assert_array_equal(x.numpy(), [[0, 1, 2], [3, 4, 5]])
        whole = minicnn.tensor(np.zeros(2, np.uint8))
        for wrong in ([300, 1], [-1, 1]):
            with pytest.raises(OverflowError):
                whole[:] = wrong
        x.copy_(np.ones(3))
        x[:, 1] = minicnn.tensor(7.0)
        x[minicnn.tensor([0, 1]), 2] = 0.5
        np.testing.assert_array_equal(x.numpy(), [[1, 7, 0.5]] * 2)
        y = x.numpy()
    with backend.use("numpy"):
        here = minicnn.tensor(np.zeros((2, 3), np.float32))
    here.copy_(x)
    here[0] = x[1]
    np.testing.assert_array_equal(here.numpy(), y)


def test_a_plan_of_arrays_of_two_backends(cupy, cuda, monkeypatch):
    monkeypatch.setitem(backend._loaded, "cupy", backend.Backend("cupy", cupy, cuda))
    weight = minicnn.Tensor(cupy.asarray(np.ones(3, np.float32)))
    x = minicnn.Tensor(np.ones(3, np.float32))
    with pytest.raises(TypeError, match="compile: expected all arrays in numpy, as the first input's, received cupy"):
        minicnn.compile(lambda x: x * 2 + weight.sum())(x)
    found = minicnn.compile(lambda x: x * weight.detach().shape[0])(x)  # no kernel sees it
    np.testing.assert_array_equal(found.numpy(), [3, 3, 3])
