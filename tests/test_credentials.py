"""The key and the token: where they come from, how they are renewed, where they never show."""

import asyncio
import base64
import html
import json
import os
import sys
import traceback
from pathlib import Path
from time import thread_time
from typing import Any
from urllib.parse import quote, quote_plus

import anyio
import pytest
from crashlab import until
from fakes import credentials_of
from hypothesis import assume, given
from hypothesis import strategies as st

from harvester.errors import ConfigError, StopRun
from harvester.request.credentials import Credentials, FixedToken, TokenFile, read_secret
from harvester.request.redact import Redactor
from harvester.request.token_command import TokenCommand
from harvester.runtime import StopSignal

KEY, TOKEN = "canary-key-1234", "canary/token+5678=="


def spellings(secret: str) -> set[str]:
    """A secret as a server may echo it: plain, in a URL, in HTML, in JSON, in base64."""
    raw = secret.encode()
    whole = {base64.b64encode(raw).decode(), base64.urlsafe_b64encode(raw).decode()}
    return {
        secret,
        quote(secret, safe=""),
        quote(secret, safe="").lower() if secret.islower() else secret,
        quote_plus(secret),
        html.escape(secret),
        json.dumps(secret)[1:-1],
        *whole,
        *(text.rstrip("=") for text in whole),
    }


def printing(text: str) -> str:
    """A command that prints a text."""
    return f"{sys.executable} -c \"print('''{text}''')\""


def test_the_repr_shows_no_secret() -> None:
    """Nor does anything else that prints the object."""
    credentials = credentials_of(TOKEN, KEY)
    for shown in (repr(credentials), str(credentials), f"{credentials}", f"{[credentials]}"):
        assert "canary" not in shown


# -- where a token comes from ------------------------------------------------------------------


async def test_a_given_token_is_taken_as_it_is() -> None:
    """No file is read and no command is run for it, and it cannot be renewed."""
    credentials = Credentials(KEY, FixedToken(TOKEN))
    await credentials.open()
    assert credentials.token == TOKEN
    assert await credentials.renew() is False
    assert credentials.token == TOKEN


@pytest.mark.parametrize(
    "text", ["abc", "abc\n", " abc \nsecond line\n", "abc\r\n", "\ufeffabc\r\n"]
)
async def test_a_token_file_gives_its_first_line(tmp_path: Path, text: str) -> None:
    """Without the blanks around it, and without the mark that some editors put before it."""
    (tmp_path / "token").write_text(text, encoding="utf-8")
    credentials = Credentials(KEY, TokenFile(tmp_path / "token"))
    await credentials.open()
    assert credentials.token == "abc"


async def test_a_token_command_gives_its_first_line() -> None:
    """What it prints after that does not matter."""
    credentials = Credentials(KEY, TokenCommand(printing("abc\nsecond"), StopSignal()))
    await credentials.open()
    assert credentials.token == "abc"


async def test_an_arguments_quotes_are_the_commands_own() -> None:
    """The command is split as a shell would, and run without one."""
    credentials = Credentials(KEY, TokenCommand(printing("a;echo|$HOME`id`"), StopSignal()))
    await credentials.open()
    assert credentials.token == "a;echo|$HOME`id`"


@pytest.mark.parametrize(
    "printed",
    [
        '{"access_token":"abc","expires_in":3600}',
        '  {\n  "token_type": "Bearer",\n  "access_token": "abc"\n}\n',
    ],
)
async def test_a_token_command_may_print_json(tmp_path: Path, printed: str) -> None:
    """As sign-in helpers do: the access token is taken out of it."""
    (tmp_path / "answer").write_text(printed)
    source = TokenCommand(f"cat {tmp_path}/answer", StopSignal())
    assert await source.current() == "abc"


@pytest.mark.parametrize("printed", ['{"error":"canary"}', '{"access_token":7}', '{"access_token'])
async def test_json_without_a_token_is_refused(tmp_path: Path, printed: str) -> None:
    """The error repeats nothing of it."""
    (tmp_path / "answer").write_text(printed)
    with pytest.raises(ConfigError, match="JSON without a text `access_token`") as caught:
        await TokenCommand(f"cat {tmp_path}/answer", StopSignal()).current()
    assert "canary" not in str(caught.value)


async def test_a_command_is_run_once_for_each_token(tmp_path: Path) -> None:
    """However often the token is asked for: a rotating one would die of the second run."""
    source = TokenCommand(script(tmp_path, "echo x >> runs; wc -l < runs"), StopSignal())
    assert [await source.current() for _ in range(3)] == ["1"] * 3
    assert await source.renew("1")
    assert await source.current() == "2"


