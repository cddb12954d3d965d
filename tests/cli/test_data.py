"""Which data a command reads: that of a run or of its weights, or one line that says what differs; paths with "~"."""

import json
import os
import shutil
import sys

import pytest
from PIL import Image

from minicnn.training import checkpoint, pretrained

SMALL = ("--backend", "numpy", "--epochs", 2, "--batch-size", 8, "--model", "lenet", "--threads", 1)


@pytest.fixture
def folder_run(command, pictures, tmp_path):
    """A folder of pictures, and a run on it that stopped after one of two epochs: (folder, run)."""

    def make(name="pets", *words):
        root, run = pictures(name), tmp_path / f"run-{name}"
        code, _, err = command("train", "--dataset", root, *SMALL, "--stop-after", 1, "--out", run, *words)
        assert (code, err) == (0, "")
        return root, run

    return make


def swap(root, *names):
    """Exchange two pictures, so that numbers and names stay."""
    one, two = (root / name for name in names)
    kept = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(kept)


def add(root):
    Image.new("RGB", (40, 40)).save(root / "cat" / "new.png")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda root: swap(root, "cat/00.png", "dog/00.png"), "the pictures or labels of "),
        (lambda root: Image.new("RGB", (40, 40)).save(root / "cat" / "03.png"), "the pictures or labels of "),
        (add, "records was {'train': "),
        (lambda root: (root / "cat").rename(root / "zebra"), "classes was ['cat', 'dog', 'owl'], now ['dog',"),
    ],
)
def test_resume_refuses_other_pictures_in_the_same_folder(command, folder_run, change, message):
    root, run = folder_run()
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    change(root)
    code, _, err = command("train", "--backend", "numpy", "--out", run, "--resume")
    assert code == 1 and err.startswith("error: cannot resume: ") and message in err and err.count("\n") == 1
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before


def test_resume_takes_the_same_pictures_from_elsewhere(command, folder_run, tmp_path):
    root, run = folder_run()
    root.rename(tmp_path / "moved")
    code, _, err = command("train", "--backend", "numpy", "--out", run, "--resume")
    assert code == 2 and err == f"error: no folder {root}; where it was moved, name its new place by --dataset\n"
    code, out, err = command("train", "--backend", "numpy", "--out", run, "--resume", "--dataset", tmp_path / "moved")
    assert (code, err) == (0, "") and "test: " in out
    assert json.loads((run / "config.json").read_text())["dataset"] == str(tmp_path / "moved")


def test_weights_are_measured_on_the_folder_they_are_from(command, folder_run, monkeypatch, tmp_path):
    """Also where that has the name of another data set, from any working folder."""
    for name in ("digits", "cifar10"):
        root, run = folder_run(name)
        (tmp_path / "elsewhere").mkdir(exist_ok=True)
        monkeypatch.chdir(tmp_path / "elsewhere")
        code, out, err = command("evaluate", "--backend", "numpy", "--weights", run / "best.safetensors")
        assert (code, err) == (0, "") and out.startswith(f"data: pictures from {root}\n")


def test_weights_whose_folder_has_changed(command, folder_run, tmp_path):
    root, run = folder_run()
    words = ("evaluate", "--backend", "numpy", "--weights", run / "best.safetensors")
    shutil.copytree(root, tmp_path / "moved" / "pets")
    add(root)
    code, out, err = command(*words)
    assert (code, out) == (1, "") and err.startswith("error: pets is not the data of the training: records was ")
    assert err.endswith("; name a data set by --dataset\n")
    code, out, err = command(*words, "--dataset", root)  # a wish is a wish
    assert code == 0 and err.startswith("warning: pets is not the data of the training: records was ")
    code, out, err = command(*words, "--dataset", tmp_path / "moved" / "pets")
    assert (code, err) == (0, "")
    shutil.rmtree(root)
    code, out, err = command(*words)
    assert code == 2 and err == f"error: no folder {root}; where it was moved, name its new place by --dataset\n"


