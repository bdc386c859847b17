"""One directory: one run at a time, one harvest for ever, and commands that tell what is in it."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from crashlab import Ended, Home, Lab, Served, environment, ids_of, in_flight, lab, small, until

from harvester.disk import inspect as inspection
from harvester.disk.layout import Layout

SILENT_AT = 2


@pytest.fixture(scope="module")
def bench() -> Iterator[Lab]:
    """A lab with two runs a test to spare."""
    with lab() as one:
        yield one


def contents(path: Path) -> dict[str, bytes | None]:
    """Every file and directory below, and what is in it."""
    return {
        str(each.relative_to(path)): each.read_bytes() if each.is_file() else None
        for each in sorted(path.rglob("*"))
    }


def look(lab: Lab, home: Home, *argv: str) -> Ended:
    """Run another command, and take what it prints."""
    stdout = home.path / "stdout"
    stdout.unlink(missing_ok=True)
    ended = lab.run(home, argv=[*argv], stdout=str(stdout))
    return Ended(ended.code, ended.stderr, stdout.read_text())


# -- one run at a time ---------------------------------------------------------------------------


@contextmanager
def hanging(home: Home) -> Iterator[tuple[Served, "subprocess.Popen[bytes]", list[str]]]:
    """A run that holds its directory, for its server has stopped answering; its command line."""
    sandbox = small(pinned={(None, SILENT_AT): ["timeout"]})
    with Served(sandbox) as served:
        argv = [
            *("run", "-q", "-o", str(home.out), "--state-dir", str(home.state), "--rate", "0"),
            *("--base-url", sandbox.base_url, "--page-size", "5", *ids_of(sandbox)),
        ]
        with subprocess.Popen([sys.executable, "-m", "harvester", *argv], env=environment()) as run:
            try:
                until(lambda: [page for _, page in served.pages()].count(SILENT_AT) == 2)
                until(lambda: inspection.read_content(Layout(home.out)).campaigns.complete == 2)
                yield served, run, argv
            finally:
                run.kill()


@pytest.mark.parametrize("through", ["the same path", "a symlink", "a relative path", "--fresh"])
def test_a_second_run_is_refused_and_told_of_the_first(
    bench: Lab, tmp_path: Path, through: str
) -> None:
    """The second run in a directory ends at once with exit code 75 and names the first; it sends
    nothing and changes nothing."""
    home = Home(tmp_path / "home")
    with hanging(home) as (served, run, argv):
        link = tmp_path / "link"
        link.symlink_to(home.out)
        other = {
            "a symlink": str(link),
            "a relative path": os.path.relpath(home.out),
        }.get(through, str(home.out))
        argv = [other if each == str(home.out) else each for each in argv]
        if through == "--fresh":
            argv.append("--fresh")
        before, asked = contents(home.out), len(served.hits())
        ended = bench.run(Home(tmp_path / "second"), argv=argv)
        assert ended.code == 75
        (line,) = ended.stderr.splitlines()
        assert f"process {run.pid}" in line
        assert other in line
        assert contents(home.out) == before
        assert len(served.hits()) == asked
        assert run.poll() is None


def test_status_tells_of_a_run_under_way(bench: Lab, tmp_path: Path) -> None:
    """While a run holds the directory, `status` says so, with its process, and disturbs nothing."""
    home = Home(tmp_path / "home")
    with hanging(home) as (_, run, _):
        said = look(bench, Home(tmp_path / "look"), "status", str(home.out))
        assert said.code == 0
        assert f"process {run.pid}" in said.stdout
        assert re.search(r"\b2 complete\b", said.stdout)
        assert re.search(r"\b2 partial\b", said.stdout)


def test_kill_9_frees_the_directory(bench: Lab, tmp_path: Path) -> None:
    """After kill -9 the next run has the directory at once and finishes it."""
    home = Home(tmp_path / "home")
    with hanging(home) as (served, run, argv):
        run.send_signal(signal.SIGKILL)
        run.wait(30)
        ended = bench.run(home, argv=argv)
        assert ended.code == 0, ended.stderr
        assert len(served.hits()) <= bench.expected.requests + in_flight(16)
    home.assert_undisturbed(bench.expected)


def test_runs_in_other_directories_go_on_side_by_side(bench: Lab, tmp_path: Path) -> None:
    """The lock is the directory's: another directory is free."""
    with hanging(Home(tmp_path / "one")) as (_, run, argv):
        home = Home(tmp_path / "two")
        argv = [str(home.out) if each.endswith("/one/out") else each for each in argv]
        assert bench.run(home, argv=argv).code == 0
        assert run.poll() is None


