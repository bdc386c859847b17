"""The API's own counts held beside ours. A difference is a finding, not a failure.

The counts are of unique recipients, the reports list every event: so the number that must agree is
that of distinct contacts (v2: `tracking_summary` of the campaign). Where the API counts events too
(v3: `em_opens_all`, `em_clicks_all`), that of the rows must agree as well. A contact of two
activities of a v3 campaign counts twice.
"""

import asyncio
import json
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import closing
from typing import Any
from weakref import WeakValueDictionary

import msgspec

from harvester.api.base import Api
from harvester.api.counts import CampaignCounts
from harvester.disk.disk_set import DiskSet
from harvester.errors import CampaignError
from harvester.model import Fetcher, Request, Target

_KEPT = 1_000  # summaries: far more than there are campaigns under way


class Summaries:
    """The API's own counts of a campaign, asked for once, however many reports of it there are."""

    def __init__(self, fetcher: Fetcher, api: Api) -> None:
        self._fetcher = fetcher
        self._api = api
        # A lock for each campaign that is asked for now; one that is not held is gone.
        self._asking: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._known: OrderedDict[str, dict[str, int] | None] = OrderedDict()

    async def of(self, target: Target) -> dict[str, int] | None:
        """Unique recipients by report; None if the API does not say.

        Tasks that want the same campaign's wait for one answer; no other task waits.
        """
        campaign_id = target.campaign_id
        asking = self._asking.setdefault(campaign_id, asyncio.Lock())
        async with asking:
            if campaign_id not in self._known:
                self._known[campaign_id] = await self._ask(target)
                if len(self._known) > _KEPT:
                    self._known.popitem(last=False)
            return self._known[campaign_id]

    async def _ask(self, target: Target) -> dict[str, int] | None:
        if self._api.bulk_counts is not None:
            return None

        def read(body: bytes) -> dict[str, int] | None:
            counts = self._api.read_detail(target.campaign_id, body).counts
            return dict(counts.recipients) if counts else None

        link = self._api.detail_link(target.campaign_id)
        try:
            return await self._fetcher.fetch(Request(target, link, read, optional=True))
        except CampaignError:
            return None  # the events are all there; only the comparison is missing


class _Row(msgspec.Struct):
    contact_id: str | int | None = None
    campaign_activity_id: str | None = None


_row = msgspec.json.Decoder(_Row)


def distinct_contacts(lines: Iterable[bytes]) -> int:
    """How many contacts the records of each activity name; counted on disk, for there may be
    millions."""
    with closing(DiskSet()) as contacts:
        contacts.extend(_contacts(lines))
        return len(contacts)


def findings(
    report: str, summary: CampaignCounts | None, *, contacts: int, rows: int
) -> dict[str, Any]:
    """What the manifest says: the API's counts, ours, and whether they agree (None: unknown)."""
    said = summary.recipients.get(report) if summary is not None else None
    total = summary.rows.get(report) if summary is not None else None
    agree = [had == ours for had, ours in ((said, contacts), (total, rows)) if had is not None]
    return {
        "summary": None if summary is None else dict(summary.recipients),
        **({} if total is None else {"rows_counted": total}),
        "distinct_contacts": contacts,
        "reconciled": all(agree) if agree else None,
    }


def _contacts(lines: Iterable[bytes]) -> Iterator[str]:
    for line in lines:
        try:
            row = _row.decode(line)
        except msgspec.DecodeError:  # a lone surrogate somewhere in the row
            found = json.loads(line)
            row = _Row(found.get("contact_id"), found.get("campaign_activity_id"))
        if row.contact_id is not None:
            yield f"{row.campaign_activity_id or ''} {row.contact_id}"
