"""A page of any shape, exact to the byte: split, checked and compacted, never made into numbers."""

import json
import re
import tracemalloc
from collections.abc import Iterable
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from harvester.api.page import MOST_ROWS, ExpectedIds, Shape, read_object, read_rows
from harvester.errors import Unreadable

SHAPE = Shape("results", "meta", "pagination", "next_link")
EXPECTED = ExpectedIds(
    id_field="campaign_id", id="7", type_field="activity_type", type="EMAIL_OPEN"
)


def page(rows: Iterable[bytes]) -> bytes:
    """A page that has nothing but rows."""
    return b'{"results":[%s]}' % b",".join(rows)


def ndjson(rows: Iterable[bytes]) -> bytes:
    """The lines of a page of campaign 7's opens."""
    return read_rows(page(rows), SHAPE, EXPECTED).ndjson


# -- rows --------------------------------------------------------------------------------------

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
    b'{"s":"\\\\ud800 \\\\\\ud800\\\\","\\uDFFF":"\\ude00\\ud83d"}',
    b'{"s":"\\ud83d\\ude00\\ud83d","x y":"\\\\\\\\ud83d\\ude00"}',
    b'{"s":"ud800 \\u0000\\ud7ff\\n\\\\"}',
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


@pytest.mark.parametrize("within", [1, 61, 62, 63, 64, 200])
@pytest.mark.parametrize("blank", [" ", "  ", "\t", "\r\n"])
def test_a_single_blank_between_any_two_tokens_goes(blank: str, within: int) -> None:
    """Where all other blanks, few or many, are within strings."""
    text = "c d" + " e" * (within - 1)
    body = '@{@"results"@:@[@{@"a b"@:@"TEXT"@,@"l"@:@[@1@,@{@"x"@:@null@}@]@}@,@{@}@]@}@'
    places = body.replace("TEXT", text).split("@")
    for place in range(1, len(places)):
        spelled = "".join(places[:place]) + blank + "".join(places[place:])
        lines = read_rows(spelled.encode(), SHAPE).ndjson
        assert lines == f'{{"a b":"{text}","l":[1,{{"x":null}}]}}\n{{}}\n'.encode()


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


def test_rows_with_and_without_blanks_stand_on_one_page() -> None:
    """Both come out right."""
    found = ndjson([b'{"a":1}', b'{"a": 2}', b'{"a":"x y"}'])
    assert found == b'{"a":1}\n{"a":2}\n{"a":"x y"}\n'


@pytest.mark.parametrize("row", [b"1", b"[]", b'"{}"', b"null", b"true", b'["{"]', b"[{}]"])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_row_that_is_no_object_is_unreadable(row: bytes, place: int) -> None:
    """Wherever it stands on the page."""
    found = [b'{"a":1}', b'{"a": 2}']
    found.insert(place, row)
    with pytest.raises(Unreadable, match="Expected `object`"):
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
        b'{"campaign_id":"07"}',
        b'{"campaign_id":"7","campaign_id":"8"}',
        b'{"campaign_id":"8","x":"\\ud800"}',
        b'{"campaign_id":123456789012345678901234567890}',
        b'{"campaign\\u005fid":"8"}',
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
        b'{"activity\\u005ftype":"EMAIL_CLICK"}',
        b'{"campaign_id":"7","activity_type":"EMAIL_CLICK"}',
        b'{"campaign_id":"7","activity_type":"","x":"\\ud800"}',
        b'{"campaign_id":"7","activity_type":"EMAIL_CLICK","x":{"activity_type":"EMAIL_OPEN"}}',
    ],
)
def test_a_row_of_another_report_is_unreadable(row: bytes) -> None:
    """Clicks in the place of opens are never kept as opens."""
    for other in OTHERS:
        with pytest.raises(Unreadable, match="another report"):
            ndjson([other, row])


