"""Compiled code kept between processes: a file for each function and signature, with a checksum of all it depends on.

Whatever is wrong with a file (cut off, of other sources, none of ours) makes it no file: the function is compiled anew.
Where none can be written, everything is compiled in every process, with a word to the user.
"""

import hashlib
import pickle
import secrets
import sys
import tempfile
import warnings
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import llvmlite
import numba
from llvmlite import binding as llvm
from numba.core.caching import _Cache
from numba.core.compiler import CompileResult
from numba.misc.appdirs import AppDirs

from minicnn.backend.cpu import threads

_HERE = Path(__file__).parent
SOURCES = tuple((path.name, path.stat().st_mtime_ns) for path in sorted(_HERE.glob("*.py")))
"""What compiled code depends on: a function has others inlined that stand in other files."""

_warned = False


class KernelCache(_Cache):
    """The cache of one function that Numba compiles."""

    def __init__(self, function: Any, parallel: bool) -> None:
        self._function, self._parallel = function, parallel

    @property
    def cache_path(self) -> str:
        """The folder."""
        return str(_folder(numba.config.CACHE_DIR))

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Return the function compiled for the types of ``sig``, or None; Numba asks before it compiles."""
        if self._parallel:
            threads.start()
        target_context.refresh()
        content = read(self._place(sig))
        return None if content is None else CompileResult._rebuild(target_context, *pickle.loads(content))

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep the function that was compiled for the types of ``sig``."""
        write(self._place(sig), pickle.dumps(data._reduce()))

    def _place(self, sig: Any) -> Path | None:
        return place(self._function, str(sig), "nbc")

    def enable(self) -> None:
        """Nothing: it is always on."""

    def disable(self) -> None:
        """Nothing: it is always on."""

    def flush(self) -> None:
        """Nothing: what is not of today's sources is not read."""


def place(function: Any, signature: str, ending: str) -> Path | None:
    """Return the file for ``function`` compiled on this processor by these versions; None where none can be written."""
    folder = _folder(numba.config.CACHE_DIR)
    if folder is None:
        return None
    config = numba.config
    processor = (llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten(), config.CPU_NAME, config.CPU_FEATURES)
    versions = (sys.version, numba.__version__, llvmlite.__version__)
    what = (function.__module__, function.__qualname__, signature)
    key = hashlib.sha256(repr((processor, versions, what)).encode()).hexdigest()
    return folder / f"{function.__name__}-{key[:16]}.{ending}"


def read(path: Path | None) -> bytes | None:
    """Return what :func:`write` was given, if it is whole and of today's sources."""
    try:
        digest, _, content = path.read_bytes().partition(b"\n") if path else (b"", b"", b"")
    except OSError:
        return None
    return content if digest == _digest(content) else None


def write(path: Path | None, content: bytes) -> None:
    """Keep ``content``; two processes may do so at once."""
    if path is None:
        return
    draft = path.with_suffix(f".{secrets.token_hex(8)}")
    try:
        draft.write_bytes(_digest(content) + b"\n" + content)
        draft.replace(path)
    except OSError as error:
        _warn(f"cannot write {path} ({error.strerror or error})")
    finally:
        with suppress(OSError):
            draft.unlink(missing_ok=True)


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(repr(SOURCES).encode() + content).hexdigest().encode()


@cache
def _folder(wanted: str) -> Path | None:
    """Return the first that takes files: below ``wanted``, beside these sources, in the user's cache."""
    name = f"minicnn-{hashlib.sha256(str(_HERE).encode()).hexdigest()[:16]}"
    folders = [_HERE / "__pycache__"]
    users = Path(AppDirs("numba", appauthor=False).user_cache_dir)
    if users.is_absolute():  # else a user without a home
        folders.append(users / name)
    if wanted:
        with suppress(RuntimeError):  # a user without a home
            folders.insert(0, Path(wanted).expanduser().resolve() / name)
    for folder in folders:
        with suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
            return folder
    _warn(f"cannot write into {' or '.join(map(str, folders))}")
    return None


def _warn(reason: str) -> None:
    """Say once, whatever the number of functions, that compiled code is not kept."""
    global _warned
    if not _warned:
        _warned = True
        warnings.warn(
            f"kernels are compiled anew in every process: {reason}; name a folder in NUMBA_CACHE_DIR", stacklevel=2
        )
