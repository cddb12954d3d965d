"""predict: what is on pictures."""

import errno
import json
import os
import pty
import shutil
import socket
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from minicnn.data import images, load
from minicnn.training import checkpoint

from .conftest import complaints


@pytest.fixture(scope="session")
def digit(tmp_path_factory):
    """Write pictures of test digits: the path of the first of a class."""
    folder = tmp_path_factory.mktemp("pictures")
    test = load("digits").test
    for label in range(10):
        image = test.images[test.labels == label][0]
        Image.fromarray(np.moveaxis(image, 0, -1)).save(folder / f"{label}.png")
    return lambda label: folder / f"{label}.png"


@pytest.fixture
def predict(command, digits_run):
    return lambda *words: command("predict", "--backend", "numpy", "--weights", digits_run.weights, *words)


def test_pictures_by_option_and_by_position(predict, digit):
    code, out, err = predict("-image", digit(3), digit(7), "--image", digit(0), "--top-k", 1)
    rows = [line.split("\t") for line in out.splitlines()]
    assert (code, err) == (0, "")
    assert {(row[0], row[1]) for row in rows} == {(str(digit(n)), str(n)) for n in (3, 7, 0)}
    assert all(0.5 < float(row[2]) <= 1 for row in rows)


def test_a_folder_and_json(predict, digit):
    code, out, _ = predict(digit(0).parent, "--json", "--top-k", 99)
    answers = json.loads(out)
    assert code == 0 and [answer["path"] for answer in answers] == [str(digit(n)) for n in range(10)]
    assert sum(answer["predictions"][0]["class"] == str(n) for n, answer in enumerate(answers)) >= 9
    for answer in answers:
        probabilities = [row["probability"] for row in answer["predictions"]]
        assert len(probabilities) == 10 and sum(probabilities) == pytest.approx(1, abs=1e-5)
        assert probabilities == sorted(probabilities, reverse=True)


def test_a_bad_picture_costs_no_other_its_answer(predict, digit, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "cut.png").write_bytes(digit(1).read_bytes()[:-40])
    bad = [tmp_path / "text.png", tmp_path / "cut.png", tmp_path / "missing.png", tmp_path / "empty"]
    code, out, err = predict(digit(5), *bad, digit(6), "--json")
    answers = json.loads(out)
    assert code == 1 and [answer["path"] for answer in answers] == [str(p) for p in (digit(5), *bad, digit(6))]
    assert ["error" in answer for answer in answers] == [False, True, True, True, True, False]
    assert len(err.splitlines()) == 4 and all(line.startswith("error: ") for line in err.splitlines())
    code, out, err = predict(*bad, digit(6), "--top-k", 1)
    assert code == 1 and out.startswith(f"{digit(6)}\t6\t") and len(out.splitlines()) == 1


@pytest.fixture
def awkward(tmp_path):
    """Paths that are no pictures, each in a way of its own."""
    os.mkfifo(tmp_path / "fifo.png")
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    (tmp_path / "dangling.png").symlink_to(tmp_path / "nowhere.png")
    listener = socket.socket(socket.AF_UNIX)
    bound = tmp_path / "s"
    listener.bind(str(bound))
    (tmp_path / "closed").mkdir()
    (tmp_path / "closed.png").write_bytes(b"x")
    yield {
        "long": "n" * 300 + ".png",
        "long inside": tmp_path / ("n" * 300) / "a.png",
        "fifo": tmp_path / "fifo.png",
        "loop": tmp_path / "loop.png",
        "dangling": tmp_path / "dangling.png",
        "socket": bound,
        "device": "/dev/zero",
        "below a file": tmp_path / "closed.png" / "a.png",
        "closed folder": tmp_path / "closed",
        "closed file": tmp_path / "closed.png",
    }
    listener.close()


@pytest.mark.parametrize("which", ["predict", "explain"])
def test_an_awkward_path_costs_no_other_its_answer(command, digits_run, digit, awkward, tmp_path, monkeypatch, which):
    def denied(original):
        def call(path, *words, **options):
            if "closed" in str(path):  # no permission stops root, so the system's answer is played
                raise PermissionError(errno.EACCES, "Permission denied")
            return original(path, *words, **options)

        return call

    monkeypatch.setattr(Path, "iterdir", denied(Path.iterdir))
    monkeypatch.setattr(images.Image, "open", denied(images.Image.open))
    words = ("--backend", "numpy", "--weights", digits_run.weights, digit(5), *awkward.values(), digit(6))
    more = ("--json",) if which == "predict" else ("--out", tmp_path / "out")
    code, out, err = command(which, *words, *more)
    lines = err.splitlines()
    assert code == 1 and len(lines) == len(awkward) and all(line.startswith("error: ") for line in lines)
    if which == "predict":
        answers = json.loads(out)
        assert [answer["path"] for answer in answers] == [str(word) for word in words[4:]]
        assert [answer["path"] for answer in answers if "error" not in answer] == [str(digit(5)), str(digit(6))]
    else:
        assert out.count("\t") == 4 and str(digit(6)) in out
    assert sum("Permission denied" in line for line in lines) == 2


