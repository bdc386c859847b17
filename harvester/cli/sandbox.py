"""`harvester sandbox`: the simulated API, served until stopped."""

import asyncio
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from harvester.cli.command import Command
from harvester.sandbox import KINDS, Sandbox, SandboxSettings, serve


class _Sandbox(Command):
    """Its help ends with the kinds of faults."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Kinds of faults"):
            formatter.write_dl([*KINDS.items()])


def _rates(ctx: click.Context, param: click.Parameter, given: tuple[str, ...]) -> dict[str, float]:
    rates = {}
    for text in given:
        kind, _, rate = text.partition("=")
        try:
            rates[kind] = float(rate)
        except ValueError:
            raise click.BadParameter(f"{text!r}: give KIND=RATE, as in error500=0.02") from None
    return rates


@click.command(cls=_Sandbox)
@click.option(
    "--port",
    default=8765,
    show_default=True,
    type=click.IntRange(0, 65535),
    help="Where to listen on the loopback interface; 0: any free port.",
)
@click.option("--seed", default=1, show_default=True, help="The same seed, the same world.")
@click.option(
    "--campaigns",
    default=40,
    show_default=True,
    type=click.IntRange(1),
    help="Sent campaigns of the account.",
)
@click.option("--pages", default=150, show_default=True, help="Pages of opens in all.")
@click.option(
    "--rows-per-page",
    default=500,
    show_default=True,
    type=click.IntRange(1, 500),
    help="The page size by which --pages counts.",
)
@click.option("--latency", default=0.0, show_default=True, help="Seconds to an answer.")
@click.option("--jitter", default=0.0, show_default=True, help="Up to so many seconds more.")
@click.option("--rate-limit", default=4.0, show_default=True, help="Requests a second; 0: none.")
@click.option(
    "--limit-kind",
    default="sliding",
    show_default=True,
    type=click.Choice(["sliding", "bucket", "window"]),
    help="How the rate is judged: over any second, by a leaking bucket, by the clock's seconds.",
)
@click.option("--quota", default=10_000, show_default=True, help="Requests a UTC day; 0: none.")
@click.option("--retry-after", help="Retry-After header of refusals.")
@click.option(
    "--fault",
    "faults",
    multiple=True,
    callback=_rates,
    metavar="KIND=RATE",
    help="Have so large a part of the pages fail like that; may be repeated.",
)
@click.option("--heal-after", default=1, show_default=True, help="Faulty attempts a page has.")
@click.option("--request-log", type=click.Path(path_type=Path), help="Log requests as NDJSON.")
@click.option("--api-key", default="sandbox-key", show_default=True, help="The key it accepts.")
@click.option(
    "--access-token", default="sandbox-token", show_default=True, help="The token it accepts."
)
def sandbox(port: int, **settings: Any) -> int:
    """Serve the simulated API on a loopback port, with faults on demand.

    \b
    In another terminal:
        export HARVESTER_API_KEY=sandbox-key HARVESTER_ACCESS_TOKEN=sandbox-token
        harvester campaigns --base-url http://127.0.0.1:8765 > ids.txt
        harvester run -i ids.txt -o out --base-url http://127.0.0.1:8765
    """
    try:
        chosen = SandboxSettings(**settings)
    except ValueError as wrong:
        raise click.UsageError(str(wrong)) from None
    try:
        asyncio.run(_serve(chosen, port))
    except ValueError as wrong:  # a world that cannot be: more campaigns than pages, say
        raise click.UsageError(str(wrong)) from None
    except KeyboardInterrupt:
        pass
    return 0


async def _serve(settings: SandboxSettings, port: int) -> None:
    task = asyncio.ensure_future(serve(settings, port=port, ready=_announce))
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as `nohup` has a hangup
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    with suppress(asyncio.CancelledError):
        try:
            await task
        except OSError as wrong:
            # A file is named by its own error, a port is not.
            what = f"serve on port {port}"
            if wrong.filename is not None:
                what = f"write {wrong.filename} (--request-log)"
            raise click.ClickException(f"cannot {what}: {wrong.strerror}") from None


def _announce(sandbox: Sandbox) -> None:
    click.echo(f"the sandbox serves on {sandbox.base_url} (stop it with Ctrl-C)", err=True)
