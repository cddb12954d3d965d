"""This checkout beside another of the project, in turns on the same machine: whether a change costs speed.

    git worktree add ../before COMMIT
    python benchmarks/versions.py ../before --case lenet-train:128 lenet-infer:1

The cases and turns are those of ``compare.py``; the ratio is the other's time over this one's, the median within the
rounds: above 1, this checkout is faster.

Exit codes: 0, 1 failure, 2 usage; then one line says what.
"""

import argparse
from pathlib import Path
from statistics import median
from typing import Any

import contest
from cases import CASES

_CASES = ["lenet-train:128", "lenet-train:32", "lenet-infer:1", "lenet-infer:128", "vgg-train:128"]


def main() -> None:
    """Time all cases, a line each as soon as it is known."""
    options = contest.parser("This checkout beside another, in turns", rounds=4, seconds=0.5)
    options.add_argument("other", type=_checkout, help="folder of the other checkout")
    options.add_argument("--processes", type=contest.whole(1, 1000), default=5, help="times that both are started anew")
    options.add_argument("--case", type=_case, nargs="+", default=list(map(_case, _CASES)), metavar="NAME:BATCH")
    arguments = options.parse_args()
    rows: list[dict[str, Any]] = []
    for case, batch_size in arguments.case:
        setting = {"case": case, "batch_size": batch_size, "backend": "numpy", "threads": arguments.threads}
        turns: list[tuple[float, ...]] = []
        for _ in range(arguments.processes):
            with (
                contest.Worker("cases_minicnn", checkout=arguments.other, **setting) as other,
                contest.Worker("cases_minicnn", **setting) as ours,
            ):
                turns += zip(
                    *contest.take_turns((ours, other), "step", arguments.rounds, arguments.seconds), strict=True
                )
        now, before = (median(turn[side] for turn in turns) for side in (0, 1))
        ratios = sorted(turn[1] / turn[0] for turn in turns)
        row = {"ms": round(now, 5), "other_ms": round(before, 5), "ratio": round(median(ratios), 3)}
        rows.append({"case": case, "batch_size": batch_size, **row, "ratios": [round(r, 3) for r in ratios]})
        print(
            f"{case}, batch {batch_size}: {now:.4f} ms, the other {before:.4f} ms, "
            f"ratio {median(ratios):.3f} ({ratios[0]:.2f} to {ratios[-1]:.2f})",
            flush=True,
        )
    record = {"versions_of_minicnn": rows, "processes": arguments.processes, "rounds": arguments.rounds}
    contest.save(arguments.json, record | {"seconds": arguments.seconds} | contest.conditions([ours, other]))


def _checkout(text: str) -> Path:
    path = Path(text).resolve()
    if not (path / "benchmarks" / "worker.py").is_file():
        raise argparse.ArgumentTypeError(f"expected a folder with minicnn/ and benchmarks/, received {text!r}")
    return path


def _case(text: str) -> tuple[str, int]:
    name, _, size = text.partition(":")
    if name not in CASES:
        raise argparse.ArgumentTypeError(f"expected NAME:BATCH with one of {', '.join(CASES)}, received {text!r}")
    return name, contest.batch_size(size)


if __name__ == "__main__":
    main()
