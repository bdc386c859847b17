"""Attacks that once succeeded, made again with real processes: each is withstood.

Attacks on one room stand in that room's tests: the directory and its state in test_harvest and
test_directory, campaigns in test_budget, the token command and signals in test_signals, answers in
test_wire_faults, quoting in test_secrets, flipped bits in test_bit_flips.
"""

import asyncio
import fcntl
import gzip
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from crashlab import ROWS, Home, Served, config_of, environment, ids_of, reference, small, until
from faultserver import Answer, Question, World, framed, measured, page, serving
from shell import lines, quick

from harvester import HarvestConfig, HarvestReport, harvest
from harvester.events import Event, PageCommitted, RunFinished
from harvester.sandbox import Sandbox, SandboxSettings

PROMISED = 10.0  # seconds from the signal to the end


def command(home: Home, served: Served, *more: object) -> list[str]:
    """`harvester run` into `home`, from a server."""
    where = ["-o", home.out, "--state-dir", home.state, "--base-url", served.sandbox.base_url]
    how = ["--no-progress", "--rate", "0", "--page-size", ROWS]
    return [sys.executable, "-m", "harvester", "run", *map(str, [*where, *how, *more])]


def quickly(argv: list[str]) -> int:
    """Its exit code, in this process: for what is only a step of a test."""
    return quick(Path.cwd(), *argv[3:]).code


def done(argv: list[str], **settings: Any) -> "subprocess.CompletedProcess[str]":
    """See it end."""
    asked = {"env": environment(), "capture_output": True, "text": True, "timeout": 60, **settings}
    return subprocess.run(argv, check=False, **asked)


# -- another program at the state ----------------------------------------------------------------


