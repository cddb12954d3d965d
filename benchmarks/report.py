"""The table and the chart of what the other commands have written.

    python benchmarks/report.py [FOLDER]

reads FOLDER/*.json (benchmarks/results by default) and writes FOLDER.md and FOLDER.png. What FOLDER.md holds above the
line that begins the tables is written by hand, and stays.
"""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

import ablation
import accuracy
import bfloat16
import contest
import frameworks
import gpu_agreement
import gpu_kernels
import gpu_recipe
import gpu_steps
import own_data
import time_to_accuracy
import transfer
from compare import headlines

Record = dict[str, Any]
_BLUE, _ORANGE, _INK, _FAINT, _GRID = "#0072B2", "#E69F00", "#222222", "#6B6B6B", "#E4E4E4"
_WIDTH, _NAMES, _BARS = 8.5, 2.55, 2.35  # inches: of the chart, of its names and of its bars
_COLUMNS = (_BARS + 0.05, _BARS + 2.0, _BARS + 2.72, _BARS + 3.5)  # of the figures, from the left edge of the bars
_TITLE, _HEAD, _ROW, _FOOT = 0.3, 0.85, 0.25, 0.55  # inches
_DIGIT_SPACE = "\u2007"  # as wide as a digit
_BEGIN = "<!-- From here on made by benchmarks/report.py -->\n"
_REPRODUCE = """# minicnn beside its peers

Made by `python benchmarks/report.py` from the files in `benchmarks/results/`. To measure anew, on an otherwise idle
machine:

    pip install -e ".[bench,onnxruntime,openvino]" tensorflow
    for case in lenet-infer:{1,8,32,128,512} {vgg,resnet20}-infer:{1,8,128} resnet18-infer:{1,8,64} \\
        lenet-train:{1,32,128,512} {vgg,resnet20}-train:128 resnet18-train:64 lenet-{infer,train}-eager:{32,128}; do
      python benchmarks/compare.py --peer all --case ${case%:*} --batch-size ${case#*:} \\
        --json benchmarks/results/${case%:*}-${case#*:}.json
    done
    python benchmarks/accuracy.py --json benchmarks/results/accuracy.json
    python benchmarks/bfloat16.py --dataset cifar10 --json benchmarks/results/bfloat16.json
    python benchmarks/time_to_accuracy.py --dataset cifar10 --json benchmarks/results/time-to-accuracy.json \\
      --picture benchmarks/results/time-to-accuracy.png
    python benchmarks/ablation.py --dataset cifar10 --json benchmarks/results/ablation.json \\
      --picture benchmarks/results/ablation.png
    python benchmarks/transfer.py --dataset cifar10 --json benchmarks/results/transfer.json
    python benchmarks/own_data.py --data FASHION_MNIST --json benchmarks/results/own-data.json
    python benchmarks/startup.py --json benchmarks/results/startup.json
    for recipe in lenet stage-augment; do
      python benchmarks/epoch.py --recipe $recipe --json benchmarks/results/epoch-$recipe.json
    done
    python benchmarks/kernels.py --json benchmarks/results/kernels.json
    python benchmarks/threads.py --json benchmarks/results/threads.json
    python benchmarks/report.py

On a GPU `bash benchmarks/gpu.sh` measures everything; PyTorch then needs a build for CUDA. minicnn, PyTorch and Keras
as users meet them are compared by

    python benchmarks/frameworks.py --json benchmarks/results/frameworks.json

Each contender runs in a process of its own with the same number of threads, and they take turns. Times and speeds are
medians over the rounds; a ratio is the median of the ratios within the rounds, in brackets the smallest and the
largest. Above 1, minicnn is faster. A row is about the best of the peers that were measured in the same run: the one
with the smallest ratio. Where that computes in bfloat16, the row "in float32" has the best of those that do not.
Compare ratios, not speeds, between machines and days. "Of one thread" is the speed relative to minicnn's with one
thread; "of sgemm" the FLOP/s, as convolutions and linear layers count them, of PyTorch's when it multiplies two large
matrices. Winograd's method does less than half of the multiplications that these count in a 3 x 3 convolution, and 8
of 20 where the kernel has 5 columns.
"""
_ON_A_GPU: dict[str, tuple[str, str, Callable[[Record], str]]] = {
    "gpu_recipe": (
        "A recipe on a GPU", "A run of `scripts/train.py`; the seconds are those of its epochs.", gpu_recipe.table
    ),
    "gpu_agreement": (
        "A GPU beside the CPU", "The same training on both, from the same weights, compiled, in float32.",
        gpu_agreement.table,
    ),
    "gpu_steps": (
        "Steps on a GPU",
        "What a step of minicnn consists of, as PyTorch's profiler sees it: launches of kernels, copies and fills of "
        "the device, and how often the host waits.",
        gpu_steps.table,
    ),
    "gpu_kernels": (
        "Kernels of the GPU",
        "Registers and bytes in local memory of a thread, where registers that it lacks are spilled to, and bytes of "
        "shared memory of a block.",
        gpu_kernels.table,
    ),
}  # fmt: skip
"""What benchmarks of a GPU alone leave: the key of their records, a heading, what it is, and its table."""


