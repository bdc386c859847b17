"""One run at a time in an output directory."""

import fcntl
import os
import shutil
import subprocess
import sys
from contextlib import ExitStack
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from fakes import NOON

from harvester.disk.layout import Layout
from harvester.disk.lock import (
    SILENT_FOR,
    Host,
    described,
    is_foreign,
    locked,
    this_host,
)
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


HERE, THERE = Host("here", "boot-1"), Host("there", "boot-2")
"""Two machines that share a directory."""


def silent_for(layout: Layout, seconds: float) -> None:
    """The last sign of life was so long ago."""
    then = layout.lock.stat().st_mtime - seconds
    os.utime(layout.lock, (then, then))


@pytest.fixture
def no_flock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system whose locks do not reach another machine."""
    monkeypatch.setattr(fcntl, "flock", lambda file, how: None)


@pytest.mark.usefixtures("no_flock")
@pytest.mark.parametrize("clock", [NOON, NOON + timedelta(days=900), NOON - timedelta(days=900)])
def test_a_run_on_another_machine_is_known_by_its_record(layout: Layout, clock: datetime) -> None:
    """Whatever the clocks of the two machines say; and it is said when it is taken for dead."""
    with locked(layout, now=NOON, host=HERE) as lock:
        silent_for(layout, SILENT_FOR - 20)
        again = locked(layout, now=clock, host=THERE)
        with pytest.raises(StopRun, match=r"on here, last seen 10\d s ago") as refused, again:
            pass
        assert refused.value.reason == "locked"
        assert refused.value.resume_at is not None
        assert 10 < (refused.value.resume_at - clock).total_seconds() <= 20
        lock.check()
    with locked(layout, now=clock, host=THERE):  # the record went with the run
        pass


@pytest.mark.usefixtures("no_flock")
def test_a_beat_keeps_a_directory_and_silence_loses_it(layout: Layout) -> None:
    """A run that was suspended finds at its next step that another has taken its place."""
    with locked(layout, now=NOON, host=HERE) as first:
        silent_for(layout, SILENT_FOR + 1)
        first.beat()
        with pytest.raises(StopRun, match="last seen"), locked(layout, now=NOON, host=THERE):
            pass
        silent_for(layout, SILENT_FOR + 1)
        with locked(layout, now=NOON, host=THERE) as second:
            for step in (first.check, first.beat):
                with pytest.raises(StorageError, match=r"another run works in .* on there") as lost:
                    step()
                assert lost.value.reason == "locked"
            assert not first.holds()
            first.release()
            second.check()


def test_a_killed_run_of_this_machine_is_waited_for_by_no_run(layout: Layout) -> None:
    """The flock decides on one machine: a fresh record of a dead process keeps no run out."""
    layout.lock.write_bytes(b"process 1, since just now, on here, boot boot-1\n")
    with locked(layout, now=NOON, host=HERE):
        pass
    layout.lock.write_bytes(b"process 1, since just now, on here, boot boot-1\n")
    again = locked(layout, now=NOON, host=THERE)
    with pytest.raises(StopRun, match="process 1, since just now, on here, last seen"), again:
        pass


def test_the_machine_of_this_process_is_the_same_every_time(layout: Layout) -> None:
    """And its record has no more than what a person needs to find it."""
    with locked(layout, now=NOON):
        said = described(layout.lock.read_bytes())
        assert not is_foreign(layout.lock.read_bytes(), this_host())
    assert said == f"process {os.getpid()}, since 2026-03-01T12:00:00.000Z, on {this_host().name}"


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
        with pytest.raises(StorageError, match="Put the directory back to go on") as caught:
            lock.check()
        assert f"{layout.root} was moved, removed or replaced" in str(caught.value)
        assert caught.value.reason == "directory_lost"
