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
from harvester.cli.command import Command, option
from harvester.cli.options import build_config, connection_options, warn_of_environment
from harvester.client import campaigns as each_campaign
from harvester.config import HarvestConfig
from harvester.input.campaign_list import STATUSES
from harvester.settings import WHAT, parse_moment

_IN_MEMORY = 1_000_000  # bytes; a longer list waits on disk


@click.command(cls=Command)
@option(
    "--status",
    group=WHAT,
    type=click.Choice(STATUSES, case_sensitive=False),
    default="SENT",
    show_default=True,
    help="Campaigns in this state.",
)
@option("--modified-since", group=WHAT, metavar="WHEN", help="Only those changed since.")
@option("--json", "as_json", is_flag=True, help="The API's own records, one a line.")
@option("--with-names", is_flag=True, hidden=True)
@connection_options
@click.pass_context
def campaigns(
    ctx: click.Context,
    /,
    status: str,
    modified_since: str | None,
    as_json: bool,
    with_names: bool,
    **given: object,
) -> int:
    """List campaign ids from the API, one a line, ready for `harvester run -i -`.

    \b
        harvester campaigns | harvester run -i - -o year-2026
        harvester campaigns --status ALL --json > campaigns.ndjson
    """
    config = build_config(ctx)
    warn_of_environment(ctx)
    since = parse_moment(modified_since, name="modified_since")
    # Nothing is printed before the list has come to its end: `run -i -` would take part of it for
    # the whole.
    with SpooledTemporaryFile(max_size=_IN_MEMORY) as lines:
        with whole_list("listed"):
            asyncio.run(_read(lines, config, status, since, as_json or with_names))
        lines.seek(0)
        shutil.copyfileobj(lines, sys.stdout.buffer)
    return 0


async def _read(
    lines: IO[bytes], config: HarvestConfig, status: str, since: datetime | None, as_json: bool
) -> None:
    found = each_campaign(config, status=status, modified_since=since)
    async with aclosing(found):
        async for campaign_id, record in found:
            lines.write((record if as_json else campaign_id.encode()) + b"\n")
