"""From a config to a fetcher, and one campaign's pages without files."""

import json
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from crashlab import config_of
from fakes import PATH, Seen, make_request

from harvester import client as stack
from harvester.client import campaigns, open_credentials, open_ledger, open_stack, walk
from harvester.config import HarvestConfig
from harvester.errors import CampaignError, ConfigError, StopRun, StorageError
from harvester.events import RequestSent
from harvester.request.quota import QuotaLedger
from harvester.request.retry_policy import RetryPolicy
from harvester.runtime import Clock, StopSignal
from harvester.sandbox import Sandbox, SandboxSettings


@pytest.fixture(autouse=True)
def _no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The waits between attempts are tested elsewhere, on a virtual clock."""
    monkeypatch.setattr(stack, "RetryPolicy", partial(RetryPolicy, first=0.001))


SMALL: dict[str, Any] = {"campaigns": 3, "pages": 9, "rows_per_page": 5, "unsent": 1}


def config_for(sandbox: Sandbox, state: Path, **settings: Any) -> HarvestConfig:
    """Settings for a sandbox, without a pace."""
    return config_of(sandbox, state, **{"state_dir": state, **settings})


def longest(sandbox: Sandbox) -> str:
    """The campaign with most pages."""
    ids = sandbox.world.campaign_ids
    return max(ids, key=lambda name: sandbox.world.pages("opens", name, 5))


# -- credentials -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({}, r"not signed in: harvester login \(v2: give `api_key`"),
        ({"api": "v2"}, "no API key: give `api_key`"),
        ({"api_key": ""}, "no API key"),
        ({"api_key": "k"}, "no access token: give `access_token`"),
        ({"api_key": "k", "access_token": ""}, "no access token"),
        ({"api_key": "k", "access_token_file": "/no/such/file"}, "cannot read /no/such/file"),
        ({"api_key": "k", "token_command": "/no/such/command"}, "cannot run the token command"),
    ],
)
async def test_missing_secrets_say_how_to_give_them(settings: dict[str, str], text: str) -> None:
    """Before anything is opened or sent."""
    with pytest.raises(ConfigError, match=text):
        await open_credentials(HarvestConfig(**settings))


async def test_each_source_of_a_token_is_used(tmp_path: Path) -> None:
    """A given one first, else the command, else the file."""
    (tmp_path / "token").write_text("from-file\n")
    sources: list[tuple[dict[str, Any], str]] = [
        ({"access_token": "given", "access_token_file": tmp_path / "token"}, "given"),
        ({"access_token_file": str(tmp_path / "token")}, "from-file"),
        ({"token_command": "echo from-command"}, "from-command"),
    ]
    for settings, token in sources:
        credentials = await open_credentials(HarvestConfig(api_key="k", **settings))
        assert (credentials.api_key, credentials.token) == ("k", token)


def test_a_ledger_belongs_to_key_and_origin(tmp_path: Path) -> None:
    """Its limit is the day's quota less the reserve."""
    settings: dict[str, Any] = {"state_dir": tmp_path, "quota_reserve": 100}
    for change in ({"api_key": "a"}, {"api_key": "b"}, {"api_key": "a", "base_url": "https://h"}):
        ledger = open_ledger(HarvestConfig(**settings, **change), Clock())
        assert ledger.limit == 9_900
        ledger.close()
    assert len(list(tmp_path.glob("*.json"))) == 3


# -- the stack ---------------------------------------------------------------------------------


async def test_the_stack_charges_paces_and_tries_again(tmp_path: Path) -> None:
    """Every attempt is charged; a fault that heals is not seen by the caller."""
    pinned = {(None, 1): ["error500", "reset", "ok"]}
    async with Sandbox(SandboxSettings(**SMALL, pinned=pinned)) as sandbox:
        config = config_for(sandbox, tmp_path)
        seen, api = Seen(), config.make_api()
        credentials = await open_credentials(config)
        async with open_stack(
            config, credentials, api, stop=StopSignal(), clock=Clock(), emit=seen
        ) as opened:
            link = PATH.replace("/7/", f"/{longest(sandbox)}/") + "?limit=5"
            body = await opened.fetcher.fetch(make_request(link=link))
            assert json.loads(body)["results"]
            assert opened.ledger.used_today() == sandbox.requests == 3
    assert [event.attempt for event in seen.of(RequestSent)] == [1, 2, 3]


