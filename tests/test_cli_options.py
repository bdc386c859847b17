"""The options of the command line: names, defaults, and which of four places goes before which."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from shell import called, surroundings, without_secrets

from harvester.api.vendor import ORIGINS
from harvester.cli import cli, main
from harvester.cli.options import build_config
from harvester.config import HarvestConfig

RUN = ("run", "1", "--base-url", "http://127.0.0.1:9", "--retries", "0")
"""No request leaves the machine."""
COMMANDS = (
    "login",
    "logout",
    "check",
    "run",
    "plan",
    "status",
    "verify",
    "report",
    "campaigns",
    "sandbox",
    "demo",
)


def command_of(name: str) -> click.Command:
    """A command as the group gives it."""
    with click.Context(cli) as context:
        found = cli.get_command(context, name)
    assert found is not None
    return found


run, plan = command_of("run"), command_of("plan")
DEFAULTS: dict[str, Any] = {
    "input": None,
    "output": "harvest",
    "report": "opens",
    "since": None,
    "page-size": 500,
    "min-page-size": None,
    "api": None,
    "auth-url": None,
    "account": "default",
    "client-id": None,
    "no-counts": False,
    "sizes": None,
    "provenance": False,
    "max-pages": 100_000,
    "max-page-bytes": 67_108_864,
    "base-url": None,
    "rate": 3.3,
    "concurrency": 16,
    "retries": 5,
    "timeout": 60.0,
    "max-wait": 300.0,
    "daily-quota": 10_000,
    "quota-reserve": 0,
    "max-requests": None,
    "max-duration": None,
    "wait-for-quota": False,
    "fresh": False,
    "retry-failed": False,
    "repair": False,
    "compress": None,
    "quiet": False,
    "verbose": 0,
    "no-progress": False,
    "log-format": "text",
    "json": False,
    "api-key-file": None,
    "access-token-file": None,
    "token-command": None,
    "all-sent": False,
    "summary": False,
    "links": False,
}
SHORT = {"-i": "input", "-o": "output", "-j": "concurrency", "-q": "quiet", "-v": "verbose"}


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """No setting comes from outside, and nothing is written elsewhere."""
    for name in surroundings(tmp_path):
        if name.startswith("HARVESTER_"):
            monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HARVESTER_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("HARVESTER_API_KEY", "a-key-of-v2")
    monkeypatch.chdir(tmp_path)
    yield  # noqa: PT022 - the patches must outlive the set-up


def options_of(command: click.Command) -> dict[str, click.Option]:
    """The options of a command by their long name."""
    return {
        name.removeprefix("--"): each
        for each in command.params
        if isinstance(each, click.Option)
        for name in each.opts
        if name.startswith("--")
    }


def config_of(*argv: object, command: click.Command = run) -> HarvestConfig:
    """What a command line comes to."""
    context = command.make_context("harvester", [*map(str, argv)])
    with context:
        return build_config(context)


# -- the table of the contract -------------------------------------------------------------------


@pytest.mark.parametrize("name", DEFAULTS)
def test_every_option_is_there_with_its_default(name: str) -> None:
    """As the README's table has it; each can also be given as HARVESTER_<NAME>."""
    option = options_of(run)[name]
    found = run.make_context("harvester", []).params[option.name or ""]
    assert (str(found) if isinstance(found, Path) else found) == DEFAULTS[name]
    assert option.envvar == "HARVESTER_" + name.upper().replace("-", "_")
    assert option.help or name == "log-format"


def test_concurrency_counts_requests() -> None:
    """More campaigns than that are under way at once; the help does not promise otherwise."""
    assert options_of(run)["concurrency"].help == "Requests in flight, each of another campaign."


def test_short_names_are_those_of_the_contract() -> None:
    """-i, -o, -j, -q and -v."""
    short = {
        opt: name
        for name, each in options_of(run).items()
        for opt in each.opts
        if not opt.startswith("--")
    }
    assert short == SHORT


def test_no_option_takes_a_secret() -> None:
    """Every user of the machine can read argv."""
    for command in (run, plan):
        assert options_of(command).keys() & {"api-key", "access-token", "token"} == set()


