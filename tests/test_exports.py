"""What the package promises to those who import it."""

import asyncio
import inspect
import json
import logging
import re
import signal
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
from crashlab import environment

import harvester
from harvester.config import HarvestConfig
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
    """The docstring of the package draws the pipeline."""
    assert "coordinator" in (harvester.__doc__ or "")
    assert "harvest" in (harvester.__doc__ or "")


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
    """Type checkers are told to look at it."""
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
    """Whoever harvests from Python gets no rich, no click and no sandbox."""
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
        config = HarvestConfig(
            output=tmp_path / "out",
            state_dir=tmp_path / "state",
            base_url=sandbox.base_url,
            page_size=5,
            rate=0,
            retries=0,
            api_key="sandbox-key",
            access_token="sandbox-token",
        )
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
