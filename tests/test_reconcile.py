"""The API's own counts beside ours."""

import asyncio
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes import FakeClock, FakeFetcher, NoRoom, virtually
from workbench import Workbench

from harvester.api.base import Detail
from harvester.api.counts import CampaignCounts
from harvester.campaign.reconcile import distinct_contacts, findings
from harvester.errors import CampaignError, StopRun, StorageError
from harvester.model import Target


@pytest.mark.parametrize(
    ("lines", "count"),
    [
        ([], 0),
        ([b'{"contact_id":"1"}\n'] * 3, 1),
        ([b'{"contact_id":"1"}\n', b'{"contact_id":1}\n', b'{"contact_id":"2"}\n'], 2),
        ([b'{"contact_id":null}\n', b"{}\n"], 0),
        ([b'{"contact_id":"1","email":"\\ud800"}\n', b'{"contact_id":"2"}\n'], 2),
        ([b'{"contact_id":123456789012345678901234567890}\n'], 1),
    ],
)
def test_contacts_are_counted_once(lines: list[bytes], count: int) -> None:
    """As text or as a number; rows that name none do not count."""
    assert distinct_contacts(lines) == count


@pytest.mark.parametrize("statement", ["CREATE", "INSERT", "count"])
def test_a_full_temporary_folder_is_storage_trouble(
    monkeypatch: pytest.MonkeyPatch, statement: str
) -> None:
    """It stops the run and names the folder: no campaign failed, and it is no bug."""
    NoRoom.placed(monkeypatch, statement)
    with pytest.raises(StorageError, match=r"temporary files \(.*database or disk is full"):
        distinct_contacts([b'{"contact_id":"1"}\n'])


def test_trouble_with_the_records_is_not_that_of_the_temporary_folder() -> None:
    """The code that opened their file knows its name."""

    def broken() -> Iterator[bytes]:
        yield b'{"contact_id":"1"}\n'
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with pytest.raises(OSError, match="Input/output error"):
        distinct_contacts(broken())


@pytest.mark.parametrize(
    ("summary", "contacts", "reconciled"),
    [
        ({"opens": 5, "clicks": 1}, 5, True),
        ({"opens": 5}, 4, False),
        ({"opens": 5}, 6, False),
        ({"opens": 0}, 0, True),
        ({"clicks": 5}, 5, None),
        ({}, 0, None),
        (None, 5, None),
    ],
)
def test_they_agree_differ_or_cannot_be_compared(
    summary: dict[str, int] | None, contacts: int, reconciled: bool | None
) -> None:
    """A count that the API did not give is no difference."""
    counts = None if summary is None else CampaignCounts(campaign_id="7", recipients=summary)
    assert findings("opens", counts, contacts=contacts, rows=9) == {
        "summary": summary,
        "distinct_contacts": contacts,
        "reconciled": reconciled,
    }


# -- the API's own counts ------------------------------------------------------------------------


class SlowFetcher(FakeFetcher):
    """An API whose answers take ten seconds, each from a script of its own."""

    def __init__(self, *script: Any) -> None:
        super().__init__(script, delay=10.0)


def detail(campaign_id: str) -> Detail:
    """A detail that counts one open."""
    return Detail(counts=CampaignCounts(campaign_id=campaign_id, recipients={"opens": 1}))


@pytest.fixture
def bench(tmp_path: Path, clock: FakeClock) -> Iterator[Workbench]:
    """A directory."""
    bench = Workbench(tmp_path / "out", clock)
    yield bench
    bench.close()


def test_a_campaign_waits_for_its_own_summary_only(bench: Workbench) -> None:
    """Where one is long in coming, no other is held up; each is asked for once."""

    async def main() -> None:
        fetcher = SlowFetcher(*(detail(str(each)) for each in range(5)))
        lookup = bench.lookup(fetcher)
        targets = [Target(report, str(each)) for each in range(5) for report in ("opens", "sends")]
        asked = (lookup.counted(each, anew=True) for each in targets)
        found = await asyncio.gather(*asked)
        assert [each and each.recipients for each in found] == [{"opens": 1}] * 10
        assert (len(fetcher.calls), fetcher.peak) == (5, 5)
        assert asyncio.get_running_loop().time() == 10.0

    virtually(main)


@pytest.mark.parametrize(("hours", "anew", "calls"), [(1, False, 1), (1, True, 2), (25, False, 2)])
async def test_counts_of_an_earlier_run_are_taken_where_nothing_came_since(
    bench: Workbench, clock: FakeClock, hours: int, anew: bool, calls: int
) -> None:
    """As long as they are a day old at most."""
    fetcher = FakeFetcher([detail("7"), detail("7")])
    for _ in range(2):
        lookup = bench.lookup(fetcher)
        for report in ("opens", "sends"):
            assert await lookup.counted(Target(report, "7"), anew=anew)
        clock.advance(hours * 3600)
        bench.begin()
    assert len(fetcher.calls) == calls


@pytest.mark.parametrize("end", ["refused", "stopped", "cancelled"])
def test_who_waits_for_a_summary_learns_what_came_of_it_or_asks(bench: Workbench, end: str) -> None:
    """What the API refuses is kept for all tasks; a stop or a cancel keeps nothing."""

    async def main() -> None:
        first: Any = {"refused": CampaignError("rejected", "no"), "stopped": StopRun("x", "y")}
        fetcher = SlowFetcher(first.get(end), detail("7"))
        lookup = bench.lookup(fetcher)
        asker = asyncio.create_task(lookup.counted(Target("opens", "7"), anew=True))
        await asyncio.sleep(1)
        other = asyncio.create_task(lookup.counted(Target("sends", "7"), anew=True))
        await asyncio.sleep(1)
        if end == "cancelled":
            asker.cancel()
        await asyncio.wait([asker, other])
        found = other.result()
        assert (found and found.recipients) == (None if end == "refused" else {"opens": 1})
        assert len(fetcher.calls) == (1 if end == "refused" else 2)
        ended = await asyncio.gather(asker, return_exceptions=True)
        assert not isinstance(ended[0], CampaignCounts)

    virtually(main)


@pytest.mark.parametrize(("rows", "reconciled"), [(9, True), (8, False)])
def test_where_the_api_counts_rows_they_must_agree_as_well(rows: int, reconciled: bool) -> None:
    """As many contacts with a row missing is a difference."""
    counts = CampaignCounts(campaign_id="7", recipients={"opens": 5}, rows={"opens": 9})
    found = findings("opens", counts, contacts=5, rows=rows)
    assert (found["rows_counted"], found["reconciled"]) == (9, reconciled)


def test_a_contact_of_two_activities_counts_twice() -> None:
    """So it does in the API's counts of a campaign with a resend."""
    row = b'{"contact_id":"1","campaign_activity_id":"%s"}'
    assert distinct_contacts([row % b"a", row % b"a", row % b"b"]) == 2
