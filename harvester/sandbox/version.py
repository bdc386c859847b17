"""What both versions do alike: lists are asked for, cut into pages and spelled."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import ClassVar, Final

import orjson

from .answers import Answer, Page
from .chance import draw
from .cursor import Style, Window, cursor_for
from .dialect import Dialect
from .requests import ParsedRequest, Request
from .settings import SandboxSettings
from .world import World

_LOOK_AHEAD: Final = 9
"""More events than ever share a millisecond."""


class Version(ABC):
    """One version of the API of an account. `reports` are its tracking reports."""

    dialect: ClassVar[Dialect]
    reports: ClassVar[Collection[str]]

    def __init__(self, settings: SandboxSettings, world: World) -> None:
        self._settings, self._world = settings, world

    # -- who asks ------------------------------------------------------------------------------

    @abstractmethod
    def app_of(self, request: Request) -> str | Answer:
        """The application that asks, or the gateway's refusal."""

    @abstractmethod
    def authorized(self, request: Request) -> bool:
        """Whether the bearer token is right and in date."""

    # -- what is asked -------------------------------------------------------------------------

    @abstractmethod
    def read(self, request: Request) -> ParsedRequest:
        """Read a request; never fails, but may find a problem."""

    @abstractmethod
    def _window(self, request: Request, report: str) -> Window:
        """The part of a list that is asked for; ValueError with what is wrong with the asking."""

    def _placed(self, asked: ParsedRequest) -> ParsedRequest:
        """The request with the part of its list that it asks for, if it is one for a list."""
        if asked.report != "campaigns" and asked.report not in self.reports:
            return asked
        try:
            window = self._window(asked.request, asked.report)
        except ValueError as error:
            page = int(asked.request.cursor is None)
            return replace(asked, page=page, problem=self.dialect.bad_request(str(error)))
        if window.beyond_ms is not None:  # it was given as a moment
            view = self._world.view(asked.report, asked.mailing_id)
            start = view.after(window.beyond_ms) - view.since(window.since_ms).start
            window = replace(window, start=max(0, start))
        return replace(asked, window=window, page=window.start // window.limit + 1)

    # -- what is answered ----------------------------------------------------------------------

    def answer(self, asked: ParsedRequest) -> Answer:
        """The answer of a server that is well. Does not change the world."""
        page = self.page(asked)
        return self._document(asked) if page is None else self.dialect.page(page, self._settings)

    def page(self, asked: ParsedRequest) -> Page | None:
        """The page that is asked for; None if it is no page."""
        if asked.report in self.reports:
            return self._report_page(asked)
        is_list = asked.report == "campaigns"
        return self._campaigns(asked.window, asked.request.path) if is_list else None

    @abstractmethod
    def _campaigns(self, window: Window, path: str) -> Page:
        """A page of the campaign list."""

    @abstractmethod
    def _document(self, asked: ParsedRequest) -> Answer:
        """The answer to a request that is for no list."""

    def _report_page(self, asked: ParsedRequest) -> Page:
        settings, window, mailing_id = self._settings, asked.window, asked.mailing_id
        view = self._world.view(asked.report, mailing_id)
        places = view.since(window.since_ms)
        salt = int(mailing_id[-12:], 16) if "-" in mailing_id else int(mailing_id)
        end = window.start + _rows_wanted(window, len(places), settings, salt)
        by_time = settings.cursor == "timestamp"
        if by_time:  # a millisecond is never torn apart, so a page may hold a row or two more
            dates = [view.date_ms(place) for place in places[end - 1 : end + _LOOK_AHEAD]]
            end += dates[1:].count(dates[0]) if dates else 0
        shown, link = places[window.start : end], None
        if end < len(places):
            after = replace(window, start=end, gap=1 if end == window.start else 0)
            if by_time:
                after = replace(after, beyond_ms=view.date_ms(places[end - 1]))
            style, keep = "next" if by_time else self.dialect.style, settings.cursor_keeps_since
            link = f"{asked.request.path}?next={cursor_for(after, style, keep_since=keep)}"
        rows = ",".join(view.rows(shown))
        return Page(self.dialect.member, rows, len(shown), window, link)


def list_page(
    member: str,
    found: Sequence[int],
    document: Callable[[int], object],
    window: Window,
    path: str,
    style: Style,
) -> Page:
    """One page of a list of JSON documents, which `document` makes of the numbers found."""
    end, link = window.start + window.limit, None
    shown = found[window.start : end]
    if end < len(found):
        link = f"{path}?next={cursor_for(replace(window, start=end, gap=0), style)}"
    rows = orjson.dumps([*map(document, shown)]).decode()[1:-1]
    return Page(member, rows, len(shown), window, link)


def _rows_wanted(window: Window, total: int, settings: SandboxSettings, salt: int) -> int:
    """`limit`; with irregular pages, short of the last one, also one more, one less, none."""
    beyond = window.start + window.limit
    if not settings.irregular or settings.cursor != "offset" or beyond >= total:
        return window.limit
    match draw(settings.seed, 9, salt, window.start) % 6:
        case 0:
            return window.limit + 1
        case 1 if window.limit > 1:
            return window.limit - 1
        case 2 if not window.gap:
            return 0
    return window.limit


def is_known(find: Callable[[str], int], given: str) -> bool:
    """Whether the account has what an id stands for; `find` raises KeyError if it has not."""
    try:
        find(given)
    except KeyError:
        return False
    return True
