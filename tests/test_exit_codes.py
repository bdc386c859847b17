"""Every exit code of the contract, provoked with the real process.

0 complete · 1 a bug or a broken disk · 2 usage · 3 some failed · 4 refused · 75 stopped early ·
129, 130, 143 signals.
"""

import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from crashlab import Served, until
from shell import (
    Done,
    assert_harvested,
    called,
    command,
    finals,
    harvester,
    lines,
    quick,
    summary_of,
    surroundings,
)

from harvester.disk.layout import Layout
from harvester.disk.lock import locked
from harvester.reporting.summary import EXIT_CODES
from harvester.sandbox import Sandbox, SandboxSettings

ROWS = 5
NOW = datetime.now(UTC)


@contextmanager
def served(**more: Any) -> Iterator[Served]:
    """Four campaigns on eight pages, with something wrong."""
    asked = {"campaigns": 4, "pages": 8, "rows_per_page": ROWS, "unsent": 0, **more}
    with Served(Sandbox(SandboxSettings(**asked))) as server:
        yield server


def arguments(server: Served, *more: object, rate: float = 0) -> list[object]:
    """A run of every campaign into `out`."""
    sandbox = server.sandbox
    return [
        *("run", "-o", "out", "--base-url", sandbox.base_url, "--rate", rate),
        *("--page-size", ROWS, "--no-progress", *more, *sandbox.world.campaign_ids),
    ]


def run(home: Path, server: Served, *more: object, **how: Any) -> Done:
    """See it end."""
    return harvester(home, *arguments(server, *more), **how)


def assert_told(home: Path, code: int, reason: str) -> dict[str, Any]:
    """summary.json says the same as the exit code; its content."""
    summary = summary_of(home / "out")
    assert (summary["exit_code"], summary["reason"]) == (code, reason)
    assert EXIT_CODES[reason] == code
    return summary


def moment(text: str) -> datetime:
    """A time in a report."""
    found = datetime.fromisoformat(text)
    assert found.utcoffset() == timedelta(0)
    return found


def assert_goes_on(home: Path, server: Served, *more: object) -> None:
    """The same command, allowed to end this time, ends complete."""
    done = quick(home, *arguments(server, *more))
    assert done.code == 0, done.stderr
    assert_harvested(home / "out", server.sandbox, server.sandbox.world.campaign_ids)


def test_0_when_every_campaign_is_complete(tmp_path: Path) -> None:
    """Faults that heal leave no trace but in retries.ndjson."""
    faults = {(None, 1): ["error503"], (None, 2): ["reset"]}
    with served(pinned=faults) as server:
        done = run(tmp_path, server)
        assert done.code == 0, done.stderr
        summary = assert_told(tmp_path, 0, "complete")
        assert summary["resume_at"] is None
        assert summary["requests"]["retried"] == len(lines(tmp_path / "out/retries.ndjson")) > 0
        assert_harvested(tmp_path / "out", server.sandbox, server.sandbox.world.campaign_ids)


# -- 1 -------------------------------------------------------------------------------------------

