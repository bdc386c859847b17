"""What the sign-in is asked, and what each of its answers means."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from harvester.api import oauth
from harvester.api.oauth import (
    DeviceCode,
    Passing,
    Pending,
    Rejected,
    Tokens,
    classify,
)

NOW = 1_800_000_000.0


def answer(status: int, body: Any, headers: dict[str, str] | None = None) -> oauth.Answer:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return classify(status, CIMultiDict(headers or {}), raw, now=NOW)


def tokens(**members: Any) -> Tokens:
    found = answer(200, {"access_token": "at", "refresh_token": "rt", **members})
    assert isinstance(found, Tokens)
    return found


def test_everything_stands_in_the_body_and_no_secret_is_needed() -> None:
    """The three forms of the vendor's page."""
    forms = [
        oauth.device_authorization("app"),
        oauth.device_poll("app", "dc"),
        oauth.refresh("app", "rt"),
    ]
    assert [form.path for form in forms] == [
        "/oauth2/default/v1/device/authorize",
        "/oauth2/default/v1/token",
        "/oauth2/default/v1/token",
    ]
    assert [dict(form.fields) for form in forms] == [
        {"client_id": "app", "scope": "campaign_data offline_access"},
        {
            "client_id": "app",
            "device_code": "dc",
            "grant_type": "urn:ietf:params:oauth:grant-type:device_code",
        },
        {"client_id": "app", "refresh_token": "rt", "grant_type": "refresh_token"},
    ]


@pytest.mark.parametrize(
    ("status", "body", "meaning"),
    [
        (400, {"error": "authorization_pending"}, Pending()),
        (400, {"error": "slow_down"}, Pending(slow_down=True)),
        (429, {"error": "slow_down"}, Pending(slow_down=True)),
        (400, {"error": "access_denied"}, Rejected("access_denied", "HTTP 400 access_denied")),
        (400, {"error": "expired_token"}, Rejected("expired_token", "HTTP 400 expired_token")),
        (400, {"error": "invalid_grant"}, Rejected("invalid_grant", "HTTP 400 invalid_grant")),
        (401, {"error": "invalid_grant"}, Rejected("invalid_grant", "HTTP 401 invalid_grant")),
        (
            401,
            {"error": "invalid_client", "error_description": "No  such\nclient"},
            Rejected("invalid_client", "HTTP 401 invalid_client: No such client"),
        ),
        (
            400,
            {"errorCode": "E0000021", "errorSummary": "Bad request"},
            Rejected("E0000021", "HTTP 400 E0000021: Bad request"),
        ),
        (400, {"error": "temporarily_unavailable"}, Passing("HTTP 400 temporarily_unavailable")),
        (400, b"<html>", Passing("HTTP 400")),
        (400, {"error": 7}, Passing("HTTP 400")),
        (400, [], Passing("HTTP 400")),
        (302, b"", Passing("HTTP 302")),
        (500, {"error": "invalid_grant"}, Passing("HTTP 500 invalid_grant")),
        (408, b"", Passing("HTTP 408")),
        (200, b"<html>", Passing("HTTP 200 without tokens")),
        (200, b"", Passing("HTTP 200 without tokens")),
        (200, {"access_token": ""}, Passing("HTTP 200 without tokens")),
        (200, {"access_token": "a b"}, Passing("HTTP 200 without tokens")),
        (200, {"access_token": None}, Passing("HTTP 200 without tokens")),
        (200, {"device_code": "dc"}, Passing("HTTP 200 without tokens")),
    ],
)
def test_each_answer_has_one_meaning(status: int, body: Any, meaning: oauth.Answer) -> None:
    """A 4xx of OAuth decides; whatever is not readable may pass."""
    assert answer(status, body) == meaning


def test_the_gateways_429_may_pass_when_it_says() -> None:
    """Its own body, and Retry-After in seconds."""
    body = {"errorCode": "E0000047", "errorSummary": "API call exceeded rate limit"}
    found = answer(429, body, {"Retry-After": "7"})
    assert found == Passing("HTTP 429 E0000047: API call exceeded rate limit", 7.0)
    assert isinstance(answer(400, body), Passing)