@pytest.mark.parametrize("command", ["echo T3 | tr 3 4", "echo 'a b'"])
async def test_what_a_shell_would_have_done_is_no_token(command: str) -> None:
    """A pipe is an argument without a shell, and a token has no blanks: nothing is sent with it."""
    credentials = Credentials(KEY, TokenCommand(command, StopSignal()))
    with pytest.raises(ConfigError, match="without a shell") as caught:
        await credentials.open()
    assert "T3" not in str(caught.value)


@pytest.mark.parametrize(
    ("command", "text"),
    [
        ("/no/such/command", "cannot run the token command: No such file or directory"),
        ('"open quote', "cannot run the token command: it is not a command line"),
        (" ", "the token command is blank"),
        (f"{sys.executable} -c \"import sys; print('canary'); sys.exit(7)\"", "exit code 7"),
        (f'{sys.executable} -c "pass"', "an empty access token"),
        (printing("\n"), "an empty access token"),
    ],
)
async def test_a_command_that_gives_no_token_is_refused(command: str, text: str) -> None:
    """The error says what went wrong, and repeats nothing that the command printed."""
    with pytest.raises(ConfigError, match=text) as caught:
        await Credentials(KEY, TokenCommand(command, StopSignal())).open()
    assert "canary" not in "".join(traceback.format_exception(caught.value)[-1:])


@pytest.mark.parametrize(
    ("content", "text"),
    [(None, "No such file"), (b"\xff\xfe", "not text"), (b"", "an empty"), (b"\nabc", "an empty")],
)
async def test_a_file_that_gives_no_token_is_refused(
    tmp_path: Path, content: bytes | None, text: str
) -> None:
    """Missing, not text, or empty: the error names the cause."""
    path = tmp_path / "token"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=text):
        await Credentials(KEY, TokenFile(path)).open()


@pytest.mark.parametrize("token", ["tokén", "to\x00ken", "to\x7fken"])
async def test_a_token_that_no_header_can_hold_is_refused(tmp_path: Path, token: str) -> None:
    """Before it breaks a request; the error does not repeat it."""
    (tmp_path / "token").write_text(token)
    with pytest.raises(ConfigError) as caught:
        await Credentials(KEY, TokenFile(tmp_path / "token")).open()
    assert "ken" not in str(caught.value).replace("token", "")


def test_a_secret_file_may_be_empty_or_a_directory(tmp_path: Path) -> None:
    """Empty gives the empty text; what cannot be read is refused."""
    (tmp_path / "key").write_text("")
    assert read_secret(tmp_path / "key") == ""
    with pytest.raises(ConfigError, match="cannot read"):
        read_secret(tmp_path)


@pytest.mark.parametrize("kind", ["fifo", "device"])
def test_only_a_regular_file_is_read(tmp_path: Path, kind: str) -> None:
    """A pipe or a device could keep its reader waiting for ever, deaf to every signal."""
    path = tmp_path / "token"
    if kind == "fifo":
        os.mkfifo(path)
    else:
        path = Path("/dev/zero")
    with pytest.raises(ConfigError, match="not a regular file"):
        read_secret(path)


def test_a_symbolic_link_to_a_file_is_read(tmp_path: Path) -> None:
    """Secrets are often mounted as one."""
    (tmp_path / "real").write_text("abc")
    (tmp_path / "token").symlink_to(tmp_path / "real")
    assert read_secret(tmp_path / "token") == "abc"


# -- a command that takes its time ---------------------------------------------------------------

# The command takes longer than a test may: only the end of the wait can end it.
SOON: dict[str, Any] = {"timeout": 900.0, "stop_wait": 0.3, "pauses": ()}


def script(folder: Path, text: str) -> str:
    """A command that runs a shell script."""
    file = folder / "token.sh"
    file.write_text(f'cd "{folder}"\n{text}\n')
    return f"sh {file}"


def hanging(folder: Path, then: str = "wait") -> str:
    """A command that starts another one, writes down both process ids, and waits for long."""
    return script(folder, f"sleep 900 &\necho $! $$ > new\nmv new pids\n{then}")