@pytest.mark.parametrize(
    "row",
    [
        b'{"campaign_id":7.0}',
        b'{"campaign_id":["7"]}',
        b'{"campaign_id":true}',
        b'{"campaign_id":"7","activity_type":7}',
        b'{"campaign_id":"7\\ud800"}',
        b'{"activity_type":"\\ud800"}',
    ],
)
def test_an_id_or_type_of_no_usable_kind_is_unreadable(row: bytes) -> None:
    """It cannot say where the row belongs."""
    for other in OTHERS:
        with pytest.raises(Unreadable, match=r"campaign_id|activity_type|UTF-8"):
            ndjson([other, row])


def test_a_number_of_any_length_is_no_surprise() -> None:
    """A number longer than Python converts is the row's own; as an id it is another campaign's."""
    row = b'{"n":%s}' % (b"9" * 5_000)
    assert ndjson([row]) == row + b"\n"
    with pytest.raises(Unreadable):
        ndjson([b'{"campaign_id":%s}' % (b"7" * 5_000)])


def test_capitals_in_an_id_are_the_same_id() -> None:
    """UUIDs come in both."""
    expected = ExpectedIds(id_field="a", id="ab", type_field="t", type="em_opens")
    row = b'{"x":1,"a":"AB","t":"em_opens"}'
    assert read_rows(page([row]), SHAPE, expected).ndjson == row + b"\n"
    with pytest.raises(Unreadable, match="another report"):
        read_rows(page([row.replace(b"em_opens", b"EM_OPENS")]), SHAPE, expected)


def test_rows_without_an_expected_owner_need_only_be_objects() -> None:
    """As in the campaign list."""
    assert read_rows(page([b'{"campaign_id":"8"}']), SHAPE).rows == 1
    with pytest.raises(Unreadable, match="Expected `object`"):
        read_rows(page([b"{}", b"8"]), SHAPE)


# -- bodies ------------------------------------------------------------------------------------


def test_a_byte_order_mark_is_no_part_of_the_page() -> None:
    """It is taken off at the head, and only there."""
    assert read_rows(b"\xef\xbb\xbf" + page([b"{}"]), SHAPE).rows == 1
    with pytest.raises(Unreadable):
        read_rows(page([b"{}\xef\xbb\xbf"]), SHAPE)


@pytest.mark.parametrize(
    "wrong", [b"\xff", b"\xfe", b"\xe9t\xe9", b"\xed\xa0\x80", b"\xc0\xaf", b"\xf5\x80\x80\x80"]
)
@pytest.mark.parametrize("lone", [b"", b"\\ud800"])
def test_what_is_not_utf8_is_unreadable(wrong: bytes, lone: bytes) -> None:
    """Latin-1, encoded surrogates and overlong sequences, also beside a surrogate escape."""
    with pytest.raises(Unreadable, match="not UTF-8"):
        ndjson([b'{"s":"%s%s"}' % (lone, wrong)])


def test_utf8_is_checked_across_pieces() -> None:
    """A long page is checked piece by piece; a character may lie across two of them."""
    for before in range(4):
        row = b'{"s":"%s%s"}' % (b"x" * before, "\U0001f600".encode() * 600_000)
        assert ndjson([row]) == row + b"\n"
        with pytest.raises(Unreadable, match="not UTF-8"):
            ndjson([row.replace(b'\x80"}', b'"}')])


@pytest.mark.parametrize(
    "escape", ["\\ud8", "\\udx00", "\\ud80", "\\uD8g0", "\\ud80\\ud800", "\\ud"]
)
def test_half_an_escape_is_unreadable(escape: str) -> None:
    """A surrogate escape is as long as any other."""
    for more in ("", "\\ud800", "\\\\"):
        with pytest.raises(Unreadable):
            ndjson([f'{{"s":"{more}{escape}"}}'.encode()])


@pytest.mark.parametrize("place", ['{"a":\\ud800}', "{\\ud800:1}", '{"a":1}\\ud800'])
def test_an_escape_outside_of_a_string_is_unreadable(place: str) -> None:
    """Nor does a mark in its place make it JSON."""
    with pytest.raises(Unreadable):
        ndjson([place.encode()])


