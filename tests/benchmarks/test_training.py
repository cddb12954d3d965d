"""The benchmarks of training and of numbers: how far they follow PyTorch, and how long a recipe takes."""

import gzip
import importlib
import json

import numpy as np
import pytest
from PIL import Image

from minicnn import backend, data
from minicnn.backend.cpu.jit import HAS_BFLOAT16
from minicnn.training import Trainer, recipe
from shared.benchmarks import BENCHMARKS, SHORT, run


def test_accuracy(torch, tmp_path):
    file = tmp_path / "results" / "accuracy.json"
    done = run("accuracy.py", "--model", "lenet", "vgg", "--pictures", 16, "--json", file)
    assert done.returncode == 0, done.stderr
    rows = json.loads(file.read_text())["accuracy"]
    assert [(row["model"], row["batch_size"]) for row in rows] == [("lenet", 16), ("lenet", 1), ("vgg", 16), ("vgg", 1)]
    for row in rows:
        assert 1e-8 < row["torch_rms"] < 1e-5 and row["minicnn_rms"] < 3 * row["torch_rms"]
        assert row["ratio_max"] == pytest.approx(row["minicnn_max"] / row["torch_max"])
    assert run("report.py", file.parent).returncode == 0
    assert done.stdout.strip() in file.parent.with_suffix(".md").read_text()


@pytest.mark.skipif(not HAS_BFLOAT16, reason="no AVX512_BF16")
def test_bfloat16(torch, tmp_path):
    file = tmp_path / "results" / "bfloat16.json"
    small = ("--model", "lenet", "--steps", 3, "--batch-size", 8, "--seeds", 1, "--dataset", "digits", "--json", file)
    done = run("bfloat16.py", *small)
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(file.read_text())["bfloat16"]
    assert row["ratio"] == pytest.approx(row["minicnn_apart"] / row["torch_apart"])
    assert 0 < row["minicnn_apart"] < 0.1 and row["minicnn_loss"] == pytest.approx(row["torch_loss"], rel=1e-3)
    assert run("report.py", file.parent).returncode == 0
    assert done.stdout.strip() in file.parent.with_suffix(".md").read_text()


def test_data_of_ones_own(tmp_path):
    rng = np.random.default_rng(0)
    for part in ("train", "t10k"):
        labels = np.arange(200, dtype=np.uint8) % 10
        images = rng.integers(0, 20, (200, 28, 28), dtype=np.uint8) + 20 * labels[:, None, None]
        for kind, array, header in (("images-idx3", images, 16), ("labels-idx1", labels, 8)):
            (tmp_path / f"{part}-{kind}-ubyte.gz").write_bytes(gzip.compress(bytes(header) + array.tobytes()))
    file = tmp_path / "results" / "own-data.json"
    done = run("own_data.py", "--data", tmp_path, "--pictures", 10, "--epochs", 1, "--json", file)
    assert done.returncode == 0, done.stderr
    record = json.loads(file.read_text())["own_data"]
    assert record["arrays"]["epochs"] == 3 and 0.1 <= record["arrays"]["accuracy"] <= 1
    assert record["folder"]["pictures"] == [10, 8, 6, 5, 4, 3, 2, 2, 1, 1]
    assert all(0 <= each["accuracy"] <= 1 for each in record["folder"]["runs"].values())
    assert run("report.py", file.parent).returncode == 0
    assert "| arrays, 28 x 28 | 3 | " in file.parent.with_suffix(".md").read_text()
    assert run("own_data.py", "--data", tmp_path / "nothing").returncode == 2


def test_epoch(tmp_path):
    file = tmp_path / "results" / "epoch.json"
    done = run("epoch.py", *SHORT, "--json", file)
    assert done.returncode == 0, done.stderr
    record = json.loads(file.read_text())
    assert (record["epoch"], record["batch_size"], len(record["shares"])) == ("lenet", 128, 2)
    assert 0 < min(record["shares"]) <= record["share"] <= max(record["shares"])
    assert record["epoch_img_s"] > 0 and "img/s" in done.stdout
    file.write_text(json.dumps(record | {"step_img_s": 12345.0}))  # measured, it may round to another figure here
    assert run("report.py", file.parent).returncode == 0
    assert "| lenet | 128 | 12,345 |" in file.parent.with_suffix(".md").read_text()
    assert run("epoch.py", "--recipe", "alexnet").returncode == 2


