"""Follow one campaign's cursors, in order, to the end that the API declares.

A walk ends on an absent link and on nothing else: not on a short page, not on an empty one. A
cursor that comes back is an error, whatever the length of the cycle. So is a cursor that is new
each time, where the pages behind it are the same or empty many times in a row.
"""

import hashlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from functools import partial

from harvester.api.base import Api
from harvester.api.vendor import PAGE_SIZES
from harvester.errors import CampaignError, Moving, Unreadable
from harvester.model import Fetcher, Page, Position, Request, Target

MAX_PAGES = 100_000  # 50 million rows: more than any campaign has
MAX_SAME = 50  # pages in a row that bring nothing new
_EDGE = 512  # bytes: some rows
Fit = Callable[[str, Page], Awaitable[Page]]
"""Takes a link and its page as it came, and gives what the walk takes of it."""


def cursor_digest(link: str) -> int:
    """A link in 64 bits, as a signed integer that SQLite can keep."""
    digest = hashlib.blake2b(link.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, signed=True)


def walk_pages(
    fetcher: Fetcher,
    api: Api,
    target: Target,
    *,
    first: str,
    page_size: int = PAGE_SIZES[-1],
    at: Position | None = None,
    seen: set[int] | None = None,
    fit: Fit | None = None,
    expected: int = 0,
    max_pages: int = MAX_PAGES,
    max_same: int = MAX_SAME,
) -> AsyncGenerator[Page, None]:
    """The pages of a target's report from `at` on, of `page_size` rows each; see `walk_links`."""

    def read(link: str, body: bytes) -> Page:
        page = api.read_page(target, link, body)
        if page.rows > 2 * page_size + 2 and api.reports[target.report].paged:
            # The API gives a row more than asked now and then, never many.
            raise Unreadable(
                f"{page.rows} rows where {page_size} were asked for", cause="flood", status=200
            )
        return page

    return walk_links(
        fetcher,
        read,
        target,
        first=first,
        at=at,
        seen=seen,
        fit=fit,
        expected=expected,
        max_pages=max_pages,
        max_same=max_same,
    )


async def walk_links(
    fetcher: Fetcher,
    read: Callable[[str, bytes], Page],
    target: Target,
    *,
    first: str,
    at: Position | None = None,
    seen: set[int] | None = None,
    fit: Fit | None = None,
    expected: int = 0,
    max_pages: int = MAX_PAGES,
    max_same: int = MAX_SAME,
) -> AsyncGenerator[Page, None]:
    """Yield what `read` makes of one link and its answer after the other.

    `first` is the first page's link, `seen` the digests of the links in earlier parts of this walk,
    `fit` takes out of a page what the walk has already, `expected` is the number of pages it
    probably has (0: unknown). At most `max_same` pages in a row may be equal to the one before, or
    empty.

    Raise `CampaignError`: "looping_cursor", "endless_cursor", "page_cap", or what the fetcher
    raises. A page whose link is refused is not yielded: a later run asks for it again.
    """
    at = at or Position()
    link, number = (at.next if at.pages else first), at.pages
    seen = {*(seen or ()), cursor_digest(first)}
    repeats = _Repeats()
    while link is not None:
        number += 1
        if number > max_pages:
            raise CampaignError("page_cap", f"more than {max_pages} pages (`max_pages`)")
        # Size known: the longest walk first. Unknown: the least known walk first (`Permits`).
        priority = number - 1 - expected
        page = await fetcher.fetch(Request(target, link, partial(read, link), number, priority))
        # Before it is taken for a report that moves.
        following, cursor = page.next, _new_cursor(page, number, seen)
        if fit is not None:
            try:
                page = await fit(link, page)
            except Moving:
                # Of equal rows, the same page for ever looks like a report that moves.
                await _refuse_endless(fetcher, read, target, page, number, max_same)
                raise
            if page.next != following:
                cursor = _new_cursor(page, number, seen)
        if cursor is not None:
            seen.add(cursor)
            if repeats.count(page.ndjson) >= max_same:
                raise _endless(max_same)
        yield Page(page.ndjson, page.rows, page.next, link, cursor)
        link = page.next
        del page  # many walks wait for their next page: none keeps its last one in memory


def _new_cursor(page: Page, number: int, seen: set[int]) -> int | None:
    """The digest of the next link, if there is one."""
    cursor = None if page.next is None else cursor_digest(page.next)
    if cursor in seen:
        raise CampaignError("looping_cursor", f"page {number} leads back to an earlier page")
    return cursor


async def _refuse_endless(
    fetcher: Fetcher,
    read: Callable[[str, bytes], Page],
    target: Target,
    page: Page,
    number: int,
    max_same: int,
) -> None:
    """Raise `CampaignError` if so many pages after `page` are equal to it; none is taken."""
    link, rows = page.next, page.ndjson
    for after in range(1, max_same):
        if link is None:
            return
        page = await fetcher.fetch(Request(target, link, partial(read, link), number + after))
        if page.ndjson != rows:
            return
        link = page.next
    raise _endless(max_same)


def _endless(count: int) -> CampaignError:
    return CampaignError("endless_cursor", f"{count} pages in a row bring no new row")


class _Repeats:
    """Counts the pages in a row that are empty or equal to the one before.

    To hash every page would cost a tenth of what a page costs: one is hashed only if its size and
    its edges are those of the page before. The first such page counts as equal; the next one shows
    whether the content is.
    """

    def __init__(self) -> None:
        self._count = 0
        self._edges: tuple[int, bytes, bytes] | None = None
        self._digest = b""

    def count(self, page: bytes) -> int:
        """Take one more page; give the count."""
        if not page:
            self._count += 1
            return self._count
        edges = len(page), page[:_EDGE], page[-_EDGE:]
        digest, before = b"", self._digest
        if edges == self._edges:
            digest = hashlib.blake2b(page, digest_size=8).digest()
        same = digest != b"" and before in (b"", digest)
        self._count = self._count + 1 if same else 0
        self._edges, self._digest = edges, digest
        return self._count
