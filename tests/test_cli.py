"""The command line as a whole: commands, exit codes of what never begins, plan, status, verify."""

import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from crashlab import Served, until
from shell import Done, called, command, harvester, lines, summary_of, surroundings

import harvester as package
from harvester.cli import main
from harvester.errors import CampaignError, ConfigError, StopRun
from harvester.reporting.summary import EXIT_CODES
from harvester.sandbox import Sandbox, SandboxSettings

ROWS = 5


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    """Six campaigns on ten pages."""
    with Served(Sandbox(SandboxSettings(campaigns=6, pages=10, rows_per_page=ROWS))) as server:
        yield server


Call = Callable[..., Done]


@pytest.fixture
def call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Call:
    """The command line in this process: for all that awaits nothing."""

    def in_process(*argv: object, **how: Any) -> Done:
        return called(tmp_path, monkeypatch, capsys, *argv, **how)

    return in_process


def options(served: Served, *more: object) -> list[object]:
    """Where the sandbox is."""
    return ["--base-url", served.sandbox.base_url, "--rate", "0", "--page-size", ROWS, *more]


# -- commands ------------------------------------------------------------------------------------


def test_the_version_is_told(call: Call) -> None:
    """`--version` prints name and version."""
    assert call("--version") == Done(0, f"harvester {package.__version__}\n", "")


def test_an_unknown_command_is_a_mistake(call: Call) -> None:
    """Exit code 2; the message repeats it and points to the help."""
    done = call("harvest")
    assert done.code == 2
    assert "no command 'harvest'\n" in done.stderr
    assert "for help" in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("argv", "meant"),
    [
        (("runn", "1"), "run"),
        (("stauts", "out"), "status"),
        (("campaign",), "campaigns"),
        (("run", "--all-snet"), "--all-sent"),
        (("verify", "--jsn", "out"), "--json"),
    ],
)
def test_a_mistyped_name_has_a_proposal(call: Call, argv: tuple[str, ...], meant: str) -> None:
    """A command or an option that is almost one: exit code 2, and the name that was meant."""
    done = call(*argv)
    assert done.code == 2
    assert re.search(rf"[Dd]id you mean '?{meant}'?\b", done.stderr), done.stderr


@pytest.mark.parametrize(
    ("name", "proposal"),
    [
        ("HARVESTER_RATTE", " (did you mean HARVESTER_RATE?)"),
        ("HARVESTER_API_KEYS", " (did you mean HARVESTER_API_KEY?)"),
        ("HARVESTER_X", ""),
    ],
)
@pytest.mark.parametrize("command_", ["plan", "run"])
def test_an_unknown_variable_is_a_warning(
    call: Call, tmp_path: Path, command_: str, name: str, proposal: str
) -> None:
    """It changes nothing but a line on standard error; variables of other commands are none, and
    no value is shown."""
    (tmp_path / "ids").write_text("1\n")
    more = ("--max-requests", 1, "--timeout", 1, "--retries", 0, "--base-url", "http://127.0.0.1:9")
    env = {**surroundings(tmp_path), "HARVESTER_STATUS": "DRAFT", "HARVESTER_CONFIG": "c.toml"}
    (tmp_path / "c.toml").write_text("rate = 0\n")
    quiet = call(command_, "-i", "ids", *more, env=env)
    loud = call(command_, "-i", "ids", "--fresh", *more, env={**env, name: "canary"})
    assert loud.code == quiet.code
    said = f"warning: {name} in the environment is no setting: it is ignored{proposal}"
    assert said in loud.stderr.replace("warning ", "warning: ")
    assert "canary" not in loud.stderr
    assert "in the environment" not in quiet.stderr