# -- one harvest for ever ------------------------------------------------------------------------


OTHERS = {
    "since": (("--since", "2020-01-01"), "--since was 'not given' and is '2020-01-01"),
    "page size": (("--page-size", "7"), "--page-size was '5' and is '7'"),
    "base URL": (("--base-url", "http://127.0.0.1:1"), "is 'http://127.0.0.1:1'"),
    "compression": (("--compress", "gzip"), "--compress was 'not given' and is 'gzip'"),
}


@pytest.mark.parametrize("state", ["stopped", "complete"])
@pytest.mark.parametrize("other", OTHERS)
def test_another_harvest_is_refused_and_changes_nothing(
    bench: Lab, tmp_path: Path, other: str, state: str
) -> None:
    """Other settings in the same directory end with exit code 2, naming the difference, with
    nothing sent and nothing changed; the first settings still go on."""
    options, difference = OTHERS[other]
    home = Home(tmp_path / "home")
    stopped = bench.run(home, *(() if state == "complete" else ("--max-requests", "3")))
    assert stopped.code == (0 if state == "complete" else 75)
    before, asked = contents(home.out), bench.seen()
    ended = bench.run(home, *options)
    assert ended.code == 2
    (line,) = ended.stderr.splitlines()
    assert difference in line
    assert str(home.out) in line
    assert "--fresh" in line
    assert contents(home.out) == before
    assert bench.seen() == asked
    assert bench.run(home).code == 0
    home.assert_undisturbed(bench.expected)


def test_what_does_not_shape_the_files_may_change(bench: Lab, tmp_path: Path) -> None:
    """Pace, concurrency, retries and timeouts may differ from run to run."""
    home = Home(tmp_path / "home")
    assert bench.run(home, "-j", "1", "--max-requests", "3").code == 75
    more = ("-j", "3", "--rate", "500", "--retries", "1", "--timeout", "9", "--max-wait", "7")
    assert bench.run(home, *more).code == 0
    home.assert_undisturbed(bench.expected)


def test_fresh_starts_over_and_says_what_it_removes(bench: Lab, tmp_path: Path) -> None:
    """`--fresh` removes the harvest, says how much that was, leaves foreign files alone, and begins
    at the first page, also with other settings."""
    home = Home(tmp_path / "home")
    assert bench.run(home, "-j", "1", "--max-requests", "6").code == 75
    ours = [
        path for path in home.out.rglob("*") if path.is_file() and ".harvester" not in str(path)
    ]
    size = sum(path.stat().st_size for path in ours)
    (home.out / "opens" / "notes.txt").write_text("mine")
    before = bench.seen()
    ended = bench.run(home, "--fresh")
    assert ended.code == 0, ended.stderr
    removed = f"an earlier harvest is removed: {len(ours)} files, {size:,} bytes"
    assert removed in ended.stderr
    assert bench.seen() - before == bench.expected.requests
    assert (home.out / "opens" / "notes.txt").read_text() == "mine"
    (home.out / "opens" / "notes.txt").unlink()
    home.assert_undisturbed(bench.expected)
    packed = bench.run(home, "--fresh", "--compress", "gzip")
    assert packed.code == 0
    home.assert_undisturbed(bench.expected.packed(home.finals()))


@pytest.mark.parametrize("stride", [3, pytest.param(1, marks=pytest.mark.long)])
def test_fresh_can_be_killed_anywhere(bench: Lab, root: Path, stride: int) -> None:
    """Killed while it removes or begins, `--fresh` leaves nothing that is called finished and is
    not; the same command ends as in an empty directory."""
    whole = Home(root / "whole")
    assert bench.run(whole).code == 0
    for at in range(1, 60, stride):
        home = whole.copy(root / str(at))
        ended = bench.run(home, "--fresh", kill_at=at)
        assert ended.killed
        home.assert_no_half_file(bench.expected)
        assert bench.run(home, "--fresh").code == 0
        home.assert_undisturbed(bench.expected)
        home.remove()


