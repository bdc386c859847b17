"""The standard streams of a command.

What cannot be written to stderr is lost, and changes nothing else. What cannot be written to stdout
fails the command, unless the reader of a pipe has gone: it has seen enough.
"""

import errno
import io
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO

_IN, _OUT, _ERR = range(3)


class _Stream(io.FileIO):
    """Drops what cannot be written. stdout drops all that follows as well: no hole is in data."""

    error: OSError | None = None

    def write(self, data: Any, /) -> int:
        if self.error is None or self.fileno() == _ERR:
            try:
                written = super().write(data)
            except OSError as wrong:
                self.error = wrong
            else:
                return len(data) if written is None else written
        return len(data)


@contextmanager
def own_streams() -> Iterator[Callable[[], str | None]]:
    """Put such streams in the place of the process's own for a while.

    Give a function that flushes stdout and says why data is missing there, if it is. Streams that a
    caller has replaced already stay.
    """
    before = sys.stdout, sys.stderr
    _occupy()
    data = _Stream(_OUT, "w", closefd=False)
    if sys.stderr is sys.__stderr__:
        sys.stderr = _text(_Stream(_ERR, "w", closefd=False), sys.stderr, "backslashreplace")
    if sys.stdout is sys.__stdout__:
        sys.stdout = _text(data, sys.stdout, "surrogateescape")

    def missing() -> str | None:
        sys.stdout.flush()
        if data.error is None or isinstance(data.error, BrokenPipeError):
            return None
        return "it is closed" if data.error.errno == errno.EBADF else data.error.strerror

    try:
        yield missing
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        sys.stdout, sys.stderr = before


def _occupy() -> None:
    """Open the null device, for reading only, where a standard stream is closed: else the next file
    that is opened gets its number, and what is written to the stream."""
    for number in (_IN, _OUT, _ERR):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDONLY)  # the lowest number that is free: this one


def _text(raw: io.FileIO, like: TextIO | None, errors: str) -> TextIO:
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=like.encoding if like is not None else "utf-8",
        errors=errors,
        line_buffering=raw.isatty() or raw.fileno() == _ERR,
    )
