"""Workers that take turns, and what all benchmarks share: options, hardware, versions, the file of results.

Every contender lives in a process of its own (``worker.py``) with its own thread pools. The processes stay alive and
answer one request at a time over pipes, so that while one is timed the others are blocked in a read. A round is one
turn of every contender; the ratio of two contenders is taken within a round, where the machine was in the same state,
and the median over the rounds is reported.
"""

import argparse
import importlib.util
import json
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn

import numpy as np

from cases import CASES
from minicnn.files import atomic_write, check_writable

_PACKAGES = (
    "minicnn", "numpy", "numba", "llvmlite", "torch", "onnx", "onnxruntime", "openvino", "keras", "tensorflow",
    "tensorflow-cpu", "cupy-cuda12x", "cupy-cuda13x",
)  # fmt: skip
CHECKOUT = Path(__file__).resolve().parents[1]
_THREAD_POOLS = ("OMP", "MKL", "OPENBLAS", "NUMBA")
_BOUNDS = {
    "float32": 1e-3,
    # A number keeps 8 bits: rounding it moves it by up to 2^-8 of itself. A layer rounds its weights, its input and its
    # result. The 60 roundings of 20 layers, where independent, make sqrt(60) 2^-8 / sqrt(3) = 1.7%; almost twice that.
    "bfloat16": 0.03,
    "tf32": 0.004,  # the same with 11 bits
}
"""By the precision of a contender, how far its logits may be from those in float32, relative to the largest."""


@dataclass(frozen=True)
class Contender:
    """Something that does the cases.

    Attributes:
        label: what readers call it.
        module: ``module.build`` does its cases.
        packages: what it imports, the framework itself first.
        remedy: how to install it.
        options: further options of ``module.build``.
        models: the models that it has; empty: all.
        trains: whether it does more than to predict.
        backends: where it runs.
        onnx: whether ``module.build`` takes the name of the file that ``onnx_file`` writes, as its option ``onnx``.
    """

    label: str
    module: str
    packages: tuple[str, ...]
    remedy: str
    options: dict[str, Any] = field(default_factory=dict)
    models: tuple[str, ...] = ()
    trains: bool = True
    backends: tuple[str, ...] = ("numpy",)
    onnx: bool = False

    def start(self, threads: int, **options: Any) -> "Worker":
        """Start a process with the case of these options."""
        return Worker(self.module, threads, **self.options, **options)

    def is_installed(self) -> bool:
        """Whether all that it imports is there."""
        return all(importlib.util.find_spec(package) for package in self.packages)

    def obstacle(self, case: str, backend: str) -> str | None:
        """Why it cannot do this case, in a line, or None."""
        if backend not in self.backends:
            return f"{self.label}: expected --backend {' or '.join(self.backends)}, received {backend}"
        if CASES[case].train and not self.trains:
            return f"{self.label}: expected a case of inference, received {case}"
        if self.models and CASES[case].model not in self.models:
            return f"{self.label}: expected a case of {' or '.join(self.models)}, received {case}"
        return None