def test_plan_takes_the_arguments_of_run() -> None:
    """Whatever is given to `run` can be given to `plan`, to see what it would do."""
    assert set(options_of(run)) - set(options_of(plan)) == set()


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """`--help` and `-h` end well, say what the command does, and name each of its options."""
    assert main([command, "--help"]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"Usage: harvester {command} ")
    for name, each in options_of(command_of(command)).items():
        assert (f"--{name}" in said) == (not each.hidden), name
    assert max(map(len, said.splitlines())) <= 80
    assert main([command, "-h"]) == 0
    assert capsys.readouterr().out == said


def test_the_commands_are_those_of_the_contract(capsys: pytest.CaptureFixture[str]) -> None:
    """`harvester --help` lists every command and proposes the demo."""
    assert main(["--help"]) == 0
    said = capsys.readouterr().out
    assert all(f"\n  {command} " in said for command in COMMANDS)
    assert "harvester demo" in said
    with click.Context(cli) as context:
        assert tuple(cli.list_commands(context)) == COMMANDS


# -- flag over environment over file over default ------------------------------------------------

PLACES = [
    ("rate", 1.5, 2.5, 0.5),
    ("page-size", 7, 8, 9),
    ("min-page-size", 1, 2, 3),
    ("concurrency", 3, 4, 5),
    ("retries", 0, 1, 2),
    ("timeout", 10.0, 11.0, 12.0),
    ("max-wait", 1.0, 2.0, 0.0),
    ("daily-quota", 100, 200, 0),
    ("quota-reserve", 3, 2, 1),
    ("max-requests", 5, 6, 7),
    ("max-duration", 5.0, 6.0, 7.5),
    ("compress", "zstd", "gzip", "zstd"),
    ("base-url", "https://a.example", "https://b.example", "https://c.example"),
    ("auth-url", "https://a.example", "https://b.example", "https://c.example"),
    ("account", "a", "b", "c"),
    ("client-id", "a", "b", "c"),
    ("max-pages", 1, 2, 3),
    ("max-page-bytes", 1, 2, 3),
]


@pytest.mark.parametrize(("name", "flag", "environment", "file"), PLACES)
def test_flag_before_environment_before_file_before_default(
    monkeypatch: pytest.MonkeyPatch, name: str, flag: Any, environment: Any, file: Any
) -> None:
    """The nearest place decides, for each option by itself."""
    field = name.replace("-", "_")

    def found(*argv: object) -> Any:
        return getattr(config_of(*argv), field)

    assert found() == getattr(HarvestConfig(api="v2"), field)
    text = f'"{file}"' if isinstance(file, str) else file
    Path("settings.toml").write_text(f"{name} = {text}\n")
    assert found("--config", "settings.toml") == file
    Path("settings.toml").write_text(f"{field} = {text}\n")
    assert found("--config", "settings.toml") == file
    monkeypatch.setenv("HARVESTER_" + field.upper(), str(environment))
    assert found("--config", "settings.toml") == environment
    assert found() == environment
    assert found("--config", "settings.toml", f"--{name}", flag) == flag
    monkeypatch.delenv("HARVESTER_" + field.upper())
    monkeypatch.setenv("HARVESTER_CONFIG", "settings.toml")
    assert found() == file


@pytest.mark.parametrize(
    ("text", "expected"),
    [("1", True), ("true", True), ("yes", True), ("0", False), ("false", False), ("no", False)],
)
@pytest.mark.parametrize("name", ["fresh", "retry-failed", "wait-for-quota", "links", "summary"])
def test_a_switch_can_come_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, name: str, text: str, *, expected: bool
) -> None:
    """1, true and yes are on, 0, false and no are off."""
    field = name.replace("-", "_")
    monkeypatch.setenv("HARVESTER_" + field.upper(), text)
    assert getattr(config_of(), field) is expected


def test_a_file_can_hold_lists_dates_and_switches() -> None:
    """As TOML spells them."""
    Path("settings.toml").write_text(
        'report = ["clicks", "opens"]\nsince = 2026-01-31\nfresh = true\noutput = "there"\n'
    )
    config = config_of("--config", "settings.toml")
    assert config.reports == ("opens", "clicks")
    assert config.start is not None
    assert config.start.isoformat() == "2026-01-31T00:00:00+00:00"
    assert (config.fresh, config.directory) == (True, Path("there"))
    Path("settings.toml").write_text("since = 2026-01-31T01:00:00+01:00\n")
    config = config_of("--config", "settings.toml")
    assert config.start is not None
    assert config.start.isoformat() == "2026-01-31T00:00:00+00:00"


