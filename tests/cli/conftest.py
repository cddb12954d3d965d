"""The commands, in this process and as scripts, and one trained run that the tests share."""

import os
import signal
import subprocess
import sys
import warnings
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from minicnn import backend, plots
from minicnn.cli import reports
from minicnn.cli.main import main

ROOT = Path(__file__).parents[2]
NEWS = "minicnn: compiling CPU kernels for their first use here (some seconds) ...\n"


def environment(**variables):
    """Of a machine with this package and no data."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "MINICNN_DATA": "/nonexistent", **variables}


def complaints(err):
    """What a command wrote to stderr, but for the word that kernels compile, which depends on what ran before."""
    return err.replace(NEWS, "")


@pytest.fixture(autouse=True)
def signals():
    """Heed the signals that tests send: in the background or under nohup, pytest inherits ignored ones."""
    defaults = {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in defaults.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def command(capsys, monkeypatch):
    """Run a command in this process on the CPU: (exit code, stdout, stderr)."""
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    monkeypatch.setenv("MINICNN_DATA", "/nonexistent")

    def run(*words):
        with backend.use("numpy"), pytest.raises(SystemExit) as caught:
            main([str(word) for word in words])
        out, err = capsys.readouterr()
        return caught.value.code, out, complaints(err)

    threads = backend.get_num_threads()
    yield run
    backend.set_num_threads(threads)


@pytest.fixture
def sketches(monkeypatch):
    """Draw the pictures of a run coarse and with few samples, for tests that do not look at them."""
    for name, options in {"samples": {"limit": 1}, "mistakes": {"limit": 1}, "to_png": {"dpi": 20}}.items():
        monkeypatch.setattr(plots, name, partial(getattr(plots, name), **options))
    monkeypatch.setattr(reports, "_EXPLAINED", 2)


@pytest.fixture
def train(command, sketches):
    """Run train on some digits, a fraction of a second an epoch."""

    def run(*words):
        small = ("--dataset", "digits", "--backend", "numpy", "--train-size", "200", "--validation", "100")
        return command("train", *small, *words)

    return run


@pytest.fixture(scope="session")
def script():
    """Start a script in a process of its own."""

    def start(name, *words, variables=None, **options):
        line = [sys.executable, ROOT / "scripts" / f"{name}.py", *map(str, words)]
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(line, env=environment(**(variables or {})), **{**streams, **options})

    return start


@pytest.fixture(scope="session")
def digits_run(script, tmp_path_factory):
    """The run of `train.py --dataset digits`: its folder, exit code and output.

    On one thread, whose result is that of many, as other processes may want the other processors.
    """
    folder = tmp_path_factory.mktemp("digits") / "run"
    process = script("train", "--dataset", "digits", "--backend", "numpy", "--threads", 1, "--out", folder)
    out, err = process.communicate(timeout=600)
    return SimpleNamespace(
        folder=folder, weights=folder / "best.safetensors", code=process.returncode, out=out, err=err
    )


@pytest.fixture
def pictures(tmp_path):
    """Make a folder of classes with pictures of one colour each, of odd sizes."""

    def make(name="pets", classes=("cat", "dog", "owl"), each=15):
        rng = np.random.default_rng(1)
        for number, label in enumerate(classes):
            folder = tmp_path / name / label
            folder.mkdir(parents=True)
            for i in range(each):
                pixels = rng.integers(0, 90, (40 + i, 50, 3))
                pixels[:, :, number] += 150
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i:02}.png")
        return tmp_path / name

    return make
