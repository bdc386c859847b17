"""Everything the sandbox can be asked for, in one frozen object."""

import math
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, get_args

from .counts import CountSettings
from .faults import FaultPlan, Pinned
from .limits import DayQuota, Gate, LimitKind, Refused, judge_of
from .sign_in_settings import SignInSettings
from .world import World

LastPage = Literal["absent", "null", "empty", "no_pagination", "no_meta"]
V3LastPage = Literal["absent", "null", "next_null", "href_null"]
CursorKind = Literal["offset", "timestamp"]
DroppedStatus = Literal[400, 404, 410]
_CHOICES: Final = {
    "limit_kind": get_args(LimitKind),
    "refused": get_args(Refused),
    "cursor": get_args(CursorKind),
    "last_page": get_args(LastPage),
    "v3_last_page": get_args(V3LastPage),
    "dropped_status": get_args(DroppedStatus),
}
_FROM_ZERO: Final = (
    *("unsent", "resends", "rate_limit", "burst", "quota", "latency", "jitter", "keepalive"),
    *("arrivals", "reorder_list", "heal_after", "slow_seconds", "stall_seconds", "cache_pages"),
)


@dataclass(frozen=True, kw_only=True)
class SandboxSettings:
    """What the sandbox serves and how it behaves. Times in seconds.

    What is said of the key and the day holds for both versions: they share the limits of an app.
    """

    # The account.
    seed: int = 1
    campaigns: int = 40
    pages: int = 150
    """Pages of `opens` in all mailings at `limit` = `rows_per_page`, exactly."""
    rows_per_page: int = 500
    unsent: int = 5
    """Further campaigns that were never sent (or were deleted): listed, without events."""
    resends: int = 0
    """Further mailings: v2 lists each as a campaign, v3 as an activity of a sent campaign."""
    awkward: bool = True
    """One address in twelve is hard to parse."""
    extras: bool = True
    """A row in 53 has a field that is not documented."""
    integer_ids: bool = False
    """v2 rows carry campaign_id as a JSON integer, as the vendor's fixtures do."""
    whole_minutes: bool = True
    """The times of v3 rows have no seconds, as in all of the vendor's examples."""

    # Who may ask, and how often.
    api_key: str = field(default="sandbox-key", repr=False)
    """v2's key."""
    access_token: str = field(default="sandbox-token", repr=False)
    """Good for ever, for both versions."""
    client_id: str = field(default="sandbox-key", repr=False)
    """v3's application. If it is not v2's key, each version has limits of its own."""
    sign_in: SignInSettings = field(default_factory=SignInSettings)
    rate_limit: float = 0.0
    """Requests a second the application may make; 0 is no limit."""
    limit_kind: LimitKind = "sliding"
    burst: int = 0
    """What a `bucket` holds; 0 is one second's worth."""
    quota: int = 0
    """Requests a UTC day; 0 is no quota."""
    refused: Refused = "day"
    """Where a request refused for pace still counts: the day's quota, both limits, or neither."""
    retry_after: str | None = None
    """The raw Retry-After header of throttles, quota answers and 503; none is documented."""

    # The wire.
    latency: float = 0.0
    """From an arrival to its answer."""
    jitter: float = 0.0
    """Each request is judged and logged up to this much after it came in, evenly spread."""
    gzip: bool = True
    """Compress for clients that accept it."""
    keepalive: float = 75.0
    """How long an idle connection stays open."""

    # The paging.
    cursor: CursorKind = "offset"
    cursor_keeps_since: bool = True
    """Whether created_since survives beyond the first page; not known of the real API."""
    last_page: LastPage = "absent"
    """How a last page of v2 says so; only `absent` was ever seen."""
    v3_last_page: V3LastPage = "absent"
    """How a last page of v3 says so."""
    irregular: bool = False
    """Now and then a page with one row more or less, or none (offset cursors only)."""
    arrivals: int = 0
    """So many new events come in after every report page that is not the last."""
    reorder_list: int = 0
    """So many times, after a page of the campaign list, a campaign jumps to its head."""
    doctored: Collection[str] = ()
    """Campaigns whose summary says one open too many; for v3 ids the stats say it."""
    counts: CountSettings = field(default_factory=CountSettings)

    # The faults.
    faults: Mapping[str, float] = field(default_factory=dict)
    """Fault kind to the probability of a request being hit; the kinds are in `faults.KINDS`."""
    heal_after: int | None = 1
    """A place fails at most so many times by rate; None never heals."""
    pinned: Pinned = field(default_factory=dict)
    """(name or None, page or None) to kinds for successive attempts, or to one for good. A name is
    an activity id, a campaign id ("" where there is none) or a report.
    """
    dropped_status: DroppedStatus = 400
    foreign_origin: str = "http://foreign.invalid"
    """Where foreign links and redirects lead."""
    slow_seconds: float = 2.0
    stall_seconds: float = 5.0

    # The bookkeeping.
    keep_log: bool = True
    """Keep every request in `Sandbox.log`; off for runs of millions."""
    request_log: Path | None = None
    """An NDJSON file that gets a line for each request as it arrives."""
    cache_pages: int = 256
    """Rendered pages kept (about 90 kB each at 500 rows, plus 10 kB compressed)."""
    clock: Callable[[], float] = field(default=time.monotonic, repr=False)
    wall: Callable[[], float] = field(default=time.time, repr=False)

    def __post_init__(self) -> None:
        """Refuse what cannot be served, before a port is opened."""
        for name, accepted in _CHOICES.items():
            if getattr(self, name) not in accepted:
                raise ValueError(f"{name} is one of {accepted}, not {getattr(self, name)!r}")
        for name in _FROM_ZERO:
            value = getattr(self, name)
            if value is not None and not 0 <= value < math.inf:  # nor is NaN
                raise ValueError(f"{name.replace('_', '-')} is a number from 0, not {value!r}")
        self.fault_plan()

    def world(self) -> World:
        """The account these settings describe."""
        return World(
            self.seed,
            self.campaigns,
            self.pages,
            self.rows_per_page,
            unsent=self.unsent,
            resends=self.resends,
            awkward=self.awkward,
            extras=self.extras,
            integer_ids=self.integer_ids,
            whole_minutes=self.whole_minutes,
            wall=self.wall,
        )

    def fault_plan(self) -> FaultPlan:
        """The faults these settings describe."""
        return FaultPlan(self.seed, self.faults, self.heal_after, self.pinned)

    def gate(self) -> Gate:
        """The limits these settings describe, with nothing counted yet."""
        judge = judge_of(self.limit_kind, self.rate_limit, self.burst)
        return Gate(judge, DayQuota(self.quota), self.refused)