def test_the_same_file_serves_plan() -> None:
    """A file written for `run` is no mistake for `plan`."""
    Path("settings.toml").write_text('rate = 1.0\nlog-format = "json"\nquiet = true\n')
    assert config_of("--config", "settings.toml", command=run).rate == 1.0
    assert config_of("--config", "settings.toml", command=plan).rate == 1.0


@pytest.mark.parametrize("command", [run, plan])
def test_every_option_can_stand_in_a_file(
    monkeypatch: pytest.MonkeyPatch, command: click.Command
) -> None:
    """By its long name, --json too."""
    monkeypatch.delenv("HARVESTER_STATE_DIR")
    words = {"api": "v3", "log-format": "json", "compress": "gzip"}
    for name, option in options_of(command).items():
        value: object = words.get(name, "word")
        if option.is_flag:
            value = True
        elif isinstance(option.type, click.IntRange | click.FloatRange):
            value = 1
        Path("settings.toml").write_text(f"{name} = {json.dumps(value)}\n")
        if name != "config":
            context = command.make_context("harvester", ["--config", "settings.toml"])
            found = context.params[option.name or ""]
            assert (str(found) if isinstance(found, Path) else found) == value, name


def test_one_file_serves_every_command() -> None:
    """What only a run has is nothing to `campaigns`, and no mistake; an unknown name is one."""
    campaigns = command_of("campaigns")
    lines = [f"{name} = 0" for name in options_of(run) if name not in options_of(campaigns)]
    Path("settings.toml").write_text("\n".join(["rate = 1.5", *lines]))
    assert config_of("--config", "settings.toml", command=campaigns).rate == 1.5
    Path("settings.toml").write_text('status = "DRAFT"\noutput = "there"\n')
    context = campaigns.make_context("harvester", ["--config", "settings.toml"])
    assert context.params["status"] == "DRAFT"
    Path("settings.toml").write_text('outputs = "there"\n')
    with pytest.raises(click.BadParameter, match="no option --outputs"):
        config_of("--config", "settings.toml", command=campaigns)
    Path("settings.toml").write_text('api-key = "canary"\n')
    with pytest.raises(click.BadParameter, match="a secret has no place"):
        config_of("--config", "settings.toml", command=campaigns)


# -- paths ---------------------------------------------------------------------------------------

PATHS = ["output", "state-dir", "api-key-file", "access-token-file", "sizes", "input"]


@pytest.mark.parametrize("empty", ["", " "])
@pytest.mark.parametrize("where", ["flag", "environment", "file"])
def test_an_empty_output_is_refused(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    where: str,
    empty: str,
) -> None:
    """It comes of a variable that is not set, and would mean the current directory, where --fresh
    deletes: exit code 2, from whatever place it comes."""
    argv, env = [*RUN, "--fresh"], surroundings(tmp_path)
    settings = tmp_path / "settings.toml"
    settings.write_text(f'output = "{empty}"\n')
    match where:
        case "flag":
            argv += ["-o", empty]
        case "environment":
            env["HARVESTER_OUTPUT"] = empty
        case "file":
            argv += ["--config", "settings.toml"]
    done = called(tmp_path, monkeypatch, capsys, *argv, env=env)
    assert done.code == 2, done.stderr
    assert "--output" in done.stderr
    assert "the path is empty" in done.stderr
    assert list(tmp_path.iterdir()) == [settings]


@pytest.mark.parametrize("name", [*PATHS, "config"])
def test_no_path_may_be_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """None of them means the current directory by accident."""
    done = called(tmp_path, monkeypatch, capsys, *RUN, f"--{name}", "")
    assert done.code == 2
    assert f"--{name}" in done.stderr
    assert "the path is empty" in done.stderr


