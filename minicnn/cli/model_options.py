"""What the help of a command says of the options of the models: read from their signatures and docstrings."""

import inspect
import json
import re
from collections.abc import Callable
from typing import Any

from rich.markup import escape

from minicnn import models

_OF_THE_DATA = {"num_classes", "image_size", "in_channels"}  # set by what is trained on


def model_help() -> str:
    """Return paragraphs that list each model's options as ``--model-option`` takes them: default and meaning."""
    lines, without = [], []
    for name in models.names():
        factory = models.factory(name)
        meanings = documented(factory)
        own = {n: p for n, p in inspect.signature(factory).parameters.items() if n not in _OF_THE_DATA}
        for option, parameter in own.items():
            default = "" if parameter.default is parameter.empty else f"={_written(parameter.default)}"
            lines.append(f"{name} {option}{default}: {meanings.get(option, '')}".rstrip(": "))
        if not own:
            without.append(name)
    heading = "Options of the models, as --model NAME --model-option OPTION=VALUE:"
    return "\n\n".join(map(escape, [heading, *lines, f"Without options: {', '.join(without)}."]))


def documented(function: Callable[..., Any]) -> dict[str, str]:
    """Return the text of each argument in the section "Args:" of a docstring in Google's style."""
    _, _, section = (inspect.getdoc(function) or "").partition("\nArgs:\n")
    section = re.split(r"\n(?=\S)", section)[0]  # up to the next heading
    found = re.findall(r"^ {4}(\w+): (.*(?:\n {5,}.*)*)", section, re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in found}


def _written(value: Any) -> str:
    """A default as the command line takes it: as TOML."""
    return f"{value:.4g}" if isinstance(value, float) else json.dumps(value)
