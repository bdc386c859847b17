"""login, check, run and logout as a user meets them, against a server on a real socket.

What is killed or signalled is a process of its own; the rest runs in this one, which is quicker.
"""

import json
import os
import re
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from fake_sign_in import CAMPAIGNS, CANARY, CLIENT, PAGES, Serving, SignIn, serving

from harvester.cli import main
from harvester.disk.token_store import TokenStore


@dataclass
class Shell:
    """A user's shell, whose state and server are its own."""

    home: Path
    server: Serving
    patch: pytest.MonkeyPatch
    capture: pytest.CaptureFixture[str]

    @property
    def env(self) -> dict[str, str]:
        own = {name: text for name, text in os.environ.items() if not name.startswith("HARVESTER_")}
        return {
            **own,
            "HARVESTER_STATE_DIR": str(self.home / "state"),
            "HARVESTER_BASE_URL": self.server.url,
            "HARVESTER_AUTH_URL": self.server.url,
            "HARVESTER_API": "v3",
            "HARVESTER_RATE": "0",
        }

    def start(self, *argv: object, **env: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, "-W", "error", "-m", "harvester", *map(str, argv)],
            cwd=self.home,
            env={**self.env, **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *argv: object, **env: str) -> tuple[int, str, str]:
        """Exit code, standard output and standard error."""
        with self.patch.context() as here:
            here.chdir(self.home)
            for name in [name for name in os.environ if name.startswith("HARVESTER_")]:
                here.delenv(name)
            for name, value in {**self.env, **env}.items():
                here.setenv(name, value)
            self.capture.readouterr()
            code = main([*map(str, argv)])
        said = self.capture.readouterr()
        return code, said.out, said.err

    def login(self) -> None:
        code, _, err = self.run("login", "--client-id", CLIENT)
        assert (code, "Traceback" in err) == (0, False), err

    def store(self) -> TokenStore:
        return TokenStore(self.home / "state", "default")

    def expire(self, days: float = 1.1) -> None:
        """A day and more passes."""
        self.server.sign_in.access.clear()
        account = self.store().read()
        assert account is not None
        received, expires = (at - days * 86_400 for at in (account.received_at, account.expires_at))
        with self.store().room() as room:
            room.save(replace(account, received_at=received, expires_at=expires))


Opener = Callable[..., AbstractContextManager[Shell]]


@pytest.fixture
def shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Opener:
    """Opens a shell with a server of such settings."""

    @contextmanager
    def opened(name: str = "home", **settings: Any) -> Iterator[Shell]:
        home = tmp_path / name
        home.mkdir()
        with serving(Serving(SignIn(**settings))) as server:
            yield Shell(home, server, monkeypatch, capfd)

    return opened


def until(condition: Callable[[], bool]) -> None:
    for _ in range(1_000):
        if condition():
            return
        time.sleep(0.02)
    raise AssertionError("it does not come to that")


def assert_harvested(out: Path) -> None:
    """Every file is there, each with every row once."""
    for campaign in CAMPAIGNS:
        lines = (out / "opens" / f"{campaign}.ndjson").read_text().splitlines()
        assert len(lines) == len(set(lines)) == PAGES


def test_from_a_client_id_to_a_first_file(shell: Opener) -> None:
    """Every step ends with the next one; tokens stand in one file of 0600 and nowhere else."""
    with shell(life=100.0) as user:
        code, out, err = user.run("login", HARVESTER_CLIENT_ID=CLIENT)
        assert (code, out) == (0, "")
        assert "https://activate.example/device?user_code=ABCD-EFGH" in err
        assert "ABCD-EFGH" in err.replace("user_code=ABCD-EFGH", "")
        said = re.findall(r"^Next: (harvester check.*)$", err, re.MULTILINE)
        assert said == [
            f"harvester check --base-url {user.server.url} --auth-url {user.server.url}"
        ]

        code, out, err = user.run(*said[0].split()[1:])
        assert (code, err) == (0, "")
        assert out.startswith("ok: ")
        assert "requests today: 1 of 10,000" in out
        where = f"--base-url {user.server.url} --auth-url {user.server.url}"
        assert f"next: harvester run --all-sent {where} (" in out
        assert user.server.hits == [("/v3/emails?limit=1", 200)]

        code, out, err = user.run(
            *("run", "--all-sent", "-v", "-v", "--log-format", "json", "--provenance", "--json")
        )
        assert code == 0, err
        assert_harvested(user.home / "harvest")
        (user.home / "log").write_text(out + err)

        holders = [
            path
            for path in user.home.rglob("*")
            if path.is_file() and CANARY in path.read_bytes().decode("utf-8", "replace")
        ]
        assert holders == [user.store().path]
        assert stat.S_IMODE(user.store().path.stat().st_mode) == 0o600

        code, out, err = user.run("logout")
        assert (code, out) == (0, "")
        assert not any(
            CANARY in path.read_bytes().decode("utf-8", "replace")
            for path in user.home.rglob("*")
            if path.is_file()
        )
        code, _, err = user.run("run", "--all-sent")
        assert code == 2
        assert "harvester login" in err


def test_two_runs_at_once_on_one_account_of_short_lived_tokens(shell: Opener) -> None:
    """Several lives of a token: each renewal once, no 401 loop, nothing refused."""
    with shell(life=2.0) as user:
        user.login()
        user.server.latency = 0.15
        runs = [user.start("run", "-o", f"out{n}", "-j", 1, *CAMPAIGNS) for n in range(2)]
        for process in runs:
            _, err = process.communicate(timeout=60)
            assert process.returncode == 0, err
        for n in range(2):
            assert_harvested(user.home / f"out{n}")
        sign_in = user.server.sign_in
        assert sign_in.refused == 0
        lasted = sign_in.asked[-1][0] - sign_in.asked[0][0]
        assert 2 <= sign_in.exchanges <= lasted / 1.5 + 1
        assert min(sign_in.gaps) >= 1.0
        refused = [hit for hit in user.server.hits if hit[1] == 401]
        assert len(refused) <= 2 * sign_in.exchanges