def test_files_of_unknown_origin_are_not_written_over(bench: Lab, tmp_path: Path) -> None:
    """Files with our names, but no state of ours, are refused and left as they are."""
    home = Home(tmp_path / "home")
    untracked = home.out / "opens" / f"{bench.ids[0]}.ndjson"
    untracked.parent.mkdir(parents=True)
    untracked.write_text("whose?\n")
    before = bench.seen()
    ended = bench.run(home)
    assert ended.code == 2
    assert untracked.name in ended.stderr
    assert untracked.read_text() == "whose?\n"
    assert bench.seen() == before


# -- the same command again ----------------------------------------------------------------------


def test_finished_campaigns_cost_no_request(bench: Lab, tmp_path: Path) -> None:
    """Run again, a complete harvest sends nothing and changes no file of it."""
    home = Home(tmp_path / "home")
    assert bench.run(home).code == 0
    kept = {name: data for name, data in contents(home.out).items() if "opens" in name}
    manifest, before = home.lines("manifest.ndjson"), bench.seen()
    assert bench.run(home).code == 0
    assert bench.seen() == before
    assert home.lines("manifest.ndjson") == manifest
    assert {name: data for name, data in contents(home.out).items() if "opens" in name} == kept
    home.assert_undisturbed(bench.expected)


def test_new_ids_join(bench: Lab, tmp_path: Path) -> None:
    """Ids that were not there before are harvested beside the others, which are left alone."""
    home = Home(tmp_path / "home")
    first = [each for each in bench.argv(home) if each not in bench.ids[2:]]
    assert bench.run(home, argv=first).code == 0
    before = bench.seen()
    assert bench.run(home).code == 0
    assert {campaign for campaign, _ in bench.served.pages()[before:]} == set(bench.ids[2:])
    home.assert_undisturbed(bench.expected)


def test_a_campaign_that_is_not_there_is_asked_for_once(bench: Lab, tmp_path: Path) -> None:
    """A 404 is an answer: no later run asks again, unless it is told to with `--retry-failed`."""
    home, absent = Home(tmp_path / "home"), "999"
    argv = [*bench.argv(home), absent]

    def asked(*more: str) -> list[str]:
        before = bench.seen()
        assert bench.run(home, argv=[*argv, *more]).code == 3
        return [hit.path.split("/")[4] for hit in bench.served.hits()[before:]]

    assert asked().count(absent) == 1
    assert asked() == []
    assert home.summary()["campaigns"]["failed"] == 1
    assert asked("--retry-failed") == [absent]
    kinds = [(line["campaign_id"], line["kind"]) for line in home.lines("errors.ndjson")]
    assert kinds == [(absent, "not_found")] * 2
    home.assert_no_half_file(bench.expected)
    assert home.finals() == bench.expected.files


def test_a_campaign_that_failed_in_passing_is_tried_again(tmp_path: Path) -> None:
    """What may pass is asked for again by the same command, from where it was left."""
    sandbox = small()
    long = ids_of(sandbox)[0]
    with lab(small(pinned={(long, 3): ["error500", "error500"]})) as one:
        home = Home(tmp_path / "home")
        assert one.run(home, "--retries", "1").code == 3
        (line,) = home.lines("errors.ndjson")
        assert (line["campaign_id"], line["status"], line["pages"]) == (long, 500, 2)
        before = one.seen()
        assert one.run(home, "--retries", "1").code == 0
        assert one.served.pages()[before:] == [(long, 3), (long, 4)]
        assert home.finals() == one.expected.files


# -- status and verify ---------------------------------------------------------------------------


@pytest.fixture
def done(bench: Lab, tmp_path: Path) -> Home:
    """A complete harvest."""
    home = Home(tmp_path / "done")
    assert bench.run(home).code == 0
    return home


def test_verify_finds_nothing_in_a_good_harvest(bench: Lab, done: Home) -> None:
    """Untouched, every file is as the manifest says: exit code 0, and nothing on stdout."""
    before = contents(done.out)
    said = look(bench, done, "verify", str(done.out))
    assert (said.code, said.stdout) == (0, "")
    after = contents(done.out)
    assert json.loads(after.pop(".harvester/verified.json"))["differences"] == 0
    assert after == before


def _flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(bytes(data))


def _drop_a_line(file: Path) -> None:
    file.write_bytes(b"".join(file.read_bytes().splitlines(keepends=True)[:-1]))


def _break_a_line(file: Path) -> None:
    data = file.read_bytes()
    file.write_bytes(data[:50] + b"\n" + data[51:])


