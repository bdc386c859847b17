"""What arrived: one frozen `Hit` for each request, kept in memory, written to a file, or both."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import orjson


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
    """The raw query without its api_key and access_token parameters."""
    report: str
    """A tracking report, `campaigns`, `campaign` or `summary`; empty for an unknown path."""
    campaign_id: str
    page: int
    """From 1; 0 if the cursor could not be read."""
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
    """Whether the bearer token was the right one."""


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
