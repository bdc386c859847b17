"""`harvester status` and `harvester verify`: what is in a directory."""

from pathlib import Path
from typing import Any

import click

from harvester.disk import inspect as inspection
from harvester.disk.layout import Layout

_FOUND = 3


@click.command()
@click.argument("directory", type=click.Path(path_type=Path), metavar="DIR")
def status(directory: Path) -> int:
    """Show what is in DIR: campaigns by state, why the last run stopped, when it can go on."""
    layout = Layout(directory)
    states = inspection.read_states(layout)
    click.echo(f"{states.total:>9,} campaigns known in {directory}")
    for name in ("complete", "failed", "partial", "pending"):
        click.echo(f"{getattr(states, name):>9,} {name}")
    if (holder := inspection.holder(layout)) is not None:
        click.echo(f"a run is under way: {holder}")
    elif (summary := inspection.read_summary(layout)) is not None:
        click.echo(_last_run(summary))
    else:
        click.echo("no run has ended yet: the same command goes on")
    return 0


def _last_run(summary: dict[str, Any]) -> str:
    reason, message = summary.get("reason"), summary.get("message")
    line = f"the last run ended {summary.get('finished_at')}: {reason}"
    line += f" ({message})" if message else ""
    if resume_at := summary.get("resume_at"):
        line += f"; the same command goes on from {resume_at}"
    return line


@click.command()
@click.argument("directory", type=click.Path(path_type=Path), metavar="DIR")
@click.option("-q", "--quiet", is_flag=True, help="Only what differs.")
def verify(directory: Path, quiet: bool) -> int:
    """Check every finished file in DIR against the manifest: rows, bytes, sha256.

    Exit code 3 if anything differs; what does is named on standard output.
    """
    layout = Layout(directory)
    findings = 0
    for finding in inspection.verify(layout):
        findings += 1
        click.echo(f"{finding.file}: {finding.problem}")
    if not quiet:
        click.echo(f"{findings or 'no'} differences in {directory}", err=True)
    return _FOUND if findings else 0
