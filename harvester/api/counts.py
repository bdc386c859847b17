"""The API's own numbers for its campaigns: how they are asked for and read. No I/O.

v3 gives those of many campaigns at once (`/reports/stats/email_campaigns`, OpenAPI 3.0.178: at most
150 ids). The guide and the description spell some names in two ways, numbers may come as strings,
and a campaign may be missing: what cannot be read is passed over. Those of the activities of a
campaign, each alone, come ten at a time (`/reports/stats/email_campaign_activities`).
"""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import msgspec
from msgspec import Struct, field

from harvester.api.page import read_object

_NUMBER = re.compile(rb'"?([0-9]{1,15})"?')
_RECIPIENTS = {
    "opens": ("em_opens",),
    "clicks": ("em_clicks",),
    "sends": ("em_sends",),
    "bounces": ("em_bounces",),
    "forwards": ("em_forwards",),
    "unsubscribes": ("em_optouts",),
    "unique_opens": ("em_opens",),
    "did_not_open": ("em_not_opened",),
}
_ROWS = {
    "opens": ("em_opens_all", "em_opens.all"),
    "clicks": ("em_clicks_all", "em_clicks.all"),
}
_REPEATED = {"opens": "opens", "clicks": "clicks", "unique_opens": "opens"}


class CampaignCounts(Struct, frozen=True, kw_only=True):
    """The API's numbers for one campaign, by report.

    `recipients` counts contacts, `rows` events where the API counts them. The numbers were taken
    at `refreshed_at` (None: not known). `activities` are those of each activity, by its id, where
    they were asked for. `unsent` says that a look at the sends showed that there are none.
    """

    campaign_id: str
    recipients: Mapping[str, int] = field(default_factory=dict)
    rows: Mapping[str, int] = field(default_factory=dict)
    refreshed_at: datetime | None = None
    activities: Mapping[str, "CampaignCounts"] = field(default_factory=dict)
    unsent: bool = False

    @property
    def sends(self) -> int | None:
        """To how many contacts it was sent; a resend raises it."""
        return self.recipients.get("sends")

    def least_rows(self, report: str) -> int | None:
        """The rows that the report has at least; None if they are not known."""
        known = [each[report] for each in (self.recipients, self.rows) if report in each]
        return max(known) if known else None

    def mark(self, report: str) -> str | None:
        """A text that changes when the report does; None if the counts do not show that.

        A contact that opens once more moves the rows, not the recipients.
        """
        recipients, repeated = self.recipients.get(report), _REPEATED.get(report)
        if recipients is None or (repeated is not None and repeated not in self.rows):
            return None
        return f"{recipients}/{self.rows[repeated]}" if repeated else str(recipients)


class BulkCounts(Struct, frozen=True):
    """Counts of many campaigns in one request, at most `most_ids`; `activities` is the same for
    those of activities. An entry has its own id in `id_field`."""

    path: str
    id_field: str
    most_ids: int
    activities: "BulkCounts | None" = None

    def link(self, ids: Sequence[str]) -> str:
        """The link to ask for these ids."""
        return f"{self.path}/{','.join(ids)}"

    def read(self, body: bytes) -> dict[str, CampaignCounts]:
        """The counts in the body of the 200, by id. Raise `Unreadable`."""
        entries = (_read_entry(raw, self.id_field) for raw in read_object(body, _stats).results)
        return {entry.campaign_id: entry for entry in entries if entry is not None}


V3_COUNTS = BulkCounts(
    "/v3/reports/stats/email_campaigns",
    "campaign_id",
    150,
    BulkCounts("/v3/reports/stats/email_campaign_activities", "campaign_activity_id", 10),
)


class _Entry(msgspec.Struct):
    stats: dict[str, msgspec.Raw]
    campaign_id: str | None = None
    campaign_activity_id: str | None = None
    last_refresh_time: msgspec.Raw = msgspec.Raw(b"null")


class _Stats(msgspec.Struct):
    results: list[msgspec.Raw]


_stats = msgspec.json.Decoder(_Stats)
_entry = msgspec.json.Decoder(_Entry)
_text = msgspec.json.Decoder(str)


def _read_entry(raw: msgspec.Raw, id_field: str) -> CampaignCounts | None:
    """The counts of one campaign or activity; None if the entry is not the documented one."""
    try:
        found = _entry.decode(raw)
    except (msgspec.DecodeError, ValueError):
        return None
    if not (own_id := getattr(found, id_field)):
        return None
    return CampaignCounts(
        campaign_id=own_id.lower(),
        recipients=_numbers(found.stats, _RECIPIENTS),
        rows=_numbers(found.stats, _ROWS),
        refreshed_at=read_moment(found.last_refresh_time),
    )


def _numbers(
    stats: Mapping[str, msgspec.Raw], names: Mapping[str, Sequence[str]]
) -> dict[str, int]:
    """By report, the number under the first of its names that has one."""
    return {
        report: int(number[1])
        for report, spellings in names.items()
        for name in reversed(spellings)
        if (number := _NUMBER.fullmatch(bytes(stats.get(name, b""))))
    }


def read_moment(raw: msgspec.Raw) -> datetime | None:
    """A moment of the API; None if it cannot be read. A time without a zone is UTC."""
    try:
        moment = datetime.fromisoformat(_text.decode(raw))
    except (msgspec.DecodeError, ValueError):
        return None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
