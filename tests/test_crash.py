"""Kill it anywhere: the same command ends with the bytes of an undisturbed run.

Three ways to die. A patched `os` dies before every call that changes the disk, and in the middle
of every write; it runs everywhere. strace dies before every such *system call*, SQLite's own too.
A file size limit dies in the middle of a frame of SQLite's log. After each death the same command
runs again, and the files, the manifest, the ledger and the server's log are held against what the
sandbox's world says they must be.
"""

import itertools
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from crashlab import (
    ROWS,
    Home,
    Lab,
    Reference,
    Served,
    environment,
    ids_of,
    in_flight,
    labs,
    reference,
    small,
    spread,
    until,
)

from harvester.disk import inspect as inspection
from harvester.disk.layout import Layout

SYSCALLS = (
    "write",
    "pwrite64",
    "fsync",
    "fdatasync",
    "ftruncate",
    "?rename",
    "?renameat",
    "?renameat2",
    "?link",
    "linkat",
    "?unlink",
    "unlinkat",
)
WAL_FRAME = 24 + 4096
STRIDES = [5, pytest.param(1, marks=pytest.mark.long)]
"""Every fifth point by default, every one in a long run."""


@pytest.fixture(scope="module")
def bench() -> Iterator[list[Lab]]:
    """Two labs, one for each core of a small machine."""
    with labs(2) as pair:
        yield pair


@pytest.fixture(scope="module", params=["v2", pytest.param("v3", marks=pytest.mark.long)])
def either(request: pytest.FixtureRequest, bench: list[Lab]) -> Iterator[list[Lab]]:
    """The same, or two labs of v3 with a campaign that was sent twice."""
    if request.param == "v2":
        yield bench
        return
    with labs(2, api="v3", resends=1, pages=7) as pair:
        yield pair


def run_to_the_end(
    lab: Lab, home: Home, *, walkers: int, kills: int, before: int, expected: Reference
) -> None:
    """The same command, left alone, ends with the right bytes at the promised price."""
    ended = lab.run(home, "-j", str(walkers))
    assert ended.code == 0, ended.stderr
    home.assert_undisturbed(expected)
    sent = lab.seen() - before
    assert expected.requests <= sent <= expected.requests + in_flight(walkers) * kills
    assert home.charged() >= sent


def die_once(
    lab: Lab,
    home: Home,
    *,
    walkers: int,
    expected: Reference | None = None,
    **order: object,
) -> bool:
    """One death and the next run; False if the run was over before its time to die came."""
    before = lab.seen()
    expected = expected or lab.expected
    ended = lab.run(home, "-j", str(walkers), **order)
    if not ended.killed:
        assert ended.code == 0, ended.stderr
        home.assert_undisturbed(expected)
        return False
    home.assert_no_half_file(expected)
    assert home.charged() >= lab.seen() - before
    run_to_the_end(lab, home, walkers=walkers, kills=1, before=before, expected=expected)
    home.remove()
    return True


# -- every point ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("walkers", "stride"),
    [(1, 2), (4, 5), *(pytest.param(each, 1, marks=pytest.mark.long) for each in (1, 4))],
)
def test_a_kill_at_any_call_costs_at_most_a_page_per_campaign_in_flight(
    bench: list[Lab], root: Path, walkers: int, stride: int
) -> None:
    """Killed before any write, sync, truncate, rename or commit, or within a write, a harvest ends
    as if nothing had been, at the price of one page for each campaign in flight."""

    def point(lab: Lab, at: int) -> bool:
        home = Home(root / str(at))
        return die_once(lab, home, walkers=walkers, durable=True, kill_at=at)

    points = spread(bench, point, itertools.count(1, stride))
    print(f"{points} points, {walkers} walkers")
    assert points * stride > 100


@pytest.mark.parametrize("stride", [11, pytest.param(1, marks=pytest.mark.long)])
def test_more_walks_than_permits_cost_no_more(root: Path, stride: int) -> None:
    """With eight campaigns open and two requests in flight, a kill costs two pages at most."""
    with labs(2, campaigns=8, pages=16) as bench:

        def point(lab: Lab, at: int) -> bool:
            home = Home(root / str(at))
            return die_once(lab, home, walkers=2, durable=at % 2 == 0, kill_at=at)

        points = spread(bench, point, itertools.count(1, stride))
    print(f"{points} points")
    assert points * stride > 150


