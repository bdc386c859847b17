"""`harvester demo`: the sandbox, a sign-in and a harvest in one command; no account, no network."""

import asyncio
import errno
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, closing, suppress
from pathlib import Path
from urllib.parse import urlsplit

import click

from harvester.cli.command import Command, option
from harvester.cli.login import show_code
from harvester.cli.run import supervise
from harvester.cli.show import Screen, open_screen
from harvester.client import open_store
from harvester.config import HarvestConfig
from harvester.device_flow import sign_in
from harvester.disk.layout import Layout
from harvester.disk.lock import refuse_held
from harvester.disk.storage import replace_file
from harvester.errors import ConfigError
from harvester.input.ids import spool
from harvester.request.token_keeper import renew_at
from harvester.runtime import Clock, raise_open_files
from harvester.sandbox import Sandbox, SandboxSettings, SignInSettings
from harvester.settings import REPAIR, WHERE

_OUTPUT = Path("harvest-demo")
PAGE_SIZE = 50
RATE = 100.0
DEMO = SandboxSettings(
    seed=7,
    campaigns=40,
    resends=5,
    pages=150,
    rows_per_page=PAGE_SIZE,
    latency=0.03,
    jitter=0.02,
    faults={
        "throttle": 0.012,
        "error500": 0.02,
        "error503": 0.01,
        "reset": 0.015,
        "cut": 0.01,
        "cut_gzip": 0.01,
        "html": 0.01,
    },
    sign_in=SignInSettings(interval=1.0),
)
"""A small account with a bad connection, the same every time; its person agrees at once."""


@click.command(cls=Command)
@option(
    "-o",
    "--output",
    group=WHERE,
    default=_OUTPUT,
    envvar=None,
    show_default=True,
    type=click.Path(path_type=Path),
    help="Where everything goes.",
)
@option("--fresh", group=REPAIR, envvar=None, is_flag=True, help="Start over.")
@option("-v", "--verbose", count=True, help="Each campaign; twice: each request.")
@option("--no-progress", is_flag=True, help="Plain lines instead of the live display.")
def demo(output: Path, fresh: bool, verbose: int, no_progress: bool) -> int:
    """Sign in to a simulated account and harvest it: 40 campaigns, 5 resends, 150 pages, some
    throttles and faults that heal.

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
    refuse_held(layout)  # its origin is left as it is
    async with serve_again(private / "origin", fresh=fresh) as sandbox:
        config = HarvestConfig(
            output=output,
            api="v3",
            base_url=sandbox.base_url,
            auth_url=sandbox.base_url,
            client_id=DEMO.client_id,
            page_size=PAGE_SIZE,
            rate=RATE,
            fresh=fresh,
            state_dir=private,  # neither its account nor its requests are the user's
        )
        raise_open_files(config.open_files)
        await _sign_in(config, again=fresh)
        with closing(spool(sandbox.world.v3_campaign_ids, None, config.make_api().check_id)) as ids:
            report = await supervise(config, ids, screen)
    screen.close(report, config)
    return report.exit_code


async def _sign_in(config: HarvestConfig, *, again: bool) -> None:
    """Sign in, unless the token of an earlier demo is still good and is not to be had `again`. The
    sandbox forgets the refresh tokens that it gave out before."""
    account, now = None, Clock().now().timestamp()
    with suppress(ConfigError):  # damaged: replaced
        account = open_store(config).read()
    kept = account is not None and account.base_url == config.origin and now < renew_at(account)
    if kept and not again:
        return
    click.echo("This is what `harvester login` shows. A simulated person confirms it:\n", err=True)
    await sign_in(config, show=show_code)
    click.echo("The person agreed: signed in.\n", err=True)


@asynccontextmanager
async def serve_again(memory: Path, *, fresh: bool) -> AsyncIterator[Sandbox]:
    """Serve the sandbox at the origin that is kept in `memory`: a harvest belongs to one.

    A `fresh` one as well, if it can: a kill may come before the harvest of that origin is removed.
    Raise `ConfigError` if the port is taken, or if there can be no such directory.
    """
    async with AsyncExitStack() as stack:
        try:
            port = _known_port(memory)
            try:
                sandbox = await stack.enter_async_context(Sandbox(DEMO, port=port))
            except OSError as taken:
                if not fresh or taken.errno != errno.EADDRINUSE:
                    raise
                sandbox = await stack.enter_async_context(Sandbox(DEMO))
        except OSError as wrong:
            if wrong.errno == errno.EADDRINUSE:
                raise ConfigError(
                    f"port {port}, where this demo was served, is taken: is another demo "
                    "running? Stop it, or give another --output, or --fresh"
                ) from None
            raise ConfigError(f"cannot keep {memory}: {wrong.strerror}", setting="output") from None
        replace_file(memory, sandbox.base_url.encode())
        yield sandbox


def _known_port(memory: Path) -> int:
    """The port that was served before; 0, which is any, where there is none."""
    memory.parent.mkdir(parents=True, exist_ok=True)
    return (urlsplit(memory.read_text()).port or 0) if memory.exists() else 0


def _farewell(layout: Layout) -> str:
    first = next(path for path in sorted(layout.root.glob("opens/*.ndjson")) if path.stat().st_size)
    with first.open("rb") as lines:
        record = lines.readline().decode().rstrip()
    where = "" if layout.root == _OUTPUT else f" -o {layout.root}"
    return f"""
The files are in {layout.root}/; {first.relative_to(layout.root)} begins:
  {record}

What to try next:
  harvester demo --fresh{where}
      again; kill it in the middle (Ctrl-C, or kill -9), and see that
  harvester demo{where}
      goes on where it stopped
  harvester verify {layout.root}
      checks every file against the manifest
  harvester login --help
      is the first step of a real one"""
