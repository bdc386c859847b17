"""A request as a value: as it arrived, and as one version of the API reads it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from urllib.parse import parse_qsl

from .answers import Answer
from .cursor import Window


@dataclass(frozen=True, kw_only=True)
class Request:
    """One HTTP request. Header names are in small letters.

    `target` is raw: a path and a query. `now` is monotonic seconds, `wall` Unix seconds.
    """

    method: str = "GET"
    target: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    now: float
    wall: float

    @property
    def path(self) -> str:
        """The target without its query."""
        return self.target.partition("?")[0]

    @property
    def query(self) -> str:
        """The raw query."""
        return self.target.partition("?")[2]

    @cached_property
    def params(self) -> Mapping[str, str]:
        """The parameters of the query by name."""
        return dict(parse_qsl(self.query, keep_blank_values=True))

    @property
    def cursor(self) -> str | None:
        """What followed `next=`, exactly as received."""
        found = (part for part in self.query.split("&") if part.startswith("next="))
        return next((part.removeprefix("next=") for part in found), None)

    @property
    def bearer(self) -> str:
        """The bearer token; empty if there is none."""
        scheme, _, token = self.headers.get("authorization", "").partition(" ")
        return token if scheme == "Bearer" else ""


@dataclass(frozen=True, kw_only=True, slots=True)
class ParsedRequest:
    """A request as its version reads it.

    `report`: a tracking report or another resource by its name in the log; empty for an unknown
    path. `page`: from 1; 0 if the cursor could not be read. `problem`: what is answered if nothing
    goes wrong before.
    """

    request: Request
    report: str = ""
    campaign_id: str = ""
    activity_id: str = ""
    window: Window = field(default_factory=Window)
    page: int = 1
    problem: Answer | None = None

    @property
    def mailing_id(self) -> str:
        """The activity; in v2, where a campaign is one mailing, the campaign."""
        return self.activity_id or self.campaign_id


def limit_of(params: Mapping[str, str], *, default: int, most: int) -> int:
    """The `limit` parameter; ValueError if it is out of bounds."""
    limit = params.get("limit", str(default))
    if not (limit.isascii() and limit.isdigit() and 1 <= int(limit[:9]) <= most):
        raise ValueError(f"The value of limit must be 1 to {most}")
    return int(limit)


def moment_of(params: Mapping[str, str], name: str) -> int | None:
    """A date parameter in epoch milliseconds: the first whole one on or after it."""
    if (text := params.get(name)) is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise ValueError("A date must be ISO-8601") from error
    if moment.tzinfo is None:
        raise ValueError("A date must carry a time zone")
    return math.ceil(round(moment.timestamp() * 1000, 3))
