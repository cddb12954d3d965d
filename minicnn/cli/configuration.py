"""What a training run is made of, from the command line: the options that stand for Config's fields, the recipe, data.

The options are made from the fields, so that a name and its help text are written once.
"""

import copy
import functools
import inspect
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import Field, fields, replace
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import typer

from minicnn import data, models
from minicnn.cli.options import UsageError, usage_errors
from minicnn.training import Config, checkpoint, recipe
from minicnn.training.progress import waiting
from minicnn.training.state import stored_config

Dataset = Annotated[
    str, typer.Option(help="auto (CIFAR-10, else digits), cifar10, digits, or a folder of class folders.")
]
RecipeName = Annotated[
    str,
    typer.Option(
        "--recipe",
        help="A set of options by name; train --recipe list shows them (default: transfer with --weights, else lenet, "
        "or digits on digits). With --weights its network, whitening and normalisation are left out.",
    ),
]
_NUMBER = r"\d+(?:\.\d*)?|\.\d+"
_PANELS = ("Run", "Data", "Model", "Optimisation", "Augmentation")
# Of the command's own options; the others are of the run.
_OWN_PANELS = dict.fromkeys(
    ("dataset", "data_dir", "skip_damaged", "memory", "image_size", "channels", "resize"), "Data"
)


def with_config(command: Callable[..., int], options: type = Config) -> Callable[..., int]:
    """Give a command an option for every field of ``options``, of Config or what it inherits from.

    Its argument ``given`` receives those that are on the command line, by the field's name. Its own options come first.
    """

    @functools.wraps(command)
    def run(**arguments: Any) -> int:
        given = {f.name: arguments.pop(f.name, None) for f in fields(options)}
        return command(**arguments, given=_parsed(given))

    signature = inspect.signature(command)
    own = [_in_panel(p) for p in signature.parameters.values() if p.name != "given"]
    listed = sorted([*own, *map(_option, fields(options))], key=lambda pair: _PANELS.index(pair[0]))
    parameters = [parameter for _, parameter in listed]
    run.__annotations__ = {p.name: p.annotation for p in parameters} | {"return": int}
    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return run


def choose(source: Mapping[str, str], given: dict[str, Any], stored: checkpoint.Checkpoint | None) -> dict[str, Config]:
    """Return the configurations to choose from, by recipe: one, but for "auto" also that of the digits."""
    named = source.get("recipe") or ("transfer" if given.get("weights") else "")
    recipes = (
        [named] if named else {"auto": ["lenet", "digits"], "digits": ["digits"]}.get(source["dataset"], ["lenet"])
    )
    with usage_errors():
        models.find(given.get("model", ""))  # which a stored run may be of
    base = stored_config(stored.metadata, stored.arrays) if stored is not None else None
    with usage_errors():
        configs = {name: base.override(**given) if base else recipe(name, **given) for name in recipes}
        for config in configs.values():
            data.ImageShape(config.image_size, config.channels, config.resize)  # it knows what files can become
        check_useful(given, configs.values())
    return configs


def check_useful(given: Mapping[str, Any], configs: Iterable[Config]) -> None:
    """Raise ValueError for an option that does nothing with any of the configurations that it has become a part of."""
    unused = [config.unused(given) for config in configs]
    for name in given:
        if all(name in each for each in unused):
            raise ValueError(unused[0][name])


def precisions(configs: Mapping[str, Config]) -> set[str]:
    """Return the precisions that a backend must have for these configurations: "auto" is one that it has."""
    return {config.precision for config in configs.values()} - {"auto"}


def prepare(
    given: dict[str, Any], recipe_name: str, dataset: str, data_dir: Path | None
) -> tuple[dict[str, str], dict[str, Config]]:
    """Return what names a recipe and its data, for :func:`load`, and the configurations to choose from."""
    source = {"recipe": recipe_name, "dataset": dataset or "auto", "data_dir": str(data_dir or "")}
    return source, choose(source, given, None)


