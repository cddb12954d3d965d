"""compare: runs beside each other."""

import json

import pytest
from PIL import Image

HISTORY = """epoch,train_loss,train_accuracy,validation_loss,validation_accuracy,learning_rate,seconds,images_per_second
1,2.0,0.3,1.9,0.25,0.1,1000.0,50.0
2,1.5,0.4,1.6,0.5,0.1,1700.0,40.0
3,1.0,0.6,1.5,0.5,0.01,1000.4,90.0
4,0.5,0.8,1.7,0.45,0.01,100.0,60.0
"""
METRICS = {
    "recipe": "custom",
    "best_epoch": 3,
    "validation_accuracy": 0.5,
    "parameters": 1234567,
    "macs": 7654321,
    "images_per_second": 55.4,
    "train_seconds": 3800.4,
    "test": {"accuracy": 0.4876, "macro": {"precision": 0.5, "recall": 0.25, "f1": 0.33333}},
}


@pytest.fixture
def compare(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return lambda *words: command("compare", *words)


@pytest.fixture
def run(tmp_path):
    """Write the folder of a run: its path."""

    def make(name, history=HISTORY, metrics=METRICS):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(json.dumps({"recipe": "digits", "config": {"model": "lenet"}}))
        if history:
            (folder / "history.csv").write_text(history)
        if metrics:
            (folder / "metrics.json").write_text(json.dumps(metrics))
        return folder

    return make


def test_the_table_and_the_sheet(compare, run, tmp_path):
    code, out, err = compare(run("first"), run("half-done", metrics=None), run("begun", None, None))
    assert (code, err) == (0, "")
    assert [" ".join(line.split()) for line in out.splitlines()] == [
        "run recipe model epochs best time images/s parameters MACs validation test precision recall F1",
        "first custom lenet 4 3 1:03:20 55 1,234,567 7,654,321 50.00% 48.76% 0.5000 0.2500 0.3333",
        "half-done digits lenet 4 3 1:03:20 60 - - 50.00% - - - -",  # of equal accuracy the lower loss is best
        "begun digits lenet - - - - - - - - - - -",
        "wrote compare.png",
    ]
    assert len({len(line) for line in out.splitlines()[:4]}) == 1  # the columns stand under each other
    assert Image.open(tmp_path / "compare.png").width == 1350


def test_markdown_has_a_rule_and_leaves_empty_columns_out(compare, run):
    code, out, _ = compare(run("a|b", metrics=None), "--markdown", "--out", "new/sheet.png")
    assert code == 0 and out.splitlines() == [
        "| run | recipe | model | epochs | best | time | images/s | validation |",
        "|---|---|---|---:|---:|---:|---:|---:|",
        "| a\\|b | digits | lenet | 4 | 3 | 1:03:20 | 60 | 50.00% |",
    ]


def test_json_has_the_figures_unrounded(compare, run, tmp_path):
    code, out, _ = compare(run("a"), run("b", None, None), "--json", "--out", tmp_path / "new" / "sheet.png")
    first, second = json.loads(out)
    assert code == 0 and (tmp_path / "new" / "sheet.png").exists()
    assert first == {
        **{"run": "a", "recipe": "custom", "model": "lenet", "epochs": 4, "best_epoch": 3, "train_seconds": 3800.4},
        **{"images_per_second": 55.4, "parameters": 1234567, "macs": 7654321, "validation_accuracy": 0.5},
        **{"test_accuracy": 0.4876, "plain_accuracy": None, "precision": 0.5, "recall": 0.25, "f1": 0.33333},
    }
    assert {key for key, value in second.items() if value is not None} == {"run", "recipe", "model"}


def test_a_run_of_train_agrees_with_its_metrics(compare, digits_run):
    code, out, _ = compare(digits_run.folder, "--json")
    metrics = json.loads((digits_run.folder / "metrics.json").read_text())
    (row,) = json.loads(out)
    assert code == 0 and row["test_accuracy"] == metrics["test"]["accuracy"]
    assert row["recipe"] == "digits" and row["model"] == "lenet" and row["parameters"] == 65886


def test_runs_of_one_name_go_by_their_paths(compare, run, tmp_path):
    run("x/run"), run("y/run")
    assert [row["run"] for row in json.loads(compare("x/run", "y/run", "--json")[1])] == ["x/run", "y/run"]
    assert json.loads(compare("x/run/", "--json")[1])[0]["run"] == "run"


def test_nothing_to_draw_is_said(compare, run, tmp_path):
    code, out, _ = compare(run("begun", None, None))
    assert code == 0 and out.endswith("no run has finished an epoch, so there is nothing to draw\n")
    assert not (tmp_path / "compare.png").exists()


def test_what_is_no_run(compare, run, tmp_path):
    assert compare() == (2, "", "error: expected folders of runs: compare RUN [RUN ...]\n")
    code, out, err = compare(run("good"), tmp_path)
    assert (code, out) == (2, "") and err.startswith(f"error: {tmp_path} has no config.json") and err.count("\n") == 1
    assert "none is not a folder" in compare("none")[2] and compare("none")[0] == 2
    assert "--out: expected a .png file, received sheet.jpg" in compare("good", "--out", "sheet.jpg")[2]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("history.csv", ""),
        ("history.csv", "epoch\n1\n"),
        ("history.csv", HISTORY + "5,0.1\n"),
        ("history.csv", HISTORY.replace("0.25", "nan")),
        ("history.csv", HISTORY.replace("0.25", "much")),
        ("metrics.json", "{"),
        ("metrics.json", "[]"),
        ("metrics.json", '{"test": {"accuracy": "much"}}'),
        ("metrics.json", '{"test": {"macro": [0.5]}}'),
        ("metrics.json", '{"macs": {}}'),
        ("config.json", "\x00"),
        ("config.json", '{"config": 3}'),
        ("config.json", '{"recipe": ["lenet"]}'),
        ("config.json", "[" * 100_000),
        ("config.json", '{"a":' * 100_000),
        ("metrics.json", '{"test": ' * 100_000),
        ("metrics.json", '{"parameters": 1' + "0" * 400 + "}"),
        ("metrics.json", '{"parameters": 1' + "0" * 5000 + "}"),
        ("metrics.json", '{"parameters": true}'),
        ("metrics.json", '{"train_seconds": 1e300}'),
        ("metrics.json", '{"train_seconds": 1e400}'),
        ("metrics.json", '{"train_seconds": NaN}'),
        ("metrics.json", '{"test": {"accuracy": -1}}'),
        ("metrics.json", '{"test": {"macro": {"f1": Infinity}}}'),
        ("history.csv", HISTORY.replace("1000.0", "1e300")),
        ("history.csv", HISTORY.replace("1000.0", "nan")),
        ("history.csv", HISTORY.replace("1.9", "1e308")),
        ("history.csv", HISTORY.replace("2.0", "inf")),
        ("history.csv", HISTORY.replace("0.1", "-1")),
        ("history.csv", HISTORY.replace("1.9", "9" * 200_000)),
        ("history.csv", HISTORY.replace("1.9", "9" * 5_000)),
        ("history.csv", "\0"),
    ],
)
def test_damaged_files_are_named(compare, run, tmp_path, name, content):
    folder = run("broken")
    (folder / name).write_text(content)
    code, out, err = compare(folder)
    assert (code, out) == (1, "") and f"{folder / name} is damaged: " in err and err.count("\n") == 1
    assert len(err) < 500