BROKEN = """
import sys
from harvester.reporting import summary
import importlib

def broken(*anything, **named):
    raise RuntimeError("sandbox-key and sandbox-token stand in this message")

importlib.import_module(sys.argv[1]).__dict__[sys.argv[2]] = broken
from harvester.cli import main
sys.exit(main(sys.argv[3:]))
"""


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("harvester.run", "open_directory"),
        ("harvester.reporting.run_end", "conclude"),
        ("harvester.cli.run", "open_screen"),
    ],
)
def test_1_for_a_bug(tmp_path: Path, module: str, name: str) -> None:
    """A bug is one line: its type and its place, without its message, which could hold a secret."""
    with served() as server:
        bug = ["-c", BROKEN, module, name, *arguments(server)]
        done = subprocess.run(
            [sys.executable, *map(str, bug)],
            cwd=tmp_path,
            env=surroundings(tmp_path),
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert re.search(r"harvester: error: a bug in harvester \S+: RuntimeError at \S+:\d+$", last)
    assert "Traceback" not in done.stderr
    assert "sandbox-key" not in done.stderr
    assert "sandbox-token" not in done.stderr


def test_1_for_a_full_disk(tmp_path: Path) -> None:
    """A disk that takes no more ends the run with one line that names the file; with room again the
    same command goes on."""
    limited = ("/bin/sh", "-c", 'ulimit -f 64; exec "$@"', "sh")
    with served(campaigns=4, pages=2_000, rows_per_page=ROWS) as server:
        done = run(tmp_path, server, "-q", wrap=limited)
        assert done.code == 1, done.stderr
        assert len(done.complaints) == 1
        assert str(tmp_path / "out") in done.stderr or "out/" in done.stderr
        assert "a bug" not in done.stderr


# -- 2 -------------------------------------------------------------------------------------------

MISTAKES: dict[str, Sequence[str]] = {
    "an unknown option": ["--no-such-option"],
    "a rate below zero": ["--rate", "-1"],
    "a page size of 501": ["--page-size", "501"],
    "an unknown report": ["--report", "openings"],
    "a moment without a zone": ["--since", "2026-01-01T00:00"],
    "an origin in the open": ["--base-url", "http://api.example"],
    "a file that is not there": ["--config", "nowhere.toml"],
    "no key in the key file": ["--api-key-file", "/dev/null"],
    "a token command that fails": ["--token-command", "false"],
    "a token command that is none": ["--token-command", "/no/such/command"],
    "an id that is none": ["../x"],
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_2_for_a_mistake_in_the_call(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    mistake: str,
) -> None:
    """Nothing is sent and nothing is written."""
    with served() as server:
        whole = arguments(server, *MISTAKES[mistake])
        done = called(tmp_path, monkeypatch, capsys, *whole)
        assert done.code == 2, done.stderr
        assert server.sandbox.requests == 0
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert "a bug" not in done.stderr
    assert not (tmp_path / "out").exists()


def untrack(out: Path) -> None:
    """Take the state away from finished files."""
    shutil.rmtree(out / ".harvester")


REFUSED: dict[str, tuple[int, str, list[str], Callable[[Path], Any]]] = {
    "page size": (2, "--page-size was '5' and is '77'", ["--page-size", "77"], str),
    "since": (2, "--since was", ["--since", "2026-01-01"], str),
    "compress": (2, "--compress was", ["--compress", "gzip"], str),
    "no state": (2, "but no state of it", [], untrack),
    "sizes": (2, "is no manifest.ndjson", ["--sizes", __file__], str),
    "state folder": (2, "--state-dir", ["--state-dir", __file__], str),
    "locked": (
        75,
        "another run works in",
        [],
        lambda out: locked(Layout(out), now=NOW),
    ),
}


@pytest.mark.parametrize("refused", REFUSED)
def test_what_can_be_refused_is_refused_before_anything_is_sent(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    refused: str,
) -> None:
    """Neither a request for the list nor one for a token, nor is a command run that makes one."""
    code, why, options, before = REFUSED[refused]
    (tmp_path / "token.sh").write_text("echo run >>runs; echo sandbox-token\n")
    env = surroundings(tmp_path)
    del env["HARVESTER_ACCESS_TOKEN"]
    with served() as server, ExitStack() as stack:
        assert quick(tmp_path, *arguments(server)).code == 0
        sent = server.sandbox.requests
        files = finals(tmp_path / "out")
        if isinstance(held := before(tmp_path / "out"), AbstractContextManager):
            stack.enter_context(held)
        whole = arguments(server, "--token-command", "sh token.sh", "--all-sent", *options)
        done = called(tmp_path, monkeypatch, capsys, *whole, env=env)
        assert done.code == code
        assert why in done.stderr
        assert server.sandbox.requests == sent
        assert finals(tmp_path / "out") == files
    assert not (tmp_path / "runs").exists()


# -- 3, 4 ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ("html", "unreadable"),
        ("error500", "server_error"),
        ("foreign_link", "foreign_link"),
        ("loop", "looping_cursor"),
    ],
)
def test_3_when_some_campaigns_failed(tmp_path: Path, fault: str, kind: str) -> None:
    """The run is over, the others are complete, and errors.ndjson has the reason."""
    sick = Sandbox(SandboxSettings(campaigns=4, pages=8, rows_per_page=ROWS)).world.campaign_ids[0]
    with served(pinned={(sick, 1): fault}) as server:
        done = run(tmp_path, server, "--retries", 1)
        assert done.code == 3, done.stderr
        others = [each for each in server.sandbox.world.campaign_ids if each != sick]
        assert_harvested(tmp_path / "out", server.sandbox, others)
    (error,) = lines(tmp_path / "out/errors.ndjson")
    assert (error["campaign_id"], error["kind"]) == (sick, kind)
    assert assert_told(tmp_path, 3, "failures")["campaigns"]["failed"] == 1
    assert re.search(rf"failed  1 {kind}, as opens/{sick}: \S", done.stderr)
    assert "out/errors.ndjson" in done.stderr


