"""Pictures of other sizes and channels than 32 x 32 in colour, from the command to predictions."""

import json

import numpy as np
import pytest
from PIL import Image

from minicnn.training import Trainer, checkpoint

SMALL = ("--backend", "numpy", "--batch-size", 8, "--validation", 6, "--epochs", 2, "--eager")
CROPS = (
    "--image-size",
    20,
    "--resize",
    24,
    "--random-resized-crop",
    "--crop-scale",
    "0.5,1",
    "--crop-ratio",
    "0.8,1.25",
)


def metadata_of(folder):
    return checkpoint.load(folder / "best.safetensors").metadata


def accuracy(command, *words):
    code, out, err = command("evaluate", "--backend", "numpy", "--json", *words)
    assert (code, err) == (0, "")
    return json.loads(out)["accuracy"]


@pytest.mark.parametrize("words, shape", [
    (("--image-size", 20, "--model", "lenet"), (20, 3, 0)),
    (("--image-size", 28, "--channels", 1, "--resize", 30, "--model", "vgg"), (28, 1, 30)),
    ((*CROPS, "--channels", 1, "--model", "lenet"), (20, 1, 24)),
    ((*CROPS, "--model", "lenet", "--memory", 0, "--whiten", 9), (20, 3, 24)),
])  # fmt: skip
def test_from_a_folder_to_predictions(command, sketches, pictures, tmp_path, words, shape):
    folder, run = pictures(), tmp_path / "run"
    code, out, err = command("train", *SMALL, "--dataset", folder, *words, "--out", run)
    assert (code, err) == (0, "")
    assert ("read from disk" in out) == ("--memory" in words)
    metadata = metadata_of(run)
    assert (metadata["image_size"], metadata["channels"], metadata["resize"]) == shape
    assert len(metadata["mean"]) == shape[1] and metadata["split"].get("margin", False) == ("--crop-scale" in words)
    weights = ("--weights", run / "best.safetensors")
    measured = json.loads((run / "metrics.json").read_text())["test"]["accuracy"]
    assert accuracy(command, *weights) == accuracy(command, *weights, "--memory", 0) == measured
    accuracy(command, *weights, "--split", "train")
    code, out, _ = command("predict", "--backend", "numpy", "--json", *weights, folder / "owl")
    assert code == 0 and len(json.loads(out)) == 15
    code, _, err = command(
        "explain", "--backend", "numpy", *weights, folder / "owl" / "00.png", "--out", tmp_path / "e"
    )
    assert (code, err) == (0, "") and (tmp_path / "e" / "grad_cam.png").exists()
    code, _, err = command("convert", run / "best.safetensors", tmp_path / "copy.safetensors")
    assert (code, err) == (0, "")
    assert checkpoint.load(tmp_path / "copy.safetensors").metadata == metadata


def test_on_disk_a_run_has_the_bits_of_memory_also_when_it_is_taken_up(command, sketches, pictures, tmp_path):
    words = ("train", *SMALL, "--dataset", pictures(), "--model", "lenet", *CROPS, "--rotation", 10)
    assert command(*words, "--out", tmp_path / "kept")[0] == 0
    assert command(*words, "--out", tmp_path / "stored", "--memory", 0, "--stop-after", 1)[0] == 0
    assert (
        command("train", "--backend", "numpy", "--eager", "--resume", "--out", tmp_path / "stored", "--memory", 0)[0]
        == 0
    )
    one, two = (checkpoint.load(tmp_path / name / "last.safetensors") for name in ("kept", "stored"))
    assert one.arrays.keys() == two.arrays.keys()
    for name, array in one.arrays.items():
        np.testing.assert_array_equal(array, two.arrays[name])


def test_a_run_is_not_taken_up_with_another_size(command, train, tmp_path):
    words = ("--image-size", 28, "--channels", 1, "--recipe", "lenet", "--epochs", 2, "--eager")
    assert train(*words, "--stop-after", 1, "--out", tmp_path / "run")[0] == 0
    code, _, err = command(
        "train", "--resume", "--backend", "numpy", "--out", tmp_path / "run", "--channels", 3, "--eager"
    )
    assert code == 1 and "cannot resume: channels was 1, now 3" in err


