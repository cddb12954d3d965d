"""The options of the loop: their help texts, defaults and limits."""

import copy
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, Self

import numpy as np

from minicnn import optim
from minicnn.data import Augment
from minicnn.data.augment import option
from minicnn.expected import Either, Number, OneOf, Several
from minicnn.optim import schedules
from minicnn.precision import PRECISIONS
from minicnn.tensor import Tensor

_OPTIMIZERS = OneOf(("sgd", "adam", "adamw"))
_SCHEDULES = OneOf(("constant", "step", "multi-step", "cosine", "one-cycle", "linear", "plateau"))
_COUNT, _FROM_0, _AMOUNT, _SHARE = Number(1, whole=True), Number(whole=True), Number(), Number(most=1)
_optimisation = partial(option, panel="Optimisation")
_SGD = {"optimizer": ("sgd",)}


def _of_schedule(*names: str) -> dict[str, tuple[str, ...]]:
    return {"schedule": names}


@dataclass(frozen=True)
class TrainingOptions(Augment):
    """How a model is trained, whatever it is and whatever it is trained on; and how its pictures are changed.

    ``precision`` is that of :class:`minicnn.precision`, for the steps of the run, its validations and its test; the
    weights are float32 with either. The loop settles "auto".

    ``field.metadata`` has of each the "help", what is "expected", and the "panel" under which it is listed.
    """

    epochs: int = _optimisation(60, "Times that every training image is seen.", _COUNT)
    batch_size: int = _optimisation(128, "Images of one batch.", _COUNT)
    accumulate: int = _optimisation(1, "Batches whose gradients make one step (1: each its own).", _COUNT)
    optimizer: str = _optimisation("sgd", f"{', '.join(_OPTIMIZERS)}.", _OPTIMIZERS)
    lr: float = _optimisation(0.05, "Learning rate (the highest of its schedule).", Number(above=True))
    momentum: float = _optimisation(0.9, "Share of the past steps in a step of sgd (0: none).", _AMOUNT, needs=_SGD)
    nesterov: bool = _optimisation(False, "Nesterov's momentum.", bool, needs=_SGD)
    weight_decay: float = _optimisation(0.0, "Pull of the weights towards 0 (0: off).", _AMOUNT)
    decay_bias_and_norm: bool = _optimisation(True, "Weight decay of tensors with one axis too.", bool)
    bias_lr: float = _optimisation(
        1.0, "Factor of lr for tensors with one axis; their weight decay is divided by it.", Number(above=True)
    )
    schedule: str = _optimisation("constant", f"{', '.join(_SCHEDULES)}.", _SCHEDULES)
    warmup: int = _optimisation(0, "Epochs of linear warm-up (0: none).", _FROM_0)
    step_size: int = _optimisation(10, "Epochs between the steps of 'step'.", _COUNT, needs=_of_schedule("step"))
    gamma: float = _optimisation(
        0.1,
        "Factor of 'step', 'multi-step' and 'plateau'.",
        _SHARE,
        needs=_of_schedule("step", "multi-step", "plateau"),
    )
    milestones: tuple[int, ...] = _optimisation(
        (), "Epochs of 'multi-step', as 30,45.", [_COUNT], needs=_of_schedule("multi-step")
    )
    knots: tuple[tuple[float, float], ...] = _optimisation(
        ((0.0, 0.0), (0.2, 1.0), (1.0, 0.0)),
        "Share of the run and factor of lr at the bends of 'linear', as 0:0.2,0.25:1,1:0.",
        [(_SHARE, _AMOUNT)],
        needs=_of_schedule("linear"),
    )
    patience: int = _optimisation(10, "Epochs that 'plateau' waits.", _FROM_0, needs=_of_schedule("plateau"))
    label_smoothing: float = _optimisation(0.0, "Share of the target spread over all classes (0: off).", _SHARE)
    clip_norm: float = _optimisation(0.0, "Largest norm of the gradient (0: off).", _AMOUNT)
    clip_value: float = _optimisation(0.0, "Largest element of the gradient (0: off).", _AMOUNT)
    ema: float = _optimisation(
        0.0, "Decay a step of the averaged weights, which are then used (0: off).", Number(most=1, below=True)
    )
    lookahead: int = _optimisation(
        0, "Steps after which weights go back to their average, which is then used (0: off).", _FROM_0
    )
    lookahead_decay: float = _optimisation(
        0.95, "Decay a step of that average at the end of the run; it rises with the cube of the share done.", _SHARE,
        needs={"lookahead": ()},
    )  # fmt: skip
    early_stop: int = _optimisation(0, "Stop after so many epochs without a best (0: off).", _FROM_0)
    class_weights: str | tuple[float, ...] = _optimisation(
        "",
        "Factors of the classes in the loss of training: balanced, for n / (K n_k) with n_k of the n training images "
        "in class k; or one number a class, as 1,0.5,2. Accuracies and the validation loss count all images alike.",
        Either((OneOf(("", "balanced")), Several(Number(above=True)))),
    )
    augment_from: int = option(0, "First epoch, counted from 1, with augmentation (0: all).", _FROM_0)
    tta: bool = option(False, "Validate and test on the mean answer to a picture and its mirror image.", bool, "Run")
    tta_shift: int = option(
        0, "With --tta, pixels by which further views are shifted both ways; they count for a half (0: none).",
        _FROM_0, "Run",
    )  # fmt: skip
    precision: str = option(
        "float32",
        "What convolutions and linear layers multiply: float32; bf16, on a GPU or a CPU with AVX512_BF16; or tf32, on "
        "a GPU. auto: bf16 on a CPU with AMX, whose compiled steps are faster in it, tf32 on a GPU, otherwise float32.",
        OneOf((*PRECISIONS, "auto")),
        "Run",
    )
    seed: int = option(0, "Of initial weights, data order, changes and split.", _FROM_0, "Run")
    limit_batches: int = option(0, "Batches of an epoch, and of a validation, for a trial (0: all).", _FROM_0, "Run")
    overfit_batch: bool = option(
        False, "Train on the first batch alone, unchanged: its loss must reach 0.", bool, "Run"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.warmup >= self.epochs:
            raise ValueError(f"warmup: expected fewer than the {self.epochs} epochs, received {self.warmup}")
        if self.warmup and self.schedule == "plateau":
            raise ValueError(f"warmup: expected 0 with schedule plateau, received {self.warmup}")
        object.__setattr__(self, "milestones", tuple(self.milestones))  # TOML and JSON have lists
        object.__setattr__(self, "knots", tuple(map(tuple, self.knots)))
        if not isinstance(self.class_weights, str):
            object.__setattr__(self, "class_weights", tuple(self.class_weights))
        if self.ema and self.lookahead:
            raise ValueError("ema, lookahead: expected one of them, received both")
        self._check_needed(tta_shift="tta", alternate="flip")
        self.make_optimizer([Tensor(np.zeros(1, np.float32))])  # these know their other limits
        self.make_schedule(1)

    def _check_needed(self, **needed: str) -> None:
        """Raise ValueError for a field that is on where the field that it needs is off."""
        for name, other in needed.items():
            if getattr(self, name) and not getattr(self, other):
                raise ValueError(f"{name}: expected {other} with it, or {name} off")

    def check_validation(self, images: int) -> None:
        """Raise ValueError where there are no images to validate on, and something goes by them."""
        if not images and (self.early_stop or self.schedule == "plateau"):
            raise ValueError("schedule, early_stop: expected validation images with them, received validation 0")

    def unused(self, names: Collection[str]) -> dict[str, str]:
        """Return which of these fields are not at their defaults and do nothing without another, each with a sentence.

        Options may have such fields, as a recipe whose schedule was replaced has.
        """
        found = {}
        for each in fields(self):
            needs, default = each.metadata["needs"], each.default
            if not needs or each.name not in names or getattr(self, each.name) == default:
                continue
            values = {name: getattr(self, name) for name in needs}
            if not any(value in needs[name] if needs[name] else value for name, value in values.items()):
                wanted = " or ".join(" ".join([name, " or ".join(words)]).strip() for name, words in needs.items())
                received = ", ".join(f"{name} {value}" for name, value in values.items())
                found[each.name] = f"{each.name}: expected {wanted} with it, received {received}"
        return found

    def settled(self, precision: str) -> Self:
        """Return these options with ``precision`` in the place of "auto"."""
        if self.precision != "auto":
            return self
        made = copy.copy(self)  # not anew: what was read for them, as weights, is that of now
        object.__setattr__(made, "precision", precision)
        return made

    @property
    def augmentation(self) -> Augment:
        """The random changes of the training pictures."""
        return Augment(**{f.name: getattr(self, f.name) for f in fields(Augment)})

    def make_optimizer(self, parameters: Iterable[Tensor]) -> optim.Optimizer:
        """Return the optimizer of these options for ``parameters``."""
        groups: Any = list(parameters)
        if not self.decay_bias_and_norm or self.bias_lr != 1:
            decay = self.weight_decay / self.bias_lr if self.decay_bias_and_norm else 0.0
            one_axis = {"params": [p for p in groups if p.ndim < 2], "weight_decay": decay}
            if self.bias_lr != 1:
                one_axis["lr"] = self.lr * self.bias_lr
            groups = [{"params": [p for p in groups if p.ndim > 1]}, one_axis]
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
        elif self.schedule == "linear":
            after = schedules.piecewise_linear(self.lr, length, self.knots)
        else:
            after = schedules.constant(self.lr)
        return schedules.linear_warmup(after, self.warmup * steps)

    def weights_of_classes(self, labels: np.ndarray, classes: Sequence[str]) -> np.ndarray | None:
        """Return the factor of each class in the loss, float32 (K,), for the labels of the training images.

        Their mean over these images is 1, so that the steps are as long as without.

        Raises:
            ValueError: another number of factors than classes, or balanced ones where a class has no image.
        """
        if not self.class_weights:
            return None
        counts = np.bincount(labels, minlength=len(classes))
        if self.class_weights == "balanced":
            if missing := [name for name, count in zip(classes, counts, strict=True) if not count]:
                raise ValueError(
                    f"class_weights: expected a training image of each class where they are balanced, received none "
                    f"of {', '.join(missing[:5])}"
                )
            return (len(labels) / (len(classes) * counts)).astype(np.float32)
        if len(self.class_weights) != len(classes):
            raise ValueError(f"class_weights: expected {len(classes)} numbers, received {len(self.class_weights)}")
        weights = np.asarray(self.class_weights)
        return (weights * (len(labels) / np.dot(counts, weights))).astype(np.float32)

    @property
    def shaped_by_epochs(self) -> bool:
        """Whether what a step does depends on the number of epochs, which is then not to be changed."""
        return self.schedule in ("cosine", "one-cycle", "linear") or self.lookahead > 0