@pytest.mark.parametrize(
    ("expires_in", "life"),
    [
        (86_400, 86_400),
        ("3600", 3_600),
        (4, 4),
        (315_110_295, 315_110_295),
        (NOW + 500, 500),
        ((NOW + 500) * 1000, 500),
        (NOW - 500, 86_400),
        (0, 86_400),
        (-5, 86_400),
        (None, 86_400),
        (True, 86_400),
        ("soon", 86_400),
        ("nan", 86_400),
        (1e300, 86_400),
        ([], 86_400),
    ],
)
def test_a_life_is_seconds_a_moment_or_the_usual_day(expires_in: Any, life: float) -> None:
    """Over 1e9 it is a moment; what cannot be is the documented day."""
    assert tokens(expires_in=expires_in).expires_at == pytest.approx(NOW + life)


@pytest.mark.parametrize("given", [None, "", 5, "with blank", "ünïcode", "a\nb"])
def test_a_refresh_token_that_cannot_be_one_is_none(given: Any) -> None:
    """Then the one before is kept."""
    assert tokens(refresh_token=given).refresh_token is None


def test_a_device_code_with_and_without_the_code_in_its_link() -> None:
    """Any host of the vendor's; the times within reason."""
    whole = {
        "device_code": "dc",
        "user_code": "AB-CD",
        "verification_uri": "https://x.example/a",
        "verification_uri_complete": "https://x.example/a?user_code=AB-CD",
        "expires_in": 600,
        "interval": 5,
    }
    found = answer(200, whole)
    assert isinstance(found, DeviceCode)
    assert (found.link, found.code_in_link) == ("https://x.example/a?user_code=AB-CD", True)
    assert (found.expires_in_s, found.interval_s) == (600, 5)
    bare = {name: whole[name] for name in ("device_code", "user_code", "verification_uri")}
    found = answer(200, bare)
    assert isinstance(found, DeviceCode)
    assert (found.link, found.code_in_link) == ("https://x.example/a", False)
    assert (found.expires_in_s, found.interval_s) == (600, 5)
    found = answer(200, {**whole, "interval": 0, "expires_in": 1e12})
    assert isinstance(found, DeviceCode)
    assert (found.expires_in_s, found.interval_s) == (86_400, 5)


@pytest.mark.parametrize("link", ["javascript:alert(1)", "https://x/\x1b[2J", "file:///etc", 5])
def test_a_link_that_is_not_safe_to_show_is_refused(link: Any) -> None:
    """No terminal escapes, no other scheme."""
    body = {"device_code": "dc", "user_code": "AB", "verification_uri": link}
    assert isinstance(answer(200, body), Passing)


def test_no_repr_holds_a_secret() -> None:
    """Of forms and answers alike."""
    shown = [
        tokens(access_token="canary-1", refresh_token="canary-2"),
        answer(200, {"device_code": "canary", "user_code": "A", "verification_uri": "https://x"}),
        oauth.refresh("app", "canary"),
        oauth.device_poll("app", "canary"),
    ]
    assert "canary" not in repr(shown)


def test_what_is_quoted_is_short_printable_and_never_half_a_secret() -> None:
    """A word that would be cut is left out: what is whole can be scrubbed."""
    text = "x" * 190 + "canary-refresh-token\x1b[31m"
    found = classify(
        400,
        CIMultiDict(),
        json.dumps({"error": "invalid_grant", "error_description": text}).encode(),
        now=NOW,
    )
    assert isinstance(found, Rejected)
    assert "canary" not in found.text
    assert found.text.isprintable()
    assert len(found.text) < 250


@given(st.integers(100, 599), st.binary(max_size=200))
def test_no_bytes_make_it_raise(status: int, body: bytes) -> None:
    """Any status, any body."""
    classify(status, CIMultiDict({"Retry-After": "soon"}), body, now=NOW)


@given(
    st.sampled_from([200, 400, 401, 429]),
    st.dictionaries(
        st.sampled_from(
            [
                "access_token",
                "refresh_token",
                "expires_in",
                "scope",
                "device_code",
                "user_code",
                "verification_uri",
                "interval",
                "error",
                "error_description",
                "errorCode",
            ]
        ),
        st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.none()),
    ),
)
def test_no_json_makes_it_raise(status: int, body: dict[str, Any]) -> None:
    """Any value in any member."""
    classify(status, CIMultiDict(), json.dumps(body).encode(), now=NOW)
