"""Disk trouble: one clear error, nothing acknowledged that is not there, and on with the same
command once there is space.

The disk is made to fail at every call in turn: a full disk, an error of the device, a write that
takes only a part of what it was given. Besides, a real full file system and a real read-only one.
"""

import contextlib
import errno
import fcntl
import itertools
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from crashlab import Ended, Home, Lab, in_flight, labs, spread

ALLOWED = {1, 2}


@pytest.fixture(scope="module")
def bench() -> Iterator[list[Lab]]:
    """Two labs, one for each core of a small machine."""
    with labs(2) as pair:
        yield pair


def assert_one_clear_line(ended: Ended, home: Home) -> None:
    """Exit code 1 or 2, and one line that names the path."""
    assert ended.code in ALLOWED, ended
    lines = ended.stderr.splitlines()
    assert len(lines) == 1, ended.stderr
    assert str(home.path) in lines[0], ended.stderr
    assert "a bug" not in lines[0], ended.stderr
    assert "Traceback" not in ended.stderr


def assert_honest(home: Home, lab: Lab) -> None:
    """No final name without its bytes; no line of the manifest without its file."""
    home.assert_no_half_file(lab.expected)
    finals = home.finals()
    for line in home.whole_lines("manifest.ndjson"):
        assert line["file"] in finals


def fails_and_goes_on(lab: Lab, home: Home, **order: object) -> bool:
    """One run in trouble, one after it; False if the trouble came too late for the run."""
    before = lab.seen()
    ended = lab.run(home, "-j", "2", **order)
    if ended.code == 0:
        home.assert_undisturbed(lab.expected)
        return False
    assert_one_clear_line(ended, home)
    assert_honest(home, lab)
    again = lab.run(home, "-j", "2")
    assert again.code == 0, again.stderr
    home.assert_undisturbed(lab.expected)
    assert lab.seen() - before <= lab.expected.requests + in_flight(2)
    home.remove()
    return True


TROUBLES = {
    "no space": (["write", "pwrite"], errno.ENOSPC, {"halves": True}),
    "no space for one write": (["write", "pwrite"], errno.ENOSPC, {"halves": True, "heals": True}),
    "a broken write": (["write", "pwrite"], errno.EIO, {}),
    "a broken sync": (["fsync", "fdatasync"], errno.EIO, {}),
    "a broken sync at a fast pace": (["fsync", "fdatasync"], errno.EIO, {"durable": False}),
    "one broken sync": (["fsync", "fdatasync"], errno.EIO, {"heals": True}),
    "a name refused": (["rename", "replace", "link", "mkdir"], errno.EIO, {}),
    "a cut refused": (["ftruncate"], errno.EIO, {}),
}


@pytest.mark.parametrize("stride", [3, pytest.param(1, marks=pytest.mark.long)])
@pytest.mark.parametrize("trouble", TROUBLES)
def test_trouble_at_any_call_ends_the_run_with_one_clear_line(
    bench: list[Lab], root: Path, trouble: str, stride: int
) -> None:
    """Whichever call the disk refuses first, the run ends with one line that names the path, and
    the same command goes on to the same bytes once the disk is well."""
    failing, number, more = TROUBLES[trouble]

    def point(lab: Lab, at: int) -> bool:
        return fails_and_goes_on(
            lab,
            Home(root / str(at)),
            failing=failing,
            errno=number,
            fail_at=at,
            **{"durable": True, **more},
        )

    few = trouble in {"a name refused", "a cut refused"}  # so every one is tried
    points = spread(bench, point, itertools.count(1, 1 if few else stride))
    print(f"{points} calls")
    assert points > (3 if trouble != "a cut refused" else 0)  # nothing to cut in a new directory


def test_a_failed_sync_is_not_tried_again(bench: list[Lab], root: Path) -> None:
    """After a failed sync the kernel may have dropped the pages: a second one would lie."""
    lab, whole, trace = bench[0], Home(root / "whole"), root / "trace"
    assert lab.run(whole, "-j", "1", durable=True, trace=str(trace)).code == 0
    syncs = [line for line in trace.read_text().splitlines() if " fdatasync " in line]
    for at in (n for n, line in enumerate(syncs, 1) if ".part" in line):
        home, trace = Home(root / str(at)), root / f"trace-{at}"
        order = {"failing": ["fdatasync"], "errno": errno.EIO, "fail_at": at, "heals": True}
        ended = lab.run(home, "-j", "1", durable=True, trace=str(trace), **order)
        assert_one_clear_line(ended, home)
        after = [line for line in trace.read_text().splitlines() if " fdatasync " in line][at:]
        assert [line for line in after if ".part" in line] == []


@pytest.mark.parametrize("at_most", [1, 3, 100])
def test_short_writes_lose_no_byte(bench: list[Lab], root: Path, at_most: int) -> None:
    """A system that takes a few bytes at a time gets all of them."""
    home = Home(root / "home")
    assert bench[0].run(home, at_most=at_most).code == 0
    home.assert_undisturbed(bench[0].expected)


def test_a_limit_on_the_size_of_files_is_a_full_disk(bench: list[Lab], root: Path) -> None:
    """Under `ulimit -f`, wherever it strikes (SQLite's log and its index too), the run ends with
    one line that names the path; without it, the same command goes on."""

    def point(lab: Lab, size: int) -> bool:
        return fails_and_goes_on(lab, Home(root / str(size)), durable=True, file_size=size)

    sizes = itertools.chain(range(800, 32_768, 3_100), itertools.count(33_000, 9_703))
    points = spread(bench, point, sizes)
    print(f"{points} sizes")
    assert points > 12


