"""Trained weights by name and from files, and what is refused."""

import hashlib
import json

import numpy as np
import pytest

from minicnn import Tensor, backend
from minicnn.training import checkpoint, pretrained


@pytest.fixture
def stored(trainer):
    """Arrays and metadata as a run writes them."""
    arrays, metadata = trainer().weights()
    return {name: array.copy() for name, array in arrays.items()}, metadata


def load(path):
    return pretrained.load(path, backend.get("numpy"))


def test_round_trip(trainer, tmp_path):
    run = trainer()
    checkpoint.save(tmp_path / "w.safetensors", *run.weights())
    trained = load(tmp_path / "w.safetensors")
    assert trained.name == "lenet" and trained.classes == ("red", "green", "blue")
    assert (trained.mean, trained.std) == (run.mean, run.std)
    images = run.splits.test.images
    inputs = trained.normalize(images, backend.get("numpy"))
    np.testing.assert_allclose(inputs, (images / 255 - 0.4) / 0.25, rtol=1e-5, atol=1e-6)
    assert inputs.dtype == np.float32
    assert trained.model(Tensor(inputs)).numpy().tobytes() == run.model(Tensor(inputs)).numpy().tobytes()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "training"}, "expected weights written by minicnn"),
        ({"model": "os.system"}, "its metadata is not usable: model: expected one of lenet.*received 'os.system'"),
        ({"model": "minicnn.models.lenet.LeNet"}, "not usable: model: expected one of"),
        ({"options": {"colour": 1}}, "not usable: .*colour"),
        ({"options": 3}, "not usable"),
        ({"classes": []}, "not usable: .*num_classes from 1"),
        ({"classes": None}, "not usable"),
        ({"classes": ["a", "b"]}, r"does not fit lenet: misshaped: fc3.weight expected \(2, 84\), found \(3, 84\)"),
        ({"mean": [0.5]}, "does not fit lenet: mean, std"),
        ({"std": "abc"}, "not usable"),
    ],
)
def test_unusable_metadata(stored, tmp_path, change, message):
    arrays, metadata = stored
    checkpoint.save(tmp_path / "w.safetensors", arrays, metadata | change)
    with pytest.raises(checkpoint.CheckpointError, match=message):
        load(tmp_path / "w.safetensors")


def test_missing_extra_and_misshaped_arrays_are_listed(stored, tmp_path):
    arrays, metadata = stored
    del arrays["fc1.bias"]
    arrays["conv1.weight"] = arrays["conv1.weight"][:, :, :3]
    arrays["fc9.bias"] = np.zeros(2, np.float32)
    checkpoint.save(tmp_path / "w.safetensors", arrays, metadata)
    with pytest.raises(checkpoint.CheckpointError) as caught:
        load(tmp_path / "w.safetensors")
    for difference in (
        "missing: fc1.bias (128,)",
        "misshaped: conv1.weight expected (6, 3, 5, 5), found (6, 3, 3, 5)",
        "extra: fc9.bias (2,)",
    ):
        assert difference in str(caught.value)


def test_files_of_another_kind(stored, tmp_path, monkeypatch):
    noise = tmp_path / "noise.safetensors"
    noise.write_bytes(np.random.default_rng(0).bytes(4000))
    with pytest.raises(checkpoint.CheckpointError, match="not a .safetensors file"):
        load(noise)
    (tmp_path / "model.pt").write_bytes(b"PK\x03\x04 and so on")
    with pytest.raises(checkpoint.CheckpointError, match="a .pt file is not opened"):
        load(tmp_path / "model.pt")
    with pytest.raises(checkpoint.CheckpointError, match="is not a file"):
        load(tmp_path)
    checkpoint.save(tmp_path / "foreign.safetensors", stored[0], {})
    with pytest.raises(checkpoint.CheckpointError, match="expected weights written by minicnn"):
        load(tmp_path / "foreign.safetensors")
    monkeypatch.setattr(checkpoint, "FORMAT", 2)
    checkpoint.save(tmp_path / "newer.safetensors", *stored)
    monkeypatch.setattr(checkpoint, "FORMAT", 1)
    with pytest.raises(checkpoint.CheckpointError, match="format version 2.*update minicnn"):
        load(tmp_path / "newer.safetensors")


def test_weights_by_name(stored, tmp_path, monkeypatch):
    monkeypatch.setattr(pretrained, "FOLDER", tmp_path)
    with pytest.raises(FileNotFoundError, match="no shipped weights 'lenet-x' .none are shipped."):
        load("lenet-x")
    path = tmp_path / "lenet-noise.safetensors"
    checkpoint.save(path, *stored)
    card = {"sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    (tmp_path / "lenet-noise.json").write_text(json.dumps(card))
    assert pretrained.names() == ("lenet-noise",) and pretrained.card("lenet-noise") == card
    assert load("lenet-noise").classes == ("red", "green", "blue")
    with pytest.raises(FileNotFoundError, match="shipped: lenet-noise.; did you mean 'lenet-noise'?"):
        load("lenet-nois")
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(checkpoint.CheckpointError, match="SHA-256 is not that of its card; install minicnn again"):
        load("lenet-noise")