def test_the_current_directory_can_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """By its name; and a flag is enough where the variable is empty."""
    assert config_of("-o", ".").directory == Path()
    monkeypatch.setenv("HARVESTER_OUTPUT", "")
    assert config_of("-o", "there").directory == Path("there")


@pytest.mark.parametrize("name", PATHS)
def test_a_tilde_is_the_home_folder_where_no_shell_has_seen_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    """In the settings file and in the environment; with a flag the shell has had its say."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("HARVESTER_STATE_DIR")
    field = name.replace("-", "_")

    def found(*argv: str) -> str:
        return str(run.make_context("harvester", [*argv]).params[field])

    Path("settings.toml").write_text(f'{name} = "~/hh"\n')
    assert found("--config", "settings.toml") == str(tmp_path / "hh")
    assert found(f"--{name}", "~/hh") == "~/hh"
    monkeypatch.setenv("HARVESTER_" + field.upper(), "~/ii")
    assert found() == str(tmp_path / "ii")
    monkeypatch.setenv("HARVESTER_" + field.upper(), "~no-such-user/ii")
    with pytest.raises(click.BadParameter, match="no home folder for ~no-such-user"):
        found()


def test_a_tilde_in_the_name_of_the_settings_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """HARVESTER_CONFIG is a path like the others."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("HARVESTER_CONFIG", "~/settings.toml")
    Path("settings.toml").write_text("rate = 1.5\n")
    assert config_of().rate == 1.5


@pytest.mark.parametrize(
    ("command", "option", "name"),
    [(run, "-i", "input"), (command_of("campaigns"), "--from-v2", "from_v2")],
)
def test_a_file_called_dash_can_be_asked_for(
    command: click.Command, option: str, name: str
) -> None:
    """`-` is standard input, `./-` is not."""
    for given in ("-", "./-"):
        assert command.make_context("harvester", [option, given]).params[name] == given


# -- mistakes ------------------------------------------------------------------------------------

FILES = {
    "an unknown name": ("rat = 1.0", ["no option --rat"]),
    "a table": ("[run]\nrate = 1.0", ["no option --run"]),
    "ids": ("ids = [1]", ["no option --ids"]),
    "itself": ('config = "other.toml"', ["no option --config"]),
    "a key": ('api_key = "canary"', ["a secret has no place", "HARVESTER_API_KEY"]),
    "a key, with a dash": ('api-key = "canary"', ["a secret has no place", "api-key-file"]),
    "a token": ('access-token = "canary"', ["a secret has no place", "HARVESTER_ACCESS_TOKEN"]),
    "no TOML": ("rate: 1.0", ["is not TOML"]),
    "a word for a number": ('rate = "fast"', ["--rate", "fast"]),
    "a number out of range": ("page-size = 501", ["--page-size", "501"]),
    "a list for one value": ("output = [1, 2]", ["--output"]),
    "a number among the reports": ('report = ["opens", 5]', ["--report"]),
    "a table for a value": ("rate = {a = 1}", ["--rate"]),
    "a fraction of a request": ("concurrency = 2.7", ["--concurrency takes a whole number", "2.7"]),
    "a fraction of a row": ("page-size = 100.9", ["--page-size takes a whole number", "100.9"]),
    "a whole number with a point": ("retries = 5.0", ["--retries takes a whole number", "5.0"]),
    "a switch for a whole number": ("retries = true", ["--retries takes a whole number", "true"]),
    "a switch for a number": ("rate = true", ["--rate takes a number, not true"]),
    "a date for a number": ("rate = 2026-01-31", ["--rate takes a number", "2026-01-31"]),
    "a number for a switch": ("fresh = 2", ["--fresh takes true or false, not 2"]),
    "a number for a path": ("output = 5", ["--output takes text, not 5"]),
    "a switch for text": ("compress = false", ["--compress takes text, not false"]),
    "the name that json has inside": ("as-json = true", ["no option --as-json"]),
    "a word for a switch": ('fresh = "perhaps"', ["--fresh", "perhaps"]),
}


