"""The benchmarks run, measure the same work on both sides, and say what is wrong; their figures mean nothing here."""

import contextlib
import importlib
import json
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import minicnn
from minicnn.backend.cpu.jit import HAS_BFLOAT16
from shared.benchmarks import BENCHMARKS, SHORT, run

CASES = {"lenet-train": ["torch", "torch-bf16"], "lenet-infer": ["torch-channels-last"]}
OWN = {"lenet-train": ["minicnn", *["minicnn-bf16"] * HAS_BFLOAT16], "lenet-infer": ["minicnn"]}
KEYS = {
    "case", "batch_size", "threads", "own", "peers", "best", "gain_of_threads", "sgemm_gflops", "rounds", "hardware",
    "versions", "date",
}  # fmt: skip


@pytest.fixture
def benchmarks(monkeypatch):
    """Let the test import the benchmarks' modules."""
    monkeypatch.syspath_prepend(BENCHMARKS)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """A folder with the record of two cases, and of the kernels."""
    pytest.importorskip("torch")
    folder = tmp_path_factory.mktemp("benchmarks") / "results"
    for case, peers in CASES.items():
        small = ("--case", case, "--batch-size", 8, "--processes", 1, "--json", folder / f"{case}.json")
        done = run("compare.py", *small, *SHORT, "--peer", ",".join(peers), "--own", ",".join(OWN[case]))
        assert done.returncode == 0, done.stderr
        assert "minicnn" in done.stdout and "the best peer is PyTorch" in done.stdout
    done = run("kernels.py", *SHORT, "--kernel", "conv2d", "relu_grad", "--json", folder / "kernels.json")
    assert done.returncode == 0, done.stderr
    assert "not timed" not in done.stdout
    return folder


@pytest.mark.parametrize("case, peers", CASES.items())
def test_record(results, case, peers):
    record = json.loads((results / f"{case}.json").read_text())
    assert record.keys() >= KEYS
    assert (record["case"], record["batch_size"], record["threads"], record["rounds"]) == (case, 8, 1, 2)
    assert list(record["own"]) == OWN[case] and list(record["peers"]) == peers
    assert record["versions"].keys() >= {"python", "minicnn", "numpy", "numba", "torch"}
    for name, figures in (record["own"] | record["peers"]).items():
        assert figures["precision"] == ("bfloat16" if name.endswith("-bf16") else "float32")
        assert figures["img_s"] == pytest.approx(8000 / figures["ms"], rel=0.01)
        assert figures["peak_mib"] > 20
    for ours in record["own"].values():
        assert list(ours["ratio"]) == list(ours["ratios"]) == peers
        for peer in peers:
            assert len(ours["ratios"][peer]) == 2
            assert min(ours["ratios"][peer]) <= ours["ratio"][peer] <= max(ours["ratios"][peer])
    best = record["best"]["any"]
    assert best["ratio"] == min(record["own"][best["own"]]["ratio"].values())


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


def figures(precision, ms):
    return {"precision": precision, "ms": ms, "img_s": 1000 / ms, "peak_mib": 100.0}


def record_of(own, peers):
    """A record of contenders by name, with precision and milliseconds; peers take twice as long in a second round."""
    bench = importlib.import_module("compare")
    own, peers = ({name: figures(*values) for name, values in side.items()} for side in (own, peers))
    for ours in own.values():
        ours["gflops"] = 50.0
        ours["ratios"] = {name: [peer["ms"] / ours["ms"], 2 * peer["ms"] / ours["ms"]] for name, peer in peers.items()}
        ours["ratio"] = {name: 1.5 * peer["ms"] / ours["ms"] for name, peer in peers.items()}
    return {
        "case": "vgg-infer", "batch_size": 1, "backend": "numpy", "threads": 2, "own": own, "peers": peers,
        "best": bench.best(own, peers), "gain_of_threads": 1.8, "sgemm_gflops": 100.0, "processes": 1, "rounds": 2,
        "seconds": 1.0, "hardware": "a machine", "versions": {"python": "3"}, "date": "2026-01-01",
    }  # fmt: skip


def pair(own, peer, ratio):
    return {"own": own, "peer": peer, "ratio": ratio}