def load(
    source: Mapping[str, str], configs: Mapping[str, Config], memory: float | None = None
) -> tuple[data.Splits, str]:
    """Load a data set, split as its configuration says; memory: GiB. -> it, and the name of that configuration."""

    def split(dataset: str, config: Config) -> data.Splits:
        with reading(dataset):
            return data.load(dataset, source.get("data_dir") or None, memory=memory, **config.split_options())

    name = next(iter(configs))
    splits = split(source["dataset"], configs[name])
    if splits.name == "digits" and len(configs) > 1:  # "auto" fell back, and the digits have another recipe
        return replace(split("digits", configs["digits"]), note=splits.note), "digits"
    return splits, name


def reading(dataset: str) -> AbstractContextManager[Any]:
    """Show that the pictures of a folder are read, during a `with` block; the data sets with a name are quick.

    Or they are downloaded, which has a bar of its own.
    """
    return nullcontext() if dataset in data.NAMES else waiting(f"reading the pictures in {dataset}")


def _in_panel(parameter: inspect.Parameter) -> tuple[str, inspect.Parameter]:
    kind, option = get_args(parameter.annotation)
    option, panel = copy.copy(option), _OWN_PANELS.get(parameter.name, "Run")
    option.rich_help_panel = panel
    return panel, parameter.replace(annotation=Annotated[kind, option], kind=inspect.Parameter.KEYWORD_ONLY)


def _option(field: Field[Any]) -> tuple[str, inspect.Parameter]:
    """The option for a field, None where it is not given."""
    panel, kind = field.metadata["panel"], field.type
    names: list[str] = []
    if get_origin(kind) is Mapping:
        kind, names = list[str], ["--" + field.name.removesuffix("s").replace("_", "-")]
    elif kind not in (bool, int, float):  # a word, one of some words, or several numbers
        kind = str
    option = typer.Option(
        *names,
        help=field.metadata["help"],
        metavar="NAME=VALUE" if names else None,
        show_default=False,
        rich_help_panel=panel,
    )
    annotation = Annotated[kind | None, option]  # type: ignore[valid-type]
    return panel, inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def _parsed(given: dict[str, Any]) -> dict[str, Any]:
    """The values of the options that are given, as Config has them."""
    given = {name: value for name, value in given.items() if value is not None and value != []}
    if "milestones" in given:
        given["milestones"] = _whole_numbers("milestones", given["milestones"])
    for name in ("crop_scale", "crop_ratio"):
        if name in given:
            given[name] = _numbers(name, given[name], "two numbers as 0.25,1")
    if "knots" in given:
        given["knots"] = _knots(given["knots"])
    if re.match(r"[\d.]", given.get("class_weights", "")):
        given["class_weights"] = _numbers("class_weights", given["class_weights"], "balanced, or numbers as 1,0.5,2")
    if given.get("freeze", "").isdecimal():
        given["freeze"] = int(given["freeze"])
    if "model_options" in given:
        given["model_options"] = dict(map(_named_value, given["model_options"]))
    return given


def _whole_numbers(name: str, words: str) -> tuple[int, ...]:
    if not re.fullmatch(r"\d+(,\d+)*", words):
        raise UsageError(f"{name}: expected whole numbers as 30,45, received {words!r}")
    return tuple(int(word) for word in words.split(","))


def _numbers(name: str, words: str, what: str) -> tuple[float, ...]:
    if not re.fullmatch(rf"({_NUMBER})(,({_NUMBER}))*", words):
        raise UsageError(f"{name}: expected {what}, received {words!r}")
    return tuple(map(float, words.split(",")))


def _knots(words: str) -> tuple[tuple[float, ...], ...]:
    if not re.fullmatch(rf"({_NUMBER}):({_NUMBER})(,({_NUMBER}):({_NUMBER}))*", words):
        raise UsageError(f"knots: expected pairs of numbers as 0:0.2,0.25:1,1:0, received {words!r}")
    return tuple(tuple(map(float, pair.split(":"))) for pair in words.split(","))


def _named_value(words: str) -> tuple[str, Any]:
    """NAME=VALUE, the value as in TOML; a word that TOML does not know is text, as a shell takes the quotes away."""
    name, equals, value = words.partition("=")
    if not (equals and name.isidentifier()):
        raise UsageError(f"model_option: expected NAME=VALUE as depth=20, received {words!r}")
    if re.fullmatch(r"[A-Za-z][\w-]*", value) and value not in ("true", "false", "inf", "nan"):
        return name, value
    try:
        return name, tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"model_option: expected a TOML value for {name}, received {value!r}") from error
