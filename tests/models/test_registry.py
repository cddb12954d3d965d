"""Models of one's own, by a registered name or as module:function."""

import sys

import pytest

from minicnn import models, nn

NETWORK = """
from minicnn import nn

NUMBER = 3

def net(num_classes, width=4):
    return nn.Sequential(nn.Flatten(), nn.Linear(3072, width), nn.Linear(width, num_classes))

def wrong(num_classes):
    return "a network"

def sized(num_classes, image_size=32, in_channels=3):
    return nn.Sequential(nn.Flatten(), nn.Linear(in_channels * image_size**2, num_classes))
"""


@pytest.fixture(autouse=True)
def as_before(monkeypatch):
    """Forget what a test registers and imports."""
    monkeypatch.setattr(models, "_MODELS", dict(models._MODELS))
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield
    for name in ("my_network", "my_broken_network", "my_leaving_network"):
        sys.modules.pop(name, None)


@pytest.fixture
def here(tmp_path, monkeypatch):
    (tmp_path / "my_network.py").write_text(NETWORK)
    (tmp_path / "my_broken_network.py").write_text("import a_module_that_is_not_there")
    (tmp_path / "my_leaving_network.py").write_text("raise SystemExit(3)")
    monkeypatch.chdir(tmp_path)


def test_a_registered_model_is_one_of_the_names():
    def flat(num_classes, width=8):
        return nn.Sequential(nn.Flatten(), nn.Linear(3072, width), nn.Linear(width, num_classes))

    models.register("flat", flat)
    assert models.names()[-1] == "flat"
    assert models.create("flat", 3, width=5)[2].weight.shape == (3, 5)
    with pytest.raises(ValueError, match="model flat: .*colour"):
        models.create("flat", 3, colour=1)
    models.register("flat", lambda num_classes: nn.Linear(1, num_classes))  # a cell of a notebook, run again
    assert models.create("flat", 3).weight.shape == (3, 1)


def test_what_cannot_be_registered():
    with pytest.raises(ValueError, match="expected a name that no model of the package has, received 'lenet'"):
        models.register("lenet", nn.Linear)
    with pytest.raises(ValueError, match="expected a name .* received ''"):
        models.register("", nn.Linear)
    with pytest.raises(TypeError, match="expected a function that makes a model mine, received Linear"):
        models.register("mine", nn.Linear(1, 1))


def test_a_function_of_a_module_in_the_current_folder(here):
    with pytest.raises(ValueError, match="'my_network:net' is code outside of minicnn, which nobody has named"):
        models.create("my_network:net")
    assert "my_network" not in sys.modules
    models.find("my_network:net")
    assert models.create("my_network:net", 5, width=6)[2].weight.shape == (5, 6)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "my_netwerk:net",
            "model my_netwerk:net: no module my_netwerk in .* or on the path of Python; run in its folder",
        ),
        ("my_network:nett", "my_network has no nett; did you mean 'net'?"),
        ("random:net", r"random has no net .*random\.py"),
        ("my_network:NUMBER", "expected a function or a class that makes a model, received 'int'"),
        ("my_broken_network:net", "cannot import my_broken_network: .*a_module_that_is_not_there"),
        ("my_leaving_network:net", "cannot import my_leaving_network: SystemExit: 3"),
        ("my_network.py:net", "no module my_network.py"),
        ("my network:net", "expected MODULE:FUNCTION as my_network:Net, received 'my network:net'"),
        ("my_network:", "expected MODULE:FUNCTION"),
        ("../my_network:net", "expected MODULE:FUNCTION"),
    ],
)
def test_a_function_that_is_not_there(here, name, message):
    with pytest.raises(ValueError, match=message):
        models.find(name)
    assert name not in models.names()


def test_a_function_that_makes_something_else(here):
    models.find("my_network:wrong")
    with pytest.raises(ValueError, match="expected a Module from it, received str; return one"):
        models.create("my_network:wrong")


def test_sizes_go_to_who_takes_them(here):
    for name in ("my_network:net", "my_network:sized"):
        models.find(name)
    assert models.options_for("my_network:net", 28, 1) == {}
    assert models.options_for("my_network:sized", 28, 1) == {"image_size": 28, "in_channels": 1}
    assert models.options_for("my_network:sized", 32, 3) == {}
