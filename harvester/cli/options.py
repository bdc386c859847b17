"""The options of `run` and `plan`, made of the table of settings, and the one config they make.

A flag goes before the environment (`HARVESTER_<NAME>`), that before `--config FILE`, that before
the default. Secrets have no flag: every user of the machine can read argv.
"""

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import click
from click.core import ParameterSource

from harvester.cli.command import F, decorated, option, perhaps
from harvester.cli.settings_file import options_of, read_settings
from harvester.config import HarvestConfig, settings_table
from harvester.errors import ConfigError
from harvester.request.credentials import read_secret
from harvester.settings import SIGN_IN, WHAT, Setting

_NO_SHELL = (ParameterSource.ENVIRONMENT, ParameterSource.DEFAULT_MAP)
_SHORT = {"output": "-o", "concurrency": "-j"}
_CONNECTION = (
    "state_dir", "rate", "daily_quota", "quota_reserve", "retries", "timeout", "max_wait", "api",
    "base_url", "auth_url", "account", "client_id", "access_token_file", "token_command",
)  # fmt: skip
_SECRETS = ("HARVESTER_API_KEY", "HARVESTER_ACCESS_TOKEN")


def path_of(ctx: click.Context, param: click.Parameter, value: str | None) -> Path | None:
    """A path; a leading ~ is the home folder where no shell has seen it.

    An empty one is refused: it comes of a variable that is not set, and would mean `.`. An empty
    HARVESTER_OUTPUT is refused too: files are deleted there.
    """
    source = ctx.get_parameter_source(param.name or "")
    unset = param.name == "output" and os.environ.get("HARVESTER_OUTPUT") == ""
    if value is None:
        return None
    if not str(value).strip() or (unset and source is not ParameterSource.COMMANDLINE):
        raise click.BadParameter("the path is empty (. is the current directory)", ctx, param)
    path = Path(value)
    if source not in _NO_SHELL:
        return path
    try:
        return path.expanduser()
    except RuntimeError:
        raise click.BadParameter(f"there is no home folder for {value}", ctx, param) from None


def source_of(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """A file of ids, as text: `-` is standard input, and `./-` is not."""
    path = path_of(ctx, param, value)
    return str(path) if value and value.startswith("~") else value


def _read_config(ctx: click.Context, param: click.Parameter, given: str | None) -> None:
    """Make the file's settings the defaults of every option."""
    if (path := path_of(ctx, param, given)) is not None:
        ctx.default_map = read_settings(path, ctx.command, elsewhere=_options_of_a_run())


def _options_of_a_run() -> set[str]:
    return {*options_of(screen_options(harvest_options(click.Command("run")))), "json"}


def _from_table(name: str, row: Setting, types: tuple[type, ...]) -> Callable[[Any], Any]:
    """The option of a setting."""
    default = HarvestConfig.__dataclass_fields__[name].default
    attributes: dict[str, Any] = {"default": default, "metavar": row.metavar}
    if bool in types:
        name = f"no_{name}" if default else name
        attributes = {"is_flag": True}
    elif Path in types:
        attributes |= {"type": click.Path(), "callback": path_of}
    elif row.words:
        attributes["type"] = click.Choice(row.words)
    elif int in types:
        ranged: Any = click.FloatRange if float in types else click.IntRange
        attributes["type"] = ranged(row.least, row.most, min_open=row.above)
        attributes["metavar"] = "SECONDS" if row.unit == "seconds" else "N"
    about = f"{row.about}  [default: {row.otherwise}]" if row.otherwise else row.about
    flag = "--" + name.replace("_", "-")
    names = [_SHORT[name], flag] if name in _SHORT else [flag]
    shown = default is not None and bool not in types
    return option(*names, group=row.group, help=about, show_default=shown, **attributes)


def _options(names: Iterable[str]) -> list[Callable[[Any], Any]]:
    return [_from_table(name, *row) for name, row in settings_table().items() if name in names]


_settings_file_option = option(
    "--config",
    group=WHAT,
    type=click.Path(),
    callback=_read_config,
    is_eager=True,
    expose_value=False,
    help="Settings in TOML, named as the options.",
)
_key_file_option = option(
    "--api-key-file",
    group=SIGN_IN,
    type=click.Path(),
    callback=path_of,
    help="A file whose first line is the API key.",
)


def setting_options(*names: str) -> Callable[[F], F]:
    """Add the options of these settings to a command."""
    return lambda command: decorated(command, [*_options(names), _settings_file_option])


def harvest_options(command: F) -> F:
    """Add every option of a harvest to a command."""
    ids = (
        click.argument("ids", nargs=-1, metavar="[ID ...]"),
        option(
            "-i",
            "--input",
            group=WHAT,
            type=click.Path(allow_dash=True),
            callback=source_of,
            help="A file of ids, one a line; - is standard input.",
        ),
        option("--all-sent", group=WHAT, is_flag=True, help="Every sent campaign of the account."),
    )
    with_option = [name for name, (row, _) in settings_table().items() if row.group]
    return decorated(
        command, [*ids, *_options(with_option), _key_file_option, _settings_file_option]
    )


def connection_options(command: F) -> F:
    """Add the options of talking to the API to a command."""
    return decorated(command, [*_options(_CONNECTION), _key_file_option, _settings_file_option])


def screen_options(command: F) -> F:
    """Add the options of what is shown to a command."""
    return decorated(
        command,
        [
            option("-q", "--quiet", is_flag=True, help="Only warnings and errors."),
            option("-v", "--verbose", count=True, help="Each campaign; twice: each request."),
            option("--no-progress", is_flag=True, help="Plain lines instead of the live display."),
            option(
                "--log-format",
                type=click.Choice(["text", "json"]),
                default="text",
                help="The form of the log lines.",
                show_default=True,
            ),
        ],
    )


# -- the config ------------------------------------------------------------------------------------


def build_config(ctx: click.Context) -> HarvestConfig:
    """The config that flags, environment and file come to. Raise `ConfigError`."""
    given = dict(ctx.params)
    settings = {name: given[name] for name in settings_table() if name in given}
    settings |= {"access_token_file": None, "token_command": None, **_token(ctx, given)}
    settings["counts"] = not given.get("no_counts")
    config = HarvestConfig(**settings, api_key=_api_key(ctx, given["api_key_file"]))
    return replace(config, proxy=proxy_for(config.origin))


def unknown_variables(ctx: click.Context) -> list[str]:
    """A message for each variable of the environment that looks like a setting and is none."""
    given = [name for name in sorted(os.environ) if name.startswith("HARVESTER_")]
    known = {*_SECRETS, *_variables(ctx.command)}
    if not known.issuperset(given):  # perhaps another command has it
        group = ctx.find_root().command
        if isinstance(group, click.Group):
            for name in group.list_commands(ctx):
                known |= _variables(group.get_command(ctx, name))
    return [
        f"{name} in the environment is no setting: it is ignored{perhaps(name, known)}"
        for name in given
        if name not in known
    ]


def warn_of_environment(ctx: click.Context) -> None:
    """Print these messages."""
    for message in unknown_variables(ctx):
        click.echo(f"harvester: warning: {message}", err=True)


def _variables(command: click.Command | None) -> set[str]:
    found = (getattr(param, "envvar", None) for param in (command.params if command else ()))
    return {name for name in found if isinstance(name, str)}


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
        raise ConfigError(f"{file} is empty: the key is its first line", setting="api_key_file")
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
