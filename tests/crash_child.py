"""A process that runs `harvester` over and over, each time in a fork that can be made to die.

It imports the program once and then reads orders, one JSON object a line, from standard input: for
each it forks, answers with the pid, waits for a line (so that a tracer can attach), lets the fork
run the command line, and answers with how it ended. A fork costs a hundredth of a new interpreter,
which is what makes it possible to kill a harvest at every single point.

What an order may hold is in `Order`. The file is a program: `python tests/crash_child.py`.
"""

import ctypes
import gc
import itertools
import json
import os
import resource
import signal
import sqlite3
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import anyio._backends._asyncio  # noqa: F401  (or every fork would import it)

import harvester.cli
import harvester.cli.look
import harvester.cli.plan
import harvester.cli.run
import harvester.request.quota
from harvester.config import HarvestConfig

CHANGES = (
    "write",
    "pwrite",
    "fsync",
    "fdatasync",
    "ftruncate",
    "rename",
    "replace",
    "link",
    "unlink",
    "mkdir",
)
_PR_SET_PTRACER = 0x59616D61


@dataclass
class Order:
    """One run of the command line, and what is to happen to it."""

    argv: list[str]
    stdin: str = os.devnull
    stdout: str = os.devnull
    stderr: str = os.devnull
    cwd: str | None = None
    env: dict[str, str] | None = None
    durable: bool = False
    """Sync each commit and each charge, as at the pace of the real API, whatever the pace is."""
    kill_at: int = 0
    """Die before this call that changes the disk, counted from 1; a write can also be torn."""
    kill_after: float = 0.0
    """Die after so many seconds, wherever that is."""
    fail_at: int = 0
    """From this call on (of those in `failing`), answer with `errno`."""
    failing: list[str] = field(default_factory=list)
    errno: int = 0
    heals: bool = False
    """Only that one call fails."""
    halves: bool = False
    """A write that fails has written half of what it was given."""
    at_most: int = 0
    """The longest single write."""
    file_size: int = -1
    """The longest file the system allows."""
    file_size_kills: bool = False
    """Whether to pass it is death (in the middle of a write), or an error."""
    trace: str | None = None
    """A file that gets a line for each call that changes the disk."""


class Disk:
    """Counts the calls that change the disk, and has them fail as ordered.

    `os` is patched, so it sees what the program does; SQLite's own calls show as one point for
    each statement that writes. A tracer sees those one by one.
    """

    def __init__(self, order: Order) -> None:
        self._order = order
        self._points = itertools.count(1)  # atomic: threads sync side by side
        self._failing = itertools.count(1)
        self._trace = os.open(order.trace, os.O_WRONLY | os.O_CREAT) if order.trace else None
        self._write = os.write

    def install(self) -> None:
        """Put the counting calls in the place of the real ones."""
        for name in CHANGES:
            real = getattr(os, name)
            wrapped = self._writing if name in {"write", "pwrite"} else self._changing
            setattr(os, name, partial(wrapped, name, real))
        connect, disk = sqlite3.connect, self

        class Connection(sqlite3.Connection):
            def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
                if not sql.lstrip().startswith(("SELECT", "PRAGMA synchronous", "BEGIN")):
                    disk.point("sqlite", *sql.split()[:1])
                return super().execute(sql, *values)

        def opened(database: Any, *args: Any, **named: Any) -> sqlite3.Connection:
            if not str(database):  # a private temporary table: no state
                return connect(database, *args, **named)
            return connect(database, *args, factory=Connection, **named)

        sqlite3.connect = opened  # type: ignore[assignment]

    def point(self, name: str, *what: object) -> None:
        """One point at which to die."""
        point = next(self._points)
        if point == self._order.kill_at:
            die()
        if self._trace is not None:
            self._write(self._trace, f"{point} {name} {_named(what)}\n".encode())

    def _fails(self, name: str) -> None:
        order = self._order
        if name in order.failing:
            number = next(self._failing)
            if number == order.fail_at or (number > order.fail_at > 0 and not order.heals):
                raise OSError(order.errno, os.strerror(order.errno))

    def _changing(self, name: str, real: Callable[..., Any], *args: Any, **named: Any) -> Any:
        self.point(name, *args[:2])
        self._fails(name)
        return real(*args, **named)

    def _writing(self, name: str, real: Callable[..., int], file: int, data: Any, *at: int) -> int:
        self.point(name, file)
        try:
            self._fails(name)
        except OSError:
            if self._order.halves:
                real(file, data[: len(data) // 2], *at)
            raise
        # The kernel may have taken only a part of it.
        if len(data) > 1 and next(self._points) == self._order.kill_at:
            real(file, data[: len(data) // 2], *at)
            die()
        return real(file, data[: self._order.at_most or None], *at)


def _named(what: tuple[object, ...]) -> str:
    names = []
    for each in what:
        try:
            names.append(str(Path(f"/proc/self/fd/{each}").readlink().name))
        except OSError:
            names.append(Path(str(each)).name)
    return " ".join(names)


def die() -> None:
    """As nothing can be done about."""
    os.kill(os.getpid(), signal.SIGKILL)


def perform(order: Order) -> int:
    """What the fork does; its exit code."""
    for number, path in enumerate((order.stdin, order.stdout, order.stderr)):
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(file, number)
        os.close(file)
    if order.cwd is not None:
        os.chdir(order.cwd)
    if order.env is not None:
        os.environ.clear()
        os.environ.update(order.env)
    if order.durable:
        assert harvester.request.quota._SYNC_EVERY > 0
        harvester.request.quota._SYNC_EVERY = 0.0
        assert isinstance(HarvestConfig.durable, property)
        HarvestConfig.durable = property(lambda self: True)  # type: ignore[assignment]
    if order.file_size >= 0:
        if order.file_size_kills:
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_FSIZE, (order.file_size, resource.RLIM_INFINITY))
    if order.kill_at or order.failing or order.at_most or order.trace:
        Disk(order).install()
    if order.kill_after:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)  # ends the process like SIGKILL, on time
        signal.setitimer(signal.ITIMER_REAL, order.kill_after)
    sys.argv = ["harvester", *order.argv]
    return harvester.cli.main(order.argv)


def serve() -> None:
    """Take orders until there are no more."""
    libc = ctypes.CDLL(None)
    gc.collect()
    gc.freeze()
    for line in sys.stdin:
        order = Order(**json.loads(line))
        gate, go = os.pipe()
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                os.close(go)
                if sys.platform == "linux":  # the tests' strace may trace us
                    libc.prctl(_PR_SET_PTRACER, ctypes.c_ulong(-1), 0, 0, 0)
                os.read(gate, 1)
                os.close(gate)
                code = perform(order)
                sys.stdout.flush()
                sys.stderr.flush()
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        os.close(gate)
        _answer(pid)
        sys.stdin.readline()
        os.close(go)
        _, status = os.waitpid(pid, 0)
        _answer(os.waitstatus_to_exitcode(status))


def _answer(number: int) -> None:
    print(number, flush=True)


if __name__ == "__main__":
    serve()
