"""Answers as values: what the server will say, decided before anything is sent."""

from dataclasses import dataclass, field

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
