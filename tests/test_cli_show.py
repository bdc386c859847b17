"""What a person sees: log lines in a pipe, a live display on a terminal, a table at the end."""

import fcntl
import json
import logging
import os
import pty
import re
import signal
import struct
import subprocess
import termios
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from crashlab import Served, until
from fakes import FakeClock
from rich.console import Console
from shell import Done, command, harvester, lines, summary_of, surroundings

from harvester.cli.closing import NEXT_STEP, closing_lines, next_step
from harvester.cli.show import display, open_screen
from harvester.config import HarvestConfig
from harvester.events import CampaignFailed, CampaignSkipped, Event, RunStarted
from harvester.model import Target
from harvester.reporting.counters import Counters
from harvester.reporting.progress import Figures
from harvester.reporting.summary import EXIT_CODES, Campaigns, HarvestReport, Quota, Requests
from harvester.sandbox import Sandbox, SandboxSettings

ROWS = 5
TEXT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ (info|warning|debug|request) +\S.*")


@pytest.fixture
def served() -> Iterator[Served]:
    """Five campaigns on eight pages; the first page of each fails once, one campaign for good."""
    sick = Sandbox(SandboxSettings(campaigns=5, pages=8, rows_per_page=ROWS)).world.campaign_ids[0]
    pinned = {(None, 1): ["error500"], (sick, 1): "html"}
    with Served(
        Sandbox(SandboxSettings(campaigns=5, pages=8, rows_per_page=ROWS, pinned=pinned))
    ) as server:
        yield server


def run(home: Path, served: Served, *more: object) -> Done:
    """A run of everything, that comes to exit code 3."""
    sandbox = served.sandbox
    done = harvester(
        home,
        *("run", "-o", "out", "--base-url", sandbox.base_url, "--rate", 0, "--retries", 1),
        *("--page-size", ROWS, *more, *sandbox.world.campaign_ids),
    )
    assert done.code == 3, done.stderr
    return done


def table_of(done: Done) -> dict[str, str]:
    """The closing table."""
    _, _, table = done.stderr.partition("\n\n")
    found: dict[str, str] = {}
    for line in table.splitlines():
        name, text = line[:10].strip(), line[12:]
        found[name] = f"{found[name]}\n{text}" if name in found else text
    return found


# -- log lines -----------------------------------------------------------------------------------


@pytest.mark.parametrize("verbose", [[], ["-v"], ["-vv"]])
def test_every_line_of_the_log_has_a_time_and_a_level(
    tmp_path: Path, served: Served, verbose: list[str]
) -> None:
    """One fact a line, UTC, and more of them with each -v: the run and its troubles, each campaign,
    each request."""
    done = run(tmp_path, served, *verbose)
    log, _, _ = done.stderr.partition("\n\n")
    found = [TEXT.fullmatch(line) for line in log.splitlines()]
    assert all(found), log
    levels = {match[1] for match in found if match}
    expected = [{"info", "warning"}, {"debug"}, {"request"}]
    assert levels == set().union(*expected[: len(verbose) and len(verbose[0])], expected[0])
    assert "html" not in done.stdout
    assert done.stdout == ""


def test_json_lines_are_json_from_the_first_to_the_last(tmp_path: Path, served: Served) -> None:
    """With --log-format json nothing else stands on standard error."""
    done = run(tmp_path, served, "--log-format", "json", "-vv")
    found = [json.loads(line) for line in done.complaints]
    for line in found:
        assert datetime.fromisoformat(line["at"]).tzinfo == UTC
        assert line["level"] in {"info", "warning", "debug", "request"}
        assert line["message"]
        assert re.fullmatch(r"[a-z_]+", line["event"])
    assert found[0]["event"] == "run_started"
    assert found[0]["reports"] == ["opens"]
    retries = [line for line in found if line["event"] == "retry_scheduled"]
    assert {line["cause"] for line in retries} == {"server_error", "unreadable"}
    assert all(line["report"] == "opens" and line["page"] == 1 for line in retries)
    (failed,) = [line for line in found if line["event"] == "campaign_failed"]
    assert (failed["kind"], failed["level"]) == ("unreadable", "warning")
    ended = found[-1]
    assert ended["event"] == "run_finished"
    assert (ended["reason"], ended["exit_code"]) == ("failures", 3)
    run_ids = {line["run_id"] for line in found if "run_id" in line}
    assert run_ids == {summary_of(tmp_path / "out")["run_id"]}