@pytest.mark.parametrize("value", [np.nan, np.inf, 3e38])
@pytest.mark.parametrize("which", ["predict", "explain", "evaluate", "convert"])
def test_weights_that_are_not_finite_or_give_such_answers(command, digits_run, digit, tmp_path, value, which):
    stored = checkpoint.load(digits_run.weights)
    stored.arrays["fc1.weight"][:] = value
    weights = tmp_path / "w.safetensors"
    checkpoint.save(weights, stored.arrays, stored.metadata)
    words = {
        "predict": ("--weights", weights, digit(1), "--json"),
        "explain": ("--weights", weights, digit(1), "--out", tmp_path / "out"),
        "evaluate": ("--weights", weights, "--json", "--out", tmp_path / "out"),
        "convert": (weights, tmp_path / "v.safetensors"),
    }[which]
    if which == "convert" and np.isfinite(value):
        pytest.skip("finite weights are converted")
    code, out, err = command(which, *(() if which == "convert" else ("--backend", "numpy")), *words)
    assert code == 1 and err.startswith("error: ") and err.count("\n") == 1
    assert ("fc1.weight hold NaN or infinities" in err) == (not np.isfinite(value))
    assert not np.isfinite(value) or "not finite" in err
    if out:
        assert which == "predict" and set(json.loads(out, parse_constant=pytest.fail)[0]) == {"path", "error"}


@pytest.mark.parametrize("name", ["caffè 猫.png", " spaced name.png", "-dash.png", "\udcff.png", "tab\there.png"])
def test_awkward_names(predict, digit, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    shutil.copy(digit(4), tmp_path / name)
    code, out, err = predict("--json", "-image", name)
    assert (code, err) == (0, "") and json.loads(out)[0]["path"] == name
    assert json.loads(out)[0]["predictions"][0]["class"] == "4"
    code, out, err = predict("--", name)
    assert (code, err, len(out.splitlines())) == (0, "", 3)


def on_a_terminal(script, *words, **variables):
    """What the process writes to a terminal of 80 columns."""
    ours, theirs = pty.openpty()
    variables = {"TERM": "xterm", "COLUMNS": "80", **variables}
    process = script("predict", *words, stdout=theirs, stderr=subprocess.STDOUT, variables=variables)
    os.close(theirs)
    written = b""
    try:
        while piece := os.read(ours, 4096):
            written += piece
    except OSError:  # how Linux says that the other end is closed
        pass
    os.close(ours)
    assert process.wait(600) == 0
    return written.decode()


@pytest.mark.parametrize("variables", [{}, {"NO_COLOR": "1"}])
def test_bars_on_a_terminal(script, digits_run, digit, variables):
    text = on_a_terminal(script, "--backend", "numpy", "--weights", digits_run.weights, digit(2), **variables)
    lines = text.splitlines()
    assert "2.png" in lines[0] and "█" * 15 in lines[1] and "%" in lines[1] and len(lines) == 4
    assert ("\x1b[32m" in text) is not bool(variables)


def test_no_picture_is_wrong_usage(command):
    assert command("predict") == (2, "", "error: expected a picture: predict -image PATH [PATH ...]\n")


@pytest.mark.parametrize("kind", ["noise", ".pt", "class", "shape", "newer", "missing", "folder"])
def test_refused_weights_are_one_line(command, digits_run, digit, tmp_path, monkeypatch, kind):
    stored = checkpoint.load(digits_run.weights)
    arrays, metadata = stored.arrays, stored.metadata
    path = tmp_path / "w.safetensors"
    expected = {
        "noise": "is not a .safetensors file",
        ".pt": "can run code",
        "class": "received 'subprocess.Popen'",
        "shape": "misshaped: fc3.bias expected (10,), found (9,)",
        "newer": "update minicnn",
        "missing": "no file and no shipped weights",
        "folder": "is not a file",
    }[kind]
    if kind == "noise":
        path.write_bytes(os.urandom(1000))
    elif kind == ".pt":
        path = tmp_path / "w.pt"
        path.write_bytes(b"\x80\x02cos\nsystem\n(S'touch ran'\ntR.")
    elif kind == "folder":
        path.mkdir()
    elif kind != "missing":
        if kind == "class":
            metadata = metadata | {"model": "subprocess.Popen"}
        if kind == "shape":
            arrays = arrays | {"fc3.bias": arrays["fc3.bias"][:9]}
        with monkeypatch.context() as patch:
            patch.setattr(checkpoint, "FORMAT", 9 if kind == "newer" else 1)
            checkpoint.save(path, arrays, metadata)
    code, out, err = command("predict", "--backend", "numpy", "--weights", path, digit(1))
    assert (code, out, err.count("\n")) == (1, "", 1) and err.startswith("error: ") and expected in err


def test_the_reader_may_leave(script, digits_run, digit):
    process = script("predict", "--backend", "numpy", "--weights", digits_run.weights, *[digit(1)] * 1000)
    assert process.stdout.readline().startswith(str(digit(1)))
    process.stdout.close()
    assert complaints(process.stderr.read()) == "" and process.wait(600) == 1


def test_the_one_door_to_two_commands(script, digits_run, digit):
    answer = script("app", "-image", digit(3), "--weights", digits_run.weights, "--top-k", 1)
    assert answer.communicate(timeout=600)[0].split("\t")[1] == "3" and answer.returncode == 0
    training = script("app", "-train", "--epochs", 0)
    assert "epochs" in training.communicate(timeout=600)[1] and training.returncode == 2