def test_the_part_that_is_measured_counts(command, folder_run):
    """A picture that goes from training to validation changes both, and not the test pictures."""
    root, run = folder_run()
    weights = checkpoint.load(run / "best.safetensors")
    weights.metadata["data"]["fingerprints"]["train"] = "0" * 32
    checkpoint.save(run / "other.safetensors", weights.arrays, weights.metadata)
    words = ("evaluate", "--backend", "numpy", "--weights", run / "other.safetensors", "--split")
    assert command(*words, "test")[0] == 0
    code, _, err = command(*words, "train")
    assert code == 1 and "the pictures or labels of train are not those of before" in err


@pytest.mark.parametrize("keys", [("origin", "data"), ("origin",)])
def test_weights_that_do_not_say_where_their_data_is(command, folder_run, digits_run, keys):
    """Of an earlier minicnn, or published."""
    for weights, code, line in ((folder_run()[1], 2, "name it by --dataset"), (digits_run.folder, 0, "")):
        stored = checkpoint.load(weights / "best.safetensors")
        metadata = {key: value for key, value in stored.metadata.items() if key not in keys}
        checkpoint.save(weights.parent / "old.safetensors", stored.arrays, metadata)
        answer = command("evaluate", "--backend", "numpy", "--weights", weights.parent / "old.safetensors")
        assert answer[0] == code and line in answer[2]


def test_published_weights_name_no_path(command, folder_run, monkeypatch, tmp_path):
    root, run = folder_run("digits")
    assert command("train", "--backend", "numpy", "--out", run, "--resume")[0] == 0
    monkeypatch.setattr(pretrained, "FOLDER", tmp_path / "shipped")
    (tmp_path / "shipped").mkdir()
    assert command("publish", run, "pets-lenet")[0] == 0
    assert str(tmp_path) not in json.dumps(checkpoint.load(tmp_path / "shipped" / "pets-lenet.safetensors").metadata)
    code, _, err = command("evaluate", "--backend", "numpy", "--weights", "pets-lenet")
    assert code == 2 and "a data set 'digits', and do not say where it is; name it by --dataset" in err
    assert command("evaluate", "--backend", "numpy", "--weights", "pets-lenet", "--dataset", root)[0] == 0


@pytest.mark.parametrize(
    "changes",
    [{"data": 3}, {"data": {"fingerprints": []}}, {"origin": 3}, {"origin": ["x"]}, {"split": 3}, {"split": {"x": 1}}],
)
def test_damaged_metadata_is_one_line(command, digits_run, tmp_path, changes):
    stored = checkpoint.load(digits_run.weights)
    checkpoint.save(tmp_path / "bad.safetensors", stored.arrays, stored.metadata | changes)
    code, out, err = command("evaluate", "--backend", "numpy", "--weights", tmp_path / "bad.safetensors")
    assert code in (1, 2) and out == "" and err.startswith("error: ") and err.count("\n") == 1


def test_damaged_pictures(command, pictures, tmp_path):
    root = pictures()
    for name in ("cat/x.png", "dog/y.jpg"):
        (root / name).write_bytes(b"bad")
    run = ("train", "--dataset", root, *SMALL, "--out", tmp_path / "run")
    code, _, err = command(*run)
    assert code == 1 and err.count("\n") == 1 and err.startswith("error: 2 pictures cannot be used: ")
    code, out, err = command(*run, "--skip-damaged")
    assert code == 0 and "; without 2 damaged\n" in out
    assert [line.partition("left out: ")[2].partition(" is")[0] for line in err.splitlines()] == [
        repr(str(root / name)) for name in ("cat/x.png", "dog/y.jpg")
    ]
    assert command("evaluate", "--backend", "numpy", "--weights", tmp_path / "run" / "best.safetensors")[0] == 0
    show = ("show", "--dataset", root, "--backend", "numpy", "--out", tmp_path / "show.png")
    assert command(*show)[0] == 1 and command(*show, "--skip-damaged")[0] == 0
    words = ("evaluate", "--backend", "numpy", "--weights", tmp_path / "run" / "best.safetensors", "--dataset", root)
    assert command(*words, "--skip-damaged")[0] == 0


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_names_that_are_not_utf8(command, pictures, tmp_path):
    """A class: refused before training. A folder above and a picture: used, up to the drawings."""
    root = pictures()
    root = root.rename(tmp_path / os.fsdecode(b"caf\xe9"))
    (root / "cat" / "00.png").rename(root / "cat" / os.fsdecode(b"\xff.png"))
    run = tmp_path / os.fsdecode(b"run\xe9")
    assert command("train", "--dataset", root, *SMALL, "--out", run)[0] == 0
    weights = ("--backend", "numpy", "--weights", run / "best.safetensors")
    assert command("evaluate", *weights)[0] == 0
    assert (
        command("explain", *weights, root / "cat" / os.fsdecode(b"\xff.png"), "--out", tmp_path / "explained")[0] == 0
    )
    assert command("compare", run, "--out", tmp_path / "compare.png")[0] == 0
    root = root.rename(tmp_path / "pets")
    (root / "dog").rename(root / os.fsdecode(b"dog\xe9"))
    code, out, err = command("train", "--dataset", root, *SMALL, "--out", tmp_path / "other")
    assert (
        code == 1 and "expected names of classes in UTF-8, received 'dog\\udce9'; rename" in err and "epoch" not in out
    )