def main() -> None:
    """Read, write, and name what was written."""
    options = argparse.ArgumentParser(description="Table and chart of the results of the benchmarks")
    folder = Path(__file__).with_name("results")
    options.add_argument("folder", type=Path, nargs="?", default=folder, help="of JSON files (default: %(default)s)")
    folder = options.parse_args().folder
    records = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]
    if not records:
        message = f"report: no JSON files in {folder}; compare.py --json FILE and kernels.py --json FILE write them"
        print(message, file=sys.stderr)
        sys.exit(2)
    cases = sorted((r for r in records if r.get("best")), key=lambda r: (r["case"], r["batch_size"]))
    kinds = ["time_to_accuracy", "ablation", "accuracy", "bfloat16", "transfer", "own_data"]
    kinds += ["frameworks", "startup", "epoch", "callers", "kernels", *_ON_A_GPU]
    others = ([r for r in records if kind in r] for kind in kinds)
    text, picture = folder.with_suffix(".md"), folder.with_suffix(".png")
    by_hand, begun, _ = text.read_text(encoding="utf-8").partition(_BEGIN) if text.exists() else ("", "", "")
    tables = markdown(cases, picture.name, *others)
    text.write_text(f"{by_hand if begun else ''}{_BEGIN}\n{tables}", encoding="utf-8")
    print(text)
    if cases:
        chart(cases).savefig(picture, dpi=200, metadata={"Software": None})
        print(picture)


