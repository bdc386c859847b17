"""`harvester demo`: the sandbox and a harvest of it in one command; no account, no network."""

import asyncio
from contextlib import closing
from pathlib import Path

import click

from harvester.cli.demo_world import DEMO, PAGE_SIZE, RATE, choose_port
from harvester.cli.run import supervise
from harvester.cli.show import Screen, open_screen
from harvester.config import HarvestConfig
from harvester.disk.layout import Layout
from harvester.input.ids import spool
from harvester.sandbox import Sandbox


@click.command()
@click.option(
    "-o",
    "--output",
    default=Path("harvest-demo"),
    show_default=True,
    type=click.Path(path_type=Path),
    help="Where everything goes.",
)
@click.option("--fresh", is_flag=True, help="Start over.")
@click.option("-v", "--verbose", count=True, help="Each campaign; twice: each request.")
@click.option("--no-progress", is_flag=True, help="Plain lines instead of the live display.")
def demo(output: Path, fresh: bool, verbose: int, no_progress: bool) -> int:
    """Harvest a simulated account: 40 campaigns, 150 pages, some throttles and faults that heal.

    Kill it in the middle and run it again: it goes on where it stopped.
    """
    screen = open_screen(quiet=False, verbose=verbose, live=not no_progress, log_format="text")
    exit_code = asyncio.run(_demo(output, fresh, screen))
    if exit_code == 0:
        click.echo(_farewell(Layout(output)), err=True)
    return exit_code


async def _demo(output: Path, fresh: bool, screen: Screen) -> int:
    layout = Layout(output)
    private = layout.state / "demo"
    port = choose_port(private / "port", fresh=fresh)
    async with Sandbox(DEMO, port=port) as sandbox:
        config = HarvestConfig(
            output=output,
            base_url=sandbox.base_url,
            api_key=DEMO.api_key,
            access_token=DEMO.access_token,
            page_size=PAGE_SIZE,
            rate=RATE,
            fresh=fresh,
            state_dir=private,  # the demo's requests are none of a real day's
        )
        with closing(spool(sandbox.world.campaign_ids, None, config.make_api().check_id)) as ids:
            report = await supervise(config, ids, screen)
    screen.close(report, config)
    return report.exit_code


def _farewell(layout: Layout) -> str:
    first = next(path for path in sorted(layout.root.glob("opens/*.ndjson")) if path.stat().st_size)
    with first.open("rb") as lines:
        record = lines.readline().decode().rstrip()
    return f"""
The files are in {layout.root}/; {first.relative_to(layout.root)} begins:
  {record}

What to try next:
  harvester demo --fresh               again; kill it in the middle (Ctrl-C, or kill -9),
  harvester demo                       and see it go on where it stopped
  harvester verify {layout.root}        every file against the manifest
  harvester run --help                 the first real run: export HARVESTER_API_KEY and
                                       HARVESTER_ACCESS_TOKEN, then
  harvester run -i ids.txt -o opens"""