def test_a_study_does_not_take_a_finished_run_on_other_data(command, pictures, tmp_path):
    study = ("study", "lenet", "--out", tmp_path / "study", *SMALL[:-4], "--threads", 1, "--dataset")
    assert command(*study, pictures("one"))[0] == 0
    assert command(*study, tmp_path / "one")[0] == 0
    code, _, err = command(*study, pictures("two"))
    assert code == 2 and err.endswith(
        f"lenet is a finished run on {tmp_path / 'one'}, not on {tmp_path / 'two'}; choose another folder\n"
    )


@pytest.mark.parametrize(
    "words",
    [
        ("train", "--dataset=~/pets", *SMALL, "--out=~/run"),
        ("train", "--dataset", "~/pets", *SMALL, "--out", "~/run"),
        ("find-lr", "--dataset=~/pets", "--backend=numpy", "--batch-size=4", "--steps=10", "--out=~/run"),
        ("show", "--dataset=~/pets", "--backend=numpy", "--out=~/show.png"),
        ("study", "lenet", "--dataset=~/pets", *SMALL[:-4], "--out=~/study"),
        ("predict", "~/pets/cat", "-image=~/pets/dog", "--weights=~/weights.safetensors", "--backend=numpy"),
        ("explain", "~/pets/cat/00.png", "--weights=~/weights.safetensors", "--out=~/explained", "--backend=numpy"),
        ("evaluate", "--weights=~/weights.safetensors", "--dataset=digits", "--out=~/measured", "--backend=numpy"),
        ("convert", "~/weights.safetensors", "~/new.safetensors"),
    ],
)
def test_a_tilde_is_the_home_folder_in_every_path(command, pictures, digits_run, monkeypatch, tmp_path, words):
    pictures()
    shutil.copy(digits_run.weights, tmp_path / "weights.safetensors")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert command(*words)[0] == 0
    assert list((tmp_path / "here").iterdir()) == []


def test_no_home_folder(command, monkeypatch, tmp_path):
    pytest.importorskip("pwd")

    def unknown(_):
        raise KeyError("no such user")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pwd.getpwuid", unknown)
    for variable in ("HOME", "XDG_CACHE_HOME", "MINICNN_DATA"):
        monkeypatch.delenv(variable, raising=False)
    for word in ("--data-dir=~/data", "--dataset=~/data"):
        code, _, err = command("evaluate", "--backend", "numpy", word)
        assert code == 1 and err == "error: '~/data': there is no home folder; set HOME, or write the path in full\n"
    code, _, err = command("evaluate", "--backend", "numpy")
    assert code == 2 and "there is no home folder to look in; name one by --data-dir or MINICNN_DATA" in err
    monkeypatch.setenv("MINICNN_DATA", "~/data")
    code, _, err = command("evaluate", "--backend", "numpy")
    assert code == 1 and err.startswith("error: '~/data': there is no home folder")
    assert command("predict", "--backend", "numpy", "~$lock.png")[2].startswith("error: '~$lock.png' does not exist")
    assert list(tmp_path.iterdir()) == []
