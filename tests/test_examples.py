"""The examples in the docstrings: they run, and everything public has one."""

import doctest
import importlib
import inspect
import pkgutil

import numpy as np
import pytest

import minicnn
import minicnn.functional as F
from minicnn import Tensor, models, nn, optim, random, tensor

GIVEN = {"np": np, "minicnn": minicnn, "F": F}
GIVEN |= {"Tensor": Tensor, "models": models, "nn": nn, "optim": optim, "random": random, "tensor": tensor}
MODULES = [m.name for m in pkgutil.walk_packages(minicnn.__path__, "minicnn.") if ".backend.cuda" not in m.name]
PUBLIC = [minicnn, F, nn, nn.init, optim, optim.schedules, models]
WITHOUT = {"set_default_backend"}


def public(package):
    """The functions and classes that a package offers: by its ``__all__``, or those that it defines."""
    own = [n for n, v in vars(package).items() if n[0] != "_" and getattr(v, "__module__", "") == package.__name__]
    return {name for name in getattr(package, "__all__", own) if callable(getattr(package, name))}


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module(name, monkeypatch):
    monkeypatch.setattr(models, "_MODELS", dict(models._MODELS))  # one of them registers a network
    module = importlib.import_module(name)
    runner = doctest.DocTestRunner()
    for example in doctest.DocTestFinder(exclude_empty=True).find(module, name, globs=dict(GIVEN)):
        runner.run(example)
    assert not runner.failures


@pytest.mark.parametrize("package", PUBLIC, ids=lambda package: package.__name__)
def test_everything_public_has_an_example(package):
    without = {name for name in public(package) if ">>>" not in (inspect.getdoc(getattr(package, name)) or "")}
    assert without <= WITHOUT
