"""The standard streams: a lost log line changes nothing, lost data fails the command."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from crashlab import Served
from shell import Done, assert_harvested, command, harvester, surroundings

from harvester.sandbox import Sandbox, SandboxSettings

ROWS = 5
FULL = "/dev/full"
needs_full = pytest.mark.skipif(not Path(FULL).exists(), reason="no device that is always full")
FULL_DISK = "harvester: error: cannot write to standard output: No space left on device"


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    """Three campaigns on four pages."""
    with Served(Sandbox(SandboxSettings(campaigns=3, pages=4, rows_per_page=ROWS))) as served:
        yield served.sandbox


def connection(sandbox: Sandbox) -> list[object]:
    """Where the sandbox is."""
    return ["--base-url", sandbox.base_url, "--rate", 0]


def harvest(sandbox: Sandbox, *more: object) -> list[object]:
    """A run of every campaign into `out`."""
    ids = sandbox.world.campaign_ids
    return ["run", "-o", "out", "--page-size", ROWS, *connection(sandbox), *more, *ids]


def redirected(home: Path, how: str, *argv: object) -> Done:
    """`harvester ARGV` with its streams redirected as a shell does it."""
    return harvester(home, *argv, wrap=("/bin/sh", "-c", f'exec "$@" {how}', "sh"))


def unread(home: Path, stream: str, *argv: object) -> tuple[int, bytes]:
    """`harvester ARGV` with a pipe without a reader: exit code, and what the other one had."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command(*argv), cwd=home, env=surroundings(home), **pipes) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        closed, other = process.stdout, process.stderr
        if stream == "stderr":
            closed, other = other, closed
        closed.close()
        said = other.read()
    return process.returncode, said


# -- stderr --------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["2>&-", pytest.param(f"2>{FULL}", marks=needs_full)])
@pytest.mark.parametrize("option", [[], ["-vv", "--log-format", "json"]])
def test_a_run_without_stderr_is_a_run_like_any_other(
    sandbox: Sandbox, tmp_path: Path, how: str, option: list[str]
) -> None:
    """Every file is there to the byte, nothing that was to be said is in any of them, and standard
    output has the summary."""
    done = redirected(tmp_path, how, *harvest(sandbox, "--json", *option))
    assert (done.code, done.stderr) == (0, "")
    assert_harvested(tmp_path / "out", sandbox, sandbox.world.campaign_ids)
    assert json.loads(done.stdout)["exit_code"] == 0


def test_a_reader_of_the_log_that_has_gone_is_not_missed(sandbox: Sandbox, tmp_path: Path) -> None:
    """`harvester run 2>&1 | head -1` harvests everything, and says so by its exit code."""
    code, said = unread(tmp_path, "stderr", *harvest(sandbox, "--json"))
    assert code == 0
    assert json.loads(said)["reason"] == "complete"
    assert_harvested(tmp_path / "out", sandbox, sandbox.world.campaign_ids)


def test_a_failure_without_stderr_keeps_its_exit_code(tmp_path: Path) -> None:
    """Also where no stream is open at all."""
    assert redirected(tmp_path, "2>&-", "status", "nowhere") == Done(2, "", "")
    assert redirected(tmp_path, "<&- >&- 2>&-", "run", "-i", "nowhere").code == 2


# -- stdout --------------------------------------------------------------------------------------


@needs_full
@pytest.mark.parametrize("data", ["run --json", "plan", "plan --json", "campaigns", "--version"])
def test_data_that_cannot_be_written_is_told(sandbox: Sandbox, tmp_path: Path, data: str) -> None:
    """One line and exit code 1, without the word bug; what a run harvested stands."""
    name, *option = data.split()
    if name in ("run", "plan"):
        whole = [name, *harvest(sandbox, "-q", *option)[1:]]
    else:
        whole = [name, *(connection(sandbox) if name == "campaigns" else ())]
    done = redirected(tmp_path, f">{FULL}", *whole)
    assert (done.code, done.complaints) == (1, [FULL_DISK])
    if name == "run":
        assert_harvested(tmp_path / "out", sandbox, sandbox.world.campaign_ids)


def test_a_closed_standard_output_is_told_by_what_needs_it(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    """With --json, exit code 1; without, a run has nothing to write there."""
    done = redirected(tmp_path, ">&-", *harvest(sandbox, "-q", "--json"))
    message = "harvester: error: cannot write to standard output: it is closed"
    assert (done.code, done.complaints) == (1, [message])
    assert redirected(tmp_path, ">&-", *harvest(sandbox, "-q")) == Done(0, "", "")
    assert_harvested(tmp_path / "out", sandbox, sandbox.world.campaign_ids)


def test_a_reader_of_data_that_has_gone_has_seen_enough(sandbox: Sandbox, tmp_path: Path) -> None:
    """Not a word, and the command's own exit code."""
    assert unread(tmp_path, "stdout", *harvest(sandbox, "-q", "--json")) == (0, b"")
    unfinished = harvest(sandbox, "-q", "--json", "--fresh", "--max-requests", 1)
    code, said = unread(tmp_path, "stdout", *unfinished)
    assert (code, b"standard output" in said) == (75, False)
    (tmp_path / "out/opens/7.ndjson").write_bytes(b"")
    code, said = unread(tmp_path, "stdout", "verify", "out", "-q")
    assert (code, said) == (3, b"")


# -- stdin ---------------------------------------------------------------------------------------


def test_a_closed_standard_input_is_a_mistake_of_who_reads_it(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    """`-i -` has nothing to read: exit code 2, nothing sent; all else does without."""
    before = sandbox.requests
    done = redirected(tmp_path, "<&-", *harvest(sandbox, "-i", "-"))
    message = "harvester: error: --input: cannot read standard input: it is closed"
    assert (done.code, done.complaints) == (2, [message])
    assert sandbox.requests == before
    assert redirected(tmp_path, "<&-", *harvest(sandbox, "-q")).code == 0
