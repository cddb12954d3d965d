"""The options of a training run: their defaults, their limits, and the recipes that set them by name.

A recipe is a TOML file in ``recipes/`` whose keys are fields of :class:`Config`.
"""

import math
import tomllib
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np

from minicnn import models, optim
from minicnn.optim import schedules
from minicnn.tensor import Tensor

_RECIPES = Path(__file__).parent / "recipes"
_CHOICES = {
    "optimizer": ("sgd", "adam", "adamw"),
    "schedule": ("constant", "step", "multi-step", "cosine", "one-cycle", "plateau"),
    "normalize": ("mean-std", "unit"),
    "padding_mode": ("reflect", "constant"),
}


@dataclass(frozen=True)
class Config:
    """What determines the weights that a run ends with. Lengths of time are in epochs.

    step_size, gamma, milestones: of the step, multi-step and plateau schedules (there ``gamma`` is the factor and
    ``patience`` the epochs to wait). normalize: to channel mean 0 and deviation 1, or ("unit") to [0, 1].
    clip_norm, clip_value, early_stop: 0 is off. validation, train_size: 0 leaves the data set's own.
    """

    model: str = "lenet"
    relu_logits: bool = False
    epochs: int = 60
    batch_size: int = 128
    optimizer: str = "sgd"
    lr: float = 0.05
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 0.0
    schedule: str = "constant"
    warmup: int = 0
    step_size: int = 10
    gamma: float = 0.1
    milestones: tuple[int, ...] = ()
    patience: int = 10
    label_smoothing: float = 0.0
    clip_norm: float = 0.0
    clip_value: float = 0.0
    early_stop: int = 0
    normalize: str = "mean-std"
    flip: float = 0.0
    shift: int = 0
    padding_mode: str = "reflect"
    validation: int = 0
    train_size: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        _one_of("model", self.model, models.names())
        if self.relu_logits and self.model != "lenet":
            raise ValueError(f"relu_logits: expected the model lenet, which has it, received {self.model}")
        for name, choices in _CHOICES.items():
            _one_of(name, getattr(self, name), choices)
        for name in ("epochs", "batch_size", "step_size"):
            _check(name, getattr(self, name), int, 1)
        for name in ("warmup", "patience", "early_stop", "validation", "train_size", "seed"):
            _check(name, getattr(self, name), int)
        _check("shift", self.shift, int, 0, 31)  # pictures are 32 x 32
        for name in ("clip_norm", "clip_value"):
            _check(name, getattr(self, name), int | float)
        for name in ("flip", "label_smoothing", "gamma"):
            _check(name, getattr(self, name), int | float, 0, 1)
        object.__setattr__(self, "milestones", tuple(self.milestones))  # TOML and JSON have lists
        for milestone in self.milestones:
            _check("milestones", milestone, int, 1)
        if not isinstance(self.lr, int | float) or not 0 < self.lr < math.inf:
            raise ValueError(f"lr: expected a number above 0, received {self.lr!r}")
        if self.warmup >= self.epochs:
            raise ValueError(f"warmup: expected fewer than the {self.epochs} epochs, received {self.warmup}")
        self.make_optimizer([Tensor(np.zeros(1, np.float32))])  # these two know their other limits
        self.make_schedule(1)

    def make_optimizer(self, parameters: Any) -> optim.Optimizer:
        """Return the optimizer of this configuration for ``parameters``."""
        if self.optimizer == "sgd":
            return optim.SGD(parameters, self.lr, self.momentum, 0.0, self.weight_decay, self.nesterov)
        kind = optim.Adam if self.optimizer == "adam" else optim.AdamW
        return kind(parameters, self.lr, weight_decay=self.weight_decay)

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

    def split_options(self) -> dict[str, Any]:
        """Return the options with which :func:`minicnn.data.load` splits the data."""
        return {"seed": self.seed, "validation": self.validation or None, "train_size": self.train_size or None}

    def model_options(self) -> dict[str, Any]:
        """Return the options with which :func:`minicnn.models.create` makes the model."""
        return {"relu_logits": True} if self.relu_logits else {}


def recipe_names() -> tuple[str, ...]:
    """Return the names of the recipes."""
    return tuple(sorted(path.stem for path in _RECIPES.glob("*.toml")))


def recipe(name: str, **overrides: Any) -> Config:
    """Return the recipe ``name`` with some fields replaced.

    Raises:
        ValueError: an unknown name or a value out of range.
    """
    _one_of("recipe", name, recipe_names())
    values = tomllib.loads((_RECIPES / f"{name}.toml").read_text(encoding="utf-8"))
    unknown = set(values) - {field.name for field in fields(Config)}
    if unknown:
        raise ValueError(f"recipe {name}: unknown fields {', '.join(sorted(unknown))}")
    return replace(Config(**values), **overrides)


def _one_of(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        close = get_close_matches(value, choices, 1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"{name}: expected one of {', '.join(choices)}, received {value!r}{hint}")


def _check(name: str, value: Any, kind: Any, least: float = 0, most: float = math.inf) -> None:
    if not isinstance(value, kind) or not (least <= value <= most and math.isfinite(value)):
        number = "a whole number" if kind is int else "a number"
        limit = f"from {least:g} to {most:g}" if math.isfinite(most) else f"from {least:g}"
        raise ValueError(f"{name}: expected {number} {limit}, received {value!r}")
