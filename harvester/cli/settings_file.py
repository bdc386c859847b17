"""A settings file: TOML, named as the options, the same file for every command."""

import json
from collections.abc import Collection, Mapping
from datetime import date, datetime
from pathlib import Path
from typing import Any

import click

from harvester.cli.command import perhaps

_SECRETS = ("api-key", "access-token")


def read_settings(
    path: Path, command: click.Command, *, elsewhere: Collection[str]
) -> dict[str, Any]:
    """The defaults that the file gives `command`, by the names of its parameters.

    Options that only other commands have (`elsewhere`) are no mistake. Raise `click.BadParameter`
    for a file that cannot be read, a name that no option has, or a value of another type.
    """
    import tomllib  # a run without a settings file needs none

    try:
        found = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as wrong:
        raise click.BadParameter(f"cannot read {path}: {wrong.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as wrong:
        raise click.BadParameter(f"{path} is not TOML: {wrong}") from None
    return _checked(path, found, command, elsewhere)


def _checked(
    path: Path, found: Mapping[str, Any], command: click.Command, elsewhere: Collection[str]
) -> dict[str, Any]:
    options = options_of(command)
    defaults: dict[str, Any] = {}
    for key, value in found.items():
        name = key.replace("_", "-")
        if name in _SECRETS:
            raise click.BadParameter(
                f"{path}: a secret has no place in a settings file: use {name}-file "
                f"or HARVESTER_{name.replace('-', '_').upper()}"
            )
        if name in options:
            defaults[options[name].name or ""] = _plain(path, name, options[name], value)
        elif name not in elsewhere:
            near = perhaps(name, {*options, *elsewhere})
            raise click.BadParameter(f"{path}: no option --{name}{near}")
    return defaults


def options_of(command: click.Command) -> dict[str, click.Option]:
    """What a settings file may hold for a command, by its long name."""
    return {
        name.removeprefix("--"): option
        for option in command.params
        if isinstance(option, click.Option)
        for name in option.opts
        if name.startswith("--") and name != "--config"
    }


def _plain(path: Path, name: str, option: click.Option, value: object) -> object:
    """A value as a flag would give it; only the reports may be a list.

    Refused is what click would make fit: 2.7 is not 2, and true is not 1.0.
    """
    if isinstance(value, list) and name == "report" and all(isinstance(v, str) for v in value):
        return ",".join(value)
    accepted, types = _takes(option)
    if type(value) not in types:
        shown = json.dumps(value, default=str)
        raise click.BadParameter(f"{path}: --{name} takes {accepted}, not {shown}")
    return value.isoformat() if isinstance(value, date) else value


def _takes(option: click.Option) -> tuple[str, set[type]]:
    """What an option takes in a settings file; of text click itself says whether it will do."""
    if option.count:
        return "a whole number", {int, bool, str}
    if option.is_flag:
        return "true or false", {bool, str}
    if isinstance(option.type, click.IntRange):
        return "a whole number", {int, str}
    if isinstance(option.type, click.FloatRange):
        return "a number", {int, float, str}
    return "text", {str, date, datetime}
