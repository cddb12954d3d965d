"""Downloads from a server on this machine that misbehaves on demand."""

import re
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread

import numpy as np
import pytest
import requests

from minicnn.data import download

CONTENT = np.random.default_rng(0).bytes(3_000_000)
SHA256 = sha256(CONTENT).hexdigest()
SESSION = download.session


class Server(ThreadingHTTPServer):
    """Serves CONTENT; `plan` holds one behaviour per request, then it behaves."""

    daemon_threads = False  # its end waits for what it still serves, so that no socket outlives its test

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.plan, self.ranges, self.go = [], [], Event()
        self.url = f"http://127.0.0.1:{self.server_address[1]}/file"

    def handle_error(self, request, client_address):
        if not isinstance(sys.exception(), ConnectionError):  # raised where the client leaves early, as it may
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        wish = self.headers.get("Range")
        self.server.ranges.append(wish)
        behaviour = self.server.plan.pop(0) if self.server.plan else "good"
        start = int(re.fullmatch(r"bytes=(\d+)-", wish)[1]) if wish and behaviour != "no range" else 0
        body = {"altered": CONTENT[:-1] + b"\0", "long": CONTENT * 3, "page": b"<html>"}.get(behaviour, CONTENT)[start:]
        if behaviour == "silent":
            self.server.go.wait(600)
        self.send_response(503 if behaviour == "busy" else 206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if behaviour == "break":
            body = body[:1_000_000]
        if behaviour == "slow":
            self.wfile.write(body[:1_000_000])
            self.server.go.wait(600)
            body = body[1_000_000:]
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "*")


@pytest.fixture
def server(monkeypatch):
    """The server of a test, for which plain HTTP is allowed."""
    monkeypatch.setattr(download, "session", requests.Session)
    with Server() as result:
        Thread(target=result.serve_forever, args=(0.02,), daemon=True).start()
        yield result
        result.go.set()
        result.shutdown()


def fetch(server, path):
    download.fetch(server.url, path, size=len(CONTENT), sha256=SHA256)


def visible(folder):
    return [path.name for path in folder.iterdir() if not path.name.endswith(".lock")]


def test_the_file_arrives_and_is_not_asked_for_again(server, tmp_path, capfd):
    path = tmp_path / "new" / "file"
    fetch(server, path)
    fetch(server, path)
    assert path.read_bytes() == CONTENT and visible(path.parent) == ["file"] and len(server.ranges) == 1
    out, err = capfd.readouterr()
    assert out == "" and err == f"Downloading {server.url} (3 MiB)\n"  # no bar off a terminal


