"""Wrong words and failures: one line, the right exit code, and nothing loaded before."""

import importlib.util
import inspect
import re
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import typer
from PIL import Image

import minicnn
from minicnn import backend, data, models
from minicnn.backend import Backend, BackendUnavailable
from minicnn.backend.cpu import jit, machine
from minicnn.backend.cuda import launch
from minicnn.cli import main as main_module
from minicnn.cli import options
from minicnn.cli.help import documented
from minicnn.training import Config, Trainer

from .conftest import ROOT, complaints, environment


@pytest.fixture
def no_data(monkeypatch):
    def load(*_, **__):
        raise AssertionError("data was loaded")

    monkeypatch.setattr(data, "load", load)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--epochs", "-1"), "epochs: expected a whole number from 1, received -1"),
        (("--epochs", "x"), "Invalid value for '--epochs'"),
        (("--lr", "nan"), "lr: expected a number above 0, received nan"),
        (("--lr", "0"), "lr: expected a number above 0, received 0.0"),
        (("--model", "lent"), "did you mean 'lenet'?"),
        (("--recipe", "digit"), "did you mean 'digits'?"),
        (("--optimizer", "sdg"), "did you mean 'sgd'?"),
        (("--schedule", "one_cycle"), "did you mean 'one-cycle'?"),
        (("--epoch", "3"), "--epochs"),
        (("--batch-size",), "requires an argument"),
        (("stray",), "unexpected extra argument"),
        (("--milestones", "abc"), "milestones: expected whole numbers as 30,45, received 'abc'"),
        (("--milestones", "3,,5"), "milestones: expected whole numbers as 30,45, received '3,,5'"),
        (("--backend", "numpi"), "backend: expected auto, numpy, cupy, reference; received 'numpi'"),
        (("--backend", "numpy", "--threads", "99"), "received 99"),
        (
            ("--precision", "fp16"),
            "precision: expected one of float32, tf32, bf16, auto, received 'fp16'; did you mean 'bf16'?",
        ),
        (
            ("--knots", "0:1,1:0", "--schedule", "cosine"),
            "knots: expected schedule linear with it, received schedule cosine",
        ),
        (("--stop-after", "-1"), "Invalid value for '--stop-after'"),
        (("--nesterov", "--momentum", "0"), "expected a momentum and no dampening with nesterov"),
        (("--schedule", "plateau", "--gamma", "1"), "factor"),
    ],
)
def test_wrong_usage_of_train(command, no_data, words, message):
    code, out, err = command("train", *words)
    assert (code, out) == (2, "") and err.startswith("error: ") and message in err and err.count("\n") == 1


def test_an_unknown_data_set(command):
    code, out, err = command("train", "--backend", "numpy", "--dataset", "cifar")
    assert (
        (code, out) == (2, "")
        and "data set: expected auto, cifar10" in err
        and "received 'cifar'; did you mean 'cifar10'?" in err
    )


@pytest.mark.parametrize("words", [("trian",), ("predict", "--top-k", "0", "x.png"), ("evaluate", "--batch-size", "0")])
def test_wrong_usage_elsewhere(command, words):
    code, out, err = command(*words)
    assert (code, out) == (2, "") and err.startswith("error: ") and err.endswith("; see --help\n")


@pytest.mark.skipif(importlib.util.find_spec("cupy") is not None, reason="CuPy is installed")
def test_cupy_without_cupy(command, no_data):
    code, out, err = command("train", "--backend", "cupy")
    assert (code, out) == (1, "") and "CuPy is not installed" in err and 'pip install -e ".[cuda' in err
    assert err.count("\n") == 1


COMPUTING = {"train": (), "find-lr": (), "study": (), "evaluate": (), "predict": ("x.png",), "explain": ("x.png",)}


@pytest.mark.parametrize("name", COMPUTING)
def test_a_processor_without_bfloat16(command, no_data, monkeypatch, tmp_path, name):
    monkeypatch.setattr(jit, "HAS_BFLOAT16", False)
    monkeypatch.chdir(tmp_path)
    code, out, err = command(name, "--backend", "numpy", "--precision", "bf16", *COMPUTING[name])
    assert code == 1 and err.startswith("error: bf16: expected a processor with AVX512_BF16, ")
    assert err.count("\n") == 1 and out == ("stage-baseline (1 of 4)\n" if name == "study" else "")


@pytest.mark.parametrize("name", ["numpy", "reference"])
@pytest.mark.parametrize("amx", [False, True])
def test_the_faster_precision_is_that_of_compiled_steps(monkeypatch, name, amx):
    monkeypatch.setattr(machine, "has_amx", lambda: amx)
    chosen = Backend(name, np, backend.get("reference").kernels)
    assert chosen.fastest_precision == ("bf16" if amx and name == "numpy" else "float32")
    splits = data.load("digits")
    for eager in (False, True):
        trainer = Trainer(Config(precision="auto"), splits, backend.get("numpy"), eager)
        assert trainer.config.precision == ("bf16" if amx and not eager else "float32")


