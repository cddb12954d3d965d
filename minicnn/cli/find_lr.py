"""find-lr: the learning rate to start with."""

from dataclasses import replace
from typing import Annotated, Any

import typer

from minicnn import files, plots
from minicnn.cli.configuration import Dataset, RecipeName, load, precisions, prepare, with_config
from minicnn.cli.folders import check_holds_no_run, held, new_folder
from minicnn.cli.options import BackendName, DataDir, Debug, Out, Threads, choose_backend, naming_memory
from minicnn.text import shown
from minicnn.training import Trainer
from minicnn.training.lr_finder import learning_rate_test, smoothed, suggestion
from minicnn.training.progress import waiting


@with_config
def find_lr(
    given: dict[str, Any],
    recipe_name: RecipeName = "",
    dataset: Dataset = "",
    data_dir: DataDir = None,
    backend: BackendName = "auto",
    threads: Threads = 0,
    out: Out = None,
    steps: Annotated[int, typer.Option(min=10, help="Batches to train on at most.")] = 200,
    debug: Debug = False,
) -> int:
    """Train for some batches while the learning rate rises from 1e-6 to 10, and suggest a rate (Smith, 2017).

    The suggestion is where the loss falls the most steeply; find_lr.png and find_lr.csv show the whole course.
    Options that are not given are those of the recipe.
    """
    check_holds_no_run(out)
    source, configs = prepare(given, recipe_name, dataset, data_dir)  # checked before any data loads
    chosen = choose_backend(backend, threads, *precisions(configs))
    splits, name = load(source, configs)
    config = configs[name]
    print(f"data: {shown(splits.note)}")
    whole = replace(config, batch_size=config.batch_size * config.accumulate, accumulate=1)  # a step of the same images
    folder = out or new_folder("find-lr", splits.name, config.model.replace(":", "-"))
    with held(folder), naming_memory(chosen, config.batch_size):
        with waiting(f"training with rising rates, up to {steps} steps"):
            rates, losses = learning_rate_test(Trainer(whole, splits, chosen), steps)
        best = suggestion(rates, losses)
        smooth = smoothed(losses)
        rows = zip(rates, losses, smooth, strict=True)
        lines = ["learning_rate,loss,smoothed_loss", *(",".join(map(repr, row)) for row in rows)]
        files.atomic_write(folder / "find_lr.csv", "\n".join(lines) + "\n")
        files.atomic_write(folder / "find_lr.png", plots.to_png(plots.learning_rates(rates, losses, smooth, best)))
    print(f"suggestion: --lr {best:.2g}, where the loss falls most steeply ({len(rates)} steps, up to {rates[-1]:.2g})")
    print(f"wrote {shown(folder)}")
    return 0
