"""For the tests of the README: its blocks, and a place where its lines run as they stand.

The README's `...` are taken at their word: the sandbox has `...` for its key, token and app.
"""

import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from crashlab import Served

from harvester.disk.token_store import Account, TokenStore
from harvester.sandbox import Sandbox, SandboxSettings, SignInSettings

README = Path(__file__).parents[1] / "README.md"
TEXT = README.read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```([\w ]+)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
DOTS = "..."


def block(kind: str, with_: str = "") -> str:
    """The one block of a kind that has some text in it."""
    (found,) = [body for name, body in BLOCKS if name == kind and with_ in body]
    return str(found)


def vendor() -> Served:
    """A simulated vendor: twenty campaigns, some of them without opens."""
    return Served(
        Sandbox(
            SandboxSettings(
                campaigns=20,
                pages=40,
                rows_per_page=40,
                api_key=DOTS,
                access_token=DOTS,
                client_id=DOTS,
                sign_in=SignInSettings(interval=0.1, rate_limit=0),
            )
        )
    )


@dataclass(frozen=True)
class Machine:
    """A user's machine: a home, `harvester` on its path, and settings that lead to the vendor."""

    home: Path
    served: Served

    def __post_init__(self) -> None:
        self.program.parent.mkdir(parents=True)
        self.program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m harvester "$@"\n')
        self.program.chmod(0o755)

    @property
    def program(self) -> Path:
        """Where the README's cron line has it."""
        return self.home / "harvester/.venv/bin/harvester"

    @property
    def state(self) -> Path:
        """The folder for the day's count and the accounts."""
        return self.home / "state"

    @property
    def settings(self) -> dict[str, str]:
        """What is said in the environment."""
        url = self.served.sandbox.base_url
        return {
            "HARVESTER_BASE_URL": url,
            "HARVESTER_AUTH_URL": url,
            "HARVESTER_STATE_DIR": str(self.state),
            "HARVESTER_RATE": "0",
        }

    def sign_in(self, *names: str) -> None:
        """What `harvester login` leaves of each account; the vendor's token is good for ever."""
        (self.state / "accounts").mkdir(parents=True, mode=0o700)
        url, now = self.served.sandbox.base_url, time.time()
        for name in names:
            account = Account(
                name=name,
                client_id=DOTS,
                base_url=url,
                auth_url=url,
                scope="campaign_data offline_access",
                access_token=DOTS,
                refresh_token=None,
                signed_in_at=now,
                received_at=now,
                expires_at=now + 86_400,
            )
            with TokenStore(self.state, name).room() as room:
                room.save(account)

    def environment(self, **more: str) -> dict[str, str]:
        """A user's, with `harvester` on the path."""
        kept = {name: text for name, text in os.environ.items() if "HARVESTER" not in name}
        path = f"{self.program.parent}:{kept['PATH']}"
        return {**kept, "HOME": str(self.home), "PATH": path, **more}

    def run(self, *argv: str, **more: str) -> str:
        """Run something in the home; it must succeed. Gives what it printed, errors too."""
        done = subprocess.run(
            argv,
            cwd=self.home,
            env=self.environment(**more),
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=100,
            text=True,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    def sh(self, script: str, **more: str) -> str:
        """Run lines of a shell, of which none may fail."""
        return self.run("sh", "-ec", script, **(self.settings | more))

    def files(self, folder: str) -> int:
        """How many finished files of opens are there; each must have the vendor's rows."""
        found = list((self.home / folder / "opens").glob("*.ndjson"))
        world = self.served.sandbox.world
        for path in found:
            rows = list(world.records("opens", path.stem))
            assert path.read_bytes().splitlines() == rows, path
        return len(found)
