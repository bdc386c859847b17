"""Everything that can go wrong, sorted by what the caller must do about it.

    HarvestError
    ├── ConfigError            a setting is wrong: nothing was sent, nothing was written
    ├── TryAgain               the same request may succeed later
    │   ├── Throttled              too fast: every worker holds
    │   ├── QuotaExceeded          the API says that the day's quota is gone
    │   ├── Refused                is the token refused, or this campaign alone?
    │   │   ├── Unauthorized           401: renew the token, or try once more
    │   │   └── Forbidden              403 without a limit's key: no privilege, or an inactive key
    │   ├── ServerTrouble          408 or 5xx
    │   ├── TransportTrouble       reset, timeout, a body cut short
    │   └── Unreadable             a 200 that is not the documented answer
    ├── CampaignError          this walk is over, every other one goes on
    │   ├── CursorDropped          the cursor died: the walk may start over, once
    │   ├── PoisonPage             no try at one page succeeded: smaller pages may
    │   └── Deferred               it would have to wait too long: kept for a later run
    │       └── Moving                 its events arrive faster than it can be read
    ├── InDoubt                nothing was accepted yet: other campaigns are asked first
    └── StopRun                nothing more may be sent; all that was saved stands
        └── StorageError           the disk refused

Translation happens at three borders only: `request.http` (aiohttp), `api` (the wire) and
`disk.storage` (the disk). No message holds a URL's query, a header or any other place where a
secret can stand.
"""

import traceback
from datetime import datetime
from pathlib import Path


class HarvestError(Exception):
    """The root: `except HarvestError` catches whatever harvester raises on purpose."""


class ConfigError(HarvestError):
    """A setting, an id or a directory that cannot be used; the message says what to do.

    `setting` is the one that is wrong, if it is one; the message then begins with its name.
    """

    def __init__(self, message: str, *, setting: str | None = None) -> None:
        super().__init__(f"{setting}: {message}" if setting else message)
        self.setting = setting


class TryAgain(HarvestError):
    """One attempt failed in a way that may pass.

    `cause` is a stable slug for the retry report, `status` the HTTP status if there was one,
    `retry_after` the seconds the server asked for (None if it asked for nothing), `sent` when the
    request was sent (monotonic s). A class that is not `counted` never uses up the retries.
    """

    cause = "try_again"
    counted = True
    sent: float = float("inf")

    def __init__(
        self,
        message: str,
        *,
        cause: str | None = None,
        status: int | None = None,
        error_key: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.cause = cause or type(self).cause
        self.status = status
        self.error_key = error_key
        self.retry_after = retry_after


class Throttled(TryAgain):
    """The API says: too fast.

    The pacer writes the wait into it: `held` seconds, set by `wait_source`. Every worker waits;
    where the API throttles one campaign `alone`, only that one does.
    """

    cause = "throttled"
    counted = False
    held: float = 0.0
    wait_source: str = "throttle"
    alone: bool = False


class QuotaExceeded(TryAgain):
    """The API says that no request is left until the quota resets."""

    cause = "quota_spent"
    counted = False


class Refused(TryAgain):
    """The key, the token or this campaign alone is refused."""


class Unauthorized(Refused):
    """401: perhaps a token that ran out, perhaps one that never was good."""

    cause = "unauthorized"


class Forbidden(Refused):
    """403 without a limit's key: no privilege, or an inactive key."""

    cause = "forbidden"


class ServerTrouble(TryAgain):
    """408 or any 5xx."""

    cause = "server_error"


class TransportTrouble(TryAgain):
    """No whole answer came: `cause` tells timeout, reset, cut, connect, tls or protocol."""

    cause = "connection"


class Unreadable(TryAgain):
    """A 200 whose body is not what the documentation promises."""

    cause = "unreadable"


class CampaignError(HarvestError):
    """One campaign cannot be finished in this run.

    `kind` is the slug in errors.ndjson, `attempts` the requests that its last page took.
    """

    def __init__(
        self,
        kind: str,
        message: str,
        *,
        status: int | None = None,
        error_key: str | None = None,
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.status = status
        self.error_key = error_key
        self.attempts = 1


class CursorDropped(CampaignError):
    """The API no longer knows a cursor it gave us (400, 404 or 410 on a later page)."""

    def __init__(
        self, message: str, *, status: int | None = None, error_key: str | None = None
    ) -> None:
        super().__init__("cursor_dropped", message, status=status, error_key=error_key)


class PoisonPage(CampaignError):
    """Every attempt at one page failed, in a way that a page of fewer rows may not."""


class Deferred(CampaignError):
    """The campaign must wait longer than this run will: kept for a later run, at `resume_at` or
    (None) at any time."""

    def __init__(
        self,
        message: str,
        *,
        resume_at: datetime | None,
        status: int | None = None,
        kind: str = "set_aside",
    ) -> None:
        super().__init__(kind, message, status=status)
        self.resume_at = resume_at


class Moving(Deferred):
    """Events arrive faster than the campaign's pages can be read in order: a later run tries."""

    def __init__(self, message: str) -> None:
        super().__init__(message, resume_at=None, kind="moving")


class InDoubt(HarvestError):
    """The API refuses this campaign, and nothing was accepted yet: the run takes it up again when
    others have shown whether the token works."""


class StopRun(HarvestError):
    """The run ends here. `reason` is a slug of `report.EXIT_CODES`."""

    def __init__(self, reason: str, message: str, *, resume_at: datetime | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.resume_at = resume_at


class StorageError(StopRun):
    """The disk refused: full, broken or read-only. What was acknowledged before stands.

    The reason is "locked" where another run or program holds the state, "directory_lost" where the
    directory is no longer at its path.
    """

    def __init__(self, message: str, *, reason: str = "storage") -> None:
        super().__init__(reason, message)


def describe_bug(error: BaseException) -> str:
    """The type of an error, and the file and line that raised it; never its text, which may hold
    anything, a secret too."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "?"
    return f"{type(error).__name__} at {where}"
