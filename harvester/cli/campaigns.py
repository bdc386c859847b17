"""`harvester campaigns`: the ids of an account's campaigns, ready for `run -i -`."""

import asyncio
import shutil
import sys
from contextlib import aclosing
from datetime import datetime
from tempfile import SpooledTemporaryFile
from typing import IO

import click

from harvester.cli.collect import whole_list
from harvester.cli.options import build_config, connection_options, option
from harvester.client import campaigns as each_campaign
from harvester.config import HarvestConfig, parse_moment
from harvester.input.campaign_list import STATUSES

_IN_MEMORY = 1_000_000  # bytes; a longer list waits on disk


@click.command()
@connection_options
@option(
    "--status",
    type=click.Choice(STATUSES, case_sensitive=False),
    default="SENT",
    show_default=True,
    help="Campaigns in this state.",
)
@option("--modified-since", metavar="WHEN", help="Only those changed since.")
@option("--with-names", is_flag=True, help="Print the API's records as NDJSON instead of ids.")
@click.pass_context
def campaigns(
    ctx: click.Context,
    /,
    status: str,
    modified_since: str | None,
    with_names: bool,
    **given: object,
) -> int:
    """List campaign ids from the API, one a line, ready for `harvester run -i -`."""
    config = build_config(ctx)
    since = parse_moment(modified_since, name="modified_since")
    # Nothing is printed before the list has come to its end: `run -i -` would take part of it for
    # the whole.
    with SpooledTemporaryFile(max_size=_IN_MEMORY) as lines:
        with whole_list("listed"):
            asyncio.run(_read(lines, config, status, since, with_names))
        lines.seek(0)
        shutil.copyfileobj(lines, sys.stdout.buffer)
    return 0


async def _read(
    lines: IO[bytes], config: HarvestConfig, status: str, since: datetime | None, with_names: bool
) -> None:
    found = each_campaign(config, status=status, modified_since=since)
    async with aclosing(found):
        async for campaign_id, record in found:
            lines.write((record if with_names else campaign_id.encode()) + b"\n")
