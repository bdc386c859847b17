"""A page of any version, read exact to the byte: rows never become Python numbers.

orjson and json would turn 1.10 into 1.1 and 2**64 into a float. `msgspec.Raw` leaves each row as
the bytes it had.
"""

from contextlib import suppress
from functools import cache, lru_cache
from typing import Any, Literal, NamedTuple, TypeVar

import msgspec
from msgspec import Struct

from harvester.api.compact import read_compact, restored
from harvester.errors import Unreadable

T = TypeVar("T")
MOST_ROWS = 1_000
"""Rows that a page may have. The API is asked for 500 and sometimes gives one more."""
_MOST_MEMBERS = 1_000
_LARGE = 1 << 20  # bytes: ten times a page
_NULL = msgspec.Raw(b"null")
_ABSENT = msgspec.Raw(b"")


class Shape(Struct, frozen=True):
    """Where a page has its rows, and where its next link: `outer.inner.link`, if it is paged."""

    rows: str
    outer: str = ""
    inner: str = ""
    link: str = ""


class ExpectedIds(Struct, frozen=True, kw_only=True):
    """The two fields of a row that say where it belongs, and the value that each must have."""

    id_field: str
    id: str
    type_field: str
    type: str


class Rows(NamedTuple):
    """One compact record a line, how many they are, and the next link ("" and null are None)."""

    ndjson: bytes
    rows: int
    next_link: str | None


def read_rows(body: bytes, shape: Shape, expected: ExpectedIds | None = None) -> Rows:
    """Read a page. Raise `Unreadable` unless it has that shape, every row is an object and each
    belongs where it is expected, if it says where."""
    return read_compact(body, lambda compact: _read_rows(compact, shape, expected))


def with_owner(rows: bytes, **owner: str) -> bytes:
    """NDJSON whose rows do not say where they belong, each with these members after its own."""
    members, name = msgspec.json.encode(owner)[1:], b'"%s":' % next(iter(owner)).encode()
    return b"".join(
        (row if name in row else row[:-1] + (b"," if row != b"{}" else b"") + members) + b"\n"
        for row in rows.split(b"\n")[:-1]
    )


def read_record(record: bytes, decoder: msgspec.json.Decoder[T]) -> T:
    """Read some fields of a row, whatever else it holds. Raise `Unreadable` if they are not so."""
    return read_compact(record, decoder.decode)


def read_object(body: bytes, decoder: msgspec.json.Decoder[T]) -> T:
    """Read a body that is one object. Raise `Unreadable` if it is something else, or an error."""

    def read(compact: bytes) -> T:
        _members(compact)
        return decoder.decode(compact)

    return read_compact(body, read)


# -- the envelope --------------------------------------------------------------------------------


def _read_rows(body: bytes, shape: Shape, expected: ExpectedIds | None) -> Rows:
    found = _envelope(shape, large=len(body) > _LARGE).decode(body)
    rows = found.rows
    if not isinstance(rows, list):
        rows = [*filter(None, msgspec.structs.astuple(rows))]
    if len(rows) > MOST_ROWS:
        raise Unreadable(f"more than {MOST_ROWS} rows", cause="flood", status=200)
    lines = b"\n".join((*rows, b""))  # the empty one costs less than adding the last newline
    outer = found.outer if shape.link else None
    inner = outer.inner if outer else None
    link = bytes(inner.link) if inner else b""
    length, of_outer, of_inner, of_link = _lengths(shape)
    length += max(len(lines), 1) + len(link)
    length += of_outer if outer else 0
    length += of_inner if inner else 0
    length += of_link if link else 0
    if len(body) != length:  # a member stands there twice, or another one does
        _check_members(body, shape)
    _check_rows(lines, len(rows), expected)
    following = _link.decode(restored(link)) if link else None
    return Rows(restored(lines), len(rows), following or None)


@cache
def _lengths(shape: Shape) -> tuple[int, ...]:
    """What the members of a page add to the length of its rows as lines, which is that of the array
    but for one bracket: a comma for each newline but the last."""
    members = (f'{{"{shape.rows}":]}}', f',"{shape.outer}":{{}}', f'"{shape.inner}":{{}}')
    return (*map(len, members), len(f'"{shape.link}":'))


