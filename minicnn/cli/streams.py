"""Standard streams that cannot end the work: what can no longer be written is dropped, and remembered."""

import io
import os
import sys


class _Lenient(io.FileIO):
    """A file to write into; ``lost`` is the first error, after which nothing is written."""

    lost: OSError | None = None

    def write(self, data: "bytes | memoryview") -> int | None:  # type: ignore[override]
        """Write, or drop."""
        if self.lost is None:
            try:
                return super().write(data)
            except OSError as error:
                self.lost = error
        return len(data)


def protect() -> None:
    """Let stdout and stderr of this process survive a reader that leaves, a full disk, and being closed from the start.

    What cannot be encoded is printed escaped: that alone holds for streams that were replaced, as by a test.
    """
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        stream = getattr(sys, name)
        if stream is not getattr(sys, f"__{name}__"):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")
            continue
        closed = stream is None
        if closed:  # taken, or the next file to be opened would be written into by every print
            os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
        raw = _Lenient(descriptor, "w", closefd=False)
        if closed:
            raw.lost = OSError(None, "it is closed")
        line_buffering = name == "stderr" or raw.isatty()
        encoding = None if closed else stream.encoding
        buffer = io.BufferedWriter(raw)  # type: ignore[type-var]
        setattr(sys, name, io.TextIOWrapper(buffer, encoding, "backslashreplace", line_buffering=line_buffering))


def lost() -> OSError | None:
    """Return why something that was written to stdout is lost, None if all of it arrived."""
    sys.stdout.flush()
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    return raw.lost if isinstance(raw, _Lenient) else None
