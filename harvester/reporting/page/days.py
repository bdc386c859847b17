"""Requests by UTC day, from what the runs left. Pure."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from harvester.reporting.page.sources import Run

_MOST_DAYS = 400  # that the requests of one run are divided among


@dataclass(frozen=True, slots=True, kw_only=True)
class Day:
    """One UTC day: requests of the runs here, and of all others that used the key.

    `about`: a run went over midnight, and its requests were divided by estimate. `others` are
    those of killed runs, which leave no figures, and of other directories.
    """

    day: date
    sent: int
    others: int
    limit: int
    about: bool


def requests_by_day(runs: Sequence[Run]) -> list[Day]:
    """The days on which a run sent something or ended, oldest first."""
    sent: defaultdict[date, int] = defaultdict(int)
    estimated: set[date] = set()
    limits: dict[date, int] = {}
    for run in runs:
        pieces = dict(_pieces(run))
        for day, count in pieces.items():
            sent[day] += count
        if len(pieces) > 1:
            estimated |= pieces.keys()
        for day in pieces:
            limits[day] = run.quota.limit
    used: defaultdict[date, int] = defaultdict(int)
    for run in runs:
        day = _day(run.finished_at)
        used[day] = max(used[day], run.quota.used_today)
    return [
        Day(
            day=day,
            sent=sent[day],
            others=max(0, used[day] - sent[day]),
            limit=limits[day],
            about=day in estimated,
        )
        for day in sorted(sent)
    ]


def _pieces(run: Run) -> Iterator[tuple[date, int]]:
    """A run's requests by day.

    When it ended the key had used `used_today` on that day: the run had sent no more than that.
    What is left belongs to the days before, in equal parts: the quota is the same on each.
    """
    first, last = _day(run.started_at), _day(run.finished_at)
    if first >= last:
        yield last, run.requests.sent
        return
    span = (run.finished_at - run.started_at).total_seconds()
    share = _seconds_of_day(run.finished_at) / span
    newest = round(run.requests.sent * share)
    if run.quota.limit:
        newest = min(run.requests.sent, run.quota.used_today)
    yield last, newest
    left = run.requests.sent - newest
    days = min((last - first).days, _MOST_DAYS)
    for ahead in range(days, 0, -1):
        piece = left // ahead
        yield last - timedelta(days=ahead), piece
        left -= piece


def _day(moment: datetime) -> date:
    return moment.astimezone(UTC).date()


def _seconds_of_day(moment: datetime) -> float:
    at = moment.astimezone(UTC)
    return (at - at.replace(hour=0, minute=0, second=0, microsecond=0)).total_seconds()
