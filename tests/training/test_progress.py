import io
import os
import re
import struct
import subprocess
import sys
from types import SimpleNamespace

import pytest
from rich.console import Console

from minicnn.training.progress import Progress, waiting

pty = pytest.importorskip("pty", reason="pseudo-terminals exist on POSIX systems only")
fcntl, termios = pytest.importorskip("fcntl"), pytest.importorskip("termios")

ROW = {
    "epoch": 2,
    "train_loss": 2.302585,
    "train_accuracy": 0.12346,
    "validation_loss": 12.30251,
    "validation_accuracy": 0.61234,
    "learning_rate": 0.05,
    "seconds": 3.5,
    "images_per_second": 12345.6,
}
LINE = "epoch  2/10  train 2.3026 12.35%  val 12.303 61.23%  lr 0.05     12,346/s"
SCRIPT = f"""if True:
    import sys, time
    from minicnn.training.progress import Progress, waiting
    with waiting("reading 3 pictures"):
        pass
    with Progress(10, 4) as progress:
        progress.note("kernels [compile]")
        time.sleep(float(sys.argv[1]))
        for step in range(1, 5):
            progress.step(2, step, 1.25, 0.5, 1234.5)
            time.sleep(float(sys.argv[1]))
        progress.epoch({ROW!r})
        print("said by a callback")
        progress.epoch({ROW!r}, best=True)
    print("done", file=sys.stderr)
"""


def on_terminal(pause=0.0, during=None, **environment):
    """What the script writes to a terminal of 120 columns; ``during(terminal, written)`` is called after each piece."""
    ours, theirs = pty.openpty()
    variables = {key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "FORCE_COLOR", "COLUMNS")}
    variables |= {"TERM": "xterm-256color", "LANG": "C.UTF-8", **environment}
    resize(ours, 120)
    command = [sys.executable, "-c", SCRIPT, str(pause)]
    child = subprocess.Popen(command, stdout=theirs, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, env=variables)
    os.close(theirs)
    written = b""
    while True:
        try:
            written += os.read(ours, 65536)
        except OSError:  # the other end is closed
            break
        if during is not None:
            during(ours, written.decode(errors="ignore"))
    _, errors = child.communicate(timeout=600)
    os.close(ours)
    assert child.returncode == 0 and errors.strip() == b"done", errors
    return written.decode()


def resize(terminal, columns):
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))


def screen(written):
    """The lines that stay when a terminal has shown this: each control sequence that is used, done by hand."""
    lines, row, column = [""], 0, 0
    for piece in re.findall(r"\x1b\[[?\d;]*[A-Za-z]|[\r\n]|[^\x1b\r\n]+", written):
        if piece == "\r":
            column = 0
        elif piece == "\n":
            row += 1
            lines += [""] * (row == len(lines))
        elif piece == "\x1b[J":
            lines[row:] = [lines[row][:column]]
        elif piece == "\x1b[2K":
            lines[row] = ""
        elif piece == "\x1b[1A":
            row -= 1
        elif piece[0] != "\x1b":
            lines[row] = lines[row][:column].ljust(column) + piece + lines[row][column + len(piece) :]
            column += len(piece)
        else:
            assert piece[-1] in "mhl", piece  # colours; the cursor is shown or hidden
    return [line.rstrip() for line in lines[: row + 1]]


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


def test_a_terminal_shows_a_live_bar_and_keeps_the_lines():
    written = on_terminal(0.3)
    for part in ("reading 3 pictures", "epoch  1/10", "kernels compile", "epoch  2/10", "step 4/4"):
        assert part in written
    for part in ("loss 1.2500", "acc 50.00%", "  1,234 img/s", "ETA "):
        assert part in written
    kept = ["kernels [compile]", LINE, "said by a callback", f"{LINE} best", ""]
    assert screen(written) == kept
    assert written.count("\x1b[?25l") == written.count("\x1b[?25h") == 2  # the cursor is hidden, then back


def test_something_moves_before_the_first_step():
    frames = re.findall("([\u2801-\u28ff]) epoch  1/10", on_terminal(0.5))
    assert len(set(frames)) > 1


def test_the_bar_has_one_width_and_fits():
    for columns in (40, 60, 80, 100, 130):
        bar = Progress(100, 390, io.StringIO())
        bar._display = None  # as on a terminal
        widths = set()
        for step, loss, rate in ((1, 2.3, 950.0), (10, 0.0123, 12345.6), (390, 12.5, 132305.0)):
            bar.step(9, step, loss, 0.061 * step / 39, rate)
            page = io.StringIO()
            Console(file=page, width=columns, color_system=None).print(bar)
            (line,) = page.getvalue().splitlines()
            widths.add((len(line.rstrip()), line.find("acc")))
        assert len(widths) == 1 and max(widths)[0] <= columns, (columns, widths)
        assert ("img/s" in line) == (columns >= 80) and ("step" in line) == (columns >= 100)


