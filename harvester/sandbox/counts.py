"""The numbers that the vendor counts for a mailing."""

from collections.abc import Mapping
from math import inf
from typing import Final

from .views import Views

_NAMES: Final = {
    "em_sends": "sends",
    "em_opens": "opens",
    "em_clicks": "clicks",
    "em_forwards": "forwards",
    "em_optouts": "unsubscribes",
    "em_bounces": "bounces",
}


def stats_of(views: Views, mailing: int, at: float = inf) -> dict[str, int]:
    """The stats of one activity as they were at a moment (Unix seconds), as v3 names them.

    Each counts recipients, but for `em_opens_all` and `em_clicks_all`, which count rows.
    """
    streams = {name: views.stream(events, mailing, at) for name, events in _NAMES.items()}
    return {
        **{name: stream.unique() for name, stream in streams.items()},
        "em_opens_all": len(streams["em_opens"]),
        "em_clicks_all": len(streams["em_clicks"]),
        "em_not_opened": len(views.v3("didnotopens", mailing, at)),
        "em_abuse": 0,
    }


def combined(one: Mapping[str, int], other: Mapping[str, int]) -> dict[str, int]:
    """The stats of two activities together. A contact of both counts twice."""
    return {name: one.get(name, 0) + number for name, number in other.items()}


def percents_of(stats: Mapping[str, int]) -> dict[str, float]:
    """The shares that the API computes beside the stats."""
    sends = max(1, stats["em_sends"])
    return {
        name: round(100 * stats[f"em_{name}s"] / sends, 2)
        for name in ("open", "click", "bounce", "optout")
    }
