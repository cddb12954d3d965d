import errno
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from minicnn import files


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("content, stored", [(b"\0\xff", b"\0\xff"), ("größe,1\n", b"gr\xc3\xb6\xc3\x9fe,1\n")])
def test_atomic_write_creates_and_replaces(tmp_path, content, stored):
    path = tmp_path / "ein name.csv"
    for before in (None, b"old"):
        if before is not None:
            path.write_bytes(before)
        files.atomic_write(path, content)
        assert path.read_bytes() == stored
    assert names(tmp_path) == ["ein name.csv"]
    umask = os.umask(0)
    os.umask(umask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask


def test_a_full_disk_is_loud_and_keeps_the_old_file(tmp_path):
    """A limit on the size of files stands in for the full disk: the write fails half way, in the kernel."""
    path = tmp_path / "history.csv"
    path.write_bytes(b"old")
    script = (
        "import resource, sys; from minicnn.files import atomic_write\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try: atomic_write(sys.argv[1], bytes(100_000))\n"
        "except OSError as error: print(error, error.errno, sep='|')"
    )
    output = subprocess.run([sys.executable, "-c", script, path], capture_output=True, text=True, check=True).stdout
    message, number = output.strip().split("|")
    assert int(number) == errno.EFBIG
    assert str(path) in message and "free some space" in message and "\n" not in message
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["history.csv"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no pipes with a name")
def test_a_pipe_or_device_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="it is a device or a pipe"):
        files.atomic_write(tmp_path / "pipe", "new")
    assert (tmp_path / "pipe").is_fifo() and names(tmp_path) == ["pipe"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_any_failure_removes_the_temporary_file(tmp_path, monkeypatch, call, error):
    def fail(*arguments):
        raise error

    (tmp_path / "a.json").write_text("old")
    monkeypatch.setattr(os if call == "fsync" else Path, call, fail)
    with pytest.raises(type(error)):
        files.atomic_write(tmp_path / "a.json", "new")
    assert names(tmp_path) == ["a.json"]
    assert (tmp_path / "a.json").read_text() == "old"


def test_a_missing_folder_and_a_folder_in_the_way_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="cannot write .*nowhere.*check the path"):
        files.atomic_write(tmp_path / "nowhere" / "a.json", "{}")
    (tmp_path / "a.json").mkdir()
    with pytest.raises(IsADirectoryError, match="cannot write"):
        files.atomic_write(tmp_path / "a.json", "{}")
    assert names(tmp_path) == ["a.json"]


def test_check_writable_makes_the_folder_and_leaves_nothing(tmp_path):
    files.check_writable(tmp_path / "a" / "b")
    assert names(tmp_path / "a" / "b") == []
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="cannot write into the folder .*; "):
        files.check_writable(tmp_path / "file" / "run")


def test_a_failed_check_writable_leaves_nothing(tmp_path, monkeypatch):
    def full(path, content):
        path.touch()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="cannot write into the folder .*; free some space"):
        files.check_writable(tmp_path)
    assert names(tmp_path) == []


def test_check_writable_refuses_a_read_only_folder(tmp_path, monkeypatch):
    folder = tmp_path / "read only"
    folder.mkdir(mode=0o555)
    if os.geteuid() == 0:  # no permission stops root, so the system's answer is played
        refusal = PermissionError(errno.EACCES, "Permission denied")
        monkeypatch.setattr(Path, "write_bytes", lambda *arguments: (_ for _ in ()).throw(refusal))
    with pytest.raises(PermissionError, match="read only: Permission denied; choose a folder that you may write to"):
        files.check_writable(folder)


def test_run_folders_of_the_same_second_are_unique(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        folders = list(pool.map(lambda _: files.new_run_folder(tmp_path / "runs", "lenet-120000"), range(40)))
    assert len(set(folders)) == 40
    expected = {"lenet-120000"} | {f"lenet-120000-{number}" for number in range(2, 41)}
    assert set(names(tmp_path / "runs")) == expected


@pytest.mark.parametrize("name", ["", "..", "a/b", "/a"])
def test_a_run_name_is_one_folder(tmp_path, name):
    with pytest.raises(ValueError, match="one folder"):
        files.new_run_folder(tmp_path, name)
    assert names(tmp_path) == []


def test_new_run_folder_names_a_root_that_is_a_file(tmp_path):
    (tmp_path / "runs").write_text("")
    with pytest.raises(OSError, match="cannot make a run folder in .*runs"):
        files.new_run_folder(tmp_path / "runs", "lenet")


def test_a_busy_folder_is_refused_and_a_killed_run_frees_it(tmp_path):
    script = (
        "import sys, time; from minicnn.files import lock_run_folder\n"
        "with lock_run_folder(sys.argv[1]): print('held', flush=True); time.sleep(600)"
    )
    holder = subprocess.Popen([sys.executable, "-c", script, tmp_path], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(BlockingIOError, match="in use by another run"), files.lock_run_folder(tmp_path):
            pass
    finally:
        os.kill(holder.pid, signal.SIGKILL)
        holder.communicate()
    with files.lock_run_folder(tmp_path):
        pass


def test_the_lock_is_exclusive_within_a_process_and_released(tmp_path):
    for _ in range(2):
        with files.lock_run_folder(tmp_path), pytest.raises(BlockingIOError), files.lock_run_folder(tmp_path):
            pass
    with pytest.raises(RuntimeError), files.lock_run_folder(tmp_path):
        raise RuntimeError
    with files.lock_run_folder(tmp_path):
        pass


def test_locking_clears_the_leftovers_of_a_killed_run(tmp_path):
    child = os.fork()
    if child == 0:
        while True:
            files.atomic_write(tmp_path / "big.bin", bytes(4_000_000))
    deadline = time.monotonic() + 300
    while not (leftovers := list(tmp_path.glob(".minicnn-*.tmp"))) and time.monotonic() < deadline:
        pass
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert leftovers or time.monotonic() < deadline
    (tmp_path / ".minicnn-0123456789abcdef.tmp").write_bytes(b"half")
    (tmp_path / "keep.tmp").write_bytes(b"mine")
    with files.lock_run_folder(tmp_path):
        assert {"keep.tmp", ".lock"} <= set(names(tmp_path)) <= {"keep.tmp", ".lock", "big.bin"}
