"""The README keeps its word: its blocks run, its commands are there, every option is named."""

import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import anyio
import click
import pytest
from crashlab import Served, environment

from harvester.cli import cli
from harvester.cli.run import run
from harvester.reporting.summary import EXIT_CODES
from harvester.sandbox import Sandbox, SandboxSettings


@dataclass(frozen=True)
class Harvested:
    """A harvest in `folder`/harvest, and the rows of opens of each campaign."""

    folder: Path
    opens: dict[str, list[bytes]]


README = Path(__file__).parents[1] / "README.md"
TEXT = README.read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
LOADED = dict(re.findall(r"^```python (\w+)\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL))
ID = re.compile(r"11003941652\d\d")

# What a reader has and the block does not show: an account, here a simulated one.
PRELUDE = """
import harvester
_real = harvester.HarvestConfig
harvester.HarvestConfig = lambda **given: _real(**{{
    **given, "base_url": {url!r}, "api_key": "sandbox-key", "access_token": "sandbox-token",
    "state_dir": "state", "rate": 0,
}})
"""


async def run_block(block: str, sandbox: Sandbox, folder: Path) -> str:
    """Run a block in an interpreter of its own; give what it printed."""
    ids = iter(sandbox.world.campaign_ids)
    known: dict[str, str] = {}
    source = ID.sub(lambda found: known.setdefault(found[0], next(ids)), block)
    code = PRELUDE.format(url=sandbox.base_url) + source

    done = await anyio.run_process(
        [sys.executable, "-W", "error", "-c", code],
        cwd=folder,
        stderr=subprocess.STDOUT,
        check=False,
    )
    assert done.returncode == 0, done.stdout.decode()
    return done.stdout.decode()


async def test_the_block_that_harvests_leaves_the_files(tmp_path: Path) -> None:
    """The first Python block harvests two campaigns into the directory it names."""
    async with Sandbox(SandboxSettings(campaigns=3, pages=4)) as sandbox:
        printed = await run_block(BLOCKS[0], sandbox, tmp_path)
    exit_code, complete, rows = map(int, printed.split())
    assert (exit_code, complete) == (0, 2)
    files = list((tmp_path / "opens-2026/opens").glob("*.ndjson"))
    assert len(files) == 2
    assert sum(path.read_bytes().count(b"\n") for path in files) == rows


async def test_the_block_that_walks_prints_a_page(tmp_path: Path) -> None:
    """The second Python block shows the pages of one campaign."""
    async with Sandbox(SandboxSettings(campaigns=1, pages=2)) as sandbox:
        printed = await run_block(BLOCKS[1], sandbox, tmp_path)
    assert len(printed.splitlines()) == 2
    assert "EMAIL_OPEN" in printed
    assert [path.name for path in tmp_path.iterdir()] == ["state"]


@pytest.fixture(scope="module")
def harvest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Harvested]:
    """A harvest of a v3 account where the blocks about loading look for it, with an empty file, and
    what the blocks must find in it."""
    folder = tmp_path_factory.mktemp("load")
    with Served(Sandbox(SandboxSettings(campaigns=20, pages=40, rows_per_page=40))) as served:
        where = [f"--base-url={served.sandbox.base_url}", "--api=v3", f"--state-dir={folder}/state"]
        listed = in_folder(folder, "campaigns", "--status=SENT", "--json", *where, "--rate=0")
        (folder / "campaigns.ndjson").write_bytes(listed)
        in_folder(folder, "run", "--all-sent", "--report=opens,clicks", *where, "--rate=0", "-q")
        world = served.sandbox.world
        yield Harvested(
            folder,
            opens={each: list(world.records("opens", each)) for each in world.v3_campaign_ids},
        )


def in_folder(folder: Path, *argv: str) -> bytes:
    """Run the program there; give what it printed."""
    return subprocess.run(
        [sys.executable, "-m", "harvester", *argv],
        cwd=folder,
        env=environment(),
        check=True,
        stdout=subprocess.PIPE,
        timeout=60,
    ).stdout


@pytest.mark.parametrize("name", ["duckdb", "polars", "pandas"])
def test_the_blocks_about_loading_find_every_row(name: str, harvest: Harvested) -> None:
    """With every campaign, each of its opens, and the openers counted once."""
    pytest.importorskip(name, reason=f"NOT TESTED: {name} is not installed (pip install .[load])")
    probe = {
        "duckdb": "opens.aggregate('count(*), count(DISTINCT campaign_id)').fetchall()[0]",
        "polars": "opens.select(pl.len(), pl.col('campaign_id').n_unique()).collect().row(0)",
        "pandas": "(len(opens), opens['campaign_id'].nunique())",
    }[name]
    done = subprocess.run(
        [sys.executable, "-c", f"{LOADED[name]}\nprint('found', *{probe})"],
        cwd=harvest.folder,
        check=True,
        capture_output=True,
        text=True,
        timeout=100,
    )
    rows, campaigns = map(int, done.stdout.rpartition("found ")[2].split())
    filled = [each for each in harvest.opens.values() if each]
    assert len(filled) < len(harvest.opens)
    assert (rows, campaigns) == (sum(map(len, filled)), len(filled))


def test_every_option_of_run_is_in_the_readme() -> None:
    """By its long name, and no option is named that there is not."""
    given = {name for each in run.params for name in each.opts if name.startswith("--")}
    missing = {name for name in given if f"`{name}`" not in TEXT and name != "--config"}
    assert missing == set()
    named = set(re.findall(r"`(--[a-z-]+)", TEXT))
    context = click.Context(cli)
    commands = [cli.get_command(context, name) for name in cli.list_commands(context)]
    known = {name for each in commands if each for p in each.params for name in p.opts}
    assert named - known == set()


def test_every_exit_code_is_in_the_readme() -> None:
    """Each code that a run can end with has its row."""
    section = TEXT[TEXT.index("| exit code | |") : TEXT.index("## How it works")]
    rows = re.findall(r"^\| ([0-9, ]+) \|", section, re.MULTILINE)
    told = {int(code) for row in rows for code in row.split(",")}
    assert told == set(EXIT_CODES.values())


@pytest.mark.parametrize(
    "command",
    [
        "python3 -m venv .venv && .venv/bin/pip install . && .venv/bin/harvester demo",
        ".venv/bin/pip install '.[test]' && .venv/bin/pytest",
    ],
)
def test_the_two_commands_stand_as_they_are_run(command: str) -> None:
    """Each on a line of its own, to be copied; continuous integration runs that very line."""
    assert f"\n    {command}\n" in TEXT


def test_every_place_the_readme_names_is_there() -> None:
    """Files and folders in the table of where things live."""
    section = TEXT[TEXT.index("## How it works, and where") :]
    table = section[: section.index("The inner loop")]
    for name in re.findall(r"`([a-z_]+(?:/|\.py))`", table):
        assert (README.parent / "harvester" / name).exists(), name
