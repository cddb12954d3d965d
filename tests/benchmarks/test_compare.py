"""The benchmarks run, measure the same work on both sides, and say what is wrong; their figures mean nothing here."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SHORT = ("--rounds", "2", "--seconds", "0.02", "--threads", "1")
KEYS = {
    "case", "batch_size", "threads", "minicnn_img_s", "torch_img_s", "ratio", "minicnn_ms", "torch_ms",
    "minicnn_peak_mib", "torch_peak_mib", "rounds", "hardware", "versions", "date",
}  # fmt: skip


def run(script, *arguments):
    command = [sys.executable, str(BENCHMARKS / script), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """A folder with the record of every case, and of the kernels."""
    pytest.importorskip("torch")
    folder = tmp_path_factory.mktemp("benchmarks") / "results"
    for case in ("lenet-train", "lenet-infer"):
        done = run(
            "compare.py", "--case", case, "--batch-size", 8, *SHORT, "--processes", 1, "--json", folder / f"{case}.json"
        )
        assert done.returncode == 0, done.stderr
        assert "minicnn" in done.stdout and "PyTorch" in done.stdout and "ratio" in done.stdout
    done = run("kernels.py", *SHORT, "--kernel", "conv2d", "relu_grad", "--json", folder / "kernels.json")
    assert done.returncode == 0, done.stderr
    assert "not timed" not in done.stdout
    return folder


@pytest.mark.parametrize("case", ["lenet-train", "lenet-infer"])
def test_record(results, case):
    record = json.loads((results / f"{case}.json").read_text())
    assert record.keys() >= KEYS
    assert (record["case"], record["batch_size"], record["threads"], record["rounds"]) == (case, 8, 1, 2)
    assert record["versions"].keys() >= {"python", "minicnn", "numpy", "numba", "torch"}
    for side in ("minicnn", "torch"):
        assert record[f"{side}_img_s"] == pytest.approx(8000 / record[f"{side}_ms"], rel=0.01)
        assert record[f"{side}_peak_mib"] > 20
    assert len(record["ratios"]) == 2 and min(record["ratios"]) <= record["ratio"] <= max(record["ratios"])


def test_kernels_record(results):
    record = json.loads((results / "kernels.json").read_text())
    assert {row["kernel"] for row in record["kernels"]} == {"conv2d", "relu_grad"}
    assert all(row["rate"] > 0 and row["ratio"] > 0 and row["ratio_reference"] > 0 for row in record["kernels"])


def test_report(results):
    done = run("report.py", results)
    assert done.returncode == 0, done.stderr
    text = results.with_suffix(".md").read_text()
    assert "| lenet-train | 8 |" in text and "| `conv2d` |" in text and "torch " in text
    assert results.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


def test_report_without_results(tmp_path):
    done = run("report.py", tmp_path)
    assert done.returncode == 2 and str(tmp_path) in done.stderr


@pytest.mark.parametrize(
    "wrong",
    [
        (),
        ("--case", "lenet"),
        ("--case", "lenet-train", "--batch-size", "0"),
        ("--case", "lenet-train", "--rounds", "x"),
        ("--case", "lenet-train", "--seconds", "-1"),
        ("--case", "lenet-train", "--threads", "100000"),
    ],
)
def test_wrong_arguments(wrong):
    done = run("compare.py", *wrong)
    assert done.returncode == 2
    assert "error:" in done.stderr and "Traceback" not in done.stderr


def test_without_torch():
    hide = f"import runpy, sys; sys.modules['torch'] = None; sys.path.insert(0, {str(BENCHMARKS)!r}); "
    script = hide + "sys.argv[1:] = ['--case', 'lenet-train']; runpy.run_module('compare', run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and 'pip install -e ".[bench]"' in done.stderr


def test_a_worker_that_cannot_start_ends_the_run_with_its_words(monkeypatch, capfd):
    monkeypatch.syspath_prepend(BENCHMARKS)
    contest = importlib.import_module("contest")
    with pytest.raises(SystemExit) as stopped:
        contest.Worker("no_such_module", 1)
    assert stopped.value.code == 1
    assert "no_such_module" in capfd.readouterr().err


def test_kernels_and_torch_compute_the_same(torch, monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    names = ("kernels_minicnn", "kernels_torch")
    ours, theirs = (importlib.import_module(name) for name in names)
    ours, theirs = ours.build("numpy").tasks, theirs.build().tasks
    assert ours.keys() == theirs.keys()
    for name in ours:
        kernel = name.split()[0]
        if kernel in ("dropout", "sgd_step", "adam_step"):  # another mask; in place
            continue
        found, expected = (arrays(tasks[name]()) for tasks in (ours, theirs))
        if kernel == "batch_norm_statistics":  # mean and variance there, variance and mean here
            expected = expected[::-1]
        if kernel == "max_pool2d":  # a tap of the window there, a place in the picture here
            found, expected = found[:1], expected[:1]
        for mine, twin in zip(found, expected, strict=True):
            np.testing.assert_allclose(mine, twin, rtol=1e-3, atol=1e-3 * np.abs(twin).max(), err_msg=name)


def arrays(result):
    """The result of a kernel or of PyTorch's operation as a list of arrays, without what was not asked for."""
    return [np.asarray(a) for a in (result if isinstance(result, tuple) else (result,)) if a is not None]
