"""A body as strict JSON without a blank between tokens, every token as it came.

`msgspec.json.format` takes those blanks out and changes nothing else. msgspec is strict about JSON,
with two exceptions: it does not check UTF-8, and it refuses a lone surrogate escape, which JSON
allows. Such a body is read with marks in the place of its backslashes.
"""

import codecs
import re
from collections.abc import Callable
from typing import TypeVar

import msgspec

from harvester.api.errors import read_error
from harvester.errors import Unreadable

T = TypeVar("T")
_CHUNK = 1 << 14  # bytes
# Two bytes that UTF-8 never has, for the backslash of a surrogate escape and for the two of an
# escaped backslash.
_ESCAPE, _BACKSLASH = b"\xff", b"\xfe"
_SURROGATE = rb"\\u[dD]"
_NO_SURROGATE = rb"\xff(?!u[dD][0-9a-fA-F]{3})"
# A blank between tokens stands next to one of these signs, or to another such blank.
_SIGNS = b":,{}[]"
_BETWEEN = re.compile(rb" (?:(?<=[:,{}\[\]] )|[:,{}\[\]])")
_FEW = 64  # blanks
# `UnicodeDecodeError` (a name, a link or an id with a mark in it) is a `ValueError`.
_WRONG = (msgspec.DecodeError, ValueError, RecursionError)


def read_compact(body: bytes, read: Callable[[bytes], T]) -> T:
    """What `read` makes of the compact body, with marks in it only where there is no other way."""
    try:
        _check_utf8(body)
        text = body.removeprefix(codecs.BOM_UTF8)
        try:
            return read(_compact(text))
        except msgspec.DecodeError:
            if not re.search(_SURROGATE, text):
                raise
            return read(_compact(_masked(text)))
    except _WRONG as wrong:
        raise _unreadable(wrong, body) from None


def _unreadable(wrong: Exception, body: bytes) -> Unreadable:
    entry = read_error(body)
    if entry.key is not None:
        text = f"an error inside a 200: {entry.key} {entry.text}".rstrip()
        return Unreadable(text, status=200, error_key=entry.key)
    if not body:
        return Unreadable("the body is empty", status=200)
    match wrong:
        case RecursionError():
            why = "it is nested too deeply"
        case UnicodeDecodeError():
            why = "a text is not UTF-8"
        case _:
            why = str(wrong)  # of msgspec: what and where, no value
    return Unreadable(f"not the documented answer: {why}", status=200)


def _compact(body: bytes) -> bytes:
    """The body without a blank between tokens. Most blanks are those within names and messages."""
    if b"\n" in body or b"\t" in body or b"\r" in body or _has_blank_between(body):
        return msgspec.json.format(body, indent=-1)
    return body


def _has_blank_between(body: bytes) -> bool:
    """Whether a blank stands next to a sign of JSON. To look at a few one by one is faster than the
    regular expression."""
    at = -1
    for _ in range(_FEW):
        if (at := body.find(b" ", at + 1)) < 0:
            return False
        if body[at - 1] in _SIGNS or body[at + 1 : at + 2] in _SIGNS:
            return True
    return _BETWEEN.search(body, at + 1) is not None


def _check_utf8(body: bytes) -> None:
    """In pieces that stay in the cache: text takes up to four times the memory of its bytes."""
    view, at = memoryview(body), len(body) if body.isascii() else 0
    while at < len(body):
        at += codecs.utf_8_decode(view[at : at + _CHUNK], "strict", at + _CHUNK >= len(body))[1]


def _masked(body: bytes) -> bytes:
    """The body with marks for the backslashes of surrogate escapes.

    Escaped backslashes are marked first, from the left, in pairs: a backslash that is left begins
    an escape.
    """
    body = body.replace(b"\\\\", _BACKSLASH * 2)
    body = body.replace(b"\\ud", _ESCAPE + b"ud").replace(b"\\uD", _ESCAPE + b"uD")
    if re.search(_NO_SURROGATE, body):
        raise ValueError("JSON is malformed: invalid escape")
    return body


def restored(raw: bytes | msgspec.Raw) -> bytes:
    """A piece of a body that may have marks, as it came."""
    return bytes(raw).replace(_ESCAPE, b"\\").replace(_BACKSLASH, b"\\")