def test_the_heartbeat_is_a_line_with_all_figures(
    monkeypatch: pytest.MonkeyPatch, clock: FakeClock, capsys: pytest.CaptureFixture[str]
) -> None:
    """In JSON with its fields, in text with the same figures; it is due after 15 seconds; a
    path that is no text does not stop it."""
    monkeypatch.setattr(logging.getLogger("harvester"), "handlers", [])
    monkeypatch.setattr("harvester.cli.show.Clock", lambda: clock)
    for log_format in ("json", "text"):
        screen = open_screen(quiet=False, verbose=0, live=True, log_format=log_format)
        screen.observe(
            RunStarted(
                run_id="r",
                output=os.fsdecode(b"out\xff") if log_format == "json" else "out",
                total=3,
                reports=("opens",),
                rate=3.3,
                quota_limit=10_000,
                used_today=7,
            )
        )
        for _ in range(3):
            clock.advance(7.5)
            screen.tick()
    first, beat, text, words = capsys.readouterr().err.splitlines()
    assert json.loads(first)["output"] == "out?"
    found = json.loads(beat)
    assert (found["event"], found["requests_left"], found["at_least"]) == ("heartbeat", 3, True)
    assert found["message"] in words
    assert "into out" in text


def test_quiet_says_only_what_is_wrong(tmp_path: Path, served: Served) -> None:
    """-q leaves the warnings; no table, no course of the run."""
    done = run(tmp_path, served, "-q")
    (line,) = done.complaints
    match = TEXT.fullmatch(line)
    assert match is not None
    assert match[1] == "warning"
    assert "failed: unreadable" in line
    assert done.stdout == ""


def test_json_on_stdout_is_the_summary_and_nothing_else(tmp_path: Path, served: Served) -> None:
    """--json prints summary.json; everything for people is on standard error."""
    done = run(tmp_path, served, "--json")
    assert done.stdout == (tmp_path / "out/summary.json").read_text()
    assert json.loads(done.stdout)["reason"] == "failures"
    assert "campaigns  4 of 5 complete" in done.stderr


# -- the closing table ---------------------------------------------------------------------------


def test_the_table_says_what_was_done_what_failed_and_why(tmp_path: Path, served: Served) -> None:
    """Campaigns, pages, records, requests and files are those of the summary; each kind of failure
    has an example and the file that has them all."""
    done = run(tmp_path, served, "--fresh")
    table, summary = table_of(done), summary_of(tmp_path / "out")
    assert table["campaigns"] == "4 of 5 complete, 1 failed"
    assert table["this run"].startswith(f"{summary['pages']} pages, {summary['rows']} records, ")
    sent, retried = summary["requests"]["sent"], summary["requests"]["retried"]
    assert table["requests"].startswith(f"{sent} sent, {retried} of them repeated, 0 throttled")
    assert table["files"] == "out"
    sick = served.sandbox.world.campaign_ids[0]
    (error,) = lines(tmp_path / table["all errors"])
    assert error["campaign_id"] == sick
    assert table["failed"].startswith(f"1 unreadable, as opens/{sick}: {error['message'][:60]}")
    assert len(table["failed"]) < 150
    assert table["all errors"] == "out/errors.ndjson"
    assert table["ended by"] == "1 campaign failed"


def test_the_command_to_go_on_does_not_start_over(tmp_path: Path, served: Served) -> None:
    """It is the command that was given, without --fresh: that would throw away what is there."""
    done = run(tmp_path, served, "--fresh")
    command_ = table_of(done)["next step"]
    assert command_.startswith(f"harvester run -o out --base-url {served.sandbox.base_url} ")
    assert "--fresh" not in command_


