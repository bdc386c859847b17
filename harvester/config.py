"""All settings of a harvest: one frozen object, checked whole before anything is sent."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

import platformdirs

from harvester.api import oauth, v2, v3
from harvester.api.base import Api
from harvester.api.v2 import LINKS, REPORTS, utc_text
from harvester.disk.compress import CODECS
from harvester.disk.token_store import DEFAULT_ACCOUNT
from harvester.errors import ConfigError
from harvester.request.pagination import MAX_PAGES

PAGE_SIZES = range(1, 501)
_WHOLE = (
    "page_size", "min_page_size", "concurrency", "retries", "daily_quota", "quota_reserve",
    "max_requests", "max_pages", "max_page_bytes",
)  # fmt: skip
_SECONDS = ("rate", "timeout", "max_wait", "max_duration")
_OPTIONAL = ("min_page_size", "max_requests", "max_duration")
LAST = "last"
KNOWN = (*REPORTS, LINKS)
"""Every folder that a harvest can have."""
ORIGINS = {"v2": v2.ORIGIN, "v3": v3.ORIGIN}
"""The vendor's own."""
_HOST = re.compile(r"[a-z0-9._:-]+")
_USUAL_PORT = {"http": 80, "https": 443}
_V2_ONLY = {"since": None, "summary": False, "links": False}
MAX_PAGE_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class HarvestConfig:
    """Settings of one harvest, named and defaulted as the options of `harvester run`.

    Raises `ConfigError` on construction if a value cannot be used; the message names the setting
    and what it accepts. Secrets never show in the repr.

    Units: `rate` is request starts per second (0: no pace), `timeout`, `max_wait` and
    `max_duration` are seconds, `daily_quota` is requests a UTC day (0: none), `max_page_bytes`
    bounds one decoded page. `since` is an aware datetime, a date, or ISO-8601 text. `base_url` is
    an origin; None is the vendor's own for that `api`. `proxy` is what HTTPS_PROXY may be.
    """

    output: Path | str = "harvest"
    report: str | Sequence[str] = "opens"
    since: datetime | date | str | None = None
    page_size: int = 500
    min_page_size: int | None = None
    api: str = "v2"
    base_url: str | None = None
    auth_url: str = oauth.ORIGIN
    account: str = DEFAULT_ACCOUNT
    client_id: str | None = None
    rate: float = 3.3
    concurrency: int = 16
    retries: int = 5
    timeout: float = 60.0
    max_wait: float = 300.0
    daily_quota: int = 10_000
    quota_reserve: int = 0
    state_dir: Path | str | None = None
    max_requests: int | None = None
    max_duration: float | None = None
    wait_for_quota: bool = False
    fresh: bool = False
    retry_failed: bool = False
    repair: bool = False
    summary: bool = False
    links: bool = False
    provenance: bool = False
    sizes: Path | str | None = None
    compress: str | None = None
    max_pages: int = MAX_PAGES
    max_page_bytes: int = MAX_PAGE_BYTES
    proxy: str | None = field(default=None, repr=False)
    api_key: str | None = field(default=None, repr=False)
    access_token: str | None = field(default=None, repr=False)
    access_token_file: Path | str | None = None
    token_command: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        self._check_types()
        _require(self.api in ORIGINS, "api", "v2 or v3", self.api)
        _require(self.page_size in PAGE_SIZES, "page_size", "1 to 500", self.page_size)
        _require(
            self.min_page_size is None or 0 < self.min_page_size <= self.page_size,
            "min_page_size",
            f"1 to the page size of {self.page_size}",
            self.min_page_size,
        )
        _require(0 <= self.rate <= 1e6, "rate", "0 or more requests per second", self.rate)
        _require(1 <= self.concurrency <= 1000, "concurrency", "1 to 1000", self.concurrency)
        _require(0 <= self.retries <= 100, "retries", "0 to 100", self.retries)
        _require(0 < self.timeout <= 86_400, "timeout", "seconds, over 0", self.timeout)
        _require(0 <= self.max_wait <= 86_400, "max_wait", "seconds, 0 or more", self.max_wait)
        _require(self.daily_quota >= 0, "daily_quota", "0 or more requests", self.daily_quota)
        _require(self.quota_reserve >= 0, "quota_reserve", "0 or more", self.quota_reserve)
        _require(
            not self.daily_quota or self.quota_reserve < self.daily_quota,
            "quota_reserve",
            f"less than the daily quota of {self.daily_quota}",
            self.quota_reserve,
        )
        for name in ("max_requests", "max_duration"):
            value = getattr(self, name)
            _require(value is None or value > 0, name, "more than 0", value)
        _require(self.compress in CODECS, "compress", "zstd or gzip", self.compress)
        _require(self.max_pages > 0, "max_pages", "more than 0", self.max_pages)
        _require(self.max_page_bytes > 0, "max_page_bytes", "more than 0", self.max_page_bytes)
        url = ORIGINS[self.api] if self.base_url is None else self.base_url
        self._set("base_url", _origin(url, "base_url"))
        self._set("auth_url", _origin(self.auth_url, "auth_url"))
        self._set("report", _reports(self.report, self.make_api().reports))
        for name, absent in _V2_ONLY.items():
            given = getattr(self, name)
            _require(self.api == "v2" or given == absent, name, "nothing with --api v3", given)
        if self.since != LAST:
            self._set("since", parse_moment(self.since, name="since"))
        _require(bool(str(self.output).strip()), "output", "a directory", self.output)
        self._set("output", Path(self.output))
        self._set("state_dir", Path(self.state_dir or platformdirs.user_state_dir("harvester")))
        self._set("proxy", _proxy(self.proxy))
        for name in ("api_key", "access_token", "client_id"):
            _check_secret(name, getattr(self, name))

    def _check_types(self) -> None:
        """A settings file has types of its own: 500.0, "500" and true are not 500."""
        for name in _WHOLE:
            value = getattr(self, name)
            fine = type(value) is int or (value is None and name in _OPTIONAL)
            _require(fine, name, "a whole number", value)
        for name in _SECONDS:
            value = getattr(self, name)
            fine = type(value) in {int, float} or (value is None and name in _OPTIONAL)
            _require(fine, name, "a number", value)
        _require(isinstance(self.api, str), "api", "v2 or v3", self.api)
        for name in ("base_url", "client_id"):
            value = getattr(self, name)
            _require(isinstance(value, str | None), name, "text", value)
        for name in ("auth_url", "account"):
            value = getattr(self, name)
            _require(isinstance(value, str), name, "text", value)
        _require(
            self.compress is None or isinstance(self.compress, str),
            "compress",
            "zstd or gzip",
            self.compress,
        )
        fine = isinstance(self.report, str | Sequence) and all(
            isinstance(n, str) for n in self.report
        )
        _require(fine, "report", "names of reports", self.report)

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    def make_api(self) -> Api:
        """The API as this config asks it."""
        return v3.V3(self.origin) if self.api == "v3" else v2.V2(self.origin)

    @property
    def origin(self) -> str:
        """`base_url`, or the vendor's own: scheme, host and port."""
        return str(self.base_url)

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
    def sync_every(self) -> float:
        """How far durable commits may lie apart (s): none is missing at a pace an API allows."""
        return 0.0 if 0 < self.rate <= 10 else 2.0

    def identity(self) -> dict[str, str]:
        """What must not change within one output directory."""
        since = {} if self.tops_up else {"since": utc_text(self.start) if self.start else ""}
        return {
            "api": self.api,
            "base_url": self.origin,
            "report": ",".join(self.reports),
            **since,
            "page_size": str(self.page_size),
            "compress": self.compress or "",
        }


