"""Everything the sandbox can be asked for, in frozen objects."""

import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, get_args, get_origin, get_type_hints

from .chance import draw
from .faults import FaultPlan, Pinned
from .limits import Gate, LimitKind, Refused, judge_of

LastPage = Literal["absent", "null", "empty", "no_pagination", "no_meta"]
V3LastPage = Literal["absent", "null", "next_null", "href_null"]
CursorKind = Literal["offset", "timestamp"]
DroppedStatus = Literal[400, 404, 410]
Numbers = Literal["true", "wrong", "zero"]
Spelling = Literal["plain", "strings", "dotted"]
RefreshTokens = Literal["rotating", "long_lived", "silent", "none"]
Person = Literal["agrees", "denies", "waits"]
_DAY: Final = 86_400.0


def _check(settings: object) -> None:
    """Raise ValueError where a value is none of its choices, or no number from 0."""
    for name, hint in get_type_hints(type(settings)).items():
        value, choices = getattr(settings, name), get_args(hint)
        if get_origin(hint) is Literal and value not in choices:
            raise ValueError(f"{name} is one of {choices}, not {value!r}")
        is_number = isinstance(value, int | float) and name != "seed"
        if is_number and not 0 <= value < math.inf:  # nor is NaN
            raise ValueError(f"{name.replace('_', '-')} is a number from 0, not {value!r}")


@dataclass(frozen=True, kw_only=True)
class CountSettings:
    """How the API's counts (v3: stats) behave."""

    age: float = 0.0
    """Seconds since they were taken: what came in later is missing from them."""
    numbers: Numbers = "true"
    """`wrong`: higher and lower ones, never 0 for what is there. `zero`: 0 everywhere."""
    spelling: Spelling = "plain"
    """`strings`: JSON strings instead of numbers. `dotted`: `em_opens.all`, as in the guide."""
    missing: Collection[str] = ()
    """v3 campaigns and activities without counts: some in `errors`, some left out."""
    most_ids: int = 150
    """Campaign ids that one request for stats may name."""

    def __post_init__(self) -> None:
        """Refuse what cannot be served."""
        _check(self)

    def spell(self, stats: Mapping[str, int], key: int) -> dict[str, int | str]:
        """The members of `stats` as they are sent. `key` varies the wrong numbers."""
        sent: dict[str, int | str] = {}
        for place, (name, number) in enumerate(stats.items()):
            said = self._said(number, draw(key, 13, place))
            if self.spelling == "dotted" and name.endswith("_all"):
                name = f"{name.removesuffix('_all')}.all"
            sent[name] = str(said) if self.spelling == "strings" else said
        return sent

    def _said(self, number: int, chance: int) -> int:
        match self.numbers:
            case "true":
                return number
            case "zero":
                return 0
        if not number:
            return chance % 2
        said = 1 + chance % (2 * number)
        return said if said != number else number + 1


@dataclass(frozen=True, kw_only=True)
class SignInSettings:
    """The person, the tokens and the troubles of a sign-in. Times in seconds."""

    person: Person = "agrees"
    """`agrees` and `denies` by itself, or `waits` for `approve`, `deny` or the page."""
    device_code_age: float = 600.0
    interval: float = 5.0
    """Between two polls; a client that polls sooner is told to slow down, by 5 s more."""

    access_token_age: float = _DAY
    refresh_tokens: RefreshTokens = "rotating"
    """`rotating`: each is good for one use. `long_lived`: the same one comes back with each new
    access token. `silent`: it stays good and does not come back. `none`: no app gets one.
    """
    leeway: float = 0.0
    """So long after its use a rotated refresh token is good for one more use."""

    rate_limit: float = 1.0
    """Requests a second at the token endpoint; 0 is no limit. They cost none of the day's quota."""
    faults: Mapping[str, float] = field(default_factory=dict)
    """Fault kind to the probability of a token request being hit."""
    pinned: str | Sequence[str] = ()
    """Kinds for the first requests at the token endpoint ("ok" is none), or one kind for all."""

    def __post_init__(self) -> None:
        """Refuse what cannot be served."""
        _check(self)
        self.fault_plan(1)

    def fault_plan(self, seed: int) -> FaultPlan:
        """The faults of the token endpoint; the page of a place is the number of the request."""
        pinned: Pinned = (
            {(None, None): self.pinned}
            if isinstance(self.pinned, str)
            else {(None, number): kind for number, kind in enumerate(self.pinned, 1)}
        )
        return FaultPlan(seed, self.faults, None, pinned)


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
    clock: Callable[[], float] = field(default=time.monotonic, repr=False)
    wall: Callable[[], float] = field(default=time.time, repr=False)

    def __post_init__(self) -> None:
        """Refuse what cannot be served, before a port is opened."""
        _check(self)
        self.fault_plan()

    def fault_plan(self) -> FaultPlan:
        """The faults these settings describe."""
        return FaultPlan(self.seed, self.faults, self.heal_after, self.pinned)

    def gate(self) -> Gate:
        """The limits these settings describe, with nothing counted yet."""
        judge = judge_of(self.limit_kind, self.rate_limit, self.burst)
        return Gate(judge, self.quota, self.refused)