@pytest.mark.parametrize(
    ("walkers", "stride"),
    [
        (3, 7),
        pytest.param(1, 1, marks=pytest.mark.long),
        pytest.param(3, 1, marks=pytest.mark.long),
    ],
)
def test_a_kill_at_any_call_of_a_v3_harvest_costs_no_more(
    root: Path, walkers: int, stride: int
) -> None:
    """Campaigns of one email and of an email with resends: killed before the campaign's detail is
    used, within an activity, or between two of them."""
    with labs(2, api="v3", resends=2, pages=8) as bench:

        def point(lab: Lab, at: int) -> bool:
            home = Home(root / str(at))
            return die_once(lab, home, walkers=walkers, durable=True, kill_at=at)

        points = spread(bench, point, itertools.count(1, stride))
    print(f"{points} points, {walkers} walkers")
    assert points * stride > 100


@pytest.mark.parametrize("stride", [17, pytest.param(1, marks=pytest.mark.long)])
def test_a_kill_at_any_call_leaves_the_counts_that_were_saved(root: Path, stride: int) -> None:
    """The counts of v3 are asked for in bulk, kept, and not asked for again."""
    with labs(2, "--summary", api="v3", resends=2, pages=8) as bench:

        def point(lab: Lab, at: int) -> bool:
            home = Home(root / str(at))
            return die_once(lab, home, walkers=3, durable=True, kill_at=at)

        points = spread(bench, point, itertools.count(1, stride))
    print(f"{points} points")
    assert points * stride > 100


@pytest.mark.parametrize("stride", [53, pytest.param(1, marks=pytest.mark.long)])
def test_a_kill_at_any_call_leaves_what_is_known_of_campaigns(root: Path, stride: int) -> None:
    """All reports: the counts of campaigns and activities and the details are asked for ahead of
    the walks; what was saved is not asked for again, and no report is asked for in its place."""
    with labs(2, "--report", "all", "-j", "3", api="v3", resends=2, pages=8) as bench:
        undisturbed, before = Home(root / "undisturbed"), bench[0].seen()
        assert bench[0].run(undisturbed).code == 0
        files, least = undisturbed.finals(), bench[0].seen() - before
        assert {"activity_stats", "stats"} <= {hit.report for hit in bench[0].served.hits()}

        def point(lab: Lab, at: int) -> bool:
            home, before = Home(root / str(at)), lab.seen()
            killed = lab.run(home, durable=True, kill_at=at).killed
            assert lab.run(home).code == 0
            assert home.finals() == files
            assert lab.seen() - before <= least + in_flight(3)
            return killed

        points = spread(bench, point, itertools.count(7, stride))
    print(f"{points} points")
    assert points * stride > 200


@pytest.mark.parametrize("durable", [True, False])
def test_nothing_is_named_before_it_is_synced(
    bench: list[Lab], root: Path, *, durable: bool
) -> None:
    """In the trace of a whole run, at any pace: each file's last write, its sync, its name, its
    line in the manifest, and the syncs of both."""
    lab, trace = bench[0], root / "trace"
    assert lab.run(Home(root / "home"), "-j", "2", durable=durable, trace=str(trace)).code == 0
    calls = [line.split(" ", 1)[1] for line in trace.read_text().splitlines()]
    for campaign_id in lab.ids:
        name = f"{campaign_id}.ndjson"
        named = calls.index(f"replace {name}.part {name}")
        writes = [at for at, call in enumerate(calls) if call == f"write {name}.part"]
        synced = [at for at, call in enumerate(calls) if call == f"fdatasync {name}.part"]
        assert max(writes, default=-1) < max(synced) < named
        steps = ["pwrite manifest.ndjson", "fsync opens", "fdatasync manifest.ndjson"]
        after = [call for call in calls[named:] if call in steps]
        assert list(dict.fromkeys(after)) == steps


