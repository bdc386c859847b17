"""Which request goes wrong, and how: decided by seed and place, never by timing.

A *place* is (report, campaign id, page number) and, in v3, the activity id; an *attempt* counts the
requests of one place that met this plan (requests the gate refused never do). A fault drawn by rate
heals after `heal_after` attempts; a pinned one does what was written down.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from .chance import fraction, number_of

Pinned = Mapping[tuple[str | None, int | None], str | Sequence[str]]


class Place(NamedTuple):
    """What a request is for. `page` is 0 if its cursor could not be read."""

    report: str
    campaign_id: str
    page: int
    activity_id: str = ""


KINDS: Final[Mapping[str, str]] = {
    "error500": "that status, with an error body; any of error400 to error599 may be asked for",
    "error503": "the same, with Retry-After if the settings give one",
    "throttle": "too fast: v2 403 mashery.not.authorized.over.qps, v3 429 throttled",
    "throttle429": "429 with a body that names nothing",
    "quota": "the day is spent: v2 403 mashery…over.ratelimit, v3 429 quota_exceeded",
    "auth": "401, as for a token that is not good",
    "forbidden": "403: the privilege is missing",
    "cursor_dropped": "on a later page: 400, 404 or 410, as settings.dropped_status says",
    "html": "200 with a page of HTML",
    "empty": "200 with no body",
    "wrong_shape": "200 with JSON that is no page",
    "error_in_200": "200 with an empty page that has an error_key",
    "twice": "a page whose members stand in it twice, the second time without rows",
    "flood": "a page with ten times as many rows as were asked for",
    "endless_empty": "a page without rows that links to itself by a new cursor",
    "endless_same": "a good page that links to itself by a new cursor",
    "loop": "a good page whose next link asks for this very page again (by rate: later pages only)",
    "foreign_link": "a good page whose next link names another host",
    "redirect": "302 to another host",
    "reset": "the connection is reset before any byte of an answer; nothing was done",
    "lost": "what was asked is done, then the connection is reset before any byte of an answer",
    "cut": "half of the body the Content-Length promised, then the connection ends",
    "cut_gzip": "half of the body, rightly framed (a cut gzip stream if gzip was asked for)",
    "slow": "a good answer, a few bytes at a time over settings.slow_seconds",
    "stall": "a good answer after settings.stall_seconds of silence",
    "timeout": "no answer, ever; nothing was done",
}
_STATUS: Final = re.compile(r"error([45]\d\d)")


def status_of(kind: str) -> int | None:
    """The HTTP status of an `error…` kind; None for every other kind."""
    found = _STATUS.fullmatch(kind)
    return int(found[1]) if found else None


def check_kind(kind: str) -> str:
    """The kind itself; ValueError with the accepted ones if there is no such kind."""
    if kind in KINDS or status_of(kind) is not None:
        return kind
    raise ValueError(
        f"no fault {kind!r}: one of {', '.join(sorted(KINDS))}, or error400 to error599"
    )


class FaultPlan:
    """Pure: the fault of an attempt at a place, or None.

    `rates` maps kinds to probabilities (0 to 1, together at most 1). `heal_after` None never
    heals. `pinned` maps (name, page number), None standing for any, to kinds: a sequence for
    successive attempts ("ok" answers well, and so does what comes after the last), or one kind for
    good. A name is an activity id, a campaign id ("" where there is none) or a report as in
    `Hit.report`. The more exact entry wins: names in that order, each with a page before it without
    one. Where an entry is, no rate counts.
    """

    def __init__(
        self,
        seed: int = 1,
        rates: Mapping[str, float] | None = None,
        heal_after: int | None = 1,
        pinned: Pinned | None = None,
    ) -> None:
        self._seed, self._heal_after = seed, heal_after
        self._rates = tuple((check_kind(kind), rate) for kind, rate in (rates or {}).items())
        chances = [rate for _, rate in self._rates]
        # Put so that NaN, which is neither below nor above anything, does not pass.
        if not (all(chance >= 0 for chance in chances) and sum(chances) <= 1 + 1e-9):
            raise ValueError("fault rates are probabilities: each from 0, together at most 1")
        self._pinned = dict(pinned or {})
        for kinds in self._pinned.values():
            for kind in (kinds,) if isinstance(kinds, str) else kinds:
                if kind != "ok":
                    check_kind(kind)
        self.quiet: Final = not self._rates and not self._pinned

    def at(self, place: Place, attempt: int) -> str | None:
        """The fault of the attempt (from 1) at the place."""
        pinned = self.pin(place)
        kind = self._drawn(place, attempt) if pinned is None else _nth(pinned, attempt)
        if place.page <= 1 and (kind == "cursor_dropped" or (kind == "loop" and pinned is None)):
            return None  # a first page has no cursor to drop or to repeat
        return kind

    def pin(self, place: Place) -> str | Sequence[str] | None:
        """What is written down for a place, if anything."""
        if not self._pinned:
            return None
        names = (place.activity_id or place.campaign_id, place.campaign_id, place.report, None)
        for name in names:
            for key in ((name, place.page), (name, None)):
                if key in self._pinned:
                    return self._pinned[key]
        return None

    def _drawn(self, place: Place, attempt: int) -> str | None:
        if not self._rates or (self._heal_after is not None and attempt > self._heal_after):
            return None
        names = (place.report, place.activity_id or place.campaign_id)
        chance = fraction(self._seed, *map(number_of, names), place.page, attempt)
        for kind, rate in self._rates:
            chance -= rate
            if chance < 0:
                return kind
        return None


class Faults:
    """The plan at work: counts the attempts, and only at places where something is due."""

    def __init__(self, plan: FaultPlan) -> None:
        self._plan = plan
        self._attempts: dict[Place, int] = {}

    def next(self, place: Place) -> str | None:
        """The fault that hits this request."""
        if self._plan.quiet:
            return None
        attempt = self._attempts.get(place, 0) + 1
        kind = self._plan.at(place, attempt)
        if kind is not None or self._plan.pin(place) is not None:
            self._attempts[place] = attempt
        return kind


def _nth(kinds: str | Sequence[str], attempt: int) -> str | None:
    if isinstance(kinds, str):
        return None if kinds == "ok" else kinds
    kind = kinds[attempt - 1] if attempt <= len(kinds) else "ok"
    return None if kind == "ok" else kind
