"""train, from the first line to the last file."""

import csv
import fcntl
import json
import os
import pty
import signal
import subprocess
import sys
import termios
import time

import numpy as np
import pytest
from PIL import Image

from minicnn import files
from minicnn.backend.cpu import jit, machine
from minicnn.cli import train as train_module
from minicnn.training import checkpoint

FILES = {
    *("config.json", "history.csv", "metrics.json", "best.safetensors", "last.safetensors"),
    *("curves.png", "confusion_matrix.png", "samples.png", "mistakes.png"),
    *("filters.png", "feature_maps.png", "grad_cam.png", "mistakes.csv", "report.html"),
}
EPOCHS = ("--epochs", 3)


def arrays_of(folder, name="last"):
    return {key: a.tobytes() for key, a in checkpoint.load(folder / f"{name}.safetensors").arrays.items()}


def history_of(folder):
    """The rows but for their times."""
    rows = list(csv.DictReader((folder / "history.csv").open()))
    return [{key: row[key] for key in row if key not in ("seconds", "images_per_second")} for row in rows]


def test_the_digits_from_start_to_pictures(digits_run):
    assert (digits_run.code, digits_run.err.replace(_COMPILING, "")) == (0, "")
    lines = digits_run.out.splitlines()
    assert lines[0] == "data: digits of scikit-learn"
    assert lines[1].startswith("run: lenet, 65,886 parameters, 1,237 training images, backend numpy, into ")
    epochs = [line for line in lines if line.startswith("epoch ")]
    assert (
        len(epochs) == len(history_of(digits_run.folder))
        and lines[-1] == f"wrote {digits_run.folder}, with report.html"
    )
    assert "\x1b" not in digits_run.out and "\r" not in digits_run.out
    assert {path.name for path in digits_run.folder.iterdir()} == FILES | {".lock"}

    metrics = json.loads((digits_run.folder / "metrics.json").read_text())
    test = metrics["test"]
    assert (metrics["recipe"], metrics["model"], metrics["epochs"]) == ("digits", "lenet", len(epochs))
    # the convolutions: 28 x 28 x 6 x 75 and 10 x 10 x 16 x 150; the layers: 400 x 128, 128 x 84, 84 x 10
    assert metrics["macs"] == 352_800 + 240_000 + 51_200 + 10_752 + 840
    assert metrics["images_per_second"] * metrics["train_seconds"] == pytest.approx(1_237 * len(epochs))
    assert test["accuracy"] >= 0.97 and test["images"] == 360 and metrics["parameters"] == 65_886
    matrix = np.array(test["confusion_matrix"])
    assert matrix.sum() == 360 and np.trace(matrix) / 360 == test["accuracy"]
    best = max(
        history_of(digits_run.folder), key=lambda r: (float(r["validation_accuracy"]), -float(r["validation_loss"]))
    )
    assert metrics["best_epoch"] == int(best["epoch"])
    config = json.loads((digits_run.folder / "config.json").read_text())
    assert config["recipe"] == config["dataset"] == "digits" and config["config"]["seed"] == 0
    assert config["versions"]["numpy"] == np.__version__
    for name in FILES:
        if name.endswith(".png"):
            with Image.open(digits_run.folder / name) as picture:
                picture.load()
                assert picture.width > 500


_COMPILING = "minicnn: compiling CPU kernels for their first use here (some seconds) ...\n"


def test_early_stopping_is_said(train, tmp_path):
    """Of one batch an epoch, at a rate too small to change a weight, the first stays the best."""
    code, out, _ = train("--lr", 1e-30, "--early-stop", 2, "--epochs", 9, "--out", tmp_path / "run")
    lines = out.splitlines()
    assert code == 0 and [line.endswith(" best") for line in lines[2:5]] == [True, False, False]
    assert lines[5] == "stopped early: none of the last 2 epochs was better than epoch 1"


