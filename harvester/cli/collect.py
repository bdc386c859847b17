"""The ids a command is to work on: from its arguments, a file, or the API's own list."""

import asyncio
from contextlib import aclosing

import click

from harvester.config import HarvestConfig
from harvester.ids import IdSpool, spool
from harvester.stack import campaigns


def collect_ids(ctx: click.Context, config: HarvestConfig) -> IdSpool:
    """Spool them all, checked. Raise `ConfigError` with file and line for one that is none."""
    arguments, source = ctx.params["ids"], ctx.params["input"]
    if not (arguments or source or ctx.params["all_sent"]):
        raise click.UsageError(
            "no campaign ids: give some, or --input FILE (- is standard input), or --all-sent"
        )
    ids = spool(arguments, source, config.wire().check_id)
    if ctx.params["all_sent"]:
        asyncio.run(_add_listed(ids, config))
    return ids


async def _add_listed(ids: IdSpool, config: HarvestConfig) -> None:
    async with aclosing(campaigns(config)) as listed:
        async for campaign_id, _ in listed:
            ids.add(campaign_id)
