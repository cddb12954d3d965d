"""minicnn beside its peers, each in its own process, in turns on the same machine.

    python benchmarks/compare.py --case lenet-train --batch-size 128 --json benchmarks/results/lenet-train-128.json
    python benchmarks/compare.py --case vgg-infer --batch-size 1 --peer torch,onnxruntime,openvino
    python benchmarks/compare.py --case resnet18-train --batch-size 64 --peer all

All do the same work from the same weights on the same pictures, which is checked by their logits. A training step is
forward, loss, zero_grad, backward and SGD with momentum; inference is a forward pass in eval mode without a tape. Each
works on one synthetic batch that stays where it is: reading data is not part of it. All are started anew several times,
because where a process happens to lie in memory can make it half as fast again; the first turn of each process is
thrown away, the figures are medians over the others, and a ratio is the median of the ratios within the rounds. The
best peer is the one with the smallest ratio, which is told for the fastest contenders of any precision and for those in
float32. Memory is the peak of the process, or of the pool of device memory on a GPU. With several threads a last
process runs minicnn with one, for the gain of the others. The share of sgemm is what a step computes, counted as
convolutions and linear layers count it, over what PyTorch or Keras, where it is a peer, computes in the same time when
it multiplies two large float32 matrices.

minicnn computes in float32 (minicnn); ``--own minicnn,minicnn-bf16`` adds it in bfloat16, where the processor has it,
and minicnn-tf32 in TF32, on a GPU.

The peers: PyTorch eager, in float32 in its default layout (torch) and with channels last (torch-channels-last), with
channels last and autocast to bfloat16 (torch-bf16); ONNX Runtime (onnxruntime) and OpenVINO (openvino), which predict
in float32 with PyTorch's model, exported for this size of batch; Keras on TensorFlow (keras) with LeNet and the
VGG-like network. "all" are those of them that are installed and can do the case, "none" times minicnn alone.

With ``--backend cupy`` all run on a GPU. There PyTorch may also be one CUDA graph (torch-cudagraph), or compiled by
``torch.compile(mode="max-autotune")`` (torch-compile); it has its defaults, of which one is that convolutions of
float32 multiply in TF32, and chooses algorithms by timing them (cudnn.benchmark).

Exit codes: 0, 1 failure, 2 usage, or something is not installed or cannot do the case; then one line says what.
"""

import argparse
import contextlib
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import contest
from cases import CASES, SGEMM

Record = dict[str, Any]
ALL, NONE = "all", "none"


def main() -> None:
    """Run one case and print its table."""
    options = contest.parser("minicnn beside its peers, in turns on the same machine", rounds=3, seconds=1.0)
    options.add_argument("--processes", type=contest.whole(1, 1000), default=5, help="times that all are started anew")
    options.add_argument("--case", choices=CASES, required=True, help="model and kind of work")
    options.add_argument("--batch-size", type=contest.batch_size, default=128, help="pictures a step")
    options.add_argument("--backend", choices=("numpy", "cupy"), default="numpy", help="cupy: PyTorch runs on CUDA")
    names = f"{ALL}, {NONE}, or of {', '.join(contest.PEERS)}, with commas between them"
    options.add_argument("--peer", type=_peers, default="torch", metavar="NAME,...", help=names)
    options.add_argument("--own", type=_own, default="minicnn", metavar="NAME,...", help=f"of {', '.join(contest.OWN)}")
    arguments = options.parse_args()
    case, backend = arguments.case, arguments.backend
    peers = contest.able(case, backend) if arguments.peer == [ALL] else arguments.peer
    contest.require_able(peers, case, backend)
    contest.require(*peers)
    settings = {name: value for name, value in vars(arguments).items() if name not in ("json", "peer")}
    record = compare(peers=peers, **settings)
    print(table(record))
    contest.save(arguments.json, record)


def _peers(text: str) -> list[str]:
    names = list(dict.fromkeys(text.split(","))) if text != NONE else []
    if names != [ALL] and not contest.PEERS.keys() >= set(names):
        known = ", ".join(contest.PEERS)
        message = f"expected {ALL}, {NONE}, or names of {known} with commas between, received {text!r}"
        raise argparse.ArgumentTypeError(message)
    return names


def _own(text: str) -> list[str]:
    names, first = list(dict.fromkeys(text.split(","))), next(iter(contest.OWN))
    if names[0] != first or not contest.OWN.keys() >= set(names):
        others = ", ".join(contest.OWN)
        raise argparse.ArgumentTypeError(f"expected {first}, or it and others of {others}, received {text!r}")
    return names


