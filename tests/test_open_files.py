"""Open files: enough of them, or a clear word before anything is sent."""

import resource
from pathlib import Path

import pytest

from harvester import HarvestConfig, harvest
from harvester.errors import ConfigError
from harvester.runtime import raise_open_files, require_open_files

Limits = tuple[int, int]
UNLIMITED = resource.RLIM_INFINITY


@pytest.fixture
def limits(monkeypatch: pytest.MonkeyPatch) -> list[Limits]:
    """What the system allows; the last one stands."""
    found: list[Limits] = [(256, 4096)]
    monkeypatch.setattr(resource, "getrlimit", lambda _: found[-1])
    monkeypatch.setattr(resource, "setrlimit", lambda _, pair: found.append(pair))
    return found


@pytest.mark.parametrize(
    ("soft", "hard", "raised"),
    [
        (256, 4096, 1_000),
        (256, UNLIMITED, 1_000),
        (256, 500, 500),  # as many as there may be
        (1_000, 4096, 1_000),
        (2_000, 4096, 2_000),
        (UNLIMITED, UNLIMITED, UNLIMITED),
    ],
)
def test_the_limit_is_raised_as_far_as_it_is_needed(
    limits: list[Limits], soft: int, hard: int, raised: int
) -> None:
    """And never lowered; the hard one stays."""
    limits[:] = [(soft, hard)]
    raise_open_files(1_000)
    assert limits[-1] == (raised, hard)


@pytest.mark.parametrize("soft", [1_000, 2_000, UNLIMITED])
def test_enough_is_enough(limits: list[Limits], soft: int) -> None:
    """Nothing is said."""
    limits[:] = [(soft, UNLIMITED)]
    require_open_files(1_000)


async def test_too_few_are_told_before_anything_is_made(
    limits: list[Limits], tmp_path: Path
) -> None:
    """With both ways out of it; the default concurrency needs fewer than any system allows."""
    settings = {"api_key": "key", "access_token": "token", "output": str(tmp_path / "out")}
    with pytest.raises(ConfigError, match=r"964 open files.*256.*ulimit -n 964.*`concurrency`"):
        await harvest([], HarvestConfig(concurrency=100, **settings))
    assert not (tmp_path / "out").exists()
    report = await harvest([], HarvestConfig(state_dir=str(tmp_path / "state"), **settings))
    assert report.exit_code == 0