def test_a_program_that_holds_the_state_ends_a_start_for_now(tmp_path: Path) -> None:
    """Exit 75 and one sentence, nothing is sent; the same command goes on afterwards."""
    home = Home(tmp_path)
    with Served(small()) as served:
        ids = ids_of(served.sandbox)
        argv = command(home, served, *ids)
        assert quickly([*argv, "--max-requests", "2"]) == 75
        database = home.out / ".harvester" / "state.sqlite"
        with closing(sqlite3.connect(database, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            ended = done(argv)
        assert ended.returncode == 75
        assert "another program holds" in ended.stderr
        assert "state.sqlite" in ended.stderr
        assert "Traceback" not in ended.stderr
        assert len(served.hits()) == 2
        assert quickly(argv) == 0
        home.assert_undisturbed(reference(served.sandbox, ids))


async def test_a_run_keeps_the_state_from_its_first_commit_to_its_end(tmp_path: Path) -> None:
    """Another program may read it at any time, and write when the run is over."""
    database, refused = tmp_path / "out" / ".harvester" / "state.sqlite", 0
    async with small() as sandbox:
        ids = ids_of(sandbox)

        def observe(event: Event) -> None:
            nonlocal refused
            with closing(sqlite3.connect(database, isolation_level=None, timeout=0)) as other:
                other.execute("SELECT count(*) FROM walks").fetchall()
                if not isinstance(event, RunFinished):
                    with pytest.raises(sqlite3.OperationalError, match="locked"):
                        other.execute("BEGIN IMMEDIATE")
                    refused += 1

        report = await harvest(ids, config_of(sandbox, tmp_path), observe=observe)
        assert (report.exit_code, report.message) == (0, None)
        assert refused > 20
        with closing(sqlite3.connect(database, isolation_level=None, timeout=0)) as other:
            other.execute("BEGIN IMMEDIATE")


# -- SIGTERM ends every wait ---------------------------------------------------------------------


@contextmanager
def waiting(kind: str, home: Home, argv: list[str]) -> Iterator["subprocess.Popen[bytes]"]:
    """The command, as it waits for the day's count, the reset, a list of ids or settings."""
    pipe, options, stdin = home.path / "pipe", [], None
    with ExitStack() as stack:
        log = stack.enter_context(home.log.open("wb"))
        match kind:
            case "count":  # held by a process that may have been suspended
                (count,) = home.state.glob("*.json")
                fcntl.flock(stack.enter_context(count.open("rb")), fcntl.LOCK_EX)
            case "reset":
                options = ["--daily-quota", "1", "--wait-for-quota"]
            case "stdin":
                options, stdin = ["-i", "-"], subprocess.PIPE
            case _:
                os.mkfifo(pipe)
                options = [kind, str(pipe)]
        run = [*argv, *options]
        process = stack.enter_context(
            subprocess.Popen(run, env=environment(), stdin=stdin, stderr=log)
        )
        stack.callback(process.kill)
        if process.stdin is not None:
            process.stdin.write(b"# no id\n" * 20_000)  # more than a pipe holds: it is read
        elif pipe.exists():
            stack.callback(os.close, until(lambda: _writer(pipe)))
        else:
            until(lambda: b" into " in home.log.read_bytes())
        yield process


def _writer(pipe: Path) -> int | None:
    """The other end of a pipe that a process reads; None as long as none does."""
    try:
        return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
    except OSError:
        return None


@pytest.mark.parametrize("kind", ["count", "reset", "stdin", "--input", "--config"])
def test_sigterm_ends_every_wait(tmp_path: Path, kind: str) -> None:
    """Within ten seconds, and the same command goes on."""
    home = Home(tmp_path)
    with Served(small()) as served:
        ids = ids_of(served.sandbox)
        argv = command(home, served, *ids)
        assert quickly([*argv, "--max-requests", "1"]) == 75
        with waiting(kind, home, argv) as process:
            process.send_signal(signal.SIGTERM)
            begun = kind in {"count", "reset"}  # before, the system itself ends the process
            assert process.wait(PROMISED) == (143 if begun else -signal.SIGTERM)
        assert len(served.hits()) == 1
        assert quickly(argv) == 0
        home.assert_undisturbed(reference(served.sandbox, ids))


@pytest.mark.parametrize("option", ["--sizes", "--access-token-file", "--api-key-file"])
def test_what_has_to_be_a_file_is_no_pipe(tmp_path: Path, option: str) -> None:
    """It is refused at once: a pipe would be read for ever where no signal ends it."""
    os.mkfifo(tmp_path / "pipe")
    home = Home(tmp_path / "home")
    with Served(small()) as served:
        ended = done(command(home, served, option, tmp_path / "pipe", "7"))
        assert (ended.returncode, served.hits()) == (2, [])
    assert "pipe" in ended.stderr
    assert "regular file" in ended.stderr


def test_a_pipe_in_the_state_folder_is_refused(tmp_path: Path) -> None:
    """In the place of the salt, without which no day's count can be found."""
    home = Home(tmp_path)
    home.state.mkdir()
    os.mkfifo(home.state / "salt")
    with Served(small()) as served:
        ended = done(command(home, served, "7"))
        assert (ended.returncode, served.hits()) == (2, [])
    assert "salt is damaged" in ended.stderr


# -- the token command ---------------------------------------------------------------------------


def test_a_list_and_its_harvest_take_one_token(tmp_path: Path) -> None:
    """A command whose token dies as the next one is made is run once by `run --all-sent`."""
    home, script = Home(tmp_path), tmp_path / "token.sh"
    script.write_text('echo run >>"$0.runs"; echo sandbox-token\n')
    own = environment()
    del own["HARVESTER_ACCESS_TOKEN"]
    with Served(small()) as served:
        argv = command(home, served, "--all-sent", "--token-command", f"sh {script}")
        ended = done(argv, env=own)
        assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "token.sh.runs").read_text() == "run\n"


def test_a_command_that_never_ends_its_output_is_refused(tmp_path: Path) -> None:
    """`yes` costs no memory: what is more than a token is not kept."""
    own = environment()
    del own["HARVESTER_ACCESS_TOKEN"]
    with Served(small()) as served:
        argv = command(Home(tmp_path), served, "--token-command", "yes", "7")
        ended = done(["prlimit", "--as=1500000000", *argv], env=own)
        assert served.hits() == []
    assert ended.returncode in {2, 4}, ended.stderr
    assert "Traceback" not in ended.stderr


# -- the state folder under a run ----------------------------------------------------------------


@pytest.mark.parametrize("how", ["removed", "moved", "restored"])
async def test_no_day_is_overdrawn_where_its_count_is_taken_away(tmp_path: Path, how: str) -> None:
    """Of two runs with 20 requests between them, the first loses the folder after eight and stops
    before its next one."""
    state, old = tmp_path / "state", tmp_path / "old"
    settings = SandboxSettings(campaigns=4, pages=40, rows_per_page=2)
    async with Sandbox(settings) as sandbox:
        ids = sandbox.world.campaign_ids
        pages = 0

        def config(output: str) -> HarvestConfig:
            given = {"output": tmp_path / output, "concurrency": 1, "daily_quota": 20}
            return config_of(sandbox, tmp_path, **given)

        def observe(event: Event) -> None:
            nonlocal pages
            pages += isinstance(event, PageCommitted)
            if pages == 3 and how == "restored" and not old.exists():
                shutil.copytree(state, old)
            if pages == 8 and state.exists():
                if how == "moved":
                    state.rename(old)
                else:
                    shutil.rmtree(state)
                if how == "restored":
                    old.rename(state)

        first = await harvest(ids, config("first"), observe=observe)
        assert (first.exit_code, first.reason) == (1, "storage")
        assert "removed or replaced" in (first.message or "")
        assert sandbox.requests <= 8 + 1
        second: HarvestReport = await harvest(ids, config("second"))
        assert (second.exit_code, second.reason) == (75, "quota_spent")
        assert second.requests.sent <= 20


# -- floods --------------------------------------------------------------------------------------


async def test_a_flood_of_rows_costs_one_campaign_and_little_memory(tmp_path: Path) -> None:
    """21 million rows where 500 were asked for; and a page of 60 MB, honest but for its size, with
    one lone surrogate in it."""
    flood = b'{"meta":{"pagination":{}},"results":[' + b"{}," * 20_900_000 + b"{}]}"
    text = "x" * 120_000
    row = '{{"activity_type":"EMAIL_OPEN","campaign_id":"2","a":"{}{}"}}'
    large = ",".join(row.format(text, "\\ud800" if n == 9 else "") for n in range(500))
    bodies = {"1": flood, "2": b'{"meta":{"pagination":{}},"results":[%s]}' % large.encode()}
    packed = {name: gzip.compress(body, 1, mtime=0) for name, body in bodies.items()}
    answers = {name: Answer(framed(raw, "Content-Encoding: gzip")) for name, raw in packed.items()}

    def script(question: Question) -> Answer:
        return answers.get(question.campaign) or World(pages=1).honest(question)

    async with serving(script) as server:
        found = await measured(["1", "2", "3"], tmp_path, server)
    print(f"peak memory: {found['peak'] / 1e6:.0f} MB")
    assert found["exit_code"] == 3
    assert found["peak"] < 400e6
    assert [line["kind"] for line in lines(tmp_path / "out" / "errors.ndjson")] == ["flood"]
    assert (tmp_path / "out" / "opens" / "2.ndjson").read_bytes().count(b"\n") == 500


# -- other things in the place of files ----------------------------------------------------------


def obstruct(path: Path, thing: str) -> None:
    """Put it in the place of a file."""
    path.unlink(missing_ok=True)
    match thing:
        case "pipe":
            os.mkfifo(path)
        case "directory":
            path.mkdir()
        case _:
            path.symlink_to(thing)


@pytest.mark.parametrize("thing", ["pipe", "directory", "/dev/full"])
@pytest.mark.parametrize("name", [".harvester/lock", "errors.ndjson", "manifest.ndjson"])
def test_what_is_no_file_of_ours_ends_a_start(tmp_path: Path, name: str, thing: str) -> None:
    """One sentence that names it; no command waits for a pipe, or reads a device for ever."""
    home = Home(tmp_path)
    with Served(small()) as served:
        ids = ids_of(served.sandbox)
        argv = command(home, served, *ids)
        assert quickly([*argv, "--max-requests", "2"]) == 75
        obstruct(home.out / name, thing)
        assert quick(tmp_path, "status", str(home.out)).code == 0
        ended = quick(Path.cwd(), *argv[3:])
        assert ended.code == 1
        assert f"cannot use {home.out / name}" in ended.stderr
        assert "make that path usable" in ended.stderr
        assert len(served.hits()) == 2
        path = home.out / name
        path.rmdir() if thing == "directory" else path.unlink()
        assert quickly(argv) == 0
        home.assert_undisturbed(reference(served.sandbox, ids))


def test_a_directory_at_a_final_name_costs_no_request(tmp_path: Path) -> None:
    """Its campaign fails as obstructed in every run, until it is moved away."""
    home = Home(tmp_path)
    with Served(small()) as served:
        ids = ids_of(served.sandbox)
        argv = command(home, served, *ids)
        assert quickly(argv) == 0
        sent = len(served.hits())
        final = home.out / "opens" / f"{ids[0]}.ndjson"
        for _ in range(2):
            if final.is_file():
                obstruct(final, "directory")
            assert quickly(argv) == 3
            assert len(served.hits()) == sent
        assert {line["kind"] for line in lines(home.out / "errors.ndjson")} == {"obstructed"}
        final.rmdir()
        assert quickly(argv) == 0
        assert final.read_bytes() == reference(served.sandbox, ids).files[f"opens/{final.name}"]


def test_a_link_at_a_final_name_is_no_finished_file(tmp_path: Path) -> None:
    """As `verify` says: it is harvested again, and what the link leads to is left alone."""
    home, elsewhere = Home(tmp_path), tmp_path / "elsewhere"
    with Served(small()) as served:
        ids = ids_of(served.sandbox)
        argv = command(home, served, *ids)
        assert quickly(argv) == 0
        final = home.out / "opens" / f"{ids[0]}.ndjson"
        final.rename(elsewhere)
        obstruct(final, str(elsewhere))
        assert quickly(argv) == 0
        home.assert_undisturbed(reference(served.sandbox, ids))
    assert elsewhere.is_file()


def test_a_name_that_is_too_long_is_a_mistake(tmp_path: Path) -> None:
    """Exit 2 and one sentence."""
    ended = quick(tmp_path, "run", "-o", "x" * 300, "7")
    assert ended.code == 2
    assert "(--output): File name too long" in ended.stderr


def losing(home: Path, name: str, at: int) -> Callable[[Event], None]:
    """An observer that takes a file or folder away after so many pages."""
    pages = 0

    def observe(event: Event) -> None:
        nonlocal pages
        if isinstance(event, PageCommitted):
            pages += 1
            if pages == at:
                (home / "out" / name).rename(home / "lost")

    return observe


@pytest.mark.parametrize(
    ("name", "code", "most"),
    [("opens", 1, 9), (".harvester/state.sqlite", 1, 8), ("manifest.ndjson", 1, 39)],
)
async def test_what_is_taken_away_under_a_run_is_noticed(
    tmp_path: Path, name: str, code: int, most: int
) -> None:
    """With the next page or file: nothing more is asked for what has no name any more. Put back,
    or left to the same command, all ends well."""
    settings = SandboxSettings(campaigns=4, pages=40, rows_per_page=5)
    async with Sandbox(settings) as sandbox:
        ids = ids_of(sandbox)
        config = config_of(sandbox, tmp_path, concurrency=1)
        report = await harvest(ids, config, observe=losing(tmp_path, name, 4))
        assert report.exit_code == code
        assert sandbox.requests <= most
        if name != "manifest.ndjson":
            shutil.rmtree(tmp_path / "out" / "opens", ignore_errors=True)
            (tmp_path / "lost").rename(tmp_path / "out" / name)
        assert (await harvest(ids, config)).exit_code == 0
        expected = reference(sandbox, ids)
        found = {f"opens/{path.name}": path for path in (tmp_path / "out" / "opens").iterdir()}
        assert {file: path.read_bytes() for file, path in found.items()} == expected.files
        said = {line["file"] for line in lines(tmp_path / "out" / "manifest.ndjson")}
        assert said == set(expected.files)


# -- endless reports -----------------------------------------------------------------------------


@pytest.mark.parametrize("people", [1, 2])
@pytest.mark.parametrize("first", [1, 3])
async def test_the_same_page_of_equal_rows_for_ever_is_endless(
    tmp_path: Path, people: int, first: int
) -> None:
    """Events of one moment, each cursor new: it looks like a report that moves, and is none."""
    world = World(pages=4)

    def script(question: Question) -> Answer:
        if question.campaign != "1" or question.page < first:
            return world.honest(question)
        rows = [{**world.records("1", 9)[0], "contact_id": str(n % people)} for n in range(4)]
        return Answer(framed(page(rows, world.link("1", question.page + 1))))

    async with serving(script) as server:
        report = await harvest(["1", "2"], server.config(tmp_path))
        assert (report.exit_code, report.campaigns.complete) == (3, 1)
        assert server.seen("1") <= 120  # fifty pages, each looked at once more at most
    (line,) = lines(tmp_path / "out" / "errors.ndjson")
    assert line["kind"] == "endless_cursor"


# -- what always held ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "how", [["-O"], ["-X", "utf8=0"], ["-X", "dev"]], ids=lambda how: "".join(how)
)
def test_any_python_runs_it(tmp_path: Path, how: list[str]) -> None:
    """Without assertions, in the C locale, in development mode."""
    home = Home(tmp_path)
    with Served(small()) as served:
        ids = ids_of(served.sandbox)
        argv = command(home, served, *ids)
        env = environment() | ({"LC_ALL": "C"} if "utf8=0" in how else {})
        ended = done([sys.executable, *how, *argv[1:]], env=env)
        assert ended.returncode == 0, ended.stderr
        home.assert_undisturbed(reference(served.sandbox, ids))