async def test_the_stack_is_closed_behind_an_error(tmp_path: Path) -> None:
    """Ledger and session are given back, whatever happened inside."""
    async with Sandbox(SandboxSettings(**SMALL)) as sandbox:
        config = config_for(sandbox, tmp_path)
        credentials = await open_credentials(config)
        ledgers: list[QuotaLedger] = []

        async def use() -> None:
            async with open_stack(
                config,
                credentials,
                config.make_api(),
                stop=StopSignal(),
                clock=Clock(),
                emit=Seen(),
            ) as opened:
                ledgers.append(opened.ledger)
                raise KeyError

        with pytest.raises(KeyError):
            await use()
    with pytest.raises(StorageError, match="Bad file"):
        ledgers[0].used_today()


def listdir(folder: Path) -> list[str]:
    """The names in a folder."""
    return [path.name for path in folder.iterdir()]


# -- walk --------------------------------------------------------------------------------------


async def test_a_walk_gives_every_record_in_order(tmp_path: Path) -> None:
    """Page by page, as the sandbox's world has them, and no file is written."""
    async with Sandbox(SandboxSettings(**SMALL)) as sandbox:
        for name in sandbox.world.campaign_ids:
            found = b""
            async for page in walk(name, config_for(sandbox, tmp_path / "state")):
                found += page.ndjson
                assert len(page.records()) == page.rows
            assert found == b"".join(row + b"\n" for row in sandbox.world.records("opens", name))
    assert listdir(tmp_path) == ["state"]


async def test_a_walk_may_be_left_early(tmp_path: Path) -> None:
    """A reader that has enough stops, and nothing more is asked."""
    async with Sandbox(SandboxSettings(**SMALL)) as sandbox:
        async with aclosing(walk(longest(sandbox), config_for(sandbox, tmp_path))) as pages:
            async for _ in pages:
                break
        assert sandbox.requests == 1


@pytest.mark.parametrize(
    ("campaign_id", "report"),
    [("../7", "opens"), ("", "opens"), ("7", "nothing"), ("7", "../../../x"), ("7", "opens?x=1")],
)
async def test_a_walk_that_cannot_be_is_refused(
    tmp_path: Path, campaign_id: str, report: str
) -> None:
    """An id or a report that is none: before anything is sent."""
    async with Sandbox(SandboxSettings(**SMALL)) as sandbox:
        with pytest.raises(ConfigError):
            async for _ in walk(campaign_id, config_for(sandbox, tmp_path), report=report):
                pass
        assert sandbox.requests == 0


async def test_a_walk_of_a_missing_campaign_fails(tmp_path: Path) -> None:
    """The error is the campaign's."""
    async with Sandbox(SandboxSettings(**SMALL)) as sandbox:
        with pytest.raises(CampaignError) as caught:
            async for _ in walk("7", config_for(sandbox, tmp_path)):
                pass
    assert caught.value.kind == "not_found"


async def test_walks_of_one_key_share_its_quota(tmp_path: Path) -> None:
    """The second walk ends where the first has spent the day."""
    async with Sandbox(SandboxSettings(**SMALL)) as sandbox:
        config = config_for(sandbox, tmp_path, daily_quota=3)
        async with aclosing(walk(longest(sandbox), config)) as pages:
            await anext(pages)

        async def everything() -> None:
            for name in sandbox.world.campaign_ids:
                async for _ in walk(name, config):
                    pass

        with pytest.raises(StopRun) as caught:
            await everything()
        assert sandbox.requests == 3
    assert caught.value.reason == "quota_spent"
    assert caught.value.resume_at is not None


# -- campaigns ---------------------------------------------------------------------------------


async def test_the_accounts_campaigns_are_listed_once_each(tmp_path: Path) -> None:
    """Id and record of every campaign, though the list moves while it is read."""
    async with Sandbox(
        SandboxSettings(**SMALL | {"campaigns": 120, "pages": 130}, reorder_list=2)
    ) as sandbox:
        found = [item async for item in campaigns(config_for(sandbox, tmp_path))]
        ids = [name for name, _ in found]
        assert len(ids) == len(set(ids))
        assert set(sandbox.world.campaign_ids) <= set(ids)
    assert all(str(json.loads(record)["id"]) == name for name, record in found)
