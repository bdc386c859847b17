"""The events of one kind of one mailing: each from its number alone, at any time, in any order.

An *event* is a whole number: 0 is the newest there was when the world began, higher ones are
older, and what arrives later is -1, -2, -3.
"""

from dataclasses import dataclass
from typing import Final

from .chance import draw

_TWIN_EVERY: Final = 37
"""One in so many repeatable events equals its neighbour in every field: there is no event id."""
_STRIDE: Final = 2_147_483_647
"""A prime, so that stepping by it round any smaller circle of contacts meets each of them."""


@dataclass(frozen=True, slots=True)
class Stream:
    """The events of one kind of one mailing.

    `events` stood there at the start, `added` came later. `step_ms`: their mean distance.
    `first_contact`: the lowest number of a contact. `once`: no contact has two of them.
    """

    key: int
    events: int
    added: int
    sent_ms: int
    step_ms: int
    first_contact: int
    once: bool

    def __len__(self) -> int:
        return self.events + self.added

    def source(self, event: int) -> int:
        """The event whose fields this one has: itself, or for a twin its newer neighbour."""
        twin = event % _TWIN_EVERY == _TWIN_EVERY - 1 and not self.once
        return event - 1 if twin else event

    def date_ms(self, event: int) -> int:
        """When an event was, in epoch milliseconds.

        Never rises with the event's number; some neighbours share a millisecond.
        """
        event = self.source(event)
        slot = event - 1 if event % 11 == 7 else event
        jitter = draw(self.key, slot) % self.step_ms
        return self.sent_ms + (self.events - slot) * self.step_ms - jitter

    def variant(self, event: int, variants: int) -> int:
        """Which of the spellings of a report an event has; for clicks: the number of the link."""
        return draw(self.key, self.source(event), 1) % variants if variants > 1 else 0

    def contact(self, event: int) -> int:
        """The number of the contact whose event it is."""
        event = self.source(event)
        if self.once:
            return self.first_contact + event
        return self.first_contact + _single(event) * _STRIDE % self._circle()

    def unique(self) -> int:
        """How many contacts have an event here, as the vendor's summaries count."""
        if self.once:
            return len(self)
        return self._circle() if len(self) else 0

    def last_of_contact(self, rank: int) -> int:
        """The last event of a contact; `rank` counts contacts from 0, the latest event first.

        Contacts take turns in a circle, so the newest `unique()` events that are no twins are the
        last ones of all contacts.
        """
        single = _single(self.source(-self.added)) + rank
        return single + single // (_TWIN_EVERY - 1)

    def _circle(self) -> int:
        """How many contacts the repeatable events of this stream go round among."""
        singles = self.events - self.events // _TWIN_EVERY
        return max(1, (3 * singles + 3) // 4)


def _single(event: int) -> int:
    """The number of an event that is no twin, counted without the twins."""
    return event - event // _TWIN_EVERY
