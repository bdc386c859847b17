"""`plan --ask`: what a run will send, known before it sends it."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from test_details import ACCOUNT, Account

from harvester.forecast import ask
from harvester.sandbox import Sandbox, SandboxSettings
from harvester.sandbox.counts import CountSettings


@pytest.fixture
async def serve(tmp_path: Path) -> AsyncIterator[Callable[..., Any]]:
    """Start an account with settings of its own."""
    sandboxes: list[Sandbox] = []

    async def start(**settings: Any) -> Account:
        sandbox = Sandbox(SandboxSettings(**ACCOUNT | settings))
        await sandbox.__aenter__()
        sandboxes.append(sandbox)
        return Account(sandbox, tmp_path)

    yield start
    for sandbox in sandboxes:
        await sandbox.__aexit__(None, None, None)


@pytest.mark.parametrize("resends", [0, 9, 60])
async def test_the_requests_of_a_run_are_known_before(
    serve: Callable[..., Any], resends: int
) -> None:
    """Within 3 %; and the run asks for nothing again that the plan asked for."""
    account = await serve(campaigns=60, pages=240, rows_per_page=20, resends=resends)
    estimate = await ask(account.ids, account.config())
    asked = account.sandbox.requests
    assert asked <= 1 + 60 + resends // 4 + 5  # counts, details, activities, looks at sends
    report = await account.run()
    assert not estimate.at_least
    assert estimate.requests == pytest.approx(report.requests.sent, rel=0.03)
    details = account.asked("campaign")
    assert len(account.asked("stats")) == 1
    assert set(details.values()) == {1}
    account.assert_whole(account.config())


async def test_what_is_done_costs_nothing_more(serve: Callable[..., Any]) -> None:
    """After a whole run nothing is left, after half of one the rest is."""
    account = await serve()
    await account.run(max_requests=60)
    estimate = await ask(account.ids, account.config())
    report = await account.run()
    assert abs(estimate.requests - report.requests.sent) <= 3
    sent = account.sandbox.requests
    assert await ask(account.ids, account.config()) == estimate.__class__(0, False)
    assert account.sandbox.requests == sent


async def test_without_counts_it_is_a_lower_bound(serve: Callable[..., Any]) -> None:
    """Whatever keeps them away."""
    account = await serve(pinned={("stats", None): "error404"})
    estimate = await ask(account.ids, account.config())
    assert estimate.at_least
    report = await account.run()
    assert estimate.requests <= report.requests.sent


async def test_counts_that_are_wrong_do_not_stop_a_plan(serve: Callable[..., Any]) -> None:
    """It is then as wrong as they are."""
    account = await serve(counts=CountSettings(numbers="wrong"))
    assert (await ask(account.ids, account.config())).requests > 0
