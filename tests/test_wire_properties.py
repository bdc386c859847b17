"""Properties of the wire: cursors go out as they came in; a damaged page is exact or an error."""

import asyncio
import gzip
import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import quote

import pytest
from faultserver import Answer, Question, World, framed, gzipped, page, serving
from hypothesis import example, given, settings
from hypothesis import strategies as st

from harvester import HarvestConfig, harvest
from harvester import Page as PublicPage
from harvester.api.v2 import V2
from harvester.client import walk
from harvester.errors import HarvestError
from harvester.model import Page, Target
from harvester.request.body import inflate

API = V2("http://127.0.0.1:1")
TARGET = Target("opens", "7")
CAP = 1 << 20

# -- cursors ---------------------------------------------------------------------------------

# A blank, a control character, a backslash and a fragment's mark make no request; see LINKS in
# test_wire_faults. Everything else may be in a cursor.
cursor_characters = st.one_of(
    st.sampled_from("%2Ff+=&;/?:@!$'()*,~-._\"<>[]{}|^`0aZ"),
    st.characters(exclude_categories=["Cs"], exclude_characters="\\#\x7f", min_codepoint=0x21),
)
cursors = st.lists(
    st.text(cursor_characters, min_size=1, max_size=40).filter(
        lambda text: "api_key" not in text and "access_token" not in text
    ),
    min_size=1,
    max_size=8,
    unique=True,
)


def on_the_wire(cursor: str) -> str:
    """ASCII as it is; the rest as a request line can carry it, in percent-encoded UTF-8."""
    return "".join(char if char.isascii() else quote(char) for char in cursor)


async def asked_for(chain: list[str]) -> list[str]:
    """The queries that a walk along a chain of cursors sends, as the server saw their bytes."""
    rest = iter(chain)

    def script(question: Question) -> Answer:
        cursor = next(rest, None)
        link = f"{question.path}?next={cursor}" if cursor is not None else None
        return Answer(gzipped(page([], link)))

    async with serving(script) as server:
        with TemporaryDirectory() as root:
            config = server.config(Path(root))
            pages: list[PublicPage] = [found async for found in walk("7", config)]
        assert len(pages) == len(chain) + 1
        return [Question(head).query for head in server.heads]


@settings(deadline=None, max_examples=60)
@given(cursors)
@example(["a%2Fb%2fc", "a+b", "a%2Bb", "a=b==", "a&b=c", "a;b", "%", "%%zz", "..%2F..", "?", "&"])
@example(["é", "日本", "\u2028", "\U0001f600", "\x85", "ﾃ", "e\u0301", "\u202e"])
@example(['"', "<>", "{}|^`", "[]", "'", "~", "*", "$", "@:", "//evil.example/", "%00", "%0d%0a"])
def test_cursor_is_sent_byte_for_byte(chain: list[str]) -> None:
    """A cursor goes back to the server as the very bytes that its next link had."""
    asked = asyncio.run(asked_for(chain))
    assert asked == [
        "limit=500&api_key=the-api-key",
        *(f"next={on_the_wire(cursor)}&api_key=the-api-key" for cursor in chain),
    ]


# -- damaged pages ---------------------------------------------------------------------------

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=12),
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=6,
)
rows = st.lists(
    st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=6), values).map(
        lambda row: {**row, "campaign_id": "7"}
    ),
    max_size=4,
)
links = st.sampled_from(
    [None, "/v2/emailmarketing/campaigns/7/tracking/opens?next=bmV4dDox", "?next=a%2Fb"]
)


@st.composite
def page_bodies(draw: st.DrawFn) -> bytes:
    """An honest page, in one of the ways in which JSON can be written."""
    body = {"meta": {"pagination": {"next_link": draw(links)}}, "results": draw(rows)}
    style: dict[str, Any] = draw(
        st.sampled_from([{"separators": (",", ":")}, {}, {"indent": 2}, {"ensure_ascii": False}])
    )
    return json.dumps(body, **style).encode("utf-8", "surrogatepass")


def read(body: bytes) -> Page | None:
    """The page, or None if it is refused."""
    try:
        return API.read_page(TARGET, "", body)
    except HarvestError:
        return None


