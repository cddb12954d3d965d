"""Every kernel that the CPU has in its own right beside its twin of the reference and PyTorch's operation.

    python benchmarks/kernels.py --json benchmarks/results/kernels.json

The sizes are those of ``kernel_cases.py``, the processes and turns those of ``contest.py``. A kernel that gains
nothing on the reference at any size here belongs in the reference. The last two columns are ratios of speed: above 1,
minicnn's kernel is faster.
"""

from statistics import median
from typing import Any

import contest
from kernel_cases import Measurement, measurements


def main() -> None:
    """Time all kernels, a line each as soon as it is known."""
    options = contest.parser("the CPU's kernels beside the reference and PyTorch", rounds=5, seconds=0.1)
    sizes = list(measurements())
    names = sorted({measurement.kernel for measurement in sizes})
    options.add_argument("--kernel", choices=names, nargs="+", default=names, metavar="NAME", help="only these")
    arguments = options.parse_args()
    contest.require("torch")
    setting = {"threads": arguments.threads, "rounds": arguments.rounds, "seconds": arguments.seconds}
    with (
        contest.Worker("kernels_minicnn", arguments.threads, kernels="numpy") as ours,
        contest.Worker("kernels_minicnn", arguments.threads, kernels="reference") as reference,
        contest.Worker("kernels_torch", arguments.threads) as torch,
    ):
        workers = (ours, reference, torch)
        conditions = contest.conditions(workers)
        print(f"{conditions['hardware']}, {arguments.threads} threads, batch 128")
        print(f"{'kernel':22}{'size':30}{'ms':>9}{'':>17}{'to reference':>13}{'to PyTorch':>11}")
        rows = []
        own = set(ours.ready["own"])
        for measurement in sizes:
            if measurement.kernel not in own.intersection(arguments.kernel):
                continue
            times = contest.take_turns(workers, measurement.name, arguments.rounds, arguments.seconds)
            rows.append(_row(measurement, *times))
            print(_line(rows[-1]), flush=True)
        for kernel in set(ours.ready["lacking"]).intersection(arguments.kernel):
            print(f"not timed, as this processor has no instructions for it: {kernel}")
        untimed = own.difference(names)
        if untimed:
            print(f"not timed, for want of a size in kernel_cases.py: {', '.join(sorted(untimed))}")
    contest.save(arguments.json, {"kernels": rows, **setting, **conditions})


def _row(measurement: Measurement, ours: list[float], reference: list[float], torch: list[float]) -> dict[str, Any]:
    """Medians over the rounds. rate: of minicnn, in ``unit``."""
    milliseconds = median(ours)
    work, unit = measurement.work
    return {
        "kernel": measurement.kernel,
        "size": measurement.size,
        "minicnn_ms": round(milliseconds, 5),
        "reference_ms": round(median(reference), 5),
        "torch_ms": round(median(torch), 5),
        "rate": round(work / milliseconds / 1e6, 2),
        "unit": unit,
        "ratio_reference": round(median(b / a for a, b in zip(ours, reference, strict=True)), 3),
        "ratio": round(median(b / a for a, b in zip(ours, torch, strict=True)), 3),
    }


def _line(row: dict[str, Any]) -> str:
    times = "{kernel:22}{size:30}{minicnn_ms:>9.3f}{rate:>9.1f} {unit:7}".format(**row)
    return times + "{ratio_reference:>13.2f}{ratio:>11.2f}".format(**row)


if __name__ == "__main__":
    main()
