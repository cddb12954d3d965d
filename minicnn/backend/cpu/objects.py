"""Functions compiled once on a machine, kept as object files, and loaded without the compiler.

To load a function from its own cache, Numba starts its whole compiler: types, code generation, SciPy's BLAS; 60 MiB and
a third of a second. What replays a plan needs none of it: its functions take addresses and sizes and return nothing, so
their machine code and the names that it calls are all there is to keep.
"""

import ctypes
import json
import os
from collections.abc import Callable
from functools import cache
from threading import RLock
from typing import Any

import numba
from llvmlite import binding as llvm
from numba import types
from numba.core.base import _load_global_helpers
from numba.core.ccallback import CFunc
from numba.core.compiler_lock import global_compiler_lock
from numba.core.runtime import _nrt_python
from numba.core.typing import signature
from numba.extending import intrinsic

from minicnn.backend.cpu import threads
from minicnn.backend.cpu.cache import place, read, write

_one_at_a_time = RLock()  # LLVM's linker may end a process in which two threads load the same code


def c_function(function: Callable[..., None], parallel: bool = False) -> Any:
    """Compile ``function``, whose arguments are int64 and which returns nothing; return it as a function of ctypes.

    Raises:
        RuntimeError: the code calls what this version of Numba does not have, or holds addresses of this process.
    """
    with _one_at_a_time:
        return _loaded(function, parallel)


@cache
def _loaded(function: Callable[..., None], parallel: bool) -> Any:
    engine = _engine()  # first: what is compiled is linked at once
    path = place(function, f"parallel={parallel}", "o")
    kept = read(path)
    if kept is None:
        kept = _compiled(function, parallel)
        write(path, kept)
    line, _, code = kept.partition(b"\n")
    header = json.loads(line)
    missing = [name for name in header["calls"] if llvm.address_of_symbol(name) is None]
    if missing:  # LLVM would end the process
        raise RuntimeError(f"{function.__name__}: Numba {numba.__version__} does not have {', '.join(missing)}")
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    arguments = [ctypes.c_int64] * function.__code__.co_argcount
    return ctypes.CFUNCTYPE(None, *arguments)(engine.get_function_address(header["name"]))


def _compiled(function: Callable[..., None], parallel: bool) -> bytes:
    """Return a line, the name of the function in its machine code and the names of what that calls, and the code."""
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
    header = {"name": compiled.native_name, "calls": [n for n in names if not n.startswith("llvm.")]}
    return json.dumps(header).encode() + b"\n" + code


@cache
def _engine() -> Any:
    """Return LLVM's linker, which knows what Numba's code calls: Python, the threads, the runtime of arrays."""
    _load_global_helpers()
    for name, address in _nrt_python.c_helpers.items():
        llvm.add_symbol(name if name.startswith("_") else f"NRT_{name}", address)
    threads.start()  # and adds the names of what they offer
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_default_triple().create_target_machine(jit=True)
    return llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)


def pointer_to(kind: Any) -> Any:
    """Return what makes a pointer to numbers of a kind of an address, in the code of a function."""

    @intrinsic
    def pointer(typing: Any, address: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

        return types.CPointer(kind)(address), codegen

    return pointer


def _wait_for_the_compiler() -> None:
    _one_at_a_time.acquire()
    global_compiler_lock.acquire()


def _go_on_compiling() -> None:
    global_compiler_lock.release()
    _one_at_a_time.release()


if hasattr(os, "register_at_fork"):  # a lock that another thread holds would be held in the child for ever
    os.register_at_fork(
        before=_wait_for_the_compiler, after_in_parent=_go_on_compiling, after_in_child=_go_on_compiling
    )
