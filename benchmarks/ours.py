"""harvester as a contender: every guarantee on, the settings its defaults but where told.

`--cli` goes through the command line, as `harvester run` does; else through `harvest()`. Each
imports only what it would import by itself.
`--set NAME=JSON` gives a setting of `HarvestConfig`.
"""

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

from benchmarks.measure import Stopwatch, contender_arguments


def arguments_for(out: Path, *, cli: bool = False, **settings: object) -> list[str]:
    """The command line of this contender for a harvest into `out`; unpaced unless told."""
    given = {"rate": 0, "state_dir": str(out.parent / "state"), **settings}
    flags = [f"--set={name}={json.dumps(value)}" for name, value in given.items()]
    return ["--out", str(out), *(["--cli"] if cli else []), *flags]


def _main() -> None:
    parser = contender_arguments(__doc__)
    parser.add_argument("--cli", action="store_true")
    parser.add_argument("--set", action="append", default=[])
    given = parser.parse_args()
    settings = {name: json.loads(value) for name, _, value in (s.partition("=") for s in given.set)}
    settings |= {
        "output": str(given.out),
        "base_url": given.base,
        "concurrency": given.concurrency,
    }
    if given.cli:
        _through_the_command_line(given.ids, settings)
    else:
        _through_the_library(given.ids, settings)


def _through_the_library(ids: str, settings: dict[str, Any]) -> None:
    from anyio.lowlevel import checkpoint

    from harvester import HarvestConfig, harvest

    asyncio.run(checkpoint())  # anyio imports its backend now: imports are not what is measured
    campaigns = Path(ids).read_text(encoding="ascii").split()
    watch = Stopwatch()
    config = HarvestConfig(api_key="key", access_token="token", **settings)  # noqa: S106
    report = asyncio.run(harvest(campaigns, config))
    watch.report(rows=report.rows, sent=report.requests.sent, code=report.exit_code)
    sys.exit(report.exit_code)


def _through_the_command_line(ids: str, settings: dict[str, Any]) -> None:
    """All of the command, its imports as well: it imports what it needs, when it does."""
    from harvester.cli import main as command_line

    os.environ |= {"HARVESTER_API_KEY": "key", "HARVESTER_ACCESS_TOKEN": "token"}
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]
    watch = Stopwatch()
    code = command_line(["run", "-i", ids, *flags])
    watch.report(code=code)
    sys.exit(code)


if __name__ == "__main__":
    _main()