@pytest.fixture(scope="module")
def timed(torch, tmp_path_factory):
    """The files of a short run of the benchmark, and what it printed."""
    folder = tmp_path_factory.mktemp("timed")
    file, picture = folder / "results" / "time.json", folder / "time.png"
    small = (
        "--dataset",
        "digits",
        "--seeds",
        1,
        "--epochs",
        2,
        "--batch-size",
        128,
        "--precision",
        "float32",
        "--rounds",
        1,
    )
    small += ("--seconds", 0.05, "--target", 0.05, "--threads", 1, "--json", file, "--picture", picture)
    done = run("time_to_accuracy.py", *small)
    assert done.returncode == 0, done.stderr
    again = run("time_to_accuracy.py", *small)
    return file, picture, done, again


def test_time_to_accuracy(timed):
    file, picture, done, again = timed
    record = json.loads(file.read_text())
    (whole,) = record["runs"]
    assert len(whole["epochs"]) == 2 and record["steps"] == 2 * 12  # of 1,437 digits
    assert 0 < whole["epochs"][0]["seconds"] < whole["epochs"][1]["seconds"]
    assert record["step_ms"].keys() == {"minicnn", "PyTorch, float32", "PyTorch, bfloat16"}
    assert Image.open(picture).width > 500
    assert "seed 0, epoch 2/2" in done.stdout and "seed 0, epoch" not in again.stdout  # it is known
    other = run("time_to_accuracy.py", "--dataset", "digits", "--threads", 1, "--json", file)
    assert other.returncode == 2 and ": epochs was 2, now 12; " in other.stderr
    assert run("report.py", file.parent).returncode == 0
    assert again.stdout.strip() in file.parent.with_suffix(".md").read_text()


def test_the_recipe_in_torch_is_the_recipe(torch, monkeypatch):
    """The same losses over two epochs: weights, groups, rates, smoothing, Lookahead, and the bias that stops."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    benchmark = importlib.import_module("time_to_accuracy")
    options = {"epochs": 2, "batch_size": 150, "lr": 0.05, "lookahead": 2, "whiten_bias": 1, "precision": "float32"}
    config = recipe("speedrun", model_options={"widths": [8, 16]}, **options)
    rng = np.random.default_rng(0)
    images, classes = rng.integers(0, 256, (1500, 3, 32, 32), dtype=np.uint8), tuple("0123456789")
    pictures = data.Dataset(images, rng.integers(0, 10, 1500), classes, "noise")
    splits = data.Splits(pictures, None, pictures, "noise", (0.5,) * 3, (0.29,) * 3)
    ours, theirs = (Trainer(config, splits, backend.get("numpy")) for _ in range(2))
    ours.model.train()
    step, losses = benchmark.torch_step(theirs, bfloat16=False), []
    for epoch in range(2):
        ours._whitened.bias.requires_grad_(epoch < 1)
        for number, (images, labels) in enumerate(ours.batches(epoch)):
            losses.append((ours.learn(epoch, number, images, labels)[0], step(epoch, number, images, labels)))
    found, expected = np.array(losses).T
    assert len(found) == 20
    np.testing.assert_allclose(found, expected, rtol=2e-3)
    np.testing.assert_allclose(found[:4], expected[:4], rtol=1e-5)


def test_transfer(tmp_path):
    file = tmp_path / "results" / "transfer.json"
    small = ("--dataset", "digits", "--pictures", 2, "--seeds", 1, "--epochs", 1, "--source-epochs", 1, "--json", file)
    done = run("transfer.py", "--classes", 7, 8, *small)
    assert done.returncode == 0, done.stderr
    record = json.loads(file.read_text())
    assert record["source"] == list("01234569") and record["transfer"] == ["7", "8"] and record["pictures"] == 2
    assert [way["way"] for way in record["ways"]] == ["features frozen", "all trained", "from scratch"]
    for way in record["ways"]:
        assert way["validation"][str(way["lr"])] == max(way["validation"].values())
        assert way["test"] == [way["mean"]] and 0 <= way["mean"] <= 1 and way["deviation"] == 0
    assert run("report.py", file.parent).returncode == 0
    assert done.stdout.strip() in file.parent.with_suffix(".md").read_text()
    done = run("transfer.py", "--classes", 7, "cat", "--dataset", "digits")
    assert (
        done.returncode == 2 and "--classes: expected some of 0, 1, " in done.stderr and "received cat" in done.stderr
    )
