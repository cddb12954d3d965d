"""publish: weights with their card."""

import copy
import hashlib
import json
import shutil

import pytest

from minicnn import backend
from minicnn.training import pretrained


def test_a_run_becomes_weights_with_a_name(command, digits_run, tmp_path, monkeypatch):
    monkeypatch.setattr(pretrained, "FOLDER", tmp_path)
    code, out, err = command("publish", digits_run.folder, "mine")
    assert (code, err) == (0, "") and out.startswith("shipped mine: ")
    card = json.loads((tmp_path / "mine.json").read_text())
    metrics = json.loads((digits_run.folder / "metrics.json").read_text())
    assert card["test_accuracy"] == metrics["test"]["accuracy"] and card["recipe"] == "digits"
    assert card["sha256"] == hashlib.sha256((tmp_path / "mine.safetensors").read_bytes()).hexdigest()
    assert pretrained.load("mine", backend.get("numpy")).classes == tuple("0123456789")


def test_a_card_without_weights(command, digits_run, tmp_path, monkeypatch):
    """Of weights that are too large to ship: the same card, but for the checksum of a file that nobody has."""
    monkeypatch.setattr(pretrained, "FOLDER", tmp_path)
    assert command("publish", digits_run.folder, "mine")[0] == 0
    shipped = json.loads((tmp_path / "mine.json").read_text())
    del shipped["sha256"]
    monkeypatch.setattr(pretrained, "FOLDER", tmp_path / "nowhere")
    code, out, err = command("publish", digits_run.folder, "mine", "--card", tmp_path / "cards" / "card.json")
    assert (code, err) == (0, "") and out.startswith(f"wrote the card of mine to {tmp_path}/cards/card.json: ")
    assert json.loads((tmp_path / "cards" / "card.json").read_text()) == shipped
    assert not (tmp_path / "nowhere").exists()
    code, out, err = command("publish", digits_run.folder, "mine", "--card", tmp_path / "card.txt")
    assert code == 2 and out == "" and err.startswith("error: --card: expected a .json file") and err.count("\n") == 1
    (tmp_path / "shipped").mkdir()
    monkeypatch.setattr(pretrained, "FOLDER", tmp_path / "shipped")
    code, out, err = command("publish", digits_run.folder, "mine", "--card", tmp_path / "shipped" / "mine.json")
    assert code == 2 and out == "" and "has the cards of shipped weights" in err
    for name in ("metrics.json", "config.json"):
        before = (digits_run.folder / name).read_text()
        code, out, err = command("publish", digits_run.folder, "mine", "--card", digits_run.folder / name)
        assert code == 2 and out == "" and f"{name} is of a run; choose another file" in err
        assert (digits_run.folder / name).read_text() == before


def test_a_folder_without_a_finished_run_is_refused(command, tmp_path):
    code, out, err = command("publish", tmp_path, "mine")
    assert code == 2 and out == "" and "no finished run" in err and err.count("\n") == 1


@pytest.mark.parametrize(
    "name",
    ["../x", "/tmp/x", "a/b", "..", ".", "", ".hidden", "-x", "a\nb", "a\0b", "ä", "a b", "C:x", "a\\b", "n" * 101],
)
def test_a_name_is_that_of_one_file_in_the_folder(command, tmp_path, monkeypatch, name):
    """Asked before anything is read: the run here would be refused too."""
    monkeypatch.setattr(pretrained, "FOLDER", tmp_path / "shipped")
    (tmp_path / "shipped").mkdir()
    code, out, err = command("publish", tmp_path, "--", name)
    assert code == 2 and out == "" and err.count("\n") == 1 and "NAME: expected letters, digits" in err
    assert [path.name for path in tmp_path.rglob("*")] == ["shipped"]


@pytest.mark.parametrize("name", ["../x", "lenet-cifar10/../lenet-cifar10", "/etc/passwd"])
def test_other_names_that_become_paths_are_refused_too(command, tmp_path, name):
    with pytest.raises(FileNotFoundError, match="no shipped weights"):
        pretrained.card(name)
    for words in (("train", "--recipe", name), ("study", name, "--out", tmp_path), ("train", "--model", name)):
        code, _, err = command(*words)
        assert code == 2 and "expected one of" in err
    assert list(tmp_path.iterdir()) == []


def places(value, path=()):
    """The path of every value by name inside a JSON mapping."""
    for key, inner in value.items() if isinstance(value, dict) else ():
        yield (*path, key)
        yield from places(inner, (*path, key))


@pytest.mark.parametrize("file", ["metrics.json", "config.json"])
def test_files_of_a_run_with_something_missing_or_wrong(command, digits_run, tmp_path, monkeypatch, file):
    """Whatever is replaced or taken away: published as before where nothing needs it, else one line, nothing written"""
    monkeypatch.setattr(pretrained, "FOLDER", tmp_path / "weights")
    (tmp_path / "weights").mkdir()
    run = tmp_path / "run"
    shutil.copytree(digits_run.folder, run)
    content, refused = json.loads((run / file).read_text()), set()
    wrongs = (KeyError, None, "x", -1, 10**400, float("nan"), [])
    for path in places(content):
        for wrong in wrongs[: 2 if path[0] == "config" and len(path) > 1 else None]:  # an option of training is copied
            broken = copy.deepcopy(content)
            inner = broken
            for key in path[:-1]:
                inner = inner[key]
            if wrong is KeyError:
                del inner[path[-1]]
            else:
                inner[path[-1]] = wrong
            (run / file).write_text(json.dumps(broken))
            code, out, err = command("publish", run, "mine")
            if code == 0:
                for written in (tmp_path / "weights").iterdir():
                    written.unlink()
                continue
            refused.add(".".join(path))
            assert (code, out, err.count("\n")) == (1, "", 1) and f"error: {run}" in err and " is damaged" in err
            assert not list((tmp_path / "weights").iterdir())
    needed = {
        "metrics.json": {"parameters", "best_epoch", "validation_accuracy", "train_seconds", "test", "test.images"},
        "config.json": {"recipe", "config", "versions"},
    }
    assert needed[file] <= refused


def test_weights_of_another_epoch_than_the_figures_are_refused(command, digits_run, tmp_path, monkeypatch):
    monkeypatch.setattr(pretrained, "FOLDER", tmp_path / "weights")
    run = tmp_path / "run"
    shutil.copytree(digits_run.folder, run)
    metrics = json.loads((run / "metrics.json").read_text())
    (run / "metrics.json").write_text(json.dumps(metrics | {"best_epoch": metrics["best_epoch"] + 1}))
    code, out, err = command("publish", run, "mine")
    assert (code, out) == (1, "") and "not of the run that metrics.json tells of: epoch: expected " in err
