"""The options of a training run: their help texts, defaults and limits, and the recipes that set them by name.

A recipe is a TOML file in ``recipes/`` whose keys are fields of :class:`Config`. It may also have a ``description`` and
a table ``[measured]`` of what a run of it gave (test_accuracy, seconds, parameters, …), which change nothing.
"""

import copy
import tomllib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from minicnn import backend, models, optim, random
from minicnn.data import Augment, Splits, images
from minicnn.data.augment import option
from minicnn.expected import Either, Number, OneOf, check
from minicnn.optim import schedules
from minicnn.precision import PRECISIONS
from minicnn.tensor import Tensor
from minicnn.text import brief
from minicnn.training import pretrained, start
from minicnn.training.pretrained import Pretrained

_RECIPES = Path(__file__).parent / "recipes"
_OPTIMIZERS = OneOf(("sgd", "adam", "adamw"))
_SCHEDULES = OneOf(("constant", "step", "multi-step", "cosine", "one-cycle", "linear", "plateau"))
_COUNT, _FROM_0, _AMOUNT, _SHARE = Number(1, whole=True), Number(whole=True), Number(), Number(most=1)
_FROM_OWN = Number(-1, whole=True)
_OF_DATA = ("num_classes", "image_size", "in_channels")  # options of a model
_optimisation = partial(option, panel="Optimisation")
_SGD = {"optimizer": ("sgd",)}


def _of_schedule(*names: str) -> dict[str, tuple[str, ...]]:
    return {"schedule": names}