@pytest.mark.parametrize("mistake", FILES)
def test_a_mistake_in_the_file_is_named(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    mistake: str,
) -> None:
    """Exit code 2, the option's name, and no secret; nothing is written."""
    text, expected = FILES[mistake]
    Path("settings.toml").write_text(text + "\n")
    done = called(tmp_path, monkeypatch, capsys, *RUN, "--config", "settings.toml")
    assert done.code == 2, done.stderr
    for each in expected:
        assert each in done.stderr
    assert "canary" not in done.stderr
    assert not Path("harvest").exists()


VALUES = [
    ("--api", "v9", ["--api", "v2"]),
    ("--rate", "fast", ["--rate", "float"]),
    ("--rate", "nan", ["--rate"]),
    ("--rate", "-1", ["--rate", "0<=x<=1000000"]),
    ("--page-size", "0", ["--page-size", "1<=x<=500"]),
    ("--concurrency", "0", ["--concurrency", "1<=x<=1000"]),
    ("--retries", "101", ["--retries", "0<=x<=100"]),
    ("--timeout", "0", ["--timeout", "0<x"]),
    ("--max-wait", "-1", ["--max-wait", "0<=x<=86400"]),
    ("--daily-quota", "-1", ["--daily-quota", "x>=0"]),
    ("--quota-reserve", "10000", ["--quota-reserve", "less than the daily quota of 10000"]),
    ("--max-requests", "0", ["--max-requests", "x>=1"]),
    ("--max-duration", "0", ["--max-duration", "x>0"]),
    ("--compress", "rar", ["--compress", "zstd", "gzip"]),
    ("--log-format", "xml", ["--log-format", "text", "json"]),
    ("--report", "openings", ["--report", "opens, clicks, sends, bounces", "all"]),
    ("--since", "yesterday", ["--since", "ISO-8601", "last"]),
    ("--since", "2026-01-01T00:00:00", ["--since", "offset"]),
    ("--base-url", "https://[::1", ["--base-url", "https://HOST"]),
    ("--base-url", "ftp://api.example", ["--base-url", "https://HOST"]),
    ("--base-url", "https://me:canary@api.example", ["--base-url", "https://HOST"]),
    ("--input", "/", ["--input"]),
]


@pytest.mark.parametrize(("option", "value", "expected"), VALUES)
def test_a_value_that_cannot_be_used_is_refused_with_what_can(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    option: str,
    value: str,
    expected: list[str],
) -> None:
    """Exit code 2; the message names the option and what it accepts; nothing is written."""
    done = called(tmp_path, monkeypatch, capsys, *RUN, option, value)
    assert done.code == 2, done.stderr
    for each in expected:
        assert each in done.stderr
    assert "canary" not in done.stderr
    assert "a bug" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_bad_value_in_the_environment_is_refused_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The message names the option."""
    env = surroundings(tmp_path, HARVESTER_PAGE_SIZE="many")
    done = called(tmp_path, monkeypatch, capsys, *RUN, env=env)
    assert done.code == 2
    assert "--page-size" in done.stderr
    assert "many" in done.stderr


# -- secrets -------------------------------------------------------------------------------------


def test_where_the_key_comes_from(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file given as a flag goes before the environment's key, that before a file named in the
    settings file."""
    monkeypatch.delenv("HARVESTER_API_KEY")
    Path("key").write_text("from-the-file\nsecond line\n")
    Path("settings.toml").write_text('api-key-file = "key"\n')
    assert config_of("--api-key-file", "key").api_key == "from-the-file"
    assert config_of("--config", "settings.toml").api_key == "from-the-file"
    monkeypatch.setenv("HARVESTER_API_KEY", " from-the-environment ")
    assert config_of().api_key == "from-the-environment"
    assert config_of("--config", "settings.toml").api_key == "from-the-environment"
    assert config_of("--api-key-file", "key").api_key == "from-the-file"


def test_where_the_token_comes_from(monkeypatch: pytest.MonkeyPatch) -> None:
    """The nearest source alone is used, so that a token that can be renewed is renewed."""

    def found(*argv: object) -> tuple[Any, Any, Any]:
        config = config_of(*argv)
        return config.access_token, config.access_token_file, config.token_command

    Path("token").write_text("from-the-file\n")
    Path("settings.toml").write_text('access-token-file = "token"\n')
    assert found() == (None, None, None)
    assert found("--config", "settings.toml") == (None, Path("token"), None)
    monkeypatch.setenv("HARVESTER_ACCESS_TOKEN", "from-the-environment")
    assert found() == ("from-the-environment", None, None)
    assert found("--config", "settings.toml") == ("from-the-environment", None, None)
    assert found("--access-token-file", "token") == (None, Path("token"), None)
    assert found("--token-command", "print it") == (None, None, "print it")
    monkeypatch.setenv("HARVESTER_TOKEN_COMMAND", "print it")
    assert found() == (None, None, "print it")


