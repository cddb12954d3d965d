"""The options of a training run: their help texts, defaults and limits, and the recipes that set them by name.

A recipe is a TOML file in ``recipes/`` whose keys are fields of :class:`Config`. It may also have a ``description`` and
a table ``[measured]`` of what a run of it gave (test_accuracy, seconds, parameters, …), which change nothing.
"""

import math
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np

from minicnn import models, optim, random
from minicnn.data import Augment, Splits
from minicnn.optim import schedules
from minicnn.tensor import Tensor
from minicnn.text import brief
from minicnn.training.stored import LARGEST, Number

_RECIPES = Path(__file__).parent / "recipes"
_CHOICES = {
    "optimizer": ("sgd", "adam", "adamw"),
    "schedule": ("constant", "step", "multi-step", "cosine", "one-cycle", "plateau"),
    "normalize": ("mean-std", "unit"),
}


def _option(default: Any, panel: str, help: str) -> Any:
    """A field with what the command line says of it: a sentence with the unit and what turns it off, and a heading."""
    return field(default=default, metadata={"help": help, "panel": panel})


@dataclass(frozen=True)
class Config(Augment):
    """What determines the weights that a run ends with: these fields, and those of the augmentation.

    ``field.metadata`` has the "help" of each and, but for the augmentation, the "panel" under which it is listed.
    """

    model: str = _option("lenet", "Model", f"{', '.join(models.names())}.")
    model_options: Mapping[str, Any] = field(
        default_factory=dict,
        metadata={"help": "An option of the model, as depth=20; may be given several times.", "panel": "Model"},
    )
    epochs: int = _option(60, "Optimisation", "Times that every training image is seen.")
    batch_size: int = _option(128, "Optimisation", "Images of one batch.")
    accumulate: int = _option(1, "Optimisation", "Batches whose gradients make one step (1: each its own).")
    optimizer: str = _option("sgd", "Optimisation", f"{', '.join(_CHOICES['optimizer'])}.")
    lr: float = _option(0.05, "Optimisation", "Learning rate (the highest of its schedule).")
    momentum: float = _option(0.9, "Optimisation", "Share of the past steps in a step of sgd (0: none).")
    nesterov: bool = _option(False, "Optimisation", "Nesterov's momentum.")
    weight_decay: float = _option(0.0, "Optimisation", "Pull of the weights towards 0 (0: off).")
    decay_bias_and_norm: bool = _option(True, "Optimisation", "Weight decay of tensors with one axis too.")
    schedule: str = _option("constant", "Optimisation", f"{', '.join(_CHOICES['schedule'])}.")
    warmup: int = _option(0, "Optimisation", "Epochs of linear warm-up (0: none).")
    step_size: int = _option(10, "Optimisation", "Epochs between the steps of 'step'.")
    gamma: float = _option(0.1, "Optimisation", "Factor of 'step', 'multi-step' and 'plateau'.")
    milestones: tuple[int, ...] = _option((), "Optimisation", "Epochs of 'multi-step', as 30,45.")
    patience: int = _option(10, "Optimisation", "Epochs that 'plateau' waits.")
    label_smoothing: float = _option(0.0, "Optimisation", "Share of the target spread over all classes (0: off).")
    clip_norm: float = _option(0.0, "Optimisation", "Largest norm of the gradient (0: off).")
    clip_value: float = _option(0.0, "Optimisation", "Largest element of the gradient (0: off).")
    ema: float = _option(0.0, "Optimisation", "Decay a step of the averaged weights, which are then used (0: off).")
    early_stop: int = _option(0, "Optimisation", "Stop after so many epochs without a best (0: off).")
    augment_from: int = _option(0, "Augmentation", "First epoch, counted from 1, with augmentation (0: all).")
    normalize: str = _option("mean-std", "Data", "mean-std, or unit for [0, 1].")
    validation: int = _option(0, "Data", "Images to validate on (0: the data set's own).")
    train_size: int = _option(0, "Data", "Images to train on (0: all others).")
    skip_damaged: bool = _option(False, "Data", "Go on without the pictures of a folder that cannot be read.")
    tta: bool = _option(False, "Run", "Validate and test on the mean answer to a picture and its mirror image.")
    seed: int = _option(0, "Run", "Of initial weights, data order, changes and split.")
    limit_batches: int = _option(0, "Run", "Batches of an epoch, and of a validation, for a trial (0: all).")
    overfit_batch: bool = _option(False, "Run", "Train on the first batch alone, unchanged: its loss must reach 0.")

    def __post_init__(self) -> None:
        super().__post_init__()
        _one_of("model", self.model, models.names())
        for name, choices in _CHOICES.items():
            _one_of(name, getattr(self, name), choices)
        for name in ("epochs", "batch_size", "step_size", "accumulate"):
            _check(name, getattr(self, name), int, 1)
        for name in ("warmup", "patience", "early_stop", "augment_from", "validation", "train_size", "seed"):
            _check(name, getattr(self, name), int)
        _check("limit_batches", self.limit_batches, int)
        _check("shift", self.shift, int, 0, 31)  # pictures are 32 x 32
        for name in ("clip_norm", "clip_value"):
            _check(name, getattr(self, name), int | float)
        for name in ("label_smoothing", "gamma"):
            _check(name, getattr(self, name), int | float, 0, 1)
        for name in ("nesterov", "decay_bias_and_norm", "skip_damaged", "tta", "overfit_batch"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name}: expected true or false, received {brief(getattr(self, name))}")
        if not isinstance(self.milestones, list | tuple):
            raise ValueError(f"milestones: expected a list of whole numbers, received {brief(self.milestones)}")
        object.__setattr__(self, "milestones", tuple(self.milestones))  # TOML and JSON have lists
        for milestone in self.milestones:
            _check("milestones", milestone, int, 1)
        if self.lr not in Number() or self.lr == 0:
            raise ValueError(f"lr: expected a number above 0, received {brief(self.lr)}")
        if self.ema not in Number(most=1) or self.ema == 1:
            raise ValueError(f"ema: expected a number from 0 to less than 1, received {brief(self.ema)}")
        if self.warmup >= self.epochs:
            raise ValueError(f"warmup: expected fewer than the {self.epochs} epochs, received {self.warmup}")
        if not isinstance(self.model_options, Mapping) or "num_classes" in self.model_options:
            raise ValueError(
                "model_options: expected names and values, without num_classes, which the data set has; "
                f"received {brief(self.model_options)}"
            )
        plain = {name: list(value) if isinstance(value, tuple) else value for name, value in self.model_options.items()}
        object.__setattr__(self, "model_options", plain)  # as TOML and JSON have them
        self.make_optimizer([Tensor(np.zeros(1, np.float32))])  # these know their other limits
        self.make_schedule(1)
        if self.model_options:
            streams = random.get_state()
            models.create(self.model, **self.model_options)
            random.set_state(streams)

    @property
    def augmentation(self) -> Augment:
        """The random changes of the training pictures."""
        return Augment(**{f.name: getattr(self, f.name) for f in fields(Augment)})

    def make_optimizer(self, parameters: Iterable[Tensor]) -> optim.Optimizer:
        """Return the optimizer of this configuration for ``parameters``."""
        groups: Any = list(parameters)
        if not self.decay_bias_and_norm:
            groups = [
                {"params": [p for p in groups if p.ndim > 1]},
                {"params": [p for p in groups if p.ndim < 2], "weight_decay": 0.0},
            ]
        if self.optimizer == "sgd":
            return optim.SGD(groups, self.lr, self.momentum, 0.0, self.weight_decay, self.nesterov)
        kind = optim.Adam if self.optimizer == "adam" else optim.AdamW
        return kind(groups, self.lr, weight_decay=self.weight_decay)

    def make_schedule(self, steps: int) -> schedules.Schedule:
        """Return the schedule, step -> learning rate, for ``steps`` optimizer steps an epoch."""
        length = (self.epochs - self.warmup) * steps
        after: schedules.Schedule
        if self.schedule == "plateau":
            return schedules.ReduceOnPlateau(self.lr, self.gamma, self.patience)
        if self.schedule == "step":
            after = schedules.step(self.lr, self.step_size * steps, self.gamma)
        elif self.schedule == "multi-step":
            after = schedules.multi_step(self.lr, [epoch * steps for epoch in self.milestones], self.gamma)
        elif self.schedule == "cosine":
            after = schedules.cosine(self.lr, length)
        elif self.schedule == "one-cycle":
            after = schedules.one_cycle(self.lr, length)
        else:
            after = schedules.constant(self.lr)
        return schedules.linear_warmup(after, self.warmup * steps)

    @property
    def shaped_by_epochs(self) -> bool:
        """Whether the learning rate of a step depends on the number of epochs, which is then not to be changed."""
        return self.schedule in ("cosine", "one-cycle")

    def scaling(self, splits: Splits) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Return mean and deviation of the channels, with which pictures are normalised."""
        return (splits.mean, splits.std) if self.normalize == "mean-std" else ((0.0,) * 3, (1.0,) * 3)

    def split_options(self) -> dict[str, Any]:
        """Return the options with which :func:`minicnn.data.load` splits the data."""
        options = {"seed": self.seed, "validation": self.validation or None, "train_size": self.train_size or None}
        return options | ({"skip_damaged": True} if self.skip_damaged else {})

    def override(self, **overrides: Any) -> "Config":
        """Return this configuration with some fields replaced, the options of the model one by one.

        Those of another model are dropped.

        Raises:
            ValueError: a value out of range.
        """
        options = overrides.get("model_options", {})
        if overrides.get("model", self.model) == self.model:
            options = {**self.model_options, **options}
        return replace(self, **{**overrides, "model_options": options})


@dataclass(frozen=True)
class RecipeCard:
    """A recipe with what is known of it; ``measured``: of a run of it, {} if there was none."""

    name: str
    config: Config
    description: str
    measured: Mapping[str, Any]


def recipe_names() -> tuple[str, ...]:
    """Return the names of the recipes."""
    return tuple(sorted(path.stem for path in _RECIPES.glob("*.toml")))


def recipe_card(name: str) -> RecipeCard:
    """Return everything in the recipe ``name``; ValueError for an unknown name or a value out of range."""
    _one_of("recipe", name, recipe_names())
    values = tomllib.loads((_RECIPES / f"{name}.toml").read_text(encoding="utf-8"))
    description, measured = values.pop("description", ""), values.pop("measured", {})
    unknown = set(values) - {f.name for f in fields(Config)}
    if unknown:
        raise ValueError(f"recipe {name}: unknown fields {', '.join(sorted(unknown))}")
    return RecipeCard(name, Config(**values), description, measured)


def recipe(name: str, **overrides: Any) -> Config:
    """Return the recipe ``name`` with some fields replaced, as :meth:`Config.override` does.

    Raises:
        ValueError: an unknown name or a value out of range.
    """
    return recipe_card(name).config.override(**overrides)


def _one_of(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        close = get_close_matches(str(value), choices, 1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"{name}: expected one of {', '.join(choices)}, received {brief(value)}{hint}")


def _check(name: str, value: Any, kind: Any, least: float = 0, most: float = math.inf) -> None:
    if value not in Number(least, min(most, LARGEST), kind is int):
        number = "a whole number" if kind is int else "a number"
        limit = f"from {least:g} to {most:g}" if math.isfinite(most) else f"from {least:g}"
        raise ValueError(f"{name}: expected {number} {limit}, received {brief(value)}")