# -- envelopes ---------------------------------------------------------------------------------


@pytest.mark.parametrize("lone", ["", ',"x":"\\ud800"'])
@pytest.mark.parametrize(
    "body",
    [
        '{"results":[{"a":1}],"results":[]%s}',
        '{"results":[],"results":[{"a":1}]%s}',
        '{"results":[{"a":1}],"r\\u0065sults":[]%s}',
        '{"meta":{"pagination":{"next_link":"?next=a"}},"results":[],"meta":{}%s}',
        '{"results":[],"meta":{"pagination":{"next_link":"?next=a"},"pagination":{}}%s}',
        '{"results":[],"meta":{"pagination":{"next_link":"?next=a","next_link":null}}%s}',
        '{"results":[],"x":1,"x":1%s}',
        '{ "results" : [] , "results" : [ ] %s}',
    ],
)
def test_a_member_that_stands_there_twice_is_unreadable(body: str, lone: str) -> None:
    """One reader takes the first and another the last: rows or the end would be lost."""
    with pytest.raises(Unreadable, match="twice"):
        read_rows((body % lone).encode(), SHAPE)


@pytest.mark.parametrize(
    "body",
    [
        '{"results":[],"error_key":"some.key","error_message":"why"}',
        '{"error_key":"some.key","error_message":"why","results":[{"a":1}],"meta":{}}',
        '{"error_key":"some.key","error_message":"why"}',
        '[{"error_key":"some.key","error_message":"why"}]',
        ' [ { "error_key" : "some.key" , "error_message" : "why" } ] ',
    ],
)
def test_an_error_inside_a_200_is_unreadable_and_named(body: str) -> None:
    """It is no empty page, and no end; what it says is quoted."""
    for read in (
        lambda raw: read_rows(raw, SHAPE),
        lambda raw: read_object(raw, msgspec.json.Decoder(dict[str, msgspec.Raw])),
    ):
        with pytest.raises(Unreadable, match=r"some\.key why") as caught:
            read(body.encode())
        assert caught.value.error_key == "some.key"


@pytest.mark.parametrize("value", ["7", "null", "{}", '"%s"' % ("k" * 300)])
def test_an_error_key_of_any_kind_is_an_error(value: str) -> None:
    """Also where it cannot be quoted."""
    with pytest.raises(Unreadable, match="error_key"):
        read_rows(f'{{"results":[],"error_key":{value}}}'.encode(), SHAPE)


def test_an_error_key_of_a_row_is_the_rows_own() -> None:
    """As is a name that stands there twice."""
    row = b'{"error_key":"x","results":[],"results":[1],"meta":1}'
    assert ndjson([row]) == row + b"\n"


def test_a_page_without_a_link_has_none() -> None:
    """Whatever else stands in it."""
    body = b'{"rows":[],"outer":{"":{"":"/x"}},"":{"":{"":"/x"}}}'
    assert read_rows(body, Shape("rows")).next_link is None


def test_unknown_members_pass() -> None:
    """Wherever they stand, whatever they hold; their names may have escapes."""
    body = b'{"x":[{}],"results":[{"a":1}],"caf\\u00e9":{"results":[]},"meta":{"more":1},"y":[]}'
    assert tuple(read_rows(body, SHAPE)) == (b'{"a":1}\n', 1, None)


@pytest.mark.parametrize(("link", "found"), [
    ('"a b"', "a b"), ('"\\/v2\\u003fx"', "/v2?x"), ('"\\ud83d\\ude00"', "\U0001f600"),
    ('""', None), ("null", None),
])  # fmt: skip
@pytest.mark.parametrize("row", ["", '{"s":"\\ud800"}', '{ "s" : "\\\\" }'])
def test_the_link_is_read_as_text(link: str, found: str | None, row: str) -> None:
    """Whatever the rows beside it hold."""
    body = f'{{"meta":{{"pagination":{{"next_link":{link}}}}},"results":[{row}]}}'
    assert read_rows(body.encode(), SHAPE).next_link == found


