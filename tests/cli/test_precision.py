"""--precision: it reaches the model in every command that computes, and is float32 where nobody asks."""

import pytest
from PIL import Image

from minicnn import get_precision
from minicnn.backend.cpu import jit
from minicnn.cli import train as train_module
from minicnn.models import LeNet

pytestmark = pytest.mark.skipif(not jit.HAS_BFLOAT16, reason="the processor has no AVX512_BF16")
SMALL = ("--dataset", "digits", "--backend", "numpy", "--train-size", 200, "--validation", 100)


@pytest.fixture
def seen(monkeypatch):
    """The precisions within which a LeNet was called."""
    precisions, forward = set(), LeNet.forward

    def noting(self, input):
        precisions.add(get_precision())
        return forward(self, input)

    monkeypatch.setattr(LeNet, "forward", noting)
    monkeypatch.setattr(train_module, "macs", lambda *_: 0)  # calls a model too, to count
    return precisions


@pytest.fixture
def words(tmp_path):
    """What a command needs to compute for a moment."""
    Image.new("RGB", (32, 32), "red").save(tmp_path / "red.png")
    return {
        "train": (*SMALL, "--epochs", 1, "--out", tmp_path / "out"),
        "find-lr": (*SMALL, "--steps", 10, "--out", tmp_path / "out"),
        "study": ("digits", *SMALL, "--epochs", 1, "--out", tmp_path / "out"),
        "evaluate": ("--backend", "numpy", "--dataset", "digits", "--out", tmp_path / "out"),
        "predict": ("--backend", "numpy", tmp_path / "red.png"),
        "explain": ("--backend", "numpy", tmp_path / "red.png", "--out", tmp_path / "out"),
    }


@pytest.mark.parametrize("name", ["train", "find-lr", "study", "evaluate", "predict", "explain"])
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_it_reaches_the_model(command, sketches, seen, words, digits_run, name, precision):
    given = () if precision == "float32" else ("--precision", precision)
    chosen = {"evaluate": digits_run.weights, "predict": "lenet-cifar10", "explain": "lenet-cifar10"}
    weights = ("--weights", chosen[name]) if name in chosen else ()
    code, _, err = command(name, *words[name], *weights, *given)
    assert (code, err) == (0, "") and seen == {precision} and get_precision() == "float32"