@pytest.fixture(scope="session")
def strace() -> str:
    """strace, if it is there and may trace."""
    path = shutil.which("strace")
    if path is None:
        pytest.skip("strace is not installed: no kill within SQLite's own system calls")
    trial = [path, "-f", "-o", "/dev/null", "-e", "trace=getppid", "-e", "inject=getppid:retval=7"]
    done = subprocess.run(
        [*trial, sys.executable, "-c", "import os, sys; sys.exit(os.getppid())"],
        capture_output=True,
        check=False,
        timeout=30,
    )
    if done.returncode != 7:
        pytest.skip(f"strace cannot trace here: {done.stderr.decode().strip()[-200:]}")
    return path


@dataclass
class Killer:
    """Attaches strace to a fork, so that the n-th call of one kind is never made."""

    strace: str
    syscall: str
    at: int

    def __call__(self, pid: int) -> "subprocess.Popen[str]":
        tracing = subprocess.Popen(
            [self.strace, "-f", "-p", str(pid), "-o", "/dev/null", *self.rule],
            stderr=subprocess.PIPE,
            text=True,
        )
        assert tracing.stderr is not None
        said = tracing.stderr.readline()
        assert "attached" in said, said
        return tracing

    @property
    def rule(self) -> list[str]:
        """The options of strace."""
        kill = f"inject={self.syscall}:signal=SIGKILL:when={self.at}"
        return ["-e", f"trace={self.syscall}", "-e", kill]


@pytest.mark.parametrize("stride", STRIDES)
@pytest.mark.parametrize("syscall", SYSCALLS)
def test_a_kill_at_any_system_call_loses_nothing(
    either: list[Lab], root: Path, strace: str, syscall: str, stride: int
) -> None:
    """Killed before any system call that changes the disk, SQLite's own too, a harvest ends as if
    nothing had been."""

    def point(lab: Lab, at: int) -> bool:
        home = Home(root / str(at))
        return die_once(lab, home, walkers=2, durable=True, tracer=Killer(strace, syscall, at))

    points = spread(either, point, itertools.count(1, stride))
    print(f"{points} {syscall} calls")


def test_a_kill_within_a_frame_of_the_log_loses_nothing(either: list[Lab], root: Path) -> None:
    """Killed in the middle of a frame of SQLite's log, a harvest ends as if nothing had been."""

    def point(lab: Lab, size: int) -> bool:
        home = Home(root / str(size))
        return die_once(lab, home, walkers=2, durable=True, file_size=size, file_size_kills=True)

    # Below 32 kB it is the shared index of the log, or a part file, that is cut short.
    sizes = itertools.chain(
        range(100, 32_768, 9_000), itertools.count(33_000, 4 * WAL_FRAME + 1_031)
    )
    points = spread(either, point, sizes)
    print(f"{points} sizes")
    assert points > 8


@pytest.mark.parametrize("compress", ["gzip", "zstd"])
def test_compressed_files_come_out_the_same(either: list[Lab], root: Path, compress: str) -> None:
    """A killed and resumed compressed harvest has the bytes of an undisturbed one, and they hold
    the right records."""
    undisturbed = Home(root / "undisturbed")
    extra = ("--compress", compress)
    assert either[0].run(undisturbed, *extra).code == 0
    expected = either[0].expected.packed(undisturbed.finals())
    undisturbed.assert_undisturbed(expected)

    def point(lab: Lab, at: int) -> bool:
        home, before = Home(root / str(at)), lab.seen()
        if not lab.run(home, *extra, "-j", "2", durable=True, kill_at=at).killed:
            return False
        home.assert_no_half_file(expected)
        assert lab.run(home, *extra, "-j", "2").code == 0
        home.assert_undisturbed(expected)
        assert lab.seen() - before <= expected.requests + in_flight(2)
        return True

    assert spread(either, point, itertools.count(20, 11)) > 5


# -- kills of a resume ---------------------------------------------------------------------------


def _nth(number: int, call: str) -> Callable[[list[str]], int]:
    """Where the n-th of such calls stands in a trace."""

    def find(trace: list[str]) -> int:
        found = [int(line.split()[0]) for line in trace if re.match(rf"\d+ {call}", line)]
        return found[number - 1]

    return find