def test_a_page_of_another_shape_is_the_same_page() -> None:
    """Names are data; a shape without a link has one page."""
    v3 = Shape("tracking_activities", "_links", "next", "href")
    body = b'{"tracking_activities":[{"a":1}],"_links":{"next":{"href":"/x"}}}'
    assert tuple(read_rows(body, v3)) == (b'{"a":1}\n', 1, "/x")
    assert tuple(read_rows(body, Shape("tracking_activities"))) == (b'{"a":1}\n', 1, None)


# -- floods ------------------------------------------------------------------------------------


def test_a_page_may_have_more_rows_than_asked_but_not_any_number() -> None:
    """The API gives one more now and then; a thousand is still a page."""
    assert read_rows(page([b"{}"] * MOST_ROWS), SHAPE).rows == MOST_ROWS
    for row in (b"{}", b"{ }", b"1", b'{"s":"\\ud800"}'):
        with pytest.raises(Unreadable) as caught:
            read_rows(page([row] * (MOST_ROWS + 1)), SHAPE)
        assert caught.value.cause == "flood"


@pytest.mark.parametrize(
    "body",
    [
        page([b"{}"] * 1_000_000),
        page([b"{ }"] * 1_000_000),
        b'{"results":[],%s}' % b",".join(b'"%d":1' % number for number in range(300_000)),
        b'{"results":[],"meta":{%s}}' % b",".join(b'"%d":1' % n for n in range(300_000)),
    ],
    ids=["rows", "spaced rows", "members", "members of meta"],
)
def test_a_flood_costs_no_memory(body: bytes) -> None:
    """What a body of small pieces makes is bounded: objects are made for a thousand of them."""
    tracemalloc.start()
    try:
        with pytest.raises(Unreadable) as caught:
            read_rows(body, SHAPE)
        assert caught.value.cause == ("unreadable" if b":1," in body else "flood")
        assert tracemalloc.get_traced_memory()[1] < 3 * len(body) + 2_000_000
    finally:
        tracemalloc.stop()


# -- against the standard library --------------------------------------------------------------


class Exact(list[Any]):
    """An object as the pairs it had, in order, repeated names and all."""


def refuse(constant: str) -> Any:
    """NaN and its kin are no JSON."""
    raise ValueError(constant)


def exactly(text: str) -> Any:
    """JSON by the standard library with nothing lost: numbers as text, objects as pairs."""
    return json.loads(
        text,
        parse_int=lambda digits: ("number", digits),
        parse_float=lambda digits: ("number", digits),
        parse_constant=refuse,
        object_pairs_hook=Exact,
    )


def array(values: list[str]) -> str:
    """As JSON, `@` where a blank may be."""
    return "[@" + "@,@".join(values) + "@]"