def alive(pid: int) -> bool:
    """Whether a process is there, and not only waits to be reaped (Linux can tell)."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return state.rpartition(")")[2].split()[0] != "Z"


async def pids_in(folder: Path) -> list[int]:
    """The processes of the command, once it runs."""
    await asyncio.to_thread(until, (folder / "pids").exists)
    return [int(pid) for pid in (folder / "pids").read_text().split()]


async def ended(folder: Path) -> None:
    """Return when the command and what it started are gone."""
    pids = await pids_in(folder)
    await asyncio.to_thread(until, lambda: not any(map(alive, pids)))


@pytest.mark.parametrize("renewal", [False, True])
@pytest.mark.parametrize("how", ["order", "cancel"])
async def test_a_stop_waits_for_the_command_only_so_long(
    tmp_path: Path, renewal: bool, how: str
) -> None:
    """Then it is ended, with all that it started; of an order to stop the reason is raised."""
    stop = StopSignal()
    source = TokenCommand(hanging(tmp_path), stop, first="one" * renewal, **SOON)
    task = asyncio.ensure_future(source.renew("one") if renewal else source.current())
    await pids_in(tmp_path)
    if how == "order":
        stop.request(StopRun("SIGTERM", "stopped by SIGTERM"))
    else:
        task.cancel()
    with pytest.raises(StopRun if how == "order" else asyncio.CancelledError) as caught:
        await task
    assert how == "cancel" or str(caught.value) == "stopped by SIGTERM"
    await ended(tmp_path)


@pytest.mark.parametrize("how", ["order", "cancel"])
async def test_a_stop_does_not_kill_a_command_that_is_about_to_save(
    tmp_path: Path, how: str
) -> None:
    """The server may have rotated the token already: the command gets the time to keep it."""
    stop = StopSignal()
    command = hanging(tmp_path, "sleep 0.3; echo new > kept; mv kept saved; echo token")
    source = TokenCommand(command, stop, stop_wait=30.0)
    task = asyncio.ensure_future(source.current())
    await pids_in(tmp_path)
    if how == "order":
        stop.request(StopRun("SIGTERM", "stopped by SIGTERM"))
    else:
        task.cancel()
    with pytest.raises(StopRun if how == "order" else asyncio.CancelledError):
        await task
    assert (tmp_path / "saved").read_text() == "new\n"
    await ended(tmp_path)


async def test_a_cancel_while_the_command_is_started_ends_it_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that runs before its start is known here is not left behind."""
    started = asyncio.Event()
    start = anyio.open_process

    async def slowly(*anything: Any, **named: Any) -> Any:
        found = await start(*anything, **named)
        await started.wait()
        return found

    monkeypatch.setattr(anyio, "open_process", slowly)
    source = TokenCommand(hanging(tmp_path), StopSignal(), **SOON)
    task = asyncio.ensure_future(source.current())
    await pids_in(tmp_path)
    task.cancel()
    asyncio.get_running_loop().call_later(0.05, started.set)
    with pytest.raises(asyncio.CancelledError):
        await task
    await ended(tmp_path)


async def test_what_a_command_leaves_running_does_not_outlive_it(tmp_path: Path) -> None:
    """Nor does the token wait for it."""
    source = TokenCommand(hanging(tmp_path, "echo abc"), StopSignal())
    assert await source.current() == "abc"
    await ended(tmp_path)


async def test_a_command_that_a_signal_to_all_ended_is_not_blamed(tmp_path: Path) -> None:
    """The order comes a moment after the command failed of the same signal: it is raised."""
    stop = StopSignal()
    task = asyncio.ensure_future(TokenCommand(hanging(tmp_path), stop).current())
    _, leader = await pids_in(tmp_path)
    os.killpg(leader, 15)
    asyncio.get_running_loop().call_later(
        0.02, stop.request, StopRun("SIGTERM", "stopped by SIGTERM")
    )
    with pytest.raises(StopRun, match="stopped by SIGTERM"):
        await task


async def test_no_command_is_begun_after_the_order_to_stop(tmp_path: Path) -> None:
    """It could only be killed."""
    stop = StopSignal()
    stop.request(StopRun("SIGTERM", "stopped by SIGTERM"))
    with pytest.raises(StopRun):
        await TokenCommand(f"touch {tmp_path}/ran", stop).current()
    assert not (tmp_path / "ran").exists()


async def test_a_command_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    """The error says how long it was waited for."""
    source = TokenCommand(hanging(tmp_path), StopSignal(), timeout=0.5, pauses=())
    with pytest.raises(ConfigError, match=r"took over 0\.5 s"):
        await source.current()
    await ended(tmp_path)


@pytest.mark.parametrize("stream", ["", " 1>&2"])
async def test_endless_output_is_not_kept(tmp_path: Path, stream: str) -> None:
    """`yes` prints gigabytes: it is ended after 64 kB, and on stderr only the end is kept."""
    source = TokenCommand(
        script(tmp_path, f"yes{stream}"),
        StopSignal(),
        timeout=5.0 if not stream else 0.5,
        pauses=(),
    )
    with pytest.raises(ConfigError, match="took over" if stream else "more than 65,536 bytes"):
        await source.current()