def test_a_line_of_an_epoch_has_at_most_80_columns():
    stream = io.StringIO()
    row = ROW | {"epoch": 100, "train_accuracy": 1.0, "learning_rate": 0.0000123, "images_per_second": 98765.4}
    with Progress(100, 4, stream) as progress:
        progress.epoch(row, best=True)
    line = "epoch 100/100  train 2.3026 100.0%  val 12.303 61.23%  lr 1.2e-05  98,765/s best\n"
    assert stream.getvalue() == line and len(line.rstrip("\n")) == 80


def test_an_early_stop_is_said():
    stream = io.StringIO()
    with Progress(9, 4, stream) as progress:
        progress.stopped_early(7, 2)
    assert stream.getvalue() == "stopped early: none of the last 5 epochs was better than epoch 2\n"


def test_an_epoch_says_what_there_is():
    stream = io.StringIO()
    with Progress(1, 4, stream) as progress:
        progress.epoch({"epoch": 1, "train_loss": 0.5, "learning_rate": 0.1})
    assert stream.getvalue() == "epoch 1/1  train 0.5000  lr 0.1\n"


def test_a_window_made_narrower_and_wider_leaves_no_ghosts():
    """The cursor waits at the beginning of the bar, also in a terminal that breaks lines; from there all is cleared."""
    widths = iter([60, 140, 100])

    def during(terminal, written):
        if written.count("step ") % 3 == 1:
            resize(terminal, next(widths, 100))

    written = on_terminal(0.3, during)
    assert screen(written) == ["kernels [compile]", LINE, "said by a callback", f"{LINE} best", ""]
    bars = re.findall(r"\r\x1b\[2K \x1b\[J\r[^\r\n]*epoch[^\r\n]*\r", written)
    assert len(bars) > 5  # each begins with the clearing and ends at its beginning


def test_waiting_says_nothing_elsewhere(capsys):
    with waiting("reading \x1b[1m"):
        pass
    assert capsys.readouterr().out == ""


class Shell:
    """A stand-in for the kernel of a notebook: what its displays have shown, one after another."""

    def __init__(self):
        self.kernel, self.shown = object(), []

    def display(self, content, raw, display_id):
        assert raw and display_id
        self.update(content, raw=True)
        return self

    def update(self, content, raw):
        self.shown.append(content["text/plain"])


def test_a_notebook_has_one_output_that_moves(monkeypatch, capsys):
    shell = Shell()
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    monkeypatch.setitem(sys.modules, "IPython.display", SimpleNamespace(display=shell.display))
    with waiting("reading 3 pictures"):
        pass
    assert [words[2:] for words in shell.shown] == ["reading 3 pictures", ""]
    shell.shown.clear()
    with Progress(10, 4) as progress:
        progress.step(2, 3, 1.25, 0.5, 1234.5)
        progress.epoch(ROW)
    begun, moved, gone = shell.shown
    assert "kernels compile" in begun and "step 3/4" in moved and gone == ""
    assert capsys.readouterr().out == LINE + "\n"


def test_no_color_leaves_no_colour():
    colour = re.compile(r"\x1b\[[0-9;]*m")
    assert colour.search(on_terminal())
    written = on_terminal(NO_COLOR="1")
    assert f"{LINE} best" in written and not colour.search(written)


def test_a_dumb_terminal_gets_plain_lines():
    assert on_terminal(TERM="dumb").replace("\r\n", "\n") == "\n".join(
        ["kernels [compile]", LINE, "said by a callback", f"{LINE} best", ""]
    )


def test_the_time_left_is_that_of_the_whole_run(monkeypatch):
    clock = iter([100.0, 110.0])
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    progress = Progress(10, 100, io.StringIO())
    assert progress._left(6, 1) == "-:--:--"  # resumed: 501 of 1000 steps, of which this process did none yet
    assert progress._left(6, 51) == "0:01:30"  # 50 steps took 10 s, 449 are left: 89.8 s


def test_an_error_inside_passes_through_and_restores_the_terminal():
    with pytest.raises(ZeroDivisionError), Progress(1, 1, io.StringIO()):
        raise ZeroDivisionError