def _require(fine: bool, name: str, accepted: str, value: object) -> None:
    if not fine:
        option = "--" + name.replace("_", "-")
        raise ConfigError(f"{name} ({option}): {accepted}, not {value!r}")


def _reports(asked: str | Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
    names = asked.split(",") if isinstance(asked, str) else list(asked)
    names = [name.strip() for name in names if name.strip()]
    if names == ["all"]:
        names = list(known)
    for name in names:
        _require(name in known, "report", f"any of {', '.join(known)}, or all", name)
    _require(bool(names), "report", f"any of {', '.join(known)}", asked)
    return tuple(name for name in known if name in names)


def parse_moment(value: datetime | date | str | None, *, name: str) -> datetime | None:
    """A moment as a person gives it, in UTC. Raise `ConfigError` naming the setting."""
    accepted = "an ISO-8601 date, or a date-time with its offset (2026-01-31T00:00:00Z)"
    if name == "since":
        accepted += ", or last"
    if isinstance(value, str):
        try:
            value = date.fromisoformat(value) if len(value) == 10 else datetime.fromisoformat(value)
        except ValueError:
            _require(False, name, accepted, value)
    if isinstance(value, datetime):
        _require(value.utcoffset() is not None, name, accepted, value.isoformat())
        try:
            return value.astimezone(UTC)
        except OverflowError:
            _require(False, name, accepted, value.isoformat())
    if isinstance(value, date):  # a day of the API, which counts in UTC
        return datetime(value.year, value.month, value.day, tzinfo=UTC)
    _require(value is None, name, accepted, value)
    return None


def _origin(url: str, name: str) -> str:
    """Scheme, host and port, in one form: else one key would be counted twice.

    Plain http would show the token to the network: loopback only.
    """
    accepted = "https://HOST[:PORT], or http:// for a loopback server; no path, no user"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        _require(False, name, accepted, url)
        raise
    host = (parts.hostname or "").removesuffix(".")
    sane = _HOST.fullmatch(host) is not None and port != 0
    bare = parts.path in {"", "/"} and not (parts.query or parts.fragment or "@" in parts.netloc)
    secure = parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(host))
    # What is refused may hold a password: show the scheme and the host only.
    _require(sane and bare and secure, name, accepted, f"{parts.scheme}://{host}")
    shown = f"[{host}]" if ":" in host else host
    usual = port in {None, _USUAL_PORT[parts.scheme]}
    return f"{parts.scheme}://{shown}" + ("" if usual else f":{port}")


def _proxy(given: str | None) -> str | None:
    """A proxy's URL; without a scheme it is http, as other tools have it. What is refused may hold
    a password: nothing of it is shown but a scheme."""
    if not given:
        return None
    url = given.strip() if "://" in given else f"http://{given.strip()}"
    try:
        parts = urlsplit(url)
        sane = _HOST.fullmatch(parts.hostname or "") is not None and parts.port != 0
    except ValueError:
        sane = False
    scheme = url.partition("://")[0]
    if not sane or scheme.lower() not in _USUAL_PORT:
        shown = f"{scheme}://" if scheme.isalnum() else "this"
        raise ConfigError(
            f"proxy (HTTPS_PROXY): [http://][USER:PASSWORD@]HOST[:PORT], or https://, not {shown}"
        )
    return url


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _check_secret(name: str, value: str | None) -> None:
    """A blank or a line break in a key is a mistake in copying, and would break a header."""
    if value is not None and (not value.isascii() or not value.isprintable() or " " in value):
        raise ConfigError(f"{name} holds a blank or a character that no key has")