def compare(
    case: str,
    batch_size: int,
    backend: str,
    own: Sequence[str],
    peers: Sequence[str],
    threads: int,
    processes: int,
    rounds: int,
    seconds: float,
) -> Record:
    """Return the record of one case, as it is written to JSON."""
    setting: Record = {"case": case, "batch_size": batch_size, "backend": backend, "threads": threads}
    contenders = {name: contest.CONTENDERS[name] for name in (*own, *peers)}
    first = contenders[own[0]]
    turns: list[tuple[float, ...]] = []  # ms of all contenders, then of the first with one thread
    peaks: list[list[float]] = []
    sgemm: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        onnx = str(Path(folder, "model.onnx"))
        if any(contender.onnx for contender in contenders.values()):
            with contest.Worker("onnx_file", threads, case=case, batch_size=batch_size, file=onnx):
                pass  # it has written the file before it is ready
        for _ in range(processes):
            with contextlib.ExitStack() as stack:
                starts = [
                    partial(contender.start, **(setting | ({"onnx": onnx} if contender.onnx else {})))
                    for contender in contenders.values()
                ]
                if backend == "cupy":
                    workers = contest.start_together(starts)
                    for worker in workers:
                        stack.enter_context(worker)
                else:
                    workers = [stack.enter_context(start()) for start in starts]
                contest.require_same_work(case, workers)
                alone = []
                if backend == "numpy" and threads > 1:
                    alone = [stack.enter_context(first.start(**setting | {"threads": 1}))]
                turns += zip(*contest.take_turns([*workers, *alone], "step", rounds, seconds), strict=True)
                peaks.append([worker.peak_mib() for worker in workers])
                multiplying = next((worker for worker in workers if "sgemm" in worker.ready["tasks"]), None)
                if multiplying:
                    sgemm.append(2e-6 * SGEMM**3 / multiplying.milliseconds("sgemm", seconds))
    gains = [turn[-1] / turn[0] for turn in turns if len(turn) > len(contenders)]
    times = dict(zip(contenders, zip(*turns, strict=True), strict=False))
    figures: dict[str, Record] = {}
    for name, worker, held in zip(contenders, workers, zip(*peaks, strict=True), strict=True):
        ms, flop = median(times[name]), worker.ready.get("flop")
        figures[name] = {
            "precision": worker.ready["precision"],
            "ms": round(ms, 4),
            "img_s": round(1000 * batch_size / ms, 1),
            "peak_mib": round(median(held), 1),
        }
        if name in own:
            figures[name]["gflops"] = flop and round(1e-6 * flop / ms, 1)
            ratios = {peer: [b / a for a, b in zip(times[name], times[peer], strict=True)] for peer in peers}
            figures[name]["ratio"] = {peer: round(median(values), 3) for peer, values in ratios.items()}
            figures[name]["ratios"] = {peer: [round(value, 3) for value in values] for peer, values in ratios.items()}
    ours, others = ({name: figures[name] for name in names} for names in (own, peers))
    return setting | {
        "own": ours,
        "peers": others,
        "best": best(ours, others),
        "gain_of_threads": round(median(gains), 3) if gains else None,
        "sgemm_gflops": round(median(sgemm), 1) if sgemm else None,
        "processes": processes,
        "rounds": rounds,
        "seconds": seconds,
        **contest.conditions(workers),
    }


def best(own: dict[str, Record], peers: dict[str, Record]) -> dict[str, Record]:
    """The fastest of minicnn's contenders, the best peer beside it, and their ratio, by precision: "any" and "float32".

    There is no "float32" where no peer computes in it.
    """
    found = {}
    for precision in ("any", "float32"):
        names = [name for name in peers if precision in ("any", peers[name]["precision"])]
        if names:
            ours = [name for name in own if precision in ("any", own[name]["precision"])]
            fastest = min(ours, key=lambda name: own[name]["ms"])
            ratio = own[fastest]["ratio"]
            peer = min(names, key=ratio.__getitem__)
            found[precision] = {"own": fastest, "peer": peer, "ratio": ratio[peer]}
    return found


def headlines(record: Record) -> list[Record]:
    """The best pair of any precision, and that in float32 if it is another, with what there is to say of each.

    Each has labels and figures of both sides, "ratio", "ratios", "share" of sgemm, and "note": "float32" where the best
    of any precision are others.
    """
    pairs: list[Record] = []
    for precision, pair in record["best"].items():
        own, peer = record["own"][pair["own"]], record["peers"][pair["peer"]]
        flops = own["gflops"], record["sgemm_gflops"]
        line = {
            "own": own | {"label": contest.OWN[pair["own"]].label},
            "peer": peer | {"label": contest.PEERS[pair["peer"]].label},
            "ratio": pair["ratio"],
            "ratios": own["ratios"][pair["peer"]],
            "share": flops[0] / flops[1] if all(flops) else None,
            "note": precision if pairs else "",
        }
        if line | {"note": ""} not in pairs:
            pairs.append(line)
    return pairs


def table(record: Record) -> str:
    """The record for a reader."""
    heading = "{case}, batch {batch_size}, {backend}, {threads} threads, {processes} x {rounds} rounds of {seconds:g} s"
    lines = [
        heading.format(**record),
        record["hardware"],
        f"{'':22}{'img/s':>12}{'ms/step':>12}{'peak MiB':>12}  ratio",
    ]
    for name, figures in (record["own"] | record["peers"]).items():
        ratios = [f"{own['ratio'][name]:.2f}" for own in record["own"].values() if name in own["ratio"]]
        line = f"{contest.CONTENDERS[name].label:22}{figures['img_s']:>12,.0f}{figures['ms']:>12.3f}"
        lines.append(f"{line}{figures['peak_mib']:>12,.0f}  {', '.join(ratios)}".rstrip())
    for pair in headlines(record):
        note, own, peer = pair["note"] and f"in {pair['note']} ", pair["own"], pair["peer"]
        lines.append(
            f"{note}the best peer is {peer['label']}: ratio {pair['ratio']:.2f} "
            f"({min(pair['ratios']):.2f} to {max(pair['ratios']):.2f}), "
            f"memory {own['peak_mib'] / peer['peak_mib']:.2f} of its"
        )
    lines += dict.fromkeys(
        f"{pair['own']['label']}: {pair['own']['gflops']:.0f} GFLOP/s, {pair['share']:.2f} of sgemm"
        for pair in headlines(record)
        if pair["share"]
    )
    if record["gain_of_threads"]:
        lines.append(f"{record['threads']} threads {record['gain_of_threads']:.2f} times one")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
