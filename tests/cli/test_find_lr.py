"""find-lr: the curve, the table and the suggestion."""

import csv
import re

from PIL import Image

SMALL = ("--dataset", "digits", "--backend", "numpy", "--train-size", 200, "--validation", 100)


def test_a_suggestion_for_the_digits(command, tmp_path):
    folder = tmp_path / "lr"
    code, out, err = command("find-lr", *SMALL, "--steps", 60, "--momentum", 0.5, "--accumulate", 2, "--out", folder)
    assert (code, err) == (0, "")
    rows = list(csv.DictReader((folder / "find_lr.csv").open()))
    assert list(rows[0]) == ["learning_rate", "loss", "smoothed_loss"] and 10 < len(rows) <= 60
    assert float(rows[0]["learning_rate"]) == 1e-6
    rate = float(re.search(r"^suggestion: --lr (\S+), where", out, re.MULTILINE)[1])
    assert 1e-6 < rate < float(rows[-1]["learning_rate"])
    assert {path.name for path in folder.iterdir()} == {"find_lr.csv", "find_lr.png", ".lock"}
    with Image.open(folder / "find_lr.png") as picture:
        assert picture.width > 300


def test_its_own_folder(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert command("find-lr", *SMALL, "--steps", 10, "--model", "lenet")[0] == 0
    (folder,) = (tmp_path / "runs").iterdir()
    assert folder.name.startswith("find-lr-digits-lenet-")


def test_wrong_options(command, digits_run):
    assert command("find-lr", *SMALL, "--steps", 3)[0] == 2
    code, _, err = command("find-lr", *SMALL, "--model", "lent")
    assert code == 2 and "did you mean 'lenet'" in err
    code, _, err = command("find-lr", *SMALL, "--out", digits_run.folder)
    assert code == 2 and "holds a run" in err
