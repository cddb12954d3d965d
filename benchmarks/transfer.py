"""What weights of other classes are worth to a folder of few pictures: transfer beside training from scratch.

    python benchmarks/transfer.py --dataset cifar10 --json benchmarks/results/transfer.json

A small network first learns some classes of the data set. Then it goes on with a folder of class folders that has 50
pictures of each of the others, as ``scripts/train.py --weights FILE --dataset FOLDER`` does: with all but its head
frozen, and with all trained; beside it the same network learns the same pictures from scratch. All three make the same
steps, those of the recipe "transfer", at the learning rate of a few that is the best for each on other training
pictures of these classes, with the first seeds. A seed draws the pictures and all that is random in a run.

It is honest in that the weights have never seen a picture of the classes that they are moved to. The shipped weights
know all ten of CIFAR-10: a folder of its pictures would ask them what they were taught. The accuracy is that of the
last epoch on test pictures by one view; nothing is chosen by it.

Exit codes: 0, 1 failure, 2 usage; then one line says what.
"""

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import mean, stdev
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from PIL import Image

import contest
from minicnn import backend, data
from minicnn.data.split import split
from minicnn.training import Config, Trainer, checkpoint, evaluate, recipe

_NETWORK: dict[str, Any] = {"model": "speednet", "model_options": {"widths": [32, 64, 64]}}
_RATES = {"features frozen": (0.1, 0.3, 1.0), "all trained": (0.01, 0.03, 0.1), "from scratch": (0.03, 0.1, 0.3)}
"""Of each way; at 3 and 10 the first is within a point of its best."""
_HELD_OUT = 150  # training pictures of a class by which rates are chosen
_CHOOSING = 2  # seeds for that


def main() -> None:
    """Train, print and save."""
    options = argparse.ArgumentParser(
        description="Transfer beside training from scratch", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    options.add_argument("--dataset", default="auto", help="as that of train.py")
    options.add_argument("--data-dir", type=Path, help="folder of the data")
    options.add_argument("--classes", nargs="+", default=["automobile", "cat", "dog", "truck"], help="of the folder")
    options.add_argument("--pictures", type=contest.whole(1, 10_000), default=50, help="of a class to train on")
    options.add_argument("--seeds", type=contest.whole(1, 100), default=5, help="folders and runs")
    options.add_argument("--epochs", type=contest.whole(1, 1000), default=30, help="of a run on the folder")
    options.add_argument("--source-epochs", type=contest.whole(1, 1000), default=6, help="on the other classes")
    options.add_argument("--json", type=Path, metavar="FILE", help="write the results here")
    arguments = options.parse_args()
    whole = data.load(arguments.dataset, arguments.data_dir, validation=0)
    if unknown := set(arguments.classes) - set(whole.train.classes):
        options.error(f"--classes: expected some of {', '.join(whole.train.classes)}, received {', '.join(unknown)}")
    with TemporaryDirectory() as scratch:
        weights = Path(scratch) / "source.safetensors"
        others = [name for name in whole.train.classes if name not in arguments.classes]
        record: dict[str, Any] = {"transfer": arguments.classes, "pictures": arguments.pictures}
        record |= {"source": others, "source_accuracy": _learn_source(whole, others, arguments.source_epochs, weights)}
        starts: dict[str, dict[str, Any]] = {
            "features frozen": {"weights": str(weights), "freeze": "features"},
            "all trained": {"weights": str(weights)},
            "from scratch": {"weights": "", **_NETWORK},
        }
        record["ways"] = [
            {"way": way, **_compare(whole, arguments, start, _RATES[way])} for way, start in starts.items()
        ]
    record |= {"epochs": arguments.epochs, "dataset": whole.name, **contest.conditions([])}
    print(table(record))
    contest.save(arguments.json, record)


def _learn_source(whole: data.Splits, classes: Sequence[str], epochs: int, file: Path) -> float:
    """Train the network on these classes, write its weights, and return its accuracy on their test pictures."""
    train, test = (_of_classes(part, classes) for part in (whole.train, whole.test))
    config = recipe("speedrun", epochs=epochs, batch_size=512, precision="float32", **_NETWORK)
    trainer = _finished(config, split(train, None, test, validation=0))
    checkpoint.save(file, *trainer.weights())
    return _accuracy(trainer, "test")


def _compare(whole: data.Splits, arguments: Any, start: dict[str, Any], rates: Sequence[float]) -> dict[str, Any]:
    """Return the rate that is the best on held out pictures, and the test accuracy of each seed with it."""

    def run(seed: int, rate: float, part: str) -> float:
        with _folder(whole, arguments.classes, arguments.pictures, seed) as folder:
            config = recipe("transfer", epochs=arguments.epochs, seed=seed, lr=rate, validation=-1, **start)
            return _accuracy(_finished(config, data.load(str(folder), **config.split_options())), part)

    choosing = range(min(_CHOOSING, arguments.seeds))
    found = {rate: mean(run(seed, rate, "validation") for seed in choosing) for rate in rates}
    best = max(found, key=lambda rate: found[rate])
    tested = [run(seed, best, "test") for seed in range(arguments.seeds)]
    return {"lr": best, "validation": found, "test": tested, "mean": mean(tested), "deviation": _deviation(tested)}


def _finished(config: Config, splits: data.Splits) -> Trainer:
    trainer = Trainer(config, splits, backend.get("numpy"))
    while not trainer.finished:
        trainer.run_epoch()
    return trainer


def _accuracy(trainer: Trainer, part: str) -> float:
    return evaluate(trainer.averaged, trainer.loader(part)).accuracy


def _deviation(values: Sequence[float]) -> float:
    return stdev(values) if len(values) > 1 else 0.0


def _of_classes(part: data.Dataset, classes: Sequence[str]) -> data.Dataset:
    """Return the pictures of these classes, numbered in their order."""
    known = [part.classes.index(name) for name in classes]
    chosen = part.subset(np.flatnonzero(np.isin(part.labels, known)))
    labels = np.array([known.index(label) for label in chosen.labels], np.int64)
    return data.Dataset(chosen.images, labels, tuple(classes), part.name)


@contextmanager
def _folder(whole: data.Splits, classes: Sequence[str], pictures: int, seed: int) -> Iterator[Path]:
    """Write train/CLASS, val/CLASS and test/CLASS, and remove them after the ``with`` block.

    Training pictures of the data set are drawn by ``seed`` for the first two; the third has all its test pictures.
    """
    rng = np.random.default_rng(seed)
    with TemporaryDirectory() as root:
        for name in classes:
            label = whole.train.classes.index(name)
            drawn = rng.permutation(np.flatnonzero(whole.train.labels == label))[: pictures + _HELD_OUT]
            parts = {
                "train": whole.train.images[drawn[:pictures]],
                "val": whole.train.images[drawn[pictures:]],
                "test": whole.test.images[whole.test.labels == label],
            }
            for part, images in parts.items():
                folder = Path(root) / "pictures" / part / name
                folder.mkdir(parents=True)
                for number, image in enumerate(images):
                    Image.fromarray(image.transpose(1, 2, 0)).save(folder / f"{number:04}.png")
        yield Path(root) / "pictures"


def table(record: dict[str, Any]) -> str:
    """The record as a Markdown table."""
    lines = ["| start | learning rate | test accuracy | deviation | seeds |", "|---|" + "---:|" * 4]
    lines += [
        f"| {way['way']} | {way['lr']:g} | **{way['mean']:.1%}** | {way['deviation']:.1%} | {len(way['test'])} |"
        for way in record["ways"]
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