_EVERYWHERE = ("numpy", "cupy")
_TORCH: tuple[str, tuple[str, ...], str] = ("cases_torch", ("torch",), 'pip install -e ".[bench]"')
_EXPORT = ("torch", "onnx", "onnxscript")
_MINICNN: tuple[str, tuple[str, ...], str] = ("cases_minicnn", ("minicnn",), "pip install -e .")
OWN = {
    "minicnn": Contender("minicnn", *_MINICNN, backends=_EVERYWHERE),
    "minicnn-bf16": Contender("minicnn bfloat16", *_MINICNN, {"precision": "bf16"}, backends=_EVERYWHERE),
    "minicnn-tf32": Contender("minicnn TF32", *_MINICNN, {"precision": "tf32"}, backends=("cupy",)),
}
"""minicnn's contenders; the logits of the first, in float32, are the measure of all others."""
PEERS = {
    "torch": Contender("PyTorch", *_TORCH, backends=_EVERYWHERE),
    "torch-channels-last": Contender(
        "PyTorch channels-last", *_TORCH, {"channels_last": True}, backends=_EVERYWHERE
    ),
    "torch-bf16": Contender(
        "PyTorch bfloat16", *_TORCH, {"channels_last": True, "bfloat16": True}, backends=_EVERYWHERE
    ),
    "torch-cudagraph": Contender("PyTorch CUDA graph", *_TORCH, {"graph": True}, backends=("cupy",)),
    "torch-compile": Contender("PyTorch max-autotune", *_TORCH, {"compiled": True}, backends=("cupy",)),
    "onnxruntime": Contender(
        "ONNX Runtime", "cases_onnxruntime", ("onnxruntime", *_EXPORT), 'pip install -e ".[onnxruntime]"',
        trains=False, onnx=True,
    ),
    "openvino": Contender(
        "OpenVINO", "cases_openvino", ("openvino", *_EXPORT), 'pip install -e ".[openvino]"', trains=False, onnx=True
    ),
    "keras": Contender(
        "Keras", "cases_keras", ("tensorflow", "keras"), "pip install tensorflow", models=("lenet", "vgg")
    ),
}  # fmt: skip
CONTENDERS = OWN | PEERS


