"""The README's lines for a shell, its timers and its units, run as they stand."""

import configparser
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from crashlab import Served
from readmelab import TEXT, Machine, block, vendor

from harvester.reporting.summary import EXIT_CODES


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    """The vendor of every line."""
    with vendor() as one:
        yield one


@pytest.fixture
def machine(served: Served, tmp_path: Path) -> Machine:
    """A user's machine."""
    return Machine(tmp_path / "home", served)


def needs(tool: str) -> str:
    """The path of a tool; without it the test is skipped, and says so."""
    found = shutil.which(tool)
    if found is None:
        pytest.skip(f"NOT TESTED: there is no {tool} on this machine")
    return found


def test_the_first_run_of_v3(machine: Machine) -> None:
    """From the sign-in to every report of every campaign, checked."""
    said = machine.sh(block("sh", with_="harvester login"))
    campaigns = machine.served.sandbox.world.v3_campaign_ids
    assert set((machine.home / "ids.txt").read_text().split()) == set(campaigns)
    assert f"{len(campaigns)} of {len(campaigns)} complete" in said
    assert said.endswith(f"{6 * len(campaigns)} files checked in harvest: no difference\n")
    assert machine.files("harvest") == len(campaigns)


def test_the_first_run_of_v2(machine: Machine) -> None:
    """With a key and a token from the environment."""
    said = machine.sh(block("sh", with_="HARVESTER_API_KEY"))
    assert re.search(r"(\d+) of \1 complete", said)
    assert machine.files("harvest-v2") >= len(machine.served.sandbox.world.campaign_ids)


SHELLS = {
    "bash": "{}\ncomplete -p harvester",
    "zsh": "autoload -U compinit; compinit -u -D\n{}\nprint $_comps[harvester]",
    "fish": "{}\ncomplete -C 'harvester ver'",
}


@pytest.mark.parametrize("shell", SHELLS)
def test_the_lines_for_completion(machine: Machine, shell: str) -> None:
    """A shell takes its line, and completes commands from then on."""
    (line,) = re.findall(rf"^(.*{shell}_source.*)$", block("sh", with_="bash_source"), re.MULTILINE)
    assert line.endswith(f"# {shell}")
    said = machine.run(needs(shell), "-c", SHELLS[shell].format(line))
    assert "verify" in said or "_harvester_completion" in said
    if shell == "bash":
        words = {"COMP_WORDS": "harvester ver", "COMP_CWORD": "1"}
        asked = machine.run("harvester", _HARVESTER_COMPLETE="bash_complete", **words)
        assert asked == "plain,verify\n"


def test_the_line_for_many_accounts(machine: Machine) -> None:
    """Each account is harvested into a directory of its own."""
    needs("xargs")
    machine.sign_in("north", "south")
    (machine.home / "accounts.txt").write_text("north\nsouth\n")
    assert machine.sh(block("sh", with_="xargs")) == ""
    campaigns = len(machine.served.sandbox.world.v3_campaign_ids)
    assert [machine.files(f"harvests/{name}") for name in ("north", "south")] == [campaigns] * 2


def test_the_line_for_cron(machine: Machine) -> None:
    """Its command is run by `sh -c` with little in the environment; settings come from a file.

    Five fields of time before it, and no per cent sign, which cron takes for a newline.
    """
    line = block("cron").strip()
    *times, command = line.split(maxsplit=5)
    assert times == ["15", "0", "*", "*", "*"]
    assert "\n" not in line
    assert "%" not in line
    lines = [f"{name}={text}\n" for name, text in machine.settings.items()]
    (machine.home / "harvester.env").write_text(
        "".join(lines) + "HARVESTER_API_KEY=...\nHARVESTER_ACCESS_TOKEN=...\n"
    )
    home = f"HOME={machine.home}"
    assert machine.run("env", "-i", home, "PATH=/usr/bin:/bin", "sh", "-c", command) == ""
    assert machine.files("harvest") > 0


def units() -> dict[str, str]:
    """The units by the name of their file, which stands above each of them."""
    parts = re.split(r"^# /etc/systemd/system/(\S+)\n", block("ini"), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def read(unit: str) -> configparser.ConfigParser:
    """A unit's sections; names of settings keep their capitals."""
    found = configparser.ConfigParser(interpolation=None)
    found.optionxform = str  # type: ignore[assignment, method-assign]
    found.read_string(unit)
    return found


def test_the_units_are_a_service_and_its_timer() -> None:
    """75 is no failure, a stop has the time that it needs, and a timer names its own service."""
    found = units()
    assert list(found) == ["harvester@.service", "harvester@.timer"]
    service = read(found["harvester@.service"])["Service"]
    assert int(service["SuccessExitStatus"]) == EXIT_CODES["quota_spent"] == EXIT_CODES["locked"]
    assert service["Type"] == "oneshot"
    assert int(service["TimeoutStopSec"]) > 10
    timer = read(found["harvester@.timer"])
    assert timer["Timer"]["OnCalendar"].endswith("UTC")
    assert timer["Install"]["WantedBy"] == "timers.target"
    assert "systemctl enable --now harvester@NAME.timer" in TEXT


def test_the_units_are_accepted_by_systemd(machine: Machine) -> None:
    """Without a word of complaint, but for the user, who is of another machine."""
    analyze = needs("systemd-analyze")
    folder = machine.home / "units"
    folder.mkdir()
    for name, unit in units().items():
        there = unit.replace("/opt/harvester/.venv/bin/harvester", str(machine.program))
        (folder / name).write_text(there.replace("User=harvester\n", ""))
    paths = [str(folder / name) for name in units()]
    assert machine.run(analyze, "--man=no", "verify", *paths, SYSTEMD_UNIT_PATH=f"{folder}:") == ""


def test_the_service_harvests_its_account(machine: Machine) -> None:
    """Its command, with the paths and the account's name that systemd puts in."""
    service = read(units()["harvester@.service"])["Service"]
    machine.sign_in("north")
    names = {"%i": "north", "%S": str(machine.home / "lib"), "/opt/": f"{machine.home}/"}
    command, state = service["ExecStart"], service["Environment"]
    assert "%" not in re.sub("|".join(names), "", command + state)
    for name, text in names.items():
        command, state = command.replace(name, text), state.replace(name, text)
    name, _, folder = state.partition("=")
    assert name == "HARVESTER_STATE_DIR"
    Path(folder).parent.mkdir(parents=True)
    machine.state.rename(folder)
    program, *arguments = shlex.split(command)
    assert Path(program) == machine.program
    said = machine.run(program, *arguments, **(machine.settings | {name: folder}))
    assert '"event":"run_finished"' in said
    assert machine.files("lib/harvester/harvests/north") > 0
