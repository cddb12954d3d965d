"""show: a batch before and after augmentation."""

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from minicnn import files, plots
from minicnn.backend import to_numpy
from minicnn.cli.configuration import Dataset, RecipeName, load, prepare, with_config
from minicnn.cli.folders import check_png, held_for
from minicnn.cli.options import BackendName, DataDir, Debug, SkipDamaged, UsageError, choose_backend
from minicnn.data import Augment, Loader
from minicnn.text import shown


@partial(with_config, options=Augment)
def show(
    given: dict[str, Any],
    recipe_name: RecipeName = "",
    dataset: Dataset = "",
    data_dir: DataDir = None,
    skip_damaged: SkipDamaged = False,
    backend: BackendName = "auto",
    image_size: Annotated[int, typer.Option(min=0, help="Height and width, pixels (0: the recipe's).")] = 0,
    channels: Annotated[int, typer.Option(min=0, help="3, or 1 for grey (0: the recipe's).")] = 0,
    resize: Annotated[int, typer.Option(min=0, help="As of train (0: the recipe's).")] = 0,
    seed: Annotated[int | None, typer.Option(min=0, help="Of order and changes (default: the recipe's).")] = None,
    batch: Annotated[int, typer.Option(min=0, help="Which batch of the first epoch, counted from 0.")] = 0,
    count: Annotated[int, typer.Option(min=1, help="Pictures in the batch.")] = 16,
    out: Annotated[Path, typer.Option(help="The picture, a PNG file.")] = Path("augmented.png"),
    debug: Debug = False,
) -> int:
    """Draw training pictures as they are, and below as a recipe's augmentation changes them.

    Options that are not given are those of the recipe.
    """
    check_png(out)
    given |= {"skip_damaged": skip_damaged} | ({} if seed is None else {"seed": seed})
    shape = {"image_size": image_size, "channels": channels, "resize": resize}
    given |= {name: value for name, value in shape.items() if value}
    chosen = choose_backend(backend, 0)
    source, configs = prepare(given, recipe_name, dataset, data_dir)  # checked before any data loads
    splits, name = load(source, configs)
    config = configs[name]
    mean, std = config.scaling(splits)
    scaling: dict[str, Any] = {"mean": mean, "std": std}
    loader = Loader(
        splits.train,
        count,
        shuffle=True,
        augment=config.augmentation,
        image_size=config.crop,
        seed=config.seed,
        backend=chosen,
        **scaling,
    )
    if batch >= len(loader):
        raise UsageError(f"--batch: expected one of the {len(loader)} batches, from 0, received {batch}")
    before, labels = next(loader.epoch(0, batch, augment=False))
    after, targets = next(loader.epoch(0, batch))
    captions = _captions(to_numpy(labels), to_numpy(targets), splits.train.classes)
    figure = plots.before_after(_bytes(before, **scaling), _bytes(after, **scaling), captions)
    with held_for(out):
        files.atomic_write(out, plots.to_png(figure))
    print(f"data: {shown(splits.note)}")
    print(f"wrote {shown(out)}: {len(before)} pictures of {shown(splits.name)}, recipe {name}")
    return 0


def _bytes(images: Any, mean: Any, std: Any) -> np.ndarray:
    """Normalised (n, C, H, W) as uint8."""
    levels = 255 * (to_numpy(images) * np.reshape(std, (-1, 1, 1)) + np.reshape(mean, (-1, 1, 1)))
    return np.clip(np.rint(levels), 0, 255).astype(np.uint8)


def _captions(labels: np.ndarray, targets: np.ndarray, classes: tuple[str, ...]) -> list[str]:
    """The class of each picture, and where pictures are mixed its share and the class of the other."""
    captions = [classes[label] for label in labels]
    if targets.ndim == 2:
        for i, (label, shares) in enumerate(zip(labels, targets, strict=True)):
            others = np.flatnonzero((shares > 0) & (np.arange(len(classes)) != label))
            captions[i] = " + ".join([f"{shares[label]:.0%} {captions[i]}", *(classes[other] for other in others)])
    return captions
