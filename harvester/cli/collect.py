"""The ids a command is to work on: from its arguments, a file, or the API's own list."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import aclosing, contextmanager, suppress
from dataclasses import replace

import click

from harvester.api.vendor import ORIGINS
from harvester.client import open_alone, open_credentials, require_credentials
from harvester.config import HarvestConfig
from harvester.disk.disk_set import DiskSet
from harvester.errors import CampaignError, ConfigError
from harvester.input.campaign_list import list_campaigns
from harvester.input.ids import spool


def collect_ids(
    ctx: click.Context,
    config: HarvestConfig,
    *,
    before_asking: Callable[[HarvestConfig], None] = require_credentials,
) -> tuple[DiskSet, HarvestConfig]:
    """Spool them all, checked; `before_asking` is called before the API is asked for any.

    The config goes on with the token that has read the API's list: a token command is run once.

    Raise `ConfigError` with file and line for one that is none, `click.UsageError` where there is
    none at all, `click.ClickException` if the API's list cannot be read to its end: part of it
    would pass for the whole.
    """
    arguments, source = ctx.params["ids"], ctx.params["input"]
    if not (arguments or source or ctx.params["all_sent"]):
        raise click.UsageError(
            "no campaign ids: give some, or --input FILE (- is standard input), or --all-sent"
        )
    ids = spool(arguments, source, id_checker(config))
    if ctx.params["all_sent"]:
        before_asking(config)
        with whole_list("harvested"):
            token = asyncio.run(_add_listed(ids, config))
        if config.token_command:
            config = replace(config, access_token=token)
    if not len(ids):
        ids.close()
        where = "standard input" if source == "-" else source
        why = f"{where} has only blank lines and comments" if where else "the API lists none"
        raise click.UsageError(f"no campaign ids: {why}")
    return ids, config


def id_checker(config: HarvestConfig) -> Callable[[str], str]:
    """The check of an id. For an id of the other version it says which option to give."""
    api = config.make_api()
    other = next(name for name in ORIGINS if name != config.api)

    def check(campaign_id: str) -> str:
        try:
            return api.check_id(campaign_id)
        except ConfigError as wrong:
            refusal = wrong
        with suppress(ConfigError):
            HarvestConfig(api=other).make_api().check_id(campaign_id)
            refusal = ConfigError(
                f"{campaign_id} is an id of {other}, and --api is {config.api}: give --api {other}"
            )
        raise refusal from None

    return check


@contextmanager
def whole_list(done: str) -> Iterator[None]:
    """Fail the command, not a campaign, if the list of campaigns cannot be read to its end."""
    try:
        yield
    except CampaignError as wrong:
        raise click.ClickException(
            f"the list of campaigns cannot be read: {wrong}; nothing was {done}"
        ) from None


async def _add_listed(ids: DiskSet, config: HarvestConfig) -> str:
    """Add the ids of the sent campaigns; gives the token that was good for the last request."""
    credentials = await open_credentials(config)
    async with (
        open_alone(config, credentials) as (fetcher, api),
        aclosing(list_campaigns(fetcher, api)) as listed,
    ):
        async for campaign_id, _ in listed:
            ids.add(campaign_id)
    return credentials.token
