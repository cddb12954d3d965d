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
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import Any

_PACKAGES = (
    "minicnn", "numpy", "numba", "llvmlite", "torch", "keras", "tensorflow", "tensorflow-cpu", "cupy-cuda12x",
    "cupy-cuda13x",
)  # fmt: skip
CHECKOUT = Path(__file__).resolve().parents[1]
_THREAD_POOLS = ("OMP", "MKL", "OPENBLAS", "NUMBA")


@dataclass(frozen=True)
class Peer:
    """A framework that minicnn is compared with; its cases are in ``cases_NAME``, NAME its key in ``PEERS``.

    Attributes:
        label: what readers call it.
        package: what it is imported as, and what it runs on if that is another.
        remedy: how to install it.
    """

    label: str
    package: str
    remedy: str


PEERS = {
    "torch": Peer("PyTorch", "torch", 'pip install -e ".[bench]"'),
    "keras": Peer("Keras", "tensorflow", "pip install tensorflow"),
}


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


def take_turns(workers: Sequence[Worker], task: str, rounds: int, seconds: float) -> list[list[float]]:
    """Time ``task`` on all workers in ``rounds`` after one that is thrown away: a list of ms a call for each."""
    table = [[worker.milliseconds(task, seconds) for worker in workers] for _ in range(rounds + 1)]
    return [list(column) for column in zip(*table[1:], strict=True)]


def require_same_work(case: str, workers: Sequence[Worker]) -> None:
    """End with one line and exit code 1 unless all have answered with the logits of the first."""
    first, *others = (worker.ready["logits"] for worker in workers)
    for logits in others:
        difference = _relative_difference(first, logits)
        if not difference < 1e-3:
            sys.exit(f"{case}: the models do not do the same work; their logits differ by {difference:.1e} relative")


def _relative_difference(a: list[list[float]], b: list[list[float]]) -> float:
    """Largest difference of two tables of one shape, relative to the largest element of ``b``."""
    pairs = [pair for rows in zip(a, b, strict=True) for pair in zip(*rows, strict=True)]
    return max(abs(x - y) for x, y in pairs) / max(abs(y) for _, y in pairs)


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


def is_installed(peer: str) -> bool:
    """Whether the peer of this name can be imported."""
    return importlib.util.find_spec(PEERS[peer].package) is not None


def require(peer: str) -> None:
    """End with one line and exit code 2 where the peer of this name is not installed."""
    if not is_installed(peer):
        print(f"{PEERS[peer].label} is not installed, and it is the peer: {PEERS[peer].remedy}", file=sys.stderr)
        raise SystemExit(2)


def processors() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def conditions(workers: Sequence[Worker]) -> dict[str, Any]:
    """What a figure is worth nothing without: hardware, versions, date."""
    devices = sorted({worker.ready["device"] for worker in workers} - {None})
    installed = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            installed[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "hardware": ", ".join([*devices, _processor(), f"{processors()} cores"]),
        "versions": installed,
        "date": date.today().isoformat(),
    }


def _processor() -> str:
    """Name of the processor, with the widest vectors it has where that is known."""
    information = Path("/proc/cpuinfo")
    text = information.read_text(encoding="utf-8") if information.exists() else ""
    name = re.search(r"^model name\s*: (.+)$", text, re.MULTILINE)
    vectors = " with AVX-512" if " avx512f" in text else " with AVX2" if " avx2" in text else ""
    return (name[1].strip() if name else platform.processor() or platform.machine()) + vectors


def save(path: Path | None, record: dict[str, Any]) -> None:
    """Write ``record`` as JSON if there is a path, with the folders on the way to it; one line if that fails."""
    if path:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        except OSError as error:
            sys.exit(f"cannot write {path}: {error.strerror}")
