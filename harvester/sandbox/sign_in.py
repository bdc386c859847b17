"""The sign-in of v3 without a wire: the device flow and the renewal of tokens.

`POST /oauth2/default/v1/device/authorize` and `POST /oauth2/default/v1/token`, form bodies, no
secret; `/activate` is the page on which the person agrees. Source: the vendor's page of the device
flow, RFC 8628 (what a poll is answered), RFC 6749 (errors).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl

from .answers import Answer, document, refusal
from .chance import number_of
from .requests import Request
from .settings import SandboxSettings
from .tokens import Grant, access_token, claims_of, random_text

DEVICE_GRANT: Final = "urn:ietf:params:oauth:grant-type:device_code"
_SLOWER: Final = 5.0
_DISUSE: Final = 180 * 86_400.0  # s, after which a refresh token dies
_LETTERS: Final = "BCDFGHJKLMNPQRSTVWXZ"


def oauth_error(error: str, description: str = "", status: int = 400) -> Answer:
    """A refusal as RFC 6749 spells it."""
    return refusal(status, {"error": error, "error_description": description or error})


OVER_RATE: Final = refusal(
    429,
    {
        "errorCode": "E0000047",
        "errorSummary": "API call exceeded rate limit due to too many requests.",
    },
)
"""What the gateway before the token endpoint says."""
_DEAD: Final = oauth_error("invalid_grant", "The refresh token is invalid or expired.")


@dataclass(slots=True)
class _Device:
    """A code that waits for a person. `agreed` is None until the person decides."""

    scope: str
    user_code: str
    expires: float
    interval: float
    agreed: bool | None
    polled: float = float("-inf")
    user: str = "user-1"


class SignIn:
    """The state of the sign-in: waiting device codes and the grants. All times are Unix seconds."""

    def __init__(self, settings: SandboxSettings) -> None:
        self._settings, self._asked, self._seed = settings, settings.sign_in, settings.seed
        self._devices: dict[str, _Device] = {}
        self._by_token: dict[str, Grant] = {}
        self._codes = 0
        self._granted = 0

    # -- tokens in use -------------------------------------------------------------------------

    def app_of(self, token: str, wall: float) -> str | None:
        """The client id whose access token it is; None for one that is not good (any more)."""
        claims = claims_of(self._seed, token) if token else None
        if claims is None or wall >= float(str(claims["exp"])):
            return None
        return str(claims["cid"])

    # -- the person ----------------------------------------------------------------------------

    def decide(self, user_code: str, *, agree: bool, user: str = "user-1") -> None:
        """A person agrees or denies; KeyError if no such code waits."""
        device = next((d for d in self._devices.values() if d.user_code == user_code), None)
        if device is None:
            raise KeyError(user_code)
        device.agreed, device.user = agree, user

    # -- device/authorize ----------------------------------------------------------------------

    def authorize(self, form: Mapping[str, str], origin: str, wall: float) -> Answer:
        """Give out a device code and the code that a person types."""
        if form.get("client_id") != self._settings.client_id:
            return oauth_error("invalid_client", "Invalid value for 'client_id' parameter.", 401)
        if not (scope := form.get("scope", "")):
            return oauth_error("invalid_scope", "The scope must be given.")
        self._codes += 1
        code = random_text(self._seed, "device", self._codes, wall)
        letters = [_LETTERS[number_of(code) // 20**place % 20] for place in range(8)]
        user_code = "".join((*letters[:4], "-", *letters[4:]))
        self._devices[code] = _Device(
            scope=scope,
            user_code=user_code,
            expires=wall + self._asked.device_code_age,
            interval=self._asked.interval,
            agreed={"agrees": True, "denies": False, "waits": None}[self._asked.person],
        )
        page = f"{origin}/activate"
        return document(
            {
                "device_code": code,
                "user_code": user_code,
                "verification_uri": page,
                "verification_uri_complete": f"{page}?user_code={user_code}",
                "expires_in": _whole(self._asked.device_code_age),
                "interval": _whole(self._asked.interval),
            }
        )

    # -- token ---------------------------------------------------------------------------------

    def token(self, form: Mapping[str, str], wall: float) -> Answer:
        """Exchange a device code or a refresh token for an access token."""
        if form.get("client_id") != self._settings.client_id:
            return oauth_error("invalid_client", "Invalid value for 'client_id' parameter.", 401)
        match form.get("grant_type"):
            case "refresh_token":
                return self._refresh(form, wall)
            case grant_type if grant_type == DEVICE_GRANT:
                return self._poll(form, wall)
        return oauth_error("unsupported_grant_type")

    def _poll(self, form: Mapping[str, str], wall: float) -> Answer:
        code = form.get("device_code", "")
        device = self._devices.get(code)
        if device is None:
            return oauth_error("invalid_grant", "The device code is invalid or has expired.")
        if wall >= device.expires:
            del self._devices[code]
            return oauth_error("expired_token", "The device code has expired.")
        too_soon = wall - device.polled < device.interval - 0.01
        device.polled = wall
        if too_soon:
            device.interval += _SLOWER
            return oauth_error("slow_down", "Polled too often.")
        if device.agreed is None:
            return oauth_error("authorization_pending", "The person has not decided yet.")
        del self._devices[code]
        if not device.agreed:
            return oauth_error("access_denied", "The person denied.")
        client_id = self._settings.client_id
        grant = Grant(self._granted, client_id, device.user, device.scope, wall)
        self._granted += 1
        return self._issue(grant, wall, first=True)

    def _refresh(self, form: Mapping[str, str], wall: float) -> Answer:
        token = form.get("refresh_token", "")
        grant = self._by_token.get(token)
        if grant is None or wall - grant.used_at > _DISUSE:
            return _DEAD
        if token == grant.previous:  # once more within the leeway
            del self._by_token[token]
            grant.previous = ""
            if wall - grant.rotated_at > self._asked.leeway:
                return _DEAD
        return self._issue(grant, wall, first=False)

    def _issue(self, grant: Grant, wall: float, *, first: bool) -> Answer:
        """A new access token, and a refresh token as the settings have it."""
        grant.used_at, grant.renewals = wall, grant.renewals + 1
        age = self._asked.access_token_age
        answer: dict[str, object] = {
            "token_type": "Bearer",
            "expires_in": _whole(age),
            "access_token": access_token(self._seed, grant, wall, wall + age),
            "scope": grant.scope,
        }
        kind = self._asked.refresh_tokens
        if "offline_access" in grant.scope.split() and kind != "none":
            if first or kind == "rotating":
                self._rotate(grant, wall)
            if first or kind != "silent":
                answer["refresh_token"] = grant.current
        return document(answer)

    def _rotate(self, grant: Grant, wall: float) -> None:
        """A new refresh token; it ends all earlier ones, but for the leeway of the last."""
        self._by_token.pop(grant.previous, None)
        grant.previous, grant.rotated_at = grant.current, wall
        if not self._asked.leeway:
            self._by_token.pop(grant.previous, None)
        grant.current = random_text(self._seed, "refresh", grant.number, grant.renewals)
        self._by_token[grant.current] = grant


def form_of(request: Request) -> dict[str, str]:
    """The form in a body; empty if the body is none."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip()
    if kind != "application/x-www-form-urlencoded":
        return {}
    return dict(parse_qsl(request.body.decode("utf-8", "replace"), keep_blank_values=True))


def _whole(seconds: float) -> float:
    """A number of seconds, without a point if it is whole."""
    return int(seconds) if seconds == int(seconds) else seconds