def report(**more: Any) -> HarvestReport:
    """A report that was never made."""
    now = datetime(2026, 3, 1, 12, tzinfo=UTC)
    facts: dict[str, Any] = {
        "run_id": "r",
        "exit_code": 75,
        "reason": "quota_spent",
        "message": "the day's quota of requests is spent",
        "resume_at": datetime(2026, 3, 2, tzinfo=UTC),
        "campaigns": Campaigns(10_000, 4_000, 0, 16, 5_984),
        "requests": Requests(9_000, 8_990, 10, 2),
        "pages": 8_990,
        "rows": 4_000_000,
        "bytes": 800_000_000,
        "quota": Quota(10_000, 10_000, datetime(2026, 3, 2, tzinfo=UTC)),
        "started_at": now,
        "finished_at": now,
        "elapsed_s": 2_727.3,
        "errors": Path("out/errors.ndjson"),
        **more,
    }
    return HarvestReport(**facts)


def closing(
    monkeypatch: pytest.MonkeyPatch, *argv: str, seen: Iterable[Event] = (), **more: Any
) -> str:
    """The closing table of a run that was given like that and had these events."""
    monkeypatch.setattr("sys.argv", ["harvester", *argv])
    fresh = "--fresh" in argv or more.pop("fresh", False)
    config = HarvestConfig(output="out", fresh=fresh, **more.pop("settings", {}))
    counters = Counters()
    for event in seen:
        counters(event)
    return "\n".join(closing_lines(report(**more), config, counters))


def test_a_run_that_was_stopped_says_when_it_can_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason, the earliest moment, and the command."""
    said = closing(monkeypatch, "run", "-i", "my ids.txt", "-o", "out")
    assert "  ended by  the day's quota of requests is spent" in said
    assert "not before  Mon 02 Mar 2026, 00:00:00 UTC" in said
    assert " next step  from then on harvester run -i 'my ids.txt' -o out" in said
    assert " campaigns  4,000 of 10,000 complete, 16 partial, 5,984 pending" in said
    assert "  this run  8,990 pages, 4,000,000 records, 800.0 MB in 0:45:27" in said
    assert "today 10,000 of 10,000" in said


def test_a_run_that_is_complete_has_no_next_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """No reason, no command."""
    said = closing(monkeypatch, "run", "1", exit_code=0, reason="complete", message=None)
    assert "next step" not in said
    assert "ended by" not in said


def test_a_moment_that_has_passed_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that can go on at once has no time to wait for."""
    now = datetime(2026, 3, 1, 12, tzinfo=UTC)
    said = closing(monkeypatch, "run", "1", reason="max_requests", resume_at=now)
    assert "not before" not in said
    assert " next step  harvester run 1" in said


def test_a_command_too_long_to_show_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hundreds of ids on the command line are not repeated; --fresh is warned of."""
    ids = [str(each) for each in range(1_000, 1_100)]
    assert " next step  from then on the same command" in closing(monkeypatch, "run", *ids)
    assert "without --fresh" in closing(monkeypatch, "run", "--fresh", *ids)
    assert "without --fresh" in closing(monkeypatch, "run", "1", fresh=True)


def failure(kind: str) -> CampaignFailed:
    """A campaign that failed."""
    return CampaignFailed(
        target=Target("opens", "7"),
        kind=kind,
        status=404,
        error_key=None,
        message=f"HTTP 404 for {kind}",
        attempts=1,
        pages=0,
        rows=0,
    )


@pytest.mark.parametrize(
    ("seen", "again"),
    [
        ([failure("not_found")], True),
        ([CampaignSkipped(Target("opens", "7"), "failed", "not_found")], True),
        ([failure("not_found"), failure("rejected")], False),
        ([failure("unreadable")], False),
        ([CampaignSkipped(Target("opens", "8"), "complete"), failure("rejected")], False),
    ],
)
def test_the_next_step_after_failures_is_one_that_works(
    monkeypatch: pytest.MonkeyPatch, seen: list[Event], again: bool
) -> None:
    """What is not found is asked for again with --retry-failed only; the same command tries all
    other failures again."""
    how = {"exit_code": 3, "reason": "failures", "message": None, "resume_at": None}
    said = closing(monkeypatch, "run", "7", seen=seen, **how)
    (step,) = [line for line in said.splitlines() if line.startswith(" next step")]
    assert ("--retry-failed" in step) == again
    assert step.endswith(f"harvester run 7{' --retry-failed' if again else ''}")


def test_a_single_failure_is_shown_with_its_message(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is wrong with one id can be read without opening a file."""
    how = {"exit_code": 3, "reason": "failures", "message": None, "resume_at": None}
    said = closing(monkeypatch, "run", "7", seen=[failure("not_found")], **how)
    assert "    failed  1 not_found, as opens/7: HTTP 404 for not_found" in said