@pytest.mark.parametrize(
    "behaviour, message",
    [("altered", "wrong SHA-256"), ("long", "wrong size, more than 3,000,000"), ("page", "wrong size, 6 bytes")],
)
def test_what_is_not_the_file_is_removed_and_the_next_run_succeeds(server, tmp_path, behaviour, message):
    server.plan = [behaviour]
    with pytest.raises(ValueError, match=message):
        fetch(server, tmp_path / "file")
    assert visible(tmp_path) == []
    fetch(server, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_a_broken_transfer_goes_on_where_it_stopped(server, tmp_path):
    server.plan = ["break", "break"]
    fetch(server, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT
    first, *starts = [int(re.sub(r"\D", "", wish or "0")) for wish in server.ranges]
    assert first == 0 and 0 < starts[0] <= 1_000_000 and starts[0] < starts[1] <= 2_000_000


def test_a_server_without_ranges_sends_it_again(server, tmp_path):
    server.plan = ["break", "no range"]
    fetch(server, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_a_server_that_is_busy_is_an_error(server, tmp_path):
    server.plan = ["busy"]
    with pytest.raises(ConnectionError, match="503 Server Error"):
        fetch(server, tmp_path / "file")


def test_a_silent_server_is_given_up(server, tmp_path, monkeypatch):
    assert download.PATIENCE < 10
    monkeypatch.setattr(download, "PATIENCE", 0.3)
    server.plan = ["silent"]
    with pytest.raises(ConnectionError, match="no answer within"):  # which is said before the server goes on
        fetch(server, tmp_path / "file")
    assert not server.go.is_set() and visible(tmp_path) == []


def watched(monkeypatch, then=lambda: None):
    """The answers that downloads get from now on; `then` is called after each, before the download has it."""
    answers = []

    class Session(requests.Session):
        def get(self, *args, **kwargs):
            answers.append(super().get(*args, **kwargs | {"timeout": 600}))
            then()
            return answers[-1]

    monkeypatch.setattr(download, "session", Session)
    return answers


@pytest.mark.parametrize("behaviour", ["busy", "long", "good"])
def test_a_connection_is_closed_with_its_download(server, tmp_path, monkeypatch, behaviour):
    answers = watched(monkeypatch)
    server.plan = [behaviour]
    with nullcontext() if behaviour == "good" else pytest.raises((ConnectionError, ValueError)):
        fetch(server, tmp_path / "file")
    assert [answer.raw.closed for answer in answers] == [True]


def test_an_answer_that_comes_too_late_is_closed(server, tmp_path, monkeypatch):
    given_up = Event()
    answers = watched(monkeypatch, then=given_up.wait)
    monkeypatch.setattr(download, "PATIENCE", 0.3)
    with pytest.raises(ConnectionError, match="no answer within"):
        fetch(server, tmp_path / "file")
    given_up.set()
    wait_until(lambda: answers and answers[0].raw.closed)


def test_a_name_that_is_looked_up_forever_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(download, "PATIENCE", 0.3)
    answered = Event()
    monkeypatch.setattr("socket.getaddrinfo", lambda *args, **kwargs: answered.wait(600))
    with pytest.raises(ConnectionError, match="no answer within"):
        download.fetch("https://example.invalid/file", tmp_path / "file", size=1, sha256="")
    answered.set()


def test_a_refused_connection_is_told_in_one_short_line(tmp_path):
    with Server() as closed:
        url = closed.url.replace("http:", "https:")
    with pytest.raises(ConnectionError, match="^Failed to establish a new connection: .*refused$"):
        download.fetch(url, tmp_path / "file", size=1, sha256="")


def test_only_https_is_spoken(server, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "session", SESSION)
    with pytest.raises(ConnectionError, match="No connection adapters"):
        fetch(server, tmp_path / "file")
    tls = server.url.replace("http:", "https:")  # a server that cannot speak TLS
    with pytest.raises(ConnectionError, match="(?i)ssl"):
        download.fetch(tls, tmp_path / "file", size=len(CONTENT), sha256=SHA256)
    assert server.ranges == [] and visible(tmp_path) == []


def test_ctrl_c_leaves_nothing(server, tmp_path, monkeypatch):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(download.Progress, "update", interrupt)
        with pytest.raises(KeyboardInterrupt):
            fetch(server, tmp_path / "file")
    assert visible(tmp_path) == []


def process(server, path):
    """Another process that downloads to `path`."""
    code = (
        "import pathlib, requests; from minicnn.data import download; download.session = requests.Session; "
        f"download.fetch({server.url!r}, pathlib.Path({str(path)!r}), size={len(CONTENT)}, sha256={SHA256!r})"
    )
    return subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)


def wait_until(condition):
    deadline = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_killed_download_leaves_no_file_and_the_next_succeeds(server, tmp_path):
    server.plan = ["slow"]
    part = tmp_path / ".file.part"
    killed = process(server, tmp_path / "file")
    wait_until(lambda: part.exists() and part.stat().st_size > 0)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert not (tmp_path / "file").exists()
    fetch(server, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT and visible(tmp_path) == ["file"]


def test_of_two_processes_one_downloads_and_both_succeed(server, tmp_path):
    server.plan = ["slow"]
    both = [process(server, tmp_path / "file") for _ in range(2)]
    wait_until(lambda: server.ranges)
    time.sleep(0.5)  # for the other to arrive at the lock
    server.go.set()
    assert [each.wait(300) for each in both] == [0, 0]
    assert len(server.ranges) == 1 and (tmp_path / "file").read_bytes() == CONTENT
