"""What a seed draws before a life begins: an account, a harvest of it, what will happen to it."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from fakes import CANARY_KEY, CANARY_TOKEN

from harvester.sandbox import CountSettings, SandboxSettings, SignInSettings, World
from harvester.sandbox.faults import KINDS

from .acts import ACTS

DAY = 86_400.0
START = datetime(2026, 3, 1, tzinfo=UTC).timestamp()
REPORTS = {
    "v2": ("opens", "clicks", "sends", "bounces", "forwards", "unsubscribes"),
    "v3": ("opens", "clicks", "sends", "bounces", "forwards", "unsubscribes", "unique_opens"),
}
FAULTS = (*(kind for kind in KINDS if kind != "quota"), "error404", "error400", "error418")
_LOSING = ("cut", "cut_gzip", "lost")  # the tokens of an answer never come: a leeway may help
_AT_SIGN_IN = (
    *("error500", "error503", "throttle", "throttle429", "reset", "html", "empty"),
    *("wrong_shape", "error_in_200", "forbidden", "auth", "quota", "redirect", "error418"),
    *("slow", "stall", "timeout"),
)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A life before it begins.

    `reports` are asked for at first, `later` are added. `acts` happen while the world is troubled,
    `acts_at_top_ups` after each of the `arrivals`. `least`: the pages of a perfect harvest.
    """

    seed: int
    api: str
    settings: SandboxSettings
    config: dict[str, Any]
    reports: Sequence[str]
    later: Sequence[str]
    acts: Sequence[str]
    acts_at_top_ups: Sequence[str]
    least: int
    arrivals: int


def draw_plan(seed: int) -> Plan:
    """Everything that is decided beforehand."""
    rng = random.Random(f"plan {seed}")
    api = rng.choice(("v2", "v3"))
    count = min(int(rng.paretovariate(0.7)), 200)
    rows = rng.choice((3, 5, 8))
    names = rng.sample(REPORTS[api], 1 if count > 60 else rng.choice((1, 1, 2, 3)))
    acts = rng.choices(tuple(ACTS), [act.weight for act in ACTS.values()], k=rng.randint(1, 8))
    added = min(acts.count("add"), len(names) - 1)
    settings = _settings(rng, seed, api, count, rows)
    world = World(settings)
    ids = world.campaign_ids if api == "v2" else world.v3_campaign_ids
    least = sum(world.pages(report, each, rows) for report in names for each in ids)
    days = rng.choice((0, 0, 1, 2, 5, 30))
    # To look into one edge of pages can take a dozen requests.
    quota = max(math.ceil(least / days), 20) if days else 10_000
    config = {
        "page_size": rows,
        "rate": rng.choice((3.3, 3.3, 3.9, 1.0)),
        "concurrency": rng.choice((1, 2, 4, 16)),
        "daily_quota": quota,
        "wait_for_quota": quota > 100 and rng.random() < 0.1,
        "compress": rng.choice((None, None, None, "gzip")),
        "provenance": rng.random() < 0.2,
        # A second forward by the same person moves no count: those are asked for without them.
        "counts": "forwards" not in names,
        "max_wait": rng.choice((300.0, 60.0)),
        "retries": rng.choice((5, 5, 1)),
        "min_page_size": rng.choice((None, None, 1)),
        "quota_reserve": rng.choice((0, 0, 3)),
    }
    return Plan(
        seed=seed,
        api=api,
        settings=replace(settings, quota=rng.choice((quota, quota, max(quota * 3 // 4, 16)))),
        config=config,
        reports=sorted(names[added:]),
        later=names[:added],
        acts=acts,
        acts_at_top_ups=rng.choices(("kill", "cut", "signal", "run"), k=rng.choice((0, 1, 2))),
        least=least,
        arrivals=rng.choice((0, 1, 3)),
    )


def _settings(rng: random.Random, seed: int, api: str, count: int, rows: int) -> SandboxSettings:
    """The account and the ways of its API."""
    rates = {kind: 0.25 * rng.random() / len(FAULTS) for kind in FAULTS}
    few = {kind: 0.02 + 0.06 * rng.random() for kind in rng.sample(FAULTS, 6)}
    spent = {"quota": 0.01 * rng.random()} if rng.random() < 0.1 else {}
    return SandboxSettings(
        seed=seed,
        campaigns=count,
        pages=count + count // 4 + int(rng.choice((2, 10, 40, 150)) * rng.random()),
        rows_per_page=rows,
        unsent=rng.choice((0, 0, 2)) if api == "v3" else 0,
        resends=rng.choice((0, 0, count // 4)),
        integer_ids=rng.random() < 0.2,
        whole_minutes=rng.random() < 0.8,
        api_key=CANARY_KEY,
        client_id=CANARY_KEY,
        access_token=CANARY_TOKEN,
        sign_in=_sign_in(rng),
        rate_limit=4,
        refused=rng.choice(("day", "both", "neither")),
        retry_after=rng.choice((None, None, "2", "20")),
        latency=rng.choice((0.02, 0.5, 1.5)),
        # A page whose rows are of one moment decides nothing: none is that short.
        irregular=rows > 3 and rng.random() < 0.25,
        arrivals=int(rows > 3 and rng.random() < 0.2),
        cursor=rng.choice(("offset", "offset", "timestamp")),
        last_page=rng.choice(("absent", "null", "empty", "no_pagination", "no_meta")),
        v3_last_page=rng.choice(("absent", "null", "next_null", "href_null")),
        counts=CountSettings(age=rng.choice((0.0, 0.0, 3600.0))),
        faults={**rng.choice(({}, rates, few, few)), **spent},
        heal_after=rng.choice((1, 1, 1, 3)),
        dropped_status=rng.choice((400, 404, 410)),
        stall_seconds=rng.choice((5.0, 70.0)),
    )


def _sign_in(rng: random.Random) -> SignInSettings:
    leeway = rng.choice((0.0, 0.0, 30.0))
    kinds = (*_AT_SIGN_IN, *_LOSING) if leeway else _AT_SIGN_IN
    return SignInSettings(
        interval=1.0,
        access_token_age=rng.choice((60.0, 600.0, 7200.0, DAY)),
        refresh_tokens=rng.choice(("rotating", "rotating", "long_lived", "silent")),
        leeway=leeway,
        faults={kind: 0.035 * rng.random() for kind in kinds},
    )
