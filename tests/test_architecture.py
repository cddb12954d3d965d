"""The rules of the house, read from the source: levels, names of optional packages, signatures, sizes."""

import ast
import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import minicnn
from minicnn.backend.kernel import facts
from minicnn.backend.reference import Kernels

ROOT = Path(minicnn.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
LEVELS = {  # of a file or folder below minicnn/
    "backend": 1,
    "autograd": 1,
    "random": 1,
    "shapes": 0,
    "recording": 0,
    "precision": 0,
    "files": 0,
    "progress": 0,
    "text": 0,
    "expected": 0.5,  # shows values
    "reading": 1.5,  # what a tensor is made of
    "comparisons": 1.5,
    "reductions": 1.5,
    "arithmetic": 1.5,
    "tensor": 2,
    "functional": 3,
    "gradcheck": 3,
    "nn": 4,
    "optim": 4,
    "data": 4,
    "models": 5,
    "plots": 5,
    "compile": 5,
    "training": 6,
    "pretrained": 6,
    "metrics": 6,
    "checkpoint": 6,
    "summary": 6,
    "__init__": 7,
    "cli": 8,
    "__main__": 9,
}
LAZY = {  # packages that may be missing, or take a second to load: the rooms that import them, where they are used
    "cupy": {"backend"}, "cupyx": {"backend"}, "numba": {"backend"}, "scipy": {"backend"}, "h5py": {"training"},
    "sklearn": {"data", "training"}, "tensorboard": {"training"}, "minicnn.plots": {"training"},
}  # fmt: skip
WITHOUT_NUMPY = {"functional", "nn", "models"}


def name(path):
    return str(path.relative_to(ROOT))


def room(path):
    """The file or folder below minicnn/ that ``path`` belongs to."""
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imports(path):
    """(imported module, line, whether inside a function) of each import statement, names of modules as far as known."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    inside = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for node in ast.walk(function)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name(path)}:{node.lineno}: relative import"
            targets = [
                f"{node.module}.{alias.name}" if is_package(node.module) else node.module for alias in node.names
            ]
        else:
            continue
        for target in targets:
            yield target, node.lineno, id(node) in inside


def is_package(module):
    """Whether ``from module import x`` may name a module x of ours."""
    parts = module.split(".")
    return parts[0] == "minicnn" and ROOT.joinpath(*parts[1:]).is_dir()


def local(module):
    """The file of a module of ours, for minicnn.a.b and for a name b that minicnn.a defines."""
    parts = module.split(".")[1:]
    for length in range(len(parts), -1, -1):
        base = ROOT.joinpath(*parts[:length])
        if base.with_suffix(".py").is_file():
            return base.with_suffix(".py")
        if (base / "__init__.py").is_file():
            return base / "__init__.py"
    raise AssertionError(f"no module {module}")


OURS = {path: [(local(m), line) for m, line, _ in imports(path) if m.split(".")[0] == "minicnn"] for path in FILES}


def test_every_room_has_a_level():
    assert {room(path) for path in FILES} <= set(LEVELS)


@pytest.mark.parametrize("path", FILES, ids=name)
def test_a_file_imports_lower_levels_or_its_own_folder(path):
    for target, line in OURS[path]:
        assert room(target) == room(path) or LEVELS[room(target)] < LEVELS[room(path)], (
            f"{name(path)}:{line} (level {LEVELS[room(path)]}) imports {name(target)} (level {LEVELS[room(target)]})"
        )


def test_there_are_no_cycles():
    """Within a folder too. A folder's __init__ may import its files; they must not import it back."""
    done, path_now = set(), []

    def visit(path):
        assert path not in path_now, " -> ".join(map(name, [*path_now[path_now.index(path) :], path]))
        if path not in done:
            path_now.append(path)
            for target, _ in OURS[path]:
                if target != path:
                    visit(target)
            done.add(path_now.pop())

    for path in FILES:
        visit(path)


@pytest.mark.parametrize("path", FILES, ids=name)
def test_imports_stand_at_the_top_except_of_lazy_packages(path):
    for module, line, inside_function in imports(path):
        own = module.startswith("minicnn.plots")
        package = "minicnn.plots" if own and inside_function else module.split(".")[0]
        assert not inside_function or package in LAZY, f"{name(path)}:{line} imports {module} inside a function"
        assert room(path) in LAZY.get(package, {room(path)}), f"{name(path)}:{line} names {package}"
        assert package != "numpy" or room(path) not in WITHOUT_NUMPY, f"{name(path)}:{line} imports numpy"
        assert package != "minicnn" or own or room(path) != "plots", f"{name(path)}:{line}: plots draws plain arrays"


@pytest.mark.parametrize("path", FILES, ids=name)
def test_files_stay_short(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400


# The compiler


PASSES = [
    "program",
    "graph",
    "record",
    "amx",
    "winograd_rows",
    "lower",
    "tokens",
    "rules",
    "channels",
    "binding",
    "constants",
    "fuse",
    "schedule",
]
PASSES += [
    "planes",
    "matrices",
    "allocate",
    "encode",
    "profile",
    "run",
    "report",
    "plan",
    "flow",
    "device_fuse",
    "device",
    "memory",
    "passes",
    "__init__",
]


def test_passes_import_earlier_ones_alone():
    files = {path.stem: path for path in FILES if room(path) == "compile"}
    assert sorted(files) == sorted(PASSES)
    for place, stem in enumerate(PASSES):
        for target, line in OURS[files[stem]]:
            if room(target) == "compile":
                assert PASSES.index(target.stem) < place, f"compile/{stem}.py:{line} imports {target.stem}"


def test_no_number_of_an_instruction_and_no_place_in_a_row_is_written_out():
    """Codes come from the declarations, and so do the places of operands: but for those of code and addresses."""
    for path in FILES:
        if room(path) in {"backend", "compile"}:
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                where = f"{name(path)}:{getattr(node, 'lineno', 0)}"
                if isinstance(node, ast.Compare) and isinstance(node.left, ast.Name) and node.left.id == "code":
                    assert not any(isinstance(c, ast.Constant) for c in node.comparators), where
                if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name) and node.value.id == "r":
                    assert not isinstance(node.slice, ast.Constant), where


# Kernels: declared in the reference, and with its signature wherever else they exist


@pytest.mark.parametrize("package", ["cpu", "cuda"])
def test_a_backend_is_the_reference_with_overrides_of_its_signatures(package):
    """Callers, and names and numbers of their arguments, are checked by mypy."""
    kernels = importlib.import_module(f"minicnn.backend.{package}").Kernels
    assert issubclass(kernels, Kernels)
    for kernel, function in vars(kernels).items():
        if not kernel.startswith("_"):
            assert inspect.signature(function) == inspect.signature(getattr(Kernels, kernel)), f"{package}.{kernel}"


def test_every_kernel_is_declared_and_documented():
    for kernel, function in vars(Kernels).items():
        if not kernel.startswith("_"):
            assert facts(kernel).parameters == tuple(inspect.signature(function).parameters), kernel
            assert inspect.getdoc(function), f"{kernel} has no docstring"


# The price of `import minicnn`

IMPORT = """
import sys, time
start = time.process_time()
import minicnn
print(time.process_time() - start)
print(*sorted(m for m in sys.modules if m in set(sys.argv[1:])))
"""
HEAVY = [
    "numba",
    "cupy",
    "matplotlib",
    "sklearn",
    "PIL",
    "typer",
    "rich",
    "requests",
    "scipy",
    "torch",
    "h5py",
    "jinja2",
]


def test_importing_minicnn_is_quick_and_imports_nothing_large():
    runs = []
    for _ in range(3):
        run = subprocess.run([sys.executable, "-c", IMPORT, *HEAVY], capture_output=True, text=True, check=True)
        seconds, *loaded = run.stdout.split()
        assert loaded == []
        runs.append(float(seconds))
    assert min(runs) < 1, runs  # 0.2 s on a machine that does much else


PREDICT = """
import sys
from minicnn.cli.main import main
try:
    main(["--backend", "numpy", sys.argv[1]], "predict")
except SystemExit as end:
    print(end.code, "sklearn" in sys.modules)
"""


def test_a_prediction_does_without_scikit_learn():
    picture = Path(__file__).parent / "pictures" / "cat.png"
    run = subprocess.run([sys.executable, "-c", PREDICT, picture], capture_output=True, text=True, check=True)
    assert run.stdout.endswith("\n0 False\n")