@pytest.mark.parametrize("command_", ["run", "plan"])
@pytest.mark.parametrize("content", ["", "\n  \n", "# none yet\n"])
def test_a_list_without_an_id_is_a_mistake(
    call: Call, tmp_path: Path, command_: str, content: str
) -> None:
    """Exit code 2, and why; a cron job with an empty list is not a success."""
    (tmp_path / "ids").write_text(content)
    done = call(command_, "-i", "ids", "-o", "out")
    assert done.code == 2
    assert "no campaign ids: ids has only blank lines and comments" in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("api", "other", "wrong"),
    [("v3", "v2", "1100394165287"), ("v2", "v3", "1d3a7b5e-0c1f-4a52-9a6b-0123456789ab")],
)
def test_an_id_of_the_other_version_names_the_option(
    call: Call, tmp_path: Path, api: str, other: str, wrong: str
) -> None:
    """Exit code 2; from a file, with its line."""
    (tmp_path / "ids").write_text(f"# ids\n{wrong}\n")
    said = f"{wrong} is an id of {other}, and --api is {api}: give --api {other}\n"
    done = call("plan", "--api", api, wrong)
    assert (done.code, done.stderr) == (2, f"harvester: error: {said}")
    done = call("plan", "--api", api, "-i", "ids")
    assert (done.code, done.stderr) == (2, f"harvester: error: ids, line 2: {said}")
    done = call("plan", "--api", api, "neither")
    assert (done.code, "is an id of" in done.stderr) == (2, False)


def test_an_end_before_the_run_is_json_where_the_logs_are(served: Served, tmp_path: Path) -> None:
    """The list of campaigns cannot be asked for: the day is spent already."""
    listing = ["run", "--all-sent", *options(served), "-q"]
    assert harvester(tmp_path, *listing, "--max-requests", 1).code == 75
    done = harvester(tmp_path, *listing, "--daily-quota", 1, "--log-format", "json")
    (line,) = map(json.loads, done.complaints)
    assert (done.code, line["level"], line["event"]) == (75, "error", "note")
    assert "the day's quota of requests is spent; not before " in line["message"]


def test_no_command_at_all_shows_the_help(call: Call) -> None:
    """Exit code 2, with every command."""
    done = call()
    assert done.code == 2
    assert "harvester demo" in done.stderr + done.stdout


@pytest.mark.parametrize(
    ("raised", "code"),
    [
        (ConfigError("mend it"), 2),
        (CampaignError("not_found", "mend it"), 3),
        *((StopRun(reason, "mend it"), code) for reason, code in EXIT_CODES.items()),
        (KeyboardInterrupt(), 130),
        (ValueError("a secret"), 1),
        (ExceptionGroup("a secret", [ValueError("a secret")]), 1),
    ],
)
def test_whatever_is_raised_is_an_exit_code_and_one_line(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    raised: BaseException,
    code: int,
) -> None:
    """Each kind of error has its code; a bug's message is not shown."""

    def fail(*_: object, **__: object) -> None:
        raise raised

    monkeypatch.setattr("harvester.cli.cli.main", fail)
    assert main(["run"]) == code
    said = capsys.readouterr()
    assert said.out == ""
    assert "a secret" not in said.err
    assert "Traceback" not in said.err
    if code not in (1, 130):
        assert said.err.startswith("harvester: error: mend it")
        assert said.err.count("\n") == 1