def markdown(
    cases: list[Record],
    picture: str,
    timed: list[Record],
    ablated: list[Record],
    precise: list[Record],
    followed: list[Record],
    moved: list[Record],
    owned: list[Record],
    beside: list[Record],
    startups: list[Record],
    epochs: list[Record],
    callers: list[Record],
    kernels: list[Record],
    *on_a_gpu: list[Record],
) -> str:
    """The cases by machine, then the other benchmarks in the order of their records, those of a GPU last."""
    parts = [_REPRODUCE]
    if cases:
        parts.append(f"![Speed relative to {_peers(cases)}]({picture})\n")
    for (hardware, versions), records in _by_conditions(cases).items():
        rows = [
            "| case | batch | contender | best peer | ratio | img/s | peer's img/s | ms | peer's ms | peak MiB "
            "| peer's peak MiB | of one thread | of sgemm | n | date |",
            "|---|---:|---|---|" + "---:|" * 10 + "---|",
        ]
        for r, pair in _pairs(records):
            own, peer = pair["own"], pair["peer"]
            rows.append(
                f"| {_name(r, pair)} | {r['batch_size']} | {own['label']} | {peer['label']} "
                f"| **{pair['ratio']:.2f}** ({min(pair['ratios']):.2f}-{max(pair['ratios']):.2f}) "
                f"| {own['img_s']:,.0f} | {peer['img_s']:,.0f} | {own['ms']:.3f} | {peer['ms']:.3f} "
                f"| {own['peak_mib']:,.0f} | {peer['peak_mib']:,.0f} | {_or_dash(r['gain_of_threads'])} "
                f"| {_or_dash(pair['share'])} | {r['processes']} x {r['rounds']} x {r['seconds']:g} s | {r['date']} |"
            )
        parts.append(f"## {hardware}\n\n{versions}\n\n" + "\n".join(rows) + "\n")
        parts += _contenders(records)
    for r in timed:
        hardware, versions = _conditions(r)
        note = (
            f"Whole runs of the recipe {r['time_to_accuracy']} in {r['config']['precision']}, {r['steps']:,} steps of "
            f"{r['config']['batch_size']:,} pictures: minutes of training, accuracy on the test images by the views "
            f"that the recipe averages and by one, and when {r['target']:.0%} was reached. Below, steps of both sides "
            f"in turns, reading and augmentation included; PyTorch's minutes are those of its steps. {hardware}; "
            f"{versions}; {r['date']}."
        )
        parts.append(f"## Time to an accuracy\n\n{note}\n\n{time_to_accuracy.table(r)}\n")
    for r in ablated:
        config = r["config"]
        note = (
            f"Test accuracy of the recipe {r['ablation']} in {config['epochs']} epochs and {config['precision']} on "
            f"{r['data']['dataset']}, and what it loses without one of its ingredients, in points: by the views that "
            f"the recipe averages and by one. A loss is the mean of the differences of runs of one seed. "
            f"{r['hardware']}; {_versions(r)}; {r['date']}."
        )
        parts.append(f"## Ablation\n\n{note}\n\n{ablation.table(r)}\n")
    for r in precise:
        note = (
            f"Logits of {r['pictures']} pictures in float32 against float64: the largest error relative to the largest "
            f"logit, and the root of the mean square. {r['hardware']}; {_versions(r)}; {r['date']}."
        )
        parts.append(f"## Accuracy\n\n{note}\n\n{accuracy.table(r)}\n")
    for r in followed:
        note = (
            f"How far the losses of {r['steps']} steps in bfloat16 are from those in float32, as a mean of absolute "
            f"differences, in minicnn and in PyTorch, and the losses at the end. {r['dataset']}, {r['batch_size']} "
            f"pictures a step. {r['hardware']}; {_versions(r)}; {r['date']}."
        )
        parts.append(f"## bfloat16\n\n{note}\n\n{bfloat16.table(r)}\n")
    for r in moved:
        note = (
            f"A network that learned {', '.join(r['source'])} of {r['dataset']} ({r['source_accuracy']:.1%} of their "
            f"test pictures right), moved to {r['pictures']} pictures a class of {', '.join(r['transfer'])}, and from "
            f"scratch: {r['epochs']} epochs of the recipe transfer. {r['hardware']}; {_versions(r)}; {r['date']}."
        )
        parts.append(f"## Transfer\n\n{note}\n\n{transfer.table(r)}\n")
    for r in owned:
        counts = r["own_data"]["folder"]["pictures"]
        note = (
            f"Fashion-MNIST from arrays by `minicnn.fit`, tested on 10,000 pictures, in seconds from the first line of "
            f"the program on; and as a folder of {sum(counts):,} pictures, {counts[0]} to {counts[-1]} of a class, of "
            f"many sizes, modes and formats, by `scripts/train.py`. {r['hardware']}; {_versions(r)}; {r['date']}."
        )
        parts.append(f"## Data of one's own\n\n{note}\n\n{own_data.table(r)}\n")
    parts += [f"## Frameworks\n\n{frameworks.table(r)}\n" for r in beside]
    for r in startups:
        rows = ["| process start to first step | seconds |", "|---|---:|"]
        rows += [f"| {name} | {seconds:.2f} |" for name, seconds in r["startup"].items()]
        hardware, versions = _conditions(r)
        note = f"{r['case']}, batch {r['batch_size']}; {hardware}; {versions}; {r['date']}."
        parts.append(f"## The first step\n\n{note}\n\n" + "\n".join(rows) + "\n")
    if epochs:
        rows = [
            "| recipe | batch | bare step img/s | epoch img/s | share | n | conditions |",
            "|---|" + "---:|" * 5 + "---|",
        ]
        for r in epochs:
            hardware, _ = _conditions(r)
            rows.append(
                f"| {r['epoch']} | {r['batch_size']} | {r['step_img_s']:,.0f} | {r['epoch_img_s']:,.0f} "
                f"| **{r['share']:.2f}** ({min(r['shares']):.2f}-{max(r['shares']):.2f}) "
                f"| {r['rounds']} x {r['seconds']:g} s | {hardware}; {r['date']} |"
            )
        note = "Reading, augmenting and normalising the pictures, and counting loss and hits, beside the step alone."
        parts.append(f"## An epoch\n\n{note}\n\n" + "\n".join(rows) + "\n")
    for r in callers:
        rows = [
            "| callers | minicnn requests/s | wrong answers | PyTorch requests/s | wrong answers | ratio | queued |",
            "|---:|---:|---:|---:|---:|---:|---:|",
        ]
        rows += [
            "| {callers} | {minicnn_per_s:,.0f} | {minicnn_wrong} | {torch_per_s:,.0f} | {torch_wrong} "
            "| **{ratio:.2f}** | {queued_per_s:,.0f} |".format(**row)
            for row in r["callers"]
        ]
        hardware, versions = _conditions(r)
        note = (
            f"One compiled {r['model']} that several threads ask at once, {r['batch_size']} pictures a request; an "
            f"answer of {r['checked']} is wrong if its bits are not those of a call alone. Queued: minicnn's requests "
            f"a second where callers wait for each other instead of having a memory each. {hardware}; {versions}; "
            f"n = {r['rounds']} x {r['seconds']:g} s; {r['date']}."
        )
        parts.append(f"## Calls from threads\n\n{note}\n\n" + "\n".join(rows) + "\n")
    for r in kernels:
        rows = [
            "| kernel | size, batch 128 | minicnn ms | reference ms | PyTorch ms | rate | to reference | to PyTorch |",
            "|---|---|" + "---:|" * 6,
        ]
        rows += [
            "| `{kernel}` | {size} | {minicnn_ms:.3f} | {reference_ms:.3f} | {torch_ms:.3f} | {rate:.1f} {unit} "
            "| {ratio_reference:.2f} | **{ratio:.2f}** |".format(**row)
            for row in r["kernels"]
        ]
        hardware, versions = _conditions(r)
        note = f"{hardware}; {versions}; n = {r['rounds']} x {r['seconds']:g} s; {r['date']}."
        parts.append(f"## Kernels of the CPU\n\n{note}\n\n" + "\n".join(rows) + "\n")
    for (heading, note, table), records in zip(_ON_A_GPU.values(), on_a_gpu, strict=True):
        for r in records:
            parts.append(f"## {heading}\n\n{note} {r['hardware']}; {_versions(r)}; {r['date']}.\n\n{table(r)}\n")
    return "\n".join(parts)