def test_the_best_peer_is_that_of_the_smallest_ratio_and_beside_it_the_best_in_float32(benchmarks):
    compare = importlib.import_module("compare")
    record = record_of(
        {"minicnn": ("float32", 2.0)},
        {"torch": ("float32", 8.0), "torch-bf16": ("bfloat16", 1.0), "openvino": ("float32", 4.0)},
    )
    assert record["best"] == {"any": pair("minicnn", "torch-bf16", 0.75), "float32": pair("minicnn", "openvino", 3.0)}
    first, second = compare.headlines(record)
    assert (first["peer"]["label"], first["note"], first["share"]) == ("PyTorch bfloat16", "", 0.5)
    assert (second["peer"]["label"], second["note"], second["ratios"]) == ("OpenVINO", "float32", [2.0, 4.0])
    text = compare.table(record)
    assert "the best peer is PyTorch bfloat16: ratio 0.75 (0.50 to 1.00), memory 1.00 of its" in text
    assert "in float32 the best peer is OpenVINO: ratio 3.00" in text and "2 threads 1.80 times one" in text


def test_contenders_of_any_precision_on_both_sides(benchmarks):
    compare = importlib.import_module("compare")
    own = {"minicnn": ("float32", 2.0), "minicnn-bf16": ("bfloat16", 1.0)}
    record = record_of(own, {"torch": ("float32", 8.0), "torch-bf16": ("bfloat16", 4.0)})
    assert record["best"]["any"] == pair("minicnn-bf16", "torch-bf16", 6.0)
    assert record["best"]["float32"] == pair("minicnn", "torch", 6.0)
    assert len(compare.headlines(record)) == 2
    record = record_of({"minicnn": ("float32", 2.0)}, {"torch-bf16": ("bfloat16", 4.0)})
    assert list(record["best"]) == ["any"]
    record = record_of({"minicnn": ("float32", 2.0)}, {"torch": ("float32", 4.0)})
    assert len(record["best"]) == 2 and len(compare.headlines(record)) == 1


def test_report_names_the_best_peer_of_each_row(benchmarks, tmp_path):
    folder = tmp_path / "results"
    folder.mkdir()
    three = {"torch": ("float32", 8.0), "torch-bf16": ("bfloat16", 1.0), "onnxruntime": ("float32", 4.0)}
    for name, peers in (("one", {"keras": ("float32", 9.0)}), ("three", three)):
        (folder / f"{name}.json").write_text(json.dumps(record_of({"minicnn": ("float32", 2.0)}, peers)))
    done = run("report.py", folder)
    assert done.returncode == 0, done.stderr
    report = (tmp_path / "results.md").read_text()
    assert "the best of PyTorch, PyTorch bfloat16, ONNX Runtime and Keras]" in report
    assert "| vgg-infer | 1 | minicnn | Keras | **6.75** (4.50-9.00) | 500 | 111 | 2.000 | 9.000 |" in report
    assert "| vgg-infer | 1 | minicnn | PyTorch bfloat16 | **0.75** " in report
    assert "| vgg-infer, in float32 | 1 | minicnn | ONNX Runtime | **3.00** " in report
    assert "| vgg-infer | 1 | 2.000 | 8.000 (6.00) | 1.000 (0.75) | 4.000 (3.00) | - |" in report
    assert "| vgg-infer | 1 | 2.000 | - | - | - | 9.000 (6.75) |" in report


def test_minicnn_alone(tmp_path):
    file = tmp_path / "results" / "alone.json"
    done = run("compare.py", *SHORT, "--case", "lenet-infer", "--batch-size", 1, "--processes", 1, "--peer", "none",
               "--json", file)  # fmt: skip
    assert done.returncode == 0, done.stderr
    record = json.loads(file.read_text())
    assert record["own"]["minicnn"]["ms"] > 0 and record["peers"] == record["best"] == {}
    assert run("report.py", file.parent).returncode == 0  # which compares, and leaves it out
    assert "| lenet-infer |" not in file.parent.with_suffix(".md").read_text()


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
        ("--case", "lenet-train", "--peer", "torch,"),
        ("--case", "lenet-train", "--peer", "all,torch"),
        ("--case", "lenet-train", "--own", "minicnn-bf16"),
        ("--case", "lenet-train", "--own", "minicnn,torch"),
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
    [("torch-bf16", "torch", 'pip install -e ".[bench]"'), ("keras", "tensorflow", "pip install tensorflow")],
)
@pytest.mark.parametrize("script, case", [("compare", ("--case", "lenet-train")), ("startup", ())])
def test_without_the_peer(peer, package, remedy, script, case):
    done = run_without(package, script, *case, "--peer", peer)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and remedy in done.stderr


