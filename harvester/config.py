"""All settings of a harvest: one frozen object, checked whole before anything is sent."""
# ruff: noqa: RUF009 - the calls below make fields

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import date, datetime
from functools import cache
from pathlib import Path
from typing import get_type_hints

from harvester.api.base import Api
from harvester.api.next_link import utc_text
from harvester.api.vendor import LINKS, ORIGINS, PAGE_SIZES, REPORTS, SIGN_IN_ORIGIN
from harvester.request.pagination import MAX_PAGES
from harvester.settings import (
    LAST,
    MOMENT,
    PACE,
    REPAIR,
    SIGN_IN,
    WHAT,
    WHERE,
    Setting,
    check_secret,
    parse_moment,
    parse_origin,
    parse_proxy,
    parse_reports,
    require,
    setting,
    types_of,
)

KNOWN = tuple({**REPORTS["v2"], **REPORTS["v3"]})
"""Every folder that a harvest can have."""
_ACCOUNT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}", re.ASCII)  # names files


@dataclass(frozen=True, slots=True, kw_only=True)
class HarvestConfig:
    """Settings of one harvest, named and defaulted as the options of `harvester run`.

    Raises `ConfigError` on construction if a value cannot be used; the message names the setting
    and what it accepts. Secrets are not in the repr.

    `since` is an aware datetime, a date, ISO-8601 text or "last". `api` None is chosen by the
    credentials: v3, but v2 where an API key is given and no client id. `base_url` and `auth_url`
    are origins; None is the vendor's own. `client_id` of v3 may also be given as `api_key`.
    `proxy` is what HTTPS_PROXY may be.
    """

    report: str | Sequence[str] = setting(
        "opens", WHAT, "Which reports, or all.", metavar="NAME[,NAME...]"
    )
    since: datetime | date | str | None = setting(
        None,
        WHAT,
        "Events from then on: a date, a date-time with its offset, or last.",
        metavar="WHEN",
        format=MOMENT,
    )
    summary: bool = setting(False, WHAT, "Compare the rows with the API's own counts.")
    links: bool = setting(False, WHAT, "Also the links of each campaign.")
    counts: bool = setting(True, WHAT, "Ask every report, whatever the API's counts say.")
    page_size: int = setting(500, WHAT, "Rows of a page.", least=PAGE_SIZES[0], most=PAGE_SIZES[-1])
    max_pages: int = setting(MAX_PAGES, WHAT, "A campaign with more pages fails.", least=1)
    max_page_bytes: int = setting(
        64 * 1024 * 1024, WHAT, "Bytes of a page; a larger one is refused.", least=1, unit="bytes"
    )
    output: Path | str = setting("harvest", WHERE, "The directory for everything.")
    compress: str | None = setting(None, WHERE, "Compress the files.", words=("zstd", "gzip"))
    provenance: bool = setting(False, WHERE, "Also pages.ndjson: where each page came from.")
    state_dir: Path | str | None = setting(
        None,
        WHERE,
        "The day's count of each key, and the accounts.",
        otherwise="the user's state folder",
    )
    rate: float = setting(
        3.3,
        PACE,
        "Request starts a second over all workers; 0: no pace.",
        most=1_000_000,
        unit="requests a second",
    )
    concurrency: int = setting(
        16, PACE, "Requests in flight, each of another campaign.", least=1, most=1000
    )
    daily_quota: int = setting(10_000, PACE, "Requests of a UTC day; 0: no quota.", unit="requests")
    quota_reserve: int = setting(
        0, PACE, "Requests of the day that are left for others.", unit="requests"
    )
    wait_for_quota: bool = setting(False, PACE, "Sleep until the quota resets, then go on.")
    max_requests: int | None = setting(None, PACE, "Stop after so many requests.", least=1)
    max_duration: float | None = setting(
        None, PACE, "Stop after so many seconds.", above=True, unit="seconds"
    )
    sizes: Path | str | None = setting(
        None, PACE, "manifest.ndjson of an earlier harvest: the longest walks go first."
    )
    retries: int = setting(5, REPAIR, "More tries for one page.", most=100)
    timeout: float = setting(
        60.0, REPAIR, "Seconds for one request.", above=True, most=86_400, unit="seconds"
    )
    max_wait: float = setting(
        300.0, REPAIR, "Seconds of the longest single wait.", most=86_400, unit="seconds"
    )
    min_page_size: int | None = setting(
        None,
        REPAIR,
        "Where a page never comes, ask for fewer rows, down to so many.",
        least=1,
        most=500,
    )
    retry_failed: bool = setting(False, REPAIR, "Also try again what the API refused for good.")
    repair: bool = setting(False, REPAIR, "Harvest finished files that are damaged again.")
    fresh: bool = setting(False, REPAIR, "Forget what is in the directory and start over.")
    api: str | None = setting(
        None, SIGN_IN, "Version of the API.", words=tuple(ORIGINS), otherwise="by the credentials"
    )
    base_url: str | None = setting(
        None, SIGN_IN, "Origin of the API.", metavar="URL", otherwise="the vendor's"
    )
    auth_url: str | None = setting(
        None, SIGN_IN, "Origin of the sign-in to v3.", metavar="URL", otherwise="the vendor's"
    )
    account: str = setting("default", SIGN_IN, "Whose stored v3 tokens are used.", metavar="NAME")
    client_id: str | None = setting(
        None, SIGN_IN, "Client id of the v3 app.", metavar="ID", secret=True
    )
    access_token_file: Path | str | None = setting(
        None, SIGN_IN, "A file whose first line is the access token."
    )
    token_command: str | None = setting(
        None, SIGN_IN, "A command that prints the access token.", metavar="CMD", secret=True
    )
    api_key: str | None = setting(None, secret=True)
    access_token: str | None = setting(None, secret=True)
    proxy: str | None = setting(None, secret=True)

    def __post_init__(self) -> None:
        for name, (row, types) in settings_table().items():
            row.check(name, getattr(self, name), types)
        self._set("state_dir", Path(self.state_dir or _user_state_dir()))
        self._resolve_api()
        self._set("report", parse_reports(self.report, REPORTS[str(self.api)]))
        self._check_pairs()
        if self.since != LAST:
            self._set("since", parse_moment(self.since, name="since"))
        require(bool(str(self.output).strip()), "output", "a directory", self.output)
        self._set("output", Path(self.output))
        self._set("proxy", parse_proxy(self.proxy))
        for name in ("api_key", "access_token", "client_id"):
            check_secret(name, getattr(self, name))

    def _resolve_api(self) -> None:
        """The version by the credentials, its origins, and whose limits they are."""
        accepted = "up to 64 letters, digits and any of . _ @ + -, not beginning with one of these"
        require(_ACCOUNT.fullmatch(self.account) is not None, "account", accepted, self.account)
        self._set("api", self.api or self._api_of_credentials())
        vendor = ORIGINS[str(self.api)]
        self._set("base_url", parse_origin(self.base_url, vendor, name="base_url"))
        self._set("auth_url", parse_origin(self.auth_url, SIGN_IN_ORIGIN, name="auth_url"))

    def _api_of_credentials(self) -> str:
        """v3 where a client id is given or an account is signed in, v2 where an API key is. A key
        with a token of its own goes before a stored account."""
        if self.client_id is not None or self.api_key is None:
            return "v3"
        if self.gives_token:
            return "v2"
        from harvester.disk.token_store import TokenStore  # not needed where the API is given

        return "v3" if TokenStore(Path(str(self.state_dir)), self.account).path.exists() else "v2"

    def _check_pairs(self) -> None:
        """What two settings must have in common."""
        require(
            (self.min_page_size or 0) <= self.page_size,
            "min_page_size",
            f"at most the page size of {self.page_size}",
            self.min_page_size,
        )
        require(
            not self.daily_quota or self.quota_reserve < self.daily_quota,
            "quota_reserve",
            f"less than the daily quota of {self.daily_quota}",
            self.quota_reserve,
        )

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    def make_api(self) -> Api:
        """The API as this config asks it."""
        if self.api == "v3":
            from harvester.api.v3 import V3  # only the version that is asked

            return V3(self.origin)
        from harvester.api.v2 import V2

        return V2(self.origin)

    @property
    def key(self) -> str:
        """What the API counts requests by: v2's API key, v3's client id; empty if none is given."""
        return (self.api == "v3" and self.client_id) or self.api_key or ""

    @property
    def gives_token(self) -> bool:
        """Whether a token of its own is named; it goes before the stored account."""
        return bool(self.access_token or self.access_token_file or self.token_command)

    @property
    def origin(self) -> str:
        """`base_url`, or the vendor's own: scheme, host and port."""
        return str(self.base_url)

    @property
    def auth_origin(self) -> str:
        """`auth_url`, or the vendor's own: scheme, host and port of the sign-in."""
        return str(self.auth_url)

    @property
    def directory(self) -> Path:
        """`output`, as a path."""
        return Path(self.output)

    @property
    def start(self) -> datetime | None:
        """`since`, aware and in UTC."""
        return self.since if isinstance(self.since, datetime) else None

    @property
    def reports(self) -> tuple[str, ...]:
        """The reports, in the API's order."""
        return tuple(self.report)

    @property
    def walks(self) -> tuple[str, ...]:
        """What is walked for each campaign: the reports, and its links if they are asked for."""
        return (*self.reports, LINKS) if self.links else self.reports

    @property
    def tops_up(self) -> bool:
        """Whether finished files are to grow."""
        return self.since == LAST

    @property
    def open_walks(self) -> int:
        """Campaigns under way at once: more than are asked at once, so that the giants among them
        are found out early. One at a time stays one at a time."""
        return self.concurrency * 4 if self.concurrency > 1 else 1

    @property
    def open_files(self) -> int:
        """Files that may be open at once: a part, and its second descriptor while it is synced,
        for each campaign under way, a connection for each request, and what every process has."""
        return 2 * self.open_walks + self.concurrency + 64

    @property
    def requests_a_day(self) -> int:
        """What is ours of the daily quota (0: no limit)."""
        return self.daily_quota - self.quota_reserve if self.daily_quota else 0

    @property
    def durable(self) -> bool:
        """Whether each commit is on the disk before the run goes on: at any pace an API allows."""
        return 0 < self.rate <= 10

    def identity(self) -> dict[str, str]:
        """What must not change within one output directory; reports may be added to it."""
        since = {} if self.tops_up else {"since": utc_text(self.start) if self.start else ""}
        return {
            "api": str(self.api),
            "base_url": self.origin,
            **since,
            "page_size": str(self.page_size),
            "compress": self.compress or "",
        }


def _user_state_dir() -> str:
    import platformdirs  # not needed where the folder is given

    return platformdirs.user_state_dir("harvester")


@cache
def settings_table() -> dict[str, tuple[Setting, tuple[type, ...]]]:
    """Each setting's row of the table and the types it accepts, by name."""
    types = get_type_hints(HarvestConfig)
    return {
        field.name: (field.metadata["setting"], types_of(types[field.name]))
        for field in fields(HarvestConfig)
    }
