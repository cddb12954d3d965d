"""A run of a recipe on a GPU, from the folder that ``scripts/train.py --backend cupy`` wrote.

    python benchmarks/gpu_recipe.py runs/speedrun --json gpu-recipe.json

Exit codes: 0, 1 failure, 2 usage or no GPU; then one line says what.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import contest
import gpu


def main() -> None:
    """Read, print and save."""
    options = argparse.ArgumentParser(description="A run of a recipe on a GPU, for the results")
    options.add_argument("run", type=Path, help="the folder of the run")
    options.add_argument("--json", type=Path, metavar="FILE", help="write the results here")
    arguments = options.parse_args()
    xp = gpu.require().xp
    try:
        config, metrics = (
            json.loads((arguments.run / name).read_text(encoding="utf-8")) for name in ("config.json", "metrics.json")
        )
    except (OSError, ValueError) as error:
        sys.exit(f"{arguments.run}: expected the folder of a run that has ended: {error}")
    if config["backend"] != "cupy":
        sys.exit(f"{arguments.run}: expected a run on cupy, received one on {config['backend']}")
    record = {"gpu_recipe": config["recipe"], "dataset": config["dataset"], **gpu.conditions(xp)}
    record |= {"epochs": metrics["epochs"], "precision": metrics["compute_precision"]}
    record |= {"seconds": round(metrics["train_seconds"], 3), "img_s": round(metrics["images_per_second"], 1)}
    record["test_accuracy"] = metrics["test"]["accuracy"]
    print(table(record))
    contest.save(arguments.json, record)


def table(record: dict[str, Any]) -> str:
    """The record as a Markdown table."""
    return "\n".join(
        [
            "| recipe | data | epochs | precision | seconds of training | img/s | test accuracy |",
            "|---|---|---:|---|---:|---:|---:|",
            "| {gpu_recipe} | {dataset} | {epochs} | {precision} | {seconds:.2f} | {img_s:,.0f} "
            "| {test_accuracy:.2%} |".format(**record),
        ]
    )


if __name__ == "__main__":
    main()