DAMAGES: dict[str, Callable[[Path], None]] = {
    "a flipped byte": _flip,
    "a missing line": _drop_a_line,
    "a line more in the same bytes": _break_a_line,
    "a missing file": Path.unlink,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_verify_finds_damage(bench: Lab, done: Home, damage: str) -> None:
    """`verify` ends with exit code 3 and names the one file that is not what it was."""
    name = f"opens/{bench.ids[0]}.ndjson"
    DAMAGES[damage](done.out / name)
    said = look(bench, done, "verify", str(done.out))
    assert said.code == 3
    assert {line.partition(":")[0] for line in said.stdout.splitlines()} == {name}


@pytest.mark.parametrize("compress", ["gzip", "zstd"])
@pytest.mark.parametrize("damage", ["a flipped byte", "a missing file"])
def test_verify_finds_damage_in_compressed_files(
    bench: Lab, tmp_path: Path, compress: str, damage: str
) -> None:
    """Compressed files are checked as well, to the byte and to the row."""
    home = Home(tmp_path / "home")
    assert bench.run(home, "--compress", compress).code == 0
    assert look(bench, home, "verify", str(home.out)).code == 0
    (name,) = [name for name in home.finals() if bench.ids[0] in name]
    DAMAGES[damage](home.out / name)
    said = look(bench, home, "verify", str(home.out))
    assert said.code == 3
    assert {line.partition(":")[0] for line in said.stdout.splitlines()} == {name}


def test_verify_finds_a_file_too_many(bench: Lab, done: Home) -> None:
    """A final name that the manifest does not know is named."""
    (done.out / "opens" / "31337.ndjson").write_text("{}\n")
    said = look(bench, done, "verify", str(done.out))
    assert said.code == 3
    assert said.stdout.startswith("opens/31337.ndjson: ")


def test_verify_finds_a_line_that_the_manifest_lost(bench: Lab, done: Home) -> None:
    """A finished file without its line in the manifest is named, and so is a broken line."""
    manifest = done.out / "manifest.ndjson"
    lines = manifest.read_bytes().splitlines(keepends=True)
    manifest.write_bytes(b"".join(lines[:-1]))
    said = look(bench, done, "verify", str(done.out))
    assert said.code == 3
    assert "manifest" in said.stdout
    manifest.write_bytes(b"".join(lines)[:-9])
    assert look(bench, done, "verify", str(done.out)).code == 3


@pytest.mark.parametrize("command", ["verify", "status"])
def test_a_directory_without_a_harvest_is_a_usage_error(
    bench: Lab, tmp_path: Path, command: str
) -> None:
    """Where there is nothing to look at, that is said, with exit code 2, and nothing is made."""
    home = Home(tmp_path / "home")
    said = look(bench, home, command, str(home.out))
    assert said.code == 2
    assert str(home.out) in said.stderr
    assert not home.out.exists()


def test_status_counts_and_tells_the_reason(bench: Lab, tmp_path: Path) -> None:
    """`status` shows how many campaigns are in which state, why the last run stopped, and when the
    same command can go on; it changes nothing."""
    home = Home(tmp_path / "home")
    assert bench.run(home, "-j", "1", "--daily-quota", "5").code == 75
    before = contents(home.out)
    said = look(bench, home, "status", str(home.out))
    assert said.code == 0
    for line in ("4 campaigns known", "1 complete", "0 failed", "1 partial", "2 pending"):
        assert re.search(rf"\b{line}\b", said.stdout), said.stdout
    assert "quota_spent" in said.stdout
    assert home.summary()["resume_at"] in said.stdout
    assert contents(home.out) == before
    home.state.joinpath("none").touch()
    assert bench.run(home, "--daily-quota", "0").code == 0
    said = look(bench, home, "status", str(home.out))
    assert re.search(r"\b4 complete\b", said.stdout)
    assert ": complete" in said.stdout


@pytest.mark.parametrize("name", ["a #1", "what?mode=rw", "100%41", "ünï"])
def test_a_directory_may_have_any_name(bench: Lab, tmp_path: Path, name: str) -> None:
    """A directory whose name means something in a URL is a directory like any other."""
    home = Home(tmp_path / name)
    assert bench.run(home).code == 0
    home.assert_undisturbed(bench.expected)
    said = look(bench, home, "status", str(home.out))
    assert said.code == 0, said.stderr
    assert re.search(r"\b4 complete\b", said.stdout)
    assert look(bench, home, "verify", str(home.out)).code == 0