def test_weights_bring_their_size_and_channels(command, sketches, pictures, tmp_path):
    """Another size may be given, where the network has the same parameters."""
    folder = pictures()
    words = ("train", *SMALL, "--dataset", folder)
    assert (
        command(
            *words, "--model", "lenet", "--image-size", 40, "--channels", 1, "--resize", 44, "--out", tmp_path / "a"
        )[0]
        == 0
    )
    weights = ("--weights", tmp_path / "a" / "best.safetensors")
    assert command(*words, *weights, "--out", tmp_path / "b")[0] == 0
    metadata = metadata_of(tmp_path / "b")
    assert (metadata["image_size"], metadata["channels"], metadata["resize"]) == (40, 1, 44)
    assert command(*words, *weights, "--image-size", 36, "--out", tmp_path / "c")[0] == 0
    metadata = metadata_of(tmp_path / "c")
    assert (metadata["image_size"], metadata["channels"], metadata["resize"]) == (36, 1, 0)
    code, _, err = command(*words, *weights, "--channels", 3, "--out", tmp_path / "d")
    assert code == 2 and "do not fit lenet with these options: misshaped: conv1.weight" in err


@pytest.mark.parametrize(
    "words, message",
    [
        (("--channels", 2), "channels: expected 1, for grey, or 3, for colours, received 2"),
        (("--image-size", 40, "--resize", 39), "resize: expected 0, or from image_size, 40, received 39"),
        (("--image-size", 20, "--shift", 20), "shift: expected a whole number from 0 to 19, received 20"),
        (("--image-size", 12), "LeNet: expected image_size from 16, received 12"),
        (("--model", "vit", "--image-size", 30), "ViT: expected patch_size as a divisor of image_size, 30, received 4"),
        (("--model-option", "in_channels=1"), "model_options: expected none that the data set has, received"),
        (("--crop-scale", "0.5"), "crop_scale: expected a list of 2, received (0.5,)"),
        (
            ("--crop-scale", "0.5,1"),
            "crop_scale: expected random_resized_crop with it, received random_resized_crop False",
        ),
        (("--random-resized-crop", "--crop-ratio", "2,1"), "crop_ratio: expected the least first, received 2, 1"),
    ],
)
def test_impossible_options_are_usage_errors_before_any_data_loads(command, words, message):
    code, _, err = command("train", "--backend", "numpy", "--dataset", "/nonexistent", *words)
    assert code == 2 and message in err


def test_a_picture_that_vanishes_in_training_is_one_line(command, sketches, pictures, tmp_path, monkeypatch):
    folder = pictures()

    def then_gone(self, epoch):
        for path in folder.rglob("*.png"):
            path.unlink(missing_ok=True)
        prepare(self, epoch)

    prepare = Trainer.prepare
    monkeypatch.setattr(Trainer, "prepare", then_gone)
    code, _, err = command(
        "train", *SMALL, "--dataset", folder, "--model", "lenet", "--memory", 0, "--out", tmp_path / "run"
    )
    assert code == 1 and "is gone since the data set was loaded" in err and err.count("\n") == 1


def test_show_draws_crops_of_the_size_of_training(command, pictures, tmp_path):
    words = (
        "show",
        "--backend",
        "numpy",
        "--dataset",
        pictures(),
        *CROPS,
        "--channels",
        1,
        "--out",
        tmp_path / "x.png",
    )
    code, out, err = command(*words, "--count", 4)
    assert (code, err) == (0, "") and "4 pictures of pets" in out and (tmp_path / "x.png").exists()


def test_grey_and_colour_pictures_of_one_folder(command, sketches, tmp_path):
    for label, mode in (("a", "L"), ("b", "RGBA"), ("c", "P")):
        (tmp_path / "mixed" / label).mkdir(parents=True)
        for i in range(8):
            Image.new(mode, (9 + i, 30 - i), 10 * i).save(tmp_path / "mixed" / label / f"{i}.png")
    words = ("--dataset", tmp_path / "mixed", "--channels", 1, "--image-size", 16, "--model", "lenet")
    code, _, err = command("train", *SMALL, *words, "--validation", 3, "--out", tmp_path / "run")
    assert (code, err) == (0, "")