def test_a_bug_shows_where_it_is_when_asked_twice(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """-v -v has every frame, and still no message: it could hold a secret."""

    def fail(*_: object, **__: object) -> None:
        raise ValueError(" ".join(["a", "secret"]))

    monkeypatch.setattr("harvester.cli.cli.main", fail)
    for argv, frames in ((["run"], 0), (["run", "-v"], 0), (["run", "-vv"], 2), (["-v", "-v"], 2)):
        assert main(argv) == 1
        said = capsys.readouterr().err
        assert said.count("  File ") == frames
        assert "in fail" in said or not frames
        assert "a secret" not in said
        assert said.splitlines()[-1].startswith("harvester: error: a bug in harvester ")


# -- the list of campaigns ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def unlisted() -> Iterator[Served]:
    """Two pages of campaigns, the second of which is refused."""
    pinned = {("", 2): "error400"}
    asked = SandboxSettings(campaigns=70, pages=70, rows_per_page=ROWS, pinned=pinned)
    with Served(Sandbox(asked)) as server:
        yield server


LIST = "harvester: error: the list of campaigns cannot be read: "


@pytest.mark.parametrize("command_", ["run", "plan"])
def test_a_list_that_cannot_be_read_is_no_failed_campaign(
    unlisted: Served, tmp_path: Path, command_: str
) -> None:
    """Exit code 1 and one line that says so; nothing is harvested, and no directory is made."""
    done = harvester(tmp_path, command_, "--all-sent", "-o", "out", *options(unlisted))
    assert (done.code, done.stdout) == (1, "")
    (line,) = done.complaints
    assert line.startswith(LIST)
    assert line.endswith("; nothing was harvested")
    assert "HTTP 400" in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("option", [[], ["--json"], ["--with-names"]])
def test_part_of_a_list_is_not_printed(unlisted: Served, tmp_path: Path, option: list[str]) -> None:
    """`campaigns | run -i -` would take it for the whole."""
    connection = ["--base-url", unlisted.sandbox.base_url, "--rate", 0]
    done = harvester(tmp_path, "campaigns", *connection, *option)
    assert (done.code, done.stdout) == (1, "")
    (line,) = done.complaints
    assert line.startswith(LIST)
    assert line.endswith("; nothing was listed")


# -- plan ----------------------------------------------------------------------------------------


def plan(call: Call, *argv: object) -> dict[str, Any]:
    """`harvester plan --json`."""
    done = call("plan", "--json", *argv)
    assert done.code == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_plan_tells_what_a_run_would_do(served: Served, tmp_path: Path, call: Call) -> None:
    """Done, partial and new campaigns, the least requests and days, and what was used today; it
    sends nothing and leaves no output directory."""
    ids = served.sandbox.world.campaign_ids
    arguments = [*options(served), "-o", "out", *ids]
    before = served.sandbox.requests
    first = plan(call, *arguments)
    none = {"total": 6, "done": 0, "partial": 0, "new": 6, "failed": 0}
    assert (first["campaigns"], first["requests"], first["at_least"]) == (none, 6, True)
    assert (first["used_today"], first["left_today"]) == (0, 10_000)
    assert first["days"] == 1
    assert served.sandbox.requests == before
    assert not (tmp_path / "out").exists()
    assert harvester(tmp_path, "run", *arguments, "--max-requests", 4, "-j", 1).code == 75
    states = summary_of(tmp_path / "out")["campaigns"]
    then = plan(call, *arguments)
    assert list(then["campaigns"].values()) == [
        *(states[name] for name in ("total", "complete", "partial", "pending", "failed"))
    ]
    assert then["requests"] == then["campaigns"]["partial"] + then["campaigns"]["new"]
    assert then["used_today"] == 4
    assert harvester(tmp_path, "run", *arguments).code == 0
    after = plan(call, *arguments)
    assert (after["campaigns"]["done"], after["requests"], after["days"]) == (6, 0, 0)
    assert after["at_least"] is False
    assert plan(call, *arguments, "--since", "last")["requests"] == 6
    assert plan(call, *arguments, "--fresh")["campaigns"]["new"] == 6


def test_plan_counts_campaigns_whatever_the_number_of_reports(served: Served, call: Call) -> None:
    """Six campaigns in three reports are six campaigns, and eighteen requests at least."""
    ids = served.sandbox.world.campaign_ids
    found = plan(call, *options(served), "--report", "opens,clicks,sends", *ids)
    assert (found["campaigns"]["total"], found["campaigns"]["new"]) == (6, 6)
    assert found["requests"] == 18


def test_plan_needs_no_secret(served: Served, call: Call, tmp_path: Path) -> None:
    """No request is sent, so no key is needed."""
    env = {k: v for k, v in surroundings(tmp_path).items() if "KEY" not in k and "TOKEN" not in k}
    done = call("plan", *options(served), "--api", "v2", "1", "2", env=env)
    assert done.code == 0, done.stderr
    assert " campaigns  2 for harvest\n" in done.stdout
    assert "       new  2\n" in done.stdout


def test_plan_says_how_many_days_a_backfill_takes(served: Served, call: Call) -> None:
    """25 campaigns at ten requests a day are three days' work at least."""
    ids = [str(each) for each in range(1, 26)]
    found = plan(call, *options(served), "--daily-quota", 10, *ids)
    assert found["days"] == 3
    assert found["done_about"] > "2026"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--rate", "0"], "at least 1 day with no pace, not before "),
        (["--rate", "2"], "at least 1 day at 2 a second, not before "),
        (["--rate", "0", "--daily-quota", "0"], "at least 1 day with no pace, not before "),
    ],
)
def test_plan_says_the_pace(served: Served, call: Call, more: list[str], said: str) -> None:
    """Also where there is none."""
    done = call("plan", *options(served), *more, "1")
    assert said in done.stdout


