"""`harvester status` and `harvester verify`: what is in a directory."""

from datetime import datetime
from pathlib import Path
from typing import Any

import click
import orjson
from msgspec.structs import asdict

from harvester.cli.command import Command, option
from harvester.cli.flags import by_flags
from harvester.disk import inspect as inspection
from harvester.disk import verified
from harvester.disk.layout import Layout
from harvester.disk.verified import Verified
from harvester.reporting.lines import count, size
from harvester.runtime import Clock, next_reset, stamp

_FOUND = 3
_EXAMPLES = 3  # of what differs, kept for the page
_DIRECTORY = click.argument("directory", type=click.Path(path_type=Path), metavar="DIR")


@click.command(cls=Command)
@_DIRECTORY
@option("--json", "as_json", is_flag=True, help="Print it as JSON.", envvar=None)
def status(directory: Path, as_json: bool) -> int:
    """Show what is in DIR: campaigns by state, why the last run stopped, when it can go on."""
    layout = Layout(directory)
    content = inspection.read_content(layout)
    facts = _facts(content, inspection.read_summary(layout) or {})
    facts["running"] = inspection.holder(layout)
    if as_json:
        click.echo(orjson.dumps(facts, option=orjson.OPT_INDENT_2))
        return 0
    click.echo(f"{content.campaigns.total:>9,} campaigns known in {directory}")
    for name, number in facts["campaigns"].items():
        click.echo(f"{number:>9,} {name}")
    for kind, number in content.failed.items():
        click.echo(f"{number:>9,} failed with {kind}: see {layout.errors}")
    click.echo(f"{content.rows:>9,} records, {size(content.bytes)}")
    if quota := facts["quota"]:
        of = f" of {quota['limit']:,}" if quota["limit"] else ""
        click.echo(f"{quota['used_today']:>9,}{of} requests today, as the last run left it")
    click.echo(_last_run(facts))
    return 0


def _facts(content: inspection.Content, summary: dict[str, Any]) -> dict[str, Any]:
    """What `status --json` says; a run's facts are None before the first one has ended."""
    last = ("reason", "message", "exit_code", "resume_at", "finished_at", "run_id")
    return {
        "campaigns": asdict(content.campaigns),
        "rows": content.rows,
        "bytes": content.bytes,
        "failed": content.failed,
        "quota": _quota_now(summary.get("quota"), Clock().now()),
        **{name: summary.get(name) for name in last},
    }


def _quota_now(quota: Any, now: datetime) -> dict[str, Any] | None:
    """The quota as the last run saw it; of a new day nothing is used yet, as far as it knows."""
    try:
        found = {"limit": int(quota["limit"]), "used_today": int(quota["used_today"])}
        if datetime.fromisoformat(quota["resets_at"]) <= now:
            return {**found, "used_today": 0, "resets_at": stamp(next_reset(now))}
    except (KeyError, TypeError, ValueError):
        return None
    return {**found, "resets_at": quota["resets_at"]}


def _last_run(facts: dict[str, Any]) -> str:
    if facts["running"]:
        return f"a run is under way: {facts['running']}"
    if facts["reason"] is None:
        return "no run has ended yet: the same command goes on"
    line = f"the last run ended {facts['finished_at']}: {facts['reason']}"
    line += f" ({by_flags(facts['message'])})" if facts["message"] else ""
    if facts["resume_at"]:
        line += f"; the same command goes on from {facts['resume_at']}"
    return line


@click.command(cls=Command)
@_DIRECTORY
@option("-q", "--quiet", is_flag=True, help="Only what differs.", envvar=None)
@option("--json", "as_json", is_flag=True, help="Print it as JSON.", envvar=None)
def verify(directory: Path, quiet: bool, as_json: bool) -> int:
    """Check every finished file in DIR against the manifest: rows, bytes, sha256.

    Exit code 3 if anything differs; what does is named on standard output.
    """
    layout = Layout(directory)
    files = len(inspection.read_manifest(layout)[0])
    wrong = []
    for finding in inspection.verify(layout):
        wrong.append(asdict(finding))
        if not as_json:
            click.echo(f"{finding.file}: {finding.what}")
    some = tuple(f"{each['file']}: {each['what']}" for each in wrong[:_EXAMPLES])
    found = Verified(at=Clock().now(), files=files, differences=len(wrong), examples=some)
    verified.save(layout, found)
    if as_json:
        facts = {"files": files, "wrong": wrong}
        click.echo(orjson.dumps(facts, option=orjson.OPT_INDENT_2))
    elif not quiet:
        differences = count(len(wrong), "difference") if wrong else "no difference"
        click.echo(f"{count(files, 'file')} checked in {directory}: {differences}", err=True)
    return _FOUND if wrong else 0
