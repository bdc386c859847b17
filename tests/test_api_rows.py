"""Rows exact to the byte: split, checked and compacted, never turned into numbers."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harvester.api import rows
from harvester.errors import Unreadable


def ndjson(found: list[bytes]) -> bytes:
    """The lines of a page of campaign 7's opens."""
    dense = rows.is_dense(b"".join(found))
    owner = rows.ExpectedIds("campaign_id", "7", "activity_type", "EMAIL_OPEN")
    return rows.to_ndjson(found, dense=dense, owner=owner)


EXACT = [
    b'{"n":123456789012345678901234567890}',
    b'{"n":-9223372036854775809,"m":18446744073709551616}',
    b'{"n":1.10,"m":0.10,"k":1e2,"l":1E+2,"j":-0.0}',
    b'{"a":1,"a":2}',
    b'{"":{},"b":[],"c":null,"d":true}',
    '{"s":"\u2028\u2029\u0085\x7f"}'.encode(),
    b'{"s":"\\u0000\\u001f"}',
    b'{"s":"\\/\\u002f\\""}',
    b'{"s":"\\ud83d\\ude00"}',
    b'{"s":"\\ud800"}',
    '{"\u00e9":"\U0001f600"}'.encode(),
]


@pytest.mark.parametrize("row", EXACT)
def test_a_row_is_kept_to_the_byte(row: bytes) -> None:
    """Numbers, escapes, duplicate keys and odd characters come out as they went in."""
    assert ndjson([row, row]) == (row + b"\n") * 2


def test_no_rows_are_no_lines() -> None:
    """An empty page is empty, not an empty line."""
    assert ndjson([]) == b""


@pytest.mark.parametrize("blank", [" ", "\n", "\r\n", "\t", " \n\t\r "])
def test_blanks_between_tokens_go(blank: str) -> None:
    """A pretty-printed row becomes one line; what is inside strings and numbers stays."""
    row = '{@"a b"@:@1.10@,@"s"@:@"x  {\\"y\\" : 1, }\\\\"@,@"l"@:@[@1@,@2@]@}'
    pretty = row.replace("@", blank).encode()
    assert ndjson([pretty]) == row.replace("@", "").encode() + b"\n"


@pytest.mark.parametrize(
    "text",
    [
        b'"{ \\"a\\" : 1 }"',
        b'"\\\\"',
        b'"\\\\\\" , "',
        b'"  "',
        b'" \\n "',
        b'""',
        b'"[ ] , : \\u0020"',
    ],
)
def test_strings_that_look_like_json_stay(text: bytes) -> None:
    """Blanks inside a string are the row's own, whatever the string looks like."""
    assert ndjson([b'{ "s" :\n%s }' % text]) == b'{"s":%s}\n' % text


def test_compacting_is_not_asked_for_a_row_without_blanks() -> None:
    """On one page, rows with and without blanks both come out right."""
    found = ndjson([b'{"a":1}', b'{"a": 2}', b'{"a":"x y"}'])
    assert found == b'{"a":1}\n{"a":2}\n{"a":"x y"}\n'


@pytest.mark.parametrize("row", [b"1", b"[]", b'"{}"', b"null", b"true", b'["{"]', b"[{}]"])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_row_that_is_no_object_is_unreadable(row: bytes, place: int) -> None:
    """Wherever it stands on the page."""
    found = [b'{"a":1}', b'{"a": 2}']
    found.insert(place, row)
    with pytest.raises(Unreadable, match="not an object"):
        ndjson(found)


@pytest.mark.parametrize(
    "row",
    [
        b'{"campaign_id":"7"}',
        b'{"campaign_id": "7"}',
        b'{"campaign_id":7}',
        b'{"campaign_id":null}',
        b'{"other":"campaign_id"}',
        b'{"campaign_id":"7","x":"\\ud800"}',
        b'{"campaign_id":"\\u0037"}',
        b'{"x":{"campaign_id":"8"}}',
        b'{"x":"\\"campaign_id\\":\\"8\\""}',
        b'{"campaign_id":7,"x":"\\ud800"}',
        b"{}",
    ],
)
def test_a_row_of_this_campaign_may_say_so_in_any_way(row: bytes) -> None:
    """As a string, as an integer, or not at all."""
    plain = b'{"campaign_id":"7"}'
    assert ndjson([plain, row]).count(b"\n") == 2


OTHERS = [
    b'{"activity_type":"EMAIL_OPEN","campaign_id":"7","contact_id":"1"}',
    b'{"campaign_id":"7"}',
    b'{"campaign_id":"7","activity_type":"EMAIL_OPEN"}',
    b'{"campaign_id":"7","activity_type":"EMAIL_OPEN","x":{"campaign_id":"7",'
    b'"activity_type":"EMAIL_OPEN"}}',
    b'{"campaign_id":7,"x":{"campaign_id":"7"}}',
]


@pytest.mark.parametrize(
    "row",
    [
        b'{"campaign_id":"8"}',
        b'{"campaign_id":8}',
        b'{"campaign_id":7.0}',
        b'{"campaign_id":["7"]}',
        b'{"campaign_id":true}',
        b'{"campaign_id":"07"}',
        b'{"campaign_id":"7","campaign_id":"8"}',
        b'{"campaign_id":"8","x":"\\ud800"}',
        b'{"campaign_id":123456789012345678901234567890}',
        b'{"campaign_id":8,"x":{"campaign_id":"7"}}',
    ],
)
def test_a_row_of_another_campaign_is_unreadable(row: bytes) -> None:
    """Rows that ended up with the wrong campaign are never kept, whatever else the page says."""
    for other in OTHERS:
        with pytest.raises(Unreadable, match="another campaign"):
            ndjson([other, row])