def pairs(values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Objects; a name may stand there twice."""
    each = st.tuples(STRINGS, values).map("@:@".join)
    return st.lists(each, max_size=3).map(lambda members: "{@" + "@,@".join(members) + "@}")


STRINGS = st.lists(
    st.sampled_from(
        [*'aé{}[]:, \u2028\U0001f600\x7f', '\\"', "\\\\", "\\/", "\\n", "\\u0000", "\\u00e9",
         "ud800", "\\ud800", "\\uDFFF", "\\ud83d\\ude00", "\\uD7FF", "  ", "error_key"]
    ),
    max_size=6,
).map(lambda parts: '"' + "".join(parts) + '"')  # fmt: skip
NUMBERS = st.sampled_from(
    ["0", "-0", "7", "1.10", "1e2", "1E+2", "-0.0", "1e400", "18446744073709551616", "9" * 40]
)
VALUES = st.recursive(
    STRINGS | NUMBERS | st.sampled_from(["null", "true", "false"]),
    lambda inner: st.lists(inner, max_size=3).map(array) | pairs(inner),
    max_leaves=8,
)


BLANKS = re.compile(r'("[^"\\]*(?:\\.[^"\\]*)*")|[ \t\r\n]+', re.DOTALL)


@given(
    st.lists(pairs(VALUES), max_size=4),
    st.sampled_from(["", " ", "\n", "\r", "\t", "\r\n\t "]),
    st.sampled_from(["", ',@"meta"@:@{@"pagination"@:@{@"next_link"@:@"/x?a=\\u00e9"@}@}']),
    st.sampled_from(["", ',@"x"@:@[@{}@]']),
    st.booleans(),
)
@example(["{@}"], "\r", "", "", True)
@example(['{"\\ud800":"\\\\\\ud800"}'], " ", "", "", False)
def test_every_row_comes_out_as_it_went_in(
    rows: list[str], blank: str, meta: str, more: str, mark: bool
) -> None:
    """Whatever JSON a page is made of, however it is laid out: no page is refused, each row is one
    line without a blank between tokens, and every other byte of it is the one that came."""
    text = f'{{@"results"@:@{array(rows)}{meta}{more}@}}'.replace("@", blank)
    body = (b"\xef\xbb\xbf" if mark else b"") + text.encode()
    found = read_rows(body, SHAPE, EXPECTED)
    expected = [BLANKS.sub(lambda match: match[1] or "", row.replace("@", "")) for row in rows]
    assert found.ndjson.decode() == "".join(f"{row}\n" for row in expected)
    assert found.rows == len(rows)
    assert found.next_link == ("/x?a=é" if meta else None)
    truth = dict(exactly(text))["results"]
    assert [exactly(line) for line in found.ndjson.decode().split("\n")[:-1]] == truth


@given(
    st.lists(pairs(VALUES).map(lambda row: row.replace("@", "")), min_size=1, max_size=3),
    st.data(),
)
def test_a_damaged_page_is_refused_or_read_as_it_stands(
    rows: list[str], data: st.DataObject
) -> None:
    """One place changed: the standard library reads the same rows, or the page is refused."""
    raw = page(row.encode() for row in rows)
    place = data.draw(st.integers(0, len(raw) - 1))
    put = data.draw(
        st.sampled_from([b"", b'"', b"\\", b"{", b"]", b",", b"u", b"\xff", b"\0", b" "])
    )
    raw = raw[:place] + put + raw[place + data.draw(st.integers(0, 1)) :]
    try:
        found = read_rows(raw, SHAPE, EXPECTED)
    except Unreadable:
        return
    truth = dict(exactly(raw.decode()))["results"]
    assert [exactly(line) for line in found.ndjson.decode().split("\n")[:-1]] == truth


NAMES = st.sampled_from(["campaign_id", "activity_type", "x", "campaign\\u005fid"])
IDS = st.sampled_from(
    ['"7"', "7", '"8"', "null", '"EMAIL_OPEN"', '"EMAIL_CLICK"', "[]", '"\\ud800"', "7.0"]
)


@given(st.lists(st.tuples(NAMES, IDS), max_size=3), st.booleans())
def test_ids_are_checked_as_the_standard_library_reads_them(
    row: list[tuple[str, str]], first: bool
) -> None:
    """A row is refused exactly if its last id or type, where there is one, is another."""
    text = "{" + ",".join(f'"{name}":{value}' for name, value in row) + "}"
    usual = '{"activity_type":"EMAIL_OPEN","campaign_id":"7","contact_id":"1"}'
    members = json.loads(text)
    fine = members.get("campaign_id") in ("7", 7, None) and not isinstance(
        members.get("campaign_id"), float
    )
    fine = fine and members.get("activity_type") in ("EMAIL_OPEN", None)
    repeated = len(members) != len(row)
    try:
        ndjson([each.encode() for each in ((text, usual) if first else (usual, text))])
    except Unreadable:
        assert not fine or repeated  # an unusable value is refused also where another follows it
    else:
        assert fine
