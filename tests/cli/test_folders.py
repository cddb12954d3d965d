"""Folders that commands write into: held by one at a time, and a run in one is never written over."""

import shutil

import pytest

from minicnn import data, files
from minicnn.cli import explain, find_lr, train
from minicnn.training import pretrained

DIGITS = ("--backend", "numpy", "--dataset", "digits")


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".lock"}


@pytest.fixture
def writers(digits_run, tmp_path):
    """The words of every command that writes into a folder, by its name."""
    picture = tmp_path / "0.png"
    shutil.copy(digits_run.folder / "samples.png", picture)
    trained = ("--backend", "numpy", "--weights", digits_run.weights)
    return {
        "train": lambda folder: ("train", *DIGITS, "--epochs", 2, "--stop-after", 1, "--out", folder),
        "find-lr": lambda folder: ("find-lr", *DIGITS, "--steps", 10, "--out", folder),
        "evaluate": lambda folder: ("evaluate", *trained, "--out", folder),
        "explain": lambda folder: ("explain", *trained, picture, "--out", folder),
        "study": lambda folder: ("study", "digits", *DIGITS, "--epochs", 2, "--out", folder),
        "compare": lambda folder: ("compare", digits_run.folder, "--out", folder / "sheet.png"),
        "show": lambda folder: ("show", *DIGITS, "--out", folder / "augmented.png"),
        "convert": lambda folder: ("convert", digits_run.weights, folder / "w.safetensors"),
        "publish": lambda folder: ("publish", digits_run.folder, "w"),
    }


FOLDERS = ("train", "find-lr", "evaluate", "explain", "study")
ALL = (*FOLDERS, "compare", "show", "convert", "publish")


@pytest.mark.parametrize("name", ALL)
def test_a_busy_folder_is_refused(command, writers, tmp_path, monkeypatch, name):
    folder = tmp_path / "busy"
    folder.mkdir()
    monkeypatch.setattr(pretrained, "FOLDER", folder)
    with files.lock_run_folder(folder):
        code, _, err = command(*writers[name](folder))
    assert code == 1 and f"error: the folder {folder} is in use by another run" in err and err.count("\n") == 1
    assert contents(folder) == {}


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_with_a_run_is_refused(command, writers, digits_run, name):
    before = contents(digits_run.folder)
    code, _, err = command(*writers[name](digits_run.folder))
    assert code == 2 and "holds a run" in err and err.count("\n") == 1 and contents(digits_run.folder) == before


def test_a_finished_run_without_its_last_state_is_one_too(command, writers, digits_run, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(digits_run.folder, run)
    (run / "last.safetensors").unlink()
    assert "holds a run" in command(*writers["train"](run))[2]
    (run / "best.safetensors").unlink()  # and so are its figures alone
    before = contents(run)
    code, _, err = command(*writers["evaluate"](run))
    assert code == 2 and err.endswith("holds a run; choose another folder\n") and contents(run) == before


@pytest.mark.parametrize(
    ("name", "module", "call"),
    [
        ("train", train, "load"),
        ("find-lr", find_lr, "load"),
        ("evaluate", data, "load"),
        ("explain", explain, "predict"),
        ("study", train, "load"),
    ],
)
def test_a_run_that_comes_and_ends_meanwhile_is_kept(
    command, writers, digits_run, tmp_path, monkeypatch, name, module, call
):
    """Another process writes its whole run after the folder was found empty, while this one loads or computes."""
    folder = tmp_path / "out"
    target, original = (folder / "digits" if name == "study" else folder), getattr(module, call)

    def meanwhile(*words, **options):
        if not target.exists():
            shutil.copytree(digits_run.folder, target)
        return original(*words, **options)

    monkeypatch.setattr(module, call, meanwhile)
    code, _, err = command(*writers[name](folder))
    assert code == 2 and f"{target} holds a run" in err and err.count("\n") == 1
    assert contents(target) == contents(digits_run.folder)


def test_resume_goes_on_from_what_another_process_saved_meanwhile(command, tmp_path, monkeypatch):
    small = (*DIGITS, "--train-size", 200, "--validation", 100, "--epochs", 3, "--out", tmp_path)
    assert command("train", *small, "--stop-after", 1)[0] == 0
    original, calls = train.load, []

    def meanwhile(*words):
        calls.append(words)
        if len(calls) == 1:
            assert command("train", *small, "--resume", "--stop-after", 1)[0] == 0
        return original(*words)

    monkeypatch.setattr(train, "load", meanwhile)
    code, out, _ = command("train", *small, "--resume")
    assert code == 0 and "epoch 3/3" in out and "epoch 2/3" not in out


def test_a_single_file_leaves_no_lock_in_a_folder_that_is_not_of_a_run(command, writers, tmp_path):
    for name in ("compare", "show", "convert"):
        assert command(*writers[name](tmp_path / name))[0] == 0
        assert len(contents(tmp_path / name)) == 1 and not (tmp_path / name / ".lock").exists()


def test_the_weights_of_a_run_are_not_converted_over(command, digits_run):
    before = contents(digits_run.folder)
    code, out, err = command("convert", "lenet-cifar10", digits_run.weights)
    assert (code, out, err) == (2, "", f"error: {digits_run.weights} is of a run; choose another file\n")
    assert contents(digits_run.folder) == before
