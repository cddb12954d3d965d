"""publish: weights with their card."""

import hashlib
import json

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
