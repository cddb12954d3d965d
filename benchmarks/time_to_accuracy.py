"""How long a recipe takes to its accuracy, here and in PyTorch: the community's yardstick for CIFAR-10.

    python benchmarks/time_to_accuracy.py --dataset cifar10 --json benchmarks/results/time-to-accuracy.json

Whole runs, one a seed, as ``scripts/train.py`` makes them without validation: after each epoch the minutes of training
so far and the accuracy on the test images by one view, and near the target and at the end by all views that the recipe
averages. Nothing is chosen by it. Then a step of the recipe, its batch read and augmented, beside the same step in
PyTorch from the same weights, in turns in processes of their own: in channels-last, in float32 and under autocast to
bfloat16. PyTorch is not run to the end: its time is that of its step, times the steps of the run.

A seed that the file of ``--json`` has already is not run again; a file of other runs is not written over.

Exit codes: 0, 1 failure, 2 usage, or something is not installed; then one line says what.
"""

import importlib
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from statistics import mean, median, pstdev
from typing import Any

import contest
import runs
from minicnn import backend, data, plots
from minicnn.plots.style import BLUE, INK, ORANGE, legend_below, new_figure, plain
from minicnn.training import Trainer, recipe
from worker import Workload

_PEERS = {"PyTorch, float32": "float32", "PyTorch, bfloat16": "bf16"}


def main() -> None:
    """Train, measure, print, draw and save."""
    options = contest.parser("Minutes to an accuracy, beside PyTorch", rounds=3, seconds=8.0)
    options.add_argument("--recipe", choices=["speedrun"], default="speedrun", help="what is trained")
    runs.add_options(options)
    options.add_argument("--seeds", type=contest.whole(0, 100), default=3, help="whole runs")
    options.add_argument("--target", type=float, default=0.94, help="the accuracy that is timed")
    options.add_argument("--picture", type=Path, metavar="FILE", help="draw accuracy over minutes here")
    arguments = options.parse_args()
    contest.require("torch")
    overrides = runs.overrides(arguments)
    config = recipe(arguments.recipe, validation=0, **overrides).settled(backend.get("numpy").fastest_precision)
    splits = runs.load(arguments, config)
    record: dict[str, Any] = {"time_to_accuracy": arguments.recipe, **runs.identity(config, splits)}
    record["threads"] = arguments.threads
    record |= {"runs": runs.known(arguments.json, record), "target": arguments.target}
    for seed in range(arguments.seeds):
        if not any(run["seed"] == seed for run in record["runs"]):
            rows = runs.train(config.override(seed=seed), splits, f"seed {seed}", arguments.target)
            record["runs"].append({"seed": seed, "epochs": rows})
            contest.save(arguments.json, record)
    setting = {"recipe_name": arguments.recipe, "overrides": overrides, "dataset": splits.origin}
    setting["data_dir"] = str(arguments.data_dir.resolve()) if arguments.data_dir else ""
    sides = {"minicnn": ("minicnn", config.precision)} | {peer: ("torch", kind) for peer, kind in _PEERS.items()}
    workers = [
        contest.Worker("time_to_accuracy", arguments.threads, side=side, kind=kind, **setting)
        for side, kind in sides.values()
    ]
    try:
        turns = contest.take_turns(workers, "step", arguments.rounds, arguments.seconds)
    finally:
        for worker in workers:
            worker.__exit__(None, None, None)
    steps = config.epochs * workers[0].ready["steps"]
    record["steps"] = steps
    record["step_ms"] = {name: round(median(times), 2) for name, times in zip(sides, turns, strict=True)}
    ratios = [ours / min(theirs) for ours, *theirs in zip(*turns, strict=True)]
    record |= {"share_of_best_peer": round(median(ratios), 3), "shares": [round(ratio, 3) for ratio in ratios]}
    record |= contest.conditions(workers)
    print(table(record))
    contest.save(arguments.json, record)
    if arguments.picture:
        contest.write(arguments.picture, plots.to_png(picture(record)))


def table(record: dict[str, Any]) -> str:
    """The record as Markdown tables."""
    lines = []
    if record["runs"]:
        lines += ["| seed | minutes | accuracy | by one view | reached after |", "|---|" + "---:|" * 4]
        for run in record["runs"]:
            last = run["epochs"][-1]
            reached = next(
                (row["seconds"] for row in run["epochs"] if (row["accuracy"] or 0) >= record["target"]), None
            )
            when = "-" if reached is None else f"{reached / 60:.2f} min"
            accuracies = f"{last['accuracy']:.2%} | {last['plain_accuracy']:.2%}"
            lines.append(f"| {run['seed']} | {last['seconds'] / 60:.2f} | {accuracies} | {when} |")
        ends = [run["epochs"][-1] for run in record["runs"]]
        means = " | ".join(
            f"{mean(row[name] for row in ends):.2%} ± {pstdev([row[name] for row in ends]):.2%}"
            for name in ("accuracy", "plain_accuracy")
        )
        lines += [f"| mean | {mean(row['seconds'] for row in ends) / 60:.2f} | {means} | |", ""]
    lines += ["| side | ms a step | minutes for all steps |", "|---|---:|---:|"]
    lines += [f"| {name} | {ms:,.1f} | {ms * record['steps'] / 60_000:.2f} |" for name, ms in record["step_ms"].items()]
    low, high = min(record["shares"]), max(record["shares"])
    return "\n".join(
        [*lines, "", f"{record['share_of_best_peer']:.2f} of the best peer's time ({low:.2f} to {high:.2f})"]
    )


