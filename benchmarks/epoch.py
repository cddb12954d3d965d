"""What reading and augmenting the pictures costs: images a second of an epoch, beside those of the bare step.

    python benchmarks/epoch.py --recipe lenet --json benchmarks/results/epoch-lenet.json

Both run in one process, in turns, on as many random pictures as CIFAR-10 has to train on. The bare step is the recipe's
compiled step on one batch that stays where it is; in an epoch, as ``scripts/train.py`` runs it, a batch is gathered,
augmented and normalised, the learning rate set, the step made, and loss and hits are counted.

Exit codes: 0, 1 failure, 2 usage; then one line says what.
"""

from collections.abc import Iterator
from itertools import count
from statistics import median
from typing import Any

import numpy as np

import contest
from minicnn import Tensor, backend
from minicnn.data import Dataset, Splits
from minicnn.training import Trainer, recipe_card, recipe_names
from minicnn.training.update import Update
from worker import Workload

_RECORDS = 45_000


def main() -> None:
    """Measure, print and save."""
    options = contest.parser("An epoch's images a second beside the bare step's", rounds=10, seconds=1.0)
    options.add_argument("--recipe", choices=recipe_names(), default="lenet", help="model, step and augmentation")
    arguments = options.parse_args()
    size = recipe_card(arguments.recipe).config.batch_size
    with contest.Worker("epoch", arguments.threads, recipe=arguments.recipe) as worker:
        turns = [
            [worker.milliseconds(task, arguments.seconds) for task in ("step", "epoch")]
            for _ in range(arguments.rounds + 1)
        ][1:]
    shares = [step / epoch for step, epoch in turns]
    step, epoch = (1000 * size / median(times) for times in zip(*turns, strict=True))
    print(f"{arguments.recipe}, batch {size}, {arguments.threads} threads")
    print(f"bare step {step:10,.0f} img/s")
    print(f"epoch     {epoch:10,.0f} img/s, {median(shares):.2f} of it ({min(shares):.2f} to {max(shares):.2f})")
    record = {
        "epoch": arguments.recipe,
        "batch_size": size,
        "threads": arguments.threads,
        "step_img_s": round(step, 1),
        "epoch_img_s": round(epoch, 1),
        "share": round(median(shares), 3),
        "shares": [round(share, 3) for share in shares],
        "rounds": arguments.rounds,
        "seconds": arguments.seconds,
    }
    contest.save(arguments.json, record | contest.conditions([worker]))


def build(recipe: str) -> Workload:
    """Two tasks: "step" and, a batch a call, "epoch"."""
    rng = np.random.default_rng(0)
    classes = tuple("abcdefghij")

    def part(records: int) -> Dataset:
        images = rng.integers(0, 256, (records, 3, 32, 32), dtype=np.uint8)
        return Dataset(images, rng.integers(0, len(classes), records), classes, "noise")

    splits = Splits(part(_RECORDS), part(100), part(100), "noise", (0.5,) * 3, (0.29,) * 3)
    config = recipe_card(recipe).config
    trainer = Trainer(config, splits, backend.get("numpy"))
    trainer.prepare()
    update = Update(trainer.model, config)

    def batches() -> Iterator[tuple[int, Any, Any]]:
        for epoch in count():
            for number, (images, labels) in enumerate(trainer.batches(epoch)):
                yield number, images, labels

    coming = batches()
    _, images, labels = next(coming)
    still = Tensor(images), Tensor(labels)

    def learn() -> None:
        number, images, labels = next(coming)
        trainer.learn(0, number, images, labels)

    return Workload({"step": lambda: update(*still), "epoch": learn})


if __name__ == "__main__":
    main()