def _acknowledging(trace: list[str]) -> int:
    """The commit after the first line of the manifest."""
    line = _nth(1, "p?write manifest")(trace)
    return next(
        at for each in trace if (at := int(each.split()[0])) > line and "sqlite COMMIT" in each
    )


_FILE = r"[0-9a-f-]{13,}\.ndjson"
LEFT = {
    "a page is torn": lambda trace: _nth(2, f"p?write {_FILE}")(trace) + 1,
    "rows are ahead of the checkpoint": lambda trace: _nth(3, f"fdatasync {_FILE}")(trace),
    "all is there but the name": _nth(1, f"replace {_FILE}"),
    "the name but no line in the manifest": _nth(1, "p?write manifest"),
    "half a line in the manifest": lambda trace: _nth(2, "p?write manifest")(trace) + 1,
    "a line that was not acknowledged": _acknowledging,
    "half a summary": lambda trace: _nth(1, "p?write summary")(trace) + 1,
}


@pytest.mark.parametrize("stride", [7, pytest.param(1, marks=pytest.mark.long)])
@pytest.mark.parametrize("left", LEFT)
def test_a_resume_can_be_killed_anywhere_too(
    either: list[Lab], root: Path, left: str, stride: int
) -> None:
    """Whatever a first kill has left, a second one may come at any call of the resume."""
    whole, trace = Home(root / "whole"), root / "trace"
    assert either[0].run(whole, "-j", "1", durable=True, trace=str(trace)).code == 0
    at = LEFT[left](trace.read_text().splitlines())
    deaths = {}
    for lab in either:  # each has a port of its own, which a directory remembers
        before = lab.seen()
        home = Home(root / f"left-{lab.served.sandbox.base_url[-5:]}")
        assert lab.run(home, "-j", "1", durable=True, kill_at=at).killed
        home.assert_no_half_file(lab.expected)
        deaths[lab.served.sandbox.base_url] = (home, lab.seen() - before)

    def point(lab: Lab, at: int) -> bool:
        home, spent = deaths[lab.served.sandbox.base_url]
        home, before = home.copy(root / str(at)), lab.seen() - spent
        ended = lab.run(home, "-j", "1", kill_at=at)
        home.assert_no_half_file(lab.expected)
        kills = 1 + ended.killed
        run_to_the_end(lab, home, walkers=1, kills=kills, before=before, expected=lab.expected)
        home.remove()
        return ended.killed

    first = 1 + list(LEFT).index(left) % stride  # all of them together come to every remainder
    points = spread(either, point, itertools.count(first, stride))
    print(f"{points} points")
    assert points * stride > 20


# -- chains of kills -----------------------------------------------------------------------------


def chain(lab: Lab, home: Home, seed: int) -> None:
    """Up to eight kills, each at a random call or a random moment, then a run that may end."""
    chance, before, kills = random.Random(seed), lab.seen(), 0
    walkers = chance.choice([1, 2, 4])
    for _ in range(chance.choice([1, 1, 2, 2, 3, 3, 4, 5, 6, 8])):
        death = (
            {"kill_at": chance.randint(1, 110)}
            if chance.random() < 0.5
            else {"kill_after": chance.uniform(0.001, 0.05)}
        )
        ended = lab.run(home, "-j", str(walkers), durable=chance.random() < 0.5, **death)
        if not ended.killed:
            assert ended.code == 0, ended.stderr
            break
        kills += 1
        home.assert_no_half_file(lab.expected)
        assert home.charged() >= lab.seen() - before
    run_to_the_end(lab, home, walkers=walkers, kills=kills, before=before, expected=lab.expected)
    home.remove()


def chains(bench: list[Lab], root: Path, seeds: range) -> None:
    """Run a chain for each seed."""

    def one(lab: Lab, seed: int) -> bool:
        try:
            chain(lab, Home(root / str(seed)), seed)
        except BaseException as wrong:
            wrong.add_note(f"chain {seed}")
            raise
        return True

    assert spread(bench, one, seeds) == len(seeds)


