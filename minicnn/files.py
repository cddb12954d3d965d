"""Writing files so that a crash, a full disk or a second process never costs what was already saved."""

import errno
import os
import secrets
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

_TEMPORARY = ".minicnn-{}.tmp"
_FULL = {errno.ENOSPC, errno.EFBIG, errno.EDQUOT}
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}
_NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP}


def expand_user(path: str | os.PathLike[str]) -> Path:
    """`path` with a "~" or "~name" at its beginning replaced by that home folder; ValueError where "~" has none.

    As in a shell, "~name" stays as it is where nobody has that name.
    """
    path = Path(path)
    try:
        return path.expanduser()
    except RuntimeError:
        if path.parts[0] != "~":
            return path
        raise ValueError(f"{str(path)!r}: there is no home folder; set HOME, or write the path in full") from None


def atomic_write(path: str | os.PathLike[str], content: bytes | str) -> None:
    """Replaces the file at `path` by `content` (text as UTF-8): at any moment the old or the new file is there, whole.

    The content goes to a temporary file in the same folder, is flushed to the disk, and is renamed over `path`; the
    folder is flushed too, or a power cut could undo the renaming. A failure removes the temporary file and raises
    OSError with what, where and the remedy.
    """
    path = Path(path)
    if path.exists() and not (path.is_file() or path.is_dir()):  # the renaming would take its place
        raise OSError(f"cannot write {path}: it is a device or a pipe; give the path of a file")
    temporary = path.parent / _TEMPORARY.format(secrets.token_hex(8))
    try:
        with temporary.open("xb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise _explained(error, f"cannot write {path}") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def check_writable(folder: str | os.PathLike[str]) -> None:
    """Makes `folder` where it is missing and proves that a file can be written there; OSError where not."""
    folder = Path(folder)
    probe = folder / _TEMPORARY.format(secrets.token_hex(8))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"\0")
    except OSError as error:
        raise _explained(error, f"cannot write into the folder {folder}") from error
    finally:
        with suppress(OSError):
            probe.unlink(missing_ok=True)


def new_run_folder(root: str | os.PathLike[str], name: str) -> Path:
    """Makes and returns a folder that nobody else has: root/name, or root/name-2, root/name-3, … where that exists.

    The making itself is the test for existence, so two processes that ask in the same second get two folders.
    """
    if name in ("", "..") or Path(name).name != name:
        raise ValueError(f"new_run_folder: expected the name of one folder, without separators, received {name!r}")
    root = Path(root)
    folder, number = root / name, 1
    try:
        root.mkdir(parents=True, exist_ok=True)
        while True:
            try:
                folder.mkdir()
                return folder
            except FileExistsError:
                number += 1
                folder = root / f"{name}-{number}"
    except OSError as error:
        raise _explained(error, f"cannot make a run folder in {root}") from error


@contextmanager
def lock_run_folder(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Holds `folder` for this process; BlockingIOError where another process, or another lock here, holds it.

    The system releases the lock when the process ends in any way, kill included, so a stale lock cannot exist; the
    file `.lock` stays. Whoever holds the lock is alone in the folder, so temporary files that a killed run left are
    removed here.
    """
    folder = Path(folder)
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise BlockingIOError(
            f"the folder {folder} is in use by another run: wait for its end or choose another folder"
        ) from error
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise _explained(error, f"cannot lock the folder {folder}") from error
        warnings.warn(f"the file system of {folder} has no locks: start no second run there", stacklevel=3)
    try:
        for stale in folder.glob(_TEMPORARY.format("*")):
            stale.unlink(missing_ok=True)
        yield
    finally:
        lock.release()


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":  # elsewhere a folder cannot be opened
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network file systems flush no folders
            raise
    finally:
        os.close(descriptor)


def _explained(error: OSError, what: str) -> OSError:
    """The same kind of error with one line: what and where, the system's reason, the remedy."""
    if error.errno in _FULL:
        remedy = "free some space or quota, or choose another folder"
    elif error.errno in _FORBIDDEN:
        remedy = "choose a folder that you may write to"
    else:
        remedy = "check the path"
    explained = type(error)(f"{what}: {error.strerror or error}; {remedy}")
    explained.errno = error.errno
    return explained
