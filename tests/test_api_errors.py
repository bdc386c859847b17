"""What an answer means: the table of the contract, row by row."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from harvester.api.errors import classify_response, excerpt
from harvester.errors import (
    CampaignError,
    CursorDropped,
    Forbidden,
    HarvestError,
    QuotaExceeded,
    ServerTrouble,
    Throttled,
    TryAgain,
    Unauthorized,
    Unreadable,
)

QPS = "mashery.not.authorized.over.qps"
DAY = "mashery.not.authorized.over.ratelimit"


def body(key: str, text: str = "why") -> bytes:
    """An error body as v2 sends it."""
    return json.dumps([{"error_key": key, "error_message": text}]).encode()


def judged(status: int, raw: bytes = b"", *, page: int = 1, **headers: str) -> HarvestError:
    """The verdict on an answer."""
    named = CIMultiDict({name.replace("_", "-"): value for name, value in headers.items()})
    return classify_response(status, named, raw, page=page)


@pytest.mark.parametrize("raw", [b"", b"<h1>Developer Over Qps</h1>", b"{}"])
@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("ERR_403_DEVELOPER_OVER_QPS", Throttled),
        ("ERR_403_DEVELOPER_OVER_RATE", QuotaExceeded),
        ("ERR_403_DEVELOPER_INACTIVE", Forbidden),
        ("", Forbidden),
    ],
)
def test_the_gateway_may_tell_in_a_header(raw: bytes, code: str, kind: type) -> None:
    """Where the body is not the API's; what the API says itself goes before it."""
    assert type(judged(403, raw, X_Mashery_Error_Code=code)) is kind
    assert type(judged(403, body(QPS), X_Mashery_Error_Code=code)) is Throttled


@pytest.mark.parametrize("first", [{"error_key": "x"}, {}, 7, None])
def test_a_limit_is_found_among_several_errors(first: object) -> None:
    """Wherever it stands in the array; without one the first error counts."""
    raw = json.dumps([first, {"error_key": QPS, "error_message": "why"}]).encode()
    assert type(judged(403, raw)) is Throttled
    raw = json.dumps([first, {"error_key": "y"}]).encode()
    assert type(judged(403, raw)) is Forbidden


@pytest.mark.parametrize(
    ("status", "key", "kind"),
    [
        (401, "http.status.authentication.invalid_token", Unauthorized),
        (401, QPS, Throttled),
        (401, DAY, QuotaExceeded),
        (403, QPS, Throttled),
        (403, "throttled", Throttled),
        (429, "throttled", Throttled),
        (429, "", Throttled),
        (429, "anything", Throttled),
        (403, DAY, QuotaExceeded),
        (403, "quota_exceeded", QuotaExceeded),
        (429, "quota_exceeded", QuotaExceeded),
        (429, DAY, QuotaExceeded),
        (403, "mashery.not.authorized.inactive", Forbidden),
        (403, "", Forbidden),
        (408, "", ServerTrouble),
        (500, "", ServerTrouble),
        (502, "", ServerTrouble),
        (503, QPS, ServerTrouble),
        (599, "", ServerTrouble),
        (201, "", Unreadable),
        (204, "", Unreadable),
        (206, "", Unreadable),
    ],
)
def test_each_answer_has_one_meaning(status: int, key: str, kind: type[HarvestError]) -> None:
    """Status and error key decide, on a first page as on a later one."""
    raw = body(key) if key else b""
    for number in (1, 2):
        found = judged(status, raw, page=number)
        assert type(found) is kind
        if isinstance(found, TryAgain):
            assert (found.status, found.retry_after) == (status, None)


@pytest.mark.parametrize(
    ("status", "page", "kind"),
    [
        (404, 1, "not_found"),
        (400, 1, "rejected"),
        (410, 1, "rejected"),
        (405, 1, "rejected"),
        (406, 1, "rejected"),
        (406, 9, "rejected"),
        (418, 9, "rejected"),
        (300, 1, "redirected"),
        (301, 1, "redirected"),
        (302, 9, "redirected"),
        (304, 1, "redirected"),
        (308, 1, "redirected"),
    ],
)
def test_what_fails_one_campaign(status: int, page: int, kind: str) -> None:
    """A refusal of the question, or a redirect, is the campaign's own failure."""
    found = judged(status, body("some.key"), page=page)
    assert type(found) is CampaignError
    assert (found.kind, found.status) == (kind, status)


