"""When an event happened, read from a row."""

from datetime import UTC, datetime
from typing import Any

import msgspec


class Moments:
    """Reads the moment of a row from its time field; None if there is none.

    A time without a zone is UTC, as the API means it.
    """

    def __init__(self, time_field: str) -> None:
        shape: Any = msgspec.defstruct(
            "Row", [("moment", str | None, None)], rename={"moment": time_field}
        )
        self._decode = msgspec.json.Decoder(shape).decode

    def __call__(self, row: bytes) -> datetime | None:
        try:
            text = self._decode(row).moment
            moment = datetime.fromisoformat(text) if text else None
        except (msgspec.DecodeError, ValueError):
            return None
        return moment.replace(tzinfo=UTC) if moment and moment.tzinfo is None else moment
