"""What a step consists of on a GPU: launches, copies, waits of the host, and the time of each kernel on the device.

    python benchmarks/gpu_steps.py --json gpu-steps.json

The steps are minicnn's side of compare.py's cases, each with a number of pictures. PyTorch's profiler sees what the
whole process asks of CUDA, so that it sees CuPy's kernels, those of CUDA graphs among them; where it is not installed,
or sees nothing, the calls of the plan are counted alone.

Exit codes: 0, 1 failure, 2 usage or no GPU; then one line says what.
"""

import argparse
import importlib
import importlib.util
import json
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import cases_minicnn
import contest
import gpu
from cases import CASES

_STEPS = {"lenet-train": 128, "lenet-train-eager": 128, "lenet-infer": 1, "vgg-train": 128, "resnet18-train": 128}
_SLOWEST = 5
"""Kernels of a step that are printed, and of all steps that a profiler may look at."""


def main() -> None:
    """Count, time, print and save."""
    options = argparse.ArgumentParser(description="Launches, copies and waits of a step on a GPU")
    options.add_argument("--case", choices=CASES, nargs="+", default=list(_STEPS), help="models and kinds of work")
    options.add_argument("--batch-size", type=contest.batch_size, help="pictures a step (default: by the case)")
    options.add_argument("--steps", type=contest.whole(1, 1000), default=5, help="that are counted (default: 5)")
    options.add_argument("--bare", action="store_true", help="only take the steps, for a profiler around the process")
    options.add_argument(
        "--slowest", type=Path, metavar="FILE", help="write a pattern of the slowest kernels' names here"
    )
    options.add_argument("--json", type=Path, metavar="FILE", help="write the results here")
    arguments = options.parse_args()
    xp = gpu.require().xp
    rows = []
    for case in arguments.case:
        batch_size = arguments.batch_size or _STEPS.get(case, 128)
        workload = cases_minicnn.build(case, batch_size, "cupy")
        row = {"case": case, "batch_size": batch_size, "calls": workload.facts.get("calls")}
        rows.append(row | look(workload, arguments.steps, arguments.bare))
    record = {"gpu_steps": rows, "steps": arguments.steps, **gpu.conditions(xp)}
    print(table(record))
    for row in rows:
        print(f"\n{row['case']}, {row['batch_size']}:")
        print(*(f"{k['ms']:9.4f} ms {k['launches']:6g} x {k['kernel']}" for k in row["kernels"]), sep="\n")
    contest.save(arguments.json, record)
    if arguments.slowest:
        contest.write(arguments.slowest, pattern(rows))


def look(workload: Any, steps: int, bare: bool) -> dict[str, Any]:
    """Return what so many steps consist of, as means of a step, and the milliseconds of one."""
    step, wait = workload.tasks["step"], workload.synchronize
    for _ in range(3):  # a CUDA graph is there at the third
        step()
    wait()
    start = time.perf_counter()
    for _ in range(steps):
        step()
    wait()
    ms = 1000 * (time.perf_counter() - start) / steps
    events = [] if bare else trace(lambda: [step() for _ in range(steps)], wait)
    return {"ms": round(ms, 4), **digest(events, steps)}


def trace(work: Callable[[], object], wait: Callable[[], object]) -> list[dict[str, Any]]:
    """Return what PyTorch's profiler sees of some work, as the events of a trace; [] without one."""
    if not importlib.util.find_spec("torch"):
        print("PyTorch, whose profiler counts launches, is not installed", file=sys.stderr)
        return []
    profiler = importlib.import_module("torch.profiler")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "trace.json")
        with profiler.profile(activities=[profiler.ProfilerActivity.CPU, profiler.ProfilerActivity.CUDA]) as profile:
            work()
            wait()
        profile.export_chrome_trace(str(file))
        return json.loads(file.read_text(encoding="utf-8"))["traceEvents"]


def digest(events: Iterable[dict[str, Any]], steps: int) -> dict[str, Any]:
    """Return launches, copies and fills of the device, waits of the host, and kernels by name, of one of ``steps``.

    Waits for the whole device are the profiler's own, and one for the stream is that at the end of all steps: these do
    not count. Where there are no kernels, nothing is known: None and [].
    """
    launches: Counter[str] = Counter()
    microseconds: Counter[str] = Counter()
    copies = waits = 0
    for event in events:
        kind, name = event.get("cat"), event.get("name", "")
        if kind == "kernel":
            launches[name] += 1
            microseconds[name] += event["dur"]
        elif kind in ("gpu_memcpy", "gpu_memset"):
            copies += 1
        elif kind in ("cuda_runtime", "cuda_driver") and re.search("(Stream|Event)Synchronize", name):
            waits += 1
    if not launches:
        return {"launches": None, "copies": None, "waits": None, "device_ms": None, "kernels": []}
    kernels = [
        {"kernel": name, "launches": launches[name] / steps, "ms": round(time / 1000 / steps, 5)}
        for name, time in microseconds.most_common()
    ]
    return {
        "launches": sum(launches.values()) / steps,
        "copies": copies / steps,
        "waits": max(waits - 1, 0) / steps,
        "device_ms": round(sum(microseconds.values()) / 1000 / steps, 4),
        "kernels": kernels,
    }


def pattern(rows: list[dict[str, Any]]) -> str:
    """A regular expression for the names of the kernels that take longest in all cases; "" where none is known."""
    total: Counter[str] = Counter()
    for row in rows:
        for kernel in row["kernels"]:
            total[kernel["kernel"]] += kernel["ms"]
    return "|".join(re.sub(r"([][^$.|?*+(){}\\])", r"\\\1", name) for name, _ in total.most_common(_SLOWEST))


def table(record: dict[str, Any]) -> str:
    """The record as a Markdown table."""
    lines = [
        "| step | batch | ms | of it on the device | calls of kernels | launches | copies | waits | slowest kernels |",
        "|---|" + "---:|" * 7 + "---|",
    ]
    for row in record["gpu_steps"]:
        figures = (row[name] for name in ("device_ms", "calls", "launches", "copies", "waits"))
        cells = ["-" if figure is None else f"{figure:g}" for figure in figures]
        slowest = ", ".join(f"`{k['kernel']}` {k['ms']:.3f}" for k in row["kernels"][:_SLOWEST]) or "-"
        lines.append(f"| {row['case']} | {row['batch_size']} | {row['ms']:.3f} | {' | '.join(cells)} | {slowest} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
