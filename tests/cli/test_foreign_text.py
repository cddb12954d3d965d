"""Names of classes, files, folders and arrays reach the terminal as visible text, whatever is in them."""

import json
import os
import re
import shutil
import unicodedata

import numpy as np
import pytest
from PIL import Image

from minicnn.training import checkpoint

CLASSES = [
    "a\nb: 100%",
    "\x1b[31mred\x1b]0;title\x07",
    "[red]x[bold] :smile:",
    "\u202egnp",
    "\x9b2Jc\x85d",
    "\u2028é 日本",
]
SHOWN = [
    r"a\nb: 100%",
    r"\x1b[31mred\x1b]0;title\x07",
    "[red]x[bold] :smile:",
    r"\u202egnp",
    r"\x9b2Jc\x85d",
    r"\u2028é 日本",
]
FILE = "f\n\x1b[2J\u202e.png"
FILE_SHOWN = r"f\n\x1b[2J\u202e.png"


def assert_harmless(*texts, styled=False):
    """No control but the ends of lines and tabs; where it is ``styled``, rich's own colours are there too."""
    for text in texts:
        text = re.sub(r"\x1b\[[\d;]*m", "", text) if styled else text
        assert not [c for c in text if c not in "\n\t" and unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("names")


@pytest.fixture(scope="module")
def folder(place):
    """Pictures whose classes and folder steer a terminal."""
    rng = np.random.default_rng(1)
    for name in CLASSES:
        (place / "pets\x1b[1m" / name).mkdir(parents=True)
        for i in range(15):
            pixels = rng.integers(0, 255, (32, 32, 3))
            Image.fromarray(pixels.astype(np.uint8)).save(place / "pets\x1b[1m" / name / f"{i}.png")
    return place / "pets\x1b[1m"


@pytest.fixture(scope="module")
def run(script, place, folder):
    """A run on them, whose own name does too."""
    path = place / "run\x1b[7m\n"
    process = script(
        "train", "--dataset", folder, "--out", path, "--epochs", 1, "--batch-size", 8, "--backend", "numpy"
    )
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    assert_harmless(out, err)
    assert r"pets\x1b[1m" in out and r"run\x1b[7m\n" in out
    return path


@pytest.fixture(scope="module")
def weights(run, place):
    return shutil.copy(run / "best.safetensors", place / "w\x1b[5m.safetensors")


def test_names_in_every_command(command, run, weights, folder, tmp_path):
    picture = tmp_path / FILE
    shutil.copy(next(path for path in folder.rglob("*.png")), picture)
    for words, expected in (
        (("predict", picture, "--weights", weights, "--top-k", 6), [*SHOWN, FILE_SHOWN]),
        (("explain", picture, "--weights", weights, "--out", tmp_path / "e\x07"), [FILE_SHOWN, r"e\x07"]),
        (("evaluate", "--weights", weights, "--dataset", folder), [*SHOWN, r"w\x1b[5m", r"pets\x1b[1m"]),
        (("convert", weights, tmp_path / "c\x1b.safetensors"), [r"c\x1b.safetensors"]),
        (("show", "--dataset", folder, "--out", tmp_path / "s\x1b.png"), [r"s\x1b.png", r"pets\x1b[1m"]),
        (("compare", run, "--out", tmp_path / "c\x1b.png"), [r"run\x1b[7m\n", r"c\x1b.png"]),
        (("compare", run, "--out", tmp_path / "c.png", "--markdown"), [r"run\x1b[7m\n"]),
    ):
        code, out, err = command(*words)
        assert code == 0, err
        assert_harmless(out, err)
        for part in expected:
            assert part in out, words
    code, out, _ = command("predict", picture, "--weights", weights, "--json")
    (answer,) = json.loads(out)
    assert code == 0 and answer["path"] == str(picture)
    assert {row["class"] for row in answer["predictions"]} <= set(CLASSES)
    lines = command("predict", picture, "--weights", weights, "--top-k", 6)[1].splitlines()
    assert len(lines) == 6 and all(line.count("\t") == 2 for line in lines)


def test_names_on_a_terminal(command, weights, folder, tmp_path, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "200")
    picture = tmp_path / FILE
    shutil.copy(next(path for path in folder.rglob("*.png")), picture)
    for words in (
        ("predict", picture, "--weights", weights, "--top-k", 6),
        ("evaluate", "--weights", weights, "--dataset", folder),
    ):
        code, out, err = command(*words)
        assert code == 0, err
        assert_harmless(out, err, styled=True)
        assert all(name in re.sub(r"\x1b\[[\d;]*m", "", out) for name in SHOWN)
        assert "\x1b[31mred" not in out and "\x1b[1m\x1b" not in out


def test_names_in_errors(command, weights, folder, tmp_path):
    evil = "x\x1b[31m\u202e\x9b"
    (tmp_path / evil).write_text("no picture")
    stored = checkpoint.load(weights)
    arrays = {**stored.arrays, evil: np.zeros(2, np.float32)}
    checkpoint.save(tmp_path / "extra.safetensors", arrays, stored.metadata)
    for words in (
        ("predict", tmp_path / evil, "--weights", weights),
        ("predict", tmp_path / evil / "none.png", "--weights", weights),
        ("predict", "x.png", "--weights", evil),
        ("predict", "x.png", "--weights", tmp_path / "extra.safetensors"),
        ("explain", "x.png", "--weights", weights, "--class", evil),
        ("evaluate", "--weights", weights, "--dataset", evil),
        ("evaluate", "--weights", weights, "--dataset", "digits"),
        ("train", "--recipe", evil),
        ("train", "--out", evil, "--resume"),
        ("train", "--" + evil),
        ("compare", evil),
        ("publish", evil, "name"),
        ("convert", weights, tmp_path / evil),
    ):
        code, out, err = command(*words)
        assert code in (1, 2) and "x" in err, words
        assert_harmless(out, err)


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_names_of_any_bytes_on_any_encoding(script, weights, folder, tmp_path, encoding):
    name = os.fsencode(tmp_path) + b"/\xff\xe9\n.png"
    shutil.copy(next(path for path in folder.rglob("*.png")), name)
    run = script(
        "predict", os.fsdecode(name), "--weights", weights, variables={"PYTHONIOENCODING": encoding}, text=False
    )
    out, err = run.communicate(timeout=600)
    assert run.returncode == 0, err
    assert rb"/\udcff\udce9\n.png" in out and len(out.splitlines()) == 3
