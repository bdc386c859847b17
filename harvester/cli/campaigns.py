"""`harvester campaigns`: the ids of an account's campaigns, ready for `run -i -`."""

import asyncio
import os
import sys
from contextlib import aclosing
from datetime import datetime

import click

from harvester.cli.options import build_config, connection_options, option
from harvester.config import HarvestConfig, parse_moment
from harvester.listing import STATUSES
from harvester.stack import campaigns as each_campaign


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
    try:
        asyncio.run(_print(config, status, since, with_names))
    except BrokenPipeError:
        # The reader (`head`, say) has seen enough; let the interpreter's own flush go nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


async def _print(
    config: HarvestConfig, status: str, since: datetime | None, with_names: bool
) -> None:
    found = each_campaign(config, status=status, modified_since=since)
    async with aclosing(found):
        async for campaign_id, record in found:
            line = record if with_names else campaign_id.encode()
            sys.stdout.buffer.write(line + b"\n")
    sys.stdout.flush()
