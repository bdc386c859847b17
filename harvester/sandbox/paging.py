"""Cutting a list into pages: the same for both versions, but for the spelling of a cursor."""

from dataclasses import replace
from typing import Final

import orjson

from .answers import Page
from .chance import draw
from .cursor import Style, Window, cursor_for
from .settings import SandboxSettings
from .views import View

_LOOK_AHEAD: Final = 9
"""More events than ever share a millisecond."""


def placed(window: Window, view: View) -> Window:
    """The window as a place in the list, where it was given as a moment."""
    if window.beyond_ms is None:
        return window
    start = view.after(window.beyond_ms) - view.since(window.since_ms).start
    return replace(window, start=max(0, start))


def report_page(
    view: View, window: Window, path: str, style: Style, settings: SandboxSettings, salt: int
) -> Page:
    """One page of a tracking report. `salt` varies which pages are irregular."""
    member = "results" if style == "startAt" else "tracking_activities"
    places = view.since(window.since_ms)
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
        keep = settings.cursor_keeps_since
        cursor = cursor_for(after, "next" if by_time else style, keep_since=keep)
        link = f"{path}?next={cursor}"
    return Page(member, ",".join(view.rows(shown)), len(shown), window, link)


def list_page(member: str, every: list[object], window: Window, path: str, style: Style) -> Page:
    """One page of a list of JSON documents, of which `every` holds those of this page and one more
    if the list goes on.
    """
    rows, link = every[: window.limit], None
    if len(every) > window.limit:
        after = replace(window, start=window.start + window.limit, gap=0)
        link = f"{path}?next={cursor_for(after, style)}"
    return Page(member, orjson.dumps(rows).decode()[1:-1], len(rows), window, link)


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
