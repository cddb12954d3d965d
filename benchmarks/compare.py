"""minicnn beside PyTorch, each in its own process, in turns on the same machine.

    python benchmarks/compare.py --case lenet-train --batch-size 128 --json benchmarks/results/lenet-train-128.json

Both do the same work from the same weights on the same pictures, which is checked by their logits. A training step is
forward, loss, zero_grad, backward and SGD with momentum; inference is a forward pass in eval mode without a tape. Each
works on one synthetic batch that stays where it is: reading data is not part of it. The first turn of either is thrown
away; after it the figures are medians over the turns, and the ratio is the median of the ratios within the rounds.
Memory is the peak of the process, or of the pool of device memory on a GPU.

Exit codes: 0, 1 failure, 2 usage, or something is not installed; then one line says what.
"""

import sys
from statistics import median
from typing import Any

import contest
from cases import CASES


def main() -> None:
    """Run one case and print its table."""
    options = contest.parser("minicnn beside PyTorch, in turns on the same machine", rounds=9, seconds=1.0)
    options.add_argument("--case", choices=CASES, required=True, help="model and kind of work")
    options.add_argument("--batch-size", type=contest.batch_size, default=128, help="pictures a step")
    options.add_argument("--backend", choices=("numpy", "cupy"), default="numpy", help="cupy: PyTorch runs on CUDA")
    arguments = options.parse_args()
    contest.require_torch()
    record = compare(**{name: value for name, value in vars(arguments).items() if name != "json"})
    print(table(record))
    contest.save(arguments.json, record)


def compare(case: str, batch_size: int, backend: str, threads: int, rounds: int, seconds: float) -> dict[str, Any]:
    """Return the record of one case, as it is written to JSON."""
    setting: dict[str, Any] = {"case": case, "batch_size": batch_size, "backend": backend, "threads": threads}
    with contest.Worker("cases_minicnn", **setting) as ours, contest.Worker("cases_torch", **setting) as theirs:
        difference = _relative_difference(ours.ready["logits"], theirs.ready["logits"])
        if not difference < 1e-3:
            sys.exit(f"{case}: the models do not do the same work; their logits differ by {difference:.1e} relative")
        milliseconds = contest.take_turns((ours, theirs), "step", rounds, seconds)
        ratios = [torch_ms / minicnn_ms for minicnn_ms, torch_ms in zip(*milliseconds, strict=True)]
        minicnn_ms, torch_ms = (median(column) for column in milliseconds)
        return setting | {
            "minicnn_img_s": round(1000 * batch_size / minicnn_ms, 1),
            "torch_img_s": round(1000 * batch_size / torch_ms, 1),
            "ratio": round(median(ratios), 3),
            "ratios": [round(ratio, 3) for ratio in ratios],
            "minicnn_ms": round(minicnn_ms, 4),
            "torch_ms": round(torch_ms, 4),
            "minicnn_peak_mib": round(ours.peak_mib(), 1),
            "torch_peak_mib": round(theirs.peak_mib(), 1),
            "rounds": rounds,
            "seconds": seconds,
            **contest.conditions((ours, theirs)),
        }


def _relative_difference(a: list[list[float]], b: list[list[float]]) -> float:
    """Largest difference of two tables of one shape, relative to the largest element of ``b``."""
    pairs = [pair for rows in zip(a, b, strict=True) for pair in zip(*rows, strict=True)]
    return max(abs(x - y) for x, y in pairs) / max(abs(y) for _, y in pairs)


def table(record: dict[str, Any]) -> str:
    """The record for a reader."""
    lines = [
        "{case}, batch {batch_size}, {backend}, {threads} threads, {rounds} rounds of {seconds:g} s".format(**record),
        record["hardware"],
        f"{'':8}{'img/s':>12}{'ms/step':>12}{'peak MiB':>12}",
    ]
    for label, key in (("minicnn", "minicnn"), ("PyTorch", "torch")):
        speed, time, peak = (record[f"{key}_{unit}"] for unit in ("img_s", "ms", "peak_mib"))
        lines.append(f"{label:8}{speed:>12,.0f}{time:>12.3f}{peak:>12,.0f}")
    lines.append(f"ratio {record['ratio']:.2f} ({min(record['ratios']):.2f} to {max(record['ratios']):.2f})")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