def test_stopping_after_epochs_and_resuming_is_one_run(train, tmp_path):
    assert train(*EPOCHS, "--out", tmp_path / "whole")[0] == 0
    code, out, _ = train(*EPOCHS, "--out", tmp_path / "parts", "--stop-after", 1)
    assert code == 0 and out.splitlines()[-1] == f"stopped and saved; go on with --out {tmp_path / 'parts'} --resume"
    assert not (tmp_path / "parts" / "metrics.json").exists() and (tmp_path / "parts" / "curves.png").exists()
    assert train(*EPOCHS, "--out", tmp_path / "parts", "--resume", "--stop-after", 1)[0] == 0
    assert len(history_of(tmp_path / "parts")) == 2
    assert train(*EPOCHS, "--out", tmp_path / "parts", "--resume")[0] == 0
    for name in ("last", "best"):
        assert arrays_of(tmp_path / "parts", name) == arrays_of(tmp_path / "whole", name)
    assert history_of(tmp_path / "parts") == history_of(tmp_path / "whole")


def test_resume_needs_no_options_again(command, train, tmp_path):
    train("--epochs", 2, "--lr", 0.01, "--seed", 3, "--out", tmp_path / "run", "--stop-after", 1)
    code, out, _ = command("train", "--backend", "numpy", "--out", tmp_path / "run", "--resume")
    assert code == 0 and "200 training images" in out
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (config["dataset"], config["config"]["lr"], config["config"]["seed"]) == ("digits", 0.01, 3)
    assert len(history_of(tmp_path / "run")) == 2


def test_a_finished_run_resumes_to_its_pictures(train, tmp_path):
    train("--epochs", 1, "--out", tmp_path)
    before = arrays_of(tmp_path)
    (tmp_path / "samples.png").unlink()
    assert train("--epochs", 1, "--out", tmp_path, "--resume")[0] == 0
    assert (tmp_path / "samples.png").exists() and arrays_of(tmp_path) == before


def test_threads_do_not_change_a_bit(train, tmp_path):
    for threads in (1, 0):
        train("--epochs", 1, "--stop-after", 1, "--out", tmp_path / str(threads), "--threads", threads)
    assert arrays_of(tmp_path / "0") == arrays_of(tmp_path / "1")


def test_more_epochs_on_resume(train, tmp_path):
    constant = ("--schedule", "constant", "--out", tmp_path)
    train(*constant, "--epochs", 1)
    assert train(*constant, "--epochs", 2, "--resume")[0] == 0 and len(history_of(tmp_path)) == 2


def test_resume_with_other_options_is_refused(train, command, pictures, tmp_path):
    train("--epochs", 2, "--out", tmp_path / "run", "--stop-after", 1)
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    code, out, err = train("--epochs", 3, "--lr", 0.5, "--out", tmp_path / "run", "--resume")
    assert (code, err) == (1, "error: cannot resume: epochs was 2, now 3; lr was 0.05, now 0.5\n")
    small = ("--backend", "numpy", "--train-size", 20, "--validation", 10)
    code, _, err = command("train", "--dataset", pictures(), *small, "--out", tmp_path / "run", "--resume")
    assert code == 1 and "dataset was 'digits', now 'pets'" in err and err.count("\n") == 1
    assert {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()} == before


def test_a_folder_that_holds_a_run_is_not_written_over(digits_run, train):
    code, out, err = train("--out", digits_run.folder)
    assert code == 2 and out == "" and "holds a run; choose another folder, or go on with it by" in err


@pytest.mark.parametrize("words", [(), ("--out", "nowhere")])
def test_resume_without_a_run(train, words):
    code, out, err = train(*words, "--resume")
    assert code == 2 and out == "" and err.startswith("error: --resume: no run to go on with in --out ")


