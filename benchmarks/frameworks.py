"""minicnn, PyTorch and Keras beside each other: speed, wait, memory and disk for one network, on the CPU.

    pip install -e ".[bench]" tensorflow
    python benchmarks/frameworks.py --json benchmarks/results/frameworks.json

The work and the turns are those of ``compare.py``, each framework as it is usually run: minicnn a compiled step,
PyTorch eager, Keras the graph that ``Model.compile`` makes on TensorFlow. All are started anew several times to train
and to infer, and the figures are medians. The first step ends so many seconds after the start of the process; a start
before, which is not counted, has left kernels compiled and files read. Memory is the peak of the process that trains.
Installed is what pip puts into an empty environment for the framework and all that it needs, without byte code and
caches. What is not installed is left out.

Exit codes: 0, 1 failure, 2 usage; then one line says what.
"""

import contextlib
import importlib.util
import json
import sys
from collections import defaultdict
from importlib.metadata import Distribution, distribution, packages_distributions
from pathlib import Path
from statistics import median
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import contest

_LABELS = {"minicnn": "minicnn, compiled", "torch": "PyTorch, eager", "keras": "Keras on TensorFlow, graph"}
_DIGITS = {"train_img_s": 0, "infer_img_s": 0, "train_wait_s": 2, "train_peak_mib": 0, "installed_mib": 0}


def main() -> None:
    """Measure, print and save."""
    options = contest.parser("minicnn, PyTorch and Keras beside each other", rounds=2, seconds=1.0)
    options.add_argument("--processes", type=contest.whole(1, 1000), default=5, help="times that all are started anew")
    options.add_argument("--model", choices=("lenet", "vgg"), default="vgg", help="the network")
    options.add_argument("--batch-size", type=contest.batch_size, default=128, help="pictures a step")
    arguments = options.parse_args()
    for contender in map(contest.CONTENDERS.__getitem__, _LABELS):
        if not contender.is_installed():
            print(f"{contender.label} is not installed and is left out: {contender.remedy}", file=sys.stderr)
    record = compare(**{name: value for name, value in vars(arguments).items() if name != "json"})
    print(table(record))
    contest.save(arguments.json, record)


def compare(model: str, batch_size: int, threads: int, processes: int, rounds: int, seconds: float) -> dict[str, Any]:
    """Return the record, as it is written to JSON."""
    names = [name for name in _LABELS if contest.CONTENDERS[name].is_installed()]
    setting: dict[str, Any] = {"batch_size": batch_size, "backend": "numpy", "threads": threads}
    for name in names:
        with contest.CONTENDERS[name].start(case=f"{model}-train", **setting) as worker:
            worker.wait("step")
    samples: dict[str, dict[str, list[float]]] = {name: defaultdict(list) for name in names}
    for _ in range(processes):
        for kind in ("train", "infer"):
            with contextlib.ExitStack() as stack:
                workers = []
                for name in names:
                    worker = contest.CONTENDERS[name].start(case=f"{model}-{kind}", **setting)
                    workers.append(stack.enter_context(worker))
                    samples[name][f"{kind}_wait_s"].append(worker.wait("step"))
                contest.require_same_work(model, workers)
                turns = contest.take_turns(workers, "step", rounds, seconds)
                for name, worker, milliseconds in zip(names, workers, turns, strict=True):
                    samples[name][f"{kind}_img_s"] += [1000 * batch_size / ms for ms in milliseconds]
                    samples[name][f"{kind}_peak_mib"].append(worker.peak_mib())
    figures: dict[str, dict[str, Any]] = {}
    for name in names:
        parts = installed(contest.CONTENDERS[name].packages[0])
        figures[name] = {key: round(median(values), 2) for key, values in samples[name].items()}
        figures[name] |= {"installed_mib": round(sum(parts.values()), 1), "installed": parts}
        figures[name]["samples"] = {key: [round(v, 2) for v in values] for key, values in samples[name].items()}
    counts = {"processes": processes, "rounds": rounds, "seconds": seconds}
    return {"frameworks": figures, "model": model, **setting, **counts, **contest.conditions(workers)}


def installed(package: str) -> dict[str, float]:
    """MiB of the distribution that ``package`` is imported from, and of each that it needs, by name."""
    sizes: dict[str, float] = {}
    waiting = [(packages_distributions()[package][0], "")]
    seen = set()
    while waiting:
        name, extra = waiting.pop()
        if (canonicalize_name(name), extra) in seen:
            continue
        seen.add((canonicalize_name(name), extra))
        found = distribution(name)
        sizes[canonicalize_name(name)] = round(sum(file.stat().st_size for file in _files(found)) / (1 << 20), 2)
        for requirement in map(Requirement, found.requires or ()):
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                waiting += [(requirement.name, wanted) for wanted in ("", *requirement.extras)]
    return dict(sorted(sizes.items()))


def _files(found: Distribution) -> set[Path]:
    """What pip has written for a distribution, or its folders where it is used from a clone, without byte code."""
    if json.loads(found.read_text("direct_url.json") or "{}").get("dir_info", {}).get("editable"):
        packages = [importlib.util.find_spec(name) for name in (found.read_text("top_level.txt") or "").split()]
        folders = [Path(folder) for spec in packages if spec for folder in spec.submodule_search_locations or ()]
        files = {file for folder in folders for file in folder.rglob("*")}
    else:
        files = {Path(str(file.locate())) for file in found.files or ()}
    return {file for file in files if file.is_file() and "__pycache__" not in file.parts}


def table(record: dict[str, Any]) -> str:
    """The record as a Markdown table, with what it was measured on below."""
    lines = [
        "| framework | training img/s | inference img/s | first step after s | peak MiB | installed MiB |",
        "|---|" + "---:|" * len(_DIGITS),
    ]
    for name, figures in record["frameworks"].items():
        cells = [f"{figures[key]:,.{digits}f}" for key, digits in _DIGITS.items()]
        lines.append(f"| {' | '.join([_LABELS[name], *cells])} |")
    machine = "{model}, batch {batch_size}; {hardware}, {threads} threads".format(**record)
    versions = ", ".join(f"{package} {number}" for package, number in record["versions"].items())
    counts = "n = {processes} x {rounds} x {seconds:g} s; {date}".format(**record)
    return "\n".join([*lines, "", f"{machine}; {versions}; {counts}."])


if __name__ == "__main__":
    main()
