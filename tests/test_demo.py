"""`harvester demo`: the whole program with no account and no network, killed and resumed."""

import socket
import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from crashlab import until
from shell import (
    Done,
    assert_harvested,
    command,
    content,
    harvester,
    lines,
    summary_of,
    surroundings,
)

from harvester.cli.demo import DEMO, PAGE_SIZE, choose_port
from harvester.errors import ConfigError
from harvester.sandbox import Sandbox

WORLD = Sandbox(DEMO)


@dataclass(frozen=True)
class Shown:
    """A demo that was watched to its end."""

    home: Path
    done: Done
    summary: dict[str, Any]


def watched(home: Path) -> Shown:
    """One demo, without any secret in the environment."""
    env = {
        name: value
        for name, value in surroundings(home).items()
        if not name.startswith("HARVESTER_")
    }
    done = harvester(home, "demo", env=env)
    return Shown(home, done, summary_of(home / "harvest-demo"))


@dataclass(frozen=True)
class Killed:
    """A demo that was killed in the middle and run again."""

    out: Path
    stopped_whole: bool
    parts: int
    again: Done


def killed(home: Path) -> Killed:
    """Kill a demo when 25 campaigns are complete, then run it again."""
    out = home / "out"
    with subprocess.Popen(
        command("demo", "-o", out), cwd=home, env=surroundings(home), stderr=subprocess.DEVNULL
    ) as process:
        manifest = out / "manifest.ndjson"
        until(lambda: manifest.exists() and manifest.read_bytes().count(b"\n") >= 25)
        process.kill()
    whole, parts = (out / "summary.json").exists(), len(list(out.glob("opens/*.part")))
    return Killed(out, whole, parts, harvester(home, "demo", "-o", out))


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Shown, Killed]:
    """Both at the same time: a demo waits more than it works."""
    with ThreadPoolExecutor() as pool:
        shown = pool.submit(watched, tmp_path_factory.mktemp("demo"))
        dead = pool.submit(killed, tmp_path_factory.mktemp("killed"))
        return shown.result(), dead.result()


@pytest.fixture(scope="module")
def shown(both: tuple[Shown, Killed]) -> Shown:
    """The one that was watched."""
    return both[0]


def test_the_demo_is_a_whole_harvest(shown: Shown) -> None:
    """Exit code 0: 40 campaigns on 150 pages, and every file is what the sandbox's world says."""
    assert shown.done.code == 0, shown.done.stderr
    assert_harvested(shown.home / "harvest-demo", WORLD, WORLD.world.campaign_ids)
    assert (shown.summary["campaigns"]["complete"], shown.summary["pages"]) == (40, 150)
    assert (shown.summary["exit_code"], shown.summary["reason"]) == (0, "complete")


def test_the_demo_has_throttles_and_faults_that_heal(shown: Shown) -> None:
    """Something goes wrong, of several kinds, and none of it is an error at the end."""
    requests = shown.summary["requests"]
    assert requests["throttled"] > 0
    assert requests["retried"] > requests["throttled"]
    assert requests["sent"] == requests["ok"] + requests["retried"]
    retries = lines(shown.home / "harvest-demo/retries.ndjson")
    assert len(retries) == requests["retried"]
    assert len({line["cause"] for line in retries}) >= 3
    assert lines(shown.home / "harvest-demo/errors.ndjson") == []


def test_the_demo_shows_where_the_files_are_and_what_to_try(shown: Shown) -> None:
    """It ends with the directory, the first line of a file, and the next commands; standard output
    is kept for data."""
    said = shown.done.stderr
    first = min(each for each in WORLD.world.campaign_ids if content(WORLD, "opens", each))
    record = content(WORLD, "opens", first).split(b"\n")[0].decode()
    assert f"The files are in harvest-demo/; opens/{first}.ndjson begins:\n  {record}\n" in said
    for command_ in ("demo --fresh", "demo", "verify harvest-demo", "run --help"):
        assert f"  harvester {command_}" in said
    assert shown.done.stdout == ""


def test_the_demo_a_second_time_asks_for_nothing(shown: Shown) -> None:
    """In a directory where it was complete, it ends at once, with the same files."""
    again = harvester(shown.home, "demo")
    assert again.code == 0, again.stderr
    summary = summary_of(shown.home / "harvest-demo")
    assert (summary["requests"]["sent"], summary["campaigns"]["complete"]) == (0, 40)
    assert_harvested(shown.home / "harvest-demo", WORLD, WORLD.world.campaign_ids)


def test_the_demo_leaves_the_days_count_of_the_user_alone(shown: Shown) -> None:
    """Its requests are none of a real day's."""
    assert not (shown.home / "state").exists()
    assert list((shown.home / "harvest-demo/.harvester/demo").glob("*.json")) != []


def test_a_demo_that_was_killed_goes_on(both: tuple[Shown, Killed]) -> None:
    """Killed in the middle and run again in the same directory: the same files, and fewer requests
    than the whole costs."""
    dead = both[1]
    assert not dead.stopped_whole
    assert dead.parts > 0
    assert dead.again.code == 0, dead.again.stderr
    assert_harvested(dead.out, WORLD, WORLD.world.campaign_ids)
    summary = summary_of(dead.out)
    assert summary["campaigns"]["complete"] == 40
    assert 0 < summary["pages"] <= 125
    assert summary["requests"]["sent"] < 150


def test_what_the_demo_serves_is_what_it_says() -> None:
    """40 campaigns on 150 pages of the demo's own size."""
    world = WORLD.world
    assert len(world.campaign_ids) == 40
    assert sum(world.pages("opens", each, PAGE_SIZE) for each in world.campaign_ids) == 150


# -- the port ------------------------------------------------------------------------------------


def test_the_port_is_remembered(tmp_path: Path) -> None:
    """A harvest belongs to one origin, so the demo comes back to the port it had."""
    memory = tmp_path / "deep" / "port"
    port = choose_port(memory, fresh=False)
    assert 1024 <= port <= 65_535
    assert choose_port(memory, fresh=False) == port
    assert int(memory.read_text()) == port


def test_a_port_that_is_taken_is_a_config_error(tmp_path: Path) -> None:
    """It says what to do; `fresh` takes another port."""
    memory = tmp_path / "port"
    with closing(socket.create_server(("127.0.0.1", 0))) as other:
        taken = other.getsockname()[1]
        memory.write_text(f"{taken}\n")
        with pytest.raises(ConfigError, match=f"port {taken}.* is taken.*--fresh"):
            choose_port(memory, fresh=False)
        assert choose_port(memory, fresh=True) != taken


def test_a_port_that_was_never_written_is_chosen_anew(tmp_path: Path) -> None:
    """A kill between the opening of the file and its writing leaves it empty; then nothing was
    harvested either, and any port will do."""
    memory = tmp_path / "port"
    memory.touch()
    port = choose_port(memory, fresh=False)
    assert memory.read_text() == f"{port}\n"


@pytest.mark.parametrize("output", ["file", "file/deeper", "/proc/x"])
def test_a_directory_that_cannot_be_is_a_mistake(tmp_path: Path, output: str) -> None:
    """Exit code 2 with its name and what is wrong with it."""
    (tmp_path / "file").write_text("mine")
    done = harvester(tmp_path, "demo", "-o", output)
    assert done.code == 2
    (line,) = done.complaints
    assert line.startswith(f"harvester: error: --output: cannot keep {output}/")
    assert "a bug" not in line
    assert (tmp_path / "file").read_text() == "mine"
