"""The command line: argv in, exit code out. Only here is anything printed or a signal touched.

Each command lives in a module of its own and is imported when it is asked for, so that
`harvester --version` starts in the time click takes.
"""

import importlib
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

import click

from harvester._version import __version__
from harvester.cli.failures import CommandFailed
from harvester.cli.streams import own_streams
from harvester.errors import CampaignError, ConfigError, StopRun

_COMMANDS = {
    "login": "harvester.cli.login:login",
    "logout": "harvester.cli.login:logout",
    "check": "harvester.cli.check:check",
    "run": "harvester.cli.run:run",
    "plan": "harvester.cli.plan:plan",
    "status": "harvester.cli.look:status",
    "verify": "harvester.cli.look:verify",
    "campaigns": "harvester.cli.campaigns:campaigns",
    "sandbox": "harvester.cli.sandbox:sandbox",
    "demo": "harvester.cli.demo:demo",
}
_HELP = ["-h", "--help"]
BROKEN, USAGE, FAILED = 1, 2, 3


class _Lazy(click.Group):
    """A group that imports a command when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, _, name = _COMMANDS[cmd_name].partition(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        command.context_settings.setdefault("help_option_names", _HELP)
        return command


@click.group(
    cls=_Lazy,
    context_settings={"help_option_names": _HELP, "max_content_width": 100},
    epilog="Try `harvester demo` first: it needs no account and no network.",
)
@click.version_option(__version__, package_name="harvester", message="%(prog)s %(version)s")
def cli() -> None:
    """Harvest the tracking events of many email campaigns: every event, once."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; give its exit code. Whatever goes wrong is one clear line on stderr."""
    with own_streams():
        return _main(arguments)


def _main(arguments: Sequence[str] | None) -> int:
    try:
        code = cli.main(arguments, prog_name="harvester", standalone_mode=False)
        sys.stdout.flush()
    except click.exceptions.Exit as exit_:
        return exit_.exit_code
    except click.ClickException as wrong:
        wrong.show()
        return USAGE
    except (click.Abort, KeyboardInterrupt):
        return 130
    except ConfigError as wrong:
        return _say(str(wrong), USAGE)
    except StopRun as order:
        return _say(str(order), _exit_code(order))
    except CampaignError as wrong:
        return _say(str(wrong), FAILED)
    except CommandFailed as wrong:
        return _say(str(wrong), BROKEN)
    except Exception as bug:
        return _say(_describe(bug), BROKEN)
    return code if isinstance(code, int) else 0


def _say(message: str, code: int) -> int:
    click.echo(f"harvester: error: {message}", err=True)
    return code


def _exit_code(order: StopRun) -> int:
    from harvester.reporting.summary import EXIT_CODES

    return EXIT_CODES[order.reason]


def _describe(bug: Exception) -> str:
    """Where a bug is, without its message: that could hold anything, a secret too."""
    frames = traceback.extract_tb(bug.__traceback__)
    where = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "?"
    return f"a bug in harvester {__version__}: {type(bug).__name__} at {where}"
