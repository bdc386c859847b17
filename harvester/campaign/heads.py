"""Reports at rest: one look decides all their edges.

Where twins meet at an edge the page is taken as it is, and at the end of the walk the first page is
asked for again. Events arrive at the head, so a head that is what it was shows that no edge has
shifted. If it is not, the walk starts over and looks at each edge. A long walk looks at its head
early, and then at each edge: to start it over would cost more than the looks.
"""

import hashlib
from datetime import datetime, timedelta
from typing import TypeAlias

from msgspec import Struct

from harvester.model import Page

_AT_REST = timedelta(days=7)
"""A report without events for so long will hardly get one while it is walked."""
Head: TypeAlias = tuple[str, str]
"""The link of a first page and the digest of its rows."""


def digest_of(page: Page) -> str:
    """What tells whether a page is what it was."""
    return hashlib.sha256(page.ndjson).hexdigest()


class Heads(Struct):
    """The heads of a walk: `current` is that of the report that is walked, if that is at rest,
    `unproven` those above edges that were taken as unmoved. `waits` says that edges may be."""

    waits: bool = True
    current: Head | None = None
    unproven: frozenset[Head] = frozenset()

    def see(
        self, link: str, page: Page, newest: datetime | None, oldest: datetime | None, now: datetime
    ) -> None:
        """Remember the first page of a report.

        Not one that would not show each event that comes: rows of one moment alone may look the
        same when one of them comes again.
        """
        at_rest = newest is not None and newest <= now - _AT_REST
        if self.waits and at_rest and oldest is not None and newest != oldest:
            self.current = link, digest_of(page)

    def wait(self) -> bool:
        """Take an edge as unmoved until the end of the walk, if that will show it."""
        if self.current is None or not self.waits:
            return False
        self.unproven |= {self.current}
        return True

    @property
    def waited(self) -> bool:
        """Whether an edge of the present report was taken as unmoved."""
        return self.current in self.unproven
