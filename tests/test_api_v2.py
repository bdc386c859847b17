"""Version 2 on the wire: what is asked, and how a page is read."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from fakes import PATH, TARGET, credentials_of
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from harvester.api.next_link import utc_text
from harvester.api.v2 import V2
from harvester.api.vendor import LINKS
from harvester.api.vendor import V2_REPORTS as REPORTS
from harvester.errors import CampaignError, ConfigError, Unreadable
from harvester.model import Page, Target

API = V2()


def body(rows: str = "", *, meta: str | None = None) -> bytes:
    """A page as text, `meta` before the rows."""
    head = "" if meta is None else f'"meta":{meta},'
    return f'{{{head}"results":[{rows}]}}'.encode()


def read(raw: bytes) -> Page:
    """The page as the walk sees it."""
    return API.read_page(TARGET, PATH, raw)


# -- asking ------------------------------------------------------------------------------------


@pytest.mark.parametrize("good", ["0", "7", "1100394165287", "9" * 20])
def test_digits_are_an_id(good: str) -> None:
    """One to twenty of them, given back as they are."""
    assert API.check_id(good) == good


@pytest.mark.parametrize(
    "bad",
    [
        "", " 7", "7\n", "7 ", "-7", "+7", "7.0", "1_0", "9" * 21, "../7", "7/../8", "7%2F8",
        "\u0667", "\uff17", "\x007", "a", "7?x", "CON", "x" * 100_000,
    ],
)  # fmt: skip
def test_nothing_else_is_an_id(bad: str) -> None:
    """No path, no blank, no digit of another script; the message is short whatever came."""
    with pytest.raises(ConfigError, match=r"1 to 20 digits.*`api` v3") as caught:
        API.check_id(bad)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("since", "query"),
    [
        (None, "limit=500"),
        (datetime(2026, 1, 31, tzinfo=UTC), "limit=500&created_since=2026-01-31T00%3A00%3A00Z"),
    ],
)
def test_the_first_page_is_asked_with_limit_and_since(since: datetime | None, query: str) -> None:
    """Both belong to the first link; there is no secret in it."""
    assert API.first_link(TARGET, limit=500, since=since) == f"{PATH}?{query}"


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        (datetime(2026, 1, 31, 1, 2, 3, tzinfo=UTC), "2026-01-31T01:02:03Z"),
        (datetime(2026, 1, 31, 1, 2, 3, 4_000, tzinfo=UTC), "2026-01-31T01:02:03.004Z"),
        (datetime(2026, 1, 31, tzinfo=timezone(timedelta(hours=2))), "2026-01-30T22:00:00Z"),
    ],
)
def test_times_are_sent_in_utc(moment: datetime, text: str) -> None:
    """With Z, for a plus sign would be a blank in a query."""
    assert utc_text(moment) == text


def test_the_key_is_put_into_every_url_and_the_token_into_the_headers() -> None:
    """The key follows whatever query there is, escaped, at the API's own origin."""
    odd, plain = credentials_of("t", "k+/ &="), credentials_of("t", "k")
    signed = API.request(f"{PATH}?next=a%2Fb", odd)
    assert signed.url == f"{API.origin}{PATH}?next=a%2Fb&api_key=k%2B%2F%20%26%3D"
    assert signed.headers == {"Authorization": "Bearer t"}
    assert repr(signed) == "<SignedRequest>"
    assert API.request(PATH, plain).url == f"{API.origin}{PATH}?api_key=k"
    assert V2("http://127.0.0.1:1").request(PATH, plain).url.startswith("http://127.0.0.1:1/v2/")


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30))
def test_any_key_reaches_the_server_as_it_is(key: str) -> None:
    """A server that decodes the query finds the very key."""
    query = urlsplit(API.request(f"{PATH}?next=a", credentials_of("t", key)).url).query
    assert parse_qs(query, keep_blank_values=True) == {"next": ["a"], "api_key": [key]}


def test_each_tracking_report_can_be_asked_since_a_moment() -> None:
    """And is read back in pages that name its own type; the campaign's links are one page."""
    tracking = {name: report for name, report in REPORTS.items() if report.paged}
    assert set(REPORTS) - set(tracking) == {LINKS}
    moment = datetime(2026, 1, 31, tzinfo=UTC)
    for name, report in tracking.items():
        link = API.first_link(Target(name, "7"), limit=9, since=moment)
        assert f"/campaigns/7/tracking/{name}?limit=9&created_since=2026" in link
        row = f'{{"activity_type":"{report.row_type}","campaign_id":"7","{report.time_field}":"x"}}'
        assert API.read_page(Target(name, "7"), link, body(row)).rows == 1
        with pytest.raises(Unreadable, match="another report"):
            API.read_page(Target(name, "7"), link, body(row.replace("EMAIL_", "X_")))


