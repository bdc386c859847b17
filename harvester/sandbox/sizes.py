"""How many events each campaign has: heavy-tailed, and exact to the page.

A real account sends many small campaigns and a few giants. Here one campaign in five shares all
pages beyond the first of each, the k-th of them getting a share that falls with 1/k; so 300
campaigns on 3,000 pages have a giant of several hundred.
"""

from array import array
from collections.abc import Mapping, Sequence
from typing import Final

from .chance import draw

_LONG_ONE_IN: Final = 5
_EMPTY_ONE_IN: Final = 16
_FULL_ONE_IN: Final = 8


def pages_of_each(seed: int, campaigns: int, pages: int) -> Sequence[int]:
    """The pages of each campaign: at least one, heavy-tailed, summing to exactly `pages`."""
    if campaigns < 1 or pages < campaigns:
        raise ValueError(f"{pages} pages are not one page for each of {campaigns} campaigns")
    shares = array("L", [1]) * campaigns
    long_ones = sorted(range(campaigns), key=lambda index: draw(seed, 1, index))
    del long_ones[max(1, campaigns // _LONG_ONE_IN) :]
    weights = [1_000_000 // rank for rank in range(1, len(long_ones) + 1)]
    extra, total, passed = pages - campaigns, sum(weights), 0
    for index, weight in zip(long_ones, weights, strict=True):
        # The difference of two rounded running totals: each share is whole and none is lost.
        shares[index] += extra * (passed + weight) // total - extra * passed // total
        passed += weight
    return shares


def opens_of_each(seed: int, shares: Sequence[int], rows_per_page: int) -> Sequence[int]:
    """The open events of each campaign, filling exactly its share of pages.

    The last page is often short and now and then exactly full; some one-page campaigns have no
    event at all (an empty report still costs its one request).
    """
    if rows_per_page < 1:
        raise ValueError(f"a page cannot hold {rows_per_page} rows")
    return array("L", [_opens(seed, i, n, rows_per_page) for i, n in enumerate(shares)])


def _opens(seed: int, index: int, pages: int, rows_per_page: int) -> int:
    chance = draw(seed, 2, index)
    if pages == 1 and index > 0 and chance % _EMPTY_ONE_IN == 0:
        return 0
    if (chance >> 8) % _FULL_ONE_IN == 0:
        return pages * rows_per_page
    return (pages - 1) * rows_per_page + 1 + (chance >> 16) % rows_per_page


def events_of(opens: int, chance: int) -> Mapping[str, int]:
    """The events of every report of a campaign with that many opens.

    `chance` varies the small ones. More are sent than opened, far fewer clicked; bounces, forwards
    and unsubscribes are rare.
    """
    sends = opens + chance % 7
    some = min(opens, 1)
    return {
        "sends": sends,
        "opens": opens,
        "clicks": opens // 5 + some * ((chance >> 8) % 2),
        "forwards": opens // 40 + some * ((chance >> 16) % 4 == 0),
        "bounces": sends // 25 + min(sends, 1) * ((chance >> 24) % 3 == 0),
        "unsubscribes": opens // 100 + some * ((chance >> 32) % 5 == 0),
    }
