"""The ablation: its ingredients are in the recipe, its runs are kept and go on, its losses are right."""

import dataclasses
import importlib
import inspect
import json
import re
import sys

import numpy as np
import pytest
from PIL import Image

from minicnn import models
from minicnn.training import Config, TrainingError, recipe
from shared.benchmarks import BENCHMARKS, run

SMALL = ("--dataset", "digits", "--epochs", 1, "--batch-size", 256, "--precision", "float32")


@pytest.fixture
def ablation(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("ablation")


@pytest.fixture
def runs(ablation):
    return importlib.import_module("runs")


def test_every_ingredient_is_in_the_recipe_and_left_out_alone(ablation):
    whole = recipe("speedrun")
    defaults = {name: p.default for name, p in inspect.signature(models.SpeedNet).parameters.items()}
    before = dataclasses.asdict(whole) | {"model_options": defaults}
    found = []
    for name, overrides in [*ablation.INGREDIENTS.items(), ("views", ablation._VIEWS)]:
        config = whole.override(**overrides)
        after = dataclasses.asdict(config) | {"model_options": defaults | config.model_options}
        changed = {field for field in before if after[field] != before[field]}
        assert changed and changed == overrides.keys(), name
        options = overrides.get("model_options", {})
        assert all(defaults[option] != value for option, value in options.items()), name
        models.create(config.model, **options)
        assert after not in found, name
        found.append(after)


def test_without_momentum_or_triangle_the_weights_go_as_far(ablation):
    whole = recipe("speedrun")
    plain, flat = (whole.override(**ablation.INGREDIENTS[name]) for name in ("momentum", "triangle"))
    assert plain.lr == pytest.approx(whole.lr / (1 - whole.momentum))
    rates = [[config.make_schedule(100)(step) for step in range(100 * whole.epochs)] for config in (whole, flat)]
    assert np.sum(rates[1]) == pytest.approx(np.sum(rates[0]), rel=2e-3)
    assert len(set(rates[1])) == 1 < len(set(rates[0]))


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """The file of a short measurement, its picture, and what it printed."""
    file = tmp_path_factory.mktemp("ablation") / "results" / "ablation.json"
    picture = file.with_name("ablation.png")
    done = run("ablation.py", *SMALL, "--only", "flip", "dirac", "--json", file, "--picture", picture)
    assert done.returncode == 0, done.stderr
    return file, picture, done


def test_runs(measured):
    file, picture, done = measured
    record = json.loads(file.read_text())
    assert [(r["left_out"], r["seed"], r["epochs"]) for r in record["runs"]] == [
        (name, 0, 1) for name in ("nothing", "flip", "dirac")
    ]
    for each in record["runs"]:
        assert each["seconds"] > 0 and 0 <= each["plain_accuracy"] <= 1 and 0 <= each["accuracy"] <= 1
        percent = f"{each['plain_accuracy']:.2%}, {each['accuracy']:.2%} by all views"
        assert f"without {each['left_out']}, seed 0, epoch 1/1, " in done.stdout and percent in done.stdout
    assert (record["config"]["epochs"], record["config"]["batch_size"]) == (1, 256)
    assert record["config"]["flip"] == 0.5 and record["runs"][1]["overrides"] == {"flip": 0.0, "alternate": False}
    assert record.keys() >= {"data", "hardware", "versions", "date"}
    assert Image.open(picture).width > 500


def test_the_report_has_the_table(measured, tmp_path):
    file, _, done = measured
    folder = tmp_path / "results"
    folder.mkdir()
    (folder / "ablation.json").write_text(file.read_text())
    assert run("report.py", folder).returncode == 0
    text = folder.with_suffix(".md").read_text()
    assert "## Ablation" in text and "speedrun in 1 epochs and float32 on digits" in text
    assert done.stdout[done.stdout.index("| left out") :].strip() in text


def test_what_the_file_has_is_not_run_again(measured, tmp_path):
    file = tmp_path / "ablation.json"
    record = json.loads(measured[0].read_text())
    broken = record | {"runs": record["runs"][:2]}  # stopped in the third run
    file.write_text(json.dumps(broken))
    done = run("ablation.py", *SMALL, "--only", "flip", "dirac", "--json", file)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("epoch") == 1 and "without dirac, seed 0, epoch" in done.stdout
    again = json.loads(file.read_text())
    assert again["runs"][:2] == broken["runs"]
    for name in ("accuracy", "plain_accuracy"):  # the same bits, from the first run or alone
        assert [r[name] for r in again["runs"]] == [r[name] for r in record["runs"]]
    done = run("ablation.py", *SMALL, "--only", "flip", "--json", file)
    assert "epoch" not in done.stdout and "| dirac |" in done.stdout  # the file has it
    assert json.loads(file.read_text()) == again


def test_a_file_of_other_runs_is_not_written_over(measured, tmp_path):
    file = tmp_path / "ablation.json"
    before = measured[0].read_text()
    file.write_text(before)
    done = run("ablation.py", *SMALL, "--epochs", 2, "--precision", "bf16", "--json", file)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert str(file) in done.stderr and "epochs was 1, now 2" in done.stderr
    assert "precision was 'float32', now 'bf16'" in done.stderr and "batch_size" not in done.stderr
    assert file.read_text() == before


@pytest.mark.parametrize(
    "stored, words",
    [
        ('{"ablation": "speed', "expected a record of runs, received Unterminated string"),
        ("[1]", r"expected a record of runs, received \[1\]"),
        ('{"kernels": []}', "ablation was None, now 'speedrun'; config was None"),
        ('{"ablation": "digits", "config": {"lr": 1}, "runs": []}', "ablation was 'digits', now 'speedrun'$"),
        ('{"ablation": "speedrun", "config": {"lr": 1, "old": 2}, "runs": []}', "others; .*: old was 2, now None$"),
        ('{"ablation": "speedrun", "config": {"lr": 2}, "runs": []}', "others; .*: lr was 2, now 1$"),
    ],
)
def test_what_is_no_record_of_these_runs_is_refused(runs, tmp_path, capsys, stored, words):
    file = tmp_path / "stored.json"
    file.write_text(stored)
    with pytest.raises(SystemExit) as left:
        runs.known(file, {"ablation": "speedrun", "config": {"lr": 1}})
    told = capsys.readouterr().err
    assert left.value.code == 2 and told.count("\n") == 1 and told.startswith(f"{file}: ")
    assert re.search(words, told.strip())


def test_known_runs(runs, tmp_path):
    record = {"ablation": "speedrun", "config": {"lr": 1}}
    assert runs.known(None, record) == [] and runs.known(tmp_path / "none.json", record) == []
    file = tmp_path / "stored.json"
    file.write_text(json.dumps(record | {"runs": [{"seed": 3}], "date": "then"}))
    assert runs.known(file, record) == [{"seed": 3}]
    later = record | {"config": {"lr": 1, "lookahead": Config().lookahead}}  # an option that did not exist then
    assert runs.known(file, later) == [{"seed": 3}]
    with pytest.raises(SystemExit, match="2"):
        runs.known(tmp_path, record)  # a folder


def made(left_out, seed, accuracy, plain, **overrides):
    figures = {"accuracy": accuracy, "plain_accuracy": plain, "epochs": 5, "seconds": 1.0}
    return {"left_out": left_out, "overrides": overrides, "seed": seed, **figures}


RECORD = {
    "ablation": "speedrun",
    "config": {"epochs": 5},
    "runs": [
        made("nothing", 0, 0.90, 0.88),
        made("flip", 0, 0.89, 0.885, flip=0.0, alternate=False),
        made("dirac", 0, 0.85, 0.84, model_options={"dirac": False}),
        {"left_out": "gelu", "overrides": {"model_options": {"activation": "relu"}}, "seed": 0, "diverged": "step 1"},
        made("nothing", 1, 0.92, 0.91),
        made("flip", 1, 0.93, 0.905, flip=0.0, alternate=False),
        made("flip", 2, 0.50, 0.40, flip=0.0, alternate=False),  # no run of the whole recipe to compare with
    ],
}


def test_losses_are_differences_of_runs_of_one_seed(ablation):
    rows = {row["left_out"]: row for row in ablation.losses(RECORD)}
    assert list(rows) == ["nothing", "gelu", "dirac", "views", "flip"]  # what loses most first
    assert rows["nothing"]["loss"] == rows["nothing"]["plain_loss"] == [0, 0]
    assert rows["flip"]["loss"] == pytest.approx([0.01, -0.01])
    assert rows["flip"]["plain_loss"] == pytest.approx([-0.005, 0.005])
    assert rows["flip"]["accuracy"] == [0.89, 0.93, 0.50]
    assert rows["dirac"]["loss"] == pytest.approx([0.05])
    assert rows["views"]["loss"] == pytest.approx([0.02, 0.01])  # by one view of the same runs
    assert rows["views"]["accuracy"] == [0.88, 0.91] and rows["views"]["plain_loss"] == []
    assert [rows[name]["diverged"] for name in rows] == [False, True, False, False, False]


def test_table(ablation):
    assert ablation.table(RECORD).splitlines()[2:] == [
        "| nothing |  | 91.00% ± 1.00% | 0.00 ± 0.00 | 89.50% ± 1.50% | 0.00 ± 0.00 | 2 |",
        "| gelu | activation relu | diverged | - | - | - | 1 |",
        "| dirac | dirac false | 85.00% | 5.00 | 84.00% | 4.00 | 1 |",
        "| views | tta false, tta_shift 0 | 89.50% ± 1.50% | 1.50 ± 0.50 | - | - | 2 |",
        "| flip | flip 0.0, alternate false | 77.33% ± 19.40% | 0.00 ± 1.00 | 73.00% ± 23.35% | 0.00 ± 0.50 | 3 |",
    ]


def test_picture(ablation):
    (axes,) = ablation.picture(RECORD).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["gelu", "dirac", "views", "flip"]
    bars = {bar.get_y() + bar.get_height() / 2: bar.get_width() for bar in axes.patches}
    assert {round(place): width for place, width in bars.items()} == pytest.approx({1: 5, 2: 1.5, 3: 0}, abs=1e-9)
    assert [text.get_text() for text in axes.texts] == ["diverged", "5.00", "1.50 ± 0.50", "0.00 ± 1.00"]
    assert axes.get_xlabel().endswith("5 epochs, 2 seeds")


def test_a_bar_that_would_flatten_the_others_is_cut(ablation):
    losses = {"scaled-logits": 0.6, "dirac": 0.04, "gelu": 0.03, "flip": 0.02, "shift": 0.01}
    runs = [made("nothing", 0, 0.9, 0.88), *(made(name, 0, 0.9 - lost, 0.88) for name, lost in losses.items())]
    (axes,) = ablation.picture({"ablation": "speedrun", "config": {"epochs": 1}, "runs": runs}).axes
    widths = {round(bar.get_y() + bar.get_height() / 2): bar.get_width() for bar in axes.patches}
    assert [widths[row] for row in range(6)] == pytest.approx([1.12 * 4, 4, 3, 2, 2, 1]) and axes.get_xlim()[1] < 6
    assert "60.00" in [text.get_text() for text in axes.texts]


def test_a_run_that_diverges_is_kept_and_the_others_go_on(ablation, runs, monkeypatch, tmp_path, capsys):
    file = tmp_path / "ablation.json"

    def train(config, splits, heading, target=1.0):
        if config.model_options.get("scale") == 1.0:
            raise TrainingError("step 3 of epoch 1: the loss is nan")
        return [{"seconds": 1.0, "accuracy": 0.9 + config.seed / 100, "plain_accuracy": 0.8}]

    monkeypatch.setattr(runs, "train", train)
    names = ("scaled-logits", "shift")
    options = (*SMALL, "--seeds", 2, "--only", *names, "--json", file, "--picture", tmp_path / "losses.png")
    monkeypatch.setattr(sys, "argv", ["ablation.py", *map(str, options)])
    ablation.main()
    found = json.loads(file.read_text())["runs"]
    assert [(r["left_out"], r["seed"], "diverged" in r) for r in found] == [
        (name, seed, name == "scaled-logits") for seed in (0, 1) for name in ("nothing", *names)
    ]
    told = capsys.readouterr().out
    assert "without scaled-logits, seed 1: step 3 of epoch 1: the loss is nan" in told
    assert "| scaled-logits | scale 1.0 | diverged | - | - | - | 2 |" in told
    assert "| shift | shift 0 | 90.50% ± 0.50% | 0.00 ± 0.00 |" in told


def test_a_recipe_that_diverges_has_no_losses(ablation):
    runs = [{"left_out": "nothing", "overrides": {}, "seed": 0, "diverged": "step 1"}, made("shift", 0, 0.5, 0.4)]
    record = RECORD | {"runs": runs}
    assert ablation.table(record).splitlines()[2:] == [
        "| nothing |  | diverged | - | - | - | 1 |",
        "| shift |  | 50.00% | - | 40.00% | - | 1 |",
    ]
    (axes,) = ablation.picture(record).axes
    assert not axes.patches and [text.get_text() for text in axes.texts] == ["-"]


@pytest.mark.parametrize(
    "wrong, words",
    [
        (("--only", "flops"), "invalid choice: 'flops'"),
        (("--only",), "expected at least one argument"),
        (("--seeds", 0), "expected an integer from 1 to 100, received '0'"),
        (("--epochs", "many"), "expected an integer from 1 to 1000, received 'many'"),
        (("--batch-size", 0), "expected an integer from 1 to 1000000, received '0'"),
        (("--precision", "float16"), "invalid choice: 'float16'"),
    ],
)
def test_wrong_arguments(wrong, words):
    done = run("ablation.py", *wrong)
    assert done.returncode == 2 and words in done.stderr and "Traceback" not in done.stderr


def test_what_cannot_be_read_or_written_is_one_line_before_a_run(tmp_path):
    done = run("ablation.py", "--dataset", "digit")
    assert done.returncode == 1 and done.stderr.startswith("data set: expected") and done.stderr.count("\n") == 1
    (tmp_path / "file").touch()
    done = run("ablation.py", *SMALL, "--json", tmp_path / "file" / "ablation.json")
    assert done.returncode == 1 and done.stderr.startswith("cannot write") and done.stderr.count("\n") == 1
    assert done.stdout == ""
