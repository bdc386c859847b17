"""Following one campaign's cursors to the end that the API declares."""

from collections.abc import Callable
from itertools import chain, count

import pytest
from fakes import PATH, TARGET, FakeFetcher, page, virtually
from hypothesis import given
from hypothesis import strategies as st

from harvester.api.v2 import V2
from harvester.errors import CampaignError, ServerTrouble, Unreadable
from harvester.model import Page, Position
from harvester.request.pagination import cursor_digest, walk_pages

FIRST = f"{PATH}?limit=500"


async def walked(
    fetcher: FakeFetcher, at: Position | None = None, seen: set[int] | None = None, cap: int = 100
) -> list[Page]:
    """All pages of a walk."""
    pages = walk_pages(fetcher, V2(), TARGET, first=FIRST, at=at, seen=seen, max_pages=cap)
    return [Page(found.ndjson, found.rows, found.next) async for found in pages]


def link(cursor: str) -> str:
    """The link of a cursor."""
    return f"{PATH}?next={cursor}"


async def test_a_walk_ends_where_the_api_says_so() -> None:
    """It follows each link as it is; empty and short pages are pages like any other."""
    script = [page(3, "a%2Fb"), page(0, "b"), page(1, "c"), page(0)]
    fetcher = FakeFetcher(script)
    assert await walked(fetcher) == script
    assert fetcher.links == [FIRST, link("a%2Fb"), link("b"), link("c")]
    assert [call.page for call in fetcher.calls] == [1, 2, 3, 4]
    assert {call.attempt for call in fetcher.calls} == {1}


async def test_a_page_knows_the_link_it_was_asked_by() -> None:
    """It shows where a row came from; beside it is the digest of the link it leads to."""
    fetcher = FakeFetcher([page(1, "a"), page(1)])
    pages = walk_pages(fetcher, V2(), TARGET, first=FIRST)
    assert [(found.link, found.cursor) async for found in pages] == [
        (FIRST, cursor_digest(link("a"))),
        (link("a"), None),
    ]


async def test_the_longest_way_to_go_is_the_most_urgent() -> None:
    """With a known size the pages left count, negative; without one the pages had."""
    for expected, priorities in ((0, [0, 1, 2]), (5, [-5, -4, -3])):
        fetcher = FakeFetcher([page(1, "a"), page(1, "b"), page(1)])
        async for _ in walk_pages(fetcher, V2(), TARGET, first=FIRST, expected=expected):
            pass
        assert [call.priority for call in fetcher.calls] == priorities


async def test_one_page_may_be_all() -> None:
    """A first page without a link is the whole campaign."""
    assert await walked(FakeFetcher([page(0)])) == [page(0)]


async def test_a_request_reads_pages_of_its_own_campaign() -> None:
    """The request carries the reader of its body."""
    fetcher = FakeFetcher([page(0)])
    await walked(fetcher)
    assert fetcher.calls[0].target == TARGET
    assert fetcher.calls[0].read(b'{"results":[{"campaign_id":"7"}]}').rows == 1
    with pytest.raises(Unreadable):
        fetcher.calls[0].read(b'{"results":[{"campaign_id":"8"}]}')


async def test_a_walk_goes_on_from_its_position() -> None:
    """The saved link is asked first; pages are counted on."""
    fetcher = FakeFetcher([page(1, "d"), page(1)])
    await walked(fetcher, Position(link("c"), 3, 30, 300))
    assert fetcher.links == [link("c"), link("d")]
    assert [call.page for call in fetcher.calls] == [4, 5]


async def test_a_finished_walk_asks_nothing() -> None:
    """A position after the last page has nothing to follow."""
    assert await walked(FakeFetcher(), Position(None, 3, 30, 300)) == []


async def test_a_position_before_the_first_page_is_the_beginning() -> None:
    """No pages yet: the first link is asked."""
    fetcher = FakeFetcher([page()])
    await walked(fetcher, Position())
    assert fetcher.links == [FIRST]


@pytest.mark.parametrize("length", [1, 2, 3, 99])
async def test_repeated_cursor_fails_the_campaign(length: int) -> None:
    """A cycle of any length is found at once; the page that leads back is not yielded."""
    script = [page(1 + number % 2, f"c{number % length}") for number in range(2 * length + 2)]
    pages = walk_pages(FakeFetcher(script), V2(), TARGET, first=FIRST)
    for _ in range(length):
        await anext(pages)
    with pytest.raises(CampaignError, match="leads back") as caught:
        await anext(pages)
    assert caught.value.kind == "looping_cursor"


@pytest.mark.parametrize("rows", [0, 3])
async def test_an_endless_cursor_costs_few_requests(rows: int) -> None:
    """New each time, and always with the same page or an empty one: it ends after fifty."""
    fetcher = FakeFetcher(page(rows, f"c{number}") for number in count())
    with pytest.raises(CampaignError, match="50 pages in a row") as caught:
        await walked(fetcher)
    assert caught.value.kind == "endless_cursor"
    assert len(fetcher.calls) == (50 if rows == 0 else 51)


