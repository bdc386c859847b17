"""Lives by seed: all of them end complete, with files that are exact and rules that were kept."""

import os
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import pytest

from .bugs import BUGS
from .lives import LifeFailed, found_by, live, live_many

LIVES = 25
MANY, SEEDS = 1_000, 200
_CORES = os.cpu_count() or 1


@pytest.mark.timeout(300)
def test_lives_end_complete() -> None:
    """What comes in the way of these harvests is drawn by their seeds."""
    for seed in range(LIVES):
        live(seed)


def test_the_same_seed_is_the_same_life() -> None:
    """To the microsecond and the last request."""
    for seed in (5, 7, 12):
        assert live(seed).trace == live(seed).trace


def test_replay(request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> None:
    """`pytest -n0 tests/simulation --seed N`."""
    seed = request.config.getoption("--seed")
    try:
        trace = live(seed).trace
    except LifeFailed as failed:
        trace = failed.trace
        raise
    finally:
        with capsys.disabled():
            print("", *trace, sep="\n")


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_a_thousand_lives(capsys: pytest.CaptureFixture[str]) -> None:
    """The same, all night long; says which lives took longest."""
    step = 20
    with ProcessPoolExecutor(_CORES) as pool:
        parts = [range(start, start + step) for start in range(0, MANY, step)]
        ended = [life for part in pool.map(live_many, parts) for life in part]
    slowest = max(ended, key=lambda life: life.seconds)
    longest = max(ended, key=lambda life: life.days)
    with capsys.disabled():
        for what, life in (("slowest", slowest), ("longest", longest)):
            print(
                f"\n{what}: seed {life.seed}, {life.days:.1f} days in {life.seconds:.2f} s, "
                f"{life.requests} requests",
                end="",
            )
    failed = [life for life in ended if life.failure]
    assert not failed, f"{len(failed)} lives failed, the first:\n{failed[0].failure}"


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_planted_bugs_are_found(capsys: pytest.CaptureFixture[str]) -> None:
    """Each of them, within some seeds; says how many it took, and what was found."""
    with ProcessPoolExecutor(_CORES) as pool:
        found = dict(zip(BUGS, pool.map(partial(found_by, most=SEEDS), BUGS), strict=True))
    with capsys.disabled():
        print()
        for name, how in found.items():
            print(f"{name:26} {how[0]:4} {how[1][:90]}" if how else f"{name:26} not found")
    missed = [name for name, how in found.items() if how is None]
    assert not missed, f"{SEEDS} seeds do not find: {', '.join(missed)}"
