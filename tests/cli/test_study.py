"""study: recipes one after another."""

import json
from pathlib import Path

import pytest
from PIL import Image

from minicnn.cli import main
from minicnn.cli import train as train_module

ROOT = Path(__file__).parents[2]

SMALL = ("--dataset", "digits", "--backend", "numpy", "--train-size", 200, "--validation", 100, "--epochs", 2)


@pytest.fixture
def study(command, tmp_path):
    return lambda *words: command("study", "--out", tmp_path / "study", *SMALL, *words)


def metrics(folder):
    return json.loads((folder / "metrics.json").read_text())


def test_recipes_are_trained_resumed_and_skipped(command, study, tmp_path):
    folder = tmp_path / "study"
    stopped = ("--out", folder / "lenet", "--recipe", "lenet", "--stop-after", 1)
    assert command("train", *SMALL, *stopped)[0] == 0 and not (folder / "lenet" / "metrics.json").exists()
    code, out, err = study("digits", "lenet", "digits")
    assert (code, err) == (0, "")
    assert "digits (1 of 2)\n" in out and "lenet (2 of 2)\n" in out and "finished before" not in out
    assert out.count("epoch 1/2") == 1 and out.count("epoch 2/2") == 2  # of the stopped run the second epoch alone
    rows = {line.split()[0]: line.split() for line in out.splitlines()[-4:-1]}
    assert rows["digits"][1:5] == ["digits", "lenet", "2", str(metrics(folder / "digits")["best_epoch"])]
    assert rows["lenet"][1] == "lenet" and out.endswith(f"wrote study.png, study.md and report.html into {folder}\n")
    for name in ("digits", "lenet"):
        config = json.loads((folder / name / "config.json").read_text())
        assert config["recipe"] == name and config["config"]["train_size"] == 200
    table = (folder / "study.md").read_text().splitlines()
    assert [line.split(" | ")[0] for line in table] == [
        "| run",
        "|---|---|---" + "|---:" * 11 + "|",
        "| digits",
        "| lenet",
    ]
    assert f"{metrics(folder / 'lenet')['test']['accuracy']:.2%}" in table[3]
    assert Image.open(folder / "study.png").width == 1350

    written = [(folder / name / "best.safetensors").stat().st_mtime_ns for name in ("digits", "lenet")]
    code, out, _ = study("digits", "lenet")
    assert code == 0 and out.count("finished before") == 2 and "epoch" not in out.splitlines()[0]
    assert written == [(folder / name / "best.safetensors").stat().st_mtime_ns for name in ("digits", "lenet")]


def test_wrong_words_end_it_before_any_training(study, tmp_path):
    code, out, err = study("digits", "lenett")
    assert (code, out) == (2, "") and "did you mean 'lenet'?" in err and err.count("\n") == 1
    assert study("digits", "--lr", -1)[0] == 2
    code, out, err = study("digits", "lenet", "--patience", 3)
    assert (code, out) == (2, "") and err.startswith("error: patience: expected schedule plateau with it, received ")
    assert not (tmp_path / "study").exists()


def test_an_option_that_one_recipe_has_no_use_for(monkeypatch, study, tmp_path):
    """It goes without; the others take it."""
    taken = []
    monkeypatch.setattr(train_module.train, "__wrapped__", lambda given, name, **_: taken.append((name, given)) or 7)
    for order in (("digits", "custom-cnn"), ("custom-cnn", "digits")):
        assert study(*order, "--momentum", 0.8)[0] == 7
    (first, with_sgd), (second, with_adam) = taken
    assert (first, second) == ("digits", "custom-cnn")
    assert with_sgd == with_adam | {"momentum": 0.8} and "momentum" not in with_adam


@pytest.mark.parametrize("name", ["compare", "convert", "explain", "study"])
def test_the_scripts_are_doors_to_the_commands(name):
    assert (ROOT / "scripts" / f"{name}.py").read_text().endswith(f'    main(command="{name}")\n')
    assert name in main.COMMANDS
