"""Standard streams that are closed, full or left by their reader, and Ctrl-C while the libraries load."""

import json
import shlex
import subprocess
import sys

import pytest
from PIL import Image

from .conftest import ROOT, complaints, environment

NO_COMMANDS = {"docs", "door", "tour"}
SCRIPTS = sorted({path.stem for path in (ROOT / "scripts").glob("*.py")} - NO_COMMANDS)


@pytest.fixture
def picture(tmp_path):
    Image.new("RGB", (40, 40), (9, 80, 200)).save(tmp_path / "a.png")
    return tmp_path / "a.png"


def shell(redirection, name, *words):
    """Run a script under a shell with a redirection: (exit code, stdout, stderr)."""
    line = shlex.join([sys.executable, str(ROOT / "scripts" / f"{name}.py"), *map(str, words)])
    options = {"capture_output": True, "text": True, "env": environment(), "timeout": 600}
    run = subprocess.run(["bash", "-c", f"set -o pipefail; {line} {redirection}"], **options)
    return run.returncode, run.stdout, complaints(run.stderr)


LOST = {">&-": "it is closed", ">&- <&-": "it is closed", ">/dev/full": "No space left on device"}


@pytest.mark.parametrize("redirection", LOST)
def test_answers_that_nobody_gets_are_a_failure(picture, redirection):
    code, out, err = shell(redirection, "predict", "--backend", "numpy", picture)
    assert (code, out, err) == (1, "", f"error: cannot write to stdout: {LOST[redirection]}\n")


@pytest.mark.parametrize("redirection", LOST)
def test_what_writes_files_writes_them(tmp_path, redirection):
    code, out, err = shell(redirection, "convert", "lenet-cifar10", tmp_path / "w.safetensors")
    assert (code, out, err) == (0, "", f"warning: cannot write to stdout: {LOST[redirection]}\n")
    assert (tmp_path / "w.safetensors").exists()


@pytest.mark.parametrize("redirection", ["2>&-", "2>/dev/full"])
def test_errors_that_nobody_gets_stay_out_of_the_answers(picture, redirection):
    words = ("--backend", "numpy", "--json", picture, "missing.png")
    code, out, err = shell(redirection, "predict", *words)
    answers = json.loads(out)
    assert (code, err) == (1, "") and "predictions" in answers[0] and "does not exist" in answers[1]["error"]


def test_nothing_left_to_write_to(picture):
    assert shell(">&- 2>&-", "predict", "--backend", "numpy", picture) == (1, "", "")
    assert shell(">&- 2>&-", "train", "--epochs", "-1") == (2, "", "")


def test_a_reader_of_one_line(picture):
    code, out, err = shell("| head -1", "predict", "--backend", "numpy", *[picture] * 1000)
    assert (code, out.count("\n"), err) == (1, 1, "")
    code, out, err = shell("| head -1", "train", "--recipe", "list")
    assert (code, out.count("\n"), err) == (0, 1, "")


def test_a_run_goes_on_to_its_end_when_the_reader_leaves(tmp_path):
    short = ("--dataset", "digits", "--epochs", 3, "--limit-batches", 2)
    code, out, err = shell("| head -1", "train", "--backend", "numpy", *short, "--out", tmp_path)
    assert (code, out, err) == (0, "data: digits of scikit-learn\n", "")
    assert (tmp_path / "metrics.json").exists()


def test_help_on_a_full_device():
    code, _, err = shell(">/dev/full", "predict", "--help")
    assert code == 1 and err == "error: cannot write to stdout: No space left on device\n"


INTERRUPTED = """
import os, runpy, signal, sys

library, *sys.argv = sys.argv[1:]
sys.path.insert(0, os.path.dirname(sys.argv[0]))  # as for any script
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background inherits an ignored one


class Interrupt:
    def find_spec(self, name, *_):
        if name == library:
            os.kill(os.getpid(), signal.SIGINT)


sys.meta_path.insert(0, Interrupt())
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.parametrize(
    ("name", "library"),
    [
        *((name, "minicnn") for name in SCRIPTS),
        *(("predict", library) for library in ("numpy", "typer", "minicnn.cli.predict")),
        ("compare", "matplotlib"),
        *(("predict", library) for library in ("minicnn.backend.cpu", "numba", "PIL.PngImagePlugin")),
    ],
)
def test_ctrl_c_while_a_library_loads(picture, name, library):
    words = [ROOT / "scripts" / f"{name}.py", "--backend", "numpy", picture]
    streams = {"capture_output": True, "text": True, "timeout": 600}
    run = subprocess.run([sys.executable, "-c", INTERRUPTED, library, *words], env=environment(), **streams)
    assert (run.returncode, run.stdout, run.stderr) == (130, "", "")
