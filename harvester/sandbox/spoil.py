"""What a fault makes of a good answer, where that is a different answer.

Faults of the wire itself live in the server.
"""

from dataclasses import replace
from typing import Final

from .answers import (
    NOT_FOUND,
    OVER_DAY,
    OVER_RATE,
    UNAUTHENTICATED,
    Answer,
    Body,
    bad_request,
    refusal,
    with_retry_after,
)
from .chance import draw, number_of
from .faults import status_of
from .settings import SandboxSettings

_HTML: Final = (
    b"<!DOCTYPE html>\n<html><head><title>Sorry</title></head>"
    b"<body><h1>We'll be right back</h1></body></html>\n"
)
_WRONG_SHAPES: Final = (
    b"[]",
    b"null",
    b"{}",
    b'"ok"',
    b'{"meta":{"pagination":{}}}',
    b'{"meta":{"pagination":{}},"results":null}',
    b'{"meta":{"pagination":{}},"results":{"0":{}}}',
    b'{"meta":{"pagination":{}},"results":[1,"two",null]}',
    b'{"meta":{"pagination":{"next_link":["/v2/"]}},"results":[]}',
)
_RESULTS: Final = b'"results":['


_INSTEAD: Final = {
    "throttle": OVER_RATE,
    "throttle429": Answer(429, Body(b"Too Many Requests"), "text/plain"),
    "quota": OVER_DAY,
    "auth": UNAUTHENTICATED,
    "html": Answer(200, Body(_HTML), "text/html"),
    "empty": Answer(200, Body(b"")),
}
_MAY_WAIT: Final = frozenset({"throttle", "throttle429", "quota", "error503"})


def spoiled(answer: Answer, kind: str, target: str, settings: SandboxSettings) -> Answer:
    """What is said instead of `answer` to a request hit by `kind`.

    `target` is the path, with the cursor, that leads to this very page.
    """
    spoilt = _INSTEAD.get(kind) or _other(answer, kind, target, settings)
    return with_retry_after(spoilt, settings.retry_after) if kind in _MAY_WAIT else spoilt


def _other(answer: Answer, kind: str, target: str, settings: SandboxSettings) -> Answer:
    if (status := status_of(kind)) is not None:
        return refusal(status, f"http.status.{status}", "Simulated by the sandbox")
    match kind:
        case "cursor_dropped":
            return _dropped(settings.dropped_status)
        case "wrong_shape":
            chosen = draw(settings.seed, number_of(target)) % len(_WRONG_SHAPES)
            return Answer(200, Body(_WRONG_SHAPES[chosen]))
        case "redirect":
            there = {"Location": settings.foreign_origin + target}
            return Answer(302, Body(b""), "text/html", there)
        case "loop":
            return _relinked(answer, target)
        case "foreign_link":
            return _relinked(answer, settings.foreign_origin + target)
    return answer


def _dropped(status: int) -> Answer:
    if status == 404:
        return NOT_FOUND
    if status == 410:
        return refusal(410, "http.status.gone", "The cursor has expired")
    return bad_request("The value of next is not valid")


def _relinked(answer: Answer, link: str) -> Answer:
    """The same rows with another next link. Anything but a page stays what it is."""
    _, found, rows = answer.body.plain.partition(_RESULTS)
    if answer.status != 200 or not found:
        return answer
    meta = b'{"meta":{"pagination":{"next_link":"' + link.encode() + b'"}},'
    return replace(answer, body=Body(meta + _RESULTS + rows), last=False)
