"""What happens during a run, as frozen facts.

Every report, the log, the progress display and the summary are reducers over these events, and an
`observe=` callable gets the same stream. The call is synchronous: an observer must be quick. One
that raises gets no more events.
"""

from collections.abc import Callable
from datetime import datetime
from typing import TypeAlias

from msgspec import Struct

from harvester.model import Target


class RunStarted(Struct, frozen=True, kw_only=True):
    """The lock is held and the state is open.

    `total` campaigns are to be harvested (None: their number is not known), each for all
    `reports`, at `rate` request starts a second (0: no pace). Of `quota_limit` requests a UTC day
    (0: no limit) `used_today` are used.
    """

    run_id: str
    output: str
    total: int | None
    reports: tuple[str, ...]
    rate: float
    quota_limit: int
    used_today: int


class FilesRemoved(Struct, frozen=True):
    """`fresh` is about to remove an earlier harvest."""

    files: int
    bytes: int


class WorkCounted(Struct, frozen=True, kw_only=True):
    """By the API's counts, so many `walks` take so many `requests` and `details` in this run."""

    walks: int
    requests: int
    details: int


class CountsMissed(Struct, frozen=True):
    """The counts of so many campaigns cannot be had: all their reports are asked for."""

    campaigns: int
    message: str


class DetailAsked(Struct, frozen=True):
    """A campaign's detail was asked for, for this walk and all others of the campaign."""

    target: Target


class IdRepeated(Struct, frozen=True):
    """An id came a second time and is taken once."""

    campaign_id: str


class CampaignSkipped(Struct, frozen=True):
    """Nothing to do: `state` is "complete", or "failed" where the API refused it for good; it was
    thought to have `expected` pages, as in `CampaignStarted`."""

    target: Target
    state: str
    kind: str | None = None
    expected: int | None = None


class CampaignStarted(Struct, frozen=True):
    """A worker took the walk; it has `pages` and `rows` from an earlier run. By the API's counts it
    has `expected` pages in all (None: not known)."""

    target: Target
    pages: int
    rows: int
    expected: int | None = None


class RequestSent(Struct, frozen=True, kw_only=True):
    """A request was charged to the quota and handed to the wire.

    `page` counts from 1 within a walk, `attempt` from 1 within a page; `used_today` requests of
    the UTC day are used, this one among them.
    """

    target: Target
    page: int
    attempt: int
    used_today: int


class RequestSucceeded(Struct, frozen=True):
    """A readable 200."""

    target: Target
    page: int
    attempt: int


class RequestFailed(Struct, frozen=True, kw_only=True):
    """Any other outcome of a request that was sent."""

    target: Target
    page: int
    attempt: int
    cause: str
    status: int | None


class RetryScheduled(Struct, frozen=True, kw_only=True):
    """The page will be asked again after `wait_s` seconds, with attempt number `attempt`.

    `wait_source` is where the wait comes from: "backoff", "retry-after", "throttle",
    "unauthorized", "quota" or "none".
    """

    target: Target
    page: int
    attempt: int
    cause: str
    status: int | None
    wait_s: float
    wait_source: str


class WalkRestarted(Struct, frozen=True, kw_only=True):
    """A walk starts over at its first page: its cursor was dropped, its part was damaged, or no try
    at a page succeeded and smaller ones are asked for."""

    target: Target
    page: int
    cause: str
    status: int | None
    message: str


class PageCommitted(Struct, frozen=True, kw_only=True):
    """Rows and position are saved: a kill from here on does not ask for this page again.

    `bytes` is what the page added to the file, `link` where it was found (no secret is in it);
    the `last` page is the end of the walk.
    """

    target: Target
    page: int
    rows: int
    bytes: int
    last: bool
    link: str = ""


class CampaignCompleted(Struct, frozen=True, kw_only=True):
    """The file has its final name and the manifest its line.

    `pages`, `rows` and `bytes` are those of the whole file. `reconciled` is False where the API's
    own count (`summary`) differs from the rows.
    """

    target: Target
    file: str
    pages: int
    rows: int
    bytes: int
    sha256: str
    reconciled: bool | None = None


class CampaignFailed(Struct, frozen=True, kw_only=True):
    """The walk is over for this run; it has no finished file.

    `kind` is the one of errors.ndjson, `attempts` the requests that the last page took; `pages`
    and `rows` are what the walk has.
    """

    target: Target
    kind: str
    status: int | None
    error_key: str | None
    message: str
    attempts: int
    pages: int
    rows: int


class CampaignDeferred(Struct, frozen=True, kw_only=True):
    """The campaign is left to a later run, from `resume_at` on. `kind` is set_aside (the server
    asked for a wait beyond `max_wait`) or moving (its events arrive faster than it can be read)."""

    target: Target
    kind: str = "set_aside"
    message: str
    status: int | None
    attempts: int
    pages: int
    rows: int
    resume_at: datetime


class CampaignInterrupted(Struct, frozen=True):
    """The run stopped during this walk; the next run continues it."""

    target: Target
    pages: int
    rows: int


class Paused(Struct, frozen=True):
    """No worker sends for `seconds`, so not before `until`: "throttled", "unauthorized" or
    "quota_spent"."""

    reason: str
    seconds: float
    until: datetime


class PaceChanged(Struct, frozen=True):
    """Request starts are `gap` seconds apart from now on: wider after a throttle, then back."""

    gap: float


class ObserverFailed(Struct, frozen=True):
    """An observer raised and gets no more events; `error` is the type, the file and the line."""

    error: str


class RunStopping(Struct, frozen=True):
    """No new request from here on; those in flight are still saved."""

    reason: str
    message: str
    resume_at: datetime | None


class RunFinished(Struct, frozen=True):
    """Everything is saved; `exit_code` is the one of the contract."""

    exit_code: int
    reason: str


Event: TypeAlias = (
    RunStarted
    | FilesRemoved
    | WorkCounted
    | CountsMissed
    | DetailAsked
    | IdRepeated
    | CampaignSkipped
    | CampaignStarted
    | RequestSent
    | RequestSucceeded
    | RequestFailed
    | RetryScheduled
    | WalkRestarted
    | PageCommitted
    | CampaignCompleted
    | CampaignFailed
    | CampaignDeferred
    | CampaignInterrupted
    | Paused
    | PaceChanged
    | ObserverFailed
    | RunStopping
    | RunFinished
)
Observer: TypeAlias = Callable[[Event], None]
