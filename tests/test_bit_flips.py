"""Bits that rot: each stored field that steers a run, one bit at a time.

A run is killed in the middle of its work, a bit of what it left is flipped, and the next run is
made. It ends with the right files or it is refused; it never follows what is wrong.
"""

import random
import shutil
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from crashlab import config_of

from harvester import HarvestConfig, client, harvest
from harvester.disk.saved_walk import PAGES_IN_PACK
from harvester.disk.token_store import Account, TokenStore
from harvester.errors import ConfigError, StorageError
from harvester.events import CampaignCompleted, CampaignFailed, Event, PageCommitted
from harvester.request.retry_policy import RetryPolicy
from harvester.sandbox import Sandbox, SandboxSettings

ROWS, PAGES, MISSING = 5, 24, "7"
SAMPLE = pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.long)])
LONG = pytest.mark.timeout(3_600)


class Cell(NamedTuple):
    """A value of the state, and where it stands."""

    table: str
    column: str
    number: int  # of its row
    value: Any

    @property
    def raw(self) -> bytes:
        """Its bits."""
        if isinstance(self.value, int):
            return self.value.to_bytes(8, "little", signed=True)
        return self.value.encode() if isinstance(self.value, str) else self.value or b""

    def flip(self, db: sqlite3.Connection, bit: int) -> None:
        """Flip one bit of it, and nothing else."""
        raw = _flipped(self.raw, bit)
        bad = int.from_bytes(raw, "little", signed=True) if isinstance(self.value, int) else raw
        changed = "CAST(? AS TEXT)" if isinstance(self.value, str) else "?"
        keys = {"walks": "id", "pages": "page", "settings": "name", "campaigns": "campaign_id"}
        found = f"SELECT {keys[self.table]} FROM {self.table} LIMIT 1 OFFSET {self.number}"
        db.execute(
            f"UPDATE {self.table} SET {self.column} = {changed} "
            f"WHERE {keys[self.table]} = ({found})",
            (bad,),
        )


