"""The sign-in of v3 without I/O: what to send where, and what an answer means.

Sources: developer.constantcontact.com, "Device flow"; RFC 8628 (device flow), RFC 6749 (refresh).
An app of the device flow has no secret: its client id is all that it shows. Every value stands in
the form body, none in the query, for URLs are logged.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from harvester.api.errors import Headers, quoted, retry_after

SCOPE = "campaign_data offline_access"  # tracking reports; a refresh token
TRACKING_SCOPE = "campaign_data"

_DEVICE = "/oauth2/default/v1/device/authorize"
_TOKEN = "/oauth2/default/v1/token"  # noqa: S105 - a path
_DEVICE_GRANT = "urn:ietf:params:oauth:grant-type:device_code"
# The gateway's own code for too many requests; two of OAuth; a body that names nothing.
_PASSING = frozenset({"E0000047", "temporarily_unavailable", "server_error", ""})
_USUAL_LIFE = 86_400.0  # s: the documented life of an access token
_LONGEST_LIFE = 1e9  # s: an `expires_in` beyond it is a moment, not a duration
_MILLISECONDS = 1e11  # a moment beyond it counts milliseconds
_USUAL_INTERVAL, _LONGEST_INTERVAL = 5.0, 60.0  # s between two polls (RFC 8628, 3.2)
_USUAL_WAIT, _LONGEST_WAIT = 600.0, 86_400.0  # s that a device code lives


@dataclass(frozen=True, slots=True)
class Form:
    """One POST: the path under the origin of the sign-in, and the fields of its body."""

    path: str
    fields: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceCode:
    """The sign-in has begun: the person opens `link` and confirms `user_code`."""

    device_code: str = field(repr=False)
    user_code: str
    link: str
    code_in_link: bool
    """Whether the link carries the code already."""
    expires_in_s: float
    interval_s: float
    """The least time between two polls."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """Granted. Moments are seconds since 1970. No `refresh_token`: keep the one you have."""

    access_token: str = field(repr=False)
    refresh_token: str | None = field(repr=False)
    scope: str
    received_at: float
    expires_at: float


@dataclass(frozen=True, slots=True)
class Pending:
    """The person has not agreed yet; `slow_down` asks for 5 s more between two polls."""

    slow_down: bool = False


@dataclass(frozen=True, slots=True)
class Passing:
    """Not an answer yet: the same request may succeed in `retry_after` seconds (None: not said).

    `lost` says that the server may have carried the request out all the same.
    """

    text: str
    retry_after: float | None = None
    lost: bool = False


@dataclass(frozen=True, slots=True)
class Rejected:
    """The server's last word. `error` is its own slug: "access_denied" (the person said no),
    "expired_token" (the device code is too old), "invalid_grant" (the refresh token is used up,
    revoked or too old), or what is wrong with the request, as "invalid_client"."""

    error: str
    text: str


Answer = Tokens | DeviceCode | Pending | Passing | Rejected


def device_authorization(client_id: str) -> Form:
    """Ask for a device code."""
    return Form(_DEVICE, {"client_id": client_id, "scope": SCOPE})


def device_poll(client_id: str, device_code: str) -> Form:
    """Ask whether the person has agreed."""
    fields = {"grant_type": _DEVICE_GRANT, "device_code": device_code, "client_id": client_id}
    return Form(_TOKEN, fields)


def refresh(client_id: str, refresh_token: str) -> Form:
    """Exchange the refresh token for new tokens."""
    fields = {
        "grant_type": "refresh_token",
        "refresh_token": refresh_token,
        "client_id": client_id,
    }
    return Form(_TOKEN, fields)


def classify(status: int, headers: Headers, body: bytes, *, now: float) -> Answer:
    """What an answer of either endpoint means. `now` is seconds since 1970. What is quoted of it
    may repeat a secret. Never raises."""
    found = _object(body)
    if status == 200:
        return _tokens(found, now) or _device_code(found) or Passing("HTTP 200 without tokens")
    error, text = _error(found)
    what = f"HTTP {status} {error}".rstrip() + (f": {text}" if text else "")
    if error == "slow_down":  # RFC 8628 answers 400; some gateways put it under a 429
        return Pending(slow_down=True)
    if status in {408, 429} or status >= 500 or status < 400 or error in _PASSING:
        return Passing(what, retry_after(headers))
    return Pending() if error == "authorization_pending" else Rejected(error, what)


def _object(body: bytes) -> Mapping[str, Any]:
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    return found if isinstance(found, dict) else {}


def _error(found: Mapping[str, Any]) -> tuple[str, str]:
    """Error and description: only these are ever quoted, never the body."""
    error = found.get("error") or found.get("errorCode") or found.get("error_key")
    return quoted(error), quoted(found.get("error_description") or found.get("errorSummary"))


def _tokens(found: Mapping[str, Any], now: float) -> Tokens | None:
    access = _secret(found.get("access_token"))
    if access is None:
        return None
    return Tokens(
        access_token=access,
        refresh_token=_secret(found.get("refresh_token")),
        scope=quoted(found.get("scope")),
        received_at=now,
        expires_at=_expiry(found.get("expires_in"), now),
    )


def _expiry(given: object, now: float) -> float:
    seconds = _number(given)
    if seconds is None or seconds <= 0:
        return now + _USUAL_LIFE
    if seconds <= _LONGEST_LIFE:
        return now + seconds
    moment = seconds / 1000 if seconds > _MILLISECONDS else seconds
    return moment if now < moment <= now + _LONGEST_LIFE else now + _USUAL_LIFE


def _device_code(found: Mapping[str, Any]) -> DeviceCode | None:
    device_code, user_code = _secret(found.get("device_code")), _secret(found.get("user_code"))
    complete = _link(found.get("verification_uri_complete"))
    link = complete or _link(found.get("verification_uri"))
    if device_code is None or user_code is None or link is None:
        return None
    expires_in = _number(found.get("expires_in")) or _USUAL_WAIT
    interval = _number(found.get("interval")) or _USUAL_INTERVAL
    return DeviceCode(
        device_code=device_code,
        user_code=user_code,
        link=link,
        code_in_link=complete is not None,
        expires_in_s=min(max(expires_in, 1.0), _LONGEST_WAIT),
        interval_s=min(max(interval, 1.0), _LONGEST_INTERVAL),
    )


def _secret(value: object) -> str | None:
    """A token as a header can carry it, or None."""
    if not isinstance(value, str) or not value:
        return None
    return value if value.isascii() and value.isprintable() and " " not in value else None


def _link(value: object) -> str | None:
    """A link that is safe to show on a terminal, whatever host of the vendor it names."""
    link = _secret(value)
    return link if link and link.startswith(("https://", "http://")) else None


def _number(value: object) -> float | None:
    """A finite number, also as text; true and false are none."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None
