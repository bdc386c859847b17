"""`harvester plan`: what a run would do, and when it could be done."""

from contextlib import closing
from typing import Any

import click
import orjson

from harvester.cli.collect import collect_ids
from harvester.cli.options import build_config, harvest_options, option, screen_options
from harvester.client import requests_used_today
from harvester.config import KNOWN, HarvestConfig
from harvester.disk import inspect as inspection
from harvester.disk.compress import CODECS
from harvester.disk.disk_set import DiskSet
from harvester.disk.layout import Layout
from harvester.input.queue import REFUSED_FOR_GOOD
from harvester.reporting.eta import Allowance, days_needed, finish_time
from harvester.runtime import Clock, stamp


@click.command()
@harvest_options
@screen_options
@option("--json", "as_json", is_flag=True, help="Print the plan as JSON.")
@click.pass_context
def plan(ctx: click.Context, /, as_json: bool, **given: object) -> int:
    """Show what `run` with the same arguments would do. Sends nothing, changes nothing."""
    config = build_config(ctx)
    with closing(collect_ids(ctx, config)) as ids:
        facts = _facts(config, _outlook(config, ids))
    if as_json:
        click.echo(orjson.dumps(facts, option=orjson.OPT_INDENT_2))
    else:
        click.echo(_text(facts, config))
    return 0


def _outlook(config: HarvestConfig, ids: DiskSet) -> inspection.Forecast:
    if config.fresh:
        return inspection.Forecast(
            inspection.States(pending=len(ids)), len(ids) * len(config.walks)
        )
    layout = Layout(config.directory, CODECS[config.compress].suffix)
    inspection.check_directory(layout, config.identity(), known_reports=KNOWN)
    return inspection.classify(
        layout,
        ids,
        config.walks,
        for_good=None if config.retry_failed else REFUSED_FOR_GOOD,
        top_up=config.tops_up,
    )


def _facts(config: HarvestConfig, outlook: inspection.Forecast) -> dict[str, Any]:
    now, used = Clock().now(), requests_used_today(config)
    allowance = Allowance(config.rate, config.requests_a_day, used)
    # A page is a request, and nobody knows how many pages a walk has: at least one more.
    requests, states = outlook.walks, outlook.states
    return {
        "campaigns": states.total,
        "complete": states.complete,
        "failed": states.failed,
        "partial": states.partial,
        "new": states.pending,
        "requests_at_least": requests,
        "requests_used_today": used,
        "requests_left_today": allowance.left_today,
        "days_at_least": days_needed(now, requests, allowance),
        "done_at_the_earliest": stamp(finish_time(now, requests, allowance)),
    }


def _text(facts: dict[str, Any], config: HarvestConfig) -> str:
    left = facts["requests_left_today"]
    quota = "no daily quota" if left is None else f"{left:,} left today"
    lines = [
        f"{facts['campaigns']:>9,} campaigns for {config.directory}",
        f"{facts['complete']:>9,} done: "
        + ("topped up, a request each at least" if config.tops_up else "cost no request"),
        f"{facts['partial']:>9,} partial: continued where they stopped",
        f"{facts['new']:>9,} new",
    ]
    if facts["failed"]:
        lines.append(f"{facts['failed']:>9,} refused for good (tried again with --retry-failed)")
    lines += [
        f"{facts['requests_at_least']:>9,} requests at least, a page each "
        f"({facts['requests_used_today']:,} used today, {quota})",
        f"{facts['days_at_least']:>9,} days at least at {config.rate:g} a second: "
        f"not before {facts['done_at_the_earliest']}",
    ]
    return "\n".join(lines)
