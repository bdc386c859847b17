"""The numbers that the vendor counts for a mailing, true or as wrong as a setting asks for."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from math import inf
from typing import Final, Literal, get_args

from .chance import draw
from .views import Views

Numbers = Literal["true", "wrong", "zero"]
Spelling = Literal["plain", "strings", "dotted"]


@dataclass(frozen=True, kw_only=True)
class CountSettings:
    """How the API's counts (v3: stats) behave."""

    age: float = 0.0
    """Seconds since they were taken: what came in later is missing from them."""
    numbers: Numbers = "true"
    """`wrong`: higher and lower ones, never 0 for what is there. `zero`: 0 everywhere."""
    spelling: Spelling = "plain"
    """`strings`: JSON strings instead of numbers. `dotted`: `em_opens.all`, as in the guide."""
    missing: Collection[str] = ()
    """v3 campaigns and activities without counts: some in `errors`, some left out."""
    most_ids: int = 150
    """Campaign ids that one request for stats may name."""

    def __post_init__(self) -> None:
        """Refuse what cannot be served."""
        for name, choices in (("numbers", Numbers), ("spelling", Spelling)):
            if getattr(self, name) not in get_args(choices):
                raise ValueError(
                    f"{name} is one of {get_args(choices)}, not {getattr(self, name)!r}"
                )
        if not 0 <= self.age < inf:
            raise ValueError(f"age is a number from 0, not {self.age!r}")

    def spell(self, stats: Mapping[str, int], key: int) -> dict[str, int | str]:
        """The members of `stats` as they are sent. `key` varies the wrong numbers."""
        sent: dict[str, int | str] = {}
        for place, (name, number) in enumerate(stats.items()):
            said = self._said(number, draw(key, 13, place))
            if self.spelling == "dotted" and name.endswith("_all"):
                name = f"{name.removesuffix('_all')}.all"
            sent[name] = str(said) if self.spelling == "strings" else said
        return sent

    def _said(self, number: int, chance: int) -> int:
        match self.numbers:
            case "true":
                return number
            case "zero":
                return 0
        if not number:
            return chance % 2
        said = 1 + chance % (2 * number)
        return said if said != number else number + 1


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