@pytest.mark.parametrize(
    ("link", "kind"), [(f"{PATH}?limit=500", "not_found"), (f"{PATH}?next=a", "cursor_dropped")]
)
def test_a_404_means_what_its_link_asked(link: str, kind: str) -> None:
    """Without a cursor the campaign is not there; with one, the cursor is not."""
    found = API.classify_response(link, 404, CIMultiDict(), b"")
    assert isinstance(found, CampaignError)
    assert found.kind == kind


# -- reading -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "meta",
    [
        None,
        "null",
        "{}",
        '{"pagination":null}',
        '{"pagination":{}}',
        '{"pagination":{"next_link":null}}',
        '{"pagination":{"next_link":""}}',
        '{"pagination":{"next":"x"},"more":[1]}',
        '{"x":"\\ud83d\\ude00"}',
    ],
)
def test_the_end_is_an_absent_link(meta: str | None) -> None:
    """Absent, null or empty at any level: the API says there is no more."""
    assert read(body('{"a":1}', meta=meta)) == Page(b'{"a":1}\n', 1, None)


def test_a_page_with_a_link_goes_on() -> None:
    """Even an empty page with a link is not the last."""
    meta = f'{{"pagination":{{"next_link":"{PATH}?next=a%2Fb"}}}}'
    assert read(body(meta=meta)) == Page(b"", 0, f"{PATH}?next=a%2Fb")


def test_an_escaped_link_is_read_as_text() -> None:
    """Slashes may be escaped in JSON; the key the server echoes is taken out."""
    link = f"{PATH}?next=a&api_key=SECRET".replace("/", "\\/")
    assert read(body(meta=f'{{"pagination":{{"next_link":"{link}"}}}}')).next == f"{PATH}?next=a"


def test_the_older_path_of_a_next_link_is_followed() -> None:
    """The vendor's recorded answers have it; the link goes out as it came."""
    older = "/v2/emailcampaigns/7/tracking/opens"
    link = f"{older}?next=a"
    raw = body(meta=f'{{"pagination":{{"next_link":"{link}"}}}}')
    assert read(raw).next == link
    relative = body(meta='{"pagination":{"next_link":"?next=b"}}')
    assert API.read_page(TARGET, link, relative).next == f"{older}?next=b"


@pytest.mark.parametrize(("link", "kind"), [
    ("/v2/emailcampaigns/8/tracking/opens?next=a", "foreign_link"),
    ("https://evil.example/x?next=a", "foreign_link"), ("?next=a b", "bad_link"),
])  # fmt: skip
def test_a_link_that_cannot_be_followed_fails_the_campaign(link: str, kind: str) -> None:
    """It is the campaign's failure, not an unreadable page: asking again would not help."""
    with pytest.raises(CampaignError) as caught:
        read(body(meta=f'{{"pagination":{{"next_link":"{link}"}}}}'))
    assert caught.value.kind == kind


@pytest.mark.parametrize("surrogate", ["", ',"s":"\\ud800"'])
def test_rows_are_exact_by_either_reader(surrogate: str) -> None:
    """With a lone surrogate on the page the exact reader takes over; the rows are the same."""
    row = '{"n":123456789012345678901234567890,"m":1.10,"k":1e2,"a":1,"a":2,"u":"\u2028\\u0000\\/"'
    meta = f'{{"pagination":{{"next_link":"{PATH}?next=a"}}}}'
    found = read(body(f"{row}{surrogate}}}, {row}}}", meta=meta))
    assert found == Page(f"{row}{surrogate}}}\n{row}}}\n".encode(), 2, f"{PATH}?next=a")


def test_a_pretty_page_gives_plain_lines() -> None:
    """An indented page is the same page."""
    rows = [{"campaign_id": "7", "s": '{ "x" : 1 }', "n": [1, {"m": 2}]}, {"campaign_id": "7"}]
    link = f"{PATH}?next=a"
    whole = {"meta": {"pagination": {"next_link": link}}, "results": rows}
    lines = "".join(json.dumps(row, separators=(",", ":")) + "\n" for row in rows)
    for indent in (None, 1, "\t"):
        assert read(json.dumps(whole, indent=indent).encode()) == Page(lines.encode(), 2, link)


