"""Whatever the API says of its campaigns, or does not say: every row comes, and soon."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
from accountlab import Account

from harvester.input import counts as ahead
from harvester.sandbox import CountSettings, Sandbox, SandboxSettings, World

ACCOUNT: dict[str, Any] = {
    "campaigns": 5,
    "pages": 10,
    "rows_per_page": 10,
    "unsent": 0,
    "resends": 3,
}
Say = Callable[[str, int], Any]


@dataclass(frozen=True, kw_only=True)
class Said(CountSettings):
    """Counts that are said in another way."""

    say: Say = field(default=lambda name, number: number)

    def spell(self, stats: Mapping[str, int], key: int) -> dict[str, Any]:
        """Each number as `say` has it."""
        return {name: self.say(name, number) for name, number in stats.items()}


NO_NUMBERS: list[Callable[[int], Any]] = [
    lambda number: -number,
    float,
    lambda number: number / 2,
    lambda number: f"{number}e0",
    lambda number: {"value": number},
    lambda number: [number],
    lambda number: None,
    lambda number: False,
    lambda number: f" {number} ",
    lambda number: 10**400,
]


def of_all_kinds() -> Say:
    """Each number in another way than the one before."""
    kinds = cycle(NO_NUMBERS)
    return lambda name, number: next(kinds)(number)


ODD: dict[str, Say] = {
    "no numbers": of_all_kinds(),
    "huge": lambda name, number: 10**14 + number,
    "too high": lambda name, number: number + 1,
    "too low": lambda name, number: max(1, number - 1),
    "no sends": lambda name, number: 0 if name == "em_sends" else number,
    "nothing": lambda name, number: 0,
    "recipients without rows": lambda name, number: 0 if name.endswith("_all") else number,
}


async def served(home: Path, counts: CountSettings, **settings: Any) -> Account:
    """A whole harvest of an account; every row is there."""
    async with Sandbox(SandboxSettings(**ACCOUNT | settings, counts=counts)) as sandbox:
        account = Account(sandbox, home)
        report = await account.run()
        assert (report.exit_code, report.reason) == (0, "complete")
        account.assert_whole(account.config())
        return account


@pytest.mark.parametrize("say", ODD)
async def test_odd_numbers_lose_no_row(tmp_path: Path, say: str) -> None:
    """Those of campaigns and of activities alike."""
    await served(tmp_path, Said(say=ODD[say]))


async def test_counts_of_activities_are_held_against_the_campaigns(tmp_path: Path) -> None:
    """Where they do not add up, all is asked for."""
    said, of_campaigns = [0], 10 * ACCOUNT["campaigns"]  # those are asked for first

    def say(name: str, number: int) -> int:
        said[0] += 1
        return number if said[0] <= of_campaigns or name == "em_sends" else 0

    await served(tmp_path, Said(say=say))
    assert said[0] > of_campaigns


@pytest.mark.parametrize("kind", ["html", "error404", "error500", "cut", "error400", "wrong_shape"])
async def test_counts_of_activities_that_cannot_be_had_cost_few_requests(
    tmp_path: Path, kind: str
) -> None:
    """They are not asked for any more."""
    account = await served(tmp_path, CountSettings(), pinned={("activity_stats", None): kind})
    asked = [hit for hit in account.sandbox.log if hit.report == "activity_stats"]
    assert 1 <= len(asked) <= 4


async def test_activities_without_counts_are_asked_for(tmp_path: Path) -> None:
    """Some are missing from the answer, others stand among its errors."""
    world = World(SandboxSettings(**ACCOUNT))
    found = [each for id_ in world.v3_campaign_ids for each, _ in world.activities(id_)]
    await served(tmp_path, CountSettings(missing=frozenset(found[::2])))


@pytest.mark.parametrize("what", ["stats", "activity_stats"])
async def test_an_answer_that_never_comes_holds_nothing_up(
    tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Walks begin without counts that are late, and the run does not wait for them at its end."""
    monkeypatch.setattr(ahead, "_PATIENCE", 0.05)
    account = await served(tmp_path, CountSettings(), pinned={(what, None): "timeout"})
    assert len([hit for hit in account.sandbox.log if hit.report == what]) == 1
