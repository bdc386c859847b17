"""The campaign list, read while it moves."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from fakes import virtually

from harvester.api.v2 import V2
from harvester.errors import CampaignError, ConfigError
from harvester.input.campaign_list import STATUSES, list_campaigns
from harvester.model import Page, Request

API = V2("http://127.0.0.1:1")
PER_PAGE = 3


class Moving:
    """A list, three a page; `after` is called after each page and may move things."""

    def __init__(self, ids: Sequence[int], after: Callable[["Moving"], None]) -> None:
        self.ids = list(ids)
        self.after = after
        self.calls: list[str] = []

    async def fetch(self, call: Request[Any]) -> Page:
        """One page."""
        await asyncio.sleep(0)
        self.calls.append(call.link)
        _, _, start_ = call.link.partition("next=")
        start = int(start_ or 0)
        end = start + PER_PAGE
        rows = b"".join(b'{"id":"%d"}\n' % each for each in self.ids[start:end])
        link = f"/v2/emailmarketing/campaigns?next={end}" if end < len(self.ids) else None
        page = Page(rows, rows.count(b"\n"), link)
        self.after(self)
        return page


def listed(moving: Moving) -> list[str]:
    """The ids that are found."""

    async def read() -> list[str]:
        return [each async for each, _ in list_campaigns(moving, API)]  # type: ignore[arg-type]

    return virtually(read)


def test_a_list_that_stands_still_is_read_twice() -> None:
    """Once to have it, once to know that it is all there is."""
    moving = Moving(range(8), lambda _: None)
    assert listed(moving) == [str(each) for each in range(8)]
    assert len(moving.calls) == 6


def test_a_status_that_the_api_does_not_have_is_refused() -> None:
    """Before anything is asked; v2 lists no campaigns that ended in an error."""
    moving = Moving(range(8), lambda _: None)

    async def read() -> None:
        async for _ in list_campaigns(moving, API, status="ERROR"):
            raise AssertionError

    with pytest.raises(ConfigError, match=r"`status`.*ALL, DRAFT.*not 'ERROR'"):
        virtually(read)
    assert not moving.calls
    assert {*API.statuses, "ERROR"} == set(STATUSES)


def test_an_empty_list_is_read_once() -> None:
    """Nothing is nothing."""
    moving = Moving([], lambda _: None)
    assert listed(moving) == []
    assert len(moving.calls) == 1


@pytest.mark.parametrize("moves", range(1, 9))
def test_a_campaign_that_jumps_past_the_reader_is_found(moves: int) -> None:
    """The last of the list comes to its head after a page, several times over: it and those it
    pushes on are found, each once."""
    left = [moves]

    def jump(moving: Moving) -> None:
        if left[0]:
            left[0] -= 1
            moving.ids.insert(0, moving.ids.pop())

    found = listed(Moving(range(20), jump))
    assert sorted(map(int, found)) == list(range(20))


def test_a_campaign_that_is_new_meanwhile_is_found() -> None:
    """It comes at the head, where the reader has been."""
    left = [99, 98]

    def create(moving: Moving) -> None:
        if left:
            moving.ids.insert(0, left.pop())

    assert set(listed(Moving(range(10), create))) == {str(each) for each in (*range(10), 98, 99)}


def test_a_list_that_never_comes_to_rest_is_an_error() -> None:
    """With what was found given before."""
    number = iter(range(1_000, 10_000))
    found: list[str] = []

    def create(moving: Moving) -> None:
        moving.ids.insert(0, next(number))

    async def read() -> None:
        moving = Moving(range(10), create)
        async for each, _ in list_campaigns(moving, API):  # type: ignore[arg-type]
            found.append(each)

    with pytest.raises(CampaignError, match="still changes after 10 passes"):
        virtually(read)
    assert {str(each) for each in range(10)} <= set(found)
    assert len(found) == len(set(found))


def test_only_the_first_page_says_what_is_wanted() -> None:
    """The cursor keeps the status."""
    moving = Moving(range(5), lambda _: None)
    listed(moving)
    first = "/v2/emailmarketing/campaigns?status=SENT&limit=50"
    assert moving.calls == [first, "/v2/emailmarketing/campaigns?next=3"] * 2
