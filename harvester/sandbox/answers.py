"""Answers as values: what the server will say, decided before anything is sent."""

from dataclasses import dataclass, field, replace

import orjson

from .cursor import Window


@dataclass(frozen=True, slots=True)
class Page:
    """A page of a list, before it is spelled.

    `member`: the JSON member that holds the rows. `rows`: `count` rows with commas between.
    `window`: what was asked for. `link`: the next link, if there is one.
    """

    member: str
    rows: str
    count: int
    window: Window
    link: str | None


@dataclass(frozen=True, slots=True)
class Answer:
    """One HTTP answer. `more`: it is a page that links to another."""

    status: int
    body: bytes
    content_type: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)
    more: bool = False


def document(value: object) -> Answer:
    """200 with a JSON document."""
    return Answer(200, orjson.dumps(value))


def refusal(status: int, body: object, **headers: str) -> Answer:
    """An error with a JSON body."""
    return Answer(status, orjson.dumps(body), headers=headers)


def with_retry_after(answer: Answer, retry_after: str | None) -> Answer:
    """The answer, saying how long to wait if there is something to say."""
    if retry_after is None:
        return answer
    return replace(answer, headers={**answer.headers, "Retry-After": retry_after})
