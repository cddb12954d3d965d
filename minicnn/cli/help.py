"""The help of the commands as plain text, in which a terminal of 80 columns leaves room for the sentences."""

import inspect
import json
import re
from collections.abc import Callable
from typing import Any

from typer.core import TyperCommand, TyperGroup

from minicnn import models

_OF_THE_DATA = {"num_classes", "image_size", "in_channels"}  # set by what is trained on


class Command(TyperCommand):
    """A command whose options stand under headings; with ``--model-option`` those of the models follow."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the options, in the order of the panels of the first of each."""
        panels: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            panel = getattr(parameter, "rich_help_panel", None) or "Options"
            kind = "Arguments" if parameter.param_type_name == "argument" else panel
            record = parameter.get_help_record(ctx)
            panels.setdefault(kind, []).extend([record] if record else [])
        if any(parameter.name == "model_options" for parameter in self.params):
            panels["Options of the models, for --model-option"] = model_options()
        for heading, records in panels.items():
            with formatter.section(heading):
                formatter.write_dl(records)


class Commands(TyperGroup):
    """All commands, listed with the first lines of their help, however long."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the list."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, (each.help or "").partition("\n")[0]) for name, each in self.commands.items()])


def model_options() -> list[tuple[str, str]]:
    """Return each option of the models with its default, as ``--model-option`` takes it, and its meaning."""
    having: dict[tuple[str, str], list[str]] = {}  # the models that have an option of this default and meaning
    for name in models.names():
        factory = models.factory(name)
        for option, parameter in inspect.signature(factory).parameters.items():
            if option not in _OF_THE_DATA:
                default = "" if parameter.default is parameter.empty else f"={_written(parameter.default)}"
                having.setdefault((f"{option}{default}", documented(factory).get(option, "")), []).append(name)
    return [(f"{', '.join(names)}: {option}", meaning) for (option, meaning), names in having.items()]


def documented(function: Callable[..., Any]) -> dict[str, str]:
    """Return the text of each argument, from the section "Args:" of a docstring in Google's style.

    What a function does not say may stand in the docstring of the class that it returns.
    """
    returned = None if inspect.isclass(function) else inspect.signature(function).return_annotation
    _, _, section = (inspect.getdoc(function) or "").partition("\nArgs:\n")
    section = re.split(r"\n(?=\S)", section)[0]  # up to the next heading
    found = re.findall(r"^ {4}(\w+): (.*(?:\n {5,}.*)*)", section, re.MULTILINE)
    own = {name: " ".join(text.replace("``", "").split()) for name, text in found}
    return (documented(returned) if inspect.isclass(returned) else {}) | own


def _written(value: Any) -> str:
    """A default as TOML, which the command line takes."""
    return f"{value:.4g}" if isinstance(value, float) else json.dumps(value)
