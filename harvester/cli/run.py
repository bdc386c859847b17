"""`harvester run`: the batch job."""

import asyncio
import logging
import os
import signal
import sys
from contextlib import closing
from types import FrameType

import click

# Before the others, so that aiohttp is imported near the top of the call stack. From deeper it
# takes 5 ms more: there CPython asks the kernel for the same chunk of its stack again and again.
import harvester.request.http  # noqa: F401
from harvester.cli.closing import without_report
from harvester.cli.collect import collect_ids
from harvester.cli.command import Command, option
from harvester.cli.options import (
    build_config,
    harvest_options,
    screen_options,
    unknown_variables,
)
from harvester.cli.show import Screen, open_screen
from harvester.client import require_credentials
from harvester.config import HarvestConfig
from harvester.disk.disk_set import DiskSet
from harvester.errors import StopRun
from harvester.preflight import preflight
from harvester.reporting.lines import count
from harvester.reporting.summary import HarvestReport, to_json
from harvester.run import GRACE, Harvester
from harvester.runtime import raise_open_files, repeated

_SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)
_AT_THE_LATEST = GRACE + 3.0  # when a task that will not end is cancelled (s)


@click.command(cls=Command)
@harvest_options
@screen_options
@option("--json", "as_json", is_flag=True, help="Print summary.json on standard output.")
@click.pass_context
def run(ctx: click.Context, /, **given: object) -> int:
    """Harvest campaigns; the same command again continues where the last one stopped.

    \b
        harvester run --all-sent --report all -o year-2026
        harvester campaigns | harvester run -i - -o year-2026 --since last

    Each option can be given as HARVESTER_<NAME> or in a file (--config). Secrets are given by
    `harvester login`, by HARVESTER_API_KEY and HARVESTER_ACCESS_TOKEN, or by the options below.

    \b
    Exit codes: 0 all complete · 1 a bug or a broken disk · 2 usage
    3 some campaigns failed · 4 sign in again · 75 stopped early, the same
    command goes on · 129, 130, 143 interrupted, the same command goes on
    """
    config = build_config(ctx)
    require_credentials(config)
    raise_open_files(config.open_files)
    screen = open_screen(
        quiet=ctx.params["quiet"],
        verbose=ctx.params["verbose"],
        live=not ctx.params["no_progress"],
        log_format=ctx.params["log_format"],
    )
    try:
        ids, config = collect_ids(ctx, config, before_asking=preflight)
        with closing(ids):
            for message in unknown_variables(ctx):
                screen.note(message, logging.WARNING)
            report = asyncio.run(supervise(config, ids, screen))
    except StopRun as order:
        if ctx.params["log_format"] == "text":
            raise
        text, code = without_report(order)
        screen.note(text, logging.ERROR)
        return code
    screen.close(report, config)
    if ctx.params["as_json"]:
        sys.stdout.buffer.write(to_json(report))
    return report.exit_code


async def supervise(config: HarvestConfig, ids: DiskSet, screen: Screen) -> HarvestReport:
    """Run to the end, or to a signal, and show it."""
    with screen.live:
        if ids.repeated:
            screen.note(f"{count(ids.repeated, 'repeated id')} taken once")
        return await _run(config, ids, screen)


async def _run(config: HarvestConfig, ids: DiskSet, screen: Screen) -> HarvestReport:
    harvester = Harvester(config, observe=screen.observe)
    work = asyncio.ensure_future(harvester.run(ids))
    loop = asyncio.get_running_loop()
    orders: list[StopRun] = []

    def stop(number: signal.Signals) -> None:
        """First signal: stop in order. A second one ends the process where it stands."""
        # Before the stop is announced: its reader may send the second signal at once.
        for each in handled:
            loop.remove_signal_handler(each)
            signal.signal(each, exit_now)
        orders.append(StopRun(number.name, f"stopped by {number.name}"))
        harvester.stop(number.name, str(orders[0]))
        loop.call_later(_AT_THE_LATEST, work.cancel)

    def exit_now(number: int, frame: FrameType | None) -> None:
        """The kernel has every commit already: this loses what is in flight, no more."""
        screen.abandon()
        os._exit(128 + number)

    # `nohup` has a hangup ignored; then it stays ignored.
    handled = [each for each in _SIGNALS if signal.getsignal(each) is not signal.SIG_IGN]
    for each in handled:
        loop.add_signal_handler(each, stop, each)
    try:
        with repeated(screen.every, screen.tick):
            return await work
    except asyncio.CancelledError:
        if orders:  # cancelled by `stop`, at the latest
            raise orders[0] from None
        raise