@pytest.mark.parametrize(
    "row",
    [
        b'{"activity_type":"EMAIL_CLICK"}',
        b'{"campaign_id":"7","activity_type":"EMAIL_CLICK"}',
        b'{"campaign_id":"7","activity_type":"","x":"\\ud800"}',
        b'{"campaign_id":"7","activity_type":7}',
        b'{"campaign_id":"7","activity_type":"EMAIL_CLICK","x":{"activity_type":"EMAIL_OPEN"}}',
    ],
)
def test_a_row_of_another_report_is_unreadable(row: bytes) -> None:
    """Clicks in the place of opens are never kept as opens."""
    for other in OTHERS:
        with pytest.raises(Unreadable, match="another report"):
            ndjson([other, row])


def test_a_number_of_any_length_is_no_surprise() -> None:
    """A number longer than Python converts is the row's own, whatever else is odd in the row."""
    row = b'{"campaign_id":7.5,"n":%s}' % (b"9" * 5_000)
    with pytest.raises(Unreadable):
        ndjson([row])


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (b"{}", b"{}"),
        (b"", b""),
        (b"\xef\xbb\xbf{}", b"{}"),
        ("{é}".encode(), "{é}".encode()),
    ],
)
def test_utf8_passes_and_a_mark_goes(body: bytes, found: bytes) -> None:
    """A byte order mark at the head is taken off; nothing else changes."""
    assert rows.check_utf8(body) == found


@pytest.mark.parametrize(
    "body", [b"\xff", b"\xe9t\xe9", b"\xed\xa0\x80", b"\xc0\xaf", b"\xf5\x80\x80\x80", b"\xe2\x82"]
)
def test_what_is_not_utf8_is_unreadable(body: bytes) -> None:
    """Latin-1, encoded surrogates, overlong and cut sequences: the error says where."""
    with pytest.raises(Unreadable, match="not UTF-8 at byte 3"):
        rows.check_utf8(b"abc" + body)


# -- the exact reader --------------------------------------------------------------------------


def test_members_are_the_text_they_had() -> None:
    """Each value keeps its spelling; escaped names are resolved; of two equal names the last."""
    body = b' { "a" : 1.10 , "\\u0062":[ 1 ], "c":"\\ud800","a":2e0 } '
    assert rows.members(body) == {"a": "2e0", "b": "[ 1 ]", "c": '"\\ud800"'}


def test_elements_are_the_bytes_they_had() -> None:
    """Each element keeps its spelling."""
    assert rows.elements('[ 1.10 , {"a": 1},"\\ud800" ]') == [b"1.10", b'{"a": 1}', b'"\\ud800"']
    assert rows.elements("[]") == rows.elements("[ \n]") == []
    assert rows.members(b"{}") == rows.members(b"{ }") == {}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"[]",
        b"{",
        b'{"a"',
        b'{"a":',
        b'{"a":1',
        b'{"a":1,}',
        b'{"a":1 "b":2}',
        b'{"a" 1}',
        b"{1:2}",
        b'{,"a":1}',
        b'{"a":01}',
        b'{"a":NaN}',
        b'{"a":[Infinity]}',
        b'{"a":1}x',
        b'{"a":1}{}',
        b'{"a":"\n"}',
        b"{'a':1}",
    ],
)
def test_what_is_no_object_is_refused(body: bytes) -> None:
    """The exact reader is as strict as the fast one."""
    with pytest.raises(ValueError, match=r"."):
        rows.members(body)


@pytest.mark.parametrize(
    "array", ["", "{}", "[", "[1", "[1,", "[1,]", "[,1]", "[1 2]", "[1]]", "[-]", " []"]
)
def test_what_is_no_array_is_refused(array: str) -> None:
    """Missing, doubled and trailing commas, and anything after the end."""
    with pytest.raises(ValueError, match=r"."):
        rows.elements(array)


@pytest.mark.parametrize(
    ("body", "has"),
    [(b'"\\ud83d\\ude00"', True), (b'"\\uDFFF"', True), (b'"\\u00d8"', False), (b'"ud800"', False)],
)
def test_surrogates_are_looked_for(body: bytes, has: bool) -> None:
    """Only an escape that names a surrogate calls the slow reader."""
    assert rows.has_surrogates(body) is has


json_values: Any = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=9,
)
objects = st.dictionaries(st.text(max_size=4), json_values, max_size=4)
LAYOUTS: list[dict[str, Any]] = [
    {"separators": (",", ":")},
    {"separators": (",", ":"), "ensure_ascii": False},
    {"indent": 2},
    {"indent": "\t", "ensure_ascii": False},
    {},
]


@given(st.lists(objects, max_size=4), st.sampled_from(LAYOUTS))
def test_a_page_of_any_layout_gives_the_same_rows(
    values: list[Any], layout: dict[str, Any]
) -> None:
    """However a row was laid out: one line each, nothing between tokens, the same value."""
    try:
        spelled = [json.dumps(value, **layout).encode() for value in values]
    except UnicodeEncodeError:  # a lone surrogate, unescaped: no body can hold it
        return
    compact = {**layout, "indent": None, "separators": (",", ":")}
    found = ndjson(spelled)
    assert found == b"".join(json.dumps(value, **compact).encode() + b"\n" for value in values)
