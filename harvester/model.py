"""The frozen nouns that everything else passes around."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Target:
    """One walk to make: one report of one campaign."""

    report: str
    campaign_id: str

    def __str__(self) -> str:
        return f"{self.report}/{self.campaign_id}"


@dataclass(frozen=True, slots=True)
class Page:
    """One page as it goes to disk.

    `ndjson` holds `rows` records, the API's own JSON, a newline after each. `next` is the link to
    the page after it: path and query under the API's origin, never with a secret in it; None says
    that the API has no more. `link` is where the page itself was found, `cursor` the digest
    of `next`; both are known once it is part of a walk.
    """

    ndjson: bytes
    rows: int
    next: str | None
    link: str = ""
    cursor: int | None = None

    def records(self) -> list[dict[str, Any]]:
        """The records as Python objects; integers of any size stay exact."""
        return [json.loads(line) for line in self.ndjson.split(b"\n")[:-1]]


@dataclass(frozen=True, slots=True)
class Position:
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


@dataclass(frozen=True, slots=True)
class Request(Generic[T]):
    """One request to make: where to, for whom, and how to read the body of its 200.

    `link` is path and query without secrets; `page` counts from 1 within a walk; `attempt`
    counts from 1 within a page. Where requests queue, the lowest `priority` goes first; an
    `urgent` one is what all others wait for. Where an `optional` one fails, nothing is said against
    the server. `read` is pure and raises `Unreadable` or `CampaignError`.
    """

    target: Target
    link: str
    read: Callable[[bytes], T]
    page: int = 1
    priority: int = 0
    attempt: int = 1
    urgent: bool = False
    optional: bool = False


class Fetcher(Protocol):
    """Every layer of the stack is one: it makes a call and gives back what the call reads."""

    async def fetch(self, call: Request[T]) -> T:
        """Give what `call.read` makes of the answer, or raise a `HarvestError`."""
        ...