def picture(record: dict[str, Any]) -> Any:
    """Accuracy over minutes: the runs, and the first of them at the speed of PyTorch's best."""
    figure = new_figure(6.4, 4.2)
    axes = figure.subplots()
    for number, run in enumerate(record["runs"]):
        minutes = [row["seconds"] / 60 for row in run["epochs"]]
        accuracies = [100 * row["plain_accuracy"] for row in run["epochs"]]
        averaged = 100 * run["epochs"][-1]["accuracy"]
        label = None if number else "minicnn, a run"
        axes.plot(minutes, accuracies, color=BLUE, marker="o", markersize=3, linewidth=1.2, label=label)
        label = None if number else "its end by all views"
        axes.plot(minutes[-1:], [averaged], color=BLUE, marker="*", markersize=9, linestyle="", label=label)
        if not number:
            slower = [m / record["share_of_best_peer"] for m in minutes]
            label = "the same epochs at PyTorch's best speed"
            axes.plot(slower, accuracies, color=ORANGE, marker="o", markersize=3, linestyle="--", label=label)
            axes.plot(slower[-1:], [averaged], color=ORANGE, marker="*", markersize=9, linestyle="")
    axes.axhline(100 * record["target"], color=INK, linewidth=0.8, linestyle=":")
    axes.set_ylim(max(0, min(axes.get_ylim()[0], 90)), 96)
    plain(axes, f"Recipe {record['time_to_accuracy']}: test accuracy, %", "minutes of training")
    legend_below(figure, *axes.get_legend_handles_labels(), columns=2)
    return figure


def build(
    side: str, kind: str, recipe_name: str, overrides: dict[str, Any], dataset: str, data_dir: str
) -> Workload:  # fmt: skip
    """One task, "step": the next batch of the run, read, augmented and learned."""
    config = recipe(recipe_name, validation=0, **overrides)
    splits = data.load(dataset, data_dir or None, **config.split_options())
    trainer = Trainer(config, splits, backend.get("numpy"))
    trainer.prepare()

    def batches() -> Iterator[tuple[int, int, Any, Any]]:
        for epoch in count():
            for number, (images, labels) in enumerate(trainer.batches(epoch % config.epochs)):
                yield epoch % config.epochs, number, images, labels

    coming = batches()
    learn: Callable[..., object] = trainer.learn if side == "minicnn" else torch_step(trainer, kind == "bf16")
    facts = {"steps": trainer.batches_per_epoch}
    return Workload({"step": lambda: learn(*next(coming))}, precision=kind, facts=facts)


def torch_step(trainer: Trainer, bfloat16: bool) -> Callable[[int, int, Any, Any], float]:
    """Return the step of ``trainer`` as PyTorch's fastest form of it, from the same weights."""
    torch = importlib.import_module("torch")
    functional, config = torch.nn.functional, trainer.config
    model = _twin(torch, trainer)
    averages = {name: value.detach().clone() for name, value in model.state_dict().items()}
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": config.weight_decay / config.bias_lr},
    ]
    optimizer = torch.optim.SGD(groups, config.lr, config.momentum, nesterov=config.nesterov, foreach=True)

    def learn(epoch: int, number: int, images: Any, labels: Any) -> float:
        done = epoch * trainer.batches_per_epoch + number
        for group, factor in zip(optimizer.param_groups, (1, config.bias_lr), strict=True):
            group["lr"] = factor * trainer.schedule(done)
        if number == 0:
            model.whitening.bias.requires_grad_(epoch < config.whiten_bias)
        x = torch.from_numpy(images).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            loss = functional.cross_entropy(model(x), torch.from_numpy(labels), label_smoothing=config.label_smoothing)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        number = config.epochs * trainer.batches_per_epoch
        if (done + 1) % config.lookahead == 0 or done + 1 == number:
            share = (done + 1) / number
            decay = config.lookahead_decay**config.lookahead * share**3
            with torch.no_grad():
                for name, value in model.state_dict().items():
                    if value.is_floating_point():
                        averages[name].lerp_(value, 1 - decay)
                        value.copy_(averages[name])
        return float(loss.item())

    return learn


def _twin(torch: Any, trainer: Trainer) -> Any:
    """The trainer's model in PyTorch."""
    nn = torch.nn
    kinds = {
        "Conv2d": lambda m: nn.Conv2d(m.in_channels, m.out_channels, m.kernel_size, padding=m.padding, bias=False),
        "MaxPool2d": lambda m: nn.MaxPool2d(m.kernel_size),
        "BatchNorm2d": lambda m: nn.BatchNorm2d(m.num_features, m.eps, m.momentum),
        "GELU": lambda m: nn.GELU(),
    }
    ours = trainer.model

    class Twin(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.whitening = nn.Conv2d(3, 24, 2)
            self.features = nn.Sequential(*(kinds[type(layer).__name__](layer) for layer in ours.features))
            self.classifier = nn.Linear(ours.classifier.in_features, ours.classifier.out_features, bias=False)

        def forward(self, x: Any) -> Any:
            x = self.features(self.whitening(x)).amax((2, 3))
            return self.classifier(x) * ours.scale

    twin = Twin()
    state = {name: torch.from_numpy(tensor.numpy()) for name, tensor in ours.state_dict().items()}
    twin.load_state_dict(state, strict=False)  # which counts batches besides
    for name, parameter in twin.named_parameters():
        parameter.requires_grad_(dict(ours.named_parameters())[name].requires_grad)
    return twin.to(memory_format=torch.channels_last).train()


if __name__ == "__main__":
    main()
