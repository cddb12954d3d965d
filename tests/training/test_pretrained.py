"""Trained weights by name and from files, and what is refused."""

import hashlib
import inspect
import json
import subprocess
import sys
import time

import numpy as np
import pytest
from safetensors.numpy import save_file

from minicnn import Tensor, backend, data, models
from minicnn.training import checkpoint, pretrained


@pytest.fixture
def stored(trainer):
    """Arrays and metadata as a run writes them."""
    arrays, metadata = trainer().weights()
    return {name: array.copy() for name, array in arrays.items()}, metadata


def load(path):
    return pretrained.load(path, backend.get("numpy"))


def test_round_trip(trainer, tmp_path):
    run = trainer(seed=2**70, skip_damaged=True, train_size=60)
    checkpoint.save(tmp_path / "w.safetensors", *run.weights())
    trained = load(tmp_path / "w.safetensors")
    assert trained.name == "lenet" and trained.classes == ("red", "green", "blue")
    assert trained.preprocessing == run.preprocessing == trained.model.preprocessing
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
        ({"classes": []}, "not usable: model lenet: expected num_classes from 1, received 0"),
        ({"classes": None}, "not usable"),
        ({"classes": "ab"}, "not usable: classes: expected a list, received 'ab'"),
        ({"classes": ["a", 1]}, r"not usable: classes\[1\]: expected text, received 1"),
        ({"classes": ["a", "b"]}, r"does not fit lenet: misshaped: fc3.weight expected \(2, 84\), found \(3, 84\)"),
        ({"mean": [0.5]}, r"not usable: mean: expected a list of 3, received \[0.5\]"),
        (
            {"mean": [0.5, 0.5, 10**400]},
            r"not usable: mean\[2\]: expected a number from -1e\+30 to 1e\+30, received 1000.*000",
        ),
        ({"channels": 1}, "not usable: mean: expected a list of 1, received"),
        ({"channels": 10**9}, "not usable: channels: expected a whole number from 1 to 4096, received 1000000000"),
        (
            {"channels": 1, "mean": [0.5], "std": [0.5]},
            r"does not fit lenet: misshaped: conv1.weight expected \(6, 1, ",
        ),
        ({"image_size": 0.5}, "not usable: image_size: expected a whole number from 1 to 16384, received 0.5"),
        ({"image_size": 28}, r"does not fit lenet: misshaped: fc1.weight expected \(128, 256\), found \(128, 400\)"),
        (
            {"image_size": 20, "tta_shift": 20},
            "not usable: tta_shift: expected a whole number from 0 to 19, received 20",
        ),
        ({"resize": -1}, "not usable: resize: expected a whole number from 0 to 16384, received -1"),
        ({"mean": [0.5, 0.5, True]}, r"not usable: mean\[2\]: expected a number"),
        ({"mean": [0.5, float("nan"), 0.5]}, r"not usable: mean\[1\]: .* received nan"),
        ({"mean": {"r": 0}}, "not usable: mean: expected a list"),
        ({"std": "abc"}, "not usable: std: expected a list, received 'abc'"),
        ({"std": [0.5, 0.5, 0]}, r"not usable: std\[2\]: expected a number from 1e-30 to 1e\+30, received 0"),
        ({"std": [0.5, 0.5, float("inf")]}, r"not usable: std\[2\]: .* received inf"),
        ({"split": [1]}, r"not usable: split: expected a mapping, received \[1\]"),
        (
            {"split": {"data_dir": "/"}},
            "not usable: split: expected nothing but seed, validation, train_size, skip_damaged, ",
        ),
        ({"split": {"seed": 0.5}}, "not usable: split.seed: expected a whole number from 0, received 0.5"),
        (
            {"split": {"validation": float("nan")}},
            "not usable: split.validation: expected a number from 0, received nan",
        ),
        ({"origin": ["/"]}, "not usable: origin: expected text"),
        ({"data": {"fingerprints": 3}}, "not usable: data.fingerprints: expected a mapping, received 3"),
    ],
)
def test_unusable_metadata(stored, tmp_path, change, message):
    arrays, metadata = stored
    checkpoint.save(tmp_path / "w.safetensors", arrays, metadata | change)
    with pytest.raises(checkpoint.CheckpointError, match=message):
        load(tmp_path / "w.safetensors")


