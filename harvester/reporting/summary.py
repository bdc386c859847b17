"""The result of a run: the facts of summary.json, and the exit code as a function of them."""

import os
from datetime import datetime
from pathlib import Path
from typing import Annotated

import orjson
from msgspec import Meta, Struct
from msgspec.structs import asdict

from harvester.errors import StopRun
from harvester.runtime import stamp

_PRETTY = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE | orjson.OPT_PASSTHROUGH_DATETIME
EXIT_CODES = {
    "complete": 0,
    "bug": 1,
    "storage": 1,
    "directory_lost": 1,
    "bad_input": 2,
    "failures": 3,
    "credentials_refused": 4,
    "sign_in_refused": 4,
    "locked": 75,
    "quota_spent": 75,
    "throttled": 75,
    "sick_server": 75,
    "set_aside": 75,
    "max_requests": 75,
    "max_duration": 75,
    "SIGHUP": 129,
    "SIGINT": 130,
    "cancelled": 130,
    "SIGTERM": 143,
}
_OTHER_STOP = 130  # a reason of the caller's own (`Harvester.stop`)
Count = Annotated[int, Meta(ge=0, le=2**53)]
"""What every reader of JSON takes exactly; the page reads these lines again."""


class Campaigns(Struct, frozen=True):
    """Campaigns of the run; total = complete + failed + partial + pending."""

    total: int = 0
    complete: int = 0
    failed: int = 0
    partial: int = 0
    pending: int = 0


class Requests(Struct, frozen=True):
    """Requests of the run: every one sent, with a readable 200, sent again, refused as too fast."""

    sent: Count = 0
    ok: Count = 0
    retried: Count = 0
    throttled: Count = 0


class Quota(Struct, frozen=True):
    """The key's day: `limit` requests (0: none), used by all runs, until `resets_at` (UTC)."""

    limit: Count
    used_today: Count
    resets_at: datetime


class HarvestReport(Struct, frozen=True, kw_only=True):
    """What a run did; summary.json is this. `pages`, `rows` and `bytes` are this run's.

    `errors` is the file with a line for each campaign that failed, in this run or an earlier one.
    """

    run_id: str
    exit_code: int
    reason: str
    message: str | None
    resume_at: datetime | None
    campaigns: Campaigns
    requests: Requests
    pages: int
    rows: int
    bytes: int
    quota: Quota
    started_at: datetime
    finished_at: datetime
    elapsed_s: float
    errors: Path


class Conclusion(Struct, frozen=True):
    """Why the run ended, and when it can go on."""

    exit_code: int
    reason: str
    message: str | None
    resume_at: datetime | None


def to_json(report: HarvestReport) -> bytes:
    """The content of summary.json."""
    return orjson.dumps(report, default=_plain, option=_PRETTY)


def _plain(value: object) -> object:
    if isinstance(value, Struct):
        return asdict(value)
    if isinstance(value, datetime):
        return stamp(value)
    if isinstance(value, Path):
        return str(value).encode(errors="replace").decode()
    raise TypeError(f"no JSON for {type(value).__name__}")


def conclude(
    order: StopRun | None, campaigns: Campaigns, deferred_until: datetime | None
) -> Conclusion:
    """The exit code from the facts: an order to stop, campaigns set aside, campaigns failed."""
    if order is not None:
        return Conclusion(
            EXIT_CODES.get(order.reason, _OTHER_STOP), order.reason, str(order), order.resume_at
        )
    reason, resume_at = "complete", None
    if deferred_until is not None:
        reason, resume_at = "set_aside", deferred_until
    elif campaigns.failed:
        reason = "failures"
    return Conclusion(EXIT_CODES[reason], reason, None, resume_at)


def new_run_id(now: datetime) -> str:
    """Sortable by time, unique by chance."""
    return f"{now:%Y%m%dT%H%M%SZ}-{os.urandom(3).hex()}"