def test_names_from_the_api_cannot_steer_a_terminal(tmp_path: Path) -> None:
    """An error's key and message are shown without what a terminal would act on."""
    evil = "\x1b]0;owned\x07\x1b[2J\u202e"

    async def main() -> str:
        body = json.dumps([{"error_key": evil, "error_message": evil}]).encode()
        refused = Answer(framed(body, status="406 Not Acceptable"))
        async with serving(lambda question: refused) as server:
            argv = [sys.executable, "-m", "harvester", "run", "-o", str(tmp_path / "out")]
            argv += ["--base-url", server.base_url, "--state-dir", str(tmp_path / "state"), "7"]
            ended = await asyncio.to_thread(done, argv)
        assert ended.returncode == 3
        return ended.stderr + ended.stdout + (tmp_path / "out" / "errors.ndjson").read_text()

    said = asyncio.run(main())
    assert "rejected" in said
    assert not set(evil) & set("\x1b\x07\u202e") & set(said)


def test_a_child_of_a_process_that_harvested_harvests_too(tmp_path: Path) -> None:
    """Twice in one process, and once more in a fork of it."""
    code = """
import asyncio, os, sys
from harvester import HarvestConfig, harvest

def run(name):
    config = HarvestConfig(output=f"{sys.argv[1]}/{name}", state_dir=f"{sys.argv[1]}/state",
        base_url=sys.argv[2], rate=0, page_size=5, api_key="sandbox-key",
        access_token="sandbox-token")
    return asyncio.run(harvest(sys.argv[3:], config)).exit_code

codes = [run("first"), run("second")]
child = os.fork()
if not child:
    os._exit(run("third"))
codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
sys.exit(any(codes))
"""
    with Served(small()) as served:
        ids = ids_of(served.sandbox)
        argv = [sys.executable, "-c", code, str(tmp_path), served.sandbox.base_url, *ids]
        ended = done(argv)
        assert ended.returncode == 0, ended.stderr
        expected = reference(served.sandbox, ids)
        for name in ("first", "second", "third"):
            for file, data in expected.files.items():
                assert (tmp_path / name / file).read_bytes() == data
