"""Signals and cancellation: asking stops, what is in flight is saved, the same command goes on.

The servers here hang at a chosen page, so that every run is caught in the middle of a request.
"""

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from crashlab import (
    ROWS,
    Home,
    Reference,
    Served,
    config_of,
    environment,
    ids_of,
    reference,
    small,
    until,
)

from harvester import HarvestConfig, harvest
from harvester.disk import inspect as inspection
from harvester.disk.layout import Layout
from harvester.events import Event, PageCommitted
from harvester.request import token_command
from harvester.request.token_command import TokenCommand

CODES = {signal.SIGHUP: 129, signal.SIGINT: 130, signal.SIGTERM: 143}
PROMISED = 10.0  # seconds from the signal to the end, whatever the server does
NEXT = "; next step: the same command\n"
AT_ONCE = 2.0  # the same where nothing has to be waited for
LONG = small().world.campaign_ids[0]  # the one of four pages


@dataclass
class Run:
    """The real command, under way."""

    home: Home
    served: Served
    process: "subprocess.Popen[bytes]"
    command: list[str]
    expected: Reference

    def signal(self, number: int) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    def said(self, text: str) -> bool:
        """Whether it stands on standard error."""
        return text in self.home.log.read_text()

    def goes_on(self) -> list[tuple[str, int]]:
        """The same command ends with the same bytes; what it asked for."""
        before = len(self.served.hits())
        done = subprocess.run(self.command, env=environment(), check=False, timeout=60)
        assert done.returncode == 0
        self.home.assert_undisturbed(self.expected)
        return self.served.pages()[before:]


@contextmanager
def caught(
    path: Path,
    *,
    pinned: Mapping[tuple[str | None, int | None], str | Sequence[str]],
    wrap: Sequence[str] = (),
    options: Sequence[str] = (),
    **settings: object,
) -> Iterator[Run]:
    """A run that has done all it can: it waits for the second page of the long campaign, the others
    are complete."""
    sandbox, home = small(pinned=pinned, **settings), Home(path)
    ids = ids_of(sandbox)
    with Served(sandbox) as served, home.log.open("wb") as log:
        command = [
            *(sys.executable, "-m", "harvester", "run", "-o", str(home.out), "-j", "4"),
            *("--state-dir", str(home.state), "--base-url", sandbox.base_url, "--no-progress"),
            *("--rate", "0", "--page-size", str(ROWS), *options, *ids),
        ]
        process = subprocess.Popen(
            [*wrap, *command], stderr=log, stdout=subprocess.DEVNULL, env=environment()
        )
        try:
            with process:
                try:
                    until(lambda: (LONG, 2) in served.pages())
                    until(lambda: inspection.read_content(Layout(home.out)).campaigns.complete == 3)
                    yield Run(home, served, process, command, reference(sandbox, ids))
                finally:
                    process.kill()
        finally:
            process.wait()


SILENT = {(LONG, 2): ["timeout"]}  # once; the next try gets an answer


def test_a_signal_ends_a_run_within_ten_seconds_whatever_the_server_does(tmp_path: Path) -> None:
    """SIGHUP, SIGINT and SIGTERM each end a run whose server never answers, within ten seconds,
    with 128 + n and the reason in summary.json and status; the same command goes on, page two
    first."""
    with ExitStack() as stack:
        runs = {
            number: stack.enter_context(
                caught(tmp_path / number.name, pinned=SILENT, options=("--json",))
            )
            for number in CODES
        }
        sent = {}
        for number, run in runs.items():
            run.signal(number)
            sent[number] = time.monotonic()
        for number, run in runs.items():
            left = sent[number] + PROMISED - time.monotonic()
            assert run.process.wait(left) == CODES[number]
        for number, run in runs.items():
            summary = run.home.summary()
            assert (summary["exit_code"], summary["reason"]) == (CODES[number], number.name)
            assert summary["campaigns"]["partial"] == 1
            assert summary["campaigns"]["complete"] == 3
            assert "Traceback" not in run.home.log.read_text()
            run.home.assert_no_half_file(run.expected)
            assert_status_says(run.home, number.name)
            assert run.goes_on() == [(LONG, 2), (LONG, 3), (LONG, 4)]


def assert_status_says(home: Home, reason: str) -> None:
    """`status` has the same reason and the same counts."""
    content = inspection.read_content(Layout(home.out)).campaigns
    assert (content.complete, content.partial) == (3, 1)
    summary = inspection.read_summary(Layout(home.out))
    assert summary is not None
    assert summary["reason"] == reason


