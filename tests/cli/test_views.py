"""How a network is asked, by one view of a picture or several, and runs that have nothing to validate on."""

import json

import pytest
from PIL import Image


@pytest.fixture
def tta_run(train, tmp_path):
    train("--tta", "--tta-shift", 1, "--epochs", 2, "--out", tmp_path / "run")
    return tmp_path / "run"


def figures(command, run, *words):
    weights = ("--backend", "numpy", "--weights", run / "best.safetensors")
    return json.loads(command("evaluate", *weights, "--json", *words)[1])


def test_weights_are_asked_as_the_run_was_tested(command, tta_run):
    test = json.loads((tta_run / "metrics.json").read_text())["test"]
    assert figures(command, tta_run) == figures(command, tta_run, "--tta") == test
    plain = figures(command, tta_run, "--no-tta")
    assert plain["loss"] != pytest.approx(test["loss"], rel=1e-4)
    assert plain["accuracy"] == test["plain_accuracy"] and "plain_accuracy" not in plain
    _, out, _ = command("evaluate", "--backend", "numpy", "--weights", tta_run / "best.safetensors")
    assert f"{test['accuracy']:.2%} ({test['plain_accuracy']:.2%} by one view) of 360 images" in out
    _, out, _ = command("compare", tta_run, "--out", tta_run / "sheet.png")
    heading, row = (line.split() for line in out.splitlines()[:2])
    assert f"{test['plain_accuracy']:.2%}" in row and "one view" in " ".join(heading)


def test_predictions_follow_the_weights(command, tta_run, tmp_path):
    Image.radial_gradient("L").save(tmp_path / "picture.png")

    def answer(*words):
        picture = ("-image", tmp_path / "picture.png", "--weights", tta_run / "best.safetensors")
        return json.loads(command("predict", "--backend", "numpy", "--json", *picture, *words)[1])

    assert answer() == answer("--tta") != answer("--no-tta")


def test_weights_of_one_view_are_asked_by_one(command, train, tmp_path):
    train("--epochs", 1, "--out", tmp_path / "run")
    test = json.loads((tmp_path / "run" / "metrics.json").read_text())["test"]
    assert figures(command, tmp_path / "run") == test and "plain_accuracy" not in test
    assert figures(command, tmp_path / "run", "--tta")["loss"] != test["loss"]


def test_with_nothing_to_choose_by_the_last_epoch_is_kept(command, sketches, tmp_path):
    run = tmp_path / "run"
    options = ("--dataset", "digits", "--backend", "numpy", "--train-size", 200, "--epochs", 3, "--out", run)
    code, out, err = command("train", *options, "--validation", 0, "--stop-after", 1)
    assert (code, err) == (0, "") and "val" not in out.splitlines()[-2].replace("no validation", "")
    code, out, err = command("train", "--out", run, "--resume")
    assert (code, err) == (0, "") and "(epoch 3, the last)" in out
    columns = (run / "history.csv").read_text().splitlines()[0].split(",")
    assert columns == ["epoch", "train_loss", "train_accuracy", "learning_rate", "seconds", "images_per_second"]
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["validation_accuracy"] is None and metrics["best_epoch"] == 3
    assert figures(command, run) == metrics["test"]
    code, _, err = command("evaluate", "--weights", run / "best.safetensors", "--split", "validation")
    assert code == 2 and err == "error: --split validation: the weights were trained without validation images\n"
    code, out, _ = command("compare", run, "--out", tmp_path / "sheet.png")
    assert code == 0 and "validation" not in out and (tmp_path / "sheet.png").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--knots", "0:1,1"), "knots: expected pairs of numbers as 0:0.2,0.25:1,1:0, received '0:1,1'"),
        (("--knots", "0:1,2:0", "--schedule", "linear"), "knots[1][0]: expected a number from 0 to 1, received 2.0"),
        (("--tta-shift", 1), "tta_shift: expected tta with it, or tta_shift off"),
        (("--validation", -2), "validation: expected a whole number from -1, received -2"),
    ],
)
def test_what_is_refused(train, words, message):
    assert train(*words)[0::2] == (2, f"error: {message}\n")
