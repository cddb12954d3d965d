"""Training on a GPU beside the same training on the CPU: how far the losses are apart.

    python benchmarks/gpu_agreement.py --json gpu-agreement.json

Compiled steps of SGD with momentum in float32, from the same weights, on the same pictures, others in every step.

Exit codes: 0, 1 where losses differ by more than a hundredth, or another failure, 2 usage or no GPU.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np

import contest
import gpu
import minicnn
import minicnn.functional as F
from cases import LEARNING_RATE, MOMENTUM
from cases_minicnn import make
from minicnn import Tensor, backend, optim

_MODELS = {"lenet": 128, "resnet20": 64}
"""Networks, and pictures a step."""
_BOUND = 0.01


def main() -> None:
    """Train on both, print and save."""
    options = argparse.ArgumentParser(description="Losses on a GPU beside those on the CPU")
    options.add_argument("--model", choices=_MODELS, nargs="+", default=list(_MODELS), help="networks (default: all)")
    options.add_argument("--batch-size", type=contest.batch_size, help="pictures a step (default: by the network)")
    options.add_argument("--steps", type=contest.whole(1, 10_000), default=30, help="of each network (default: 30)")
    options.add_argument("--json", type=Path, metavar="FILE", help="write the results here")
    arguments = options.parse_args()
    xp = gpu.require().xp
    rows = [follow(model, arguments.batch_size or _MODELS[model], arguments.steps) for model in arguments.model]
    record = {"gpu_agreement": rows, "steps": arguments.steps, **gpu.conditions(xp)}
    print(table(record))
    contest.save(arguments.json, record)
    if not all(row["apart"] <= _BOUND for row in rows):
        sys.exit(f"expected losses that differ by {_BOUND} of their size at most")


def follow(model: str, batch_size: int, steps: int) -> dict[str, Any]:
    """Return the first and the last losses of a network, and the largest difference relative to the CPU's loss."""
    there, here = (np.array(losses(model, batch_size, steps, name)) for name in ("cupy", "numpy"))
    row = {"model": model, "batch_size": batch_size, "apart": float(np.max(np.abs(there - here) / np.abs(here)))}
    return row | {"gpu": [float(there[0]), float(there[-1])], "cpu": [float(here[0]), float(here[-1])]}


def losses(name: str, batch_size: int, steps: int, where: str) -> list[float]:
    """Train a network on a backend; return the loss of each step."""
    with backend.use(where) as chosen:
        minicnn.manual_seed(0)
        model = make(name)
        optimizer = optim.SGD(model.parameters(), LEARNING_RATE, MOMENTUM)

        @minicnn.compile
        def step(x: Tensor, target: Tensor) -> Tensor:
            loss = F.cross_entropy(model(x), target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return loss

        rng, found = np.random.default_rng(0), []
        for _ in range(steps):
            images = rng.standard_normal((batch_size, 3, 32, 32), dtype=np.float32)
            labels = rng.integers(0, 10, batch_size)
            found.append(step(*(Tensor(chosen.asarray(array)) for array in (images, labels))).item())
        return found


def table(record: dict[str, Any]) -> str:
    """The record as a Markdown table."""
    lines = [
        "| network | batch | steps | largest difference of a loss | losses on the GPU | on the CPU |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for row in record["gpu_agreement"]:
        ends = " | ".join("{:.6f} to {:.6f}".format(*row[side]) for side in ("gpu", "cpu"))
        lines.append(f"| {row['model']} | {row['batch_size']} | {record['steps']} | {row['apart']:.1e} | {ends} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
