"""Functions compiled once on a machine, kept as object files, and loaded without the compiler.

To load a function from its own cache, Numba starts its whole compiler: types, code generation, SciPy's BLAS; 60 MiB and
a third of a second. What replays a plan needs none of it: its functions take addresses and sizes and return nothing, so
their machine code and the names that it calls are all there is to keep.
"""

import ctypes
import hashlib
import json
import os
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any

import llvmlite
import numba
from llvmlite import binding as llvm
from numba.core.base import _load_global_helpers
from numba.core.caching import FunctionCache
from numba.core.ccallback import CFunc
from numba.core.runtime import _nrt_python
from numba.core.typing import signature

from minicnn.backend.cpu.jit import SOURCES, warn_of_no_cache

_one_at_a_time = Lock()  # LLVM's linker may end a process in which two threads load the same code


def c_function(function: Callable[..., None], parallel: bool = False) -> Any:
    """Compile ``function``, whose arguments are int64 and which returns nothing; return it as a function of ctypes.

    Raises:
        RuntimeError: the code calls what this version of Numba does not have, or holds addresses of this process.
    """
    with _one_at_a_time:
        return _loaded(function, parallel)


@cache
def _loaded(function: Callable[..., None], parallel: bool) -> Any:
    path = _place(function, parallel)
    kept = _read(path) if path else None
    if kept is None:
        kept = _compiled(function, parallel)
        if path:
            _write(path, *kept)
    header, code = kept
    engine = _engine()
    missing = [name for name in header["calls"] if llvm.address_of_symbol(name) is None]
    if missing:  # LLVM would end the process
        raise RuntimeError(f"{function.__name__}: Numba {numba.__version__} does not have {', '.join(missing)}")
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    arguments = [ctypes.c_int64] * function.__code__.co_argcount
    return ctypes.CFUNCTYPE(None, *arguments)(engine.get_function_address(header["name"]))


def _compiled(function: Callable[..., None], parallel: bool) -> tuple[dict[str, Any], bytes]:
    """Return the name of the function in its machine code, the names of what that calls, and the code."""
    kind = signature(numba.void, *[numba.int64] * function.__code__.co_argcount)
    options = {"error_model": "numpy", "parallel": parallel}
    compiled: Any = CFunc(function, (kind.args, kind.return_type), {}, options)
    compiled.compile()
    library = compiled._library
    if library.has_dynamic_globals:
        raise RuntimeError(f"{function.__name__}: its code contains addresses of this process")
    _, _, (code, bitcode) = library.serialize_using_object_code()
    module = llvm.parse_bitcode(bitcode)
    names = [thing.name for thing in [*module.functions, *module.global_variables] if thing.is_declaration]
    return {"name": compiled.native_name, "calls": [n for n in names if not n.startswith("llvm.")]}, code


@cache
def _engine() -> Any:
    """Return LLVM's linker, which knows what Numba's code calls: Python, the threads, the runtime of arrays."""
    _load_global_helpers()
    for name, address in _nrt_python.c_helpers.items():
        llvm.add_symbol(name if name.startswith("_") else f"NRT_{name}", address)
    numba.get_num_threads()  # starts the threads and adds the names of what they offer
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_default_triple().create_target_machine(jit=True)
    return llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)


def _place(function: Callable[..., None], parallel: bool) -> Path | None:
    """Return the file for a function on this processor, in the folder that Numba would take."""
    try:
        folder = Path(FunctionCache(function).cache_path)
    except RuntimeError as error:
        warn_of_no_cache(error)
        return None
    config = numba.config
    processor = (llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten(), config.CPU_NAME, config.CPU_FEATURES)
    versions = (sys.version, numba.__version__, llvmlite.__version__)
    what = (function.__module__, function.__qualname__, parallel)
    key = hashlib.sha256(repr((processor, versions, what)).encode()).hexdigest()
    return folder / f"{function.__name__}-{key[:16]}.o"


def _read(path: Path) -> tuple[dict[str, Any], bytes] | None:
    """Return what was kept, if it is of today's sources and whole."""
    try:
        digest, _, content = path.read_bytes().partition(b"\n")
    except OSError:
        return None
    if digest != _digest(content):
        return None
    header, _, code = content.partition(b"\n")
    return json.loads(header), code


def _write(path: Path, header: dict[str, Any], code: bytes) -> None:
    content = json.dumps(header).encode() + b"\n" + code
    draft = path.with_suffix(f".{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.write_bytes(_digest(content) + b"\n" + content)
        draft.replace(path)
    except OSError as error:
        warn_of_no_cache(error)


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(repr(SOURCES).encode() + content).hexdigest().encode()