def test_the_results_may_come_first_and_unknown_members_pass() -> None:
    """The order of members means nothing, and what is new is no trouble."""
    raw = b'\xef\xbb\xbf {"x":[{}],"results":[{"a":1}],"meta":{"pagination":{}}} \n'
    assert read(raw) == Page(b'{"a":1}\n', 1, None)


DEEP = b"[" * 100_000


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b" ",
        b"<html>Bad Gateway</html>",
        b"null",
        b"[]",
        b"7",
        b'"results"',
        b"{}",
        b'{"meta":{}}',
        b'{"results":null}',
        b'{"results":{}}',
        b'{"results":"[]"}',
        b'{"results":[1]}',
        b'{"results":[null]}',
        b'{"results":[[]]}',
        b'{"results":[{}]',
        b'{"results":[{}]}x',
        b'{"results":[{}]}{"results":[]}',
        b'{"results":[{"a":NaN}]}',
        b'{"results":[{"a":01}]}',
        b'{"results":[{"a":"\n"}]}',
        b'{"results":[{"a":"\x00"}]}',
        b'{"results":[{"a":"\\x"}]}',
        b'{"results":[{"a":"\xff"}]}',
        b'{"results":[],"meta":[]}',
        b'{"results":[],"meta":{"pagination":[]}}',
        b'{"results":[],"meta":{"pagination":{"next_link":7}}}',
        b'{"results":[],"meta":{"pagination":{"next_link":"\\ud800"}}}',
        b'{"results":["\\ud800"]}',
        b'{"results":"\\ud800"}',
        b'{"x":"\\ud800"}',
        b'{"results":[{"a":"\\ud800"}],"meta":{"pagination":{"next_link":7}}}',
        b'{"results":[{"a":"\\ud800"},]}',
        b'{"results":[{"a":"\\ud800"}]',
        b'{"results":' + DEEP,
        b'{"results":[{"a":' + DEEP + b"]" * 100_000 + b"}]}",
        b'{"results":[{"a":"\\ud800","b":' + DEEP + b"]" * 100_000 + b"}]}",
    ],
    ids=lambda raw: repr(raw[:40]),
)
def test_what_is_no_page_is_unreadable(raw: bytes) -> None:
    """Never an empty page, never an end: the page is asked for again."""
    with pytest.raises(Unreadable) as caught:
        read(raw)
    assert caught.value.status == 200
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"", "the body is empty"),
        (b"<h1>Bad\nGateway</h1>", "invalid character"),
        ('{"error_key":"token"}'.encode("utf-16"), "not UTF-8"),
        (b'[{"error_key":"some.key","error_message":"why"}]', "some.key why"),
        (b'{"results":[{"email_address":"a@b.example"}', "truncated"),
    ],
)
def test_the_error_says_where_it_broke(raw: bytes, text: str) -> None:
    """It quotes an error entry and nothing else: a page holds people's data."""
    with pytest.raises(Unreadable, match=text) as caught:
        read(raw)
    for quoted in ("a@b.example", "Gateway", "token", "t\0o"):
        assert quoted not in str(caught.value)


# -- around the reports ------------------------------------------------------------------------

LINK_TARGET = Target("links", "7")


