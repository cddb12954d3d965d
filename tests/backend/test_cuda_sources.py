"""What can be shown of the CUDA backend without a GPU: its sources compile, and what is missing is said in one line."""

import importlib.util
import re
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from minicnn import backend
from minicnn.backend.cuda import launch

FOLDER = Path(launch.__file__).parent
INSTALL = 'pip install -e ".[cuda13]" (".[cuda12]" for a driver of CUDA 12), or use --backend numpy'


@pytest.mark.skipif(not shutil.which("nvcc"), reason="nvcc, of the CUDA toolkit, is not installed")
@pytest.mark.parametrize("index", [np.int32, np.int64])
@pytest.mark.parametrize("kind", [np.float32, np.float64, np.uint16, np.uint32])
def test_sources_compile_for_ampere_and_hopper(tmp_path, kind, index):
    """Without warnings; what all threads of two blocks need fits into the registers of a multiprocessor."""
    unit = tmp_path / "kernels.cu"
    unit.write_text(launch.source(kind, index), encoding="utf-8")
    targets = [f"-gencode=arch=compute_{arch},code=sm_{arch}" for arch in (80, 90)]
    command = ["nvcc", "-fatbin", "--std=c++17", "--fmad=false", "-Werror=all-warnings", "--resource-usage", *targets]
    command += [str(unit), "-o", str(tmp_path / "kernels.fatbin")]
    result = subprocess.run(command, capture_output=True, text=True)
    report = result.stdout + result.stderr
    assert result.returncode == 0, report
    if index is np.int32 and kind is not np.float64:
        registers, spilled = (list(map(int, re.findall(p, report))) for p in (r"(\d+) registers", r"(\d+) bytes spill"))
        assert registers and max(registers) <= 2**16 // (2 * launch.BLOCK) and spilled and not any(spilled), report


def test_every_source_is_compiled_and_every_kernel_is_used():
    wrappers, files = (
        "".join(path.read_text(encoding="utf-8") for path in FOLDER.glob("*.py")),
        set(FOLDER.glob("*.cu*")),
    )
    for kind, count in ((np.float32, 20), (np.uint16, 7)):
        unit = launch.source(kind, np.int32)
        files -= {path for path in files if path.read_text(encoding="utf-8") in unit}
        kernels = re.findall(r"^KERNEL (\w+)", unit, re.MULTILINE)
        assert unit.index("#define KERNEL") < unit.index(f"KERNEL {kernels[-1]}(")
        assert len(kernels) == len(set(kernels)) > count
        assert [name for name in kernels if f'"{name}"' not in wrappers] == []
    assert not files


def test_stand_in_has_only_what_cupy_has():
    """The CPU tests run on a stand-in for CuPy: with CuPy at hand, compare them (that needs no GPU)."""
    cupy = pytest.importorskip("cupy")
    spec = importlib.util.spec_from_file_location("fake_cupy", Path(__file__).with_name("fake_cupy.py"))
    fake = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fake)
    functions = [*fake.FUNCTIONS, *fake.CONSTANTS, "add", "asarray", "empty", "lib", "cuda", "ndarray"]
    functions += ["RawModule", "ElementwiseKernel"]
    assert [name for name in functions if not hasattr(cupy, name)] == []
    members = [*fake.METHODS, *fake.ATTRIBUTES, *(f"__{name}__" for name in fake.OPERATORS)]
    members += [name for name in vars(fake.ndarray) if name not in ("_array", "__slots__")]
    assert [name for name in members if not hasattr(cupy.ndarray, name)] == []
    assert hasattr(cupy.add, "at") and hasattr(cupy.lib.stride_tricks, "as_strided")
    assert cupy.ndarray.__module__.partition(".")[0] == fake.ndarray.__module__ == "cupy"


class CUDARuntimeError(RuntimeError):
    """As CuPy's."""


def fake(devices=1, error=None, driver=13000, nvrtc=None):
    """As much of CuPy as the check of the device asks for."""

    def count():
        if error:
            raise CUDARuntimeError(error)
        return devices

    def version():
        if nvrtc:
            raise nvrtc
        return 13, 0

    runtime = SimpleNamespace(
        CUDARuntimeError=CUDARuntimeError,
        getDeviceCount=count,
        driverGetVersion=lambda: driver,
        runtimeGetVersion=lambda: 13020,
    )
    return SimpleNamespace(
        cuda=SimpleNamespace(runtime=runtime, nvrtc=SimpleNamespace(getVersion=version), cublas=None)
    )


OLD = "cudaErrorInsufficientDriver: CUDA driver version is insufficient for CUDA runtime version"
NONE = "cudaErrorNoDevice: no CUDA-capable device is detected"
LOOK = "check nvidia-smi and CUDA_VISIBLE_DEVICES, or use --backend numpy"
RULED = ImportError("\n=====\nlibcuda.so.1: cannot open shared object file\n=====\n")


@pytest.mark.parametrize(
    ("cupy", "import_error", "message"),
    [
        (None, ModuleNotFoundError("No module named 'cupy'", name="cupy"), f"CuPy is not installed; {INSTALL}"),
        (None, RULED, f"CuPy does not import: libcuda.so.1: cannot open shared object file; {INSTALL}"),
        (fake(error=OLD, driver=0), None,
         "CuPy found no NVIDIA driver; install one for CUDA 13.2 or newer, or use --backend numpy"),
        (fake(error=OLD, driver=12040), None,
         f"the driver is for CUDA 12.4, CuPy for 13.2: {OLD}; update the driver, or {INSTALL}"),
        (fake(error=NONE), None, f"CuPy found no CUDA device; {LOOK}"),
        (fake(devices=0), None, f"CuPy found no CUDA device; {LOOK}"),
        (fake(nvrtc=RuntimeError('Failure finding "libnvrtc.so.13"\n  listdir("/usr")')), None,
         f'CuPy lacks a library of CUDA: Failure finding "libnvrtc.so.13"; {INSTALL}'),
    ],
)  # fmt: skip
def test_what_is_missing_is_said_in_one_line(monkeypatch, cupy, import_error, message):
    monkeypatch.setattr(launch, "cupy", cupy)
    monkeypatch.setattr(launch, "_import_error", import_error)
    monkeypatch.delitem(backend._loaded, "cupy", raising=False)
    with pytest.raises(backend.BackendUnavailable) as caught:
        backend.get("cupy")
    assert str(caught.value) == f"cupy: {message}"
    assert backend.get("auto").name == "numpy"


def test_device_at_hand(monkeypatch):
    cupy = fake()
    monkeypatch.setattr(launch, "cupy", cupy)
    assert launch.require_device() is cupy