def test_chains_of_random_kills_end_with_the_same_bytes(either: list[Lab], root: Path) -> None:
    """Harvests that are each killed up to eight times at random end as if nothing had been."""
    chains(either, root, range(24))


@pytest.mark.long
@pytest.mark.timeout(1_800)
def test_a_thousand_chains_of_random_kills_end_with_the_same_bytes(
    bench: list[Lab], root: Path
) -> None:
    """A thousand harvests, each killed up to eight times, end as if nothing had been."""
    chains(bench, root, range(1_000))


# -- the real command ----------------------------------------------------------------------------


@pytest.mark.parametrize("death", [1, 6])
def test_the_installed_command_survives_kill_9(root: Path, death: int) -> None:
    """`python -m harvester`, at a pace of the API's kind, killed as a request arrives, goes on."""
    sandbox, home = small(latency=0.02), Home(root)
    ids = ids_of(sandbox)
    expected = reference(sandbox, ids)
    with Served(sandbox) as served:
        command = [
            *(sys.executable, "-m", "harvester", "run", "-q", "-o", str(home.out), "-j", "2"),
            *("--state-dir", str(home.state), "--base-url", sandbox.base_url),
            *("--rate", "10", "--page-size", str(ROWS), *ids),
        ]
        with subprocess.Popen(command, env=environment()) as process:
            until(lambda: len(served.hits()) >= death)
            process.kill()
        home.assert_no_half_file(expected)
        done = subprocess.run(command, env=environment(), check=False, timeout=60)
        assert done.returncode == 0
        home.assert_undisturbed(expected)
        assert len(served.hits()) <= expected.requests + in_flight(2)
        assert home.charged() >= len(served.hits())


# -- what a power cut, or a disk, may do ---------------------------------------------------------


@pytest.fixture
def half(bench: list[Lab], root: Path) -> Home:
    """A directory whose first campaign stands after three of its four pages."""
    home = Home(root / "half")
    ended = bench[0].run(home, "-j", "1", "--max-requests", "3")
    assert ended.code == 75, ended.stderr
    return home


def _cut(data: bytes) -> bytes:
    return data[:-7]


def _lose(data: bytes) -> bytes:
    return b""


