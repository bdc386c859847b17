"""A page that came again under a new cursor, told from a page that only looks the same.

A next link that leads back is found by its text. One that is new each time is not: where a page
begins with the very row with which the page before began, that page is asked for again. If it has
not moved, and leads elsewhere now or says that it is the last one, the link led nowhere.
"""

from functools import partial

from msgspec import Struct

from harvester.api.base import Api
from harvester.api.next_link import counts_rows, has_cursor
from harvester.campaign.edges import Trail
from harvester.campaign.rows import RowReader
from harvester.disk.compress import Codec
from harvester.disk.part import PartFile
from harvester.errors import CursorDropped
from harvester.model import Fetcher, Page, Request, Target


class LastPage(Struct):
    """The page that a walk took last: its link, its first row (empty: it has none), and whether
    the row was looked into."""

    link: str = ""
    first: bytes = b""
    looked: bool = False


class Repeats(Struct, frozen=True, kw_only=True):
    """Looks for pages that came again."""

    fetcher: Fetcher
    api: Api
    codec: Codec

    async def refuse(
        self, target: Target, last: LastPage, trail: Trail, part: PartFile, link: str, page: Page
    ) -> None:
        """Raise `CursorDropped` if `link` led back to the `last` page; else remember `page`."""
        if not last.link and trail.resumed and trail.pages:
            last.link = trail.pages[-1].link
            last.first = _first(self.codec.decode(part.read(trail.pages[-1].offset)))
        before, first = last.link, _first(page.ndjson)
        alike = first != b"" and first == last.first
        last.link, last.first, last.looked = link, first, alike and last.looked
        if not alike or last.looked or not has_cursor(link):
            return
        read_row = RowReader(self.api.reports[target.report].time_field)
        if read_row.moment(first.rstrip()) is None:  # then rows tell no event from another
            return
        last.looked = True  # once for all pages that begin with this row
        read = partial(self.api.read_page, target, before)
        again = await self.fetcher.fetch(Request(target, before, read))
        # A cursor of a kind that is not known may be spelled anew for each answer.
        elsewhere = again.next is None or (counts_rows(link) is not None and again.next != link)
        if _first(again.ndjson) == first and elsewhere:
            raise CursorDropped("a new cursor led back to the page that it came with")


def _first(rows: bytes) -> bytes:
    return rows[: rows.find(b"\n") + 1]