def test_an_answer_within_the_grace_is_saved(tmp_path: Path) -> None:
    """A request that is answered soon after the signal is not thrown away: its page is saved, and
    the next one is not asked for."""
    with caught(tmp_path, pinned={(LONG, 2): ["stall"]}, stall_seconds=1.0) as run:
        run.signal(signal.SIGTERM)
        assert run.process.wait(30) == 143
        assert (LONG, 3) not in run.served.pages()
        assert run.home.summary()["requests"]["ok"] == run.home.summary()["requests"]["sent"]
        assert run.goes_on() == [(LONG, 3), (LONG, 4)]


@pytest.mark.parametrize(
    ("first", "second"),
    [(signal.SIGTERM, signal.SIGTERM), (signal.SIGINT, signal.SIGINT), (1, 15), (15, 2)],
)
def test_a_second_signal_stops_at_once(tmp_path: Path, first: int, second: int) -> None:
    """A second signal ends the process where it stands, with 128 + its own number, and nothing is
    lost that was saved."""
    with caught(tmp_path, pinned=SILENT) as run:
        run.signal(first)
        until(lambda: run.said("stopping"))
        run.signal(second)
        assert run.process.wait(30) == 128 + second
        assert not (run.home.out / "summary.json").exists()
        run.home.assert_no_half_file(run.expected)
        assert run.goes_on() == [(LONG, 2), (LONG, 3), (LONG, 4)]


def test_nohup_is_respected(tmp_path: Path) -> None:
    """A run under nohup ignores hangups, and still obeys SIGTERM."""
    ignoring = ("/bin/sh", "-c", 'trap "" HUP; exec "$@"', "sh")
    slow = {(LONG, 2): ["stall"], (LONG, 3): ["stall"]}
    with caught(tmp_path, pinned=slow, wrap=ignoring, stall_seconds=1.0) as run:
        run.signal(signal.SIGHUP)
        until(lambda: (LONG, 3) in run.served.pages())
        assert run.process.poll() is None
        assert not run.said("stopping")
        run.signal(signal.SIGTERM)
        assert run.process.wait(30) == 143
        run.goes_on()


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc to look at")
def test_the_mask_of_a_run_is_as_its_parent_set_it(tmp_path: Path) -> None:
    """Ignored before, SIGHUP stays ignored; SIGINT and SIGTERM are caught."""
    ignoring = ("/bin/sh", "-c", 'trap "" HUP; exec "$@"', "sh")
    with caught(tmp_path, pinned=SILENT, wrap=ignoring) as run:
        status = Path(f"/proc/{run.process.pid}/status").read_text()
        masks = {
            name: int(re.search(rf"^{name}:\s*([0-9a-f]+)$", status, re.MULTILINE)[1], 16)
            for name in ("SigIgn", "SigCgt")
        }
        assert masks["SigIgn"] >> (signal.SIGHUP - 1) & 1
        assert masks["SigCgt"] >> (signal.SIGTERM - 1) & 1
        assert masks["SigCgt"] >> (signal.SIGINT - 1) & 1


def test_a_signal_during_a_backoff_wakes_it(tmp_path: Path) -> None:
    """A run that sleeps before a retry, however long, stops as promptly."""
    pinned = {(LONG, 2): "error503"}
    with caught(tmp_path, pinned=pinned, retry_after="120") as run:
        until(lambda: run.said("attempt 2 in 120"))
        run.signal(signal.SIGINT)
        assert run.process.wait(PROMISED) == 130
        assert run.home.summary()["reason"] == "SIGINT"


# -- while a token is waited for -----------------------------------------------------------------


@contextmanager
def waiting_for_a_token(path: Path, *, renewal: bool) -> Iterator[Run]:
    """A run whose token command takes a moment: the first time, or after a refused token."""
    sandbox, home = small(), Home(path)
    hang = path / "token.sh"
    first = f'[ -e "{path}/asked" ] || {{ touch "{path}/asked"; echo stale; exit; }}\n'
    rest = f'touch "{path}/runs"\nsleep 0.3\ntouch "{path}/kept"; echo late\n'
    hang.write_text((first if renewal else "") + rest)
    own = environment()
    del own["HARVESTER_ACCESS_TOKEN"]
    ids = ids_of(sandbox)
    with Served(sandbox) as served, home.log.open("wb") as log:
        command = [
            *(sys.executable, "-m", "harvester", "run", "-o", str(home.out), "--no-progress"),
            *("--state-dir", str(home.state), "--base-url", sandbox.base_url, "--rate", "0"),
            *("--page-size", str(ROWS), "--token-command", f"sh {hang}", *ids),
        ]
        with subprocess.Popen(command, stderr=log, env=own, start_new_session=True) as process:
            try:
                until((path / "runs").exists)
                yield Run(home, served, process, command, reference(sandbox, ids))
            finally:
                process.kill()