def read_compressed(stream: bytes) -> Page | None:
    """The page in a gzip stream, or None if it is refused."""
    try:
        body = inflate(stream, cap=CAP)
    except HarvestError:
        return None
    return read(body)


@given(page_bodies(), st.data())
def test_changed_byte_of_a_compressed_page_gives_the_same_rows_or_an_error(
    body: bytes, data: st.DataObject
) -> None:
    """One byte of a gzip stream changed anywhere never changes a row."""
    stream = gzip.compress(body, mtime=0)
    at = data.draw(st.integers(0, len(stream) - 1))
    changed = bytearray(stream)
    changed[at] ^= data.draw(st.integers(1, 255))
    assert read_compressed(bytes(changed)) in (None, read(body))


def test_each_bit_of_a_compressed_page_matters_or_is_an_error() -> None:
    """Every single bit of a real page flipped in turn: the same rows or an error."""
    honest = read(World().body("7", 1))
    stream = gzip.compress(World().body("7", 1), mtime=0)
    assert honest is not None
    assert read_compressed(stream) == honest
    refused = 0
    for at in range(len(stream)):
        for bit in range(8):
            changed = bytearray(stream)
            changed[at] ^= 1 << bit
            found = read_compressed(bytes(changed))
            refused += found is None
            assert found in (None, honest)
    assert refused > 8 * (len(stream) - 10)


async def test_changed_bytes_over_the_wire_give_the_same_file_or_none(tmp_path: Path) -> None:
    """The same over the wire: a campaign with a changed byte is right, or it has no file."""
    world = World(pages=1)
    length = len(gzip.compress(world.body("100", 1), mtime=0))
    places = {str(n): at for n, at in enumerate(range(0, length, 4), start=100)}

    def script(question: Question) -> Answer:
        changed = bytearray(gzip.compress(world.body(question.campaign, 1), mtime=0))
        changed[places[question.campaign]] ^= 0x55
        return Answer(framed(bytes(changed), "Content-Encoding: gzip"))

    async with serving(script) as server:
        config: HarvestConfig = server.config(tmp_path)
        report = await harvest(list(places), config)
        assert report.exit_code == 3
        assert report.quota.used_today == len(server.heads) == len(places)
        finished = list((tmp_path / "out/opens").glob("*.ndjson"))
        assert len(finished) + report.campaigns.failed == len(places)
        for file in finished:
            assert file.read_bytes() == world.file(file.stem)


# -- against an exact reader -----------------------------------------------------------------


class Exact(list[Any]):
    """An object as the pairs it had, in order, repeated names and all."""


def refuse(constant: str) -> Any:
    raise ValueError(constant)


def exactly(text: bytes) -> Any:
    """JSON by the standard library with nothing lost: numbers as text, objects as pairs."""
    return json.loads(
        text.decode("utf-8-sig"),
        parse_int=lambda digits: ("number", digits),
        parse_float=lambda digits: ("number", digits),
        parse_constant=refuse,
        object_pairs_hook=Exact,
    )


def member(pairs: Any, name: str) -> Any:
    """The last member of a name; None if there is none."""
    return dict(pairs).get(name) if isinstance(pairs, Exact) else None


def check_against_exact(body: bytes) -> Page | None:
    """Read a body in both ways: refused, or the rows and the link of the exact reader."""
    found = read(body)
    if found is None:
        return None
    truth = exactly(body)  # raises, and so fails the test, if this is no JSON at all
    lines = found.ndjson.split(b"\n")
    assert lines.pop() == b""
    assert [exactly(line) for line in lines] == member(truth, "results")
    assert found.rows == len(lines)
    link = member(member(member(truth, "meta"), "pagination"), "next_link")
    assert bool(found.next) == bool(link)
    return found


@given(page_bodies())
def test_honest_page_is_read_as_an_exact_reader_reads_it(body: bytes) -> None:
    """Whatever values a page holds and however it is laid out, every row comes through exactly."""
    assert check_against_exact(body) is not None


@given(page_bodies(), st.data())
def test_changed_byte_of_a_plain_page_gives_exactly_its_rows_or_an_error(
    body: bytes, data: st.DataObject
) -> None:
    """A page with one byte changed, inserted or removed is refused, or read exactly as it is."""
    at = data.draw(st.integers(0, len(body) - 1))
    new = data.draw(st.binary(max_size=2))
    check_against_exact(body[:at] + new + body[at + data.draw(st.integers(0, 2)) :])