def test_earlier_weights_are_of_32_pixels_in_colour(stored, tmp_path):
    arrays, metadata = stored
    earlier = {name: value for name, value in metadata.items() if name not in ("image_size", "channels", "resize")}
    checkpoint.save(tmp_path / "w.safetensors", arrays, earlier)
    assert load(tmp_path / "w.safetensors").shape == data.ImageShape(32, 3, 0)


def nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


FOREIGN = [10**9, 2**63, 10**400, -1, -(10**400), 0, 0.5, 1e308, float("nan"), float("inf"), True, None, "8", ""]
FOREIGN += [[], [10**9] * 3, [8] * 100_000, {"a": 1}, [[8]], nested(900)]
LOADER = """if True:
    import json, pathlib, resource, sys, time
    from minicnn import backend
    from minicnn.training import checkpoint, pretrained
    cpu, cases = backend.get("numpy"), json.load(sys.stdin)
    arrays = checkpoint.load(sys.argv[1]).arrays
    checkpoint.load = lambda path: checkpoint.Checkpoint(arrays, metadata)
    used = int(pathlib.Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**28, used + 2**28))
    for metadata in cases:
        start = time.process_time()
        try: pretrained.load(sys.argv[1], cpu)
        except checkpoint.CheckpointError as error: assert "\\n" not in str(error), error
        seconds = time.process_time() - start
        assert seconds < 2, (str(metadata)[:200], seconds)
"""


def test_no_option_of_any_model_costs_more_than_the_arrays_that_are_there(stored, tmp_path):
    """In 256 MiB; the arrays are LeNet's, 260 kB."""
    arrays, metadata = stored
    checkpoint.save(tmp_path / "w.safetensors", arrays, metadata)
    cases = []
    for model in models.names():
        names = inspect.signature(models._MODELS[model]).parameters
        options = [{name: value} for name in [*names, "unknown"] for value in FOREIGN]
        cases += [metadata | {"model": model, "options": chosen} for chosen in options]
        cases += [metadata | {"model": model, "classes": ["a"] * 300_000}]
    run = [sys.executable, "-c", LOADER, tmp_path / "w.safetensors"]
    result = subprocess.run(run, input=json.dumps(cases), capture_output=True, text=True, timeout=600)
    assert not result.returncode, result.stderr


@pytest.mark.parametrize("options", [{"depth": 10**9, "dim": 1, "heads": 1}, {"dim": 8000}, {"dim": 10**400}])
def test_a_model_far_larger_than_its_arrays_is_one_line(stored, tmp_path, options):
    arrays, metadata = stored
    checkpoint.save(tmp_path / "w.safetensors", arrays, metadata | {"model": "vit", "options": options})
    start = time.process_time()
    with pytest.raises(checkpoint.CheckpointError, match="its metadata is not usable: ") as caught:
        load(tmp_path / "w.safetensors")
    assert time.process_time() - start < 2 and "\n" not in str(caught.value)


def test_many_classes_need_a_head_that_is_there(stored, tmp_path):
    arrays, metadata = stored
    names = [str(number) for number in range(100_000)]
    checkpoint.save(tmp_path / "w.safetensors", arrays, metadata | {"classes": names})
    with pytest.raises(checkpoint.CheckpointError, match="far more or larger arrays than there are"):
        load(tmp_path / "w.safetensors")


@pytest.mark.parametrize("depth", [900, 100_000])
@pytest.mark.parametrize("key", ["options", "classes", "mean", "channels", "image_size", "split", "unknown"])
def test_deeply_nested_metadata_is_one_line_or_no_matter(stored, tmp_path, key, depth):
    arrays, metadata = stored
    text = json.dumps({"format": 1, "metadata": metadata | {key: "@"}})
    text = text.replace('"@"', "[" * depth + "]" * depth)
    save_file(arrays, tmp_path / "w.safetensors", {"minicnn": text})
    try:
        load(tmp_path / "w.safetensors")
    except checkpoint.CheckpointError as error:
        assert "\n" not in str(error) and len(str(error)) < 1000
    else:
        assert key == "unknown" and depth == 900


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