async def test_a_failure_is_told_with_the_last_line_of_stderr(tmp_path: Path) -> None:
    """Without what looks like a token, and on one line."""
    command = script(
        tmp_path,
        "echo first >&2; printf 'HTTP 400 invalid_grant: \\033[31meyJhbGciOiJSUzI1NiJ9.x "
        "Ab1Cd2Ef3 %s\\n' longlonglonglonglonglong >&2; exit 7",
    )
    with pytest.raises(ConfigError) as caught:
        await TokenCommand(command, StopSignal()).current()
    assert str(caught.value) == (
        "the token command failed with exit code 7: HTTP 400 invalid_grant:  [[…] […] […]"
    )


async def test_a_renewal_that_fails_is_tried_again(tmp_path: Path) -> None:
    """Two more times: a passing 429 of the sign-in does not stop a run."""
    command = script(tmp_path, "echo x >> runs; test $(wc -l < runs) -ge 3 && echo new")
    source = TokenCommand(command, StopSignal(), first="old", pauses=(0.0, 0.0))
    assert await source.renew("old")
    assert await source.current() == "new"
    assert (tmp_path / "runs").read_text() == "x\n" * 3


async def test_a_renewal_that_always_fails_is_an_error(tmp_path: Path) -> None:
    """After three runs of the command."""
    command = script(tmp_path, "echo x >> runs; exit 3")
    source = TokenCommand(command, StopSignal(), first="old", pauses=(0.0, 0.0))
    with pytest.raises(ConfigError, match="exit code 3"):
        await source.renew("old")
    assert (tmp_path / "runs").read_text() == "x\n" * 3


def test_a_renewal_waits_a_little_between_its_tries() -> None:
    """By default 2 s and 10 s."""
    source = TokenCommand("echo abc", StopSignal())
    assert (source.timeout, source.stop_wait, source.pauses) == (60.0, 5.0, (2.0, 10.0))


# -- renewal -----------------------------------------------------------------------------------


async def test_a_renewal_says_whether_the_token_is_another(tmp_path: Path) -> None:
    """True for another token, False for the same."""
    path = tmp_path / "token"
    path.write_text("one")
    credentials = Credentials(KEY, TokenFile(path))
    await credentials.open()
    assert await credentials.renew() is False
    path.write_text("two")
    assert await credentials.renew() is True
    assert credentials.token == "two"


async def test_a_given_token_is_renewed_from_the_file(tmp_path: Path) -> None:
    """The given one is the first; the file has the next."""
    (tmp_path / "token").write_text("two")
    credentials = Credentials(KEY, TokenFile(tmp_path / "token", first="one"))
    await credentials.open()
    assert credentials.token == "one"
    assert await credentials.renew() is True
    assert credentials.token == "two"


async def test_a_renewal_that_fails_keeps_the_token(tmp_path: Path) -> None:
    """A file that is gone is an error, and the old token stays."""
    credentials = Credentials(KEY, TokenFile(tmp_path / "token", first="one"))
    await credentials.open()
    with pytest.raises(StopRun, match="could not be renewed: cannot read") as caught:
        await credentials.renew()
    assert caught.value.reason == "credentials_refused"
    assert credentials.token == "one"


async def test_a_source_that_fails_repeats_no_secret(tmp_path: Path) -> None:
    """A source may quote what it was given: the order to stop is without it."""

    class Source(FixedToken):
        broken = False

        async def current(self) -> str:
            if self.broken:
                raise ConfigError(f"gone: {TOKEN}")
            return await super().current()

        async def renew(self, refused: str) -> bool:
            raise ConfigError(f"refused: {refused} of {KEY}")

    source = Source(TOKEN)
    credentials = Credentials(KEY, source)
    await credentials.open()
    with pytest.raises(StopRun, match=r"refused: \[secret\] of \[secret\]"):
        await credentials.renew()
    source.broken = True
    with pytest.raises(StopRun, match=r"gone: \[secret\]"):
        await credentials.refresh()


async def test_a_source_may_give_another_token_before_its_time() -> None:
    """Each request uses the token of the moment, and the one before is still a secret."""

    class Source(FixedToken):
        token = TOKEN

        async def current(self) -> str:
            return self.token

    source = Source(TOKEN)
    credentials = Credentials(KEY, source)
    await credentials.open()
    source.token = "another-token"
    await credentials.refresh()
    assert credentials.token == "another-token"
    assert credentials.redactor.scrub(f"another-token {TOKEN}") == "[secret] [secret]"