@pytest.mark.parametrize("peer, package", [("onnxruntime", "onnxruntime"), ("openvino", "onnxscript")])
def test_without_a_peer_that_predicts(peer, package):
    done = run_without(package, "compare", "--case", "lenet-infer", "--peer", peer)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and f'pip install -e ".[{peer}]"' in done.stderr


@pytest.mark.parametrize(
    "peer, case, words",
    [
        ("onnxruntime", ("--case", "lenet-train"), "ONNX Runtime: expected a case of inference, received lenet-train"),
        ("torch,openvino", ("--case", "vgg-train"), "OpenVINO: expected a case of inference, received vgg-train"),
        ("keras", ("--case", "resnet18-infer"), "Keras: expected a case of lenet or vgg, received resnet18-infer"),
        ("openvino", ("--case", "vgg-infer", "--backend", "cupy"), "OpenVINO: expected --backend numpy, received cupy"),
        ("torch-cudagraph", ("--case", "vgg-infer"), "PyTorch CUDA graph: expected --backend cupy, received numpy"),
    ],
)
def test_what_a_peer_cannot_do_is_one_line(peer, case, words):
    done = run("compare.py", *case, "--peer", peer)
    assert (done.returncode, done.stderr) == (2, words + "\n")


def test_all_peers_are_those_that_are_installed_and_can_do_the_case(benchmarks, monkeypatch):
    contest = importlib.import_module("contest")
    torch = ["torch", "torch-channels-last", "torch-bf16"]
    monkeypatch.setattr(contest.Contender, "is_installed", lambda self: True)
    assert contest.able("vgg-infer", "numpy") == [*torch, "onnxruntime", "openvino", "keras"]
    assert contest.able("resnet20-infer", "numpy") == [*torch, "onnxruntime", "openvino"]
    assert contest.able("lenet-train", "numpy") == [*torch, "keras"]
    assert contest.able("lenet-infer", "cupy") == [*torch, "torch-cudagraph", "torch-compile"]
    monkeypatch.setattr(contest.Contender, "is_installed", lambda self: False)
    with pytest.raises(SystemExit) as stopped:
        contest.able("lenet-infer", "numpy")
    assert stopped.value.code == 2


@pytest.mark.parametrize(
    "precision, difference, same", [("float32", 5e-4, True), ("float32", 5e-3, False), ("bfloat16", 5e-3, True),
    ("bfloat16", 0.04, False), ("tf32", 3e-3, True), ("tf32", 5e-3, False), ("float32", float("nan"), False)],
)  # fmt: skip
def test_logits_may_differ_as_much_as_the_precision_makes_them(benchmarks, precision, difference, same):
    contest = importlib.import_module("contest")
    ours = SimpleNamespace(ready={"logits": [[2.0, -4.0]], "precision": "float32"})
    peer = SimpleNamespace(ready={"logits": [[2.0, -4.0 - 4 * difference]], "precision": precision})
    with contextlib.nullcontext() if same else pytest.raises(SystemExit, match="do not do the same work"):
        contest.require_same_work("lenet-infer", [ours, peer])


def test_predictions_of_the_runtimes(tmp_path):
    peers = ["onnxruntime", "openvino"]
    for package in ("torch", "onnxscript", *peers):
        pytest.importorskip(package)
    file = tmp_path / "record.json"
    done = run("compare.py", "--case", "resnet20-infer", "--batch-size", 2, *SHORT, "--processes", 1, "--json", file,
               "--peer", ",".join(peers))  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert not done.stderr.replace(
        "minicnn: compiling CPU kernels for their first use here (some seconds) ...", ""
    ).strip()
    record = json.loads(file.read_text())
    assert list(record["peers"]) == peers and record["sgemm_gflops"] is None
    assert record["versions"].keys() >= {"onnxruntime", "openvino"}


