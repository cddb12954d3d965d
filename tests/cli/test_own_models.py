"""Networks of one's own by --model MODULE:FUNCTION; what a file names is never imported."""

import json
import sys

import pytest

from minicnn import backend, models
from minicnn.training import checkpoint, pretrained

NETWORK = """
from pathlib import Path

from minicnn import nn

with Path("imports.txt").open("a") as log:
    log.write("imported\\n")

def net(num_classes, width=4):
    return nn.Sequential(nn.Conv2d(3, width, 5, stride=4), nn.ReLU(), nn.Flatten(), nn.Linear(49 * width, num_classes))
"""
NAME = "own_network:net"


def forget(monkeypatch):
    """Be as in a new process."""
    monkeypatch.setattr(models, "_MODELS", {name: made for name, made in models._MODELS.items() if ":" not in name})
    sys.modules.pop("own_network", None)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    (tmp_path / "own_network.py").write_text(NETWORK)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    forget(monkeypatch)
    yield
    sys.modules.pop("own_network", None)


def imports(folder):
    log = folder / "imports.txt"
    return len(log.read_text().splitlines()) if log.exists() else 0


def test_from_training_to_every_command(command, train, tmp_path, monkeypatch):
    out = tmp_path / "run"
    code, said, err = train(
        "--model", NAME, "--model-option", "width=6", "--epochs", 2, "--stop-after", 1, "--out", out
    )
    assert (code, err) == (0, "") and f"run: {NAME}, " in said
    forget(monkeypatch)
    before = imports(tmp_path)
    code, _, err = train("--out", out, "--resume")
    assert code == 1 and "'own_network:net' is code outside of minicnn" in err and "--model" in err
    assert len(err.splitlines()) == 1 and imports(tmp_path) == before
    assert train("--out", out, "--resume", "--model", NAME)[0] == 0
    assert json.loads((out / "config.json").read_text())["config"]["model"] == NAME

    weights = out / "best.safetensors"
    calls = {
        "evaluate": ("--weights", weights, "--backend", "numpy", "--json"),
        "convert": (weights, tmp_path / "twin.safetensors"),
        "publish": (out, "mine", "--card", tmp_path / "card.json"),
    }
    for name, words in calls.items():
        forget(monkeypatch)
        before = imports(tmp_path)
        code, _, err = command(name, *words)
        assert code == 1 and "is code outside of minicnn, which nobody has named in this process" in err, name
        assert imports(tmp_path) == before
        assert command(name, *words, "--model", NAME)[0] == 0, name
        assert imports(tmp_path) == before + 1


def test_predict_and_explain_with_a_network_of_ones_own(command, train, pictures, tmp_path, monkeypatch):
    folder = pictures()
    code, _, err = command(
        "train", "--model", NAME, "--dataset", folder, "--backend", "numpy", "--epochs", 1, "--out", tmp_path / "run"
    )
    assert (code, err) == (0, "")
    weights = ("--weights", tmp_path / "run" / "best.safetensors", "--backend", "numpy")
    for name in ("predict", "explain"):
        forget(monkeypatch)
        before = imports(tmp_path)
        assert command(name, folder / "cat" / "00.png", *weights)[0] == 1
        assert imports(tmp_path) == before
        assert command(name, folder / "cat" / "00.png", *weights, "--model", NAME)[0] == 0
    code, _, err = command("predict", folder / "cat" / "00.png", *weights, "--model", "lenet")
    assert code == 1 and "model: expected own_network:net, as that of" in err


@pytest.mark.parametrize("name", ["os:system", "own_network:net", "subprocess:Popen"])
def test_no_file_makes_code_run(command, train, tmp_path, name):
    """Neither weights, nor the state of a run, nor weights to start from."""
    assert train("--epochs", 2, "--stop-after", 1, "--out", tmp_path / "run")[0] == 0
    best, last = (tmp_path / "run" / f"{part}.safetensors" for part in ("best", "last"))
    stored = checkpoint.load(best)
    checkpoint.save(best, stored.arrays, stored.metadata | {"model": name, "options": {"command": "touch ran"}})
    for words in (
        ("evaluate", "--weights", best),
        ("convert", best, tmp_path / "w.h5"),
        ("predict", best, "--weights", best),
    ):
        code, _, err = command(*words)
        assert code == 1 and f"{name!r} is code outside of minicnn" in err, words
    with pytest.raises(checkpoint.CheckpointError, match="is code outside of minicnn"):
        pretrained.load(best, backend.get("numpy"))
    code, _, err = train("--weights", best, "--out", tmp_path / "other")
    assert code != 0 and f"{name!r} is code outside of minicnn" in err
    stored = checkpoint.load(last)
    config = stored.metadata["config"] | {"model": name, "model_options": {"command": "touch ran"}}
    checkpoint.save(last, stored.arrays, stored.metadata | {"config": config})
    code, _, err = train("--out", tmp_path / "run", "--resume")
    assert code == 1 and f"{name!r} is code outside of minicnn" in err
    assert not imports(tmp_path) and not (tmp_path / "ran").exists()


def test_a_module_that_is_not_there(train):
    code, _, err = train("--model", "own_netwerk:net")
    assert code == 2 and "no module own_netwerk in" in err
    code, _, err = train("--model", "own_network:nett")
    assert code == 2 and "own_network has no nett; did you mean 'net'?" in err
