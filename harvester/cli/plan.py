"""`harvester plan`: what a run would do, and when it could be done."""

import asyncio
from contextlib import closing
from datetime import datetime
from typing import Any

import click
import orjson

from harvester.cli.collect import collect_ids
from harvester.cli.command import Command, option
from harvester.cli.options import build_config, harvest_options, screen_options, warn_of_environment
from harvester.client import requests_used_today
from harvester.config import KNOWN, HarvestConfig
from harvester.disk import inspect as inspection
from harvester.disk.disk_set import DiskSet
from harvester.forecast import Estimate
from harvester.forecast import ask as ask_api
from harvester.input.queue import REFUSED_FOR_GOOD
from harvester.preflight import layout_of
from harvester.reporting.eta import Allowance, days_needed, finish_time
from harvester.reporting.lines import count
from harvester.runtime import Clock, stamp


@click.command(cls=Command)
@harvest_options
@screen_options
@option("--ask", is_flag=True, help="Ask for the API's counts first; they are kept for the run.")
@option("--json", "as_json", is_flag=True, help="Print the plan as JSON.")
@click.pass_context
def plan(ctx: click.Context, /, ask: bool, as_json: bool, **given: object) -> int:
    """Show what `run` with the same arguments would do. Sends nothing, changes nothing.

    \b
        harvester plan -i ids.txt --report all
        harvester plan -i ids.txt --report all --daily-quota 5000 --json

    The pages of a campaign are not known: the requests are a lower bound, one for each report of
    each campaign that is not finished. With --ask the API says how many rows there are (v3): a few
    requests, which are charged; what they bring is kept in the output directory for the run.
    """
    config = build_config(ctx)
    warn_of_environment(ctx)
    if not config.fresh:
        inspection.check_directory(layout_of(config), config.identity(), known_reports=KNOWN)
    ids, config = collect_ids(ctx, config)
    with closing(ids):
        forecast, estimate = _forecast(config, ids), None
        if ask and not config.fresh:
            estimate = asyncio.run(ask_api(ids, config))
        facts = _facts(config, forecast, estimate)
    if as_json:
        click.echo(orjson.dumps(facts, option=orjson.OPT_INDENT_2))
    else:
        click.echo(_text(facts, config))
    return 0


def _forecast(config: HarvestConfig, ids: DiskSet) -> inspection.Forecast:
    if config.fresh:
        states = inspection.States(pending=len(ids))
        return inspection.Forecast(states, len(ids) * len(config.walks))
    return inspection.classify(
        layout_of(config),
        ids,
        config.walks,
        for_good=None if config.retry_failed else REFUSED_FOR_GOOD,
        top_up=config.tops_up,
    )


def _facts(
    config: HarvestConfig, forecast: inspection.Forecast, estimate: Estimate | None
) -> dict[str, Any]:
    """What `plan --json` says. `failed` are the campaigns that the API refused for good."""
    now, used = Clock().now(), requests_used_today(config)
    allowance = Allowance(config.rate, config.requests_a_day, used)
    estimate = estimate or Estimate(forecast.walks, forecast.walks > 0)
    requests, states = estimate.requests, forecast.states
    return {
        "requests": requests,
        "at_least": estimate.at_least,
        "days": days_needed(now, requests, allowance),
        "done_about": stamp(finish_time(now, requests, allowance)),
        "campaigns": {
            "total": states.total,
            "done": states.complete,
            "partial": states.partial,
            "new": states.pending,
            "failed": states.failed,
        },
        "used_today": used,
        "left_today": allowance.left_today,
    }


def _text(facts: dict[str, Any], config: HarvestConfig) -> str:
    campaigns, left = facts["campaigns"], facts["left_today"]
    bound = "at least " if facts["at_least"] else ""
    quota = "no daily quota" if left is None else f"{left:,} left today"
    pace = f"at {config.rate:g} a second" if config.rate else "with no pace"
    done = "a request each at least, for what is new" if config.tops_up else "cost no request"
    rows = [
        ("campaigns", f"{campaigns['total']:,} for {config.directory}"),
        ("done", f"{campaigns['done']:,}: {done}"),
        ("partial", f"{campaigns['partial']:,}: continued where they stopped"),
        ("new", f"{campaigns['new']:,}"),
    ]
    if campaigns["failed"]:
        rows.append(("failed", f"{campaigns['failed']:,}: asked again only with --retry-failed"))
    rows.append(
        ("requests", f"{bound}{facts['requests']:,} ({facts['used_today']:,} used today, {quota})")
    )
    if facts["requests"]:
        days = count(facts["days"], "day")
        when = "not before" if bound else "done about"
        about = datetime.fromisoformat(facts["done_about"])
        rows.append(("time", f"{bound}{days} {pace}, {when} {about:%a %d %b %Y, %H:%M} UTC"))
    return "\n".join(f"{name:>10}  {text}" for name, text in rows)
