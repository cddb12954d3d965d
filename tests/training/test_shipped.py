"""The weights that come with the package."""

import hashlib

import numpy as np
import pytest

from minicnn import backend
from minicnn.data import load_image
from minicnn.training import pretrained
from minicnn.training.evaluation import predict

LEAST = {  # test accuracy that each is shipped for
    "speedrun-cifar10": 0.94,
    "lenet-cifar10": 0.75,
    "resnet20-cifar10": 0.88,
    "custom-cnn-cifar10": 0.85,
    "stage-augment-cifar10": 0.88,
    "stage-baseline-cifar10": 0.75,
    "stage-bn-cifar10": 0.75,
    "stage-dropout-cifar10": 0.85,
    "two-phase-cifar10": 0.75,
    "vit-cifar10": 0.8,
}


def test_the_names():
    assert set(pretrained.names()) == set(LEAST)


@pytest.mark.parametrize("name", pretrained.names())
def test_a_card_belongs_to_its_file(name):
    card = pretrained.card(name)
    assert card["sha256"] == hashlib.sha256((pretrained.FOLDER / f"{name}.safetensors").read_bytes()).hexdigest()
    assert card["test_images"] == 10_000 and card["test_accuracy"] >= LEAST[name]
    assert (pretrained.FOLDER / f"{name}.safetensors").stat().st_size < 8_000_000
    model = pretrained.load(name, backend.get("numpy")).model
    assert sum(p.numel() for p in model.parameters()) == card["parameters"]


def test_a_changed_file_is_refused(tmp_path, monkeypatch):
    for path in pretrained.FOLDER.glob("lenet-cifar10.*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    monkeypatch.setattr(pretrained, "FOLDER", tmp_path)
    changed = bytearray((tmp_path / "lenet-cifar10.safetensors").read_bytes())
    changed[-1] ^= 1
    (tmp_path / "lenet-cifar10.safetensors").write_bytes(changed)
    with pytest.raises(pretrained.CheckpointError, match="SHA-256"):
        pretrained.load("lenet-cifar10", backend.get("numpy"))


def test_the_best_are_the_best():
    assert max(pretrained.names(), key=lambda name: pretrained.card(name)["test_accuracy"]) == pretrained.BEST


@pytest.mark.parametrize("name", [pretrained.BEST, "lenet-cifar10"])
def test_the_picture_of_the_readme_is_a_cat(request, name):
    chosen = backend.get("numpy")
    trained = pretrained.load(name, chosen)
    image = load_image(request.config.rootpath / "tests/pictures/cat.png")
    probabilities = predict(trained.model, image, *trained.views())
    assert trained.classes[int(np.argmax(probabilities))] == "cat"