def test_a_secret_file_that_cannot_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By its path, not by its content."""
    done = called(tmp_path, monkeypatch, capsys, *RUN, "--api-key-file", "nowhere")
    assert (done.code, done.complaints) == (
        2,
        ["harvester: error: cannot read nowhere: No such file or directory"],
    )
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    done = called(tmp_path, monkeypatch, capsys, *RUN, "--api-key-file", "binary")
    assert (done.code, done.complaints) == (2, ["harvester: error: cannot read binary: not text"])


@pytest.mark.parametrize("content", ["", "\n", "  \ncanary\n", "\ufeff"])
def test_an_empty_key_file_is_named(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    content: str,
) -> None:
    """The message does not ask for the option that was given."""
    (tmp_path / "key").write_text(content, encoding="utf-8")
    env = without_secrets(tmp_path)
    done = called(tmp_path, monkeypatch, capsys, *RUN, "--api-key-file", "key", env=env)
    assert (done.code, done.complaints) == (
        2,
        ["harvester: error: --api-key-file: key is empty: the key is its first line"],
    )


def test_a_byte_order_mark_belongs_to_no_key_and_no_setting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Some editors put it before what they write: it is dropped."""
    monkeypatch.delenv("HARVESTER_API_KEY")
    Path("key").write_text("the-key\n", encoding="utf-8-sig")
    Path("settings.toml").write_text('api-key-file = "key"\nrate = 1.5\n', encoding="utf-8-sig")
    config = config_of("--config", "settings.toml")
    assert (config.api_key, config.rate) == ("the-key", 1.5)


# -- proxies -------------------------------------------------------------------------------------


@pytest.mark.parametrize("api", ORIGINS)
def test_each_version_is_asked_at_its_own_origin(monkeypatch: pytest.MonkeyPatch, api: str) -> None:
    """Unless another one is given; whether NO_PROXY names it is asked of that very host."""
    assert config_of("--api", api).base_url == ORIGINS[api]
    assert config_of("--api", api, "--base-url", "https://h").base_url == "https://h"
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:8080")
    monkeypatch.setenv("NO_PROXY", ORIGINS[api].removeprefix("https://"))
    assert [config_of("--api", each).proxy is None for each in ORIGINS] == [
        each == api for each in ORIGINS
    ]


def test_a_proxy_comes_from_the_environment_and_never_for_loopback(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """HTTPS_PROXY is used unless NO_PROXY names the host; plain http goes nowhere but here."""
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:8080")
    monkeypatch.delenv("https_proxy", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv("NO_PROXY", "inside.example")
    assert config_of().proxy == "http://proxy.example:8080"
    assert config_of("--base-url", "https://inside.example").proxy is None
    assert config_of("--base-url", "http://127.0.0.1:1").proxy is None
    assert config_of("--base-url", "https://inside.example.:443").proxy is None
    monkeypatch.setenv("HTTPS_PROXY", "proxy.example:8080")
    assert config_of().proxy == "http://proxy.example:8080"


def test_a_proxy_of_another_kind_is_a_mistake_in_the_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2, and no password is shown; where no proxy is asked it does not matter."""
    monkeypatch.delenv("https_proxy", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    env = surroundings(tmp_path, HTTPS_PROXY="socks5://me:canary@proxy.example:1080")
    asked = ("run", "1", "--base-url", "https://api.invalid")
    done = called(tmp_path, monkeypatch, capsys, *asked, env=env)
    assert done.code == 2
    assert "HTTPS_PROXY" in done.stderr
    assert "socks5" in done.stderr
    assert "canary" not in done.stderr
    assert list(tmp_path.iterdir()) == []
    assert called(tmp_path, monkeypatch, capsys, "plan", *RUN[1:], env=env).code == 0