@pytest.mark.parametrize("argument", [["--page-size", "4"], ["--compress", "gzip"]])
def test_plan_refuses_what_run_would_refuse(
    served: Served, tmp_path: Path, call: Call, argument: list[str]
) -> None:
    """Other settings than the directory was begun with: exit code 2, like the run itself."""
    ids = served.sandbox.world.campaign_ids[:1]
    arguments = [*options(served), "-o", "out", *ids]
    assert harvester(tmp_path, "run", *arguments).code == 0
    done = call("plan", *arguments, *argument)
    assert done.code == 2
    assert argument[0] in done.stderr


# -- status --------------------------------------------------------------------------------------


def test_status_tells_what_is_there_and_why_it_stopped(served: Served, tmp_path: Path) -> None:
    """Campaigns by state, the last stop's reason, and when the same command goes on."""
    ids = served.sandbox.world.campaign_ids
    arguments = ["run", *options(served), "-o", "out", *ids]
    assert harvester(tmp_path, *arguments, "--daily-quota", 4, "-j", 1).code == 75
    states = summary_of(tmp_path / "out")["campaigns"]
    done = harvester(tmp_path, "status", "out")
    assert done.code == 0, done.stderr
    assert "6 campaigns known in out" in done.stdout
    for name in ("complete", "failed", "partial", "pending"):
        assert f"{states[name]:>9} {name}" in done.stdout
    assert "quota_spent" in done.stdout
    assert "        4 of 4 requests today, as the last run left it" in done.stdout
    assert "the same command goes on from " in done.stdout
    assert harvester(tmp_path, *arguments, "--daily-quota", 0).code == 0
    done = harvester(tmp_path, "status", "out")
    assert "6 complete" in done.stdout
    assert re.search(r"^ +\d+ requests today", done.stdout, re.MULTILINE)
    found = json.loads(harvester(tmp_path, "status", "--json", "out").stdout)
    assert found["campaigns"] == {"complete": 6, "failed": 0, "partial": 0, "pending": 0}
    manifest = lines(tmp_path / "out/manifest.ndjson")
    for name in ("rows", "bytes"):
        assert found[name] == sum(line[name] for line in manifest)
    assert (found["failed"], found["reason"], found["resume_at"]) == ({}, "complete", None)
    assert found["quota"].keys() == {"limit", "used_today", "resets_at"}
    assert found["running"] is None
    assert ": complete" in done.stdout


def test_status_sees_a_run_that_is_under_way(served: Served, tmp_path: Path) -> None:
    """It names the process, and needs no lock of its own."""
    ids = served.sandbox.world.campaign_ids
    slow = ["run", "-o", "out", "--base-url", served.sandbox.base_url, "--rate", "0.5", *ids]
    with subprocess.Popen(
        command(*slow), cwd=tmp_path, env=surroundings(tmp_path), stderr=subprocess.DEVNULL
    ) as process:
        until(lambda: (tmp_path / "out/retries.ndjson").exists())
        done = harvester(tmp_path, "status", "out")
        process.send_signal(signal.SIGTERM)
    assert done.code == 0, done.stderr
    assert f"a run is under way: process {process.pid}, since " in done.stdout


@pytest.mark.parametrize("command_", ["status", "verify"])
def test_a_directory_without_a_harvest_is_named(tmp_path: Path, call: Call, command_: str) -> None:
    """Exit code 2, and nothing is created."""
    (tmp_path / "empty").mkdir()
    for name in ("empty", "nowhere"):
        done = call(command_, name)
        assert (done.code, done.complaints) == (2, [f"harvester: error: {name} holds no harvest"])
    assert list((tmp_path / "empty").iterdir()) == []
    assert not (tmp_path / "nowhere").exists()