def _check_members(body: bytes, shape: Shape) -> None:
    """Raise where a page with other members than those it must have says a thing twice."""
    found = msgspec.Raw(body)
    for name in (shape.outer, shape.inner, ""):
        found = _members(found).get(name, _NULL)
        if bytes(found) == b"null":
            return


@cache
def _envelope(shape: Shape, *, large: bool) -> msgspec.json.Decoder[Any]:
    """Reads the rows and the next link of a shape, as `rows` and `outer.inner.link`. A link that is
    absent, null or empty at any level: the API has no more.

    A list would be built whole before its length is looked at: of 63 MB of `{},` 3.4 GB. So the
    rows of a large body are read into a struct: it has as many objects as fields, and what comes
    after them is skipped.
    """
    rows: Any = list[msgspec.Raw]
    if large:
        fields = [(f"row{number}", msgspec.Raw, _ABSENT) for number in range(MOST_ROWS + 1)]
        rows = msgspec.defstruct("FirstRows", fields, array_like=True)
    link, kind = ("link", msgspec.Raw, _ABSENT), msgspec.defstruct
    inner: Any = kind("Inner", [link], rename={"link": shape.link})
    outer: Any = kind("Outer", [("inner", inner | None, None)], rename={"inner": shape.inner})
    last = ("outer", outer | None if shape.link else msgspec.Raw, None)
    names = {"rows": shape.rows, "outer": shape.outer}
    return msgspec.json.Decoder(kind("Envelope", [("rows", rows), last], rename=names))


class _Name:
    """A name of a member, unlike every other one."""


def _members(raw: bytes | msgspec.Raw) -> dict[str, msgspec.Raw]:
    """The members of an object. Raise `Unreadable` if one stands there twice or is an error:
    readers would not agree on what such a page says."""
    names: list[str] = []

    def name(_: type, text: str) -> _Name:
        if len(names) == _MOST_MEMBERS:
            raise ValueError("too many members")
        names.append(text)
        return _Name()

    values = msgspec.json.decode(raw, type=dict[_Name, msgspec.Raw], dec_hook=name).values()
    members = dict(zip(names, values, strict=True))
    if "error_key" in members:
        raise ValueError("it holds an error_key")
    if len(members) != len(names):
        raise ValueError("a member stands there twice")
    return members


# -- the rows ------------------------------------------------------------------------------------


def _check_rows(lines: bytes, count: int, expected: ExpectedIds | None) -> None:
    """Raise unless all rows are objects and belong where they are expected. An id may be an integer
    or in capitals, and either field may be absent."""
    if expected is None:
        _objects.decode_lines(lines)
        return
    # The order of fields in which most pages come: one look at all rows is enough.
    start = (
        f'{{"{expected.type_field}":"{expected.type}","{expected.id_field}":"{expected.id}",'
    ).encode()
    if lines.startswith(start) and lines.count(b"\n" + start) == count - 1:
        return
    with suppress(msgspec.ValidationError):  # another spelling of the id, or another owner
        _rows_of(expected).decode_lines(lines)
        return
    rows = _rows(expected, str | int | None, str | None).decode_lines(lines)
    for found, kind in dict.fromkeys((row.id, row.type) for row in rows):
        if found is not None and str(found).lower() != expected.id:
            raise Unreadable("a row belongs to another campaign", status=200)
        if kind is not None and kind != expected.type:
            raise Unreadable("a row belongs to another report", status=200)


_link: msgspec.json.Decoder[str | None] = msgspec.json.Decoder(str | None)
_objects = msgspec.json.Decoder(msgspec.defstruct("Row", []))


@lru_cache(256)  # more than there are walks under way
def _rows_of(expected: ExpectedIds) -> msgspec.json.Decoder[Any]:
    """Refuses a row with other values, while it reads: a third less than to compare them here."""
    return _rows(expected, Literal[expected.id] | None, Literal[expected.type] | None)


def _rows(expected: ExpectedIds, id_: Any, type_: Any) -> msgspec.json.Decoder[Any]:
    """Reads those two fields of a row, as `id` and `type`."""
    fields = [("id", id_, None), ("type", type_, None)]
    names = {"id": expected.id_field, "type": expected.type_field}
    return msgspec.json.Decoder(msgspec.defstruct("Row", fields, rename=names, gc=False))
