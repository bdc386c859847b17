"""Lives by seed: all of them end complete, with files that are exact and rules that were kept."""

import os
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from .bugs import BUGS
from .lives import LifeFailed, Lived, found_by, live, live_many

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


@pytest.mark.long
@pytest.mark.parametrize("hash_seed", ["1", "77"])
def test_another_process_lives_the_same_life(hash_seed: str) -> None:
    """Whatever the order of its sets."""
    code = "from simulation.lives import live; print(*live(7).trace, sep='\\n')"
    found = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[1],
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        check=True,
        text=True,
    )
    assert found.stdout.splitlines() == live(7).trace


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


def _told(life: Lived) -> str:
    return (
        f"seed {life.seed}, {life.days:.1f} days in {life.seconds:.2f} s "
        f"({life.days / life.seconds:.1f} days a second), {life.requests} requests"
    )


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_a_thousand_lives(capsys: pytest.CaptureFixture[str]) -> None:
    """The same, all night long; says which lives took longest."""
    step = 20
    with ProcessPoolExecutor(_CORES) as pool:
        parts = [range(start, start + step) for start in range(0, MANY, step)]
        ended = [life for part in pool.map(live_many, parts) for life in part]
    seconds, days, sent = (
        sum(getattr(life, name) for life in ended) for name in ("seconds", "days", "requests")
    )
    told = {
        "all": f"{days:.0f} days in {seconds:.0f} s, {sent} requests",
        "slowest": _told(max(ended, key=lambda life: life.seconds)),
        "longest": _told(max(ended, key=lambda life: life.days)),
    }
    with capsys.disabled():
        print("", *(f"{what}: {text}" for what, text in told.items()), sep="\n")
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
