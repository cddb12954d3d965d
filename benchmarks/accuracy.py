"""The error of float32 predictions against those in float64, of minicnn and of PyTorch.

    python benchmarks/accuracy.py --json benchmarks/results/accuracy.json

Each network has the parameters of ``cases.py``, and as running statistics of batch norm those of the pictures, the same
bits in both. The truth is PyTorch's model in float64. minicnn's predictions are compiled. They are asked for all
pictures at once and for one at a time. The error is of the logits: the largest relative to the largest logit, and the
root of the mean square relative to that of the logits.

Exit codes: 0, 1 failure, 2 usage, or something is not installed; then one line says what.
"""

import argparse
import copy
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import contest
from cases import CASES, batch

Predict = Callable[[np.ndarray], np.ndarray]
_MODELS = list(dict.fromkeys(case.model for case in CASES.values()))


def main() -> None:
    """Measure, print and save."""
    options = argparse.ArgumentParser(
        description="The error of float32 predictions against float64",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    options.add_argument("--model", choices=_MODELS, nargs="+", default=_MODELS, help="only these")
    options.add_argument("--pictures", type=contest.batch_size, default=128, help="how many")
    options.add_argument("--json", type=Path, metavar="FILE", help="write the results here")
    arguments = options.parse_args()
    contest.require("torch")
    rows = [row for name in arguments.model for row in errors(name, arguments.pictures)]
    record = {"accuracy": rows, "pictures": arguments.pictures, **contest.conditions([])}
    print(table(record))
    contest.save(arguments.json, record)


def errors(name: str, pictures: int) -> list[dict[str, Any]]:
    """Return the rows of a network: all ``pictures`` at once, and one by one."""
    x, _ = batch(pictures)
    truth, sides = _predictions(name, x)
    expected = truth(x)
    rows = []
    for size in sorted({pictures, 1}, reverse=True):
        row: dict[str, Any] = {"model": name, "batch_size": size}
        for side, predict in sides.items():
            error = np.concatenate([predict(part) for part in np.split(x, pictures // size)]) - expected
            row[f"{side}_max"] = float(np.abs(error).max() / np.abs(expected).max())
            row[f"{side}_rms"] = float(np.sqrt(np.mean(error**2) / np.mean(expected**2)))
        row |= {f"ratio_{kind}": row[f"minicnn_{kind}"] / row[f"torch_{kind}"] for kind in ("max", "rms")}
        rows.append(row)
    return rows


def _predictions(name: str, x: np.ndarray) -> tuple[Predict, dict[str, Predict]]:
    """PyTorch in float64; minicnn and PyTorch in float32."""
    minicnn, torch, twins, ours = map(importlib.import_module, ("minicnn", "torch", "cases_torch", "cases_minicnn"))
    twin, model = twins.make(name).eval(), ours.make(name).eval()
    layers = [layer for layer in twin.modules() if isinstance(layer, torch.nn.BatchNorm2d)]
    for layer in layers:
        layer.momentum = 1.0
        layer.train()
    with torch.no_grad():
        twin(torch.from_numpy(x))
    twin.eval()
    statistics = ([n, b] for n, b in twin.named_buffers() if n.endswith(("running_mean", "running_var")))
    names = (n for n, _ in model.named_buffers() if n.endswith(("running_mean", "running_var")))
    model.load_state_dict({n: b.numpy() for n, (_, b) in zip(names, statistics, strict=True)}, strict=False)
    wide, predict = copy.deepcopy(twin).double(), minicnn.compile(model)

    def asked(network: Any) -> Predict:
        def ask(x: np.ndarray) -> np.ndarray:
            with torch.no_grad():
                return network(torch.from_numpy(x).to(next(network.parameters()).dtype)).numpy()

        return ask

    return asked(wide), {"minicnn": lambda x: predict(x).numpy(), "torch": asked(twin)}


def table(record: dict[str, Any]) -> str:
    """The record as a Markdown table."""
    lines = [
        "| network | batch | minicnn largest | PyTorch largest | ratio | minicnn rms | PyTorch rms | ratio |",
        "|---|" + "---:|" * 7,
    ]
    lines += [
        "| {model} | {batch_size} | {minicnn_max:.1e} | {torch_max:.1e} | **{ratio_max:.2f}** "
        "| {minicnn_rms:.1e} | {torch_rms:.1e} | **{ratio_rms:.2f}** |".format(**row)
        for row in record["accuracy"]
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