@pytest.mark.parametrize("capability", ["75", "80"])
def test_the_faster_precision_of_a_gpu(monkeypatch, capability):
    device = SimpleNamespace(Device=lambda: SimpleNamespace(compute_capability=capability))
    monkeypatch.setattr(launch, "cupy", SimpleNamespace(cuda=device))
    launch.require_tensor_cores.cache_clear()
    chosen = Backend("cupy", None, SimpleNamespace())
    assert chosen.fastest_precision == ("tf32" if capability == "80" else "float32")
    launch.require_tensor_cores.cache_clear()


def test_the_reference_needs_no_such_processor(monkeypatch):
    monkeypatch.setattr(jit, "HAS_BFLOAT16", False)
    monkeypatch.setattr(backend, "set_default", backend.get)
    assert options.choose_backend("reference", 0, "bf16").name == "reference"


def test_a_gpu_needs_no_such_processor(monkeypatch):
    device = Backend("cupy", None, SimpleNamespace())
    monkeypatch.setattr(launch, "require_tensor_cores", lambda: None)
    monkeypatch.setattr(jit, "HAS_BFLOAT16", False)
    monkeypatch.setattr(backend, "get", lambda name: device)
    monkeypatch.setattr(backend, "set_default", lambda name: device)
    assert options.choose_backend("cupy", 0, "bf16") is device


@pytest.mark.parametrize("name", ["evaluate", "predict", "explain"])
def test_an_unknown_precision_elsewhere(command, name):
    code, out, err = command(name, "--precision", "fp16", *COMPUTING[name])
    assert (code, out) == (2, "")
    assert err == "error: --precision: expected one of float32, tf32, bf16, received 'fp16'; did you mean 'bf16'?\n"


