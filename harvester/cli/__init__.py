"""The command line: argv in, exit code out. Only here is anything printed or a signal touched.

Each command lives in a module of its own and is imported when it is asked for, so that
`harvester --version` starts in the time click takes.
"""

import gc
import importlib
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import click

from harvester._version import __version__
from harvester.cli.flags import by_flags, flag
from harvester.cli.streams import own_streams
from harvester.errors import CampaignError, ConfigError, StopRun, describe_bug

_COMMANDS = {
    "login": ("login:login", "Sign in to version 3 of the API."),
    "logout": ("login:logout", "Forget the stored tokens of an account."),
    "check": ("check:check", "Say whether key, token and privileges work."),
    "run": ("run:run", "Harvest; the same command again goes on."),
    "plan": ("plan:plan", "Show what a run would do, and how long it would take."),
    "status": ("look:status", "Show what is in a directory."),
    "verify": ("look:verify", "Check every finished file against the manifest."),
    "report": ("report:report", "Write an HTML page about a harvest."),
    "campaigns": ("campaigns:campaigns", "List campaign ids, one a line."),
    "sandbox": ("sandbox:sandbox", "Serve a simulated API on this machine."),
    "demo": ("demo:demo", "Harvest a simulated account in ten seconds."),
}
"""Module, name and one line about each command, in the order of the help."""
_HELP = ["-h", "--help"]
BROKEN, USAGE, FAILED = 1, 2, 3


@contextmanager
def _imports_kept() -> Iterator[None]:
    """Keep what is imported meanwhile out of every garbage collection: none of it is garbage."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_on:
            gc.enable()


class _Lazy(click.Group):
    """A group that imports a command when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, _, name = _COMMANDS[cmd_name][0].partition(":")
        with _imports_kept():
            command: click.Command = getattr(importlib.import_module(f"{__name__}.{module}"), name)
        command.context_settings.setdefault("help_option_names", _HELP)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table; no command is imported for it."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, about) for name, (_, about) in _COMMANDS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in _COMMANDS and not args[0].startswith("-"):
            from harvester.cli.command import perhaps

            ctx.fail(f"no command {args[0]!r}{perhaps(args[0], _COMMANDS)}")
        return super().resolve_command(ctx, args)


@click.group(
    cls=_Lazy,
    context_settings={"help_option_names": _HELP},
    epilog="Try `harvester demo` first: it needs no account and no network.",
)
@click.version_option(__version__, package_name="harvester", message="%(prog)s %(version)s")
def cli() -> None:
    """Harvest the tracking events of many email campaigns: every event, once."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; give its exit code. Whatever goes wrong is one clear line on stderr."""
    with own_streams() as missing:
        code = _main(sys.argv[1:] if arguments is None else arguments)
        if why := missing():
            code = _say(f"cannot write to standard output: {why}", BROKEN)
    return code


def _main(arguments: Sequence[str]) -> int:
    try:
        code = cli.main([*arguments], prog_name="harvester", standalone_mode=False)
    except click.exceptions.Exit as exit_:
        return exit_.exit_code
    except click.UsageError as wrong:
        wrong.show()
        return USAGE
    except click.ClickException as wrong:  # right, but what was asked for cannot be had
        return _say(wrong.message, BROKEN)
    except (click.Abort, KeyboardInterrupt):
        return 130
    except ConfigError as wrong:
        return _say(_by_option(wrong), USAGE)
    except StopRun as order:
        from harvester.cli.closing import without_report

        return _say(*without_report(order))
    except CampaignError as wrong:
        return _say(str(wrong), FAILED)
    except Exception as bug:
        if sum(word.count("v") for word in arguments if word.strip("v") == "-") > 1:
            # Frames only: the message could hold anything, a secret too.
            click.echo("".join(traceback.format_tb(bug.__traceback__)), err=True, nl=False)
        return _say(f"a bug in harvester {__version__}: {describe_bug(bug)}", BROKEN)
    return code if isinstance(code, int) else 0


def _say(message: str, code: int) -> int:
    click.echo(f"harvester: error: {by_flags(message)}", err=True)
    return code


def _by_option(wrong: ConfigError) -> str:
    """The message with the option in the place of the setting."""
    if wrong.setting is None:
        return str(wrong)
    return flag(wrong.setting) + str(wrong).removeprefix(wrong.setting)