@pytest.mark.parametrize("script", [[(3, 4), (0, 4)] * 9, [(3, 0), (0, 4), (5, 0)] * 9])
async def test_pages_that_bring_rows_are_not_endless(script: list[tuple[int, int]]) -> None:
    """Some empty or equal pages in between are pages like any other."""
    pages = [page(rows, f"c{n}") for n, rows in enumerate(chain.from_iterable(script))] + [page(1)]
    found = walk_pages(FakeFetcher(pages), V2(), TARGET, first=FIRST, max_same=3)
    assert len([each async for each in found]) == len(pages)


async def test_equal_pages_are_counted_across_empty_ones() -> None:
    """A server that mixes the two goes round in circles all the same."""
    script = [page(rows, f"c{n}") for n, rows in enumerate([2, 0, 2, 0, 2])]
    found = walk_pages(FakeFetcher(script), V2(), TARGET, first=FIRST, max_same=4)
    with pytest.raises(CampaignError) as caught:
        assert [None async for _ in found]
    assert caught.value.kind == "endless_cursor"


async def test_pages_that_differ_only_in_the_middle_are_not_equal() -> None:
    """Not even where each has the size, the first rows and the last rows of the one before."""
    rows = [b'{"n":"%d"}\n' % (10**9 + n) for n in range(300)]
    script = [
        Page(b"".join([*rows[:100], rows[100 + n], *rows[200:]]), 201, f"{FIRST}{n}")
        for n in range(20)
    ]
    found = walk_pages(FakeFetcher([*script, page(1)]), V2(), TARGET, first=FIRST, max_same=3)
    assert len([each async for each in found]) == 21


async def test_a_long_last_page_after_equal_ones_is_the_end() -> None:
    """Without a next link the walk is over, however it came there."""
    script = [page(0, "a"), page(0, "b"), page(0)]
    found = walk_pages(FakeFetcher(script), V2(), TARGET, first=FIRST, max_same=3)
    assert len([each async for each in found]) == 3


async def test_a_link_back_to_the_first_page_is_a_loop() -> None:
    """Also when the API spells the first page's link as we did."""
    fetcher = FakeFetcher([Page(b"", 0, FIRST)])
    with pytest.raises(CampaignError) as caught:
        await walked(fetcher)
    assert caught.value.kind == "looping_cursor"


async def test_a_loop_is_found_across_runs() -> None:
    """Links of earlier parts of the walk count."""
    fetcher = FakeFetcher([page(1, "a")])
    with pytest.raises(CampaignError) as caught:
        await walked(fetcher, Position(link("c"), 3), {cursor_digest(link("a"))})
    assert caught.value.kind == "looping_cursor"


async def test_the_digests_given_are_not_changed() -> None:
    """A walk keeps its own set."""
    seen: set[int] = set()
    await walked(FakeFetcher([page(1, "a"), page(1)]), seen=seen)
    assert seen == set()


@pytest.mark.parametrize(("cap", "ends"), [(3, True), (2, False)])
async def test_a_walk_has_a_greatest_length(cap: int, ends: bool) -> None:
    """Just so many pages are fine; one more is not even asked for."""
    fetcher = FakeFetcher([page(1, "a"), page(1, "b"), page(1)])
    if ends:
        assert len(await walked(fetcher, cap=cap)) == 3
        return
    with pytest.raises(CampaignError, match="more than 2 pages") as caught:
        await walked(fetcher, cap=cap)
    assert caught.value.kind == "page_cap"
    assert len(fetcher.calls) == 2


async def test_pages_of_earlier_runs_count() -> None:
    """The greatest length is the campaign's, not the run's."""
    with pytest.raises(CampaignError):
        await walked(FakeFetcher(), Position(link("a"), 100), cap=100)


async def test_what_the_fetcher_raises_goes_through() -> None:
    """The walk handles nothing itself."""
    with pytest.raises(ServerTrouble):
        await walked(FakeFetcher([page(1, "a"), ServerTrouble("x")]))


def test_a_page_is_asked_for_when_the_one_before_is_dealt_with() -> None:
    """No page is fetched ahead: the rows come first, then the next question."""
    order: list[str] = []

    def note(found: Page) -> None:
        order.append(f"had {found.next}")

    async def main() -> None:
        def asked(number: int, following: str | None) -> Callable[[object], Page]:
            def answer(_: object) -> Page:
                order.append(f"asked {number}")
                return page(1, following)

            return answer

        fetcher = FakeFetcher([asked(1, "a"), asked(2, None)])
        pages = walk_pages(fetcher, V2(), TARGET, first=FIRST)
        async for found in pages:
            note(found)

    virtually(main)
    assert order == ["asked 1", f"had {link('a')}", "asked 2", "had None"]


@given(st.text())
def test_a_digest_is_an_integer_that_sqlite_keeps(text: str) -> None:
    """Any link, surrogates and all, in 64 signed bits; the same every time."""
    digest = cursor_digest(text)
    assert -(2**63) <= digest < 2**63
    assert digest == cursor_digest(text)
    assert digest != cursor_digest(f"{text}.")
