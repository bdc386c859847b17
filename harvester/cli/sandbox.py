"""`harvester sandbox`: the simulated API, served until stopped."""

import asyncio
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from harvester.cli.command import Command, option
from harvester.sandbox import KINDS, Sandbox, SandboxSettings, SignInSettings, serve
from harvester.settings import PACE, SHOWN, SIGN_IN

_PORT = 8765
_ACCOUNT = "The account"
_NETWORK = "The network and its faults"
_POLLS = 1.0  # s between two polls of a sign-in: the vendor's 5 s would only make a person wait
_DEFAULTS = SandboxSettings(campaigns=12, pages=30, rate_limit=4.0, quota=10_000)
_EXAMPLES = {
    "v3": """\
export HARVESTER_BASE_URL={url}
export HARVESTER_AUTH_URL={url}
export HARVESTER_CLIENT_ID={client_id} HARVESTER_STATE_DIR=sandbox-state
harvester login
harvester check
harvester campaigns
harvester run --all-sent --report all -o sandbox-v3
""",
    "v2": """\
export HARVESTER_API=v2 HARVESTER_BASE_URL={url}
export HARVESTER_API_KEY={api_key} HARVESTER_ACCESS_TOKEN={access_token}
export HARVESTER_STATE_DIR=sandbox-state
harvester check
harvester campaigns
harvester run --all-sent --report all -o sandbox-v2
""",
}


def _example(api: str, url: str, settings: SandboxSettings) -> str:
    """What to enter in another terminal."""
    text = _EXAMPLES[api].format(
        url=url,
        client_id=settings.client_id,
        api_key=settings.api_key,
        access_token=settings.access_token,
    )
    return "".join(f"    {line}\n" for line in text.splitlines())


class _Sandbox(Command):
    """Its help ends with the kinds of faults."""

    groups = (_ACCOUNT, SIGN_IN, PACE, _NETWORK, SHOWN)

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


def _option(group: str, name: str, about: str, **attributes: Any) -> Callable[[Any], Any]:
    """An option of a heading, with its default shown; none of them is in the environment."""
    usual = {"envvar": None, "show_default": True}
    usual["default"] = getattr(_DEFAULTS, name.removeprefix("--").replace("-", "_"), None)
    return option(name, group=group, help=about, **{**usual, **attributes})


_HELP = f"""Serve the simulated API on a loopback port, with faults on demand.

Both versions are served, and the sign-in of v3. In another terminal:

\b
{_example("v3", f"http://127.0.0.1:{_PORT}", SandboxSettings())}
Its state is forgotten when it stops: after a restart, log in again.
"""


@click.command(cls=_Sandbox, help=_HELP)
@_option(
    SHOWN,
    "--api",
    "Which example is printed at the start; both versions are served.",
    default="v3",
    type=click.Choice(["v2", "v3"]),
)
@_option(
    _NETWORK,
    "--port",
    "Where to listen on the loopback interface; 0: any free port.",
    default=_PORT,
    type=click.IntRange(0, 65535),
)
@_option(_ACCOUNT, "--seed", "The same seed, the same world.")
@_option(_ACCOUNT, "--campaigns", "Sent campaigns of the account.", type=click.IntRange(1))
@_option(
    _ACCOUNT,
    "--resends",
    "Further mailings of these campaigns.  [default: one for every four campaigns]",
    default=None,
    type=click.IntRange(0),
)
@_option(_ACCOUNT, "--pages", "Pages of opens in all mailings.")
@_option(
    _ACCOUNT,
    "--rows-per-page",
    "The page size by which --pages counts.",
    type=click.IntRange(1, 500),
)
@_option(SIGN_IN, "--api-key", "The key it accepts (v2).")
@_option(SIGN_IN, "--access-token", "A token it always accepts (both versions).")
@_option(
    SIGN_IN,
    "--client-id",
    "The app it accepts (v3); if it is not the API key, each version has limits of its own.",
)
@_option(
    SIGN_IN,
    "--person",
    "What a person does with a sign-in; waits: until you open the link.",
    default="agrees",
    type=click.Choice(["agrees", "waits", "denies"]),
)
@_option(
    SIGN_IN,
    "--token-age",
    "Seconds that an access token is good.",
    default=86_400.0,
    type=click.FloatRange(0, min_open=True),
)
@_option(PACE, "--rate-limit", "Requests a second; 0: none.")
@_option(
    PACE,
    "--limit-kind",
    "How the rate is judged: over any second, by a leaking bucket, by the clock's seconds.",
    type=click.Choice(["sliding", "bucket", "window"]),
)
@_option(PACE, "--quota", "Requests a UTC day; 0: none.")
@_option(PACE, "--retry-after", "Retry-After header of refusals.")
@_option(_NETWORK, "--latency", "Seconds to an answer.")
@_option(_NETWORK, "--jitter", "Up to so many seconds more.")
@_option(
    _NETWORK,
    "--fault",
    "Have so large a part of the pages fail like that; may be repeated.",
    multiple=True,
    callback=_rates,
    metavar="KIND=RATE",
)
@_option(_NETWORK, "--heal-after", "Faulty attempts a page has.")
@_option(SHOWN, "--request-log", "Log requests as NDJSON.", type=click.Path(path_type=Path))
def sandbox(api: str, port: int, resends: int | None, **given: Any) -> int:
    if resends is None:
        campaigns, pages = given["campaigns"], given["pages"]
        resends = max(0, min(campaigns // 4, pages - campaigns))
    try:
        sign_in = SignInSettings(
            person=given.pop("person"), access_token_age=given.pop("token_age"), interval=_POLLS
        )
        settings = SandboxSettings(
            resends=resends, faults=given.pop("fault"), sign_in=sign_in, **given
        )
        asyncio.run(_serve(settings, port, api))
    except ValueError as wrong:  # settings, or a world, that cannot be
        raise click.UsageError(str(wrong)) from None
    except KeyboardInterrupt:
        pass
    return 0


async def _serve(settings: SandboxSettings, port: int, api: str) -> None:
    def announce(sandbox: Sandbox) -> None:
        url = sandbox.base_url
        click.echo(f"the sandbox serves on {url} (stop it with Ctrl-C)", err=True)
        click.echo(f"In another terminal:\n\n{_example(api, url, settings)}", err=True)

    task = asyncio.ensure_future(serve(settings, port=port, ready=announce))
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
            raise click.UsageError(f"cannot {what}: {wrong.strerror}") from None
