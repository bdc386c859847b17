"""Tokens: access tokens that carry their own proof, and grants that hold refresh tokens.

An access token looks like the vendor's: a JWT of about a thousand characters. It is checked by its
signature, so it also outlives a restart of the server with the same seed.
"""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass
from hashlib import shake_256
from hmac import compare_digest
from math import ceil
from typing import Final

import orjson

_PADDING: Final = 420
"""Bytes that bring an access token to the length of a real one."""


@dataclass(slots=True)
class Grant:
    """What a person agreed to: one signed-in account of one app.

    `used_at`: the last use of a refresh token, `rotated_at`: when `previous` was replaced; Unix
    seconds.
    """

    number: int
    client_id: str
    user: str
    scope: str
    used_at: float
    renewals: int = 0
    current: str = ""
    previous: str = ""
    rotated_at: float = 0.0


def random_text(seed: int, *parts: object, size: int = 32) -> str:
    """Repeatable text that looks random: base64url of `size` bytes."""
    return _b64(shake_256(repr((seed, *parts)).encode()).digest(size))


def access_token(seed: int, grant: Grant, issued: float, expires: float) -> str:
    """A new access token of a grant."""
    claims = {
        "ver": 1,
        "iss": "https://identity.constantcontact.com/oauth2/default",
        "aud": "https://api.cc.email/v3",
        "iat": int(issued),
        "exp": ceil(expires),
        "cid": grant.client_id,
        "uid": grant.user,
        "scp": grant.scope.split(),
        "jti": random_text(seed, "jti", grant.number, grant.renewals, size=_PADDING),
    }
    header = {"kid": "sandbox", "typ": "JWT", "alg": "RS256"}
    text = f"{_b64(orjson.dumps(header))}.{_b64(orjson.dumps(claims))}"
    return f"{text}.{_signature(seed, text)}"


def claims_of(seed: int, token: str) -> dict[str, object] | None:
    """What an access token says; None if this server did not sign it."""
    text, _, signature = token.rpartition(".")
    if not token.isascii() or not compare_digest(signature, _signature(seed, text)):
        return None
    part = text.partition(".")[2]
    claims: dict[str, object] = orjson.loads(urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return claims


def _signature(seed: int, text: str) -> str:
    return random_text(seed, "signature", text, size=64)


def _b64(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()
