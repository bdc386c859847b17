"""`harvester sandbox`: the simulated API in a terminal of its own."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from crashlab import environment
from shell import SIX, assert_harvested, called, command, harvester, surroundings

from harvester.cli.sandbox import sandbox
from harvester.sandbox import Sandbox, SandboxSettings


@pytest.mark.parametrize("api", ["v2", "v3"])
def test_what_the_sandbox_prints_works_in_another_terminal(tmp_path: Path, api: str) -> None:
    """`harvester sandbox` prints commands that sign in, check, list and harvest everything; SIGTERM
    ends it well."""
    env = {name: text for name, text in environment().items() if not name.startswith("HARVESTER_")}
    options = ("--api", api, "--campaigns", 4, "--pages", 9, "--rate-limit", 0)
    with subprocess.Popen(
        command("sandbox", "--port", 0, *options),
        cwd=tmp_path,
        env=env,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        printed = [process.stderr.readline(), process.stderr.readline(), process.stderr.readline()]
        while (line := process.stderr.readline()).strip():
            printed.append(line)
        ours = f'harvester() {{ "{sys.executable}" -W error -m harvester "$@"; }}\nset -e\n'
        done = subprocess.run(
            ["/bin/sh", "-c", ours + "".join(printed[3:])],
            cwd=tmp_path,
            env={**env, "HARVESTER_RATE": "0"},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        assert process.stderr.read() == ""
    assert done.returncode == 0, done.stderr
    served = Sandbox(SandboxSettings(campaigns=4, resends=1, pages=9))
    ids = served.world.campaign_ids if api == "v2" else served.world.v3_campaign_ids
    assert set(ids) < set(done.stdout.split())
    assert_harvested(tmp_path / f"sandbox-{api}", served, ids, SIX)


def test_the_help_of_the_sandbox_has_the_same_example() -> None:
    """For the usual port and v3."""
    said = " ".join((sandbox.help or "").split())
    assert "harvester login harvester check harvester campaigns harvester run --all-sent" in said
    assert "export HARVESTER_BASE_URL=http://127.0.0.1:8765" in said
    assert "log in again" in said


@pytest.mark.parametrize(("person", "code"), [("agrees", 0), ("denies", 4)])
def test_the_person_of_the_sandbox_decides(tmp_path: Path, person: str, code: int) -> None:
    """As `--person` says; the client id is the one that `--client-id` gives."""
    with subprocess.Popen(
        command("sandbox", "--port", 0, "--person", person, "--client-id", "mine"),
        cwd=tmp_path,
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        origin = process.stderr.readline().split(" on ")[1].split()[0]
        where = ("--base-url", origin, "--auth-url", origin)
        done = harvester(tmp_path, "login", "--client-id", "mine", *where)
        other = harvester(tmp_path, "login", "--client-id", "sandbox-key", *where)
        process.send_signal(signal.SIGTERM)
    assert (done.code, other.code) == (code, 4), done.stderr


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        (["--fault", "error500"], "KIND=RATE"),
        (["--fault", "error500=often"], "KIND=RATE"),
        (["--fault", "gremlin=0.5"], "no fault 'gremlin'"),
        (["--fault", "error500=2"], "probabilities"),
        (["--campaigns", "9", "--pages", "3"], "3 pages"),
        (["--limit-kind", "leaky"], "sliding"),
        (["--person", "sleeps"], "agrees"),
        (["--token-age", "0"], "token-age"),
        (["--resends", "-1"], "resends"),
        (["--latency", "-1"], "latency is a number from 0"),
        (["--jitter", "nan"], "jitter is a number from 0"),
        (["--rate-limit", "-2"], "rate-limit is a number from 0"),
        (["--quota", "-3"], "quota is a number from 0"),
        (["--heal-after", "-1"], "heal-after is a number from 0"),
        (["--fault", "error500=nan"], "probabilities"),
        (["--request-log", "/nonexistent/x"], "cannot write /nonexistent/x (--request-log)"),
    ],
)
def test_a_sandbox_that_cannot_be_is_refused(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    argument: list[str],
    expected: str,
) -> None:
    """Exit code 2, with what is accepted."""
    done = called(tmp_path, monkeypatch, capsys, "sandbox", "--port", "0", *argument)
    assert done.code == 2
    assert expected in done.stderr


def test_every_option_of_the_sandbox_is_explained() -> None:
    """Each has a help text."""
    assert [each.name for each in sandbox.params if not getattr(each, "help", None)] == []


def test_a_sandbox_under_nohup_outlives_its_terminal(tmp_path: Path) -> None:
    """Where hangups are ignored it goes on serving; SIGTERM still ends it."""
    ignoring = ("/bin/sh", "-c", 'trap "" HUP; exec "$@"', "sh")
    small = command("sandbox", "--port", 0, "--campaigns", 3, "--pages", 4)
    with subprocess.Popen(
        [*ignoring, *small],
        cwd=tmp_path,
        env=surroundings(tmp_path),
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        origin = process.stderr.readline().split(" on ")[1].split()[0]
        process.send_signal(signal.SIGHUP)
        done = harvester(tmp_path, "campaigns", "--base-url", origin)
        assert (done.code, len(done.stdout.split())) == (0, 3)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
