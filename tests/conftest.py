"""What every test module may ask for."""

import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import anyio.to_thread
import pytest
from accountlab import ACCOUNT, Account
from fakes import FakeClock, Seen
from hypothesis import HealthCheck, settings
from workbench import Workbench

from harvester.sandbox import Sandbox, SandboxSettings

# A zone that is not UTC, and half an hour off: a day or a moment of local time would show.
os.environ["TZ"] = "Asia/Kolkata"
time.tzset()

settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("thorough", parent=settings.get_profile("default"), max_examples=2_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))

_MEMORY = Path("/dev/shm")

# Tests that are started with nohup, or in the background of a script, have signals ignored, and a
# program under test would inherit that. What is caught is not inherited.
for _number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, lambda number, frame: None)


def pytest_xdist_auto_num_workers() -> int:
    """One more than there are cores: many tests wait for a server or a process."""
    return min(1 + (os.cpu_count() or 1), 6)


@pytest.fixture
def clock() -> FakeClock:
    """A clock that stands at noon until it is moved."""
    return FakeClock()


@pytest.fixture
def seen() -> Seen:
    """An observer that keeps every event."""
    return Seen()


@pytest.fixture
def root() -> Iterator[Path]:
    """A folder in memory where there is one: for tests that save and sync thousands of pages."""
    with TemporaryDirectory(dir=_MEMORY if _MEMORY.is_dir() else None) as path:
        yield Path(path)


@pytest.fixture
def instant_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Virtual time would jump while a thread syncs a file: it is done on the spot instead."""

    async def run_sync(work: Callable[..., Any], *args: Any) -> Any:
        return work(*args)

    monkeypatch.setattr(anyio.to_thread, "run_sync", run_sync)


@pytest.fixture
async def serve(tmp_path: Path) -> AsyncIterator[Callable[..., Any]]:
    """Start a v3 account with settings of its own."""
    async with AsyncExitStack() as stack:

        async def start(**asked: Any) -> Account:
            settings = SandboxSettings(**ACCOUNT | asked)
            return Account(await stack.enter_async_context(Sandbox(settings)), tmp_path)

        yield start


@pytest.fixture
def bench(root: Path, clock: FakeClock, seen: Seen) -> Iterator[Workbench]:
    """An output directory, and the first run in it."""
    bench = Workbench(root / "out", clock, seen)
    yield bench
    bench.close()
