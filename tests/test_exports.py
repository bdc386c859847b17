"""What the package promises to those who import it."""

import ast
import asyncio
import inspect
import json
import logging
import re
import signal
import subprocess
import sys
import tomllib
from collections.abc import AsyncIterator
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest
from crashlab import config_of, environment

import harvester
from harvester.cli.flags import by_flags
from harvester.errors import ConfigError
from harvester.run import harvest
from harvester.sandbox import Sandbox, SandboxSettings

PROMISED = [
    "CampaignError",
    "ConfigError",
    "HarvestConfig",
    "HarvestError",
    "HarvestReport",
    "Harvester",
    "Page",
    "StopRun",
    "__version__",
    "campaigns",
    "harvest",
    "sign_in",
    "walk",
]


def fresh(script: str) -> str:
    """What a new interpreter prints."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout


def test_all_is_the_promise() -> None:
    """A name is added or taken away here, too, or not at all."""
    assert sorted(harvester.__all__) == PROMISED


@pytest.mark.parametrize("name", PROMISED)
def test_every_public_name_is_there_and_documented(name: str) -> None:
    """Each can be imported, and says what it is; so do its public methods."""
    found = getattr(harvester, name)
    if name == "__version__":
        assert re.fullmatch(r"\d+\.\d+\.\d+\S*", found)
        return
    assert found.__doc__
    if inspect.isclass(found):
        for method, value in vars(found).items():
            if inspect.isfunction(value) and not method.startswith("_"):
                assert value.__doc__, f"{name}.{method}"


def test_the_package_says_what_it_is() -> None:
    """Its docstring draws the flow, and what it names is there."""
    text = harvester.__doc__ or ""
    root = Path(harvester.__file__).parent
    for word in ("coordinator", "api"):
        assert word in text
        assert (root / word).exists() or (root / f"{word}.py").exists()
    for name in re.findall(r"`(\w+)`", text):
        assert name in harvester.__all__
    for name in re.findall(r"`harvester\.(\w+)`", text):
        assert (root / f"{name}.py").exists()


def test_dir_shows_every_public_name() -> None:
    """In a new interpreter, before any of them was used, and without an import of its own."""
    script = "import harvester, sys, json; print(json.dumps([dir(harvester), [*sys.modules]]))"
    names, loaded = json.loads(fresh(script))
    assert set(PROMISED) <= set(names)
    assert "aiohttp" not in loaded


async def test_an_id_may_be_a_number(tmp_path: Path) -> None:
    """Its digits are the id, wherever it comes from: a list, an iterator, an async one. The report
    says where failures stand."""

    async def some(ids: list[int]) -> AsyncIterator[int]:
        for each in ids:
            yield each

    sandbox = Sandbox(SandboxSettings(campaigns=3, pages=4, rows_per_page=5))
    ids = [int(each) for each in sandbox.world.campaign_ids]
    async with sandbox:
        config = config_of(sandbox, tmp_path)
        report = await harvest([*ids, 404], config)
        assert (report.campaigns.complete, report.campaigns.failed) == (3, 1)
        assert json.loads(report.errors.read_text())["campaign_id"] == "404"
        sizes = replace(config, sizes=tmp_path / "out/manifest.ndjson")
        for again in (iter(ids), some(ids), ids):
            assert (await harvest(again, sizes)).requests.sent == 0
        pages = [page async for page in harvester.walk(str(ids[0]), config)]
        listed = [each async for each, _ in harvester.campaigns(config)]
    assert sum(page.rows for page in pages) > 0
    assert sorted(listed) == sorted(map(str, ids))
    for wrong in (True, 1.5, -1, None):
        with pytest.raises(ConfigError, match="not a campaign id"):
            await harvest([wrong], config)  # type: ignore[list-item]


def texts(source: str) -> set[str]:
    """Every text in a module, but for what is no message: docstrings."""
    tree = ast.parse(source)
    docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    found = (node for node in ast.walk(tree) if isinstance(node, ast.Constant))
    return {each.value for each in found if isinstance(each.value, str) and id(each) not in docs}


def test_the_library_speaks_of_settings_and_not_of_flags() -> None:
    """A message names `max_wait`, which the command line turns into --max-wait. Only a command to
    sign in has its options."""
    root = Path(harvester.__file__).parent
    above = ("cli", "sandbox", "reporting/page")
    modules = [
        path
        for path in root.rglob("*.py")
        if not any(path.is_relative_to(root / folder) for folder in above)
    ]
    found = {
        text
        for path in modules
        for text in texts(path.read_text())
        if re.search(r"(^|[^\w-])--[a-z]|HARVESTER_", text)
    }
    sign_in = {"--account", "--base-url", "--auth-url"}
    assert {each for each in found - sign_in if "harvester login --account" not in each} == {
        "no client id: give `client_id` (HARVESTER_CLIENT_ID). It stands in the developer portal "
        "(https://developer.constantcontact.com), My Applications; the app's OAuth2 setting must "
        "be Device Flow",
        "no client id, which owns the pace and the quota: give `client_id` (HARVESTER_CLIENT_ID); "
        "or run `harvester login` instead of giving a token of your own",
    }
    for setting, option in {
        "max_wait": "--max-wait",
        "counts": "--no-counts",
        "api_key": "HARVESTER_API_KEY",
        "unknown": "`unknown`",
    }.items():
        assert by_flags(f"longer than `{setting}` 5") == f"longer than {option} 5"


def test_an_unknown_name_is_an_attribute_error() -> None:
    """As everywhere else."""
    with pytest.raises(AttributeError, match="'harvester' has no attribute 'harvests'"):
        _ = harvester.harvests


def test_public_functions_can_be_imported_in_any_order() -> None:
    """`harvest` and `walk` are functions, whatever was imported before them, though modules have
    the same names."""
    names = ("HarvestConfig", "Harvester", "harvest", "walk")
    script = """