def test_a_signal_waits_for_an_answer_that_is_on_its_way(shell: Opener) -> None:
    """The server has rotated and answers three seconds later: the next run needs no sign-in."""
    with shell(leeway=0.0) as user:
        user.login()
        sign_in = user.server.sign_in
        user.expire()
        sign_in.faults = ["late"]
        with user.start("run", "--no-progress", *CAMPAIGNS) as process:
            until(lambda: sign_in.exchanges == 1)
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=60)
            assert process.returncode == 143
        code, _, err = user.run("run", *CAMPAIGNS)
        assert code == 0, err
        assert sign_in.refused == 0
        assert_harvested(user.home / "harvest")


def test_a_kill_before_the_answer_is_named_by_the_next_run(shell: Opener) -> None:
    """Without leeway it cannot be healed: exit 4, what happened, and a next step that works."""
    with shell(leeway=0.0) as user:
        user.login()
        sign_in = user.server.sign_in
        user.expire()
        sign_in.faults = ["late"]
        with user.start("run", *CAMPAIGNS) as process:
            until(lambda: sign_in.exchanges == 1)
            process.kill()
            process.communicate(timeout=60)
        code, _, err = user.run("run", *CAMPAIGNS)
        assert code == 4
        assert "never arrived" in err
        assert CANARY not in err
        step = re.search(r"harvester (login \S+ \S+ \S+ [^\s,;]+)", err)
        assert step is not None
        code, _, err = user.run(*step[1].split())
        assert code == 0, err
        assert user.run("run", *CAMPAIGNS)[0] == 0


@pytest.mark.parametrize(
    ("faults", "code", "text"),
    [
        (["", "denied"], 4, "denied"),
        (["", "expired"], 4, "not confirmed"),
        (["invalid_client"], 4, "Device Flow"),
    ],
)
def test_a_sign_in_that_fails_ends_with_4(
    shell: Opener, faults: list[str], code: int, text: str
) -> None:
    """One clear line, no traceback."""
    with shell(faults=faults) as user:
        found, out, err = user.run("login", "--client-id", CLIENT)
        assert (found, out) == (code, "")
        assert text in err.splitlines()[-1]
        assert err.endswith("next step: the same command\n")
        assert "Traceback" not in err


def test_a_missing_client_id_and_a_missing_refresh_token(shell: Opener) -> None:
    """Exit 2 says where the id comes from; a day's sign-in says that it is one."""
    with shell(offline=False) as user:
        code, _, err = user.run("login")
        assert code == 2
        assert "My Applications" in err
        assert user.server.sign_in.asked == []
        code, _, err = user.run("login", "--client-id", CLIENT)
        assert code == 0
        assert "lasts 24 hours only" in err
        code, out, _ = user.run("check")
        assert code == 0
        assert "no refresh token" in out


def test_ctrl_c_while_a_person_decides(shell: Opener) -> None:
    """130, and no traceback."""
    with shell(pending=10**6) as user:
        with user.start("login", "--client-id", CLIENT) as process:
            until(lambda: "device_code" in user.server.sign_in.grants)
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=60)
        assert process.returncode == 130
        assert "Traceback" not in err


def test_tokens_are_not_sent_to_another_origin(shell: Opener) -> None:
    """Whatever the environment says: exit 2, nothing sent."""
    with shell("a") as user, shell("b") as other:
        user.login()
        for name in ("HARVESTER_BASE_URL", "HARVESTER_AUTH_URL"):
            for command in (("run", *CAMPAIGNS), ("check",), ("campaigns",)):
                code, _, err = user.run(*command, **{name: other.server.url})
                assert code == 2, err
                assert "was signed in with" in err
        assert other.server.hits == []
        assert other.server.sign_in.asked == []


def test_check_warns_of_a_machine_that_stood_still(shell: Opener) -> None:
    """A sign-in dies of 180 unused days. The check itself uses it: its dates are of today."""
    with shell() as user:
        user.login()
        user.expire(days=160)
        code, out, _ = user.run("check")
        assert code == 0
        assert "warning: the sign-in was not used for 160 days" in out
        assert f"last renewed {datetime.now(UTC):%Y-%m-%d}" in out
        code, out, _ = user.run("check")
        assert (code, "warning" in out) == (0, False)


def test_check_says_which_is_wrong(shell: Opener) -> None:
    """A token, a privilege; as JSON too; the quota and its reset."""
    with shell() as user:
        assert user.run("check")[0] == 2
        user.login()
        user.server.forbidden = True
        code, out, _ = user.run("check")
        assert (code, out.partition(":")[0]) == (4, "privilege")
        user.server.forbidden = False
        code, out, _ = user.run("check", "--json")
        found = json.loads(out)
        assert (code, found["verdict"]["wrong"]) == (0, None)
        assert found["quota"]["used_today"] == 2
        assert found["sign_in"]["account"] == "default"
        code, out, err = user.run("check", HARVESTER_DAILY_QUOTA="2")
        assert (code, out) == (75, "")
        assert "quota" in err
        user.server.sign_in.access.clear()
        code, out, _ = user.run("check", HARVESTER_ACCESS_TOKEN="stale", HARVESTER_CLIENT_ID=CLIENT)
        assert (code, out.partition(":")[0]) == (4, "token")
        assert user.run("check")[0] in {0, 4}
