"""A campaign's detail is asked for once, for all its reports and for every run that goes on."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from accountlab import ACCOUNT, Account

from harvester.run import harvest
from harvester.sandbox import CountSettings, Sandbox, SandboxSettings


@pytest.fixture
async def account(tmp_path: Path) -> AsyncIterator[Account]:
    """A small account with resends."""
    async with Sandbox(SandboxSettings(**ACCOUNT)) as sandbox:
        yield Account(sandbox, tmp_path)


async def test_all_reports_of_a_campaign_share_its_detail(account: Account) -> None:
    """Also where they are walked at the same time; the files are whole."""
    report = await account.run(concurrency=8)
    assert report.exit_code == 0
    assert account.asked("campaign") == dict.fromkeys(account.ids, 1)
    account.assert_whole(account.config())


@pytest.mark.parametrize("step", [1, 5])
async def test_a_run_that_goes_on_asks_for_no_detail_again(account: Account, step: int) -> None:
    """Wherever it was cut off, also right after the detail."""
    account.ids = account.ids[:3]
    for _ in range(500):
        report = await account.run(max_requests=step, concurrency=2)
        if report.exit_code == 0:
            break
    assert account.asked("campaign") == dict.fromkeys(account.ids, 1)
    account.assert_whole(account.config())


async def test_a_campaign_that_is_not_there_is_asked_for_once(account: Account) -> None:
    """Its failure is that of all its reports; the next run with --retry-failed asks again."""
    gone = "00000000-0000-4000-8000-000000000000"
    report = await account.run([gone, account.ids[0]])
    assert (report.exit_code, report.campaigns.failed) == (3, 1)
    errors = (account.home / "out" / "errors.ndjson").read_bytes()
    assert errors.count(b'"kind":"not_found"') == 6
    assert len([each for each in account.sandbox.log if each.path.endswith(f"/emails/{gone}")]) == 1
    await account.run([gone], retry_failed=True)
    assert len([each for each in account.sandbox.log if each.path.endswith(f"/emails/{gone}")]) == 2


@pytest.mark.parametrize("age", [0.0, 7 * 86_400.0])
async def test_a_resend_made_later_is_found_by_a_new_report(tmp_path: Path, age: float) -> None:
    """Also on the same day; the reports that were there are not asked for. Where the counts show
    that nothing was sent, no other detail is asked for again."""
    settings = SandboxSettings(**ACCOUNT, counts=CountSettings(age=age))
    async with Sandbox(settings) as sandbox:
        account = Account(sandbox, tmp_path)
        await account.run(report="opens,bounces")
        again = account.ids[5]
        sandbox.world.resend(again)
        before = len(sandbox.log)
        config = account.config(report="opens,bounces,clicks,sends")
        assert (await harvest(account.ids, config)).exit_code == 0
        account.assert_whole(account.config(report="clicks,sends"))
        new = sandbox.log[before:]
        assert not [hit for hit in new if hit.report in ("opens", "bounces")]
        asked = {hit.campaign_id for hit in new if hit.report == "campaign"}
        assert asked == ({again} if not age else set(account.ids))


@pytest.mark.parametrize("age", [0.0, 7 * 86_400.0])
@pytest.mark.parametrize("times", [1, 2])
async def test_a_resend_made_later_is_found_by_a_top_up(
    tmp_path: Path, age: float, times: int
) -> None:
    """Whatever the age of the counts, and after a top-up that found nothing."""
    settings = SandboxSettings(**ACCOUNT, counts=CountSettings(age=age))
    async with Sandbox(settings) as sandbox:
        account = Account(sandbox, tmp_path)
        await account.run(report="opens,bounces,sends")
        for _ in range(times - 1):
            await account.run(report="opens,bounces,sends", since="last")
        for each in account.ids[4:6]:  # the first was sent once, as was the second
            sandbox.world.resend(each)
        await account.run(report="opens,bounces,sends", since="last")
        account.assert_whole(account.config(report="opens,bounces,sends"))
