"""`harvester demo`: sign-in and harvest with no account and no network, killed and resumed."""

import json
import re
import socket
import stat
import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
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

from harvester.cli.demo import DEMO, PAGE_SIZE, serve_again
from harvester.disk.layout import Layout
from harvester.disk.lock import locked
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
    least: int
    """Requests that the whole costs at least."""
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
    least = WORLD.world.least_requests(("opens",), PAGE_SIZE)
    return Killed(out, whole, parts, least, harvester(home, "demo", "-o", out))


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
    """Exit code 0: 40 campaigns and their resends, and every file is what the sandbox's world
    says."""
    assert shown.done.code == 0, shown.done.stderr
    assert_harvested(shown.home / "harvest-demo", WORLD, WORLD.world.v3_campaign_ids)
    assert shown.summary["campaigns"]["complete"] == 40
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
    first = min(each for each in WORLD.world.v3_campaign_ids if content(WORLD, "opens", each))
    record = content(WORLD, "opens", first).split(b"\n")[0].decode()
    assert f"The files are in harvest-demo/; opens/{first}.ndjson begins:\n  {record}\n" in said
    for command_ in ("demo --fresh", "demo", "verify harvest-demo", "login --help"):
        assert f"  harvester {command_}" in said
    assert shown.done.stdout == ""


def test_the_demo_a_second_time_asks_for_nothing(shown: Shown) -> None:
    """In a directory where it was complete, it ends at once, with the same files."""
    again = harvester(shown.home, "demo")
    assert again.code == 0, again.stderr
    summary = summary_of(shown.home / "harvest-demo")
    assert (summary["requests"]["sent"], summary["campaigns"]["complete"]) == (0, 40)
    assert "code" not in again.stderr  # the token is good for a day
    assert_harvested(shown.home / "harvest-demo", WORLD, WORLD.world.v3_campaign_ids)


def test_the_demo_leaves_the_days_count_of_the_user_alone(shown: Shown) -> None:
    """Its requests are none of a real day's."""
    assert not (shown.home / "state").exists()
    assert list((shown.home / "harvest-demo/.harvester/demo").glob("*.json")) != []


def test_the_demo_signs_in_as_a_person_would(shown: Shown) -> None:
    """A link and a code, then the harvest; the token stands in one file of the demo's own, which
    only its owner can read."""
    said = shown.done.stderr
    ((link, code),) = re.findall(r"(http://127\.0\.0\.1:\d+/activate\?user_code=(\S+))", said)
    assert said.index(link) < said.index(f"code  {code}") < said.index("signed in")
    assert said.index("signed in") < said.index("40 campaigns")
    account = shown.home / "harvest-demo/.harvester/demo/accounts/default.json"
    assert stat.S_IMODE(account.stat().st_mode) == 0o600
    token = json.loads(account.read_bytes().splitlines()[0])["account"]["access_token"]
    holders = [
        path
        for path in shown.home.rglob("*")
        if path.is_file() and token in path.read_bytes().decode("utf-8", "replace")
    ]
    assert holders == [account]
    assert token not in said


def test_a_demo_that_was_killed_goes_on(both: tuple[Shown, Killed]) -> None:
    """Killed in the middle and run again in the same directory: the same files, and fewer requests
    than the whole costs."""
    dead = both[1]
    assert not dead.stopped_whole
    assert dead.parts > 0
    assert dead.again.code == 0, dead.again.stderr
    assert_harvested(dead.out, WORLD, WORLD.world.v3_campaign_ids)
    summary = summary_of(dead.out)
    assert summary["campaigns"]["complete"] == 40
    assert 0 < summary["requests"]["sent"] < dead.least


def test_what_the_demo_serves_is_what_it_says() -> None:
    """40 campaigns and 5 resends, on 150 pages of the demo's own size."""
    world = WORLD.world
    assert (len(world.v3_campaign_ids), len(world.campaign_ids)) == (40, 45)
    assert sum(world.pages("opens", each, PAGE_SIZE) for each in world.v3_campaign_ids) == 150


# -- the port ------------------------------------------------------------------------------------


async def served(memory: Path, *, fresh: bool = False) -> str:
    """The origin of a demo that ended."""
    async with serve_again(memory, fresh=fresh) as sandbox:
        return sandbox.base_url


async def test_the_origin_is_remembered(tmp_path: Path) -> None:
    """A harvest belongs to one origin, so the demo comes back to the port it had; a fresh one too,
    for a kill may come before the old harvest is removed."""
    memory = tmp_path / "deep" / "origin"
    origin = await served(memory)
    assert await served(memory) == origin == memory.read_text()
    assert await served(memory, fresh=True) == origin == memory.read_text()


async def test_a_port_that_is_taken_is_a_config_error(tmp_path: Path) -> None:
    """It says what to do; `fresh` takes another port."""
    memory = tmp_path / "origin"
    with closing(socket.create_server(("127.0.0.1", 0))) as other:
        taken = other.getsockname()[1]
        memory.write_text(f"http://127.0.0.1:{taken}")
        with pytest.raises(ConfigError, match=f"port {taken}.* is taken.*--fresh"):
            await served(memory)
        assert not (await served(memory, fresh=True)).endswith(f":{taken}")


@pytest.mark.parametrize("more", [(), ("--fresh",)])
def test_a_demo_beside_another_one_changes_nothing(tmp_path: Path, more: tuple[str, ...]) -> None:
    """Exit code 75, and the origin of the one that runs stays."""
    layout = Layout(tmp_path / "out")
    layout.state.mkdir(parents=True)
    memory = layout.state / "demo/origin"
    memory.parent.mkdir()
    memory.write_text("http://127.0.0.1:1")
    with locked(layout, now=datetime.now(UTC)):
        done = harvester(tmp_path, "demo", "-o", "out", *more)
    assert done.code == 75
    assert "another run works in out" in done.stderr
    assert memory.read_text() == "http://127.0.0.1:1"


async def test_an_origin_that_was_never_written_is_chosen_anew(tmp_path: Path) -> None:
    """A kill between the opening of the file and its writing leaves it empty; then nothing was
    harvested either, and any port will do."""
    memory = tmp_path / "origin"
    memory.touch()
    assert await served(memory) == memory.read_text()


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
