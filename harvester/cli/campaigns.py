"""`harvester campaigns`: the ids of an account's campaigns, ready for `run -i -`."""

import asyncio
import shutil
import sys
from contextlib import aclosing, closing
from datetime import datetime
from tempfile import SpooledTemporaryFile
from typing import IO

import click
from click.core import ParameterSource

from harvester.api.v2 import V2
from harvester.api.v3 import V3
from harvester.cli.collect import whole_list
from harvester.cli.command import Command, option
from harvester.cli.options import build_config, connection_options, source_of, warn_of_environment
from harvester.client import campaigns as each_campaign
from harvester.client import open_alone
from harvester.config import HarvestConfig
from harvester.disk.disk_set import DiskSet
from harvester.errors import ConfigError
from harvester.input.campaign_list import STATUSES
from harvester.input.ids import spool
from harvester.input.xrefs import list_xrefs
from harvester.settings import WHAT, parse_moment

_IN_MEMORY = 1_000_000  # bytes; a longer list waits on disk
_SOME_MISSING = 3


@click.command(cls=Command)
@option(
    "--status",
    group=WHAT,
    type=click.Choice(STATUSES, case_sensitive=False),
    default="SENT",
    show_default=True,
    help="Campaigns in this state; ERROR: v3 only.",
)
@option("--modified-since", group=WHAT, metavar="WHEN", help="Only those changed since.")
@option(
    "--from-v2",
    group=WHAT,
    envvar=None,
    type=click.Path(allow_dash=True),
    callback=source_of,
    help="Instead of the list: the v3 ids of the v2 ids in a file; - is standard input.",
)
@option("--json", "as_json", is_flag=True, help="The API's own records, one a line.")
@option("--with-names", is_flag=True, hidden=True)
@connection_options
@click.pass_context
def campaigns(
    ctx: click.Context,
    /,
    status: str,
    modified_since: str | None,
    from_v2: str | None,
    as_json: bool,
    with_names: bool,
    **given: object,
) -> int:
    """List campaign ids from the API, one a line, ready for `harvester run -i -`.

    \b
        harvester campaigns | harvester run -i - -o year-2026
        harvester campaigns --status ALL --json > campaigns.ndjson
        harvester campaigns --from-v2 old-ids.txt > ids.txt

    \b
    Exit codes: 0 · 2 usage · 3 some v2 ids have no v3 id (named on standard
    error; the others are listed) · 4 sign in again · 75 try again later
    """
    config = build_config(ctx)
    warn_of_environment(ctx)
    since = parse_moment(modified_since, name="modified_since")
    as_json = as_json or with_names
    # Nothing is printed before the list has come to its end: `run -i -` would take part of it for
    # the whole.
    with SpooledTemporaryFile(max_size=_IN_MEMORY) as lines:
        with whole_list("listed"):
            if from_v2 is None:
                missing = 0
                asyncio.run(_read(lines, config, status, since, as_json))
            else:
                missing = _translate(ctx, lines, config, from_v2, as_json)
        lines.seek(0)
        shutil.copyfileobj(lines, sys.stdout.buffer)
    return _SOME_MISSING if missing else 0


async def _read(
    lines: IO[bytes], config: HarvestConfig, status: str, since: datetime | None, as_json: bool
) -> None:
    found = each_campaign(config, status=status, modified_since=since)
    async with aclosing(found):
        async for campaign_id, record in found:
            lines.write((record if as_json else campaign_id.encode()) + b"\n")


def _translate(
    ctx: click.Context, lines: IO[bytes], config: HarvestConfig, source: str, as_json: bool
) -> int:
    """Write the v3 ids of the v2 ids in a file; gives how many have none."""
    for name in ("status", "modified_since"):
        if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            flag = "--" + name.replace("_", "-")
            raise click.UsageError(f"--from-v2 asks for the ids in a file: {flag} has no effect")
    if config.api != "v3":
        raise ConfigError("--from-v2 asks v3: sign in with `harvester login`, or give --api v3")
    with closing(spool((), source, V2().check_id, setting="from_v2")) as v2_ids:
        if not len(v2_ids):
            raise click.UsageError("no v2 ids: the file has only blank lines and comments")
        return asyncio.run(_write_xrefs(lines, config, v2_ids, as_json))


async def _write_xrefs(
    lines: IO[bytes], config: HarvestConfig, v2_ids: DiskSet, as_json: bool
) -> int:
    """A v3 campaign is written once: its resends are campaigns of their own in v2."""
    missing, api = 0, V3(config.origin)
    async with open_alone(config) as (fetcher, _):
        found = list_xrefs(fetcher, api, v2_ids)
        with closing(DiskSet()) as written:
            async for v2_id, xref in found:
                if xref is None:
                    missing += 1
                    click.echo(f"harvester: warning: v2 id {v2_id} has no v3 id", err=True)
                elif as_json:
                    lines.write(xref.record + b"\n")
                elif written.add(xref.v3_id):
                    lines.write(xref.v3_id.encode() + b"\n")
    return missing