def test_a_traceback_only_with_debug(command, script, tmp_path):
    words = ("--backend", "numpy", "--weights", tmp_path / "none.safetensors", "x.png")
    code, out, err = command("predict", *words)
    assert (code, out) == (1, "") and err.startswith("error: ") and err.count("\n") == 1
    out, err = script("predict", *words, "--debug").communicate(timeout=600)
    assert "Traceback" in err and err.splitlines()[-1].startswith("FileNotFoundError: ")


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (BackendUnavailable("no device"), 1, "error: no device\n"),
        (data.DatasetUnavailable("not here"), 2, "error: not here\n"),
        (OSError("disk\nfull"), 1, "error: disk full\n"),
        (MemoryError(), 1, "error: out of memory (MemoryError): use a smaller --batch-size\n"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_failures_become_one_line(command, monkeypatch, error, code, line):
    def failing():
        raise error

    monkeypatch.setattr(main_module, "load", lambda name: failing)
    assert command("train") == (code, "", line)


@pytest.mark.parametrize(
    "error",
    [MemoryError("Out of memory allocating 512 bytes\n"), RuntimeError("cudaErrorMemoryAllocation: out of memory")],
)
def test_a_gpu_whose_memory_is_full(command, monkeypatch, error):
    """A stand-in for CuPy's errors, of which OutOfMemoryError is a MemoryError."""
    package, device = backend.package, SimpleNamespace(device_memory=lambda: (15 * 2**30, 16 * 2**30))
    monkeypatch.setattr(backend, "package", lambda name: device if name == "cupy" else package(name))
    kernels = SimpleNamespace()

    def failing():
        with options.naming_memory(Backend("cupy", None, kernels), 128):
            raise error

    monkeypatch.setattr(main_module, "load", lambda name: failing)
    code, out, err = command("train")
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert err.startswith("error: out of memory on the GPU with batches of 128 images: 15.0 of 16.0 GiB are in use (")
    assert "use smaller batches" in err and "--backend numpy" in err
    with pytest.raises(type(error)), options.naming_memory(Backend("numpy", None, kernels), 128):
        raise error
    with pytest.raises(KeyError), options.naming_memory(Backend("cupy", None, kernels), 128):
        raise KeyError


CUPY = {
    "RuntimeError": "raise RuntimeError('CUDA is odd\\nand more')",
    "OSError": "raise OSError('libcuda.so: cannot open')",
    "AttributeError": "raise AttributeError('no such thing')",
    "SyntaxError": "this is no Python",
    "empty": "",
}


@pytest.fixture
def with_cupy(script, tmp_path):
    """Start predict on a picture, with a backend, where CuPy is a module of these words."""

    def start(content, backend):
        (tmp_path / "cupy").mkdir()
        (tmp_path / "cupy" / "__init__.py").write_text(content)
        Image.new("RGB", (32, 32)).save(tmp_path / "a.png")
        variables = {"PYTHONPATH": f"{tmp_path}:{ROOT}"}
        return script("predict", "--backend", backend, tmp_path / "a.png", variables=variables)

    return start


@pytest.mark.parametrize("kind", CUPY)
def test_a_cupy_that_does_not_import(with_cupy, kind):
    named = with_cupy(CUPY[kind], "cupy")
    out, err = named.communicate(timeout=600)
    assert (named.returncode, out, err.count("\n")) == (1, "", 1)
    assert err.startswith("error: cupy: CuPy does not import: ") and "pip install" in err


@pytest.mark.parametrize("kind", ["RuntimeError", "empty"])
def test_a_cupy_that_does_not_import_is_passed_over(with_cupy, kind):
    passed_over = with_cupy(CUPY[kind], "auto")
    out, err = passed_over.communicate(timeout=600)
    assert passed_over.returncode == 0 and out.count("\n") == 3
    (line,) = complaints(err).splitlines()
    assert line.startswith("warning: NumPy is used; cupy: CuPy does not import: ")


def test_a_mistake_of_the_program_keeps_its_traceback(monkeypatch):
    def failing():
        raise ZeroDivisionError

    monkeypatch.setattr(main_module, "load", lambda name: failing)
    with pytest.raises(ZeroDivisionError):
        main_module.main(["train"])


@pytest.mark.parametrize("name", ["train", "predict", "evaluate"])
def test_help_explains_every_option(command, name):
    for flag in ("-h", "--help"):
        code, out, err = command(name, flag)
        assert (code, err) == (0, "") and "Usage" in out and "--backend" in out
    app = typer.Typer()
    app.command()(main_module.load(name))
    options = typer.main.get_command(app).params
    unexplained = [option.name for option in options if not getattr(option, "help", None)]
    assert not unexplained


@pytest.mark.parametrize("name", COMPUTING)
def test_help_says_which_precision_there_is(command, name):
    _, out, _ = command(name, "--help")
    (text,) = re.findall(r"  --precision \S+ +(.*?)\n  --", out, re.DOTALL)
    text = " ".join(text.split())
    assert "float32; bf16, on a GPU or a CPU with AVX512_BF16; or tf32, on a GPU" in text
    own = name in ("evaluate", "predict", "explain")
    assert ("auto: bf16 on a CPU with AMX" in text) == (not own)
    assert ("whatever the training did" in text) == ("[default: float32]" in text) == own


def test_help_without_a_command(command):
    code, out, _ = command("-h")
    assert code == 0 and all(name in out for name in ("train", "predict", "evaluate"))


@pytest.mark.parametrize("name", main_module.COMMANDS)
def test_the_help_fits_80_columns(command, monkeypatch, name):
    monkeypatch.setenv("COLUMNS", "80")
    code, out, err = command(name, "--help")
    assert (code, err) == (0, "") and max(map(len, out.splitlines())) <= 80 and "…" not in out


def test_the_list_of_commands_has_their_first_lines(command, monkeypatch):
    """The list is read from the sources; these are the functions."""
    monkeypatch.setenv("COLUMNS", "200")
    _, out, _ = command("--help")
    for name in main_module.COMMANDS:
        sentence = (main_module.load(name).__doc__ or "").partition("\n")[0]
        assert f"\n  {name:<9} {sentence}\n" in re.sub(r"\n {12}", " ", out), name


def test_the_version(command):
    assert command("--version") == (0, f"minicnn {minicnn.__version__}\n", "")


def test_the_package_is_a_program():
    words = [sys.executable, "-m", "minicnn", "--version"]
    run = subprocess.run(words, capture_output=True, text=True, env=environment(), check=True)
    assert run.stdout == f"minicnn {minicnn.__version__}\n"


LOADED = """
import sys
from minicnn.cli.main import main
try:
    main(sys.argv[1:])
except SystemExit:
    print(*sorted(m for m in sys.modules if m in ("matplotlib", "sklearn", "jinja2", "requests", "PIL", "numba")))
"""


def test_help_imports_no_command():
    run = subprocess.run([sys.executable, "-c", LOADED, "--help"], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines()[-1] == "", run.stdout  # none of those


def test_a_shell_completes_commands_and_options():
    def completed(words):
        variables = {"_MINICNN_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
        line = [sys.executable, "-m", "minicnn"]
        run = subprocess.run(line, capture_output=True, text=True, env=environment(**variables), check=True)
        return run.stdout.split()

    assert completed("minicnn ev") == ["evaluate"]
    assert completed("minicnn train --early") == ["--early-stop"]


def test_the_help_of_train_has_the_options_of_each_model(command):
    _, out, _ = command("train", "--help")
    (section,) = re.findall(r"Options of the models, for --model-option:\n((?:  .*\n)*)", out)
    text = " ".join(section.split())
    assert "vgg: dropout=[0.2, 0.3, 0.4] probability after each stage, or one number for all; where it is 0 " in text
    assert "speednet: scale=0.1111 factor of the logits." in text and "a multiple of heads." in text
    for name in models.names():
        for option, parameter in inspect.signature(models.factory(name)).parameters.items():
            if option not in ("num_classes", "image_size", "in_channels"):
                assert re.search(rf"\b{name}(, \w+)*: {option}=", text) and parameter.default is not parameter.empty
                assert documented(models.factory(name))[option].endswith(".")
