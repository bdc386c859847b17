"""What a fault makes of a good answer, where that is a different answer.

Faults of the connection itself are in `delivery`.
"""

from dataclasses import replace
from typing import Final

from .answers import Answer, Page
from .chance import draw, number_of
from .cursor import Style, cursor_for
from .dialect import Dialect, error
from .faults import status_of
from .settings import SandboxSettings

HTML: Final = Answer(
    200,
    (
        b"<!DOCTYPE html>\n<html><head><title>Sorry</title></head>"
        b"<body><h1>We'll be right back</h1></body></html>\n"
    ),
    "text/html",
)
EMPTY: Final = Answer(200, b"")
NAMELESS_429: Final = Answer(429, b"Too Many Requests", "text/plain")
_FLOOD: Final = 10


def corrupted(
    answer: Answer,
    kind: str,
    page: Page | None,
    target: str,
    dialect: Dialect,
    settings: SandboxSettings,
) -> Answer:
    """What is said instead of `answer` to a request hit by `kind`.

    `page`: what the answer spells, if it is a page. `target`: the path, with the cursor, that leads
    to this very page.
    """
    if kind in _OTHER_PAGES:
        if page is None or answer.status != 200:
            return answer
        return _other_page(page, kind, target, dialect, settings)
    return _instead(kind, target, dialect, settings) or answer


def _instead(kind: str, target: str, dialect: Dialect, settings: SandboxSettings) -> Answer | None:
    """The answers that are the same whatever was asked for."""
    if (status := status_of(kind)) is not None:
        return error(status, f"http.status.{status}", "Simulated by the sandbox")
    if kind == "wrong_shape":
        shapes = dialect.wrong_shapes
        return Answer(200, shapes[draw(settings.seed, number_of(target)) % len(shapes)])
    return {
        "throttle": dialect.over_rate,
        "throttle429": NAMELESS_429,
        "quota": dialect.over_day,
        "auth": dialect.unauthenticated,
        "forbidden": dialect.forbidden,
        "html": HTML,
        "empty": EMPTY,
        "cursor_dropped": _dropped(settings.dropped_status, dialect),
        "redirect": redirect(target, settings),
    }.get(kind)


def redirect(target: str, settings: SandboxSettings) -> Answer:
    """302 to another host."""
    there = {"Location": settings.foreign_origin + target}
    return Answer(302, b"", "text/html", there)


def _dropped(status: int, dialect: Dialect) -> Answer:
    if status == 404:
        return dialect.not_found
    if status == 410:
        return error(410, "http.status.gone", "The cursor has expired")
    return dialect.bad_request("The value of next is not valid")


# -- good pages, made wrong ----------------------------------------------------------------------

_OTHER_PAGES: Final = frozenset(
    {
        *("loop", "foreign_link", "endless_empty", "endless_same"),
        *("error_in_200", "twice", "flood"),
    }
)
_ERROR: Final = ',"error_key":"internal_error","error_message":"Simulated by the sandbox"'


def _other_page(
    page: Page, kind: str, target: str, dialect: Dialect, settings: SandboxSettings
) -> Answer:
    """The page with another next link, other rows, or more members."""
    rows, more = page.rows, ""
    window = replace(page.window, gap=page.window.gap + 1)
    style: Style = dialect.style if window.beyond_ms is None else "next"
    again = f"{target.partition('?')[0]}?next={cursor_for(window, style)}"
    links = {
        "loop": target,
        "foreign_link": settings.foreign_origin + target,
        "endless_empty": again,
        "endless_same": again,
        "error_in_200": None,
    }
    if kind in ("error_in_200", "endless_empty"):
        rows = ""
    if kind == "error_in_200":
        more = _ERROR
    elif kind == "flood" and page.count:
        rows = ",".join([rows] * -(-_FLOOD * page.window.limit // page.count))
    elif kind == "twice":
        more = "," + dialect.members(replace(page, rows=""), settings)
    other = replace(page, rows=rows, link=links.get(kind, page.link))
    body = f"{{{dialect.members(other, settings)}{more}}}".encode()
    return Answer(200, body, more=other.link is not None)
