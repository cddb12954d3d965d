"""What each ingredient of the recipe ``speedrun`` is worth: the accuracy that it loses without that one alone.

    python benchmarks/ablation.py --dataset cifar10 --json benchmarks/results/ablation.json

Whole runs on all training images, tested on the test images by all views that the recipe averages and by one. Nothing
is chosen by it. What is lost is the difference of two runs of one seed. A run has the epochs of ``--epochs``, over
which schedule, Lookahead and alternating flips stretch; only ``whiten_bias`` remains a number of epochs. A run whose
loss is not finite has diverged, and its ingredient has no figure.

What the file of ``--json`` has already is not run again, so that the same command goes on where it was broken off, with
more seeds or ingredients if these are named; a file of other runs is not written over.

Exit codes: 0, 1 failure, 2 usage; then one line says what.
"""

import argparse
import math
from collections.abc import Iterable
from pathlib import Path
from statistics import mean, pstdev
from typing import Any

import contest
import runs
from minicnn import backend, plots
from minicnn.plots.style import BLUE, FAINT, INK, ORANGE, legend_below, new_figure, plain
from minicnn.training import Config, TrainingError, recipe

_RECIPE = "speedrun"
INGREDIENTS: dict[str, dict[str, Any]] = {
    "whitening": {"whiten": 0, "whiten_bias": 0},  # the convolution starts and learns as any other
    "fixed-bias": {"whiten_bias": 0},  # that of the whitening learns to the end, not for some epochs
    "dirac": {"model_options": {"dirac": False}},
    "scaled-logits": {"model_options": {"scale": 1.0}},
    "gelu": {"model_options": {"activation": "relu"}},
    "bias-rate": {"bias_lr": 1.0},
    "nesterov": {"nesterov": False},
    "momentum": {"momentum": 0.0, "nesterov": False, "lr": 10.0},  # lr / (1 - momentum): a gradient moves as far
    "triangle": {"schedule": "constant", "lr": 0.825},  # the mean of its rates: the same sum of rates, and of decays
    "weight-decay": {"weight_decay": 0.0},
    "label-smoothing": {"label_smoothing": 0.0},
    "lookahead": {"lookahead": 0},
    "alternation": {"alternate": False},  # flips at random
    "flip": {"flip": 0.0, "alternate": False},
    "shift": {"shift": 0},
}
"""By name, what stands in the :class:`Config` of a run without the ingredient."""
_VIEWS = {"tta": False, "tta_shift": 0}
"""Without averaged views nothing else is trained: it is the whole recipe's answer to one view."""