def _flip(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


def _zero(data: bytes) -> bytes:
    return data[:-400] + bytes(400)


@pytest.mark.parametrize("damage", [_cut, _lose, _flip, _zero])
def test_a_part_that_lost_what_was_saved_starts_over(
    bench: list[Lab], half: Home, damage: Callable[[bytes], bytes]
) -> None:
    """A part file that is shorter than its checkpoint, or not what it was, is never stretched nor
    used: that campaign is fetched again from its first page, and the reports say so."""
    lab, ids = bench[0], bench[0].ids
    part = half.out / "opens" / f"{ids[0]}.ndjson.part"
    part.write_bytes(damage(part.read_bytes()))
    before = lab.seen()
    ended = lab.run(half)
    assert ended.code == 0
    half.assert_undisturbed(lab.expected)
    asked = lab.served.pages()[before:]
    assert [page for campaign, page in asked if campaign == ids[0]] == [1, 2, 3, 4]
    assert len(asked) == lab.expected.requests
    (line,) = half.lines("retries.ndjson")
    assert (line["campaign_id"], line["cause"]) == (ids[0], "damaged_part")
    assert f"{ids[0]} starts over at its first page" in ended.stderr.replace("opens/", "")


def test_a_part_that_is_gone_starts_over(bench: list[Lab], half: Home) -> None:
    """Without its part file a campaign is fetched again from its first page."""
    lab, ids = bench[0], bench[0].ids
    (half.out / "opens" / f"{ids[0]}.ndjson.part").unlink()
    before = lab.seen()
    assert lab.run(half).code == 0
    half.assert_undisturbed(lab.expected)
    assert lab.seen() - before == lab.expected.requests
    assert [line["cause"] for line in half.lines("retries.ndjson")] == ["damaged_part"]


def test_rows_beyond_the_checkpoint_are_cut_off(bench: list[Lab], half: Home) -> None:
    """What a part file holds beyond its checkpoint is cut off, and costs no request."""
    lab, ids = bench[0], bench[0].ids
    with (half.out / "opens" / f"{ids[0]}.ndjson.part").open("ab") as part:
        part.write(b'{"half":"a page')
    before = lab.seen()
    assert lab.run(half).code == 0
    half.assert_undisturbed(lab.expected)
    assert lab.seen() - before == lab.expected.requests - 3
    assert half.lines("retries.ndjson") == []


def _killed_at(lab: Lab, root: Path, call: str) -> Home:
    """A directory in which the first campaign was killed before such a call, made for it."""
    whole, trace = Home(root / "whole"), root / "trace"
    assert lab.run(whole, "-j", "1", durable=True, trace=str(trace)).code == 0
    home = Home(root / "killed")
    at = _nth(1, call)(trace.read_text().splitlines())
    assert lab.run(home, "-j", "1", durable=True, kill_at=at).killed
    return home


@pytest.mark.parametrize("damage", [None, _cut, _lose, _flip, _zero])
@pytest.mark.parametrize(
    ("call", "ending"), [("replace 1", ".part"), ("fsync opens", ""), ("p?write manifest", "")]
)
def test_a_walk_that_was_all_but_finished_is_not_called_finished_on_trust(
    bench: list[Lab],
    root: Path,
    call: str,
    ending: str,
    damage: Callable[[bytes], bytes] | None,
) -> None:
    """Killed between the last page and the manifest, a file that is then lost or damaged is
    fetched again, and the reports say so."""
    lab, ids = bench[0], bench[0].ids
    home = _killed_at(lab, root, call)
    file = home.out / "opens" / f"{ids[0]}.ndjson{ending}"
    if damage is None:
        file.unlink()
    else:
        file.write_bytes(damage(file.read_bytes()))
    before = lab.seen()
    ended = lab.run(home)
    assert ended.code == 0, ended.stderr
    home.assert_undisturbed(lab.expected)
    assert lab.seen() - before == lab.expected.requests
    assert [line["cause"] for line in home.lines("retries.ndjson")] == ["damaged_file"]


def test_the_log_of_the_state_may_be_lost(bench: list[Lab], half: Home, root: Path) -> None:
    """A checkpoint that went back in time, as a power cut can have it, costs pages and no bytes."""
    lab = bench[0]
    early = half.copy(root / "early")
    assert lab.run(half, "-j", "1", "--max-requests", "2").code == 75
    for path in (half.out / ".harvester").iterdir():
        shutil.copy(early.out / ".harvester" / path.name, path)
    assert lab.run(half).code == 0
    half.assert_undisturbed(lab.expected)


# -- a top-up ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("api", "stride"),
    [
        ("v3", 11),
        ("v2", 23),
        *(pytest.param(api, 1, marks=pytest.mark.long) for api in ("v2", "v3")),
    ],
)
def test_a_top_up_can_be_killed_at_any_call(root: Path, api: str, stride: int) -> None:
    """Two files grow, one stays: whatever call it dies at, the same command ends with each event
    once and with one line of each file in the manifest."""
    more = {"resends": 2, "pages": 8} if api == "v3" else {}
    with labs(1, api=api, **more) as (bench,):
        sandbox = bench.served.sandbox
        first = Home(root / "first")
        assert bench.run(first, "-j", "2", durable=True).code == 0
        for each, count in zip(bench.ids, (1, ROWS + 2), strict=False):
            sandbox.world.add_events("opens", each, count)
        expected = {
            f"opens/{each}.ndjson": sorted(sandbox.world.records("opens", each))
            for each in bench.ids
        }
        for at in itertools.count(1, stride):
            home = first.copy(root / f"{api}-{at}")
            top_up = ("-j", "2", "--since", "last")
            killed = bench.run(home, *top_up, durable=True, kill_at=at).killed
            assert bench.run(home, *top_up, durable=True).code == 0
            found = {name: sorted(data.splitlines()) for name, data in home.finals().items()}
            assert found == expected, at
            files = [line["file"] for line in home.lines("manifest.ndjson")]
            assert sorted(files) == sorted(expected), at
            assert list(inspection.verify(Layout(home.out))) == []
            home.remove()
            if not killed:
                break
        assert at > 2 * stride
