"""The API's own counts held beside ours. A difference is a finding, not a failure.

The summary counts unique recipients, the reports list every event: so the number that must agree
is that of distinct contacts (v2 page "Campaign summary report").
"""

from collections.abc import Iterable, Iterator
from contextlib import closing
from typing import Any

import msgspec

from harvester.ids import IdSpool


class _Row(msgspec.Struct):
    contact_id: str | int | None = None


_row = msgspec.json.Decoder(_Row)


def distinct_contacts(lines: Iterable[bytes]) -> int:
    """How many contacts the records name; counted on disk, for there may be millions."""
    with closing(IdSpool()) as contacts:
        contacts.extend(_contacts(lines))
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
        except msgspec.DecodeError:  # a lone surrogate somewhere in the record
            continue
        if contact is not None:
            yield str(contact)
