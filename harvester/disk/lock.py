"""One run at a time in an output directory."""

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime

from harvester.disk.layout import Layout
from harvester.disk.storage import storage, write_all
from harvester.errors import ConfigError
from harvester.runtime import stamp

_TRIES, _PAUSE = 10, 0.02  # s; who only looks holds it for much less


@contextmanager
def locked(
    layout: Layout, *, now: datetime, sleep: Callable[[float], None] = time.sleep
) -> Iterator[None]:
    """Hold the directory. Raise `ConfigError` naming the run that holds it already.

    A flock, not a PID file: the kernel frees it with the process, however that ends. It is tried
    for a moment: whoever looks for its holder (`inspection.holder`) is in the way while it looks.
    """
    with storage(layout.lock):
        file = os.open(layout.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        if not _taken(file, sleep):
            holder = os.pread(file, 200, 0).decode("utf-8", "replace").strip()
            raise ConfigError(
                f"another run works in {layout.root} ({holder}): wait for it or stop it"
            )
        with storage(layout.lock):
            os.ftruncate(file, 0)
            write_all(file, f"process {os.getpid()}, since {stamp(now)}\n".encode(), at=0)
        yield
    finally:
        os.close(file)


def _taken(file: int, sleep: Callable[[float], None]) -> bool:
    """Whether the lock is ours, after some tries."""
    for attempt in range(_TRIES):
        if attempt:
            sleep(_PAUSE)
        with suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
    return False
