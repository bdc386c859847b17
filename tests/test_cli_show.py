"""What a person sees: log lines in a pipe, a live display on a terminal, a table at the end."""

import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import termios
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from crashlab import Served, until
from shell import Done, command, harvester, lines, summary_of, surroundings

from harvester.cli.show import closing_lines, duration, size
from harvester.config import HarvestConfig
from harvester.reporting.summary import Campaigns, HarvestReport, Quota, Requests
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
    retries = [line for line in found if "wait_s" in line]
    assert {line["cause"] for line in retries} == {"server_error", "unreadable"}
    assert all(line["report"] == "opens" and line["page"] == 1 for line in retries)
    (failed,) = [line for line in found if line.get("kind")]
    assert (failed["kind"], failed["level"]) == ("unreadable", "warning")
    ended = found[-1]
    assert (ended["reason"], ended["exit_code"]) == ("failures", 3)
    run_ids = {line["run_id"] for line in found if "run_id" in line}
    assert run_ids == {summary_of(tmp_path / "out")["run_id"]}


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
    assert table["failed"] == f"1 unreadable, as opens/{sick}"
    assert table["why"] == "out/errors.ndjson"
    assert lines(tmp_path / table["why"])[0]["campaign_id"] == sick


def test_the_command_to_go_on_does_not_start_over(tmp_path: Path, served: Served) -> None:
    """It is the command that was given, without --fresh: that would throw away what is there."""
    done = run(tmp_path, served, "--fresh")
    command_ = table_of(done)["to go on"]
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
        **more,
    }
    return HarvestReport(**facts)


def closing(monkeypatch: pytest.MonkeyPatch, *argv: str, **more: Any) -> str:
    """The closing table of a run that was given like that."""
    monkeypatch.setattr("sys.argv", ["harvester", *argv])
    config = HarvestConfig(output="out", fresh="--fresh" in argv or more.pop("fresh", False))
    return "\n".join(closing_lines(report(**more), config, {}, []))


def test_a_run_that_was_stopped_says_when_it_can_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason, the earliest moment, and the command."""
    said = closing(monkeypatch, "run", "-i", "my ids.txt", "-o", "out")
    assert "   stopped  the day's quota of requests is spent" in said
    assert "not before  Mon 02 Mar 2026, 00:00:00 UTC" in said
    assert "  to go on  harvester run -i 'my ids.txt' -o out" in said
    assert " campaigns  4,000 of 10,000 complete, 16 partial, 5,984 pending" in said
    assert "  this run  8,990 pages, 4,000,000 records, 800.0 MB in 45 min" in said
    assert "today 10,000 of 10,000" in said


def test_a_run_that_is_complete_has_nothing_to_go_on_with(monkeypatch: pytest.MonkeyPatch) -> None:
    """No reason, no command."""
    said = closing(monkeypatch, "run", "1", exit_code=0, reason="complete", message=None)
    assert "to go on" not in said
    assert "stopped" not in said


def test_a_command_too_long_to_show_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hundreds of ids on the command line are not repeated; --fresh is warned of."""
    ids = [str(each) for each in range(1_000, 1_100)]
    assert "  to go on  the same command" in closing(monkeypatch, "run", *ids)
    assert "without --fresh" in closing(monkeypatch, "run", "--fresh", *ids)
    assert "without --fresh" in closing(monkeypatch, "run", "1", fresh=True)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (119.4, "119 s"), (120, "2 min"), (7_199, "120 min"), (7_200, "2.0 h")],
)
def test_a_length_of_time_as_people_say_it(seconds: float, text: str) -> None:
    """Seconds, then minutes, then hours."""
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1_000, "1.0 kB"), (1_234_567, "1.2 MB"), (5e15, "5000.0 TB")],
)
def test_a_number_of_bytes_as_people_say_it(count: int, text: str) -> None:
    """In steps of a thousand."""
    assert size(count) == text


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
            with suppress(OSError):  # EIO: nobody is on the other side any more
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
        screen.until("/40 campaigns", " pages · ", " records", " requests/s", "today ")
        screen.process.send_signal(signal.SIGINT)
        shown = screen.rest()
        assert screen.process.wait(30) == 130
    assert "\x1b[" in shown
    assert "━" in shown
    assert re.search(r"campaigns  \d+ of 40 complete", shown)
    assert "to go on  harvester demo -o out\r\n" in shown
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
    """Where nothing can be redrawn, the course of the run is told line by line."""
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
    assert "━" in shown


@pytest.mark.parametrize("live", [True, False])
def test_a_second_interrupt_gives_the_cursor_back(tmp_path: Path, live: bool) -> None:
    """The display hides it; whoever cannot wait is not left without one."""
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