@pytest.mark.parametrize("which", ["HARVESTER_API_KEY", "HARVESTER_ACCESS_TOKEN"])
def test_4_when_the_key_or_the_token_is_refused(tmp_path: Path, which: str) -> None:
    """Everything stops after a handful of requests, and every campaign waits for a good one."""
    with served() as server:
        env = surroundings(tmp_path, **{which: "something-else"})
        done = run(tmp_path, server, env=env)
        assert done.code == 4, done.stderr
        assert server.sandbox.requests <= 20
        assert finals(tmp_path / "out") == set()
        assert assert_told(tmp_path, 4, "credentials_refused")["campaigns"]["failed"] == 0
        assert "something-else" not in done.stderr
        assert_goes_on(tmp_path, server)


# -- 75 ------------------------------------------------------------------------------------------


def assert_midnight(text: str) -> None:
    """A moment at which a UTC day begins, within a day from now."""
    found = moment(text)
    assert (found.hour, found.minute, found.second) == (0, 0, 0)
    assert timedelta(0) < found - datetime.now(UTC) <= timedelta(days=1)


def test_75_when_the_quota_is_spent_by_our_count(tmp_path: Path) -> None:
    """Three requests a day are three requests; the run says when it can go on."""
    with served() as server:
        done = run(tmp_path, server, "--daily-quota", 3)
        assert done.code == 75, done.stderr
        assert server.sandbox.statuses == {200: 3}
        summary = assert_told(tmp_path, 75, "quota_spent")
        assert_midnight(summary["resume_at"])
        assert (summary["quota"]["limit"], summary["quota"]["used_today"]) == (3, 3)
        assert "not before" in done.stderr
        again = run(tmp_path, server, "--daily-quota", 3)
        assert again.code == 75
        assert server.sandbox.requests == 3
        assert_goes_on(tmp_path, server, "--daily-quota", 0)
        assert server.sandbox.requests == 8


def test_75_when_the_reserve_is_all_that_is_left(tmp_path: Path) -> None:
    """What is reserved for others is left to them."""
    with served() as server:
        done = run(tmp_path, server, "--daily-quota", 5, "--quota-reserve", 3)
        assert done.code == 75, done.stderr
        assert server.sandbox.requests == 2


def test_75_when_the_api_says_that_the_day_is_spent(tmp_path: Path) -> None:
    """The API knows better than our count; at most what was under way is sent after that."""
    with served(quota=3) as server:
        done = run(tmp_path, server, "-j", 1)
        assert done.code == 75, done.stderr
        assert server.sandbox.statuses == {200: 3, 403: 1}
        resume_at = assert_told(tmp_path, 75, "quota_spent")["resume_at"]
        now = datetime.now(UTC)
        if now.hour == 0 and now.minute <= 15:  # the API's new day may be late: it is asked soon
            assert timedelta(0) < moment(resume_at) - now <= timedelta(minutes=15)
        else:
            assert_midnight(resume_at)