@pytest.mark.parametrize("reason", EXIT_CODES)
def test_every_ending_has_a_next_step(reason: str) -> None:
    """It leads back to the command."""
    step = next_step(reason, "COMMAND")
    assert "{" not in step
    if reason not in {"complete", "bug"}:
        assert "COMMAND" in step
    assert NEXT_STEP.keys() <= EXIT_CODES.keys()


@pytest.mark.parametrize(
    ("credentials", "named"),
    [
        ({"api": "v3"}, {"sign in again (harvester login"}),
        ({"api": "v3", "token_command": "cat x"}, {"--token-command", "harvester login"}),
        ({"api": "v3", "access_token": "x"}, {"valid HARVESTER_ACCESS_TOKEN", "harvester login"}),
        ({"api": "v2", "access_token_file": "x"}, {"HARVESTER_API_KEY and --access-token-file"}),
        ({"api": "v2"}, {"valid HARVESTER_API_KEY and HARVESTER_ACCESS_TOKEN"}),
    ],
)
def test_the_next_step_after_a_refused_token_is_one_that_works(
    monkeypatch: pytest.MonkeyPatch, credentials: dict[str, Any], named: set[str]
) -> None:
    """What was given is named; a sign-in is of use in v3 alone, and only where it is used."""
    said = closing(monkeypatch, "run", "7", reason="credentials_refused", settings=credentials)
    (step,) = [line for line in said.splitlines() if line.startswith(" next step")]
    assert all(each in step for each in named)
    assert ("harvester login" in step) == (credentials["api"] == "v3")
    assert step.endswith("; then harvester run 7")


# -- on a terminal -------------------------------------------------------------------------------


class Terminal:
    """A pseudo-terminal with the program on it."""

    def __init__(self, process: "subprocess.Popen[bytes]", master: int) -> None:
        self.process = process
        self._master = master
        self.shown = ""

    def until(self, *texts: str) -> None:
        """Read until all of these were shown; an error if the program ends before."""
        while not all(text in self.shown for text in texts):
            data = b""
            with suppress(OSError):  # EIO: the program has ended
                data = os.read(self._master, 65_536)
            assert data, self.shown
            self.shown += data.decode("utf-8", "replace")

    def rest(self) -> str:
        """Read to the end; what was shown in all."""
        with suppress(OSError):
            while data := os.read(self._master, 65_536):
                self.shown += data.decode("utf-8", "replace")
        return self.shown


@contextmanager
def terminal(home: Path, *argv: object, kind: str = "xterm") -> Iterator[Terminal]:
    """`harvester ARGV` with a terminal of 120 columns as its standard error."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    try:
        process = subprocess.Popen(
            command(*argv),
            cwd=home,
            env=surroundings(home, TERM=kind, COLUMNS="120"),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=slave,
        )
    finally:
        os.close(slave)
    with process:
        try:
            yield Terminal(process, master)
        finally:
            process.kill()
            os.close(master)


def test_a_terminal_shows_the_run_as_it_goes(tmp_path: Path) -> None:
    """Campaigns done of all, pages, records and requests a second are redrawn in place, without the
    log's course of the run; interrupted, the table comes, with the command to go on."""
    with terminal(tmp_path, "demo", "--fresh", "-o", "out") as screen:
        screen.until(
            " of 40 campaigns", " pages · ", " records", " a second", "today ", "done about "
        )
        screen.process.send_signal(signal.SIGINT)
        shown = screen.rest()
        assert screen.process.wait(30) == 130
    assert "\x1b[" in shown
    assert "━" in shown
    assert re.search(r"campaigns  \d+ of 40 complete", shown)
    assert "next step  harvester demo -o out\r\n" in shown
    assert "stopped by SIGINT" in shown
    assert not re.search(r"Z info ", shown)
    assert "What to try next" not in shown
    assert summary_of(tmp_path / "out")["reason"] == "SIGINT"


