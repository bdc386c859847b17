"""`harvester run`: the batch job."""

import asyncio
import os
import signal
import sys
from contextlib import closing
from types import FrameType

import click

from harvester.cli.collect import collect_ids
from harvester.cli.options import build_config, harvest_options, option, screen_options
from harvester.cli.show import Screen, open_screen
from harvester.client import require_credentials
from harvester.config import HarvestConfig
from harvester.disk.disk_set import DiskSet
from harvester.errors import StopRun
from harvester.reporting.summary import HarvestReport, to_json
from harvester.run import GRACE, Harvester
from harvester.runtime import raise_open_files

_SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)
_AT_THE_LATEST = GRACE + 3.0  # when a task that will not end is cancelled (s)


@click.command()
@harvest_options
@screen_options
@option("--json", "as_json", is_flag=True, help="Print summary.json on standard output.")
@click.pass_context
def run(ctx: click.Context, /, **given: object) -> int:
    """Harvest campaigns; the same command again continues where the last one stopped.

    \b
    Secrets come from HARVESTER_API_KEY and HARVESTER_ACCESS_TOKEN, from --api-key-file and
    --access-token-file, or from --token-command.

    \b
    Exit codes: 0 all complete · 2 usage · 3 some campaigns failed · 4 key or token refused ·
    75 stopped early, the same command goes on · 129/130/143 interrupted, likewise · 1 all else.
    """
    config = build_config(ctx)
    require_credentials(config)
    with closing(collect_ids(ctx, config)) as ids:
        screen = open_screen(
            quiet=ctx.params["quiet"],
            verbose=ctx.params["verbose"],
            live=not ctx.params["no_progress"],
            log_format=ctx.params["log_format"],
        )
        report = asyncio.run(supervise(config, ids, screen))
    screen.close(report, config)
    if ctx.params["as_json"]:
        sys.stdout.buffer.write(to_json(report))
        sys.stdout.flush()
    return report.exit_code


async def supervise(config: HarvestConfig, ids: DiskSet, screen: Screen) -> HarvestReport:
    """Run to the end, or to a signal, and show it."""
    raise_open_files(config.open_files)
    with screen:
        if ids.repeated:
            screen.note(f"{ids.repeated:,} repeated ids are taken once")
        return await _run(config, ids, screen)


async def _run(config: HarvestConfig, ids: DiskSet, screen: Screen) -> HarvestReport:
    harvester = Harvester(config, observe=screen.observe)
    work = asyncio.ensure_future(harvester.run(ids))
    loop = asyncio.get_running_loop()
    told: list[StopRun] = []

    def stop(number: signal.Signals) -> None:
        """First signal: stop in order. A second one ends the process where it stands."""
        # Before the stop is told: whoever reads that may send the second one at once.
        for each in handled:
            loop.remove_signal_handler(each)
            signal.signal(each, exit_now)
        told.append(StopRun(number.name, f"stopped by {number.name}"))
        harvester.stop(number.name, str(told[0]))
        loop.call_later(_AT_THE_LATEST, work.cancel)

    def exit_now(number: int, frame: FrameType | None) -> None:
        """Every commit is in the kernel's hands already: this loses what is in flight, no more."""
        screen.abandon()
        os._exit(128 + number)

    # `nohup` has a hangup ignored; then it stays ignored.
    handled = [each for each in _SIGNALS if signal.getsignal(each) is not signal.SIG_IGN]
    for each in handled:
        loop.add_signal_handler(each, stop, each)
    ticker = _Ticker(screen, loop)
    try:
        return await work
    except asyncio.CancelledError:
        if told:  # it was we who cancelled it, at the latest
            raise told[0] from None
        raise
    finally:
        ticker.stop()


class _Ticker:
    """Has the screen show its figures at regular times, also while nothing happens."""

    def __init__(self, screen: Screen, loop: asyncio.AbstractEventLoop) -> None:
        self._screen = screen
        self._loop = loop
        self._timer = loop.call_later(screen.every, self._tick)

    def _tick(self) -> None:
        self._screen.tick()
        self._timer = self._loop.call_later(self._screen.every, self._tick)

    def stop(self) -> None:
        self._timer.cancel()