def _contenders(records: list[Record]) -> list[str]:
    """A table of the milliseconds of all contenders, where there is more than one peer."""
    if all(len(r["peers"]) == 1 for r in records):
        return []
    names = [name for name in contest.CONTENDERS if any(name in r["own"] | r["peers"] for r in records)]
    rows = [
        f"| case | batch | {' | '.join(contest.CONTENDERS[name].label for name in names)} |",
        "|---|" + "---:|" * (1 + len(names)),
    ]
    for r in records:
        cells = []
        for name in names:
            figures = (r["own"] | r["peers"]).get(name)
            ratio = r["own"][r["best"]["any"]["own"]]["ratio"].get(name)
            cells.append((f"{figures['ms']:.3f}" if figures else "-") + (f" ({ratio:.2f})" if ratio else ""))
        rows.append(f"| {r['case']} | {r['batch_size']} | {' | '.join(cells)} |")
    note = "Milliseconds of all contenders; in brackets the ratio to minicnn's fastest."
    return [f"{note}\n\n" + "\n".join(rows) + "\n"]


def _or_dash(value: float | None) -> str:
    return f"{value:.2f}" if value else "-"


def chart(cases: list[Record]) -> Figure:
    """For each machine the speeds as bars, and beside them the peer and figures: memory, threads, share of sgemm.

    It is as wide as a page, so that its letters can be read there.
    """
    groups: dict[str, list[tuple[Record, Record]]] = {}
    for hardware in dict.fromkeys(hardware for hardware, _ in _by_conditions(cases)):
        groups[hardware] = _pairs([record for record in cases if _conditions(record)[0] == hardware])
    heights = [_HEAD + _ROW * len(pairs) for pairs in groups.values()]
    whole = _TITLE + sum(heights) + _FOOT
    figure = Figure(figsize=(_WIDTH, whole))
    figure.text(0.01, 1 - 0.15 / whole, f"minicnn beside {_peers(cases)}", va="top", fontsize=10.5, color=_INK)
    top = _TITLE
    for (hardware, pairs), height in zip(groups.items(), heights, strict=True):
        place = (_NAMES / _WIDTH, 1 - (top + height) / whole, _BARS / _WIDTH, _ROW * len(pairs) / whole)
        _speeds(figure.add_axes(place), hardware, pairs)
        top += height
    label = "Bars: images per second, of the best peer's: median and range of the rounds. Above 1, minicnn is faster."
    figure.text(0.01, 0.15 / whole, label, color=_FAINT, fontsize=8.5)
    return figure


