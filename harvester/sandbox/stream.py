r"""One report of one campaign: any of its rows from its number alone, at any time, in any order.

An *event* is a whole number: 0 is the newest there was when the world began, higher ones are
older, and what arrives later is -1, -2, -3. A *position* is a place in the report as the API lists
it, from 0.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from .chance import draw
from .reports import Report

_TWIN_EVERY: Final = 37
"""One in so many repeatable events equals its neighbour in every field: there is no event id."""
_STRIDE: Final = 2_147_483_647
"""A prime, so that stepping by it round any smaller circle of contacts meets each of them."""
_FIRST: Final = (
    "ann",
    "bo",
    "carla",
    "dmitri",
    "edith",
    "femi",
    "grace",
    "hugo",
    "ines",
    "jun",
    "kim",
)
_HOST: Final = ("example.com", "example.org", "mail.example.net")
_AWKWARD: Final = (
    r"\"quoted \\ name\"%d@example.com",
    "j\u00fcrgen.m\u00fc\u00dfig%d@ex\u00e4mple.de",
    r"path\/to\/%d@example.com",
    "line\u2028break%d@example.com",
    r"line\u2029escaped%d@example.com",
    "brace},{%d@example.com",
    r"]}\",\"next_link\":\"%d@example.com",
    "\u65e5\u672c%d@\u4f8b\u3048.jp",
    "\U0001f600%d@example.com",
    r"\ud83d\ude00\u00e9%d@example.com",
    "percent%%2Bplus+%d@example.com",
    r"tab\tnew\nline%d@example.com",
    "long" + "g" * 300 + "%d@example.com",
)
_EXTRAS: Final = (
    ',"device_type":"mobile"',
    ',"sequence":123456789012345678901234567890',
    ',"score":1.10',
    ',"detail":{"path":["a},{b",null,{"deep":1E+2}],"ok":true}',
)


def timestamp(epoch_ms: int) -> str:
    """As the API spells a date: UTC, three digits of a second, `Z`."""
    moment = datetime.fromtimestamp(epoch_ms / 1000, UTC)
    return moment.isoformat(timespec="milliseconds")[:-6] + "Z"


@dataclass(frozen=True, slots=True)
class Stream:
    """The events of one (report, campaign).

    Dates are epoch milliseconds; `step_ms` is their mean distance.
    """

    report: Report
    campaign: str
    key: int
    events: int
    added: int
    sent_ms: int
    step_ms: int
    first_contact: int
    awkward: bool
    extras: bool

    def __len__(self) -> int:
        return self.events + self.added

    def event_at(self, position: int) -> int:
        """The event at a place of the list, which runs newest first or oldest first."""
        return self.events - 1 - position if self.report.oldest_first else position - self.added

    def unique(self, *, added: bool = True) -> int:
        """Distinct contacts, as the vendor's summary counts; without `added`, as at the start."""
        if self.report.once:
            return len(self) if added else self.events
        return self._circle() if self.events or (added and self.added) else 0

    def date_ms(self, event: int) -> int:
        """When an event was.

        Never rises with the event's number; some neighbours share a millisecond.
        """
        event = self._source(event)
        slot = event - 1 if event % 11 == 7 else event
        jitter = draw(self.key, slot) % self.step_ms
        return self.sent_ms + (self.events - slot) * self.step_ms - jitter

    def spelling(self, event: int) -> int:
        """Which of the report's spellings an event has (for clicks: which link)."""
        return draw(self.key, self._source(event), 1) % len(self.report.spellings)

    def row(self, event: int) -> str:
        """The exact JSON text of one row."""
        event = self._source(event)
        contact = self._contact(event)
        extra = ""
        if self.extras and event % 53 == 29:
            extra = _EXTRAS[event // 53 % len(_EXTRAS)]
        spellings = self.report.spellings
        return spellings[0 if len(spellings) == 1 else self.spelling(event)] % {
            "campaign": self.campaign,
            "contact": contact,
            "email": self._email(contact),
            "date": timestamp(self.date_ms(event)),
            "extra": extra,
        }

    def rows(self, positions: range) -> Iterator[str]:
        """The rows at these places of the list, in the API's order."""
        return (self.row(self.event_at(position)) for position in positions)

    def since(self, since_ms: int | None) -> range:
        """The places of the events on or after a moment: a prefix of a newest-first list, else a
        suffix.
        """
        if since_ms is None:
            return range(len(self))
        count = self._newer(since_ms)
        return range(len(self) - count, len(self)) if self.report.oldest_first else range(count)

    def after(self, date_ms: int) -> int:
        """The first place of the list beyond every event of that millisecond."""
        if self.report.oldest_first:
            return len(self) - self._newer(date_ms + 1)
        return self._newer(date_ms)

    def _newer(self, since_ms: int) -> int:
        """How many events are on or after a moment, by halving."""
        low, high = 0, len(self)
        while low < high:
            middle = (low + high) // 2
            if self.date_ms(middle - self.added) >= since_ms:
                low = middle + 1
            else:
                high = middle
        return low

    def _source(self, event: int) -> int:
        """The event whose fields this one has: itself, or for a twin its newer neighbour."""
        return (
            event - 1 if event % _TWIN_EVERY == _TWIN_EVERY - 1 and not self.report.once else event
        )

    def _circle(self) -> int:
        """How many contacts the repeatable events of this stream go round among."""
        singles = self.events - self.events // _TWIN_EVERY
        return max(1, (3 * singles + 3) // 4)

    def _contact(self, event: int) -> int:
        if self.report.once:
            return self.first_contact + event
        single = event - event // _TWIN_EVERY
        return self.first_contact + single * _STRIDE % self._circle()

    def _email(self, contact: int) -> str:
        if self.awkward and contact % 12 == 5:
            return _AWKWARD[contact // 12 % len(_AWKWARD)] % contact
        return f"{_FIRST[contact % len(_FIRST)]}{contact}@{_HOST[contact % len(_HOST)]}"
