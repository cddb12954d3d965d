"""minicnn beside PyTorch or Keras, each in its own process, in turns on the same machine.

    python benchmarks/compare.py --case lenet-train --batch-size 128 --json benchmarks/results/lenet-train-128.json

Both do the same work from the same weights on the same pictures, which is checked by their logits. A training step is
forward, loss, zero_grad, backward and SGD with momentum; inference is a forward pass in eval mode without a tape. Each
works on one synthetic batch that stays where it is: reading data is not part of it. All are started anew several times,
because where a process happens to lie in memory can make it half as fast again; the first turn of each process is
thrown away, the figures are medians over the others, and the ratio is the median of the ratios within the rounds.
Memory is the peak of the process, or of the pool of device memory on a GPU. With several threads a third process runs
minicnn with one, for the gain of the others. The share of sgemm is what a step computes, counted as convolutions and
linear layers count it, over what the peer computes in the same time when it multiplies two large float32 matrices.

Exit codes: 0, 1 failure, 2 usage, or something is not installed; then one line says what.
"""

import contextlib
from statistics import median
from typing import Any

import contest
from cases import CASES, SGEMM


def main() -> None:
    """Run one case and print its table."""
    options = contest.parser("minicnn beside a peer, in turns on the same machine", rounds=3, seconds=1.0)
    options.add_argument("--processes", type=contest.whole(1, 1000), default=5, help="times that all are started anew")
    options.add_argument("--case", choices=CASES, required=True, help="model and kind of work")
    options.add_argument("--batch-size", type=contest.batch_size, default=128, help="pictures a step")
    options.add_argument("--backend", choices=("numpy", "cupy"), default="numpy", help="cupy: PyTorch runs on CUDA")
    options.add_argument("--peer", choices=contest.PEERS, default="torch", help="the other framework")
    arguments = options.parse_args()
    contest.require(arguments.peer)
    record = compare(**{name: value for name, value in vars(arguments).items() if name != "json"})
    print(table(record))
    contest.save(arguments.json, record)


def compare(
    case: str, batch_size: int, backend: str, peer: str, threads: int, processes: int, rounds: int, seconds: float
) -> dict[str, Any]:
    """Return the record of one case, as it is written to JSON."""
    setting: dict[str, Any] = {"case": case, "batch_size": batch_size, "backend": backend, "threads": threads}
    turns: list[tuple[float, ...]] = []  # ms of minicnn, the peer and minicnn with one thread
    peaks, sgemm = [], []
    for _ in range(processes):
        with contextlib.ExitStack() as stack:
            sides = ["minicnn", peer]
            workers = [stack.enter_context(contest.Worker(f"cases_{side}", **setting)) for side in sides]
            ours, theirs = workers
            contest.require_same_work(case, workers)
            if backend == "numpy" and threads > 1:
                workers.append(stack.enter_context(contest.Worker("cases_minicnn", **setting | {"threads": 1})))
            turns += zip(*contest.take_turns(workers, "step", rounds, seconds), strict=True)
            peaks.append([ours.peak_mib(), theirs.peak_mib()])
            sgemm.append(2e-6 * SGEMM**3 / theirs.milliseconds("sgemm", seconds))
    minicnn_ms, peer_ms = (median(turn[side] for turn in turns) for side in (0, 1))
    ratios = [turn[1] / turn[0] for turn in turns]
    gains = [turn[2] / turn[0] for turn in turns if len(turn) > 2]
    gflops = ours.ready["flop"] and 1e-6 * ours.ready["flop"] / minicnn_ms
    return setting | {
        "peer": peer,
        "minicnn_img_s": round(1000 * batch_size / minicnn_ms, 1),
        f"{peer}_img_s": round(1000 * batch_size / peer_ms, 1),
        "ratio": round(median(ratios), 3),
        "ratios": [round(ratio, 3) for ratio in ratios],
        "minicnn_ms": round(minicnn_ms, 4),
        f"{peer}_ms": round(peer_ms, 4),
        "gain_of_threads": round(median(gains), 3) if gains else None,
        "gflops": gflops and round(gflops, 1),
        "sgemm_gflops": round(median(sgemm), 1),
        "minicnn_peak_mib": round(median(ours for ours, _ in peaks), 1),
        f"{peer}_peak_mib": round(median(theirs for _, theirs in peaks), 1),
        "processes": processes,
        "rounds": rounds,
        "seconds": seconds,
        **contest.conditions(workers),
    }


def share_of_sgemm(record: dict[str, Any]) -> float:
    """What a step computes in a second, over what a product of matrices does."""
    return record["gflops"] / record["sgemm_gflops"]


def table(record: dict[str, Any]) -> str:
    """The record for a reader."""
    peer = record["peer"]
    label_of_peer = contest.PEERS[peer].label
    heading = "{case}, batch {batch_size}, {backend}, {threads} threads, {processes} x {rounds} rounds of {seconds:g} s"
    lines = [
        heading.format(**record),
        record["hardware"],
        f"{'':8}{'img/s':>12}{'ms/step':>12}{'peak MiB':>12}",
    ]
    for label, key in (("minicnn", "minicnn"), (label_of_peer, peer)):
        speed, time, peak = (record[f"{key}_{unit}"] for unit in ("img_s", "ms", "peak_mib"))
        lines.append(f"{label:8}{speed:>12,.0f}{time:>12.3f}{peak:>12,.0f}")
    lines.append(f"ratio {record['ratio']:.2f} ({min(record['ratios']):.2f} to {max(record['ratios']):.2f})")
    lines.append(f"memory {record['minicnn_peak_mib'] / record[f'{peer}_peak_mib']:.2f} of {label_of_peer}'s")
    if record["gain_of_threads"]:
        lines.append(f"{record['threads']} threads {record['gain_of_threads']:.2f} times one")
    if record["gflops"]:
        lines.append("{gflops:.0f} GFLOP/s, {share:.2f} of sgemm".format(**record, share=share_of_sgemm(record)))
    return "\n".join(lines)


if __name__ == "__main__":
    main()
