"""What tells one event from another: its moment and the fields of its row that never change.

Rows have no id, and the bytes of a row do change: a deleted contact adds a member to it. So rows
are compared by the fields that the API sets once.
"""

import json
from datetime import UTC, datetime
from functools import cache
from typing import Any

import msgspec

_FIELDS = ("url_id", "link_id", "bounce_code", "device_type")
_ABSENT = msgspec.Raw()


class Row(msgspec.Struct, frozen=True):
    """One event. `moment` is None if its row has no readable time, `activity` is the id in
    `campaign_activity_id` ("" in v2, whose rows have none). Equal rows are twins: two events."""

    moment: datetime | None
    activity: str
    identity: tuple[bytes, ...]


class RowReader:
    """Reads the event of a row. A time without a zone is UTC, as the API means it."""

    def __init__(self, time_field: str) -> None:
        self._time_field = time_field
        self._decode, self._decode_time = _decoders(time_field)

    def __call__(self, line: bytes) -> Row:
        """The event of a line without its line break."""
        try:
            found = self._decode(line)
        except msgspec.DecodeError:  # a lone surrogate somewhere in the row
            fields = json.loads(line)
            value = fields.get(self._time_field)
            return Row(_moment(value), _id(fields.get("campaign_activity_id")), (line,))
        time, contact = bytes(found.time), bytes(found.contact_id)
        activity = bytes(found.campaign_activity_id)
        rest = tuple(bytes(getattr(found, name)) for name in _FIELDS)
        # Without a contact nothing tells two events of one moment apart but the whole row.
        identity = (time, contact, *rest) if contact else (line,)
        return Row(_moment(_text(time)), _id(_text(activity)), identity)

    def moment(self, line: bytes) -> datetime | None:
        """When the event of a line happened."""
        try:
            return _moment(self._decode_time(line).time)
        except msgspec.DecodeError:
            return self(line).moment

    def ends(self, lines: bytes) -> tuple[datetime | None, datetime | None]:
        """When the first and the last event of NDJSON happened."""
        first, last = lines.index(b"\n"), lines.rfind(b"\n", 0, -1) + 1
        return self.moment(lines[:first]), self.moment(lines[last:])


@cache
def _decoders(time_field: str) -> tuple[Any, Any]:
    """Read the fields that tell an event, as raw JSON; the time alone."""
    names, rename = ("time", "contact_id", "campaign_activity_id", *_FIELDS), {"time": time_field}
    fields = [(name, msgspec.Raw, _ABSENT) for name in names]
    event: Any = msgspec.defstruct("Event", fields, rename=rename)
    time: Any = msgspec.defstruct("Time", [("time", str | None, None)], rename=rename)
    return msgspec.json.Decoder(event).decode, msgspec.json.Decoder(time).decode


def _text(raw: bytes) -> object:
    try:
        return msgspec.json.decode(raw) if raw else None
    except msgspec.DecodeError:
        return None


def _id(value: object) -> str:
    return value.lower() if isinstance(value, str) else ""


def _moment(value: object) -> datetime | None:
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) and value else None
    except ValueError:
        return None
    return moment.replace(tzinfo=UTC) if moment and moment.tzinfo is None else moment