def _pairs(records: list[Record]) -> list[tuple[Record, Record]]:
    """Each record with each of its headlines."""
    return [(r, pair) for r in records for pair in headlines(r)]


def _name(r: Record, pair: Record) -> str:
    return f"{r['case']}, in {pair['note']}" if pair["note"] else r["case"]


def _peers(cases: list[Record]) -> str:
    """What minicnn is compared with in these cases."""
    *others, last = (peer.label for name, peer in contest.PEERS.items() if any(name in r["peers"] for r in cases))
    return f"the best of {', '.join(others)} and {last}" if others else last


def _speeds(axes: Axes, heading: str, pairs: list[tuple[Record, Record]]) -> None:
    reach = max(1.0, *(max(pair["ratios"]) for _, pair in pairs))
    axes.set_xlim(0, 1.2 * reach)
    axes.set_ylim(len(pairs) - 0.5, -0.5)
    width = max(len(str(r["batch_size"])) for r, _ in pairs)
    names = [f"{_name(r, pair)}, {r['batch_size']:{_DIGIT_SPACE}>{width}}" for r, pair in pairs]
    axes.set_yticks(range(len(pairs)), names, color=_INK)
    for position, (r, pair) in enumerate(pairs):
        ratio, low, high = pair["ratio"], min(pair["ratios"]), max(pair["ratios"])
        axes.barh(position, ratio, height=0.62, color=_BLUE if ratio >= 1 else _ORANGE, zorder=2)
        axes.plot([low, high], [position] * 2, color=_INK, linewidth=1.2, zorder=3)
        end = max(1.0, high) + 0.02 * reach
        axes.text(end, position, f"{ratio:.2f}", va="center", fontweight="bold", color=_INK, fontsize=9)
        figures = pair["own"]["peak_mib"] / pair["peer"]["peak_mib"], r["gain_of_threads"], pair["share"]
        cells = [pair["peer"]["label"], *(f"{value:.2f}" if value else "-" for value in figures)]
        _row(axes, position, cells, _INK)
    axes.axvline(1, color=_INK, linewidth=1, linestyle=(0, (4, 3)), zorder=4)
    _row(axes, -0.5, ["best peer", "memory,\nof peer's", "speed, of\n1 thread's", "FLOP/s, of\nsgemm's"], _FAINT)
    axes.annotate("speed", (0, 1), (0, 4), "axes fraction", "offset points", color=_FAINT, fontsize=8.5)
    axes.annotate(
        f"{heading}: model-task, batch", (0, 1), (0.01, 34), "axes fraction", ("figure fraction", "offset points"),
        fontsize=9, color=_INK, fontweight="bold",
    )  # fmt: skip
    axes.grid(axis="x", color=_GRID, zorder=0)
    axes.tick_params(length=0, labelsize=9)
    axes.tick_params(axis="x", labelcolor=_FAINT)
    axes.spines[:].set_visible(False)


def _row(axes: Axes, position: float, cells: list[str], color: str) -> None:
    """Write cells behind the bars, at a height in rows; what stands at the upper edge stands above it."""
    middle = position >= 0
    for inches, cell in zip(_COLUMNS, cells, strict=True):
        axes.annotate(
            cell, (inches / _BARS, position), (0, 0 if middle else 4), xycoords=("axes fraction", "data"),
            textcoords="offset points", ha="left" if inches == _COLUMNS[0] else "right",
            va="center" if middle else "bottom", color=color, fontsize=9 if middle else 8.5, annotation_clip=False,
        )  # fmt: skip


def _by_conditions(cases: list[Record]) -> dict[tuple[str, str], list[Record]]:
    """The records in order, by what they were measured on."""
    groups: dict[tuple[str, str], list[Record]] = {}
    for r in cases:
        groups.setdefault(_conditions(r), []).append(r)
    return groups


def _conditions(r: Record) -> tuple[str, str]:
    """Hardware with the number of threads, and versions."""
    return f"{r['hardware']}, {r['threads']} threads", _versions(r)


def _versions(r: Record) -> str:
    return ", ".join(f"{package} {number}" for package, number in r["versions"].items())


if __name__ == "__main__":
    main()
