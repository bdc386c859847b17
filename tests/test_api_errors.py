"""What an answer means: the table of the contract, row by row."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from harvester.api.errors import classify_response, read_error
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


def classified(
    status: int, raw: bytes = b"", *, has_cursor: bool = False, **headers: str
) -> HarvestError:
    """The error that an answer stands for."""
    named = CIMultiDict({name.replace("_", "-"): value for name, value in headers.items()})
    link = "/v2/x?next=a" if has_cursor else "/v2/x?limit=500"
    return classify_response(link, status, named, raw)


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
    assert type(classified(403, raw, X_Mashery_Error_Code=code)) is kind
    assert type(classified(403, body(QPS), X_Mashery_Error_Code=code)) is Throttled


@pytest.mark.parametrize("first", [{"error_key": "x"}, {}, 7, None])
def test_a_limit_is_found_among_several_errors(first: object) -> None:
    """Wherever it stands in the array; without one the first error counts."""
    raw = json.dumps([first, {"error_key": QPS, "error_message": "why"}]).encode()
    assert type(classified(403, raw)) is Throttled
    raw = json.dumps([first, {"error_key": "y"}]).encode()
    assert type(classified(403, raw)) is Forbidden


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
        (500, DAY, ServerTrouble),
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
    for has_cursor in (False, True):
        found = classified(status, raw, has_cursor=has_cursor)
        assert type(found) is kind
        if isinstance(found, TryAgain):
            assert (found.status, found.retry_after) == (status, None)


@pytest.mark.parametrize(
    ("status", "has_cursor", "kind"),
    [
        (404, False, "not_found"),
        (400, False, "rejected"),
        (410, False, "rejected"),
        (405, False, "rejected"),
        (406, False, "rejected"),
        (406, True, "rejected"),
        (418, True, "rejected"),
        (300, False, "redirected"),
        (301, False, "redirected"),
        (302, True, "redirected"),
        (304, False, "redirected"),
        (308, False, "redirected"),
    ],
)
def test_what_fails_one_campaign(status: int, has_cursor: bool, kind: str) -> None:
    """A refusal of the request, or a redirect, is the campaign's own failure."""
    found = classified(status, body("some.key"), has_cursor=has_cursor)
    assert type(found) is CampaignError
    assert (found.kind, found.status) == (kind, status)


@pytest.mark.parametrize("status", [400, 404, 410])
def test_a_refused_cursor_is_not_a_missing_campaign(status: int) -> None:
    """400, 404 and 410 on a later page say that the cursor was dropped."""
    found = classified(status, body("gone.key"), has_cursor=True)
    assert isinstance(found, CursorDropped)
    assert (found.status, found.error_key) == (status, "gone.key")


def test_a_refused_key_is_refused_for_good() -> None:
    """A 403 that is about no limit: of the key, or of this campaign alone."""
    found = classified(403, body("mashery.not.authorized.inactive", "Not Authorized"))
    assert isinstance(found, Forbidden)
    assert "mashery.not.authorized.inactive: Not Authorized" in str(found)


@pytest.mark.parametrize("status", [401, 403, 429, 503])
def test_the_wait_travels_in_the_error(status: int) -> None:
    """Retry-After of any answer that may pass is in the error."""
    found = classified(status, body(QPS), Retry_After="7")
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
    found = classify_response("/v2/x", 503, headers, b"")
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
        ('{"error_key":"k","error_message":"t"}'.encode("utf-16"), None, "HTTP 500"),
        (b'{"error_key":"k","other":"secret"}', "k", "HTTP 500 k"),
    ],
)
def test_error_bodies_of_every_shape_are_read(raw: bytes, key: str | None, text: str) -> None:
    """v2's array, v3's bare object: of both only key and message are quoted; of others nothing."""
    found = classified(500, raw)
    assert isinstance(found, TryAgain)
    assert (found.error_key, str(found)) == (key, text)


@given(st.text(max_size=2_000), st.text(max_size=900))
def test_a_quote_is_short_and_printable(key: str, text: str) -> None:
    """Nothing in an error entry breaks a report's line or a terminal."""
    entry = read_error(json.dumps({"error_key": key, "error_message": text}).encode())
    for quote in (entry.key or "", entry.text):
        assert len(quote) <= 200
        assert quote.isprintable()


@given(st.text("ab \n\x00", max_size=300), st.integers(0, 900), st.booleans())
def test_a_quote_holds_a_secret_whole_or_not_at_all(before: str, filler: int, spaced: bool) -> None:
    """The caller takes secrets out of messages: it would not recognise half of one."""
    text = before + "x " * (filler // 2) + ("" if spaced else "y" * (filler % 7)) + "s3cr3t" * 9
    raw = json.dumps([{"error_key": text, "error_message": f"{text} {text}"}]).encode()
    entry = read_error(raw)
    for quote in (entry.key or "", entry.text):
        assert "s3cr3t" not in quote.replace("s3cr3t" * 9, "")


@pytest.mark.parametrize("order", ["utf-16-le", "utf-16-be"])
def test_a_secret_in_utf16_is_quoted_whole(order: str) -> None:
    """A blank in the place of each other half would hide it from what takes secrets out."""
    echoed = "canary-token-5678".encode(order).decode("latin-1")
    raw = json.dumps({"error_key": "key", "error_message": f"the token {echoed} is bad"}).encode()
    assert read_error(raw).text == "the token canary-token-5678 is bad"


def test_a_long_word_is_left_out_and_a_long_text_is_cut_between_words() -> None:
    """There the message ends."""
    raw = json.dumps({"error_key": "k" * 201, "error_message": "word " * 100}).encode()
    entry = read_error(raw)
    assert entry.key is None
    assert entry.text == " ".join(["word"] * 40)


@given(st.integers(200, 599), st.binary(max_size=300), st.booleans())
def test_every_answer_means_something(status: int, raw: bytes, has_cursor: bool) -> None:
    """No status and no body is without a meaning."""
    assert isinstance(classified(status, raw, has_cursor=has_cursor), HarvestError)


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
    assert isinstance(classified(status, json.dumps(value).encode()), HarvestError)
