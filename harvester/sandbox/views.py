"""From mailings to rows: each report as v2 lists it, and as v3 does.

A *position* is a place in a report as the API lists it, from 0.
"""

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from math import inf
from typing import Final

from .chance import draw, number_of
from .mailings import Mailings
from .reports import OLDEST_FIRST, ONCE, REPORTS, V3_REPORTS
from .rows import LINKS, V2_SPELLINGS, V3_SPELLINGS, email, extra, link_url, names, timestamp
from .settings import SandboxSettings
from .sizes import events_of
from .stream import Stream

_LONGEST_STEP_MS: Final = 3 * 3_600_000
_MINUTE_MS: Final = 60_000


@dataclass(frozen=True, slots=True)
class View:
    """A report of one mailing, readable from any position.

    `event_at` gives the event at a position, `spell` the exact JSON text of an event's row.
    `resolution_ms`: the rows' times are rounded down to it.
    """

    stream: Stream
    count: int
    event_at: Callable[[int], int]
    spell: Callable[[int], str]
    oldest_first: bool = False
    resolution_ms: int = 1

    def __len__(self) -> int:
        return self.count

    def date_ms(self, position: int) -> int:
        """When the event at a position was, in epoch milliseconds, not rounded."""
        return self.stream.date_ms(self.event_at(position))

    def rows(self, positions: range) -> Iterator[str]:
        """The rows at these positions, in the API's order."""
        return (self.spell(self.event_at(position)) for position in positions)

    def since(self, since_ms: int | None) -> range:
        """The positions of the rows whose time is on or after a moment.

        They are a prefix of a newest-first list, and a suffix of an oldest-first list.
        """
        if since_ms is None:
            return range(self.count)
        newer = self._newer(-(-since_ms // self.resolution_ms) * self.resolution_ms)
        return range(self.count - newer, self.count) if self.oldest_first else range(newer)

    def after(self, date_ms: int) -> int:
        """The first position beyond every event of that millisecond."""
        if self.oldest_first:
            return self.count - self._newer(date_ms + 1)
        return self._newer(date_ms)

    def _newer(self, since_ms: int) -> int:
        """How many events are on or after a moment."""
        positions = range(self.count)
        if self.oldest_first:
            return self.count - bisect_left(positions, since_ms, key=self.date_ms)
        return bisect_right(positions, -since_ms, key=lambda position: -self.date_ms(position))


class Views:
    """The reports of an account's mailings. Nothing is kept: a row is made when it is read."""

    def __init__(self, settings: SandboxSettings, mailings: Mailings) -> None:
        self._seed, self._mailings, self._ids = settings.seed, mailings, mailings.ids
        self._integer_ids = settings.integer_ids
        self._resolution_ms = _MINUTE_MS if settings.whole_minutes else 1
        self.arrivals: Final[defaultdict[tuple[int, str], list[tuple[float, int]]]] = defaultdict(
            list
        )
        """Of a mailing and a kind of events: when (Unix seconds) how many more came."""
        self.deleted: Final[dict[int, int]] = {}
        """Contacts deleted later, with the moment in epoch milliseconds."""

    def stream(self, events: str, mailing: int, at: float = inf) -> Stream:
        """The events of one kind, as they are or as they were at a moment (Unix seconds)."""
        counts = self._at_start(mailing)
        here, came = counts[events], self.arrivals[mailing, events]
        first_contact = 1_000_000 + draw(self._seed, 4, mailing) % 1_000_000
        if events == "bounces":  # who bounced did not open: the far end of the mailing
            first_contact += counts["sends"] - here
        life_ms = self._mailings.life_ms(mailing)
        return Stream(
            key=draw(self._seed, 5, mailing, number_of(events)),
            events=here,
            added=sum(count for when, count in came if when <= at),
            sent_ms=self._mailings.sent_ms(mailing),
            step_ms=min(_LONGEST_STEP_MS, max(2, life_ms // (here + 1))),
            first_contact=first_contact,
            once=events in ONCE,
        )

    def v2(self, report: str, mailing: int, at: float = inf) -> View:
        """A report as v2 lists it; KeyError for a report that v2 does not have."""
        stream, oldest_first = self.stream(report, mailing, at), report in OLDEST_FIRST
        events = range(-stream.added, stream.events)[:: -1 if oldest_first else 1]
        spell = partial(self._v2_row, stream, report, self._ids.v2(mailing))
        return View(stream, len(events), events.__getitem__, spell, oldest_first)

    def v3(self, report: str, mailing: int, at: float = inf) -> View:
        """A report of an activity as v3 lists it; KeyError for one that v3 does not have."""
        asked = V3_REPORTS[report]
        stream = self.stream(asked.events, mailing, at)
        newest, count = -stream.added, len(stream)
        event_at: Callable[[int], int] = range(newest, stream.events).__getitem__
        if asked.only == "last_of_each_contact":
            count, event_at = stream.unique(), stream.last_of_contact
        elif asked.only == "did_not_open":
            # Contacts open from the near end of the mailing and bounce from the far end.
            opened = self.stream("opens", mailing, at).unique()
            count = max(stream.added, count - opened - len(self.stream("bounces", mailing, at)))
            event_at = _around(newest, opened)
        activity = self._ids.uuid("activity", mailing)
        campaign = self._ids.v2(self._mailings.campaign_of(mailing))
        urls = {link: link_url(campaign, link) for link in LINKS}
        return View(
            stream,
            count,
            event_at,
            partial(self._v3_row, stream, asked.events, asked.activity_type, activity, urls),
            resolution_ms=self._resolution_ms,
        )

    def _at_start(self, mailing: int) -> dict[str, int]:
        if not self._mailings.sent(mailing):
            return dict.fromkeys(REPORTS, 0)
        return dict(events_of(self._mailings.opens(mailing), draw(self._seed, 6, mailing)))

    def _v2_row(self, stream: Stream, report: str, campaign_id: str, event: int) -> str:
        event, contact = stream.source(event), stream.contact(event)
        spellings = V2_SPELLINGS[report]
        return spellings[stream.variant(event, len(spellings))] % {
            "campaign": campaign_id if self._integer_ids else f'"{campaign_id}"',
            "contact": contact,
            "email": email(contact),
            "date": timestamp(stream.date_ms(event)),
            "extra": extra(event),
        }

    def _v3_row(
        self,
        stream: Stream,
        events: str,
        activity_type: str,
        activity: str,
        urls: dict[str, str],
        event: int,
    ) -> str:
        event, contact = stream.source(event), stream.contact(event)
        spellings = V3_SPELLINGS[events] if activity_type != "em_didnotopens" else ("",)
        own = spellings[stream.variant(event, len(spellings))]
        when = stream.date_ms(event) // self._resolution_ms * self._resolution_ms
        return (
            f'{{"contact_id":"{self._ids.uuid("contact", contact)}"'
            f',"campaign_activity_id":"{activity}","tracking_activity_type":"{activity_type}"'
            f',"email_address":"{email(contact)}"'
            f"{names(contact)}{own % {'contact': contact, **urls}}"
            f',"created_time":"{timestamp(when)}"{self._deleted_at(contact)}'
            f"{extra(event, v3=True)}}}"
        )

    def _deleted_at(self, contact: int) -> str:
        when = self.deleted.get(contact)
        if when is None and contact % 89 == 7:  # deleted before the world began
            when = 1_711_886_400_000 + contact % 1_000 * 3_600_000
        return "" if when is None else f',"deleted_at":"{timestamp(when)}"'


def _around(newest: int, opened: int) -> Callable[[int], int]:
    """The sends that came later (below 0), then the first ones without the contacts who opened."""
    return lambda place: newest + place + (opened if newest + place >= 0 else 0)