@dataclass(frozen=True)
class Config(Augment):
    """What determines the weights that a run ends with: these fields, and those of the augmentation.

    ``precision`` is that of :class:`minicnn.precision`, for the steps of the run, its validations and its test; the
    weights are float32 with either. A :class:`~minicnn.training.Trainer` settles "auto".

    ``field.metadata`` has of each the "help", what is "expected", and the "panel" under which it is listed.
    """

    model: str = option("", f"{', '.join(models.names())} (default: that of --weights, else lenet).", str, "Model")
    model_options: Mapping[str, Any] = option(
        dict, "An option of the model, as depth=20; may be given several times.", dict, "Model"
    )
    weights: str = option(
        "",
        "Weights to start from, a name of shipped ones or a .safetensors or .h5 file: network, its options and "
        "normalisation are theirs. The linear layer that makes the logits is new, unless they know the same classes.",
        str, "Model",
    )  # fmt: skip
    freeze: int | str = option(
        0,
        "First stages of --weights that stay as they are, with the statistics of batch norm and without dropout "
        "(0: none; features: all but the last linear layer). A stage is a convolution, linear layer, or residual or "
        "transformer block, and what follows it up to the next.",
        Either((_FROM_0, OneOf((start.FEATURES,)))), "Model",
    )  # fmt: skip
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
    augment_from: int = option(0, "First epoch, counted from 1, with augmentation (0: all).", _FROM_0)
    whiten: int = option(
        0, "Training images whose patches fill the first convolution, which is then fixed (0: off).", _FROM_0, "Model"
    )
    whiten_bias: int = option(0, "Epochs after which its bias is fixed too (0: never).", _FROM_0, "Model")
    normalize: str = option(
        "",
        "mean-std, of the training images; unit, to [0, 1]; weights, as those of --weights (their default).",
        OneOf(("mean-std", "unit", "weights")), "Data",
    )  # fmt: skip
    validation: int = option(
        -1, "Images to validate on (-1: the data set's own; 0: none, and the last epoch is kept).", _FROM_OWN, "Data"
    )
    train_size: int = option(0, "Images to train on (0: all others).", _FROM_0, "Data")
    skip_damaged: bool = option(False, "Go on without the pictures of a folder that cannot be read.", bool, "Data")
    image_size: int = option(
        0, "Height and width of the pictures, pixels (0: as those of --weights, else 32).",
        Number(most=images.MOST, whole=True), "Data",
    )  # fmt: skip
    channels: int = option(
        0, "Of the pictures: 3, or 1 for grey (0: as those of --weights, else 3).",
        Number(most=4096, whole=True), "Data",
    )  # fmt: skip
    resize: int = option(
        -1,
        "Length of the shorter side, pixels, before the middle of image_size is cut out, or, with random_resized_crop, "
        "before parts are drawn (0: the middle square becomes image_size; -1: as those of --weights, else 0).",
        Number(-1, images.MOST, whole=True), "Data",
    )  # fmt: skip
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
        if self.normalize == "":
            object.__setattr__(self, "normalize", "weights" if self.weights else "mean-std")
        super().__post_init__()
        streams = random.get_state()
        self._follow_weights()
        for name in ("shift", "tta_shift"):
            check(getattr(self, name), Number(most=self.image_size - 1, whole=True), name)
        if 0 < self.resize < self.image_size:
            raise ValueError(f"resize: expected 0, or from image_size, {self.image_size}, received {self.resize}")
        if self.warmup >= self.epochs:
            raise ValueError(f"warmup: expected fewer than the {self.epochs} epochs, received {self.warmup}")
        if self.warmup and self.schedule == "plateau":
            raise ValueError(f"warmup: expected 0 with schedule plateau, received {self.warmup}")
        if not self.model_options.keys().isdisjoint(_OF_DATA):
            raise ValueError(
                f"model_options: expected none that the data set has, received {brief(self.model_options)}; "
                "image_size and channels are options of their own"
            )
        plain = {name: list(value) if isinstance(value, tuple) else value for name, value in self.model_options.items()}
        object.__setattr__(self, "model_options", plain)  # as TOML and JSON have them
        object.__setattr__(self, "milestones", tuple(self.milestones))  # these have lists
        object.__setattr__(self, "knots", tuple(map(tuple, self.knots)))
        if self.ema and self.lookahead:
            raise ValueError("ema, lookahead: expected one of them, received both")
        if not self.validation and (self.early_stop or self.schedule == "plateau"):
            raise ValueError("schedule, early_stop: expected validation images with them, received validation 0")
        if self.weights and self.whiten:
            raise ValueError("weights, whiten: expected one of them, received both")
        pairs = [("tta_shift", "tta"), ("whiten_bias", "whiten"), ("alternate", "flip"), ("freeze", "weights")]
        for name, needed in pairs:
            if getattr(self, name) and not getattr(self, needed):
                raise ValueError(f"{name}: expected {needed} with it, or {name} off")
        self.make_optimizer([Tensor(np.zeros(1, np.float32))])  # these know their other limits
        self.make_schedule(1)
        if self.network_options or self.source:
            model = models.create(self.model, **self.network_options)
            if self.source:
                start.check_fit(model, self.source, self.weights)
                start.freeze(model, self.freeze)
        random.set_state(streams)

    @cached_property
    def source(self) -> Pretrained | None:
        """The weights that training starts from, as they were when this configuration was made."""
        return pretrained.load(self.weights, backend.get("numpy")) if self.weights else None

    def _follow_weights(self) -> None:
        """Take the network of the weights, or by default, where it is not said."""
        model, options = "lenet", {}
        if self.source:
            model, options = self.source.name, self.source.metadata["options"]
            if self.weights not in pretrained.names():
                object.__setattr__(self, "weights", str(Path(self.weights).resolve()))
            if self.model not in ("", model):
                raise ValueError(f"model: expected {model}, as that of {self.weights}, received {brief(self.model)}")
        elif self.normalize == "weights":
            raise ValueError("normalize: expected weights with it, or another normalize")
        object.__setattr__(self, "model", self.model or model)
        own = {name: value for name, value in options.items() if name not in _OF_DATA}
        object.__setattr__(self, "model_options", {**own, **self.model_options})
        shape = self.source.shape if self.source else images.SMALL
        for name, value in (("image_size", shape.size), ("channels", shape.channels)):
            object.__setattr__(self, name, getattr(self, name) or value)
        if self.resize < 0:  # that of the weights is for their size
            object.__setattr__(self, "resize", shape.resize if self.image_size == shape.size else 0)
        check(self.model, OneOf(models.names()), "model")  # those of now

    def unused(self, names: Collection[str]) -> dict[str, str]:
        """Return which of these fields are not at their defaults and do nothing without another, each with a sentence.

        A configuration may have such fields, as a recipe whose schedule was replaced has.
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

    def settled(self, precision: str) -> "Config":
        """Return this configuration with ``precision`` in the place of "auto"."""
        if self.precision != "auto":
            return self
        made = copy.copy(self)  # not anew: the weights of ``source`` are those of now
        object.__setattr__(made, "precision", precision)
        return made

    @property
    def augmentation(self) -> Augment:
        """The random changes of the training pictures."""
        return Augment(**{f.name: getattr(self, f.name) for f in fields(Augment)})

    def make_optimizer(self, parameters: Iterable[Tensor]) -> optim.Optimizer:
        """Return the optimizer of this configuration for ``parameters``."""
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

    @property
    def shaped_by_epochs(self) -> bool:
        """Whether what a step does depends on the number of epochs, which is then not to be changed."""
        return self.schedule in ("cosine", "one-cycle", "linear") or self.lookahead > 0

    @property
    def network_options(self) -> dict[str, Any]:
        """The options of the model, with those that follow from the pictures."""
        return {**models.options_for(self.model, self.image_size, self.channels), **self.model_options}

    @property
    def crop(self) -> int:
        """The size to which stored pictures are cropped, where random crops are taken out of larger ones; else 0."""
        return self.image_size if self.random_resized_crop and self.resize > self.image_size else 0

    def scaling(self, splits: Splits) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Return mean and deviation of the channels, with which pictures are normalised."""
        if self.normalize == "weights" and self.source:
            return self.source.mean, self.source.std
        channels = len(splits.mean)
        return (splits.mean, splits.std) if self.normalize == "mean-std" else ((0.0,) * channels, (1.0,) * channels)

    def split_options(self) -> dict[str, Any]:
        """Return the options with which :func:`minicnn.data.load` reads and splits the data."""
        validation = None if self.validation < 0 else self.validation
        options = {"seed": self.seed, "validation": validation, "train_size": self.train_size or None}
        others = {"image_size": self.image_size, "channels": self.channels, "resize": self.resize}
        others |= {"margin": bool(self.crop), "skip_damaged": self.skip_damaged}
        usual = {"image_size": images.SMALL.size, "channels": images.SMALL.channels}
        return options | {name: value for name, value in others.items() if value != usual.get(name, 0)}

    def override(self, **overrides: Any) -> "Config":
        """Return this configuration with some fields replaced, the options of the model one by one.

        Those of another model are dropped. Other weights have their own network: model, options, whitening and
        normalisation of before are dropped.

        Raises:
            ValueError: a value out of range.
        """
        if overrides.get("weights", self.weights) != self.weights:
            network = {"model": "", "model_options": {}, "normalize": "", "whiten": 0, "whiten_bias": 0}
            network |= {"image_size": 0, "channels": 0, "resize": -1}
            return replace(self, **{**network, **overrides})
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
    check(name, OneOf(recipe_names()), "recipe")
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
