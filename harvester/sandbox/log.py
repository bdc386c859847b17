"""What became of a request, and its line in the log: kept in memory, written to a file, or both."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import orjson

from .answers import Answer
from .requests import ParsedRequest

_SECRETS: Final = ("api_key=", "access_token=")
_NO_STATUS: Final = ("reset", "lost", "timeout")


@dataclass(frozen=True, slots=True)
class Hit:
    """One request as the server saw it.

    Holds no secret: of key and token only whether they were right.
    """

    at: float
    """Arrival, seconds of the settings' clock (monotonic)."""
    wall: float
    """Arrival, Unix seconds of the settings' wall clock."""
    method: str
    path: str
    query: str
    """The raw query without its api_key and access_token parameters; of the sign-in, only names."""
    report: str
    """A tracking report by the last part of its path, or `campaigns`, `campaign`, `summary`; of v3
    also `links`, `stats`, `activity_stats`, `xrefs`; of the sign-in `authorize`,
    `token`, `activate`. Empty for an unknown path.
    """
    campaign_id: str
    """The campaign, also where v3 is asked for an activity."""
    page: int
    """From 1; 0 if the cursor could not be read. Of the token endpoint: the how many-th request."""
    cursor: str | None
    """What followed `next=`, exactly as received."""
    status: int
    """0 if no status line was sent."""
    fault: str | None
    throttled: bool
    """Refused by the rate limit or the quota (not by a `throttle` fault)."""
    api_key: bool
    """Whether an api_key parameter was present."""
    authorized: bool
    """Whether the bearer token was the right one; of the sign-in: whether the client id was."""
    activity_id: str = ""
    """The v3 activity, or the ids of a request for stats."""
    grant_type: str = ""
    """Of the token endpoint: `refresh_token` or `device_code`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """The answer to a request, the fault that hits it, and what is to be known of both.

    `throttled`: a limit refused it. `authorized`: its token was right; of the sign-in: its client
    id was. `grant_type`: of a token request, `device_code` or `refresh_token`.
    """

    asked: ParsedRequest
    answer: Answer
    fault: str | None = None
    throttled: bool = False
    authorized: bool = False
    grant_type: str = ""

    def hit(self) -> Hit:
        """The line of the log."""
        asked, request = self.asked, self.asked.request
        parts = request.query.split("&")
        return Hit(
            at=request.now,
            wall=request.wall,
            method=request.method,
            path=request.path,
            query="&".join(each for each in parts if not each.startswith(_SECRETS)),
            report=asked.report,
            campaign_id=asked.campaign_id,
            page=asked.page,
            cursor=request.cursor,
            status=0 if self.fault in _NO_STATUS else self.answer.status,
            fault=self.fault,
            throttled=self.throttled,
            api_key="api_key" in request.params,
            authorized=self.authorized,
            activity_id=asked.activity_id,
            grant_type=self.grant_type,
        )


class RequestLog:
    """Counts every hit; keeps them and appends them to a file if asked to."""

    def __init__(self, *, keep: bool = True, path: Path | None = None) -> None:
        self.hits: list[Hit] = []
        self.statuses: Counter[int] = Counter()
        self._keep = keep
        self._file = path.open("ab", buffering=0) if path else None

    def add(self, hit: Hit) -> None:
        """Note one request; its line is in the file when this returns."""
        self.statuses[hit.status] += 1
        if self._keep:
            self.hits.append(hit)
        if self._file:
            self._file.write(orjson.dumps(hit, option=orjson.OPT_APPEND_NEWLINE))

    def close(self) -> None:
        """Close the file, if there is one."""
        if self._file:
            self._file.close()