def whole(served: Served, *more: object) -> list[object]:
    """A run of everything, that comes to exit code 3."""
    sandbox = served.sandbox
    return [
        *("run", "-o", "out", "--base-url", sandbox.base_url, "--rate", 0, "--retries", 1),
        *("--page-size", ROWS, *more, *sandbox.world.campaign_ids),
    ]


def test_without_progress_a_terminal_gets_plain_lines(tmp_path: Path, served: Served) -> None:
    """--no-progress, -q and JSON keep the display away."""
    with terminal(tmp_path, *whole(served), "--no-progress") as screen:
        shown = screen.rest()
        assert screen.process.wait(30) == 3
    assert "\x1b[" not in shown
    assert "Z info " in shown


@pytest.mark.parametrize("kind", ["dumb", "unknown"])
def test_a_dumb_terminal_gets_plain_lines(tmp_path: Path, served: Served, kind: str) -> None:
    """Where nothing can be redrawn, the course of the run is shown line by line."""
    with terminal(tmp_path, *whole(served), kind=kind) as screen:
        shown = screen.rest()
        assert screen.process.wait(30) == 3
    assert "\x1b[" not in shown
    assert "Z info " in shown
    assert "campaigns  4 of 5 complete" in shown


@pytest.mark.parametrize("verbose", [[], ["-v"], ["-vv"], ["-vvv"]])
def test_a_terminal_shows_more_with_each_v(
    tmp_path: Path, served: Served, verbose: list[str]
) -> None:
    """Above the display stand the troubles; once, each campaign too; twice, each request."""
    with terminal(tmp_path, *whole(served, *verbose)) as screen:
        shown = screen.rest()
        assert screen.process.wait(30) == 3
    asked = len(verbose) and verbose[0].count("v")
    assert "Z warning " in shown
    assert ("Z debug " in shown) == (asked >= 1)
    assert ("Z request " in shown) == (asked >= 2)
    assert "\x1b[?25l" in shown  # the display has hidden the cursor


@pytest.mark.parametrize("live", [True, False])
def test_a_second_interrupt_gives_the_cursor_back(tmp_path: Path, live: bool) -> None:
    """The display hides it; the second signal shows it again."""
    sandbox = Sandbox(SandboxSettings(campaigns=1, pages=1, pinned={(None, 1): "timeout"}))
    option = [] if live else ["--no-progress"]
    with Served(sandbox) as served, terminal(tmp_path, *whole(served, *option)) as screen:
        until(served.hits)
        screen.process.send_signal(signal.SIGINT)
        screen.until("stopping: ")
        screen.process.send_signal(signal.SIGINT)
        shown = screen.rest()
        assert screen.process.wait(30) == 130
    assert shown.rfind("\x1b[?25h") >= shown.rfind("\x1b[?25l")
    assert ("\x1b[?25h" in shown) == live


@pytest.mark.parametrize("width", [20, 40, 78, 160])
def test_the_display_is_four_lines_however_narrow(width: int) -> None:
    """A live display that changes its height jumps about."""
    now = datetime(2026, 3, 1, 12, tzinfo=UTC)
    figures = Figures(
        campaigns_done=12_345,
        campaigns_total=100_000,
        failed=12,
        pages=1_234_567,
        rows=500_000_000,
        bytes=88_000_000_000,
        in_flight=16,
        requests_left=123_456,
        at_least=True,
        requests_per_second=3.3,
        rate=3.3,
        used_today=10_000,
        quota_limit=10_000,
        paused="quota_spent",
        paused_until=now + timedelta(hours=12),
    )
    console = Console(width=width, file=StringIO(), force_terminal=True)
    shown = console.render_lines(display(figures, width=min(width - 1, 78)), pad=False)
    assert len(shown) == 4
    text = ["".join(segment.text for segment in line) for line in shown]
    assert all(len(line) <= width for line in text)
    if width >= 78:
        assert "12,345 of 100,000 campaigns, 12 failed" in text[0]
        assert "at least 123,456 requests · quota spent until Mon 00:00:00 UTC" in text[3]
        assert "…" not in "".join(text)