def test_a_campaigns_links_are_one_page() -> None:
    """Asked without a limit; each link a record; nothing follows."""
    assert API.first_link(LINK_TARGET, limit=500, since=None) == "/v2/emailmarketing/campaigns/7"
    raw = b'{"id":"7","name":"x","click_through_details":[{"url": "a b"},{"url_uid":1.10}]}'
    assert API.read_page(LINK_TARGET, "", raw) == Page(
        b'{"url":"a b","campaign_id":"7"}\n{"url_uid":1.10,"campaign_id":"7"}\n', 2, None
    )
    empty = b'{"id":7,"click_through_details":[]}'
    assert API.read_page(LINK_TARGET, "", empty) == Page(b"", 0, None)
    assert API.read_page(LINK_TARGET, "", b'{"id":7}') == Page(b"", 0, None)
    lone = b'{"id":"7","name":"\\ud800","click_through_details":[{"url":"\\ud800"}]}'
    assert API.read_page(LINK_TARGET, "", lone) == Page(
        b'{"url":"\\ud800","campaign_id":"7"}\n', 1, None
    )
    bare = b'{"id":7,"click_through_details":[{},{"campaign_id":7}]}'
    assert API.read_page(LINK_TARGET, "", bare).ndjson == (
        b'{"campaign_id":"7"}\n{"campaign_id":7}\n'
    )


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"<html>",
        b"[]",
        b"{}",
        b'{"error":"x"}',
        b'{"id":"8","click_through_details":[]}',
        b'{"id":"8","id":"7","click_through_details":[]}',
        b'{"id":"7","click_through_details":[],"error_key":"x"}',
        b'{"id":"7","click_through_details":{}}',
        b'{"id":"7","click_through_details":null}',
        b'{"id":"7","click_through_details":[1]}',
        b'{"id":"7","click_through_details":[' + DEEP,
    ],
    ids=lambda raw: repr(raw[:60]),
)
def test_what_is_no_campaign_has_not_no_links(raw: bytes) -> None:
    """Another shape, or another campaign, is never a campaign without links."""
    with pytest.raises(Unreadable):
        API.read_page(LINK_TARGET, "", raw)


def test_the_campaign_list_is_asked_by_status() -> None:
    """And from a change on, where one is given."""
    link = "/v2/emailmarketing/campaigns?status=SENT&limit=50"
    assert API.campaigns_link(status="SENT", modified_since=None) == link
    since = datetime(2026, 1, 31, tzinfo=UTC)
    assert API.campaigns_link(status="SENT", modified_since=since) == (
        f"{link}&modified_since=2026-01-31T00%3A00%3A00Z"
    )


def test_the_campaign_list_is_read_like_a_report() -> None:
    """Rows as they are, and a next link within the list's own path."""
    raw = (
        b'{"meta":{"pagination":{"next_link":"/v2/emailmarketing/campaigns?next=a"}},'
        b'"results":[{"id":"7","name":"x y"},{"id":8}]}'
    )
    found = Page(b'{"id":"7","name":"x y"}\n{"id":8}\n', 2, "/v2/emailmarketing/campaigns?next=a")
    assert API.read_campaigns("", raw) == found


def test_the_lists_older_path_is_followed() -> None:
    """As it came; a campaign's own path is not the list's."""
    raw = '{"meta":{"pagination":{"next_link":"%s?next=a"}},"results":[{"id":7,"name":"\\ud800"}]}'
    older = "/v2/emailcampaigns"
    assert API.read_campaigns("", (raw % older).encode()).next == f"{older}?next=a"
    with pytest.raises(CampaignError):
        API.read_campaigns("", (raw % f"{older}/7").encode())


@pytest.mark.parametrize("row", ['{"name":"x"}', '{"id":null}', '{"id":"../7"}', '{"id":[]}', "7"])
def test_a_listed_campaign_has_an_id(row: str) -> None:
    """One that can be asked for: else the page is unreadable."""
    with pytest.raises(Unreadable):
        API.read_campaigns("", f'{{"results":[{row}]}}'.encode())


@pytest.mark.parametrize(
    ("raw", "found"),
    [
        (b'{"opens":7,"clicks":0,"unknown":3}', {"opens": 7, "clicks": 0}),
        (b'{"opens":"7","clicks":1.5,"sends":null,"bounces":-1}', {}),
        (b"{}", {}),
        (b"null", {}),
    ],
)
def test_a_summary_gives_the_counts_it_has(raw: bytes, found: dict[str, int]) -> None:
    """Whole numbers of the reports we know; nothing is made of anything else."""
    detail = API.read_detail("7", b'{"id":7,"tracking_summary":%s}' % raw)
    assert detail.counts is not None
    assert detail.counts.recipients == found


@pytest.mark.parametrize(
    "raw",
    [
        *(b"", b"[]", b"<html>", b"7", b"{}", b'{"id":8}', b'{"a":' + DEEP),
        *(b'{"id":7,"tracking_summary":{},"tracking_summary":{}}', b'{"id":7,"error_key":"x"}'),
    ],
)
def test_what_is_no_detail_is_unreadable(raw: bytes) -> None:
    """Asked for again, like any page."""
    with pytest.raises(Unreadable):
        API.read_detail("7", raw)


# -- against an exact JSON reader --------------------------------------------------------------

