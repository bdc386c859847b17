"""Commands whose help shows options in groups; options that the environment can give as well."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import click

from harvester.settings import GROUPS, SHOWN

F = TypeVar("F", bound=Callable[..., Any])


class Option(click.Option):
    """An option with the heading under which the help shows it."""

    def __init__(self, *args: Any, group: str = SHOWN, **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self.group = group


class Command(click.Command):
    """A command with its options in groups, shown in the order of `groups`."""

    groups: Sequence[str] = GROUPS

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write a section for each group."""
        grouped = any(isinstance(param, Option) for param in self.params)
        sections: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            row = param.get_help_record(ctx)
            if row is not None and isinstance(param, click.Option):
                group = getattr(param, "group", SHOWN if grouped else "Options")
                sections.setdefault(group, []).append(row)
        for group in sorted(sections, key=(*self.groups, "Options").index):
            with formatter.section(group):
                formatter.write_dl(sections[group], col_max=26)


def option(*names: str, **attributes: Any) -> Callable[[Any], Any]:
    """An option that can also be given as `HARVESTER_<NAME>`."""
    long = next(name for name in names if name.startswith("--"))
    attributes.setdefault("envvar", "HARVESTER_" + long[2:].upper().replace("-", "_"))
    return click.option(*names, cls=Option, **attributes)


def decorated(command: F, options: Sequence[Callable[[F], F]]) -> F:
    """The command with these options, in this order."""
    for decorate in reversed(options):
        command = decorate(command)
    return command


def perhaps(name: str, known: Iterable[str]) -> str:
    """A proposal for a mistyped name, to be put behind a message; empty if nothing is near."""
    from difflib import get_close_matches  # for a mistake only

    near = get_close_matches(name, list(known), n=1, cutoff=0.7)
    return f" (did you mean {near[0]}?)" if near else ""