import sys
from itertools import permutations
wrong = []
for order in permutations({names!r}, 2):
    for name in [name for name in sys.modules if name.partition(".")[0] == "harvester"]:
        del sys.modules[name]
    found = {{}}
    exec(f"from harvester import {{', '.join(order)}}", found)
    if not all(callable(found[name]) for name in order):
        wrong.append(order)
print(wrong)
"""
    assert fresh(script.format(names=names)) == "[]\n"


@pytest.mark.parametrize(
    "before",
    ["harvester.cli.run", "harvester.run", "harvester.request.pagination", "harvester.config"],
)
def test_public_functions_can_be_imported_after_any_module(before: str) -> None:
    """Importing a module of the package does not put it in the place of a function."""
    script = (
        f"import {before}; from harvester import harvest, walk; "
        "print(callable(harvest), callable(walk))"
    )
    assert fresh(script) == "True True\n"


def test_the_package_is_typed() -> None:
    """Type checkers look at it."""
    assert (Path(harvester.__file__).parent / "py.typed").is_file()


def test_the_version_stands_in_one_place() -> None:
    """The installed version is the one in the source, and pyproject.toml has none of its own."""
    assert version("harvester") == harvester.__version__
    path = Path(__file__).parents[1] / "pyproject.toml"
    project = tomllib.loads(path.read_text())["project"]
    assert "version" not in project
    assert project["dynamic"] == ["version"]


@pytest.mark.parametrize(
    "statement",
    ["import harvester", "import harvester.cli", "from harvester import ConfigError, StopRun"],
)
def test_what_is_heavy_is_imported_when_it_is_needed(statement: str) -> None:
    """Importing the package, its errors, or its command line brings in neither aiohttp nor rich."""
    script = f"import json, sys; {statement}; print(json.dumps(sorted(sys.modules)))"
    loaded = set(json.loads(fresh(script)))
    assert loaded & {"aiohttp", "rich", "anyio", "msgspec", "sqlite3"} == set()


def test_the_library_alone_does_not_import_the_terminal() -> None:
    """A harvest from Python loads no rich, no click and no sandbox."""
    script = (
        "import json, sys; from harvester import HarvestConfig, harvest; "
        "print(json.dumps(sorted(sys.modules)))"
    )
    loaded = set(json.loads(fresh(script)))
    assert loaded & {"rich", "click", "harvester.cli", "harvester.sandbox"} == set()


async def test_the_library_keeps_to_itself(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A harvest from Python prints nothing, logs nothing, configures no logging, installs no signal
    handler, and leaves no task behind, also where campaigns fail."""
    monkeypatch.setattr(
        asyncio.get_running_loop(), "add_signal_handler", lambda *_: pytest.fail("a handler")
    )
    handlers = [signal.getsignal(number) for number in signal.valid_signals()]
    root, own = logging.getLogger(), logging.getLogger("harvester")
    monkeypatch.setattr(own, "handlers", [])
    monkeypatch.setattr(own, "propagate", True)
    monkeypatch.setattr(own, "level", logging.NOTSET)
    configured = (list(root.handlers), root.level)
    async with Sandbox(
        SandboxSettings(
            campaigns=4, pages=6, rows_per_page=5, faults={"html": 0.3}, heal_after=None
        )
    ) as sandbox:
        tasks = asyncio.all_tasks()
        config = config_of(sandbox, tmp_path, retries=0)
        report = await harvest(["404", *sandbox.world.campaign_ids], config)
        assert report.exit_code == 3
        assert asyncio.all_tasks() - tasks == {
            task for task in asyncio.all_tasks() - tasks if "aiohttp" in repr(task)
        }
    assert [signal.getsignal(number) for number in signal.valid_signals()] == handlers
    assert (list(root.handlers), root.level) == configured
    assert (own.handlers, own.propagate, own.level) == ([], True, logging.NOTSET)
    said = capfd.readouterr()
    assert (said.out, said.err) == ("", "")


def test_the_library_never_starts_a_loop_of_its_own() -> None:
    """`asyncio.run` is for the command line."""
    package = Path(harvester.__file__).parent
    calls = {
        path.relative_to(package).parts[0]
        for path in package.rglob("*.py")
        if "asyncio.run(" in path.read_text()
    }
    assert calls <= {"cli"}


def test_python_m_is_the_command() -> None:
    """`python -m harvester` is the same as `harvester`."""
    done = subprocess.run(
        [sys.executable, "-m", "harvester", "--version"],
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout == f"harvester {harvester.__version__}\n"
