"""A campaign as the state keeps it, beside its walks: its detail and the API's counts for it.

What the two texts say is up to `api`; here they are kept, with a checksum.
"""

from typing import Any

from msgspec import Struct
from msgspec.structs import astuple

from harvester.disk.saved_walk import checksum


class SavedCampaign(Struct, frozen=True, kw_only=True):
    """The JSON of a detail and of counts; None: not asked for yet.

    The detail was asked for at `detail_at` (ISO-8601), when the API counted `detail_sends` sends
    (None: not known); the counts at `counted_at`.
    """

    campaign_id: str
    detail: str | None = None
    detail_at: str | None = None
    detail_sends: int | None = None
    counts: str | None = None
    counted_at: str | None = None

    def to_row(self) -> tuple[Any, ...]:
        """The values of the `COLUMNS`."""
        values = astuple(self)
        return (*values, checksum(*values))


COLUMNS = (*SavedCampaign.__struct_fields__, "checksum")
"""The columns of the table, in its order."""


def from_row(row: tuple[Any, ...]) -> SavedCampaign | None:
    """The campaign of a row; None if the row is damaged: then it is asked for again."""
    *values, stored = row
    if checksum(*values) != stored:
        return None
    return SavedCampaign(**dict(zip(SavedCampaign.__struct_fields__, values, strict=True)))
