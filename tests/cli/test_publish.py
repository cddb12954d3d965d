"""publish: weights with their card."""

import hashlib
import json

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
