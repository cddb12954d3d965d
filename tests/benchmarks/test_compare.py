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
    "case", "batch_size", "threads", "peer", "minicnn_img_s", "torch_img_s", "ratio", "minicnn_ms", "torch_ms",
    "minicnn_peak_mib", "torch_peak_mib", "rounds", "hardware", "versions", "date",
}  # fmt: skip


def run(script, *arguments):
    command = [sys.executable, str(BENCHMARKS / script), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=600)


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
    assert record["peer"] == "torch"
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


def test_report_of_two_peers_and_of_records_that_name_none(results, tmp_path):
    text = (results / "lenet-train.json").read_text()
    record = json.loads(text)
    del record["peer"]
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "old.json").write_text(json.dumps(record))
    record = json.loads(text.replace("torch", "keras")) | {"keras_img_s": 4321.0}
    (tmp_path / "results" / "keras.json").write_text(json.dumps(record))
    done = run("report.py", tmp_path / "results")
    assert done.returncode == 0, done.stderr
    report = (tmp_path / "results.md").read_text()
    assert report.count("| lenet-train | 8 |") == 2 and "| PyTorch img/s |" in report and "| Keras img/s |" in report
    assert "| 4,321 |" in report.split("| Keras img/s |")[1]


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
        ("--case", "lenet-train", "--peer", "minicnn"),
    ],
)
def test_wrong_arguments(wrong):
    done = run("compare.py", *wrong)
    assert done.returncode == 2
    assert "error:" in done.stderr and "Traceback" not in done.stderr


def run_without(package, script, *arguments):
    hide = f"import runpy, sys; sys.modules[{package!r}] = None; sys.path.insert(0, {str(BENCHMARKS)!r}); "
    code = hide + f"sys.argv[1:] = {list(map(str, arguments))}; runpy.run_module({script!r}, run_name='__main__')"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600)


@pytest.mark.parametrize(
    "peer, package, remedy",
    [("torch", "torch", 'pip install -e ".[bench]"'), ("keras", "tensorflow", "pip install tensorflow")],
)
@pytest.mark.parametrize("script, case", [("compare", ("--case", "lenet-train")), ("startup", ())])
def test_without_the_peer(peer, package, remedy, script, case):
    done = run_without(package, script, *case, "--peer", peer)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and remedy in done.stderr


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


def test_epoch(tmp_path):
    file = tmp_path / "results" / "epoch.json"
    done = run("epoch.py", *SHORT, "--json", file)
    assert done.returncode == 0, done.stderr
    record = json.loads(file.read_text())
    assert (record["epoch"], record["batch_size"], len(record["shares"])) == ("lenet", 128, 2)
    assert min(record["shares"]) <= record["share"] <= max(record["shares"]) < 2
    assert record["epoch_img_s"] > 0 and "img/s" in done.stdout
    file.write_text(json.dumps(record | {"step_img_s": 12345.0}))  # measured, it may round to another figure here
    assert run("report.py", file.parent).returncode == 0
    assert "| lenet | 128 | 12,345 |" in file.parent.with_suffix(".md").read_text()
    assert run("epoch.py", "--recipe", "alexnet").returncode == 2


def test_threads(torch, tmp_path):
    file = tmp_path / "results" / "threads.json"
    done = run("threads.py", *SHORT, "--json", file)
    assert done.returncode == 0, done.stderr
    rows = json.loads(file.read_text())["callers"]
    assert [row["callers"] for row in rows] == [1, 2, 4, 8]
    assert not any(row["minicnn_wrong"] for row in rows) and all(row["minicnn_per_s"] > 0 for row in rows)
    assert run("report.py", file.parent).returncode == 0
    assert file.parent.with_suffix(".md").read_text().count("\n| 8 |") == 1


