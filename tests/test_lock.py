"""One run at a time in an output directory."""

import fcntl
import os
import shutil
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
from fakes import NOON

from harvester.disk.layout import Layout
from harvester.disk.lock import locked
from harvester.errors import HarvestError, StopRun, StorageError


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """A directory with its private folder."""
    layout = Layout(tmp_path / "out")
    layout.state.mkdir(parents=True)
    return layout


def test_a_directory_has_one_run(layout: Layout) -> None:
    """A second one is refused, with the process that holds it; after the first it may."""
    with locked(layout, now=NOON):
        refused = pytest.raises(StopRun, match=f"process {os.getpid()}, since 2026-03-01T12:00")
        with refused, locked(layout, now=NOON):
            pass
    with locked(layout, now=NOON):
        pass


@pytest.mark.parametrize("looks", [1, 3])
def test_who_only_looks_does_not_keep_a_run_from_starting(layout: Layout, looks: int) -> None:
    """A shared lock that is gone in a moment is waited for; a lock that stays is not, for long."""
    layout.lock.touch()
    slept: list[float] = []
    with ExitStack() as lookers:
        for _ in range(looks):
            file = lookers.enter_context(layout.lock.open("rb"))
            fcntl.flock(file, fcntl.LOCK_SH)

        def sleep(seconds: float) -> None:
            slept.append(seconds)
            lookers.close()

        with locked(layout, now=NOON, sleep=sleep):
            assert len(slept) == 1
        with locked(layout, now=NOON), pytest.raises(StopRun):  # noqa: SIM117
            with locked(layout, now=NOON, sleep=sleep):
                pass
    assert sum(slept) < 0.5


def test_a_link_to_the_directory_is_the_directory(layout: Layout, tmp_path: Path) -> None:
    """The same place under another name is the same lock."""
    (tmp_path / "link").symlink_to(layout.root)
    again = locked(Layout(tmp_path / "link"), now=NOON)
    with locked(layout, now=NOON), pytest.raises(StopRun), again:
        pass


def test_a_killed_run_holds_nothing(layout: Layout) -> None:
    """The kernel frees the lock with the process, however that ended."""
    program = (
        "import fcntl, os, sys, time\n"
        "file = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)\n"
        "fcntl.flock(file, fcntl.LOCK_EX)\n"
        "os.write(file, b'process 0, since long ago, a name longer than ours\\n')\n"
        "print('held', flush=True)\n"
        "time.sleep(60)\n"
    )
    command = [sys.executable, "-c", program, str(layout.lock)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        refused = pytest.raises(StopRun, match="process 0, since long ago")
        with refused, locked(layout, now=NOON):
            pass
        holder.kill()
    with locked(layout, now=NOON):
        assert layout.lock.read_bytes().count(b"\n") == 1


def test_a_lock_that_cannot_be_opened_is_told(layout: Layout) -> None:
    """Something else of that name is the user's to mend, not a bug."""
    layout.lock.mkdir()
    with pytest.raises(HarvestError), locked(layout, now=NOON):
        pass


@pytest.mark.parametrize("harm", ["moved", "removed", "replaced", "state removed"])
def test_a_run_notices_that_its_directory_is_not_its_own_any_more(
    layout: Layout, harm: str
) -> None:
    """Whatever happened to it; and it says so in one sentence with the directory's name."""
    with locked(layout, now=NOON) as lock:
        lock.check()
        if harm == "state removed":
            shutil.rmtree(layout.state)
        elif harm == "removed":
            shutil.rmtree(layout.root)
        else:
            layout.root.rename(layout.root.with_name("moved"))
        if harm == "replaced":
            layout.state.mkdir(parents=True)
            layout.lock.touch()
        assert not lock.holds()
        with pytest.raises(StorageError, match=f"{layout.root} was moved, removed or replaced"):
            lock.check()