def test_resume_from_a_file_that_is_no_state(train, digits_run, tmp_path):
    (tmp_path / "last.safetensors").write_bytes(digits_run.weights.read_bytes())
    assert train("--out", tmp_path, "--resume") == (
        1, "", "error: cannot resume: the file does not hold the state of a run\n"
    )  # fmt: skip
    (tmp_path / "last.safetensors").write_bytes(b"\0" * 100)
    code, _, err = train("--out", tmp_path, "--resume")
    assert code == 1 and "not a .safetensors file" in err and err.count("\n") == 1


def test_a_busy_folder_is_refused(train, tmp_path):
    with files.lock_run_folder(tmp_path):
        code, _, err = train("--epochs", 1, "--out", tmp_path)
    assert code == 1 and f"the folder {tmp_path} is in use by another run" in err
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_an_unusable_folder_fails_before_the_first_epoch(train, tmp_path):
    (tmp_path / "file").write_text("")
    code, out, err = train("--out", tmp_path / "file" / "run")
    assert code == 1 and "epoch" not in out and err.startswith("error: cannot write into the folder ")


def test_runs_of_the_same_second_have_their_own_folders(train, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(time, "strftime", lambda _: "20300101-000000")
    for _ in range(2):
        assert train("--epochs", 2, "--stop-after", 1)[0] == 0
    names = {path.name for path in (tmp_path / "runs").iterdir()}
    assert names == {"digits-lenet-20300101-000000", "digits-lenet-20300101-000000-2"}


def test_a_diverging_run_stops_and_keeps_its_best(train, tmp_path):
    train("--epochs", 2, "--schedule", "constant", "--lr", 0.01, "--stop-after", 1, "--out", tmp_path)
    state = checkpoint.load(tmp_path / "last.safetensors")
    state.arrays["model.fc2.bias"][0] = np.nan
    checkpoint.save(tmp_path / "last.safetensors", state.arrays, state.metadata)
    best = (tmp_path / "best.safetensors").read_bytes()
    code, _, err = train("--schedule", "constant", "--lr", 0.01, "--out", tmp_path, "--epochs", 2, "--resume")
    assert code == 1 and err.count("\n") == 1
    assert "step 1 of epoch 2: the loss is nan; the first layer that is not finite is fc2 (its bias)" in err
    assert (tmp_path / "best.safetensors").read_bytes() == best


def test_a_rate_of_a_million_names_the_step(train, tmp_path):
    code, _, err = train("--lr", 1e6, "--out", tmp_path)
    assert code == 1 and err.startswith("error: step ") and err.count("\n") == 1 and "lower the learning rate" in err
    assert "Traceback" not in err and not (tmp_path / "last.safetensors").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_finishes_the_step_and_saves(command, tmp_path, number):
    size = ("--epochs", 8, "--batch-size", 8, "--train-size", 400)
    options = ("--dataset", "digits", "--backend", "numpy", "--threads", 1, *size)
    program = f"""
import os, sys
from minicnn.cli.main import main
from minicnn.training import progress

show = progress.Progress.epoch

def signalled(self, row, *best, **how):
    show(self, row, *best, **how)
    if row["epoch"] == 2:  # not from outside: the run might be at its end by then
        os.kill(os.getpid(), {int(number)})

progress.Progress.epoch = signalled
main(sys.argv[1:], "train")
"""
    words = [sys.executable, "-c", program, *map(str, options), "--out", tmp_path / "parts"]
    process = subprocess.run(words, capture_output=True, text=True, timeout=600, check=False)
    assert process.returncode == 128 + number and "Traceback" not in process.stderr
    assert process.stdout.splitlines()[-1].startswith("stopped and saved; go on with --out ")
    assert len(history_of(tmp_path / "parts")) == 2
    assert command("train", "--backend", "numpy", "--out", tmp_path / "parts", "--resume", "--threads", 1)[0] == 0
    assert command("train", *options, "--out", tmp_path / "whole")[0] == 0
    assert arrays_of(tmp_path / "parts") == arrays_of(tmp_path / "whole")
    assert history_of(tmp_path / "parts") == history_of(tmp_path / "whole")


def test_the_second_interrupt_stops_at_once_with_whole_files(train, tmp_path, monkeypatch):
    train("--epochs", 3, "--out", tmp_path, "--stop-after", 1)
    before, handler = arrays_of(tmp_path), signal.getsignal(signal.SIGINT)

    def interrupted(descriptor):
        for _ in range(2):
            signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", interrupted)  # while a file is being saved
        code, _, err = train("--epochs", 3, "--out", tmp_path, "--resume")
    assert (code, err) == (130, "")
    assert arrays_of(tmp_path) == before and not list(tmp_path.glob(".minicnn-*"))
    assert signal.getsignal(signal.SIGINT) is handler


def test_signals_are_collected_and_handlers_restored():
    before = [signal.getsignal(number) for number in train_module.STOPPED]
    with train_module._signals() as caught:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        assert caught == [signal.SIGTERM] * 2
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert [signal.getsignal(number) for number in train_module.STOPPED] == before


def test_a_hangup_that_is_ignored_stays_so():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with train_module._signals() as caught:
            signal.raise_signal(signal.SIGHUP)
            assert caught == []
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_terminal_that_is_closed_saves(script, tmp_path):
    """The system sends SIGHUP, and whatever is printed from then on fails."""
    ours, theirs = pty.openpty()
    size = ("--epochs", 2000, "--batch-size", 8, "--train-size", 400, "--threads", 1)
    words = ("--dataset", "digits", "--backend", "numpy", *size, "--out", tmp_path)

    def with_terminal():
        os.setsid()
        fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)

    process = script("train", *words, stdin=theirs, stdout=theirs, stderr=theirs, preexec_fn=with_terminal)
    os.close(theirs)
    while not (tmp_path / "last.safetensors").exists():
        assert process.poll() is None and os.read(ours, 4096)
    os.close(ours)
    assert process.wait(600) == 129
    assert len(history_of(tmp_path)) >= 1 and checkpoint.load(tmp_path / "last.safetensors").metadata["epoch"]