def test_frameworks_leave_out_what_is_not_installed(torch, tmp_path):
    file = tmp_path / "results" / "frameworks.json"
    small = ("--model", "lenet", "--batch-size", 8, "--processes", 1, "--json", file)
    done = run_without("tensorflow", "frameworks", *SHORT, *small)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("\n") == 1 and done.stderr.startswith("Keras is not installed and is left out")
    record = json.loads(file.read_text())
    assert list(record["frameworks"]) == ["minicnn", "torch"]
    for figures in record["frameworks"].values():
        samples = figures["samples"]
        assert [len(samples[f"{kind}_{key}"]) for kind in ("train", "infer") for key in ("img_s", "wait_s")] == [
            2,
            1,
        ] * 2
        assert figures["train_img_s"] == pytest.approx(np.mean(samples["train_img_s"]), abs=0.02)  # the median of two
        assert 0.05 < figures["train_wait_s"] < 100 and figures["train_peak_mib"] > 20
        assert figures["installed_mib"] == pytest.approx(sum(figures["installed"].values()), abs=0.1)
    assert {"minicnn", "numpy", "numba"} <= record["frameworks"]["minicnn"]["installed"].keys()
    assert done.stdout.count("\n| ") == 2 and "| PyTorch, eager |" in done.stdout
    assert run("report.py", file.parent).returncode == 0
    assert done.stdout.strip() in file.parent.with_suffix(".md").read_text()


def test_installed_is_what_lies_in_the_folders_of_a_distribution_and_of_what_it_needs(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    sizes = importlib.import_module("frameworks").installed("requests")
    assert {"requests", "urllib3", "idna", "certifi"} <= sizes.keys()
    assert "pysocks" not in sizes and "pytest" not in sizes  # an extra; not needed
    package = Path(importlib.import_module("requests").__file__).parent
    [information] = package.parent.glob("requests-*.dist-info")
    files = [file for folder in (package, information) for file in folder.rglob("*") if file.is_file()]
    size = sum(file.stat().st_size for file in files if "__pycache__" not in file.parts)
    assert sizes["requests"] == pytest.approx(size / 2**20, abs=0.01)


@pytest.fixture
def keras_cases(monkeypatch):
    """The module of Keras' cases; tests that ask for it are skipped where TensorFlow is not installed."""
    pytest.importorskip("tensorflow")
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("cases_keras")


def test_keras_follows_torch(torch, keras_cases):
    cases, twins = (importlib.import_module(name) for name in ("cases", "cases_torch"))
    x, target = (torch.from_numpy(array) for array in cases.batch(16))
    model = twins.MODELS["lenet"]()
    for position, (name, parameter) in enumerate(model.named_parameters()):
        parameter.data = torch.from_numpy(cases.initial(position, name, tuple(parameter.shape)))
    optimizer = torch.optim.SGD(model.parameters(), cases.LEARNING_RATE, cases.MOMENTUM)
    step = keras_cases.build("lenet-train", 16, "numpy").tasks["step"]
    for _ in range(4):
        loss = torch.nn.functional.cross_entropy(model(x), target)
        assert step() == pytest.approx(loss.item(), rel=1e-4)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def test_keras_record(keras_cases, tmp_path):
    small = ("--case", "vgg-train", "--batch-size", 4, "--processes", 1, "--json", tmp_path / "record.json")
    done = run("compare.py", *SHORT, *small, "--peer", "keras")
    assert done.returncode == 0, done.stderr
    assert not done.stderr and "Keras" in done.stdout and "of Keras's" in done.stdout
    record = json.loads((tmp_path / "record.json").read_text())
    assert record["peer"] == "keras" and "keras" in record["versions"]
    assert record["keras_img_s"] == pytest.approx(4000 / record["keras_ms"], rel=0.01)


@pytest.mark.parametrize("case, backend", [("resnet18-train", "numpy"), ("lenet-train", "cupy")])
def test_what_keras_does_not_have(keras_cases, capsys, case, backend):
    with pytest.raises(SystemExit) as stopped:
        keras_cases.build(case, 4, backend)
    assert stopped.value.code == 2
    assert case in capsys.readouterr().err
