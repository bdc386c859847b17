"""A run of the program, and how it dies.

A run that is killed is not ended by force: from that moment the disk refuses all its changes and no
request leaves, so the run ends by itself. SQLite does not write through `os`, so its files are put
back to what they were at that moment.
"""

import errno
import os
from contextvars import Context, ContextVar, copy_context
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Death:
    """When a run dies: before the `at`-th change of the disk, counted from 1 (0: never), or from
    the `page`-th write of rows on.

    `torn`: half of that change is made, where it can be halved. `power`: what was not synced may
    be lost, and every other run dies as well.
    """

    at: int = 0
    page: int = 0
    torn: bool = False
    power: bool = False


@dataclass(eq=False)
class Process:
    """A run of the program. `points` counts its changes of the disk, `pages` its writes of rows,
    `kept` is what its SQLite files were when it died (None: there was no such file)."""

    death: Death = field(default_factory=Death)
    points: int = 0
    pages: int = 0
    dead: bool = False
    databases: dict[Path, Any] = field(default_factory=dict)
    kept: dict[Path, bytes | None] = field(default_factory=dict)

    def context(self) -> Context:
        """A context in which this process runs."""
        context = copy_context()
        context.run(RUNNING.set, self)
        return context

    def die(self) -> None:
        """From here on it changes nothing."""
        self.dead = True
        files = [file for each in self.databases.values() for file in (each.path, each.log)]
        self.kept = {file: content(file) for file in files}


RUNNING: ContextVar[Process | None] = ContextVar("RUNNING", default=None)
"""The process that is running; None while nothing of the program is."""


def running() -> Process:
    """The process that is running."""
    process = RUNNING.get()
    assert process is not None
    return process


def refused() -> OSError:
    """What the disk says to a process that is dead."""
    return OSError(errno.EIO, os.strerror(errno.EIO))


def content(path: Any) -> bytes | None:
    """The bytes of a regular file; None if there is none."""
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - `path` is whatever a call was given
            return file.read()
    except (FileNotFoundError, IsADirectoryError):
        return None