@pytest.mark.parametrize("name", ["lenet", "vgg", "resnet20", "resnet18"])
def test_twins(torch, benchmarks, name):
    cases, ours, theirs = (importlib.import_module(name) for name in ("cases", "cases_minicnn", "cases_torch"))
    x, _ = cases.batch(2)
    with torch.no_grad():
        expected = theirs.make(name).eval()(torch.from_numpy(x)).numpy()
    found = ours.make(name).eval()(minicnn.Tensor(x)).numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


def test_a_worker_that_cannot_start_ends_the_run_with_its_words(monkeypatch, capfd):
    monkeypatch.syspath_prepend(BENCHMARKS)
    contest = importlib.import_module("contest")
    with pytest.raises(SystemExit) as stopped:
        contest.Worker("no_such_module", 1)
    assert stopped.value.code == 1
    assert "no_such_module" in capfd.readouterr().err


def test_workers_that_start_together_end_together(benchmarks, capfd):
    contest = importlib.import_module("contest")
    setting = {"case": "lenet-infer", "batch_size": 1, "backend": "numpy"}
    starts = [partial(contest.Worker, "cases_minicnn", 1, **setting), partial(contest.Worker, "cases_minicnn", 1)]
    with pytest.raises(SystemExit) as stopped:
        contest.start_together(starts)
    assert stopped.value.code == 1 and "build() missing" in capfd.readouterr().err
    workers = contest.start_together(starts[:1] * 2)
    for worker in workers:
        with worker:
            assert worker.milliseconds("step", 0.01) > 0


def test_calls_that_a_device_queues_are_counted_before(benchmarks, monkeypatch):
    """A call alone takes 4 s until it is done, so that 3 fill 10 s; together each takes 2."""
    worker = importlib.import_module("worker")
    now, queued, counted = [0.0], [0], [0]

    def call():
        queued[0] += 1
        counted[0] += 1

    def synchronize():
        now[0] += {0: 0, 1: 4}.get(queued[0], 2 * queued[0])
        queued[0] = 0

    monkeypatch.setattr(worker.time, "perf_counter", lambda: now[0])
    workload = worker.Workload({"step": call}, synchronize=synchronize, device="a card")
    assert worker._time(workload, "step", 10.0) == 2 and counted[0] == 1 + 3


def test_kernels_and_torch_compute_the_same(torch, monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    names = ("kernels_minicnn", "kernels_torch")
    ours, theirs = (importlib.import_module(name) for name in names)
    ours, theirs = ours.build("numpy"), theirs.build().tasks
    ours, lacking = ours.tasks, ours.facts["lacking"]
    assert lacking == [*["bfloat16"] * (not HAS_BFLOAT16), "tf32"]
    assert ours.keys() == theirs.keys()
    for name in ours:
        kernel = name.split()[0]
        if kernel in ("dropout", "sgd_step", "adam_step", *lacking):  # another mask; in place
            continue
        found, expected = (arrays(tasks[name]()) for tasks in (ours, theirs))
        if kernel == "batch_norm_statistics":  # mean and variance there, variance and mean here
            expected = expected[::-1]
        if kernel in ("max_pool2d", "attention"):  # a tap here and a place there; weights of the softmax here alone
            found, expected = found[:1], expected[:1]
        for mine, twin in zip(found, expected, strict=True):
            np.testing.assert_allclose(mine, twin, rtol=1e-3, atol=1e-3 * np.abs(twin).max(), err_msg=name)


def arrays(result):
    """The result of a kernel or of PyTorch's operation as a list of arrays, without what was not asked for."""
    return [np.asarray(a) for a in (result if isinstance(result, tuple) else (result,)) if a is not None]


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
        assert figures["train_wait_s"] > 0.05 and figures["train_peak_mib"] > 20
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
    assert not done.stderr and "the best peer is Keras" in done.stdout
    record = json.loads((tmp_path / "record.json").read_text())
    assert record["best"]["any"]["peer"] == "keras" and "keras" in record["versions"]
    figures = record["peers"]["keras"]
    assert figures["img_s"] == pytest.approx(4000 / figures["ms"], rel=0.01)
