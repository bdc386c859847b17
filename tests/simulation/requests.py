"""The judge of the requests: what the server saw of one run, or of all of them."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from .files import is_json
from .wire import Seen

_EXACT = 1e-6  # s; what rounding may do
_LIMITS = ("throttle", "throttle429")


def look_at_secrets(new: Sequence[Seen], *, api: str, refused: int) -> None:
    """Key and token are where they belong, and at most `refused` requests carry a token that is not
    good."""
    wrong = 0
    for each in new:
        if each.signs_in:
            assert each.hit.authorized, "a sign-in request without the client id"
            assert not each.bearer, "the token went to the sign-in"
            continue
        assert each.hit.api_key == (api == "v2"), "the API key is where it belongs"
        assert each.bearer, "a request without a token"
        wrong += not each.hit.authorized
    assert wrong <= refused, f"{wrong} requests of a run with a token that is not good"


def look_at_pace(seen: Sequence[Seen], *, rate: float) -> None:
    """Two starts are never nearer to each other than the pace allows, whatever run they are of."""
    gaps = {True: 1.0, False: 1 / rate}
    last: dict[tuple[bool, int], float] = {}
    for each in seen:
        kind = (each.signs_in, each.boot)
        gap = each.mono - last.get(kind, float("-inf"))
        assert gap >= gaps[each.signs_in] - _EXACT, f"two starts {gap:.4f} s apart"
        last[kind] = each.mono


def look_at_holds(new: Sequence[Seen], *, latency: float) -> None:
    """After a throttle no request starts for a while.

    Those that were on their way together are refused together: they are one throttle, but each may
    ask for a wait of its own. A page that is throttled again, while another one was accepted, is
    throttled alone.
    """
    begun = until = accepted = float("-inf")
    boot = -1
    throttled_at: dict[tuple[str, str, int], float] = {}
    for each in new:
        if each.signs_in:
            continue
        held = each.boot == boot and begun + _EXACT < each.mono < until - _EXACT
        assert not held, f"a start {until - each.mono:.2f} s before a hold was over"
        if each.hit.fault in _LIMITS or (each.hit.throttled and not each.spent):
            page = each.hit.report, each.hit.activity_id or each.hit.campaign_id, each.hit.page
            if throttled_at.setdefault(page, each.mono) < accepted:
                continue
            at = each.mono + latency
            least = 1.0 if each.mono >= begun or each.boot != boot else 0.0
            begun, until = at, max(until, at + max(each.retry_after, least))
            boot = each.boot
        elif each.hit.status == 200:
            accepted = each.mono


def look_at_spent_day(new: Sequence[Seen], *, latency: float) -> None:
    """After the API said that the day is spent, none starts in this run."""
    known_at = float("inf")
    for each in new:
        assert each.signs_in or each.mono <= known_at + _EXACT, "a start after the day was spent"
        if each.spent and not each.signs_in:
            known_at = min(known_at, each.mono + latency)


def look_at_days(seen: Sequence[Seen], ledgers: Path, *, quota: int) -> None:
    """No day has more requests than its quota, and each was charged."""
    days = Counter(each.day for each in seen if not each.signs_in)
    charged: Counter[str] = Counter()
    for path in ledgers.glob("*.json"):
        for line in filter(is_json, path.read_bytes().splitlines()):  # the newer record counts
            charged |= Counter(json.loads(line)["days"])
    for day, sent in days.items():
        assert sent <= quota, f"{sent} requests on {day}, of a quota of {quota}"
        known = day in charged or len(days) <= 7
        assert not known or charged[day] >= sent, f"{day}: {sent} sent, {charged[day]} charged"


def look_after_signal(new: Sequence[Seen], at: float) -> None:
    """After a signal nothing is asked for; but an exchange of tokens whose answer was lost is made
    once more."""
    late = [each for each in new if each.mono > at + _EXACT and each.hit.report != "token"]
    assert not late, f"{len(late)} requests after a signal"
