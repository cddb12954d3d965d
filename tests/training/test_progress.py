import io
import os
import re
import subprocess
import sys

import pytest

from minicnn.training.progress import Progress

pty = pytest.importorskip("pty", reason="pseudo-terminals exist on POSIX systems only")

ROW = {
    "epoch": 2,
    "train_loss": 2.302585,
    "validation_accuracy": 0.61234,
    "learning_rate": 0.05,
    "images_per_second": 12345.6,
}
LINE = "epoch  2/10  train loss 2.3026  val acc 61.23%  lr 0.05  img/s 12,346"
SCRIPT = f"""if True:
    import sys
    from minicnn.training.progress import Progress
    with Progress(10, 4) as progress:
        progress.note("kernels [compile]")
        for _ in range(int(sys.argv[1])):
            for step in range(1, 5):
                progress.step(2, step, 1.25, 0.5, 1234.5)
            progress.epoch({ROW!r})
    print("done", file=sys.stderr)
"""


def on_terminal(**environment):
    """What the script writes to a terminal of 120 columns."""
    ours, theirs = pty.openpty()
    variables = {key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "FORCE_COLOR")}
    variables |= {"TERM": "xterm-256color", "COLUMNS": "120", "LANG": "C.UTF-8", **environment}
    command = [sys.executable, "-c", SCRIPT, "1"]
    child = subprocess.Popen(command, stdout=theirs, stderr=subprocess.PIPE, env=variables)
    os.close(theirs)
    written = b""
    while True:
        try:
            written += os.read(ours, 65536)
        except OSError:  # the other end is closed
            break
    _, errors = child.communicate(timeout=600)
    os.close(ours)
    assert child.returncode == 0 and errors.strip() == b"done", errors
    return written.decode()


def test_off_a_terminal_there_is_one_plain_line_an_epoch():
    stream = io.StringIO()
    with Progress(10, 4, stream) as progress:
        for step in range(1, 5):
            progress.step(2, step, 1.25, 0.5, 1234.5)
        progress.epoch(ROW)
    assert stream.getvalue() == LINE + "\n"


def test_standard_output_is_the_default(capsys):
    with Progress(10, 4) as progress:
        progress.epoch(ROW)
    assert capsys.readouterr().out == LINE + "\n"


def test_a_terminal_shows_a_live_bar_and_keeps_the_line():
    written = on_terminal()
    assert "\x1b[" in written and LINE in written and "kernels [compile]" in written
    for part in ("epoch 2/10", "step 4/4", "loss 1.2500", "acc 50.0%", "1,234 img/s", "ETA "):
        assert part in written
    assert written.count("\x1b[?25l") == written.count("\x1b[?25h") == 1  # the cursor is hidden, then back


def test_no_color_leaves_no_colour():
    colour = re.compile(r"\x1b\[[0-9;]*m")
    assert colour.search(on_terminal())
    written = on_terminal(NO_COLOR="1")
    assert LINE in written and not colour.search(written)


def test_a_dumb_terminal_gets_plain_lines():
    assert on_terminal(TERM="dumb").replace("\r\n", "\n") == f"kernels [compile]\n{LINE}\n"


def test_the_time_left_is_that_of_the_whole_run(monkeypatch):
    clock = iter([100.0, 110.0])
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    progress = Progress(10, 100, io.StringIO())
    assert progress._left(6, 1) == "-:--:--"  # resumed: 501 of 1000 steps, of which this process did none yet
    assert progress._left(6, 51) == "0:01:30"  # 50 steps took 10 s, 449 are left: 89.8 s


def test_an_error_inside_passes_through_and_restores_the_terminal():
    with pytest.raises(ZeroDivisionError), Progress(1, 1, io.StringIO()):
        raise ZeroDivisionError