def test_the_reader_may_leave(script, tmp_path):
    process = script("train", "--dataset", "digits", "--backend", "numpy", "--epochs", 2, "--out", tmp_path)
    assert process.stdout.readline().startswith("data: ")
    process.stdout.close()
    assert process.stderr.read() == "" and process.wait(600) == 0
    assert (tmp_path / "metrics.json").exists()


def test_without_cifar_auto_takes_the_digits_and_their_recipe(command, tmp_path, monkeypatch):
    from minicnn.data import cifar10

    def no_network(*_, **__):
        raise ConnectionError("no network")

    monkeypatch.setattr(cifar10, "fetch", no_network)
    code, out, _ = command("train", "--backend", "numpy", "--epochs", 2, "--stop-after", 1, "--out", tmp_path)
    assert code == 0 and out.startswith("data: digits of scikit-learn instead of CIFAR-10: CIFAR-10 is not in /nonex")
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["recipe"] == config["dataset"] == "digits"
    assert f"{1437 - config['config']['validation']:,} training images" in out

    code, out, err = command("train", "--backend", "numpy", "--dataset", "cifar10")
    assert (code, out) == (2, "") and err.count("\n") == 1
    for part in (cifar10.URL, cifar10.BINARY.sha256, "/nonexistent", "no network", "--data-dir", "MINICNN_DATA"):
        assert part in err


