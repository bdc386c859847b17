"""The API's own counts held beside ours. A difference is a finding, not a failure.

The counts are of unique recipients, the reports list every event: so the number that must agree is
that of distinct contacts (v2: `tracking_summary` of the campaign). Where the API counts events too
(v3: `em_opens_all`, `em_clicks_all`), that of the rows must agree as well. A contact of two
activities of a v3 campaign counts twice.
"""

import json
from collections.abc import Iterable, Iterator
from contextlib import closing
from typing import Any

import msgspec

from harvester.api.counts import CampaignCounts
from harvester.disk.disk_set import DiskSet


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
