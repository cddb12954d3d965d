"""explain: pictures of what a model sees."""

import shutil

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def explain(command, digits_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return lambda *words: command("explain", "--backend", "numpy", "--weights", digits_run.weights, *words)


@pytest.fixture
def picture(tmp_path):
    """Make a picture of noise: its path."""

    def make(name="noise.png", seed=0):
        pixels = np.random.default_rng(seed).integers(0, 256, (32, 32, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / name)
        return tmp_path / name

    return make


def test_pictures_by_option_and_by_position(explain, picture, tmp_path):
    code, out, err = explain(picture("a, b.png"), "-image", picture("c.png", 1))
    assert (code, err) == (0, "")
    first, second, last = out.splitlines()
    assert first.startswith(f"1\t{tmp_path}/c.png\t") and second.startswith(f"2\t{tmp_path}/a, b.png\t")
    assert last.endswith("into runs/explanations")
    names = {"filters", "feature_maps", "grad_cam", "probabilities-1", "probabilities-2"}
    assert {path.name for path in (tmp_path / "runs" / "explanations").glob("*.png")} == {
        f"{name}.png" for name in names
    }
    for path in (tmp_path / "runs" / "explanations").glob("*.png"):
        assert np.ptp(np.asarray(Image.open(path).convert("L"))) > 100


def test_no_probabilities_of_an_earlier_call_are_left(explain, picture, tmp_path):
    assert explain(picture("a.png"), picture("b.png"))[0] == 0
    folder = tmp_path / "runs" / "explanations"
    (folder / "probabilities-mine.png").touch()  # of the user
    assert explain(picture("a.png"))[0] == 0
    assert {path.name for path in folder.glob("probabilities-*")} == {"probabilities-1.png", "probabilities-mine.png"}


def test_layer_and_class_change_the_picture(explain, picture):
    pictures = []
    for number, words in enumerate(((), ("--layer", "conv1"), ("--class", "3"), ("--class", "4"))):
        code, out, _ = explain(picture(), "--out", f"out{number}", *words)
        assert code == 0
        pictures.append((picture().parent / f"out{number}" / "grad_cam.png").read_bytes())
    assert len(set(pictures)) >= 3 and pictures[2] != pictures[3]
    assert out.startswith(f"1\t{picture()}\t4 ")


def test_a_bad_picture_costs_no_other_its_explanation(explain, picture, tmp_path):
    (tmp_path / "text.png").write_text("no picture")
    code, out, err = explain(tmp_path / "text.png", picture())
    assert code == 1 and out.startswith(f"1\t{picture()}\t")
    assert err.startswith("error: ") and err.count("\n") == 1
    shutil.rmtree(tmp_path / "runs" / "explanations")
    code, out, err = explain(tmp_path / "text.png")
    assert (code, out, err.count("\n")) == (1, "", 1) and not (tmp_path / "runs" / "explanations").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--layer", "conv3"), "--layer: expected one with an output (N, C, H, W): conv1, conv2; received 'conv3'"),
        (("--layer", "fc1"), "received 'fc1'"),
        (("--class", "12"), "--class: expected one of 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, received '12'; did you mean '2'?"),
    ],
)
def test_wrong_words(explain, picture, words, message):
    code, out, err = explain(picture(), *words)
    assert (code, out) == (2, "") and message in err and err.count("\n") == 1
    assert not (picture().parent / "runs").exists()


def test_no_picture_too_many_and_the_folder_of_a_run(explain, picture, digits_run, tmp_path):
    assert explain() == (2, "", "error: expected a picture: explain -image PATH [PATH ...]\n")
    code, _, err = explain(*[picture()] * 25)
    assert code == 2 and "at most 24 pictures for one sheet, received 25" in err
    code, _, err = explain(picture(), "--out", digits_run.folder)
    assert code == 2 and "holds a run" in err
