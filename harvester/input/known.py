"""What is known of a campaign before it is walked, and what may be concluded from it. No I/O."""

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime, timedelta
from typing import TypeVar

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from harvester.api.base import Detail
from harvester.api.counts import CampaignCounts
from harvester.disk.saved_campaign import SavedCampaign
from harvester.runtime import stamp

T = TypeVar("T")
_FRESH = timedelta(hours=24)  # older counts are asked for again, and nothing is concluded from them
_SETTLED = timedelta(days=1)  # how long after a campaign's last change its counts are trusted
# The shares of empty reports in small accounts (300 sends).
_OFTEN_EMPTY = {"clicks": 0.1, "bounces": 0.3, "unsubscribes": 0.4, "forwards": 0.9}
_SELDOM_EMPTY = 0.03
_detail = msgspec.json.Decoder(Detail)
_counts = msgspec.json.Decoder(CampaignCounts)


class KnownCampaign(Struct, frozen=True, kw_only=True):
    """A campaign's detail and counts, and when each was asked for (None: never).

    `detail_sends` is how many sends the API counted when it gave the detail (None: not known).
    """

    campaign_id: str
    detail: Detail | None = None
    detail_at: datetime | None = None
    detail_sends: int | None = None
    counts: CampaignCounts | None = None
    counted_at: datetime | None = None

    @property
    def activities(self) -> tuple[str, ...]:
        """Its activities that have reports, as far as they are known."""
        return self.detail.activities if self.detail else ()

    def is_counted(self, now: datetime) -> bool:
        """Whether the counts were asked for less than 24 hours ago, also in vain."""
        return _is_fresh(self.counted_at, now)

    def is_counted_since(self, moment: str) -> bool:
        """Whether the counts were asked for at a moment (ISO-8601 as we write it) or later."""
        return (_text(self.counted_at) or "") >= moment

    def fresh_counts(self, now: datetime) -> CampaignCounts | None:
        """The counts, if they were asked for less than 24 hours ago."""
        return self.counts if self.is_counted(now) else None

    def detail_is_current(self, since: str, now: datetime) -> bool:
        """Whether the detail need not be asked for again.

        It was asked for at `since` (ISO-8601 as we write it) or later, and in the last 24 hours; or
        the sends have not moved since it was: a resend raises them. Only counts that the API
        refreshed in the last 24 hours show that.
        """
        if self.detail is None or self.detail_at is None:
            return False
        counts = self.fresh_counts(now)
        if counts is not None and None not in (counts.sends, self.detail_sends):
            if counts.sends != self.detail_sends:
                return False
            refreshed = counts.refreshed_at
            if refreshed and refreshed >= self.detail_at and _is_fresh(refreshed, now):
                return True
        return stamp(self.detail_at) >= since and _is_fresh(self.detail_at, now)

    def current_links(self, since: str, now: datetime) -> str | None:
        """The campaign's links (NDJSON) in its current detail; None if there are none in it."""
        return self.detail.links if self.detail and self.detail_is_current(since, now) else None

    # -- how many rows -------------------------------------------------------------------------

    def is_empty(self, report: str, now: datetime) -> bool:
        """Whether a report certainly has no rows, as a whole or in each of its activities."""
        if self.counts is not None and self._says_empty(self.counts, report, now):
            return True
        activities = set(self.activities)
        return bool(activities) and self.empty_activities(report, now) >= activities

    def empty_activities(self, report: str, now: datetime) -> set[str]:
        """The activities that certainly have no rows of a report: those without any in counts that
        add up to the campaign's."""
        each = self.counts.activities if self.counts else {}
        found = [counts.recipients.get(report) for counts in each.values()]
        if self.counts is None or None in found:
            return set()
        if sum(map(int, filter(None, found))) != self.counts.recipients.get(report):
            return set()
        return {name for name, counts in each.items() if self._says_empty(counts, report, now)}

    def _says_empty(self, counts: CampaignCounts, report: str, now: datetime) -> bool:
        """Whether counts say that a report has no rows, and are believed.

        A campaign that was sent has recipients: one without is odd, and says nothing, unless its
        sends were looked at.
        """
        sent = bool(counts.sends) or counts.unsent
        return sent and counts.least_rows(report) == 0 and self._is_settled(counts, now)

    def _is_settled(self, counts: CampaignCounts, now: datetime) -> bool:
        """Whether counts are believed where they say 0: they are fresh, and the API refreshed them
        a day or more after the campaign's last change."""
        updated = self.detail.updated_at if self.detail else None
        if updated is None or counts.refreshed_at is None:
            return False
        return self.is_counted(now) and counts.refreshed_at >= updated + _SETTLED

    def is_doubtful(self, reports: Collection[str], now: datetime) -> bool:
        """Whether nothing is counted at all, not even sends, and one look at those would save other
        requests."""
        counts = self.counts
        if counts is None or counts.unsent or len(self.activities) > 1 or len(reports) < 2:
            return False
        none = all(counts.least_rows(each) == 0 for each in ("sends", *reports))
        return none and self._is_settled(counts, now)

    def saved_by_activities(self, reports: Iterable[str], now: datetime) -> float:
        """How many requests the counts of its activities save: in how many of those a report has
        none of its recipients, by chance."""
        number, counts = len(self.activities), self.counts
        if number < 2 or counts is None or counts.activities or not self._is_settled(counts, now):
            return 0
        found = (counts.recipients.get(report, 0) for report in reports)
        return sum(number * (1 - 1 / number) ** recipients for recipients in found if recipients)

    def pages(self, report: str, page_size: int, now: datetime) -> int | None:
        """The requests that a walk of the report takes, by the counts; None if they do not say.

        An activity costs a request where it has no rows as well, unless all are known to be empty;
        what the activities share out, pages out at half a page more for each.
        """
        counts, number = self.fresh_counts(now), max(1, len(self.activities))
        rows = counts.least_rows(report) if counts else None
        if counts is None or rows is None:
            return None
        if rows == 0:
            return 0 if self.detail is None or self.is_empty(report, now) else number
        if number == 1:
            return -(-rows // page_size)
        own = [
            each.least_rows(report)
            for name, each in counts.activities.items()
            if name in self.activities
        ]
        if len(own) == number and None not in own:
            empty = len(self.empty_activities(report, now))
            return sum(max(1, -(-(rows or 0) // page_size)) for rows in own) - empty
        return max(number, round(rows / page_size + number / 2))

    # -- in a top-up ---------------------------------------------------------------------------

    def mark(self, report: str, now: datetime) -> str | None:
        """A text for the report's present count and this moment; None without a count."""
        counts = self.fresh_counts(now)
        found = counts.mark(report) if counts else None
        return found and f"{found} {stamp(now)}"

    def is_unmoved(self, report: str, mark: str | None, now: datetime) -> bool:
        """Whether nothing came to a report since its walk, for which `mark` was kept.

        The count is the same, and the API refreshed it after the walk and in the last 24 hours.
        """
        counts = self.fresh_counts(now)
        if mark is None or counts is None or counts.refreshed_at is None:
            return False
        before, _, walked_at = mark.partition(" ")
        return (
            counts.mark(report) == before
            and counts.refreshed_at > datetime.fromisoformat(walked_at)
            and _is_fresh(counts.refreshed_at, now)
        )

    # -- what came -----------------------------------------------------------------------------

    def with_counts(self, counts: CampaignCounts | None, now: datetime) -> "KnownCampaign":
        """The same campaign with counts that were asked for now; None if the API has none."""
        return replace(self, counts=counts, counted_at=now)

    def with_detail(self, detail: Detail, now: datetime) -> "KnownCampaign":
        """The same campaign with a detail that was asked for now, and the counts that it holds."""
        known = self
        if detail.counts is not None:
            known = self.with_counts(replace(detail.counts, refreshed_at=now), now)
            detail = replace(detail, counts=None)
        counts = known.fresh_counts(now)
        sends = counts.sends if counts else None
        return replace(known, detail=detail, detail_at=now, detail_sends=sends)

    def with_activities(self, found: Mapping[str, CampaignCounts]) -> "KnownCampaign":
        """The same campaign with the counts of its activities, as far as they are among these."""
        own = {each: found[each] for each in self.activities if each in found}
        return replace(self, counts=self.counts and replace(self.counts, activities=own))

    def looked_at(self, *, sent: bool) -> "KnownCampaign":
        """The same campaign after a look at its sends: counts that say none are wrong if it was
        sent, and are not believed in anything."""
        counts = None if sent else self.counts and replace(self.counts, unsent=True)
        return replace(self, counts=counts)

    # -- what is kept --------------------------------------------------------------------------

    @property
    def saved(self) -> SavedCampaign:
        """The campaign as the state keeps it."""
        return SavedCampaign(
            campaign_id=self.campaign_id,
            detail=_encode(self.detail),
            detail_at=_text(self.detail_at),
            detail_sends=self.detail_sends,
            counts=_encode(self.counts),
            counted_at=_text(self.counted_at),
        )


def known(saved: SavedCampaign) -> KnownCampaign:
    """Read what is kept. What another version of this program wrote may not be readable."""
    return KnownCampaign(
        campaign_id=saved.campaign_id,
        detail=_decode(saved.detail, _detail),
        detail_at=_moment(saved.detail_at),
        detail_sends=saved.detail_sends,
        counts=_decode(saved.counts, _counts),
        counted_at=_moment(saved.counted_at),
    )


def worth_asking(
    campaigns: Iterable[KnownCampaign], reports: Collection[str], most: int, now: datetime
) -> list[list[KnownCampaign]]:
    """Blocks of campaigns with at most `most` activities together, whose counts save more requests
    than the one that each block costs."""
    gains = [(campaign.saved_by_activities(reports, now), campaign) for campaign in campaigns]
    blocks, room = list[list[tuple[float, KnownCampaign]]](), 0
    for gain, campaign in sorted(gains, key=lambda each: -each[0]):
        if gain and (number := len(campaign.activities)) <= most:
            if number > room:
                blocks.append([])
                room = most
            blocks[-1].append((gain, campaign))
            room -= number
    worth = (block for block in blocks if sum(gain for gain, _ in block) > 1)
    return [[campaign for _, campaign in block] for block in worth]


def requests_saved(reports: Iterable[str], *, top_up: bool = False) -> float:
    """How many requests counts may save where these reports of a campaign are to be read. In a
    top-up a report of an old campaign seldom moves."""
    return sum(0.5 if top_up else _OFTEN_EMPTY.get(each, _SELDOM_EMPTY) for each in reports)


def _is_fresh(moment: datetime | None, now: datetime) -> bool:
    """Whether a moment is under 24 hours old. One to come is the fault of a clock."""
    return moment is not None and now - _FRESH < moment < now + _FRESH


def _text(moment: datetime | None) -> str | None:
    return stamp(moment) if moment else None


def _moment(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def _encode(value: Detail | CampaignCounts | None) -> str | None:
    return msgspec.json.encode(value).decode() if value is not None else None


def _decode(text: str | None, decoder: msgspec.json.Decoder[T]) -> T | None:
    try:
        return decoder.decode(text) if text else None
    except msgspec.DecodeError:
        return None
