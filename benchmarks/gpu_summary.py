"""The table at the end of gpu.sh: its parts, and what was asked of a GPU beside what was measured.

    python benchmarks/gpu_summary.py FOLDER

reads FOLDER/parts.tsv (name, seconds and exit status of each part) and FOLDER/results/*.json.

Exit codes: 0 where all parts succeeded and all that was asked was measured and holds, 1 otherwise, 2 usage.
"""

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import contest

Record = dict[str, Any]
_LEFT_OUT = "-"
"""The status of a part that could not begin; its output says why."""


@dataclass(frozen=True)
class Measured:
    """What was found, in words, and whether it is what was asked: None where that is not known."""

    words: str
    holds: bool | None


@dataclass(frozen=True)
class Results:
    """Status of the parts by their name, and the records that they left."""

    parts: dict[str, str]
    records: list[Record]

    def passed(self, *names: str) -> Measured:
        """Whether all these parts ended with 0."""
        ends = {name: self.parts.get(name, _LEFT_OUT) for name in names}
        known = [end == "0" for end in ends.values() if end != _LEFT_OUT]
        words = ", ".join(f"{name}: {_end(end)}" for name, end in ends.items())
        return Measured(words, all(known) if len(known) == len(names) else (None if all(known) else False))

    def ratio(self, case: str, batch_size: int, peer: str, least: float) -> Measured:
        """How many times as fast as a peer the fastest of minicnn's contenders is."""
        for r in self.records:
            if r.get("case") == case and r.get("batch_size") == batch_size and peer in r.get("peers", ()):
                fastest = min(r["own"], key=lambda name: r["own"][name]["ms"])
                ratio = r["own"][fastest]["ratio"][peer]
                label = contest.OWN[fastest].label
                words = f"{ratio:.2f} ({label} {r['own'][fastest]['ms']:.3f} ms, peer {r['peers'][peer]['ms']:.3f} ms)"
                return Measured(words, ratio >= least)
        return Measured("not measured", None)

    def recipe(self, name: str, seconds: float, accuracy: float) -> Measured:
        """How long a run of a recipe trained, and how well."""
        for r in self.records:
            if r.get("gpu_recipe") == name and r["dataset"] == "cifar10":
                return Measured(
                    f"{r['seconds']:.1f} s, {r['test_accuracy']:.2%}",
                    r["seconds"] < seconds and r["test_accuracy"] >= accuracy,
                )
        return Measured("not measured", None)


ASKED: dict[str, Callable[[Results], Measured]] = {
    "all GPU tests pass": lambda r: r.passed("tests"),
    "losses are those of the CPU": lambda r: r.passed("agreement"),
    "compute-sanitizer finds nothing": lambda r: r.passed("memcheck", "racecheck"),
    "LeNet training 128: 5x PyTorch": lambda r: r.ratio("lenet-train", 128, "torch", 5),
    "LeNet training 128: 1.5x its CUDA graph": lambda r: r.ratio("lenet-train", 128, "torch-cudagraph", 1.5),
    "LeNet training 512: 4x PyTorch": lambda r: r.ratio("lenet-train", 512, "torch", 4),
    "LeNet inference 1: 5x PyTorch": lambda r: r.ratio("lenet-infer", 1, "torch", 5),
    "LeNet inference 128: 5x PyTorch": lambda r: r.ratio("lenet-infer", 128, "torch", 5),
    "VGG-like training 128: 1x PyTorch bfloat16": lambda r: r.ratio("vgg-train", 128, "torch-bf16", 1),
    "ResNet-18 training 128: 1x PyTorch bfloat16": lambda r: r.ratio("resnet18-train", 128, "torch-bf16", 1),
    "recipe speedrun: 94% within 15 s": lambda r: r.recipe("speedrun", 15, 0.94),
}


def main() -> None:
    """Read, and print both tables."""
    options = argparse.ArgumentParser(description="What gpu.sh measured, beside what was asked")
    options.add_argument("folder", type=Path, help="the output of gpu.sh")
    folder = options.parse_args().folder
    try:
        lines = (folder / "parts.tsv").read_text(encoding="utf-8").splitlines()
    except OSError as error:
        contest.refuse(f"expected the output of gpu.sh: {error}")
    parts = {name: (seconds, end) for name, seconds, end in (line.split("\t") for line in lines)}  # the last of a name
    files = sorted((folder / "results").glob("*.json"))
    results = Results(
        {name: end for name, (_, end) in parts.items()}, [json.loads(f.read_text(encoding="utf-8")) for f in files]
    )
    print("| part | seconds | end |\n|---|---:|---|")
    for name, (seconds, end) in parts.items():
        print(f"| {name} | {seconds} | {_end(end)} |")
    found = {asked: measure(results) for asked, measure in ASKED.items()}
    print(f"\n{_where(results.records)}\n\n| asked | measured | |\n|---|---|---|")
    for asked, measured in found.items():
        print(f"| {asked} | {measured.words} | {_VERDICTS[measured.holds]} |")
    succeeded = all(end == "0" for end in results.parts.values())
    sys.exit(0 if succeeded and all(measured.holds for measured in found.values()) else 1)


_VERDICTS = {True: "yes", False: "**no**", None: "?"}


def _end(status: str) -> str:
    """The exit status of a part in words."""
    return {"0": "passed", "124": "out of time", "137": "out of time", _LEFT_OUT: "left out"}.get(
        status, f"failed ({status})"
    )


def _where(records: list[Record]) -> str:
    """Hardware and versions of the records."""
    return "; ".join(
        dict.fromkeys(
            f"{r['hardware']}; {', '.join(f'{package} {number}' for package, number in r['versions'].items())}"
            for r in records
        )
    )


if __name__ == "__main__":
    main()
