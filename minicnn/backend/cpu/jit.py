"""How the CPU kernels are compiled: cached on disk, with a word to the user while it takes seconds."""

import ctypes
import pickle
import sys
import warnings
from collections.abc import Callable
from typing import Any

import llvmlite.binding as llvm
import numba
import numpy as np
from llvmlite.binding import Linkage
from numba._dynfunc import make_function
from numba.core import event
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler, compile_result

from minicnn.backend.cpu.cache import KernelCache, read, write

LANES = 8
"""Images in a block of the batch-interleaved layout: one 256-bit vector of float32."""


def has_feature(feature: str) -> bool:
    """Whether the processor that Numba compiles for has a feature, by LLVM's name."""
    if numba.config.CPU_NAME is None and numba.config.CPU_FEATURES is None:
        return bool(llvm.get_host_cpu_features().get(feature, False))
    return f"+{feature}" in (numba.config.CPU_FEATURES or "").split(",")


HAS_BFLOAT16 = has_feature("avx512bf16") and has_feature("avx512vl")


def require_bfloat16() -> None:
    """Raise RuntimeError where the processor has no instructions for bfloat16."""
    if not HAS_BFLOAT16:
        raise RuntimeError(
            "bf16: expected a processor with AVX512_BF16, this one has none; train and predict in float32"
        )


def require_precision(name: str) -> None:
    """Raise RuntimeError where the processor has no instructions for a precision of :class:`minicnn.precision`."""
    if name == "tf32":
        raise RuntimeError("tf32: expected a GPU, received arrays of the CPU; use float32 or bf16")
    if name == "bf16":
        require_bfloat16()


class _Announce(event.Listener):
    """Says on stderr, once, that kernels compile; a kernel loaded from the cache makes no event."""

    said = False

    def on_start(self, event: Any) -> None:
        if not self.said:
            self.said = True
            print(
                "minicnn: compiling CPU kernels for their first use here (some seconds) ...",
                file=sys.stderr,
                flush=True,
            )

    def on_end(self, event: Any) -> None:
        """Nothing to say."""


class _Kernel(Compiler):
    """Numba's compiler, with code that calls its own copy of what is linked into it.

    By default the process that compiles calls what was linked where that stands first, optimised once; a process that
    loads the code from the cache has the copy alone, optimised twice, which may add up in another order.
    """

    def _compile_bytecode(self) -> Any:
        library = self.state.targetctx.codegen().create_library(self.state.func_id.func_qualname)
        library.enable_object_caching()
        optimize = library._optimize_final_module

        def optimize_alone() -> None:
            for function in library._final_module.functions:
                if not function.is_declaration and function.linkage in (Linkage.linkonce_odr, Linkage.weak_odr):
                    function.linkage = Linkage.internal  # nobody else's
            optimize()

        library._optimize_final_module = optimize_alone
        self.state.library = library
        return super()._compile_bytecode()


class _Part(JITCodeLibrary):
    """Code that is linked into its callers', which optimise all at once; there is no machine code of it alone."""

    def _optimize_final_module(self) -> None:
        """Nothing."""

    def _finalize_final_module(self) -> None:
        self._finalize_dynamic_globals()
        self._finalized = True


class _Helper(Compiler):
    """Numba's compiler, for what is called from other compiled code alone."""

    def _compile_bytecode(self) -> Any:
        self.state.library = _Part(self.state.targetctx.codegen(), self.state.func_id.func_qualname)
        self.state.targetctx.get_executable = _entry
        return super()._compile_bytecode()


def _entry(library: Any, description: Any, environment: Any) -> Any:
    """Return what Numba knows a helper by: a function that nobody calls."""
    return make_function(description.lookup_module(), description.qualname, "", 0, environment, (library,))


class _HelperCache(KernelCache):
    """The cache of one helper, of which there is no machine code to keep."""

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        content = read(self._place(sig))
        if content is None:
            return None
        name, code, description, environment, signature = pickle.loads(content)
        library = _Part(target_context.codegen(), name)
        library._final_module = llvm.parse_bitcode(code)
        library._finalized = True
        return compile_result(
            typing_context=target_context.typing_context, target_context=target_context, library=library,
            environment=environment, entry_point=_entry(library, description, environment), fndesc=description,
            signature=signature, objectmode=False,
        )  # fmt: skip

    def save_overload(self, sig: Any, data: Any) -> None:
        data.fndesc.typemap = data.fndesc.calltypes = None  # cannot be pickled
        code = data.library._get_module_for_linking().as_bitcode()
        kept = data.library.name, code, data.fndesc, data.environment, data.signature
        write(self._place(sig), pickle.dumps(kept))


def jit(**options: Any) -> Callable[[Callable], Any]:
    """Compile without the GIL and keep the code on disk; where no folder can be written, warn and do without.

    options: of :func:`numba.njit`.
    """

    def compiled(function: Callable) -> Any:
        kernel = numba.njit(nogil=True, error_model="numpy", **({"pipeline_class": _Kernel} | options))(function)
        kernel._cache = KernelCache(function, options.get("parallel", False))
        return kernel

    return compiled


def helper(function: Callable) -> Any:
    """Compile for calls from other compiled code alone: the code for calls from Python takes as long to compile."""
    kernel = jit(no_cpython_wrapper=True, no_cfunc_wrapper=True, pipeline_class=_Helper)(function)
    kernel._cache = _HelperCache(function, False)
    return kernel


def contiguous(array: np.ndarray) -> np.ndarray:
    """``array`` as C-contiguous and writable: Numba compiles every other layout anew."""
    array = np.ascontiguousarray(array)
    return array if array.flags.writeable else array.copy()


def _keep_memory() -> None:
    """Let malloc (of glibc) reuse the memory of large arrays; fresh from the system, it costs a page fault per 4 KB."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        trim, mmap = -1, -3  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, the latter at its largest
        mallopt(trim, 1 << 30)
        mallopt(mmap, 1 << 25)


def _enable() -> None:
    """Compile although NUMBA_DISABLE_JIT is set: what works on addresses cannot run as Python."""
    if numba.config.DISABLE_JIT:
        numba.config.DISABLE_JIT = 0
        warnings.warn("NUMBA_DISABLE_JIT is ignored: minicnn's kernels run compiled only; unset it", stacklevel=2)


_enable()
event.register("numba:compile", _Announce())
_keep_memory()
