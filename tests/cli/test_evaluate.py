"""evaluate: the figures of trained weights."""

import json

import pytest

from minicnn.training.progress import Output

PICTURES = ("confusion_matrix", "samples", "mistakes", "filters", "feature_maps", "grad_cam")


@pytest.fixture
def evaluate(command, digits_run):
    return lambda *words: command("evaluate", "--backend", "numpy", "--weights", digits_run.weights, *words)


def test_json_is_what_training_measured(evaluate, digits_run):
    code, out, err = evaluate("--json")
    assert (code, err) == (0, "")
    assert json.loads(out) == json.loads((digits_run.folder / "metrics.json").read_text())["test"]


def test_the_table(evaluate, digits_run):
    code, out, _ = evaluate()
    report = json.loads((digits_run.folder / "metrics.json").read_text())["test"]
    assert code == 0 and out.startswith("data: digits of scikit-learn\n")
    assert f"on digits, test: {report['accuracy']:.2%} of 360 images" in out
    for row in [*report["per_class"], {"class": "macro mean", **report["macro"]}]:
        assert any(row["class"] in line and f"{row['f1']:.4f}" in line for line in out.splitlines())


def test_a_narrow_terminal_has_whole_words(evaluate, monkeypatch):
    monkeypatch.setattr(Output, "columns", 30)
    lines = evaluate()[1].splitlines()
    assert "class       precision  recall" in lines and "class           F1  images" in lines
    assert sum(line.startswith("macro mean ") for line in lines) == 2


def test_splits_are_those_of_the_training(evaluate, digits_run):
    validation = json.loads(evaluate("--json", "--split", "validation")[1])
    metrics = json.loads((digits_run.folder / "metrics.json").read_text())
    assert validation["accuracy"] == metrics["validation_accuracy"]
    sizes = {split: json.loads(evaluate("--json", "--split", split)[1])["images"] for split in ("train", "validation")}
    assert sizes == {"train": 1237, "validation": 200}


def test_out_gets_pictures_and_figures(evaluate, digits_run, tmp_path):
    assert evaluate("--out", tmp_path / "new")[0] == 0
    names = {"mistakes.csv", *(f"{name}.png" for name in PICTURES)}
    assert {path.name for path in (tmp_path / "new").iterdir()} == names | {".lock", "metrics.json", "report.html"}
    for name in names:
        assert (tmp_path / "new" / name).read_bytes() == (digits_run.folder / name).read_bytes()
    code, out, err = evaluate("--out", digits_run.folder)
    assert (code, out) == (2, "") and "holds a run" in err


def test_other_classes_are_refused(evaluate, pictures):
    code, _, err = evaluate("--dataset", pictures())
    assert code == 1 and err.endswith(
        "know the classes 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, the data set pets has cat, dog, owl\n"
    )


def test_an_unknown_split(evaluate):
    assert evaluate("--split", "tset") == (
        2, "", "error: --split: expected one of test, validation, train, received 'tset'; did you mean 'test'?\n"
    )  # fmt: skip