@pytest.mark.parametrize("status", [400, 404, 410])
@pytest.mark.parametrize("page", [2, 1_000])
def test_a_refused_cursor_is_not_a_missing_campaign(status: int, page: int) -> None:
    """400, 404 and 410 on a later page say that the cursor was dropped."""
    found = judged(status, body("gone.key"), page=page)
    assert isinstance(found, CursorDropped)
    assert (found.status, found.error_key) == (status, "gone.key")


def test_a_refused_key_is_refused_for_good() -> None:
    """A 403 that is about no limit: of the key, or of this campaign alone."""
    found = judged(403, body("mashery.not.authorized.inactive", "Not Authorized"))
    assert isinstance(found, Forbidden)
    assert "mashery.not.authorized.inactive: Not Authorized" in str(found)


@pytest.mark.parametrize("status", [401, 403, 429, 503])
def test_the_wait_travels_in_the_error(status: int) -> None:
    """Retry-After of any answer that may pass is in the error."""
    found = judged(status, body(QPS), Retry_After="7")
    assert isinstance(found, TryAgain)
    assert found.retry_after == 7.0


def test_the_longer_of_two_waits_and_the_servers_date_count() -> None:
    """All Retry-After headers are read, and a date is taken relative to Date."""
    headers = CIMultiDict(
        [
            ("Date", "Sun, 01 Mar 2026 12:00:00 GMT"),
            ("Retry-After", "3"),
            ("Retry-After", "Sun, 01 Mar 2026 12:01:00 GMT"),
        ]
    )
    found = classify_response(503, headers, b"", page=1)
    assert isinstance(found, TryAgain)
    assert found.retry_after == 60.0


@pytest.mark.parametrize(
    ("raw", "key", "text"),
    [
        (body("k", "t"), "k", "HTTP 500 k: t"),
        (b'{"error_key":"k","error_message":"t"}', "k", "HTTP 500 k: t"),
        (b'[{"error_key":"k"}]', "k", "HTTP 500 k"),
        (b'[{"error_message":"t"}]', None, "HTTP 500: t"),
        (b'[{"error_key":7,"error_message":[]}]', None, "HTTP 500"),
        (b'[{"error_key":"first"},{"error_key":"second"}]', "first", "HTTP 500 first"),
        (b"", None, "HTTP 500"),
        (b"[]", None, "HTTP 500"),
        (b"[[]]", None, "HTTP 500"),
        (b"7", None, "HTTP 500"),
        (b"<h1>Bad\n Gateway</h1>", None, "HTTP 500"),
        (b"\xff\x00\x1b[31mred", None, "HTTP 500"),
        (b'[{"error_key":"a\\u001bb\\nc"}]', "a b c", "HTTP 500 a b c"),
        (b"[" * 5_000, None, "HTTP 500"),
    ],
)
def test_error_bodies_of_every_shape_are_read(raw: bytes, key: str | None, text: str) -> None:
    """v2's array, v3's bare object, HTML, nothing: what can be said is said, and printable."""
    found = judged(500, raw)
    assert isinstance(found, TryAgain)
    assert (found.error_key, str(found)) == (key, text)


@given(st.binary(max_size=2_000))
def test_an_excerpt_is_short_and_printable(raw: bytes) -> None:
    """No body breaks a report's line or a terminal."""
    found = excerpt(raw)
    assert len(found) <= 200
    assert found.isprintable()


@given(st.integers(200, 599), st.binary(max_size=300), st.integers(1, 3))
def test_every_answer_means_something(status: int, raw: bytes, page: int) -> None:
    """No status and no body is without a verdict."""
    assert isinstance(judged(status, raw, page=page), HarvestError)


json_values: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["error_key", "error_message", "x"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(st.sampled_from([400, 401, 403, 404, 429, 500]), json_values)
def test_every_json_answer_means_something(status: int, value: Any) -> None:
    """JSON of any shape in the place of an error array is no surprise either."""
    assert isinstance(judged(status, json.dumps(value).encode()), HarvestError)
