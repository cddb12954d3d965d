"""The options of a training run: their help texts, defaults and limits, and the recipes that set them by name.

A recipe is a TOML file in ``recipes/`` whose keys are fields of :class:`Config`. It may also have a ``description`` and
a table ``[measured]`` of what a run of it gave (test_accuracy, seconds, parameters, …), which change nothing.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from minicnn import backend, models, random
from minicnn.data import Splits, images
from minicnn.data.augment import option
from minicnn.expected import Either, Number, OneOf, check
from minicnn.text import brief
from minicnn.training import pretrained, start
from minicnn.training.options import TrainingOptions
from minicnn.training.pretrained import Pretrained

_RECIPES = Path(__file__).parent / "recipes"
_FROM_0, _FROM_OWN = Number(whole=True), Number(-1, whole=True)
_OF_DATA = ("num_classes", "image_size", "in_channels")  # options of a model


@dataclass(frozen=True)
class Config(TrainingOptions):
    """What determines the weights that a run ends with: these fields, and those of the loop and the augmentation."""

    model: str = option(
        "",
        f"{', '.join(models.names())}; or MODULE:FUNCTION of your own, called with num_classes, from the current "
        "folder or the path of Python (default: that of --weights, else lenet).",
        str, "Model",
    )  # fmt: skip
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

    def __post_init__(self) -> None:
        if self.normalize == "":
            object.__setattr__(self, "normalize", "weights" if self.weights else "mean-std")
        super().__post_init__()
        self.check_validation(self.validation)
        self._check_needed(whiten_bias="whiten", freeze="weights")
        if self.weights and self.whiten:
            raise ValueError("weights, whiten: expected one of them, received both")
        with random.use(random.Generator()):  # what draws are models for a look alone
            self._follow_weights()
            self._check_model()

    def _check_model(self) -> None:
        """Raise ValueError unless sizes, options and weights are those of the model."""
        for name in ("shift", "tta_shift"):
            check(getattr(self, name), Number(most=self.image_size - 1, whole=True), name)
        if 0 < self.resize < self.image_size:
            raise ValueError(f"resize: expected 0, or from image_size, {self.image_size}, received {self.resize}")
        if not self.model_options.keys().isdisjoint(_OF_DATA):
            raise ValueError(
                f"model_options: expected none that the data set has, received {brief(self.model_options)}; "
                "image_size and channels are options of their own"
            )
        plain = {name: list(value) if isinstance(value, tuple) else value for name, value in self.model_options.items()}
        object.__setattr__(self, "model_options", plain)  # as TOML and JSON have them
        if self.network_options or self.source:
            model = models.create(self.model, **self.network_options)
            if self.source:
                start.check_fit(model, self.source, self.weights)
                start.freeze(model, self.freeze)

    @cached_property
    def source(self) -> Pretrained | None:
        """The weights that training starts from, as they were when this configuration was made."""
        return pretrained.load(self.weights, backend.get("numpy")) if self.weights else None

    def _follow_weights(self) -> None:
        """Take the network of the weights, or by default, where it is not said."""
        models.find(self.model)  # before the weights, which may be of it
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
        models.require(self.model)

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
            return self.source.preprocessing.mean, self.source.preprocessing.std
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
