"""One run at a time in an output directory."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

from harvester.clock import stamp
from harvester.disk.layout import Layout
from harvester.disk.storage import storage, write_all
from harvester.errors import ConfigError


@contextmanager
def locked(layout: Layout, *, now: datetime) -> Iterator[None]:
    """Hold the directory. Raise `ConfigError` naming the run that holds it already.

    A flock, not a PID file: the kernel frees it with the process, however that ends.
    """
    with storage(layout.lock):
        file = os.open(layout.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(file, 200, 0).decode("utf-8", "replace").strip()
            raise ConfigError(
                f"another run works in {layout.root} ({holder}): wait for it or stop it"
            ) from None
        with storage(layout.lock):
            os.ftruncate(file, 0)
            write_all(file, f"process {os.getpid()}, since {stamp(now)}\n".encode(), at=0)
        yield
    finally:
        os.close(file)
