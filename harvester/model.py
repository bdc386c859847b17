"""The frozen values that every layer passes on, and the protocols between the layers."""

import json
from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

from msgspec import Struct

T = TypeVar("T")


class Target(Struct, frozen=True):
    """What a walk reads: one report of one campaign."""

    report: str
    campaign_id: str

    def __str__(self) -> str:
        return f"{self.report}/{self.campaign_id}"


class Page(Struct, frozen=True):
    """One page as it goes to disk.

    `ndjson` holds `rows` records, the API's own JSON, a newline after each. `next` is the link to
    the page after it: path and query under the API's origin, without any secret; None is the end
    of the report. `link` is the page's own link, `cursor` the digest of `next`; a walk sets both.
    """

    ndjson: bytes
    rows: int
    next: str | None
    link: str = ""
    cursor: int | None = None

    def records(self) -> list[dict[str, Any]]:
        """The records as Python objects; integers of any size stay exact."""
        return [json.loads(line) for line in self.ndjson.split(b"\n")[:-1]]


class Position(Struct, frozen=True):
    """How far a walk has come: the pages, rows and bytes it has, and the link it asks next.

    `next` is None both before the first page (`pages == 0`) and after the last (`pages > 0`);
    `finished` keeps the two apart.
    """

    next: str | None = None
    pages: int = 0
    rows: int = 0
    offset: int = 0

    @property
    def finished(self) -> bool:
        """The API said that there is no more."""
        return self.pages > 0 and self.next is None

    def after(self, page: Page, offset: int) -> "Position":
        """The position once `page` stands in the part file up to `offset` bytes."""
        return Position(page.next, self.pages + 1, self.rows + page.rows, offset)


class Request(Struct, Generic[T], frozen=True):
    """One request: its link, its walk, and the reader for the body of its 200.

    `link` is path and query without secrets; `page` counts from 1 within a walk; `attempt` counts
    from 1 within a page. Where requests queue, the lowest `priority` goes first. An `urgent`
    request passes the queue: all others wait for it. The failure of an `optional` one is not
    counted against the server. `read` is pure and raises `Unreadable` or `CampaignError`.
    `throttles` counts the throttles of this page; the first was of a request sent at
    `throttled_since` (monotonic s).
    """

    target: Target
    link: str
    read: Callable[[bytes], T]
    page: int = 1
    priority: int = 0
    attempt: int = 1
    urgent: bool = False
    optional: bool = False
    throttles: int = 0
    throttled_since: float = float("inf")


class Fetcher(Protocol):
    """Gives the answer to a request, read."""

    async def fetch(self, request: Request[T]) -> T:
        """Give what `request.read` makes of the answer, or raise a `HarvestError`."""
        ...


class Sender(Protocol):
    """Sends a request once: the layers below the retries."""

    async def send(self, request: Request[Any]) -> bytes:
        """Give the body of the 200, or raise a `HarvestError`."""
        ...