@pytest.mark.parametrize("group", [False, True])
@pytest.mark.parametrize("number", CODES)
def test_a_signal_while_the_first_token_is_waited_for(
    tmp_path: Path, number: signal.Signals, group: bool
) -> None:
    """Whether the command's group gets it too or not, the command may keep what it got; then the
    run ends with 128 + n and says why; nothing was begun."""
    with waiting_for_a_token(tmp_path, renewal=False) as run:
        (os.killpg if group else os.kill)(run.process.pid, number)
        assert run.process.wait(30) == CODES[number]
        assert (tmp_path / "kept").exists()
        assert run.home.log.read_text() == f"harvester: error: stopped by {number.name}{NEXT}"
        assert not run.home.out.exists()


@pytest.mark.parametrize("number", CODES)
def test_a_signal_while_a_token_is_renewed(tmp_path: Path, number: signal.Signals) -> None:
    """The command may keep what it got; then the run ends, with its summary."""
    with waiting_for_a_token(tmp_path, renewal=True) as run:
        run.signal(number)
        assert run.process.wait(30) == CODES[number]
        assert (tmp_path / "kept").exists()
        summary = run.home.summary()
        assert (summary["exit_code"], summary["reason"]) == (CODES[number], number.name)
        assert "Traceback" not in run.home.log.read_text()


@pytest.mark.parametrize("number", CODES)
def test_a_task_that_is_cancelled_at_the_latest_is_told_as_its_signal(
    tmp_path: Path, number: signal.Signals
) -> None:
    """Whatever it hung on, the exit code is the signal's and there is no traceback."""
    with Served(small()) as served:
        code = CANCELLED.format(number=int(number))
        done = subprocess.run(
            [sys.executable, "-c", code, "1", "-o", str(tmp_path / "out"), "--no-progress"],
            env=environment() | {"HARVESTER_BASE_URL": served.sandbox.base_url},
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )
    assert done.returncode == CODES[number]
    assert done.stderr == f"harvester: error: stopped by {number.name}{NEXT}"


CANCELLED = """
import asyncio, os, sys
from harvester import run
from harvester.cli import main
import harvester.cli.run

async def hang(self, ids):
    os.kill(os.getpid(), {number})
    await asyncio.sleep(60)

run.Harvester.run = hang
harvester.cli.run._AT_THE_LATEST = 0.1
sys.exit(main(["run", *sys.argv[1:]]))
"""


# -- from Python ---------------------------------------------------------------------------------


@pytest.mark.parametrize("moment", ["in flight", "at a commit"])
async def test_cancelling_the_task_is_the_same_stop(tmp_path: Path, moment: str) -> None:
    """A cancelled harvest writes its summary, lets `CancelledError` through, and can go on."""
    sandbox, home = small(pinned=SILENT if moment == "in flight" else {}), Home(tmp_path)
    ids = ids_of(sandbox)
    async with sandbox:
        config = config_of(sandbox, home.path)
        task: asyncio.Task[object]

        def observe(event: Event) -> None:
            if moment == "at a commit" and isinstance(event, PageCommitted):
                task.cancel()

        task = asyncio.ensure_future(harvest(ids, config, observe=observe))
        if moment == "in flight":
            asked = (LONG, 2)
            await asyncio.to_thread(
                until, lambda: asked in [(hit.campaign_id, hit.page) for hit in list(sandbox.log)]
            )
            task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelled()
        summary = home.summary()
        assert (summary["exit_code"], summary["reason"]) == (130, "cancelled")
        expected = reference(sandbox, ids)
        home.assert_no_half_file(expected)
        before = sandbox.requests
        report = await harvest(ids, config)
        assert report.exit_code == 0
        home.assert_undisturbed(expected)
        assert sandbox.requests - before <= expected.requests - summary["pages"]


async def test_a_timeout_around_a_harvest_ends_the_token_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not waited for until the command ends by itself, but for some seconds at most."""
    monkeypatch.setattr(token_command, "TokenCommand", partial(TokenCommand, stop_wait=0.2))
    config = HarvestConfig(
        output=tmp_path / "out", state_dir=tmp_path, api_key="key", token_command="sleep 60"
    )
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(harvest(["1"], config), 0.2)
    assert time.monotonic() - began < AT_ONCE
    assert not (tmp_path / "out").exists()


async def test_the_library_leaves_signals_alone(tmp_path: Path) -> None:
    """`harvest` installs no handler and changes none."""
    numbers = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(number) for number in numbers]
    during: list[list[object]] = []
    sandbox, home = small(), Home(tmp_path)
    async with sandbox:
        config = config_of(sandbox, home.path)
        report = await harvest(
            ids_of(sandbox),
            config,
            observe=lambda event: during.append([signal.getsignal(number) for number in numbers]),
        )
    assert report.exit_code == 0
    assert during
    assert all(each == before for each in during)