def main() -> None:
    """Train, print, draw and save."""
    options = argparse.ArgumentParser(
        description=f"What the recipe {_RECIPE} loses without each of its ingredients",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    runs.add_options(options, epochs=5)
    options.add_argument("--seeds", type=contest.whole(1, 100), default=1, help="runs of the recipe, and without each")
    everything = list(INGREDIENTS)
    options.add_argument(
        "--only", choices=everything, nargs="+", default=everything, metavar="NAME", help="what to leave out, one each"
    )
    options.add_argument("--json", type=Path, metavar="FILE", help="write the results here")
    options.add_argument("--picture", type=Path, metavar="FILE", help="draw what is lost here")
    arguments = options.parse_args()
    config = recipe(_RECIPE, validation=0, **runs.overrides(arguments)).settled(backend.get("numpy").fastest_precision)
    splits = runs.load(arguments, config)
    record: dict[str, Any] = {"ablation": _RECIPE, **runs.identity(config, splits)}
    record |= {"runs": runs.known(arguments.json, record), **contest.conditions([])}
    contest.save(arguments.json, record)  # hours later it would be too late to learn that this is not possible
    for run in planned(arguments.only, arguments.seeds):
        if not any(run.items() <= done.items() for done in record["runs"]):
            record["runs"].append(run | _result(config.override(**run["overrides"], seed=run["seed"]), splits, run))
            contest.save(arguments.json, record)
    print(table(record))
    if arguments.picture:
        contest.write(arguments.picture, plots.to_png(picture(record)))


def planned(names: Iterable[str], seeds: int) -> list[dict[str, Any]]:
    """Return the runs to make: of each seed the whole recipe, then without each of these ingredients."""
    without: dict[str, dict[str, Any]] = {"nothing": {}} | {name: INGREDIENTS[name] for name in names}
    return [
        {"left_out": name, "overrides": overrides, "seed": seed}
        for seed in range(seeds)
        for name, overrides in without.items()
    ]


def _result(config: Config, splits: Any, run: dict[str, Any]) -> dict[str, Any]:
    """Train; -> seconds, epochs, the accuracy by all views and by one, or why it has none."""
    try:
        rows = runs.train(config, splits, f"without {run['left_out']}, seed {run['seed']}")
    except TrainingError as error:
        print(f"without {run['left_out']}, seed {run['seed']}: {error}", flush=True)
        return {"diverged": str(error)}
    return {"epochs": len(rows), **rows[-1]}


def losses(record: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a row of each ingredient, what loses most first.

    ``left_out``; ``instead``: what the runs without it have; ``seeds``: how many there are; ``diverged``: whether one
    has. In lists of the others, ``accuracy`` and ``loss`` by all views, ``plain_accuracy`` and ``plain_loss`` by one;
    losses where the whole recipe has a run of the seed. The first row is the whole recipe, with losses of 0.
    """
    whole = {run["seed"]: run for run in record["runs"] if run["left_out"] == "nothing"}
    by_one_view = [
        {"left_out": "views", "overrides": _VIEWS, "seed": seed, "accuracy": run["plain_accuracy"]}
        for seed, run in whole.items()
        if "diverged" not in run
    ]
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for run in [*record["runs"], *by_one_view]:
        what = {"left_out": run["left_out"], "instead": _words(run["overrides"])}
        row = rows.setdefault(tuple(what.values()), what | {"seeds": 0, "diverged": False})
        row["seeds"] += 1
        row["diverged"] |= "diverged" in run
        for name, lost in (("accuracy", "loss"), ("plain_accuracy", "plain_loss")):
            found, before = run.get(name), whole.get(run["seed"], {}).get(name)
            row.setdefault(name, []).extend([] if found is None else [found])
            row.setdefault(lost, []).extend([] if None in (found, before) else [before - found])

    def merit(row: dict[str, Any]) -> tuple[bool, bool, float]:
        return row["left_out"] != "nothing", not row["diverged"], -mean(row["loss"] or [math.inf])

    return sorted(rows.values(), key=merit)


def _words(overrides: dict[str, Any]) -> str:
    """The overrides as "schedule constant, lr 0.825"."""
    flat = {name: value for name, value in overrides.items() if name != "model_options"}
    flat |= overrides.get("model_options", {})
    return ", ".join(f"{name} {str(value).lower()}" for name, value in flat.items())


def table(record: dict[str, Any]) -> str:
    """The record as a Markdown table; losses are points of accuracy."""
    lines = ["| left out | instead | accuracy | loss | by one view | loss | seeds |", "|---|---|" + "---:|" * 5]
    for row in losses(record):
        cells = [_mean(row["accuracy"], "%"), _mean(row["loss"]), _mean(row["plain_accuracy"], "%")]
        cells = ["diverged", "-", "-", "-"] if row["diverged"] else [*cells, _mean(row["plain_loss"])]
        lines.append(f"| {row['left_out']} | {row['instead']} | {' | '.join(cells)} | {row['seeds']} |")
    return "\n".join(lines)


def _mean(shares: list[float], unit: str = "") -> str:
    """Mean and, of several, deviation, in hundredths."""
    if not shares:
        return "-"
    return f"{100 * mean(shares):z.2f}{unit}" + (f" ± {100 * pstdev(shares):.2f}{unit}" if len(shares) > 1 else "")


def picture(record: dict[str, Any]) -> Any:
    """A bar for what each ingredient is worth by all views, with the range of the seeds, and a dot for it by one.

    Bars that are far longer than most are cut, with a gap, and end at the same place; their figures tell them apart.
    """
    _, *rows = losses(record)
    figure = new_figure(7.2, 1.4 + 0.27 * max(len(rows), 1))
    axes = figure.subplots()
    drawn = [{name: [100 * share for share in row[name]] for name in ("loss", "plain_loss")} for row in rows]
    ends = [max([0.0, *points["loss"], *points["plain_loss"]]) for points in drawn]
    reach = _reach([end for end, row in zip(ends, rows, strict=True) if not row["diverged"]])
    label: str | None = "by one view"
    for place, (row, points, end) in enumerate(zip(rows, drawn, ends, strict=True)):
        shown = points["loss"] and not row["diverged"]
        words = "diverged" if row["diverged"] else _mean(row["loss"])
        if shown:
            cut = end > reach
            end = 1.12 * reach if cut else end
            axes.barh(place, end if cut else mean(points["loss"]), height=0.66, color=BLUE)
            if cut:
                axes.plot([1.03 * reach, 1.06 * reach], [place + 0.42, place - 0.42], color="white", linewidth=4)
            else:
                axes.plot([min(points["loss"]), max(points["loss"])], [place] * 2, color=INK, linewidth=1.2)
        else:
            end = 0.0
        if shown and points["plain_loss"] and not cut:
            looks: dict[str, Any] = {"marker": "o", "markersize": 5, "markeredgecolor": "white", "linestyle": ""}
            axes.plot(mean(points["plain_loss"]), place, color=ORANGE, label=label, **looks)
            label = None
        axes.annotate(words, (end, place), (5, 0), textcoords="offset points", va="center", fontsize=8, color=FAINT)
    epochs, seeds = record["config"]["epochs"], max([len(row["loss"]) for row in rows], default=0)
    below = f"points of test accuracy lost without it, {epochs} epochs, {seeds} seed{'s' * (seeds != 1)}"
    plain(axes, f"What the ingredients of {record['ablation']} are worth", below)
    axes.grid(axis="y", visible=False)
    axes.axvline(0, color=INK, linewidth=0.8)
    axes.set_yticks(range(len(rows)), [row["left_out"] for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.margins(x=0.12)
    if label is None:
        legend_below(figure, *axes.get_legend_handles_labels())
    return figure


def _reach(ends: list[float]) -> float:
    """The longest bar that is not cut: of at most four times the length that three quarters of them have."""
    ordered = sorted(ends)
    usual = ordered[3 * (len(ordered) - 1) // 4] if ordered else 0.0
    return max([end for end in ordered if end <= 4 * usual], default=0.0) if usual > 0 else max(ordered, default=0.0)


if __name__ == "__main__":
    main()
