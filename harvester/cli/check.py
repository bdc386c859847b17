"""`harvester check`: one request that says whether the credentials work."""

import asyncio

import click
import orjson
from msgspec.structs import asdict

from harvester.cli.command import Command
from harvester.cli.flags import by_flags
from harvester.cli.options import build_config, connection_options
from harvester.diagnosis import Diagnosis, diagnose
from harvester.request.token_keeper import account_options

_PRETTY = orjson.OPT_INDENT_2 | orjson.OPT_UTC_Z


@click.command(cls=Command)
@connection_options
@click.option("--json", "as_json", is_flag=True, help="Print the same as JSON.")
@click.pass_context
def check(ctx: click.Context, /, as_json: bool, **given: object) -> int:
    """Ask the API for one campaign, and say whether the credentials work.

    \b
    Exit codes: 0 all is well · 2 usage · 4 key, token, scope or privilege
    refused · 75 no answer now, or the day's quota is spent: try again later.
    """
    config = build_config(ctx)
    found = asyncio.run(diagnose(config))
    if as_json:
        click.echo(orjson.dumps(found, default=asdict, option=_PRETTY))
    else:
        which = account_options(config.account, config.origin, config.auth_origin)
        for line in _lines(found, which if found.sign_in else ""):
            click.echo(line)
    return found.verdict.exit_code


def _lines(found: Diagnosis, which: str) -> list[str]:
    """`which` are the options that the next command needs to use the same account."""
    verdict = found.verdict
    said = by_flags(verdict.message)
    lines = [f"{verdict.wrong or 'ok'}: {said} ({found.api} at {found.origin})"]
    limit = f" of {found.quota.limit:,}" if found.quota.limit else ""
    lines.append(f"requests today: {found.quota.used_today:,}{limit}")
    if (age := found.sign_in) is not None:
        lines.append(
            f"account {age.account!r}: signed in {age.signed_in_at:%Y-%m-%d}, last renewed "
            f"{age.last_renewed_at:%Y-%m-%d}, over after {age.dies_at:%Y-%m-%d} if not used"
        )
        if age.warning:
            lines.append(f"warning: {age.warning}")
    if verdict.wrong is None:
        lines.append(f"next: harvester run --all-sent{which} (or plan, to see what it costs)")
    return lines