@contextlib.contextmanager
def mounted(path: Path, *options: str) -> Iterator[None]:
    """Something mounted on a directory, where that is allowed."""
    path.mkdir(parents=True, exist_ok=True)
    mount = shutil.which("mount")
    if mount is None:
        pytest.skip("there is no mount command")
    done = subprocess.run(
        [mount, *options, str(path)], capture_output=True, text=True, check=False, timeout=30
    )
    if done.returncode:
        pytest.skip(f"cannot mount here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", str(path)], check=True, timeout=30)


@pytest.mark.parametrize("kilobytes", [4, 16, 40, 60, 72, 80, 96, 120])
def test_a_full_file_system_ends_the_run_and_space_lets_it_go_on(
    bench: list[Lab], root: Path, kilobytes: int
) -> None:
    """On a real file system with too little room the run ends with one clear line; with more room
    the same command goes on."""
    lab, home = bench[0], Home(root / "home")
    with mounted(home.out, "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs"):
        before = lab.seen()
        assert_one_clear_line(lab.run(home, "-j", "2", durable=True), home)
        assert_honest(home, lab)
        subprocess.run(["mount", "-o", "remount,size=8m", str(home.out)], check=True, timeout=30)
        ended = lab.run(home, "-j", "2", durable=True)
        assert ended.code == 0, ended.stderr
        home.assert_undisturbed(lab.expected)
        assert lab.seen() - before <= lab.expected.requests + in_flight(2)


def test_a_disk_that_is_full_for_the_ledger_sends_nothing_uncounted(
    bench: list[Lab], root: Path
) -> None:
    """Where the day's count cannot be written, no request is sent."""
    lab, home = bench[0], Home(root / "home")
    home.state.write_text("in the way")
    before = lab.seen()
    assert_one_clear_line(lab.run(home), home)
    assert lab.seen() == before
    home.state.unlink()
    assert lab.run(home).code == 0
    home.assert_undisturbed(lab.expected)


@contextlib.contextmanager
def read_only(path: Path) -> Iterator[None]:
    """A directory that nothing can be written to, root or not."""
    if os.geteuid() != 0:
        path.chmod(0o555)
        try:
            yield
        finally:
            path.chmod(0o755)
        return
    with mounted(path, "--bind", str(path)):
        subprocess.run(["mount", "-o", "remount,bind,ro", str(path)], check=True, timeout=30)
        yield


@pytest.mark.parametrize("begun", [False, True])
def test_a_read_only_directory_is_refused(bench: list[Lab], root: Path, *, begun: bool) -> None:
    """A directory that cannot be written to is refused before anything is sent; writable again, it
    takes the same command."""
    lab, home = bench[0], Home(root / "home")
    home.out.mkdir()
    if begun:
        assert lab.run(home, "-j", "1", "--max-requests", "3").code == 75
    before = lab.seen()
    with read_only(home.out):
        ended = lab.run(home)
    assert_one_clear_line(ended, home)
    assert lab.seen() == before
    assert lab.run(home).code == 0
    home.assert_undisturbed(lab.expected)


@pytest.mark.parametrize("command", ["status", "verify"])
def test_a_read_only_harvest_can_be_looked_at(bench: list[Lab], root: Path, command: str) -> None:
    """`status` and `verify` work where nothing can be written, as in an archive."""
    lab, home = bench[0], Home(root / "home")
    assert lab.run(home).code == 0
    with read_only(home.out / ".harvester"), read_only(home.out):
        ended = lab.run(home, argv=[command, str(home.out)])
    assert ended.code == 0, ended.stderr
    home.assert_undisturbed(lab.expected)


@pytest.mark.parametrize("inside", ["", ".harvester", "opens"])
def test_a_file_in_the_place_of_a_directory_is_refused(
    bench: list[Lab], root: Path, inside: str
) -> None:
    """A file where a directory has to be is named, and nothing is sent."""
    lab, home = bench[0], Home(root / "home")
    if inside:
        home.out.mkdir()
    obstacle = home.out / inside
    obstacle.write_text("in the way")
    before = lab.seen()
    ended = lab.run(home)
    assert_one_clear_line(ended, home)
    assert re.search(r"exists|[Nn]ot a directory", ended.stderr)
    assert lab.seen() == before
    assert obstacle.read_text() == "in the way"
    obstacle.unlink()
    assert lab.run(home).code == 0
    home.assert_undisturbed(lab.expected)


def test_a_directory_that_another_run_holds_ends_with_75(bench: list[Lab], root: Path) -> None:
    """A schedule that starts runs too often raises no alarm: one line says who holds it, nothing
    is sent, and the same command goes on later."""
    lab, home = bench[0], Home(root / "home")
    assert lab.run(home, "-j", "1", "--max-requests", "3").code == 75
    before = lab.seen()
    with (home.out / ".harvester" / "lock").open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        ended, logged = lab.run(home), lab.run(home, "--log-format", "json")
    assert (ended.code, logged.code, lab.seen()) == (75, 75, before)
    (line,) = ended.stderr.splitlines()
    assert f"another run works in {home.out}" in line
    assert line.endswith(": wait for it or stop it, then the same command")
    (record,) = map(json.loads, logged.stderr.splitlines())
    assert (record["level"], record["event"]) == ("error", "note")
    assert f"another run works in {home.out}" in record["message"]
    assert lab.run(home).code == 0
    home.assert_undisturbed(lab.expected)