# -- scrubbing ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "spelled",
    [
        TOKEN,
        KEY,
        quote(TOKEN, safe=""),
        quote_plus(TOKEN),
        base64.b64encode(TOKEN.encode()).decode(),
        base64.urlsafe_b64encode(TOKEN.encode()).decode().rstrip("="),
        f"https://h/x?api_key={KEY}&next=a",
        f"Bearer {TOKEN}",
        json.dumps({"a": [KEY, TOKEN]}),
    ],
)
def test_every_spelling_is_taken_out(spelled: str) -> None:
    """Plain, URL-encoded, base64, and inside whatever text it was echoed in."""
    found = credentials_of(TOKEN, KEY).redactor.scrub(f"before {spelled} after")
    assert found.startswith("before ")
    assert found.endswith(" after")
    assert "[secret]" in found
    assert not any(spelling in found for spelling in [*spellings(KEY), *spellings(TOKEN)])


async def test_only_so_many_old_tokens_are_kept(tmp_path: Path) -> None:
    """A run of weeks does not grow: the key and the latest tokens are always scrubbed."""
    path = tmp_path / "token"
    credentials = Credentials(KEY, TokenFile(path, first="token-start"))
    await credentials.open()
    for number in range(50):
        path.write_text(f"token-number-{number}")
        assert await credentials.renew()
        text = f"{KEY} token-number-{number} token-number-{max(number - 7, 0)}"
        assert credentials.redactor.scrub(text) == "[secret] [secret] [secret]"
        gone = f"token-number-{number - 8}" if number > 7 else "nothing"
        assert credentials.redactor.scrub(gone) == gone


def test_other_text_is_left_alone() -> None:
    """Nothing is scrubbed where no secret is, nor for a secret too short to be one."""
    text = "HTTP 500: nothing secret about abc"
    assert credentials_of(TOKEN, KEY).redactor.scrub(text) == text
    assert credentials_of("", "abc").redactor.scrub(text) == text


async def test_a_token_of_before_the_renewal_is_still_a_secret(tmp_path: Path) -> None:
    """An answer to a request of before may echo it after the renewal."""
    (tmp_path / "token").write_text("another-token")
    credentials = Credentials(KEY, TokenFile(tmp_path / "token", first=TOKEN))
    await credentials.open()
    await credentials.renew()
    assert TOKEN not in credentials.redactor.scrub(f"you sent {TOKEN}")


@pytest.mark.parametrize(
    "spelled",
    [
        "".join(f"\\u{ord(char):04x}" for char in TOKEN),
        "".join(f"%{ord(char):02x}" for char in TOKEN),
        "".join(f"&#{ord(char)};" for char in TOKEN),
        quote(quote(TOKEN, safe=""), safe=""),
        json.dumps(json.dumps(TOKEN).replace("/", "\\/")),
        html.escape(html.escape(TOKEN + '"')),
        TOKEN.encode("utf-16").decode("latin-1"),
        TOKEN.encode("utf-16-be").decode("utf-8"),
    ],
)
def test_an_escape_of_an_escape_is_taken_out(spelled: str) -> None:
    """Each letter escaped, or escaped twice, or with the other half of UTF-16 beside it."""
    found = credentials_of(TOKEN, KEY).redactor.scrub(f"a {spelled} b")
    assert "[secret]" in found
    assert found.startswith("a ")
    assert found.endswith(" b")
    assert not any(char in found.replace("[secret]", "") for char in "56789")


@pytest.mark.parametrize("bad", ["\\", "%", "&", "&#", "%2", "\\u00", "/", "\x00", "a"])
def test_scrubbing_is_linear(bad: str) -> None:
    """Twice the text takes twice the steps, whatever it is made of."""
    redactor = Redactor('/a\\\\/b"&%41')
    redactor.add("\\/\\/\\/\\/\\/" + bad * 8)
    began = thread_time()
    redactor.scrub(bad * (400_000 // len(bad)))
    assert thread_time() - began < 5.0  # quadratic: minutes


@given(st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=8, max_size=40))
def test_no_secret_is_left_whatever_it_is(secret: str) -> None:
    """After scrubbing, no spelling of any secret is in a text that held them all."""
    assume(secret.strip("\\"))
    credentials = credentials_of(secret[::-1], secret)
    text = " ".join([*spellings(secret), *spellings(secret[::-1])])
    left = credentials.redactor.scrub(text).replace("[secret]", "")
    assert not any(spelling in left for spelling in [*spellings(secret), *spellings(secret[::-1])])