ROW = '{"activity_type":"EMAIL_OPEN","campaign_id":"7","n":1.10,"big":18446744073709551616}'
ODD = '{"campaign_id":"7","s":"\\u00e9\\/\\\\ \u20ac","e":1e2,"a":{"b":[1,null,true]},"a":"{ }"}'
NEXT = f'{{"pagination":{{"next_link":"{PATH}?next=aB%2F9&x=1"}}}}'
PLAIN = body(f"{ROW},{ODD},{ROW}", meta=NEXT)
LONE = body(f'{ROW},{{"s":"\\ud800","t":"x y"}}', meta=NEXT)
PRETTY = body(f"{ROW} ,\n {ODD}", meta=NEXT).replace(b',"', b' ,\n\t"')


def _refuse(name: str) -> Any:
    raise ValueError(name)


def exactly(text: str) -> Any:
    """A value with every number as its text and every object as the list of its pairs."""
    return json.loads(
        text,
        parse_int=lambda digits: ("number", digits),
        parse_float=lambda digits: ("number", digits),
        parse_constant=_refuse,
        object_pairs_hook=lambda pairs: ("object", pairs),
    )


def member(value: Any, name: str) -> Any:
    """The last member of that name in an exact object; None if it is not there."""
    if value is None:
        return None
    assert value[0] == "object"
    return dict(value[1]).get(name)


def agrees(raw: bytes) -> bool:
    """Whether a body that we take is one that an exact reader takes, and gives the same.

    Raises if it is not; False if we refuse the body.
    """
    try:
        found = read(raw)
    except (Unreadable, CampaignError):
        return False
    whole = exactly(raw.decode().removeprefix("\ufeff"))
    lines = found.ndjson.decode().split("\n")[:-1]
    assert [exactly(line) for line in lines] == member(whole, "results")
    assert found.rows == len(lines)
    assert not any(blank in line for line in lines for blank in "\n\r\t")
    link = member(member(member(whole, "meta"), "pagination"), "next_link")
    assert (found.next or None) == (link or None) or found.next in (link or "")
    return True


@pytest.mark.parametrize("raw", [PLAIN, LONE, PRETTY])
def test_the_sample_pages_are_pages(raw: bytes) -> None:
    """What the following tests damage is whole to begin with."""
    assert agrees(raw)


@pytest.mark.parametrize("raw", [PLAIN, LONE, PRETTY], ids=["plain", "lone", "pretty"])
def test_no_prefix_of_a_page_is_a_page(raw: bytes) -> None:
    """A page cut at any byte is unreadable."""
    assert not any(agrees(raw[:length]) for length in range(len(raw)))


@pytest.mark.parametrize("raw", [PLAIN, LONE, PRETTY], ids=["plain", "lone", "pretty"])
@pytest.mark.parametrize("change", [lambda b: b ^ 1, lambda b: b ^ 0x80, lambda b: 0x22,
                                    lambda b: 0x5C, lambda b: 0, lambda b: 0x7D])  # fmt: skip
def test_any_byte_changed_is_an_error_or_what_it_says(
    raw: bytes, change: Callable[[int], int]
) -> None:
    """At every place: refused, or exactly the rows and the link that an exact reader finds."""
    for place, byte in enumerate(raw):
        agrees(raw[:place] + bytes([change(byte)]) + raw[place + 1 :])


@given(st.sampled_from([PLAIN, LONE, PRETTY]), st.data())
def test_a_damaged_page_is_an_error_or_what_it_says(raw: bytes, data: st.DataObject) -> None:
    """One byte changed, dropped or added anywhere: refused, or read as an exact reader does."""
    place = data.draw(st.integers(0, len(raw) - 1))
    put = data.draw(st.binary(max_size=2))
    agrees(raw[:place] + put + raw[place + data.draw(st.integers(0, 2)) :])


fragments = st.sampled_from(
    ['"results":', '"meta":', '"pagination":', '"next_link":', "{", "}", "[", "]", ",", ":",
     '"a"', '"\\ud800"',
     '"x y"', "1.10", "01", "-", "null", "NaN", " ", "\n", '"campaign_id":"7"', '"\\u00']
)  # fmt: skip


@given(st.lists(fragments, max_size=14).map("".join))
def test_a_patchwork_is_an_error_or_what_it_says(text: str) -> None:
    """Nor is anything misread that is put together from a page's own pieces."""
    agrees(text.encode())
    agrees(f'{{"results":[{{{text}}}]}}'.encode())
    agrees(f'{{"results":[{text}]}}'.encode())
