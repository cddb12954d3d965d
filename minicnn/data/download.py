"""One verified download over HTTPS."""

import hashlib
import os
import re
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import BinaryIO

import requests
from filelock import FileLock
from requests.adapters import HTTPAdapter
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn
from urllib3 import Retry

PATIENCE = 8.0  # seconds to wait for an answer, and for each further piece of it
ATTEMPTS = 5  # transfers that may break off before the download is given up


def fetch(url: str, path: Path, *, size: int, sha256: str) -> None:
    """Bring the file at `url`, of `size` bytes, to `path`; do nothing if it is there once it is our turn.

    It is written beside `path` and renamed when its size and hash are right, so whatever stands at `path` is whole.
    A transfer that breaks off goes on from where it stopped. One process downloads; others wait for it and find the
    file. Raises OSError where there is no connection, no answer within PATIENCE seconds or no room, and ValueError
    for a wrong size or hash.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    console = Console(stderr=True)
    with FileLock(path.with_name(f".{path.name}.lock")):
        if path.exists():
            return
        console.print(f"Downloading {url} ({size / 2**20:.0f} MiB)", highlight=False, soft_wrap=True)
        part = path.with_name(f".{path.name}.part")
        try:
            with part.open("wb") as file:
                _transfer(url, file, size, console)
                file.flush()
                os.fsync(file.fileno())
            verify(part, size=size, sha256=sha256, name=url)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)


def verify(path: Path, *, size: int, sha256: str, name: str) -> None:
    """Raise ValueError, beginning with `name`, unless the file at `path` has this size and this hash."""
    if (actual_size := path.stat().st_size) != size:
        raise ValueError(f"{name}: wrong size, {actual_size:,} bytes instead of {size:,}")
    with path.open("rb") as file:
        actual = hashlib.file_digest(file, "sha256").hexdigest()
    if actual != sha256:
        raise ValueError(f"{name}: wrong SHA-256, {actual} instead of {sha256}")


def session() -> requests.Session:
    """A session that speaks HTTPS only: a redirect to http:// fails like any unknown scheme."""
    result = requests.Session()
    result.adapters.clear()
    result.mount("https://", HTTPAdapter(max_retries=Retry(2, backoff_factor=0.3, status_forcelist=(500, 502, 503))))
    return result


def _transfer(url: str, file: BinaryIO, size: int, console: Console) -> None:
    """Write the body of `url` to `file`, with a progress bar where the console is a terminal."""
    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=size)
        for attempt in range(1, ATTEMPTS + 1):
            start = file.tell()
            try:
                with _open(url, start) as response:
                    if response.status_code != requests.codes.partial_content:  # the server sends all of it again
                        file.seek(0)
                        file.truncate()
                    for piece in response.iter_content(2**18):
                        file.write(piece)
                        progress.update(task, completed=file.tell())
                        if file.tell() > size:
                            raise ValueError(f"{url}: wrong size, more than {size:,} bytes")
                return
            except OSError as error:
                if file.tell() <= start or attempt == ATTEMPTS:
                    raise ConnectionError(_reason(error)) from error


@contextmanager
def _open(url: str, start: int) -> Iterator[requests.Response]:
    """The answer to a request for `url` from byte `start` on; TimeoutError after PATIENCE seconds.

    It is asked for in a thread, since looking a name up has no time limit, and each of a name's addresses has its own.
    The connection is closed at the end, and as soon as an answer comes that nobody waits for any more.
    """
    client = session()
    answer: Future[requests.Response] = Future()
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})

    def ask() -> None:
        try:
            answer.set_result(client.get(url, headers=headers, stream=True, timeout=PATIENCE))
        except Exception as error:
            answer.set_exception(error)

    def close(answer: Future[requests.Response]) -> None:
        if answer.exception() is None:
            answer.result().close()
        client.close()

    Thread(target=ask, daemon=True).start()
    try:
        response = answer.result(PATIENCE)
        response.raise_for_status()
        yield response
    finally:
        answer.add_done_callback(close)


def _reason(error: OSError) -> str:
    """The innermost cause of a failed request, without the objects that its message is wrapped in."""
    if isinstance(error, TimeoutError | requests.Timeout):
        return f"no answer within {PATIENCE:.0f} s"
    inner = getattr(error.args[0], "reason", error) if error.args else error
    return re.sub(r"^\w+\(host=.*?\): ", "", str(inner)) or type(error).__name__