def _flipped(raw: bytes, bit: int) -> bytes:
    bad = bytearray(raw)
    bad[bit // 8] ^= 1 << bit % 8
    return bytes(bad)


def cells(database: Path) -> Iterator[Cell]:
    """Every value that is stored."""
    with closing(sqlite3.connect(database)) as db:
        for table in ("walks", "pages", "settings", "campaigns"):
            found = db.execute(f"SELECT * FROM {table}")
            names = [name for name, *_ in found.description]
            for number, row in enumerate(found):
                for name, value in zip(names, row, strict=True):
                    if (table, name) != ("walks", "id"):  # a rowid: no field of a record
                        yield Cell(table, name, number, value)


@dataclass
class Killed:
    """What a killed run has left: a campaign that is complete, one that failed, one in mid-walk and
    one that was not begun. `root` is where the next run finds it."""

    sandbox: Sandbox
    root: Path
    ids: list[str]
    spent: int = 0

    def config(self, **settings: Any) -> HarvestConfig:
        """The same settings every time."""
        return config_of(self.sandbox, self.root, **{"concurrency": 1, **settings})

    async def begin(self, **settings: Any) -> None:
        """Make the run that is killed: what it has left in mid-run is copied and put back."""

        def observe(event: Event) -> None:
            ended.update({type(event)} & {CampaignFailed, CampaignCompleted})
            mid_walk = isinstance(event, PageCommitted) and event.page > PAGES_IN_PACK
            if mid_walk and len(ended) == 2 and not self.kept.exists():
                shutil.copytree(self.root, self.kept)
                self.spent = self.sandbox.requests

        ended: set[type[Event]] = set()
        await harvest(self.ids, self.config(**settings), observe=observe)
        self.back()

    @property
    def kept(self) -> Path:
        """The copy."""
        return self.root.with_name("kept")

    @property
    def database(self) -> Path:
        """The state."""
        return self.root / "out" / ".harvester" / "state.sqlite"

    def back(self) -> None:
        """As the killed run has left it."""
        shutil.rmtree(self.root)
        shutil.copytree(self.kept, self.root)

    def content(self, campaign_id: str) -> bytes:
        """The right file."""
        rows = self.sandbox.world.records("opens", campaign_id)
        return b"".join(row + b"\n" for row in rows)

    def assert_right(self, *, whole: bool) -> None:
        """No finished file is wrong; with `whole` all are there."""
        found = {path.stem: path.read_bytes() for path in (self.root / "out").glob("*/*.ndjson")}
        assert found == {name: self.content(name) for name in found}
        if whole:
            assert set(found) == set(self.ids) - {MISSING}
            assert list((self.root / "out" / "opens").glob("*.part")) == []


@pytest.fixture
async def killed(root: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Killed]:
    """A run that was killed. The waits between attempts are tested elsewhere."""
    monkeypatch.setattr(client, "RetryPolicy", partial(RetryPolicy, first=0.001, refused=0.001))
    settings = SandboxSettings(campaigns=3, pages=PAGES, rows_per_page=ROWS, unsent=0)
    async with Sandbox(settings) as sandbox:
        first, *others = sorted(
            sandbox.world.campaign_ids, key=lambda each: sandbox.world.pages("opens", each, ROWS)
        )
        found = Killed(sandbox, root / "run", [first, MISSING, *reversed(others)])
        await found.begin()
        yield found


def chosen(bits: int, *, every: bool, chance: random.Random) -> list[int]:
    """All bits of a field, or one of them."""
    return list(range(bits)) if every else chance.sample(range(bits), min(1, bits))


@LONG
@SAMPLE
async def test_no_bit_of_the_state_is_followed(killed: Killed, *, every: bool) -> None:
    """In any field of any table: the run ends with every file right, or it is refused and has
    changed no file."""
    chance, runs, refused = random.Random(1), 0, 0
    for cell in list(cells(killed.database)):
        for bit in chosen(8 * len(cell.raw), every=every, chance=chance):
            killed.back()
            with closing(sqlite3.connect(killed.database)) as db, db:
                cell.flip(db, bit)
            before, runs, whole = killed.sandbox.requests, runs + 1, True
            try:
                report = await harvest(killed.ids, killed.config())
            except (ConfigError, StorageError):
                refused, whole = refused + 1, False
            else:
                assert (report.exit_code, report.campaigns.failed) == (3, 1), (cell, bit)
            killed.assert_right(whole=whole)
            # At worst, every walk starts over.
            assert killed.sandbox.requests - before <= PAGES + 1, (cell, bit)
    print(f"{runs} flips, {refused} of them refused")
    assert runs > (4_000 if every else 70)


@LONG
@SAMPLE
async def test_no_bit_of_the_days_count_overdraws_a_day(killed: Killed, *, every: bool) -> None:
    """Whichever bit of it: of two requests that are left no third one is made, and no file is
    wrong."""
    (count,) = (killed.root / "state").glob("*.json")
    raw, spent = count.read_bytes(), killed.spent
    sent = []
    for bit in range(0, 8 * len(raw), 1 if every else 101):
        killed.back()
        count.write_bytes(_flipped(raw, bit))
        before = killed.sandbox.requests
        with suppress(ConfigError):
            report = await harvest(killed.ids, killed.config(daily_quota=spent + 2))
            assert (report.exit_code, report.reason) == (75, "quota_spent"), bit
        sent.append(killed.sandbox.requests - before)
        killed.assert_right(whole=False)
    print(f"{len(sent)} flips, {sent.count(0)} of them sent nothing")
    assert max(sent) == 2


@LONG
@SAMPLE
async def test_no_bit_of_a_token_costs_a_sign_in(
    killed: Killed, monkeypatch: pytest.MonkeyPatch, *, every: bool
) -> None:
    """Whichever bit of the account's file: the run goes on with the good token."""
    store = TokenStore(killed.root / "state", "default")
    url, here = killed.sandbox.base_url, killed.sandbox.world.v3_campaign_ids[0]
    account = Account(
        name="default",
        client_id="sandbox-key",
        base_url=url,
        auth_url=url,
        scope="campaign_data",
        access_token="sandbox-token",
        refresh_token="never-to-be-sent",
        signed_in_at=0.0,
        received_at=4e9,
        expires_at=4.1e9,
    )
    with store.room() as room:
        room.save(account)
    good, before = store.path.read_bytes(), killed.sandbox.requests
    asked: dict[str, Any] = {"access_token": None, "api_key": None, "auth_url": url, "api": "v3"}
    asked |= {"page_size": 500, "daily_quota": 0, "fresh": True}
    flips = range(0, 8 * len(good.rstrip()) + 8, 1 if every else 397)
    for bit in flips:
        store.path.write_bytes(_flipped(good, bit))
        config = killed.config(**asked, output=killed.root / "v3")
        report = await harvest([here], config)
        assert report.exit_code == 0, bit
        assert store.read() == account
        assert killed.sandbox.requests == before + 2, bit
        before += 2
