"""The benchmarks of a GPU, as far as they go without one: what they read of others' words, their tables, the script."""

import importlib
import json
import os
import subprocess
import sys
import time

import pytest

from minicnn import backend
from shared.benchmarks import BENCHMARKS, run

WHERE = {
    "hardware": "NVIDIA H0, a processor, 16 cores", "versions": {"python": "3.11", "cupy-cuda13x": "14.2.0"},
    "date": "2026-01-01",
}  # fmt: skip


@pytest.fixture
def benchmarks(monkeypatch):
    """Let the test import the benchmarks' modules."""
    monkeypatch.syspath_prepend(BENCHMARKS)


def side(**milliseconds):
    """Contenders of a record by name."""
    return {
        name.replace("_", "-"): {
            "precision": "bfloat16" if name.endswith("bf16") else "tf32", "ms": ms, "img_s": 1000 / ms, "peak_mib": 50.0
        }
        for name, ms in milliseconds.items()
    }  # fmt: skip


def comparison(case, batch_size, own, peers):
    """A record of compare.py on a GPU, of milliseconds by contender."""
    compare = importlib.import_module("compare")
    own, peers = side(**own), side(**peers)
    for ours in own.values():
        ours["ratio"] = {name: peer["ms"] / ours["ms"] for name, peer in peers.items()}
        ours |= {"gflops": 100.0, "ratios": {name: [ratio] for name, ratio in ours["ratio"].items()}}
    return {
        "case": case, "batch_size": batch_size, "backend": "cupy", "threads": 2, "own": own, "peers": peers,
        "best": compare.best(own, peers), "gain_of_threads": None, "sgemm_gflops": 1000.0, "processes": 1,
        "rounds": 1, "seconds": 0.2, **WHERE,
    }  # fmt: skip


def events(*rows):
    return [{"cat": kind, "name": name, "dur": duration} for kind, name, duration in rows]


TRACE = events(
    *[("kernel", "conv2d", 30.0), ("kernel", "relu", 5.0), ("kernel", "relu", 7.0)] * 2,
    ("gpu_memcpy", "Memcpy DtoH", 1.0), ("gpu_memset", "Memset", 1.0), ("cuda_driver", "cuLaunchKernel", 3.0),
    *[("cuda_runtime", "cudaStreamSynchronize", 9.0)] * 3, ("cuda_runtime", "cudaDeviceSynchronize", 9.0),
    ("cpu_op", "aten::add", 2.0),
) + [{"ph": "M", "name": "process_name"}]  # fmt: skip


def test_what_a_profiler_saw(benchmarks):
    steps = importlib.import_module("gpu_steps")
    found = steps.digest(TRACE, 2)
    kernels = [{"kernel": "conv2d", "launches": 1, "ms": 0.03}, {"kernel": "relu", "launches": 2, "ms": 0.012}]
    assert found == {"launches": 3, "copies": 1, "waits": 1, "device_ms": 0.042, "kernels": kernels}
    assert steps.digest(TRACE[-1:], 2)["launches"] is None
    rows = [found, {"kernels": [{"kernel": "f<float>(int*)", "ms": 0.02}]}]
    assert steps.pattern(rows) == r"conv2d|f<float>\(int\*\)|relu"
    assert steps.pattern([steps.digest([], 1)]) == ""


@pytest.mark.filterwarnings("ignore:CUDA is not available")
def test_a_trace_of_pytorch(torch, benchmarks):
    steps = importlib.import_module("gpu_steps")
    found = steps.trace(lambda: torch.ones(3) + 1, lambda: None)
    assert any(event.get("name") == "aten::add" for event in found)  # and no kernel of a GPU
    assert steps.digest(found, 1)["launches"] is None


@pytest.fixture
def measured(benchmarks, tmp_path):
    """The output of a run of gpu.sh, made up: its parts and its records."""
    folder = tmp_path / "results"
    folder.mkdir()
    steps = importlib.import_module("gpu_steps").digest(TRACE, 2)
    kernel = {"kernel": "conv2d", "dtype": "float32", "registers": 64, "local": 0, "shared": 17_000}
    agreement = {"model": "lenet", "batch_size": 128, "apart": 2e-6, "gpu": [2.5, 2.1], "cpu": [2.5, 2.1]}
    recipe = {"gpu_recipe": "speedrun", "dataset": "cifar10", "epochs": 12, "precision": "bf16"}
    peers = {"torch": 0.5, "torch_cudagraph": 0.2, "torch_bf16": 0.4}
    records = {
        "train": comparison("lenet-train", 128, {"minicnn": 0.09, "minicnn_bf16": 0.1}, peers),
        "vgg": comparison("vgg-train", 128, {"minicnn": 9.0, "minicnn_bf16": 8.0}, {"torch_bf16": 4.0}),
        "kernels": {"gpu_kernels": [kernel, kernel | {"kernel": "softmax", "local": 8}], **WHERE},
        "agreement": {"gpu_agreement": [agreement], "steps": 30, **WHERE},
        "steps": {"gpu_steps": [{"case": "lenet-train", "batch_size": 128, "calls": 4, "ms": 0.05, **steps}], **WHERE},
        "recipe": recipe | {"seconds": 12.5, "img_s": 48_000.0, "test_accuracy": 0.9412, **WHERE},
    }
    for name, record in records.items():
        (folder / f"gpu-{name}.json").write_text(json.dumps(record))
    parts = ["tests\t3.0\t1", "agreement\t9.5\t0", "memcheck\t8.0\t0", "racecheck\t0\t-", "tests\t60.0\t0"]
    (tmp_path / "parts.tsv").write_text("\n".join(parts) + "\n")
    return tmp_path


