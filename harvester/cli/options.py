"""The options of `run` and `plan`, and the one config they make.

A flag goes before the environment (`HARVESTER_<NAME>`), that before `--config FILE`, that before
the default. Secrets have no flag: argv can be read by everybody on the machine.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import click
from click.core import ParameterSource

from harvester.cli.settings_file import options_of, read_settings
from harvester.config import ORIGINS, HarvestConfig
from harvester.errors import ConfigError
from harvester.request.credentials import read_secret

F = TypeVar("F", bound=Callable[..., Any])
_DEFAULTS = HarvestConfig()
_NO_SHELL = (ParameterSource.ENVIRONMENT, ParameterSource.DEFAULT_MAP)


def option(*names: str, **attributes: Any) -> Callable[[F], F]:
    """A click option that can also be given as `HARVESTER_<NAME>`."""
    long = next(name for name in names if name.startswith("--"))
    attributes.setdefault("envvar", "HARVESTER_" + long[2:].upper().replace("-", "_"))
    return click.option(*names, **attributes)


def _setting(*names: str, help: str, **attributes: Any) -> Callable[[F], F]:  # noqa: A002
    """An option of the same name and default as a setting."""
    long = next(name for name in names if name.startswith("--"))
    default = getattr(_DEFAULTS, long[2:].replace("-", "_"))
    default = ",".join(default) if isinstance(default, tuple) else default
    return option(
        *names, default=default, help=help, show_default=default is not None, **attributes
    )


def _path(ctx: click.Context, param: click.Parameter, value: str | None) -> Path | None:
    """A path; a leading ~ is the home folder where no shell has seen it.

    An empty one is refused: it comes of a variable that is not set, and would mean `.`.
    """
    if value is None:
        return None
    if not str(value).strip():
        raise click.BadParameter("the path is empty (. is the current directory)", ctx, param)
    path = Path(value)
    if ctx.get_parameter_source(param.name or "") not in _NO_SHELL:
        return path
    try:
        return path.expanduser()
    except RuntimeError:
        raise click.BadParameter(f"there is no home folder for {value}", ctx, param) from None


def _output(ctx: click.Context, param: click.Parameter, value: str) -> Path | None:
    """The same, where also an empty variable is no default: things are deleted there."""
    flag = ctx.get_parameter_source(param.name or "") is ParameterSource.COMMANDLINE
    empty = not flag and os.environ.get("HARVESTER_OUTPUT") == ""
    return _path(ctx, param, "" if empty else value)


def _input(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """The same as text: `-` is standard input, and `./-` is not."""
    path = _path(ctx, param, value)
    return str(path) if value and value.startswith("~") else value


def _read_config(ctx: click.Context, param: click.Parameter, given: str | None) -> Path | None:
    """Make the file's settings the defaults of every option."""
    value = _path(ctx, param, given)
    if value is None:
        return None
    ctx.default_map = read_settings(value, ctx.command, elsewhere=_options_of_a_run())
    return value


def _options_of_a_run() -> set[str]:
    return {*options_of(screen_options(harvest_options(click.Command("run")))), "json"}


settings_file_option = click.option(
    "--config",
    type=click.Path(),
    callback=_read_config,
    is_eager=True,
    expose_value=False,
    envvar="HARVESTER_CONFIG",
    help="Settings in TOML, named as the options.",
)
state_dir_option = option(
    "--state-dir",
    help="Where the day's count of each key and the signed-in accounts are kept.  "
    "[default: the user's state folder]",
    type=click.Path(),
    callback=_path,
)
_CONNECTION = (
    _setting("--api", help="Version of the API.", type=click.Choice(list(ORIGINS))),
    option("--base-url", help="Origin of the API.  [default: the vendor's]", metavar="URL"),
    _setting("--auth-url", help="Origin of v3's sign-in.", metavar="URL"),
    _setting("--account", help="Whose sign-in to use.", metavar="NAME"),
    _setting("--client-id", help="The v3 app, which owns the limits.", metavar="ID"),
    _setting(
        "--rate",
        help="Request starts a second over all workers; 0: no pace.",
        type=click.FloatRange(0),
    ),
    _setting("--retries", help="More tries for one page.", type=click.IntRange(0, 100)),
    _setting(
        "--timeout",
        help="Seconds for one request.",
        type=click.FloatRange(0, 86_400, min_open=True),
    ),
    _setting("--max-wait", help="The longest wait, in seconds.", type=click.FloatRange(0)),
    _setting("--daily-quota", help="Requests a UTC day; 0: no quota.", type=click.IntRange(0)),
    _setting("--quota-reserve", help="Requests left for others.", type=click.IntRange(0)),
    state_dir_option,
    option("--api-key-file", help="File with the API key.", type=click.Path(), callback=_path),
    option(
        "--access-token-file", help="File with the access token.", type=click.Path(), callback=_path
    ),
    option("--token-command", help="Command that prints the access token.", metavar="CMD"),
)
_WHAT = (
    click.argument("ids", nargs=-1, metavar="[ID ...]"),
    option(
        "-i",
        "--input",
        help="Ids, one a line; - is standard input.",
        metavar="FILE",
        callback=_input,
    ),
    option("--all-sent", is_flag=True, help="Every sent campaign that the API lists."),
    _setting("-o", "--output", help="Where everything goes.", type=click.Path(), callback=_output),
    _setting("--report", help="Tracking reports, or all.", metavar="NAME[,NAME...]"),
    _setting(
        "--since",
        help="Only events from then on: a date, a date-time with its offset, or last.",
        metavar="WHEN",
    ),
    _setting("--page-size", help="Rows a page, 1 to 500.", type=click.IntRange(1, 500)),
    _setting(
        "--min-page-size",
        help="Where no try at a page succeeds, ask for smaller ones, down to so many rows.",
        type=click.IntRange(1, 500),
    ),
    _setting(
        "-j",
        "--concurrency",
        help="Requests in flight, each of another campaign.",
        type=click.IntRange(1, 1000),
    ),
    _setting("--max-requests", help="Stop after so many.", type=click.IntRange(1)),
    _setting(
        "--max-duration",
        help="Stop after so many seconds.",
        type=click.FloatRange(0, min_open=True),
    ),
    _setting("--max-pages", help="Fail a campaign with more.", type=click.IntRange(1)),
    _setting("--max-page-bytes", help="Refuse a larger page.", type=click.IntRange(1)),
    option("--wait-for-quota", is_flag=True, help="Sleep until the quota resets, then go on."),
    option("--fresh", is_flag=True, help="Forget what is in the directory and start over."),
    option("--retry-failed", is_flag=True, help="Also try again what the API refused for good."),
    option("--repair", is_flag=True, help="Also harvest again finished files that are not whole."),
    option(
        "--sizes",
        help="manifest.ndjson of an earlier harvest: the longest campaigns are begun first.",
        type=click.Path(),
        callback=_path,
    ),
    option("--summary", is_flag=True, help="Hold the API's own counts beside ours."),
    option("--provenance", is_flag=True, help="Also where each page came from, in pages.ndjson."),
    option("--links", is_flag=True, help="Also the links of each campaign."),
    _setting("--compress", help="Compress the files.", type=click.Choice(["zstd", "gzip"])),
)


