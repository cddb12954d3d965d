"""How closely training in bfloat16 follows training in float32, in minicnn and in PyTorch.

    python benchmarks/bfloat16.py --dataset cifar10 --json benchmarks/results/bfloat16.json

Each network is trained from the parameters of ``cases.py``, by SGD with momentum on the same batches of real pictures,
four times: by minicnn in float32 and in bfloat16, and by PyTorch in float32 and under autocast. What is told is how far
the losses of the two runs of a framework are apart, as a mean over the steps of the absolute difference, and the ratio
of minicnn's to PyTorch's; rounding grows from step to step, in both.

Exit codes: 0, 1 failure, 2 usage, or something is not installed; then one line says what.
"""

import argparse
import importlib
from collections.abc import Callable
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np

import contest
from cases import CASES, MOMENTUM

Step = Callable[[np.ndarray, np.ndarray], float]
_MODELS = list(dict.fromkeys(case.model for case in CASES.values()))
_LEARNING_RATE = 0.01


def main() -> None:
    """Train, print and save."""
    options = argparse.ArgumentParser(
        description="How closely training in bfloat16 follows that in float32",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    options.add_argument("--model", choices=_MODELS, nargs="+", default=["vgg", "resnet20"], help="only these")
    options.add_argument("--steps", type=contest.whole(1, 100_000), default=200, help="of each run")
    options.add_argument("--batch-size", type=contest.batch_size, default=128, help="pictures a step")
    options.add_argument("--seeds", type=contest.whole(1, 100), default=3, help="orders of the pictures")
    options.add_argument("--dataset", default="auto", help="as that of train.py")
    options.add_argument("--data-dir", type=Path, help="folder of the data")
    options.add_argument("--json", type=Path, metavar="FILE", help="write the results here")
    arguments = options.parse_args()
    contest.require("torch")
    data = importlib.import_module("minicnn.data").load(arguments.dataset, arguments.data_dir)
    rows = [
        following(name, batches(data, seed, arguments.steps, arguments.batch_size), seed)
        for name in arguments.model
        for seed in range(arguments.seeds)
    ]
    record = {
        "bfloat16": rows, "steps": arguments.steps, "batch_size": arguments.batch_size, "dataset": data.name,
        "learning_rate": _LEARNING_RATE, **contest.conditions([]),
    }  # fmt: skip
    print(table(record))
    contest.save(arguments.json, record)


def batches(data: Any, seed: int, steps: int, size: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return ``steps`` batches of normalised pictures and their labels."""
    make, chosen = (importlib.import_module(f"minicnn.{name}") for name in ("data", "backend"))
    how = {"mean": data.mean, "std": data.std, "seed": seed, "backend": chosen.get("numpy")}
    loader = make.Loader(data.train, size, shuffle=True, drop_last=True, **how)
    coming = (batch for epoch in count() for batch in loader.epoch(epoch))
    return list(islice(coming, steps))


def following(name: str, steps: list[tuple[np.ndarray, np.ndarray]], seed: int) -> dict[str, Any]:
    """Return the row of a network: of each framework, how far apart its two runs are, and their last losses."""
    row: dict[str, Any] = {"model": name, "seed": seed}
    for side, make in (("minicnn", _minicnn), ("torch", _torch)):
        runs = []
        for bfloat16 in (False, True):
            step = make(name, seed, bfloat16)
            runs.append(np.array([step(x, labels) for x, labels in steps]))
        row[f"{side}_apart"] = float(np.abs(runs[1] - runs[0]).mean())
        row[f"{side}_loss"], row[f"{side}_loss_bfloat16"] = (float(run[-20:].mean()) for run in runs)
    return row | {"ratio": row["minicnn_apart"] / row["torch_apart"]}


def _minicnn(name: str, seed: int, bfloat16: bool) -> Step:
    minicnn, ours = map(importlib.import_module, ("minicnn", "cases_minicnn"))
    minicnn.manual_seed(seed)
    model = ours.make(name).train()
    optimizer = minicnn.optim.SGD(model.parameters(), _LEARNING_RATE, MOMENTUM)

    def step(x: Any, labels: Any) -> Any:
        loss = minicnn.functional.cross_entropy(model(x), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    compiled = minicnn.compile(step, precision="bf16" if bfloat16 else "float32")
    return lambda x, labels: compiled(x, labels).item()


def _torch(name: str, seed: int, bfloat16: bool) -> Step:
    torch, twins = map(importlib.import_module, ("torch", "cases_torch"))
    torch.manual_seed(seed)
    model = twins.make(name).train()
    optimizer = torch.optim.SGD(model.parameters(), _LEARNING_RATE, MOMENTUM)

    def step(x: np.ndarray, labels: np.ndarray) -> float:
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            loss = torch.nn.functional.cross_entropy(model(torch.from_numpy(x)), torch.from_numpy(labels))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return float(loss.item())

    return step


def table(record: dict[str, Any]) -> str:
    """The record as a Markdown table."""
    lines = [
        "| network | seed | minicnn apart | PyTorch apart | ratio | minicnn float32 / bfloat16 "
        "| PyTorch float32 / bfloat16 |",
        "|---|" + "---:|" * 6,
    ]
    lines += [
        "| {model} | {seed} | {minicnn_apart:.4f} | {torch_apart:.4f} | **{ratio:.2f}** "
        "| {minicnn_loss:.4f} / {minicnn_loss_bfloat16:.4f} | {torch_loss:.4f} / {torch_loss_bfloat16:.4f} |".format(
            **row
        )
        for row in record["bfloat16"]
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