def test_a_folder_of_pictures(command, pictures, tmp_path):
    run = tmp_path / "run"
    small = ("--backend", "numpy", "--batch-size", 8, "--epochs", 12, "--validation", 6, "--flip", 0)
    code, out, err = command("train", "--dataset", pictures(), *small, "--out", run)
    assert (code, err) == (0, "") and f"data: pictures from {tmp_path / 'pets'}" in out
    assert checkpoint.load(run / "best.safetensors").metadata["classes"] == ["cat", "dog", "owl"]
    assert json.loads((run / "metrics.json").read_text())["test"]["accuracy"] == 1

    answer = command(
        "predict", "--backend", "numpy", "--weights", run / "best.safetensors", "--json", tmp_path / "pets" / "dog"
    )
    assert answer[0] == 0 and {a["predictions"][0]["class"] for a in json.loads(answer[1])} == {"dog"}
    code, out, _ = command(
        "evaluate",
        "--backend",
        "numpy",
        "--weights",
        run / "best.safetensors",
        "--dataset",
        tmp_path / "pets",
        "--json",
    )
    assert code == 0 and json.loads(out)["images"] == 9 and json.loads(out)["accuracy"] == 1


def test_resume_goes_on_with_averages_and_accumulated_gradients(train, tmp_path):
    options = ("--ema", 0.9, "--accumulate", 3, "--clip-norm", 1, "--mixup", 0.2, "--tta", *EPOCHS)
    assert train(*options, "--out", tmp_path / "whole")[0] == 0
    train(*options, "--out", tmp_path / "parts", "--stop-after", 1)
    assert train("--out", tmp_path / "parts", "--resume")[0] == 0
    for name in ("last", "best"):
        assert arrays_of(tmp_path / "parts", name) == arrays_of(tmp_path / "whole", name)
    code, _, err = train("--ema", 0.5, "--out", tmp_path / "parts", "--resume")
    assert code == 1 and err == "error: cannot resume: ema was 0.9, now 0.5\n"


def test_a_run_keeps_the_precision_that_was_the_faster_one(train, tmp_path, monkeypatch):
    """Here it begins on a processor without AMX, and goes on where float32 is not the faster one."""
    monkeypatch.setattr(machine, "has_amx", lambda: False)
    options = ("--recipe", "digits", "--precision", "auto", "--epochs", 3, "--out", tmp_path / "run")
    assert train(*options, "--stop-after", 1)[0] == 0
    monkeypatch.setattr(machine, "has_amx", lambda: True)
    for words in (("--stop-after", 1), ()):
        assert train(*options, "--resume", *words)[::2] == (0, "")
    config, metrics = (json.loads((tmp_path / "run" / f"{name}.json").read_text()) for name in ("config", "metrics"))
    assert config["config"]["precision"] == metrics["compute_precision"] == "float32"


@pytest.mark.skipif(not jit.HAS_BFLOAT16, reason="the processor has no AVX512_BF16")
def test_a_run_in_bfloat16_from_its_steps_to_its_test(command, train, tmp_path):
    """Resumed without a word about it; measured again, in float32 unless told otherwise."""
    options, run = ("--precision", "bf16", "--epochs", 2), tmp_path / "run"
    train(*options, "--out", tmp_path / "whole")
    assert train(*options, "--out", run, "--stop-after", 1)[0] == 0
    code, _, err = train("--precision", "float32", "--out", run, "--resume")
    assert (code, err) == (1, "error: cannot resume: precision was 'bf16', now 'float32'\n")
    assert train("--out", run, "--resume")[0] == 0
    assert arrays_of(run) == arrays_of(tmp_path / "whole")
    assert json.loads((run / "config.json").read_text())["config"]["precision"] == "bf16"
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["compute_precision"] == "bf16"

    weights = ("--backend", "numpy", "--weights", run / "best.safetensors", "--json")
    losses = [json.loads(command("evaluate", *weights, *more)[1])["loss"] for more in ((), options[:2])]
    assert losses[1] == metrics["test"]["loss"] != losses[0]
    train("--epochs", 2, "--out", tmp_path / "float32")
    assert history_of(tmp_path / "float32") != history_of(run)
    metrics = json.loads((tmp_path / "float32" / "metrics.json").read_text())
    assert metrics["compute_precision"] == "float32"
