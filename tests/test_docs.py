"""The README keeps its word: its blocks run as they stand, its commands are there, every option is
named. Its recipes for a shell, cron and systemd are in `test_docs_shell`, the one for Dask is in
`test_dask`."""

import csv
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from crashlab import Served
from readmelab import BLOCKS, README, TEXT, Machine, block, vendor

from harvester.cli import cli
from harvester.cli.run import run
from harvester.reporting.summary import EXIT_CODES

ID = re.compile(r"11003941652\d\d")
TESTED = {
    "sh": 4,
    "cron": 1,
    "ini": 1,
    "text": 1,
    "python": 1,
    "python accounts": 1,
    "python dask": 1,
    "python duckdb": 1,
    "python polars": 1,
    "python pandas": 1,
}
"""How many blocks of each kind run in a test; `text` is a picture."""

# What a reader has and the block does not show: an account, here a simulated one.
PRELUDE = """
import harvester
_real = harvester.HarvestConfig
harvester.HarvestConfig = lambda **given: _real(**{{
    "base_url": {url!r}, "auth_url": {url!r}, "state_dir": "state", "rate": 0, **given
}})
"""


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    """The vendor of every block."""
    with vendor() as one:
        yield one


def test_every_block_is_run() -> None:
    """A block of another kind, or one more of a kind, needs a test."""
    kinds = [kind for kind, _ in BLOCKS]
    assert {kind: kinds.count(kind) for kind in kinds} == TESTED
    assert len(BLOCKS) == len(re.findall(r"^```\w", TEXT, re.MULTILINE))


def run_block(source: str, machine: Machine) -> str:
    """Run a block in an interpreter of its own; give what it printed."""
    code = PRELUDE.format(url=machine.served.sandbox.base_url) + source
    return machine.run(sys.executable, "-W", "error", "-c", code)


def test_the_block_of_the_library_harvests_and_lists(served: Served, tmp_path: Path) -> None:
    """Two campaigns into the directory it names, the pages of one, and every campaign's name."""
    world = served.sandbox.world
    ids = iter(world.campaign_ids)
    known: dict[str, str] = {}
    source = ID.sub(lambda found: known.setdefault(found[0], next(ids)), block("python"))
    printed = run_block(source, Machine(tmp_path / "home", served)).splitlines()
    exit_code, complete, rows = map(int, printed[0].split())
    assert (exit_code, complete) == (0, 2)
    found = list((tmp_path / "home/opens-2026/opens").glob("*.ndjson"))
    assert {path.stem for path in found} == set(known.values())
    assert sum(path.read_bytes().count(b"\n") for path in found) == rows
    pages = [line for line in printed if "EMAIL_OPEN" in line]
    first = next(iter(known.values()))
    assert sum(int(line.split()[0]) for line in pages) == world.rows("opens", first)
    listed = {line.split()[0] for line in printed[1:]} - {line.split()[0] for line in pages}
    assert set(world.campaign_ids) <= listed


def test_the_block_of_many_accounts_harvests_each(served: Served, tmp_path: Path) -> None:
    """Two accounts that are signed in are complete; one that is not is said to be so, and stops
    no other."""
    machine = Machine(tmp_path / "home", served)
    machine.sign_in("north", "south")
    with (machine.home / "accounts.csv").open("w", encoding="ascii") as file:
        rows = ("account", "owner"), ("east", "Ann"), ("north", "Bo"), ("south", "Cy")
        csv.writer(file).writerows(rows)
    printed = run_block(block("python accounts"), machine).splitlines()
    assert {"north complete 0", "south complete 0"} < set(printed)
    (other,) = [line for line in printed if line.startswith("east")]
    assert "not signed in" in other
    campaigns = len(served.sandbox.world.v3_campaign_ids)
    assert [machine.files(f"harvests/{name}") for name in ("north", "south")] == [campaigns] * 2


@pytest.fixture(scope="module")
def harvest(served: Served, tmp_path_factory: pytest.TempPathFactory) -> Machine:
    """A harvest of a v3 account where the blocks about loading look for it."""
    machine = Machine(tmp_path_factory.mktemp("load") / "home", served)
    machine.sign_in("default")
    (line,) = re.findall(r"`(harvester campaigns --json > [^`]+)`", TEXT)
    machine.sh(f"{line}\nharvester run --all-sent --report=opens,clicks -q")
    return machine


@pytest.mark.parametrize("name", ["duckdb", "polars", "pandas"])
def test_the_blocks_about_loading_find_every_row(name: str, harvest: Machine) -> None:
    """With every campaign, each of its opens, and the openers counted once."""
    pytest.importorskip(name, reason=f"NOT TESTED: {name} is not installed (pip install .[load])")
    probe = {
        "duckdb": "opens.aggregate('count(*), count(DISTINCT campaign)').fetchall()[0]",
        "polars": "opens.select(pl.len(), pl.col('campaign').n_unique()).collect().row(0)",
        "pandas": "(len(opens), opens['campaign'].nunique())",
    }[name]
    code = f"{block(f'python {name}')}\nprint('found', *{probe})"
    printed = harvest.run(sys.executable, "-c", code)
    world = harvest.served.sandbox.world
    opens = {each: world.rows("opens", each) for each in world.v3_campaign_ids}
    filled = [rows for rows in opens.values() if rows]
    assert len(filled) < len(opens)
    rows, campaigns = map(int, printed.rpartition("found ")[2].split())
    assert (rows, campaigns) == (sum(filled), len(filled))


def test_the_query_about_opens_and_clicks_is_right(harvest: Machine) -> None:
    """Opens, openers and clickers among them, for each campaign by its name."""
    pytest.importorskip("duckdb", reason="NOT TESTED: duckdb is not installed")
    code = f"{block('python duckdb')}\nprint('found', duckdb.sql(QUERY).fetchall())"
    found = eval(harvest.run(sys.executable, "-c", code).rpartition("found ")[2])  # noqa: S307
    expected = set()
    for path in (harvest.home / "harvest/opens").glob("*.ndjson"):
        contacts = re.findall(rb'"contact_id":"([^"]+)"', path.read_bytes())
        clicks = (harvest.home / "harvest/clicks" / path.name).read_bytes()
        clickers = set(contacts) & set(re.findall(rb'"contact_id":"([^"]+)"', clicks))
        expected.add((len(contacts), len(set(contacts)), len(clickers)))
    assert {tuple(numbers) for _, *numbers in found} == {each for each in expected if each[0]}
    assert sum(clickers for *_, clickers in found) > 0


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
    table = section[: section.index("One page, from its bytes")]
    names = re.findall(r"`([a-z_]+(?:/|\.py))`", table)
    assert len(names) > 10
    for name in names:
        assert (README.parent / "harvester" / name).exists(), name


def test_the_licence_is_in_the_metadata() -> None:
    """By its short name and its text, which the package carries with it."""
    project = tomllib.loads((README.parent / "pyproject.toml").read_text())["project"]
    (path,) = project["license-files"]
    text = (README.parent / path).read_text()
    assert text.startswith(f"{project['license']} License\n\nCopyright (c) 2026 the harvester auth")