def test_75_after_as_many_requests_as_were_allowed(tmp_path: Path) -> None:
    """`--max-requests` is exact, and the same command goes on at once."""
    with served() as server:
        done = run(tmp_path, server, "--max-requests", 5)
        assert done.code == 75, done.stderr
        assert server.sandbox.requests == 5
        summary = assert_told(tmp_path, 75, "max_requests")
        assert moment(summary["resume_at"]) <= datetime.now(UTC)
        assert_goes_on(tmp_path, server, "--max-requests", 5)
        assert server.sandbox.requests == 8


def test_75_after_as_long_as_was_allowed(tmp_path: Path) -> None:
    """`--max-duration` ends a run that has more to do."""
    with served() as server:
        done = harvester(tmp_path, *arguments(server, "--max-duration", 0.3, rate=2))
        assert done.code == 75, done.stderr
        assert server.sandbox.requests < 8
        assert_told(tmp_path, 75, "max_duration")
        assert_goes_on(tmp_path, server)


def test_75_for_a_sick_server(tmp_path: Path) -> None:
    """A server that only fails gets some hundreds of requests, not thousands; the campaigns are not
    blamed for it."""
    with served(campaigns=400, pages=400, faults={"error500": 1.0}, heal_after=None) as server:
        done = run(tmp_path, server, "-j", 300, "-q")
        assert done.code == 75, done.stderr
        assert server.sandbox.requests < 1_000
    summary = assert_told(tmp_path, 75, "sick_server")
    assert moment(summary["resume_at"]) > datetime.now(UTC)
    assert summary["campaigns"]["complete"] == 0
    assert summary["campaigns"]["failed"] < 100


@pytest.mark.parametrize(
    ("fault", "reason"), [("throttle429", "throttled"), ("error503", "set_aside")]
)
def test_75_when_asked_to_wait_for_too_long(tmp_path: Path, fault: str, reason: str) -> None:
    """A throttle of an hour stops every worker, a 503 of an hour sets its campaign aside; both say
    when to come again, and then the same command goes on."""
    sick = Sandbox(SandboxSettings(campaigns=4, pages=8, rows_per_page=ROWS)).world.campaign_ids[3]
    with served(pinned={(sick, 1): [fault]}, retry_after="3600") as server:
        done = run(tmp_path, server, "-j", 1)
        assert done.code == 75, done.stderr
        summary = assert_told(tmp_path, 75, reason)
        wait = moment(summary["resume_at"]) - datetime.now(UTC)
        assert timedelta(minutes=55) < wait <= timedelta(hours=1)
        assert summary["campaigns"]["complete"] == 3
        assert_goes_on(tmp_path, server, "-j", 1)


# -- 129, 130, 143 -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGHUP, 129), (signal.SIGINT, 130), (signal.SIGTERM, 143)]
)
def test_a_signal_is_told_by_the_exit_code(tmp_path: Path, number: int, code: int) -> None:
    """128 and its number; what had come is saved, and the same command goes on."""
    with served() as server:
        process = subprocess.Popen(
            command(*arguments(server, rate=1)),
            cwd=tmp_path,
            env=surroundings(tmp_path),
            stderr=subprocess.PIPE,
        )
        with process:
            until(lambda: (tmp_path / "out/manifest.ndjson").exists() and server.hits())
            process.send_signal(number)
            _, complaint = process.communicate(timeout=60)
        assert process.returncode == code, complaint
        assert b"next step  harvester run -o out" in complaint
        assert server.sandbox.requests < 8
        assert_told(tmp_path, code, signal.Signals(number).name)
        assert_goes_on(tmp_path, server)
        assert server.sandbox.requests == 8
