"""One computer: two clocks and a disk, and the patches that put both into the program."""

import asyncio
import importlib
import os
import pkgutil
import random
import secrets
import sqlite3
import sys
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar

import anyio.to_thread
import pytest
from fakes import VirtualLoop

import harvester
from harvester.runtime import Clock

from .database import connector
from .disk import Disk
from .process import RUNNING

# What the program imports only when it needs it must not be imported under the patches.
for _found in pkgutil.walk_packages(harvester.__path__, "harvester."):
    if not _found.name.endswith("__main__"):
        importlib.import_module(_found.name)

T = TypeVar("T")


@dataclass
class Machine:
    """Time and disk. `boot` is the true time (Unix s) at which the monotonic clock was 0; `skew`
    is by how much the wall clock is ahead of the true time (s)."""

    disk: Disk
    boot: float
    skew: float = 0.0
    boots: int = 0
    _stopped_at: float = 0.0
    _loop: VirtualLoop | None = field(default=None, repr=False)

    def monotonic(self) -> float:
        """Seconds since the boot, but for those of a suspend."""
        return self._stopped_at if self._loop is None else self._loop.time()

    def true_time(self) -> float:
        """What an exact clock shows (Unix s)."""
        return self.boot + self.monotonic()

    def wall(self) -> datetime:
        """What the computer believes."""
        return datetime.fromtimestamp(round(self.true_time() + self.skew, 6), UTC)

    def suspend(self, seconds: float) -> None:
        """Time passes and the monotonic clock stands."""
        self.boot += seconds

    def wait(self, seconds: float) -> None:
        """Time passes and nothing runs."""
        self._stopped_at += max(seconds, 0.0)

    def reboot(self) -> None:
        """The monotonic clock starts anew."""
        self.boot, self._stopped_at = self.true_time() + 30.0, 0.0
        self.boots += 1

    def run(self, main: Callable[[], Awaitable[T]]) -> T:
        """Run `main()` to its end; a wait takes no time."""
        loop = VirtualLoop()
        loop.block(self._stopped_at)

        async def run() -> T:
            self._loop = loop
            return await main()

        try:
            with asyncio.Runner(loop_factory=lambda: loop) as runner:
                return runner.run(run())
        finally:
            self._loop, self._stopped_at = None, loop.time()


@contextmanager
def installed(machine: Machine, seed: int) -> Iterator[pytest.MonkeyPatch]:
    """Put the machine in the place of the real one while the block lasts."""
    disk, chance = machine.disk, random.Random(seed)
    calls = {
        "open": disk.opened,
        "write": disk.wrote,
        "pwrite": disk.wrote,
        "ftruncate": disk.truncated,
        "fsync": disk.synced,
        "fdatasync": disk.synced,
        "rename": disk.replaced,
        "replace": disk.replaced,
        "link": disk.linked,
        "unlink": disk.removed,
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, call in calls.items():
            patch.setattr(os, name, _in_a_run(getattr(os, name), call))
        patch.setattr(sqlite3, "connect", _in_a_run(sqlite3.connect, connector(disk)))
        patch.setattr(Clock, "now", lambda _: machine.wall())
        patch.setattr(Clock, "monotonic", lambda _: machine.monotonic())
        patch.setattr(os, "urandom", chance.randbytes)
        patch.setattr(secrets, "token_hex", lambda size=32: chance.randbytes(size).hex())
        patch.setattr(anyio.to_thread, "run_sync", _at_once)
        rebind(patch, ThreadPoolExecutor, _NoThreads)
        random.seed(seed)
        yield patch


def rebind(patch: pytest.MonkeyPatch, old: object, new: object) -> None:
    """Put `new` in the place of `old` in every module of the program that has imported it."""
    for name, module in sorted(sys.modules.items()):
        if name.startswith("harvester."):
            for attribute in [key for key, value in vars(module).items() if value is old]:
                patch.setattr(module, attribute, new)


def _in_a_run(real: Callable[..., Any], call: Callable[..., Any]) -> Callable[..., Any]:
    def called(*args: Any, **named: Any) -> Any:
        return real(*args, **named) if RUNNING.get() is None else call(real, *args, **named)

    return called


async def _at_once(work: Callable[..., T], *args: Any, **_: Any) -> T:
    return work(*args)


class _NoThreads:
    """A pool that does everything on the spot."""

    def __init__(self, *_: Any) -> None:
        pass

    def __enter__(self) -> "_NoThreads":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def map(self, work: Callable[[Any], T], items: Any) -> Iterator[T]:
        return map(work, items)