def test_the_report_has_the_card_and_versions(measured):
    assert run("report.py", measured / "results").returncode == 0
    text = (measured / "results.md").read_text()
    assert "## NVIDIA H0, a processor, 16 cores, 2 threads\n\npython 3.11, cupy-cuda13x 14.2.0\n" in text
    assert "| lenet-train | 128 | minicnn | PyTorch CUDA graph | **2.22** " in text
    assert "| lenet-train | 128 | 0.090 | 0.100 | 0.500 (5.56) | 0.400 (4.44) | 0.200 (2.22) |" in text
    assert "| lenet-train | 128 | 0.050 | 0.042 | 4 | 3 | 1 | 1 | `conv2d` 0.030, `relu` 0.012 |" in text
    assert text.index("| `softmax` | float32 | 64 | 8 | 17000 |") < text.index("| `conv2d` | float32 | 64 | 0 |")
    assert "| lenet | 128 | 30 | 2.0e-06 | 2.500000 to 2.100000 | 2.500000 to 2.100000 |" in text
    assert "| speedrun | cifar10 | 12 | bf16 | 12.50 | 48,000 | 94.12% |" in text
    assert text.count("NVIDIA H0, a processor, 16 cores; python 3.11, cupy-cuda13x 14.2.0; 2026-01-01.") == 4


def test_the_summary_says_what_holds(measured):
    done = run("gpu_summary.py", measured)
    assert done.returncode == 1, done.stderr
    lines = done.stdout.splitlines()
    assert "| tests | 60.0 | passed |" in lines and "| racecheck | 0 | left out |" in lines
    assert "NVIDIA H0, a processor, 16 cores; python 3.11, cupy-cuda13x 14.2.0" in lines
    for line in (
        "| all GPU tests pass | tests: passed | yes |",
        "| compute-sanitizer finds nothing | memcheck: passed, racecheck: left out | ? |",
        "| LeNet training 128: 5x PyTorch | 5.56 (minicnn 0.090 ms, peer 0.500 ms) | yes |",
        "| LeNet training 128: 1.5x its CUDA graph | 2.22 (minicnn 0.090 ms, peer 0.200 ms) | yes |",
        "| LeNet training 512: 4x PyTorch | not measured | ? |",
        "| VGG-like training 128: 1x PyTorch bfloat16 | 0.50 (minicnn bfloat16 8.000 ms, peer 4.000 ms) | **no** |",
        "| recipe speedrun: 94% within 15 s | 12.5 s, 94.12% | yes |",
    ):
        assert line in lines, line
    (measured / "parts.tsv").unlink()
    assert run("gpu_summary.py", measured).returncode == 2


def script(*arguments, **variables):
    command = ["bash", str(BENCHMARKS / "gpu.sh"), *map(str, arguments)]
    environment = os.environ | {"PYTHON": sys.executable, **variables}
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)


@pytest.mark.parametrize("wrong", ["--fast", "--wheels"])
def test_options_of_the_script(wrong):
    done = script(wrong)
    assert done.returncode == 2 and done.stderr.startswith("gpu.sh: ") and wrong in done.stderr


def test_a_part_that_fails_does_not_stop_the_next(tmp_path):
    """Without a GPU a part says so, and the tests count as failed, not as passed by being skipped."""
    try:
        backend.get("cupy")
    except (backend.BackendUnavailable, ImportError) as error:
        reason = str(error)
    else:
        pytest.skip("there is a GPU")
    done = script("--quick", "--only", "tests,agreement,report", tmp_path)
    assert done.returncode == 1
    rows = [line.split("\t") for line in (tmp_path / "parts.tsv").read_text().splitlines()]
    assert sorted((name, end) for name, _, end in rows) == [("agreement", "2"), ("report", "2"), ("tests", "2")]
    for part in ("tests", "agreement"):
        assert reason in (tmp_path / f"{part}.txt").read_text()
    assert "| all GPU tests pass | tests: failed (2) | **no** |" in done.stdout
    assert (tmp_path / "summary.txt").read_text() in done.stdout


def test_a_part_that_there_is_not(tmp_path):
    done = script("--quick", "--only", "kernels,tset", tmp_path, LIMIT="0")
    assert done.returncode == 2 and done.stderr == "gpu.sh: --only: there is no part tset\n"


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_a_signal_ends_the_script_and_its_parts(tmp_path):
    slow = tmp_path / "python"
    part = f"echo $$ >{tmp_path}/started; exec sleep 600"
    slow.write_text(f'#!/bin/sh\ncase "$*" in *gpu_kernels*) {part} ;; esac\nexit 1\n')
    slow.chmod(0o755)
    command = ["bash", str(BENCHMARKS / "gpu.sh"), "--quick", "--only", "kernels", str(tmp_path / "out")]
    environment = os.environ | {"PYTHON": str(slow)}
    running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    while not (tmp_path / "started").exists():
        time.sleep(0.05)
    running.terminate()
    assert running.wait(60) == 130
    with pytest.raises(ProcessLookupError):
        while True:  # until the part has heard of it too
            os.kill(int((tmp_path / "started").read_text()), 0)
            time.sleep(0.05)


def test_there_is_an_end_to_the_time_of_all_parts(tmp_path):
    done = script("--quick", "--only", "kernels", tmp_path, LIMIT="0")
    assert done.returncode == 1 and "| kernels | 0 | left out |" in done.stdout
    assert (tmp_path / "kernels.txt").read_text() == "no time left of 0 s\n"
