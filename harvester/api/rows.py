"""Rows as the API sent them: split, checked and compacted without ever becoming numbers.

orjson and json would turn 1.10 into 1.1 and 2**64 into a float; `msgspec.Raw` leaves every row as
the bytes it came in. It is strict about JSON, but for two things seen to here: it does not look
at UTF-8, and it refuses a lone surrogate escape, which JSON allows.
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import msgspec

from harvester.errors import Unreadable

_STRING_OR_BLANKS = re.compile(rb'("[^"\\]*+(?:\\.[^"\\]*+)*+")|[ \t\r\n]+', re.DOTALL)
_BLANKS = (b" ", b"\n", b"\t", b"\r")
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


@dataclass(frozen=True, slots=True)
class ExpectedIds:
    """Whose the rows are: the two fields that say so, and what they must say where they are."""

    id_field: str
    id: str
    type_field: str
    type: str

    @property
    def start(self) -> bytes:
        """How every row of an ordinary page begins."""
        return f'{{"{self.type_field}":"{self.type}","{self.id_field}":"{self.id}",'.encode()


def to_ndjson(
    rows: Sequence[bytes | msgspec.Raw],
    *,
    dense: bool,
    owner: ExpectedIds | None = None,
) -> bytes:
    """One compact record a line. `dense` says that the body had no blank in it at all.

    Raise `Unreadable` unless all are objects, and of that owner where they say one.
    """
    if not rows:
        return b""
    # With an empty last one, for that is a copy less than adding the newline.
    lines = b"\n".join((*rows, b"")) if dense else _compact(rows)
    if owner is not None:
        start = owner.start  # one look at all of it settles everything
        if lines.startswith(start) and lines.count(b"\n" + start) == len(rows) - 1:
            return lines
        _check_objects(lines, len(rows))
        _check_owner(lines, owner)
    else:
        _check_objects(lines, len(rows))
    return lines


def is_dense(body: bytes) -> bool:
    """Whether there is no blank in a body, between tokens or in a string."""
    return not any(blank in body for blank in _BLANKS)


def check_utf8(body: bytes) -> bytes:
    """The body without a byte order mark; raise `Unreadable` if it is not UTF-8."""
    if not body.isascii():
        try:
            body.decode()
        except UnicodeDecodeError as wrong:
            raise Unreadable(f"not UTF-8 at byte {wrong.start}", status=200) from None
    return body.removeprefix(b"\xef\xbb\xbf")


def has_surrogates(body: bytes) -> bool:
    """Whether the slow, exact reader has to have a look: a surrogate escape is in it."""
    return _SURROGATE.search(body) is not None


def members(body: bytes) -> dict[str, str]:
    """The members of an object, each value as the very text it had; the last of a name wins."""
    text = body.decode()
    return {str(json.loads(key)): value for key, value in _pairs(text)}


def elements(array: str) -> list[bytes]:
    """The elements of an array, each as the bytes it had."""
    if not array.startswith("["):
        raise ValueError("not an array")
    return [value.encode() for value in _values(array)]


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


_json = json.JSONDecoder(parse_constant=_refuse_constant)
_blank = re.compile(r"[ \t\r\n]*")


def _skip(text: str, at: int) -> int:
    found = _blank.match(text, at)
    return found.end() if found else at


def _value(text: str, at: int) -> tuple[str, int]:
    """The value that starts at or after `at`, and where the next token starts."""
    start = _skip(text, at)
    _, end = _json.raw_decode(text, start)
    return text[start:end], _skip(text, end)


def _pairs(text: str) -> Iterator[tuple[str, str]]:
    at = _open(text, "{")
    while text[at : at + 1] != "}":
        if text[at : at + 1] != '"':
            raise ValueError("a name is missing")
        key, at = _value(text, at)
        if text[at : at + 1] != ":":
            raise ValueError("a colon is missing")
        value, at = _value(text, at + 1)
        yield key, value
        at = _next(text, at, "}")
    _close(text, at)


def _values(text: str) -> Iterator[str]:
    at = _open(text, "[")
    while text[at : at + 1] != "]":
        value, at = _value(text, at)
        yield value
        at = _next(text, at, "]")
    _close(text, at)


def _open(text: str, bracket: str) -> int:
    at = _skip(text, 0)
    if text[at : at + 1] != bracket:
        raise ValueError(f"no {bracket}")
    return _skip(text, at + 1)


def _next(text: str, at: int, bracket: str) -> int:
    """Past the comma to the next item, or to the closing bracket."""
    if text[at : at + 1] == bracket:
        return at
    if text[at : at + 1] != ",":
        raise ValueError("a comma is missing")
    at = _skip(text, at + 1)
    if text[at : at + 1] == bracket:
        raise ValueError("a comma too many")
    return at


def _close(text: str, at: int) -> None:
    if _skip(text, at + 1) != len(text):
        raise ValueError("something follows the end")


def _compact(rows: Sequence[bytes | msgspec.Raw]) -> bytes:
    """The rows as lines, without the blanks between their tokens; strings and numbers untouched."""
    joined = b"\0".join((*rows, b""))  # JSON has no NUL, so it is no blank of theirs
    if b'\\"' not in joined:
        # Every quote begins or ends a string, so what stands outside of strings is every second
        # piece; there are few different ones.
        pieces = joined.split(b'"')
        pieces[::2] = map(_Blankless().__getitem__, pieces[::2])
        return b'"'.join(pieces).replace(b"\0", b"\n")
    return b"".join(
        _STRING_OR_BLANKS.sub(lambda found: found[1] or b"", bytes(row)) + b"\n" for row in rows
    )


class _Blankless(dict[bytes, bytes]):
    """Pieces of JSON between strings, without blanks."""

    def __missing__(self, piece: bytes) -> bytes:
        self[piece] = found = piece.translate(None, b" \t\r\n")
        return found


def _check_objects(lines: bytes, count: int) -> None:
    if not lines.startswith(b"{") or lines.count(b"\n{") != count - 1:
        raise Unreadable("a row is not an object", status=200)


def _check_owner(lines: bytes, owner: ExpectedIds) -> None:
    """Raise `Unreadable` if a row names another campaign or type. An id may be an integer, and
    either may be absent."""
    decoder = _decoder(owner.id_field, owner.type_field)
    for line in lines.split(b"\n")[:-1]:
        try:
            found = decoder.decode(line)
            whose, kind = found.id, found.type
        except msgspec.DecodeError:  # a lone surrogate, or an id that is neither text nor integer
            members = json.loads(line, parse_int=str)  # of any length; an id is compared as text
            whose, kind = members.get(owner.id_field), members.get(owner.type_field)
        if whose is not None and str(whose).lower() != owner.id:
            raise Unreadable("a row belongs to another campaign", status=200)
        if kind is not None and kind != owner.type:
            raise Unreadable("a row belongs to another report", status=200)


@cache
def _decoder(id_field: str, type_field: str) -> msgspec.json.Decoder[Any]:
    """Reads the two fields of a row that tell its owner, as `id` and `type`."""
    row = msgspec.defstruct(
        "Row",
        [("id", str | int | None, None), ("type", str | None, None)],
        rename={"id": id_field, "type": type_field},
    )
    return msgspec.json.Decoder(row)
