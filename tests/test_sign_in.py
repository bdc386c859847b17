"""Signing in by the device flow: calm while a person decides, clear at every end."""

import asyncio
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from fake_sign_in import CANARY, CLIENT, InMemory, Serving, SignIn, served
from fakes import LoopClock, refusing, virtually

from harvester import ConfigError, HarvestConfig, StopRun, sign_in, walk
from harvester.api.oauth import DeviceCode
from harvester.device_flow import sign_in_at, sign_out
from harvester.disk.token_store import Account, TokenStore
from harvester.errors import StorageError


@dataclass
class Desk:
    """A person at a terminal, on a virtual clock."""

    root: Path
    server: SignIn
    clock: LoopClock
    shown: list[DeviceCode] = field(default_factory=list)

    async def sign_in(self, name: str = "default") -> Account:
        return await sign_in_at(
            InMemory(self.server),
            TokenStore(self.root, name),
            client_id=CLIENT,
            base_url="https://api.example",
            show=self.shown.append,
            clock=self.clock,
        )


def desk(root: Path, **settings: Any) -> Desk:
    clock = LoopClock()
    return Desk(root, SignIn(now=lambda: clock.now().timestamp(), **settings), clock)


@pytest.mark.parametrize(
    "faults",
    [
        [],
        ["", "429", "503", "html", "empty", "reset"],
        ["503", "html", "", "slow_down", "slow_down", "429"],
        ["", *["503"] * 40],
    ],
)
def test_a_person_signs_in_through_every_blip(tmp_path: Path, faults: Sequence[str]) -> None:
    """The link and the code are shown once; the account is stored, bound and whole."""
    here = desk(tmp_path, pending=5, faults=list(faults))

    async def main() -> None:
        account = await here.sign_in()
        assert [code.user_code for code in here.shown] == ["ABCD-EFGH"]
        assert TokenStore(tmp_path).read() == account
        assert account.auth_url == "https://sign-in.example"
        assert account.base_url == "https://api.example"
        assert account.client_id == CLIENT
        assert here.server.accepts(f"Bearer {account.access_token}")
        assert min(here.server.gaps) >= 1

    virtually(main)


def test_slow_down_makes_the_polls_five_seconds_slower_for_good(tmp_path: Path) -> None:
    """RFC 8628, 3.5."""
    here = desk(tmp_path, pending=4, interval=5.0, faults=["", "", "slow_down"])

    async def main() -> None:
        await here.sign_in()
        first, second, *later = here.server.gaps
        assert first == pytest.approx(second, abs=0.5)
        assert min(later) >= 10

    virtually(main)


def test_a_poll_waits_as_long_as_the_server_asks(tmp_path: Path) -> None:
    """Retry-After goes before the interval, once."""
    here = desk(tmp_path, pending=2, interval=1.0, faults=["", "503"])

    async def main() -> None:
        await here.sign_in()
        _, after_503, following = here.server.gaps[:3]
        assert after_503 >= 2
        assert following < 2

    virtually(main)


@pytest.mark.parametrize(
    ("settings", "text", "reason"),
    [
        ({"pending": 3, "faults": ["", "", "denied"]}, "denied in the browser", "refused"),
        ({"pending": 10**6}, "not confirmed in time", "refused"),
        ({"pending": 3, "faults": ["", "expired"]}, "not confirmed in time", "refused"),
        ({"faults": ["invalid_client"]}, "Device Flow", "refused"),
        ({"faults": ["", "invalid_client"]}, "invalid_client", "refused"),
        ({"faults": ["503"] * 9}, "try again later", "sick_server"),
        ({"faults": ["", "lost"]}, "not confirmed in time", "refused"),
    ],
)
def test_each_end_without_tokens_is_clear_and_leaves_what_was_there(
    tmp_path: Path, settings: dict[str, Any], text: str, reason: str
) -> None:
    """Denial, expiry, a wrong client id, a server in trouble, an answer that was lost."""
    here = desk(tmp_path)

    async def main() -> None:
        before = await here.sign_in()
        here.server.pending = settings.get("pending", 0)
        here.server.faults = list(settings.get("faults", []))
        with pytest.raises(StopRun, match=text) as end:
            await here.sign_in()
        assert end.value.reason == {"refused": "sign_in_refused"}.get(reason, reason)
        assert CANARY not in str(end.value)
        assert TokenStore(tmp_path).read() == before
        assert here.clock.monotonic() < 700

    virtually(main)


def test_a_second_sign_in_replaces_the_first(tmp_path: Path) -> None:
    """Also a damaged one; another account stays as it is."""
    here = desk(tmp_path)

    async def main() -> None:
        first, other = await here.sign_in(), await here.sign_in("other")
        second = await here.sign_in()
        assert second.access_token != first.access_token
        assert TokenStore(tmp_path).read() == second
        assert second.generation > first.generation
        TokenStore(tmp_path).path.write_bytes(b"damaged")
        third = await here.sign_in()
        assert TokenStore(tmp_path).read() == third
        assert TokenStore(tmp_path, "other").read() == other

    virtually(main)


def test_a_disk_that_refuses_is_found_out_before_a_person_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is sent."""
    here = desk(tmp_path)
    monkeypatch.setattr(os, "pwrite", refusing(28))

    async def main() -> None:
        with pytest.raises(StorageError):
            await here.sign_in()

    virtually(main)
    assert here.shown == []
    assert here.server.asked == []


def test_a_cancel_while_a_person_decides_ends_it(tmp_path: Path) -> None:
    """At once, and nothing is stored."""
    here = desk(tmp_path, pending=10**6)

    async def main() -> None:
        task = asyncio.ensure_future(here.sign_in())
        await asyncio.sleep(20.5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert here.clock.monotonic() < 21
        assert TokenStore(tmp_path).read() is None

    virtually(main)


# -- with a config -------------------------------------------------------------------------------


async def test_signed_in_from_python_and_used_at_once(tmp_path: Path) -> None:
    """`sign_in`, then `walk`: no key and no token in the config."""
    async with served(Serving(SignIn())) as server:
        config = HarvestConfig(
            api="v3",
            base_url=server.url,
            auth_url=server.url,
            client_id=CLIENT,
            state_dir=tmp_path,
            rate=0,
        )
        shown: list[DeviceCode] = []
        account = await sign_in(config, show=shown.append)
        assert account.base_url == account.auth_url == server.url
        assert len(shown) == 1
        campaign = "1d3a7b5e-0c1f-4a52-9a6b-0123456789ab"
        rows = [page.rows async for page in walk(campaign, config)]
        assert sum(rows) == 3
        assert await sign_out(config) == tmp_path / "accounts" / "default.json"
        assert await sign_out(config) is None
        with pytest.raises(ConfigError, match="harvester login"):
            _ = [page async for page in walk(campaign, config)]


async def test_without_a_client_id_it_says_where_one_comes_from(tmp_path: Path) -> None:
    """Nothing is sent: exit 2."""
    config = HarvestConfig(api="v3", state_dir=tmp_path, auth_url="http://127.0.0.1:9")
    with pytest.raises(ConfigError, match=r"developer portal.*My Applications.*Device Flow"):
        await sign_in(config, show=lambda code: None)
    with pytest.raises(ConfigError, match="v3"):
        await sign_in(HarvestConfig(state_dir=tmp_path, api="v2"), show=lambda code: None)