# -- verify --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def harvested(served: Served, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole harvest, with a directory around it."""
    home = tmp_path_factory.mktemp("harvested")
    ids = served.sandbox.world.campaign_ids
    assert harvester(home, "run", *options(served), "-o", "out", *ids).code == 0
    return home


def test_status_knows_the_quota_of_this_day(harvested: Path, tmp_path: Path, call: Call) -> None:
    """After the reset nothing is used; a summary that was edited by hand is no bug."""
    shutil.copytree(harvested / "out", tmp_path / "out")
    path = tmp_path / "out/summary.json"
    summary = json.loads(path.read_text())
    past = {"limit": 9, "used_today": 5, "resets_at": "2020-01-01T00:00:00.000Z"}
    for quota, used in ((summary["quota"], summary["requests"]["sent"]), (past, 0), ({}, None)):
        path.write_text(json.dumps({**summary, "quota": quota}))
        found = json.loads(call("status", "out", "--json").stdout)["quota"]
        assert (found and found["used_today"]) == used
        said = call("status", "out")
        assert (said.code, f"{used} of " in said.stdout) == (0, used is not None)


def test_verify_says_nothing_is_different(harvested: Path) -> None:
    """Exit code 0, and nothing on standard output."""
    done = harvester(harvested, "verify", "out")
    assert done == Done(0, "", "6 files checked in out: no difference\n")
    assert harvester(harvested, "verify", "-q", "out") == Done(0, "", "")
    asked = harvester(harvested, "verify", "--json", "out")
    assert (asked.code, json.loads(asked.stdout)) == (0, {"files": 6, "wrong": []})


def test_verify_names_every_file_that_differs(harvested: Path, tmp_path: Path, call: Call) -> None:
    """Exit code 3: a file that is gone, one that was changed, one that was added."""
    shutil.copytree(harvested / "out", tmp_path / "out")
    files = [line["file"] for line in lines(tmp_path / "out/manifest.ndjson") if line["rows"] > 1]
    gone, changed, longer, *_ = (tmp_path / "out" / name for name in files)
    gone.unlink()
    data = changed.read_bytes()
    changed.write_bytes(data.replace(b'"', b"'", 1))
    longer.write_bytes(longer.read_bytes() + b"{}\n")
    (tmp_path / "out/opens/7.ndjson").write_bytes(b"")
    done = call("verify", "out")
    assert done.code == 3
    found = dict(line.split(": ", 1) for line in done.stdout.splitlines())
    assert found[files[0]] == "is missing"
    assert found[files[1]].startswith("sha256: ")
    assert found[files[2]].startswith("rows: ") or found[files[2]].startswith("sha256: ")
    assert found["opens/7.ndjson"] == "is not in the manifest"
    differences = len(done.stdout.splitlines())
    assert done.stderr == f"6 files checked in out: {differences} differences\n"
    found_too = json.loads(call("verify", "out", "--json").stdout)
    assert found_too["files"] == 6
    assert found_too["wrong"] == [
        dict(zip(("file", "what"), line.split(": ", 1), strict=True))
        for line in done.stdout.splitlines()
    ]


@pytest.mark.parametrize("log", ["text", "json"])
def test_a_directory_whose_name_is_no_text(served: Served, tmp_path: Path, log: str) -> None:
    """Its bytes are shown as they are, or replaced where JSON needs text; no command fails."""
    name = os.fsdecode(b"x\xff")
    arguments = [
        *options(served),
        "-o",
        name,
        "--log-format",
        log,
        *served.sandbox.world.campaign_ids,
    ]
    assert harvester(tmp_path, "run", *arguments).code == 0
    assert (tmp_path / name / "summary.json").exists()
    for argv in (
        ("status", name),
        ("status", "--json", name),
        ("verify", name),
        ("plan", *arguments),
    ):
        done = subprocess.run(
            command(*argv),
            cwd=tmp_path,
            env=surroundings(tmp_path),
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert b"Traceback" not in done.stderr
    assert b" for x\xff\n" in done.stdout
