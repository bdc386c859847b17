"""What is known of a campaign before it is walked, and what may be concluded from it. No I/O."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import datetime
from typing import TypeVar

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from harvester.api.base import Detail
from harvester.api.counts import (
    CampaignCounts,
    empty_activities,
    is_fresh,
    is_settled,
    pages_expected,
    says_empty,
)
from harvester.disk.saved_campaign import SavedCampaign
from harvester.runtime import stamp

T = TypeVar("T")
_detail = msgspec.json.Decoder(Detail)
_counts = msgspec.json.Decoder(CampaignCounts)


class KnownCampaign(Struct, frozen=True):
    """A campaign's detail and counts, read from what the state keeps."""

    saved: SavedCampaign
    detail: Detail | None = None
    counts: CampaignCounts | None = None

    def fresh_counts(self, now: datetime) -> CampaignCounts | None:
        """The counts, if they were asked for less than 24 hours ago."""
        return self.counts if is_fresh(_moment(self.saved.counted_at), now) else None

    def is_counted(self, now: datetime) -> bool:
        """Whether the counts were asked for less than 24 hours ago, also in vain."""
        return is_fresh(_moment(self.saved.counted_at), now)

    def is_counted_since(self, moment: str) -> bool:
        """Whether the counts were asked for at a moment (ISO-8601 as we write it) or later."""
        return (self.saved.counted_at or "") >= moment

    def detail_is_current(self, since: str, now: datetime) -> bool:
        """Whether the detail need not be asked for again.

        It was asked for at `since` (ISO-8601 as we write it) or later, and in the last 24 hours; or
        the sends have not moved since it was: a resend raises them. Only counts that the API
        refreshed in the last 24 hours show that.
        """
        if self.detail is None:
            return False
        counts, before = self.fresh_counts(now), self.saved.detail_sends
        sends = counts.sends if counts else None
        if counts is not None and sends is not None and before is not None:
            if sends != before:
                return False
            asked, refreshed = _moment(self.saved.detail_at), counts.refreshed_at
            if is_fresh(refreshed, now) and asked and refreshed and refreshed >= asked:
                return True
        return (self.saved.detail_at or "") >= since and is_fresh(
            _moment(self.saved.detail_at), now
        )

    def current_links(self, since: str, now: datetime) -> str | None:
        """The campaign's links (NDJSON) in its current detail; None if there are none in it."""
        current = self.detail is not None and self.detail_is_current(since, now)
        return self.detail.links if self.detail is not None and current else None

    def is_empty(self, report: str, now: datetime) -> bool:
        """Whether a report certainly has no rows: see `says_empty`."""
        activities = self.detail.activities if self.detail else ()
        return self._says_empty(self.counts, report, now) or (
            bool(activities) and self.empty_activities(report, now) >= set(activities)
        )

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

    def _says_empty(self, counts: CampaignCounts | None, report: str, now: datetime) -> bool:
        return counts is not None and says_empty(counts, report) and self._settled(counts, now)

    def _settled(self, counts: CampaignCounts, now: datetime) -> bool:
        counted_at = _moment(self.saved.counted_at)
        updated_at = self.detail.updated_at if self.detail else None
        return is_settled(counts, counted_at=counted_at, updated_at=updated_at, now=now)

    def is_doubtful(self, reports: Collection[str], now: datetime) -> bool:
        """Whether nothing is counted at all, not even sends, and one look at those would save other
        requests."""
        counts, activities = self.counts, self.detail.activities if self.detail else ()
        if counts is None or counts.unsent or len(activities) > 1 or len(reports) < 2:
            return False
        none = all(counts.least_rows(each) == 0 for each in ("sends", *reports))
        return none and self._settled(counts, now)

    def saved_by_activities(self, reports: Iterable[str], now: datetime) -> float:
        """How many requests the counts of its activities save, by chance."""
        number = len(self.detail.activities) if self.detail else 0
        counts = self.counts
        if number < 2 or counts is None or counts.activities or not self._settled(counts, now):
            return 0
        found = (counts.recipients.get(report, 0) for report in reports)
        return sum(empty_activities(each, number) for each in found if each)

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
            and is_fresh(counts.refreshed_at, now)
        )

    def pages(self, report: str, page_size: int, now: datetime) -> int | None:
        """The requests that a walk of the report takes, by the counts; None if they do not say.

        An activity costs a request where it has no rows as well, unless all are known to be empty;
        what the activities share out, pages out at half a page more for each.
        """
        counts = self.fresh_counts(now)
        rows = counts.least_rows(report) if counts else None
        if counts is None or rows is None:
            return None
        activities = max(1, len(self.detail.activities)) if self.detail else 1
        if rows == 0:
            return 0 if self.is_empty(report, now) or self.detail is None else activities
        if activities == 1:
            return pages_expected(counts, report, page_size)
        empty = len(self.empty_activities(report, now))
        each = [
            pages_expected(own, report, page_size)
            for name, own in counts.activities.items()
            if self.detail and name in self.detail.activities
        ]
        if len(each) == activities and None not in each:
            return sum(max(1, pages or 0) for pages in each) - empty
        return max(activities, round(rows / page_size + activities / 2))

    # -- what is kept --------------------------------------------------------------------------

    def with_detail(self, detail: Detail, now: datetime) -> "KnownCampaign":
        """The same campaign with a detail that was asked for now, and the counts that it holds."""
        if detail.counts is not None:
            found = replace(detail.counts, refreshed_at=now)
            return self.with_counts(found, now).with_detail(replace(detail, counts=None), now)
        counts = self.fresh_counts(now)
        saved = replace(
            self.saved,
            detail=_encode(detail),
            detail_at=stamp(now),
            detail_sends=counts.sends if counts else None,
        )
        return replace(self, saved=saved, detail=detail)

    def with_activities(self, found: Mapping[str, CampaignCounts]) -> "KnownCampaign":
        """The same campaign with the counts of its activities, as far as they are among these."""
        if self.counts is None or self.detail is None:
            return self
        own = {each: found[each] for each in self.detail.activities if each in found}
        counts = replace(self.counts, activities=own)
        return replace(self, saved=replace(self.saved, counts=_encode(counts)), counts=counts)

    def looked_at(self, *, sent: bool) -> "KnownCampaign":
        """The same campaign after a look at its sends: counts that say none are wrong if it was
        sent, and are not believed in anything."""
        counts = None if sent or self.counts is None else replace(self.counts, unsent=True)
        text = _encode(counts) if counts else None
        return replace(self, saved=replace(self.saved, counts=text), counts=counts)

    def with_counts(self, counts: CampaignCounts | None, now: datetime) -> "KnownCampaign":
        """The same campaign with counts that were asked for now; None if the API has none."""
        text = _encode(counts) if counts else None
        saved = replace(self.saved, counts=text, counted_at=stamp(now))
        return replace(self, saved=saved, counts=counts)


def worth_asking(
    campaigns: Iterable[KnownCampaign], reports: Collection[str], most: int, now: datetime
) -> Iterator[list[KnownCampaign]]:
    """Blocks of campaigns with at most `most` activities together, whose counts save more requests
    than the one that each block costs."""
    gains = [(campaign.saved_by_activities(reports, now), campaign) for campaign in campaigns]
    block: list[KnownCampaign] = []
    saved, room = 0.0, most
    for gain, campaign in sorted(gains, key=lambda each: -each[0]):
        number = len(campaign.detail.activities) if gain and campaign.detail else most + 1
        if number > room:
            if saved > 1:
                yield block
            block, saved, room = [], 0.0, most
        if number <= room:
            block.append(campaign)
            saved, room = saved + gain, room - number
    if saved > 1:
        yield block


def known(saved: SavedCampaign) -> KnownCampaign:
    """Read what is kept. What another version of this program wrote may not be readable."""
    return KnownCampaign(saved, _read(saved.detail, _detail), _read(saved.counts, _counts))


def _moment(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def _encode(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _read(text: str | None, decoder: msgspec.json.Decoder[T]) -> T | None:
    try:
        return decoder.decode(text) if text else None
    except msgspec.DecodeError:
        return None