# Numbers that other readers spoil, and things that only look like numbers.
NUMBERS = ["1.10", "1e2", "-0", "-0.0", "1E400", "0.1e-7", "18446744073709551616", "9" * 30]
NO_NUMBERS = ["01", "1.", ".5", "+1", "--1", "0x1", "1_0", "NaN", "Infinity", "-", "1e", "1 2"]


@pytest.mark.parametrize("number", NUMBERS)
def test_number_stands_in_the_output_as_it_was_written(number: str) -> None:
    """No number is rounded, shortened or turned into another kind."""
    found = check_against_exact(b'{"results":[{"n":%s}]}' % number.encode())
    assert found is not None
    assert found.ndjson == b'{"n":%s}\n' % number.encode()


@pytest.mark.parametrize("number", NO_NUMBERS)
def test_what_only_looks_like_a_number_is_refused(number: str) -> None:
    """What JSON does not call a number makes its page unreadable, on either reader's way."""
    for more in ("", ',"lone":"\\ud800"'):
        assert read(f'{{"results":[{{"n":{number}{more}}}]}}'.encode()) is None


# -- answers that do not say what they are -----------------------------------------------------

LIES = {
    "100": (b'{"results":[{"campaign_id":"100"}],"results":[]}', "unreadable", None),
    "101": (
        b'{"meta":{"pagination":{"next_link":"?next=a"}},"results":[],"meta":{}}',
        "unreadable",
        None,
    ),
    "102": (b'{"results":[],"error_key":"some.key"}', "unreadable", "some.key"),
    "103": (b'[{"error_key":"some.key","error_message":"why"}]', "unreadable", "some.key"),
    "104": (b'{"error_key":"some.key"}', "unreadable", "some.key"),
    "105": (b'{"results":[%s]}' % b",".join([b"{}"] * 300_000), "flood", None),
    "106": ('{"error_key":"the-access-token"}'.encode("utf-16"), "unreadable", None),
}


async def test_answers_that_lie_cost_one_campaign_each_and_leave_no_file(tmp_path: Path) -> None:
    """Doubled members, errors inside a 200, floods: never an empty page, never an end."""
    world = World(pages=2)

    def script(question: Question) -> Answer:
        if question.campaign in LIES:
            return Answer(gzipped(LIES[question.campaign][0]))
        return world.honest(question)

    async with serving(script) as server:
        report = await harvest([*LIES, "7", "8"], server.config(tmp_path))
        assert (report.exit_code, report.campaigns.complete) == (3, 2)
    files = {path.name: path.read_bytes() for path in (tmp_path / "out/opens").glob("*")}
    assert files == {"7.ndjson": world.file("7"), "8.ndjson": world.file("8")}
    lines = (tmp_path / "out/errors.ndjson").read_text().splitlines()
    errors = {error["campaign_id"]: error for error in map(json.loads, lines)}
    assert {name: error["kind"] for name, error in errors.items()} == {
        name: kind for name, (_, kind, _) in LIES.items()
    }
    assert {name: error["error_key"] for name, error in errors.items()} == {
        name: key for name, (_, _, key) in LIES.items()
    }
    assert "t\\u0000o\\u0000k" not in "".join(lines)


async def test_next_links_of_the_older_path_are_followed_as_they_are(tmp_path: Path) -> None:
    """The vendor's recorded answers have them; the file is the same."""
    world = World(pages=3)
    asked: list[str] = []

    def script(question: Question) -> Answer:
        asked.append(question.path)
        body = world.body("7", question.page)
        return Answer(
            gzipped(body.replace(b"/v2/emailmarketing/campaigns/", b"/v2/emailcampaigns/"))
        )

    async with serving(script) as server:
        report = await harvest(["7"], server.config(tmp_path))
    assert report.exit_code == 0
    assert (tmp_path / "out/opens/7.ndjson").read_bytes() == world.file("7")
    assert asked == [
        "/v2/emailmarketing/campaigns/7/tracking/opens",
        "/v2/emailcampaigns/7/tracking/opens",
        "/v2/emailcampaigns/7/tracking/opens",
    ]
