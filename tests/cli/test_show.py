"""show: a picture of a batch before and after."""

import numpy as np
import pytest
from PIL import Image

from minicnn import plots
from minicnn.data import digits


@pytest.fixture
def show(command, tmp_path, monkeypatch):
    """Run show on digits: (what before_after was given, the file, stdout)."""
    drawn, draw = [], plots.before_after
    monkeypatch.setattr(plots, "before_after", lambda *arguments: drawn.append(arguments) or draw(*arguments))

    def run(*words):
        out = tmp_path / "batch.png"
        code, printed, err = command("show", "--dataset", "digits", "--backend", "numpy", "--out", out, *words)
        assert (code, err) == (0, "")
        return drawn[-1], out, printed

    return run


def test_the_picture_shows_records_of_the_training_set_and_their_classes(show):
    (before, after, captions), out, printed = show("--count", 5, "--rotation", 20)
    train = digits.load(validation=200).train
    known = {image.tobytes(): train.classes[label] for image, label in zip(train.images, train.labels, strict=True)}
    assert before.shape == after.shape == (5, 3, 32, 32) and before.dtype == after.dtype == np.uint8
    assert [known[image.tobytes()] for image in before] == captions  # bytes come back as they were
    assert all((x != y).any() for x, y in zip(before, after, strict=True))
    with Image.open(out) as image:
        assert image.format == "PNG" and len(np.unique(np.asarray(image))) > 50
    assert printed.endswith(f"wrote {out}: 5 pictures of digits, recipe digits\n")


def test_nothing_on_changes_nothing(show):
    (before, after, _), *_ = show("--shift", 0)
    np.testing.assert_array_equal(before, after)
    assert len(before) == 16


def test_options_of_the_recipe_hold_where_none_are_given(show):
    (before, after, _), *_ = show()  # shift = 3
    for one, other in zip(before, after, strict=True):
        padded = np.pad(one, ((0, 0), (3, 3), (3, 3)), mode="reflect")
        crops = [padded[:, y : y + 32, x : x + 32] for y in range(7) for x in range(7)]
        assert any(np.array_equal(other, crop) for crop in crops)


def test_batches_and_seeds_differ_and_repeat(show):
    first, again, second, other = (
        show("--count", 4, *words)[0][1] for words in ((), (), ("--batch", 1), ("--seed", 1))
    )
    np.testing.assert_array_equal(first, again)
    assert (first != second).any() and (first != other).any()


@pytest.mark.parametrize("option", ["--mixup", "--cutmix"])
def test_captions_say_what_is_mixed(show, option):
    (_, _, captions), *_ = show(option, 1.0)
    assert all("%" in caption for caption in captions) and sum(" + " in caption for caption in captions) > 8


@pytest.mark.parametrize(
    "words, message",
    [
        (("--rotation", "200"), "rotation: expected a number from 0 to 180, received 200.0"),
        (("--padding-mode", "edge"), "padding_mode: expected one of reflect, constant, replicate, received 'edge'"),
        (("--recipe", "lenat"), "did you mean 'lenet'?"),
        (("--batch", "9999", "--dataset", "digits"), "--batch: expected one of the 78 batches, from 0, received 9999"),
        (("--count", "0"), "Invalid value for '--count'"),
        (("--lr", "1"), "--lr"),
    ],
)
def test_wrong_usage(command, words, message):
    code, out, err = command("show", "--backend", "numpy", *words)
    assert (code, out) == (2, "") and err.startswith("error: ") and message in err and err.count("\n") == 1


def test_the_script(script, tmp_path):
    process = script("show", "--dataset", "digits", "--backend", "numpy", "--out", tmp_path / "batch.png")
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0 and (tmp_path / "batch.png").stat().st_size > 10_000, err