class Worker:
    """A process that builds the tasks of ``module`` with ``options``, warms them up, and times them on request.

    ``ready`` is its first answer. If the process ends before it answers, it has said why on stderr, and SystemExit
    passes its exit code on. ``checkout``: the folder of the project whose code it runs.
    """

    def __init__(self, module: str, threads: int, checkout: Path = CHECKOUT, **options: Any) -> None:
        # a user's wait policy could let idle threads spin through the turns of the others
        environment = {k: v for k, v in os.environ.items() if k not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
        environment |= {f"{pool}_NUM_THREADS": str(threads) for pool in _THREAD_POOLS}
        environment["PYTHONPATH"] = os.pathsep.join([str(checkout), *filter(None, [os.environ.get("PYTHONPATH")])])
        self._started = time.monotonic()
        self._process = subprocess.Popen(
            [sys.executable, str(checkout / "benchmarks" / "worker.py"), module, json.dumps(options)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
        )
        try:
            self.ready = self._answer()
        except BaseException:  # Ctrl-C while it starts
            self._process.kill()
            raise

    def milliseconds(self, task: str, seconds: float) -> float:
        """Mean time of one call of ``task`` over a turn of ``seconds``."""
        return 1000 * self._ask(task=task, seconds=seconds)["seconds_per_call"]

    def wait(self, task: str) -> float:
        """Seconds from the start of the process to the end of its first call of ``task``."""
        return self._ask(task=task, seconds=0.0)["first_call_ended"] - self._started

    def peak_mib(self) -> float:
        """Most memory that the process, or on a GPU its pool of device memory, has held."""
        return self._ask(task=None)["peak_mib"]

    def _ask(self, **request: Any) -> dict[str, Any]:
        assert self._process.stdin
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(self._process.wait() or 1)
        return json.loads(line)

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._process.communicate()  # closes its stdin, which ends it


def start_together(starts: Sequence[Callable[[], Worker]]) -> list[Worker]:
    """Start workers at once, for a machine where that takes long and each has a processor to itself.

    Where one cannot start, the others end, and SystemExit passes its exit code on.
    """
    with ThreadPoolExecutor(len(starts)) as pool:
        started = [pool.submit(start) for start in starts]
    failures = [failure for failure in (worker.exception() for worker in started) if failure]
    if failures:
        for worker in started:
            if not worker.exception():
                worker.result().__exit__(None, None, None)
        raise failures[0]
    return [worker.result() for worker in started]


def take_turns(workers: Sequence[Worker], task: str, rounds: int, seconds: float) -> list[list[float]]:
    """Time ``task`` on all workers in ``rounds`` after one that is thrown away: a list of ms a call for each."""
    table = [[worker.milliseconds(task, seconds) for worker in workers] for _ in range(rounds + 1)]
    return [list(column) for column in zip(*table[1:], strict=True)]


def require_same_work(case: str, workers: Sequence[Worker]) -> None:
    """End with one line and exit code 1 unless all have answered with the logits of the first, to their precision."""
    first, *others = (worker.ready for worker in workers)
    for other in others:
        found, expected = np.stack([other["logits"], first["logits"]])
        difference = np.abs(found - expected).max() / np.abs(expected).max()
        if not difference < max(_BOUNDS[ready["precision"]] for ready in (first, other)):
            sys.exit(f"{case}: the models do not do the same work; their logits differ by {difference:.1e} relative")


def parser(description: str, rounds: int, seconds: float) -> argparse.ArgumentParser:
    """The options that all benchmarks have."""
    options = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    cores = processors()
    options.add_argument("--threads", type=whole(1, cores), default=min(2, cores), help="threads of every contender")
    options.add_argument("--rounds", type=whole(1, 10_000), default=rounds, help="turns of every contender")
    options.add_argument("--seconds", type=_positive, default=seconds, help="length of a turn")
    options.add_argument("--json", type=Path, metavar="FILE", help="write the results here")
    return options


def whole(low: int, high: int) -> Any:
    """Return the converter of an argument that is a whole number in these limits."""

    def convert(text: str) -> int:
        if not text.isdecimal() or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f"expected an integer from {low} to {high}, received {text!r}")
        return int(text)

    return convert


def batch_size(text: str) -> int:
    """Convert the argument of --batch-size."""
    return whole(1, 1_000_000)(text)


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 3600:
        raise argparse.ArgumentTypeError(f"expected seconds above 0 and below 3600, received {text!r}")
    return value


def able(case: str, backend: str) -> list[str]:
    """The names of the installed peers that can do this case; one line and exit code 2 where there are none."""
    names = [name for name, peer in PEERS.items() if peer.is_installed() and not peer.obstacle(case, backend)]
    if not names:
        refuse(f"no peer that can do {case} on {backend} is installed: {PEERS['torch'].remedy}")
    return names


def require(*peers: str) -> None:
    """End with one line and exit code 2 where one of these peers is not installed."""
    for peer in map(PEERS.__getitem__, peers):
        if not peer.is_installed():
            refuse(f"{peer.label} is not installed, and it is the peer: {peer.remedy}")


def require_able(peers: Iterable[str], case: str, backend: str) -> None:
    """End with one line and exit code 2 where one of these peers cannot do the case."""
    for obstacle in (PEERS[peer].obstacle(case, backend) for peer in peers):
        if obstacle:
            refuse(obstacle)


def refuse(reason: str) -> NoReturn:
    """End with this line and exit code 2."""
    print(reason, file=sys.stderr)
    raise SystemExit(2)


def processors() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def conditions(workers: Sequence[Worker], *devices: str) -> dict[str, Any]:
    """What a figure is worth nothing without: hardware, versions, date. ``devices``: of this process, by name."""
    named = sorted({*devices, *(worker.ready["device"] for worker in workers)} - {None})
    installed = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            installed[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "hardware": ", ".join([*named, _processor(), f"{processors()} cores"]),
        "versions": installed,
        "date": date.today().isoformat(),
    }


def _processor() -> str:
    """Name of the processor, with the widest vectors and matrices it has where that is known."""
    information = Path("/proc/cpuinfo")
    text = information.read_text(encoding="utf-8") if information.exists() else ""
    name = re.search(r"^model name\s*: (.+)$", text, re.MULTILINE)
    vectors = " with AVX-512" if " avx512f" in text else " with AVX2" if " avx2" in text else ""
    vectors += " and AMX" if " amx_bf16" in text else ""
    return (name[1].strip() if name else platform.processor() or platform.machine()) + vectors


def save(path: Path | None, record: dict[str, Any]) -> None:
    """Write ``record`` as JSON if there is a path, as :func:`write` does."""
    if path:
        write(path, json.dumps(record, indent=2) + "\n")


def write(path: Path, content: bytes | str) -> None:
    """Write a file, whole or not at all, with the folders on the way to it; one line and exit code 1 if that fails."""
    try:
        check_writable(path.parent)
        atomic_write(path, content)
    except OSError as error:
        sys.exit(str(error))
