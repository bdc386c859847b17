"""A request target, read: what is asked for, and what is wrong with the asking.

`limit` is 1-500 for tracking and 1-50 for the campaign list, both defaulting to the most;
`created_since` needs a time zone; `next` may only be used by itself, beside api_key.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final
from urllib.parse import unquote_plus

from . import cursor
from .answers import NOT_FOUND, Answer, bad_request
from .cursor import Window
from .reports import REPORTS
from .world import STATUSES, World

_TRACKING_LIMIT: Final = 500
_LIST_LIMIT: Final = 50


@dataclass(frozen=True, slots=True)
class Question:
    """A request target, read. `problem` is what will be answered if nothing goes wrong before."""

    path: str
    report: str = ""
    campaign_id: str = ""
    params: Mapping[str, str] = field(default_factory=dict)
    cursor: str | None = None
    query: str = ""
    window: Window = field(default_factory=Window)
    page: int = 1
    problem: Answer | None = None

    @property
    def target(self) -> str:
        """The next link that leads to this very page."""
        return f"{self.path}?next={self.cursor or cursor.offset_cursor(self.window)}"


def read(target: str, world: World) -> Question:
    """Read a raw request target; never fails, but may find a problem."""
    path, _, query = target.partition("?")
    parts = query.split("&") if query else []
    pairs = [part.partition("=")[::2] for part in parts]
    report, campaign_id = _route(path)
    question = Question(
        path,
        report,
        campaign_id,
        params={unquote_plus(name): unquote_plus(value) for name, value in pairs},
        cursor=next((value for name, value in pairs if name == "next"), None),
        query="&".join(p for p in parts if not p.startswith(("api_key=", "access_token="))),
    )
    if not report or (campaign_id and campaign_id not in world):
        return replace(question, problem=NOT_FOUND)
    if report in ("campaign", "summary"):
        return question
    try:
        window = _window(question)
    except ValueError as error:
        page = 1 if question.cursor is None else 0
        return replace(question, page=page, problem=bad_request(str(error)))
    window = _placed(question, window, world)
    return replace(question, window=window, page=window.start // window.limit + 1)


def _placed(question: Question, window: Window, world: World) -> Window:
    """The window as a place in the list, where it was given as a moment."""
    if window.beyond_ms is None or question.report not in REPORTS:
        return window
    stream = world.stream(question.report, question.campaign_id)
    start = stream.after(window.beyond_ms) - stream.since(window.since_ms).start
    return replace(window, start=max(0, start))


def _route(path: str) -> tuple[str, str]:
    """(report, campaign id) of a path; empty strings for one the API does not have."""
    match path.split("/"):
        case ["", "v2", "emailmarketing", "campaigns"]:
            return "campaigns", ""
        case ["", "v2", "emailmarketing", "campaigns", campaign_id] if campaign_id:
            return "campaign", campaign_id
        case ["", "v2", "emailmarketing", "campaigns", campaign_id, "tracking", report]:
            return (report, campaign_id) if campaign_id and report in REPORTS else ("", "")
        case [
            "",
            "v2",
            "emailmarketing",
            "campaigns",
            campaign_id,
            "tracking",
            "reports",
            "summary",
        ]:
            return ("summary", campaign_id) if campaign_id else ("", "")
    return "", ""


def _window(question: Question) -> Window:
    """The part of the list that is asked for; ValueError with what is wrong with the asking."""
    params = question.params
    most = _LIST_LIMIT if question.report == "campaigns" else _TRACKING_LIMIT
    if question.cursor is not None:
        if beside := params.keys() - {"next", "api_key", "access_token"}:
            raise ValueError(
                f"next may only be used by itself, not with {', '.join(sorted(beside))}"
            )
        try:
            return cursor.decode(question.cursor)
        except ValueError as error:
            raise ValueError(f"The value of next is not valid: {error}") from error
    limit = params.get("limit", str(most))
    if not (limit.isascii() and limit.isdigit() and 1 <= int(limit[:9]) <= most):
        raise ValueError(f"The value of limit must be 1 to {most}")
    status = params.get("status", "ALL")
    if status != "ALL" and status not in STATUSES:
        raise ValueError("The value of status is not valid")
    since = params.get("modified_since" if question.report == "campaigns" else "created_since")
    return Window(0, int(limit), None if since is None else _epoch_ms(since), status=status)


def _epoch_ms(text: str) -> int:
    """An ISO-8601 date-time with a time zone, in the first whole millisecond on or after it."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise ValueError("A date must be ISO-8601") from error
    if moment.tzinfo is None:
        raise ValueError("A date must carry a time zone")
    return math.ceil(round(moment.timestamp() * 1000, 3))
