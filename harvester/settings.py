"""What one setting accepts, written once.

`HarvestConfig` checks itself by these rows and its own annotations; the command line has its types,
defaults and help from there.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import field
from datetime import UTC, date, datetime
from ipaddress import ip_address
from types import UnionType
from typing import Any, get_args, get_origin
from urllib.parse import urlsplit

from msgspec import Struct

from harvester.api.vendor import Report
from harvester.errors import ConfigError

WHAT = "What to harvest"
WHERE = "Where it goes"
PACE = "Pace and quota"
REPAIR = "Failures and repair"
SIGN_IN = "Sign-in"
SHOWN = "What is shown"
GROUPS = (WHAT, WHERE, PACE, REPAIR, SIGN_IN, SHOWN)
"""The headings of the help, in its order."""
LAST = "last"
MOMENT = "an ISO-8601 date, or a date-time with its offset (2026-01-31T00:00:00Z)"
_HOST = re.compile(r"[a-z0-9._:-]+")
_USUAL_PORT = {"http": 80, "https": 443}


class Setting(Struct, frozen=True, kw_only=True):
    """One row of the table: `about` is the help under the heading `group`.

    Numbers lie from `least` to `most` (None: no bound); `above` excludes `least` itself, `unit` is
    what is counted. `words` are the only texts accepted, if there are any, `format` what a text
    looks like. `otherwise` says what None stands for. No message has the value of a `secret`.
    """

    group: str = ""
    about: str = ""
    metavar: str | None = None
    otherwise: str = ""
    unit: str = ""
    least: float = 0
    most: float | None = None
    above: bool = False
    words: tuple[str, ...] = ()
    format: str = "text"
    secret: bool = False

    def accepted(self, types: tuple[type, ...]) -> str:
        """The accepted values, as a message says it."""
        if self.words:
            return " or ".join(self.words)
        if int not in types:
            return "true or false" if bool in types else self.format
        kind = "a number" if float in types else "a whole number"
        if self.most is None:
            bound = f"over {self.least:g}" if self.above else f"of {self.least:g} or more"
        elif self.above:
            bound = f"over {self.least:g}, at most {self.most:.0f}"
        else:
            bound = f"from {self.least:g} to {self.most:.0f}"
        return f"{kind}{f' of {self.unit}' if self.unit else ''} {bound}"

    def check(self, name: str, value: object, types: tuple[type, ...]) -> None:
        """Raise `ConfigError` for a value that is not accepted. A settings file has types: 500.0,
        "500" and true are not 500."""
        fine = isinstance(value, types) and (type(value) is not bool or bool in types)
        if fine and isinstance(value, int | float) and int in types:
            fine = math.isfinite(value) and self.least <= value <= (self.most or math.inf)
            fine = fine and not (self.above and value == self.least)
        elif self.words and value is not None:
            fine = value in self.words
        require(fine, name, self.accepted(types), type(value) if self.secret else value)


def require(fine: bool, name: str, accepted: str, value: object) -> None:
    """Raise `ConfigError` naming the setting and what it accepts, unless all is `fine`."""
    if not fine:
        raise ConfigError(f"{accepted}, not {value!r}", setting=name)


def setting(default: Any, group: str = "", about: str = "", **row: Any) -> Any:
    """A dataclass field with its row of the table; a secret is not in the repr."""
    found = Setting(group=group, about=about, **row)
    return field(default=default, repr=not found.secret, metadata={"setting": found})


def types_of(annotation: object) -> tuple[type, ...]:
    """The classes that an annotation accepts; a whole number is a number."""
    parts = get_args(annotation) if isinstance(annotation, UnionType) else (annotation,)
    types = tuple(get_origin(part) or part for part in parts)
    return (*types, int) if float in types else types


# -- values that need more than a row --------------------------------------------------------------


def parse_reports(asked: str | Sequence[str], reports: Mapping[str, Report]) -> tuple[str, ...]:
    """The names asked for, each once, in the API's order; "all" is all that do not follow from
    others."""
    known = [report.name for report in reports.values() if report.paged]
    given = asked.split(",") if isinstance(asked, str) else list(asked)
    names = [name.strip() if isinstance(name, str) else repr(name) for name in given]
    names = [name for name in names if name]
    if names == ["all"]:
        names = [name for name in known if reports[name].in_all]
    for name in names:
        require(name in known, "report", f"any of {', '.join(known)}, or all", name)
    require(bool(names), "report", f"any of {', '.join(known)}", asked)
    return tuple(name for name in known if name in names)


def parse_moment(value: datetime | date | str | None, *, name: str) -> datetime | None:
    """A moment as a person gives it, in UTC. Raise `ConfigError` naming the setting."""
    accepted = f"{MOMENT}, or {LAST}" if name == "since" else MOMENT
    if isinstance(value, str):
        try:
            value = date.fromisoformat(value) if len(value) == 10 else datetime.fromisoformat(value)
        except ValueError:
            require(False, name, accepted, value)
    if isinstance(value, datetime):
        require(value.utcoffset() is not None, name, accepted, value.isoformat())
        try:
            return value.astimezone(UTC)
        except OverflowError:
            require(False, name, accepted, value.isoformat())
    if isinstance(value, date):  # a day of the API, which counts in UTC
        return datetime(value.year, value.month, value.day, tzinfo=UTC)
    require(value is None, name, accepted, value)
    return None


def parse_origin(url: str | None, vendor: str, *, name: str) -> str:
    """Scheme, host and port, in one form: else one key would be counted twice.

    Plain http would show the token to the network: loopback only.
    """
    if url is None:
        return vendor
    accepted = "https://HOST[:PORT], or http:// for a loopback server; no path, no user"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ConfigError(f"{accepted}, not a URL", setting=name) from None
    host = (parts.hostname or "").removesuffix(".")
    sane = _HOST.fullmatch(host) is not None and port != 0
    bare = parts.path in {"", "/"} and not (parts.query or parts.fragment or "@" in parts.netloc)
    secure = parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(host))
    # What is refused may hold a password: show the scheme and the host only.
    require(sane and bare and secure, name, accepted, f"{parts.scheme}://{host}")
    shown = f"[{host}]" if ":" in host else host
    usual = port in {None, _USUAL_PORT[parts.scheme]}
    return f"{parts.scheme}://{shown}" + ("" if usual else f":{port}")


def parse_proxy(given: str | None) -> str | None:
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
            f"[http://][USER:PASSWORD@]HOST[:PORT], or https://, not {shown}", setting="proxy"
        )
    return url


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def check_secret(name: str, value: str | None) -> None:
    """A blank or a line break in a key is a mistake in copying, and would break a header."""
    if value is not None and (not value.isascii() or not value.isprintable() or " " in value):
        raise ConfigError("a blank or a character that no key has is in it", setting=name)