_SCREEN = (
    option("-q", "--quiet", is_flag=True, help="Only warnings and errors."),
    option("-v", "--verbose", count=True, help="Each campaign; twice: each request."),
    option("--no-progress", is_flag=True, help="Plain lines instead of the live display."),
    option(
        "--log-format",
        type=click.Choice(["text", "json"]),
        default="text",
        help="Log lines as text or JSON.",
        show_default=True,
    ),
)


def harvest_options(command: F) -> F:
    """Add every option of a harvest to a command."""
    return _decorated(command, (*_WHAT, *_CONNECTION, settings_file_option))


def screen_options(command: F) -> F:
    """Add the options of what is shown to a command."""
    return _decorated(command, _SCREEN)


def connection_options(command: F) -> F:
    """Add the options of talking to the API to a command."""
    return _decorated(command, (*_CONNECTION, settings_file_option))


def _decorated(command: F, options: Sequence[Callable[[F], F]]) -> F:
    for decorate in reversed(options):
        command = decorate(command)
    return command


def build_config(ctx: click.Context) -> HarvestConfig:
    """The config that flags, environment and file come to. Raise `ConfigError`."""
    given = dict(ctx.params)
    names = set(HarvestConfig.__dataclass_fields__)
    settings = {name: value for name, value in given.items() if name in names}
    settings |= {"access_token_file": None, "token_command": None, **_token(ctx, given)}
    config = HarvestConfig(**settings, api_key=_api_key(ctx, given["api_key_file"]))
    return replace(config, proxy=proxy_for(config.origin))


_RANK = {
    ParameterSource.COMMANDLINE: 3,
    ParameterSource.ENVIRONMENT: 2,
    ParameterSource.DEFAULT_MAP: 1,
}


def _api_key(ctx: click.Context, file: Path | None) -> str | None:
    from_environment = os.environ.get("HARVESTER_API_KEY", "").strip() or None
    if file is None or (from_environment and _rank(ctx, "api_key_file") < 2):
        return from_environment
    if not (key := read_secret(file)):
        raise ConfigError(f"{file} (--api-key-file) is empty: the key is its first line")
    return key


def _token(ctx: click.Context, given: Mapping[str, Any]) -> dict[str, Any]:
    """Where the token comes from: the nearest source; of equals, the one that can be renewed."""
    found = [
        (_rank(ctx, name), name, given[name])
        for name in ("token_command", "access_token_file")
        if given[name]
    ]
    if token := os.environ.get("HARVESTER_ACCESS_TOKEN", "").strip():
        found.append((_RANK[ParameterSource.ENVIRONMENT], "access_token", token))
    if not found:
        return {}
    _, name, value = max(found, key=lambda source: source[0])
    return {name: value}


def _rank(ctx: click.Context, name: str) -> int:
    source = ctx.get_parameter_source(name)
    return _RANK.get(source, 0) if source is not None else 0


def proxy_for(origin: str) -> str | None:
    """HTTPS_PROXY, unless NO_PROXY names the host. Plain http is loopback: never by a proxy."""
    parts = urlsplit(origin)
    if parts.scheme != "https" or proxy_bypass(parts.hostname or ""):
        return None
    return getproxies().get("https")
