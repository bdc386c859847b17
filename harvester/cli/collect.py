"""The ids a command is to work on: from its arguments, a file, or the API's own list."""

import asyncio
from collections.abc import Iterator
from contextlib import aclosing, contextmanager

import click

from harvester.cli.failures import CommandFailed
from harvester.client import campaigns
from harvester.config import HarvestConfig
from harvester.disk.disk_set import DiskSet
from harvester.errors import CampaignError
from harvester.input.ids import spool


def collect_ids(ctx: click.Context, config: HarvestConfig) -> DiskSet:
    """Spool them all, checked.

    Raise `ConfigError` with file and line for one that is none, `CommandFailed` if the API's list
    cannot be read to its end: part of it would pass for the whole.
    """
    arguments, source = ctx.params["ids"], ctx.params["input"]
    if not (arguments or source or ctx.params["all_sent"]):
        raise click.UsageError(
            "no campaign ids: give some, or --input FILE (- is standard input), or --all-sent"
        )
    ids = spool(arguments, source, config.make_api().check_id)
    if ctx.params["all_sent"]:
        with whole_list("harvested"):
            asyncio.run(_add_listed(ids, config))
    return ids


@contextmanager
def whole_list(done: str) -> Iterator[None]:
    """Fail the command, not a campaign, if the list of campaigns cannot be read to its end."""
    try:
        yield
    except CampaignError as wrong:
        raise CommandFailed(
            f"the list of campaigns cannot be read: {wrong}; nothing was {done}"
        ) from None


async def _add_listed(ids: DiskSet, config: HarvestConfig) -> None:
    async with aclosing(campaigns(config)) as listed:
        async for campaign_id, _ in listed:
            ids.add(campaign_id)
