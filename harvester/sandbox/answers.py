"""Answers as values: what the server will say, decided before anything is sent."""

import zlib
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace
from typing import Final

import orjson

JSON: Final = "application/json"
GZIP_LEVEL: Final = 1


class Body:
    """The bytes of an answer, compressed at most once."""

    __slots__ = ("_gzip", "plain")

    def __init__(self, plain: bytes) -> None:
        self.plain: Final = plain
        self._gzip: bytes | None = None

    def gzip(self) -> bytes:
        """The same bytes as one gzip member."""
        if self._gzip is None:
            self._gzip = zlib.compress(self.plain, GZIP_LEVEL, wbits=31)
        return self._gzip


@dataclass(frozen=True, slots=True)
class Answer:
    """One HTTP answer. `last` is false for a page that links to another."""

    status: int
    body: Body
    content_type: str = JSON
    headers: dict[str, str] = field(default_factory=dict)
    last: bool = True


def document(value: object) -> Answer:
    """200 with a JSON document."""
    return Answer(200, Body(orjson.dumps(value)))


def refusal(status: int, error_key: str, message: str, retry_after: str | None = None) -> Answer:
    """An error as v2 spells it: a JSON array of error_key and error_message."""
    body = orjson.dumps([{"error_key": error_key, "error_message": message}])
    return Answer(status, Body(body), headers={"Retry-After": retry_after} if retry_after else {})


INACTIVE: Final = refusal(403, "mashery.not.authorized.inactive", "Account Inactive")
UNAUTHENTICATED: Final = refusal(
    401, "http.status.authentication.invalid_token", "Token is invalid, expired or was revoked"
)
NOT_ACCEPTABLE: Final = refusal(
    406, "http.status.not_acceptable", "Accept must be application/json"
)
NOT_FOUND: Final = refusal(404, "http.status.not_found", "Resource not found")
NOT_ALLOWED: Final = refusal(405, "http.status.method_not_allowed", "Only GET is served")
OVER_RATE: Final = refusal(
    403,
    "mashery.not.authorized.over.qps",
    "The Mashery account associated with this request is over its queries-per-second quota",
)
OVER_DAY: Final = refusal(
    403,
    "mashery.not.authorized.over.ratelimit",
    "The Mashery account associated with this request is over its rate limit",
)


def bad_request(message: str) -> Answer:
    """400 for a parameter that cannot be served."""
    return refusal(400, "http.status.bad_request", message)


def with_retry_after(answer: Answer, retry_after: str | None) -> Answer:
    """The answer, saying how long to wait if there is something to say."""
    if retry_after is None:
        return answer
    return replace(answer, headers={**answer.headers, "Retry-After": retry_after})


class AnswerCache:
    """The answers used last, at most `size` of them."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._answers: OrderedDict[Hashable, Answer] = OrderedDict()

    def get(self, key: Hashable, render: Callable[[], Answer]) -> Answer:
        """The answer kept under `key`, rendered if it is not there."""
        if (answer := self._answers.get(key)) is not None:
            self._answers.move_to_end(key)
            return answer
        answer = self._answers[key] = render()
        while len(self._answers) > self._size:
            self._answers.popitem(last=False)
        return answer
