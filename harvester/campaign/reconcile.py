"""The API's own counts held beside ours. A difference is a finding, not a failure.

The summary counts unique recipients, the reports list every event: so the number that must agree
is that of distinct contacts (v2 page "Campaign summary report").
"""

import asyncio
import json
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing
from itertools import islice
from typing import Any
from weakref import WeakValueDictionary

import msgspec

from harvester.api.base import Api
from harvester.disk.disk_set import DiskSet
from harvester.disk.storage import TEMPORARY, storage
from harvester.errors import CampaignError
from harvester.model import Fetcher, Request, Target

_KEPT = 1_000  # summaries: far more than there are campaigns under way
_BATCH = 10_000  # rows


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
        counts = self._api.counts
        if counts is None:
            return None
        link = counts.link(target.campaign_id)
        try:
            return await self._fetcher.fetch(Request(target, link, counts.read, optional=True))
        except CampaignError:
            return None  # the events are all there; only the comparison is missing


class _Row(msgspec.Struct):
    contact_id: str | int | None = None


_row = msgspec.json.Decoder(_Row)


def distinct_contacts(lines: Iterable[bytes]) -> int:
    """How many contacts the records name; counted on disk, for there may be millions."""
    found = _contacts(lines)
    with ExitStack() as stack:
        with storage(TEMPORARY):
            contacts = stack.enter_context(closing(DiskSet()))
        while some := list(islice(found, _BATCH)):  # read outside: that is another file's trouble
            with storage(TEMPORARY):
                contacts.extend(some)
        with storage(TEMPORARY):
            return len(contacts)


def findings(report: str, summary: dict[str, int] | None, contacts: int) -> dict[str, Any]:
    """What the manifest says: the API's counts, ours, and whether they agree (None: unknown)."""
    said = summary.get(report) if summary is not None else None
    return {
        "summary": summary,
        "distinct_contacts": contacts,
        "reconciled": None if said is None else said == contacts,
    }


def _contacts(lines: Iterable[bytes]) -> Iterator[str]:
    for line in lines:
        try:
            contact = _row.decode(line).contact_id
        except msgspec.DecodeError:  # a lone surrogate somewhere in the row
            contact = json.loads(line).get("contact_id")
        if contact is not None:
            yield str(contact)
