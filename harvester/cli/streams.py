"""The standard streams of a command: data that must arrive, and talk that may not.

What cannot be said on stderr is lost, and nothing else changes for it. What cannot be written to
stdout fails the command, unless the reader of a pipe has gone: it has seen enough.
"""

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

from harvester.cli.failures import CommandFailed

_IN, _OUT, _ERR = range(3)


class _Talk(io.FileIO):
    """Takes whatever is written, whether or not anybody gets it."""

    def write(self, data: Any, /) -> int:
        try:
            written = super().write(data)
        except OSError:
            written = None
        return len(data) if written is None else written


class _Data(io.FileIO):
    """Fails once if it cannot be written, and takes nothing more after that."""

    problem: str | None = None
    over = False

    def write(self, data: Any, /) -> int:
        if self.over:
            return len(data)
        if self.problem is None:
            try:
                return super().write(data)
            except BrokenPipeError:
                self.over = True
                return len(data)
            except OSError as wrong:
                self.problem = wrong.strerror
        self.over = True
        raise CommandFailed(f"cannot write to standard output: {self.problem}")


@contextmanager
def own_streams() -> Iterator[None]:
    """Put streams that behave like that in the place of the process's own for a while.

    Streams that somebody else has put there already are left alone.
    """
    before = sys.stdout, sys.stderr
    _occupy()
    if sys.stderr is sys.__stderr__:
        sys.stderr = _text(_Talk(_ERR, "w", closefd=False), sys.stderr, "backslashreplace")
    if sys.stdout is sys.__stdout__:
        data = _Data(_OUT, "w", closefd=False)
        data.problem = "it is closed" if sys.stdout is None else None
        sys.stdout = _text(data, sys.stdout, "strict")
    try:
        yield
    finally:
        with suppress(CommandFailed):  # then it has failed for another reason already
            sys.stdout.flush()
        sys.stderr.flush()
        sys.stdout, sys.stderr = before


def _occupy() -> None:
    """Open the null device where a standard stream is closed: else the next file that is opened
    gets its number, and what is meant for the stream."""
    for number in (_IN, _OUT, _ERR):
        try:
            os.fstat(number)
        except OSError:
            null = os.open(os.devnull, os.O_RDWR)
            if null != number:
                os.dup2(null, number)
                os.close(null)


def _text(raw: io.FileIO, like: TextIO | None, errors: str) -> TextIO:
    """A text stream over the raw one, encoded like the one that was there."""
    encoding = like.encoding if like is not None else "utf-8"
    errors = (like.errors if like is not None else None) or errors
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=encoding,
        errors=errors,
        line_buffering=raw.isatty() or isinstance(raw, _Talk),
    )
