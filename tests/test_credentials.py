"""The key and the token: where they come from, how they are renewed, where they never show."""

import asyncio
import base64
import html
import json
import os
import sys
import time
import traceback
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from crashlab import until
from hypothesis import given
from hypothesis import strategies as st

from harvester.errors import ConfigError, StopRun
from harvester.request.credentials import Credentials, read_secret
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
    credentials = Credentials(KEY, access_token=TOKEN)
    for shown in (repr(credentials), str(credentials), f"{credentials}", f"{[credentials]}"):
        assert "canary" not in shown


# -- where a token comes from ------------------------------------------------------------------


async def test_a_given_token_is_taken_as_it_is() -> None:
    """No file is read and no command is run for it, and it cannot be renewed."""
    credentials = Credentials(KEY, access_token=TOKEN)
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
    credentials = Credentials(KEY, token_file=tmp_path / "token")
    await credentials.open()
    assert credentials.token == "abc"


async def test_a_token_command_gives_its_first_line() -> None:
    """What it prints after that does not matter."""
    credentials = Credentials(KEY, token_command=printing("abc\nsecond"))
    await credentials.open()
    assert credentials.token == "abc"


async def test_an_arguments_quotes_are_the_commands_own() -> None:
    """The command is split as a shell would, and run without one."""
    credentials = Credentials(KEY, token_command=printing("a;echo|$HOME`id`"))
    await credentials.open()
    assert credentials.token == "a;echo|$HOME`id`"


@pytest.mark.parametrize("command", ["echo T3 | tr 3 4", "echo 'a b'"])
async def test_what_a_shell_would_have_done_is_no_token(command: str) -> None:
    """A pipe is an argument without a shell, and a token has no blanks: nothing is sent with it."""
    credentials = Credentials(KEY, token_command=command)
    with pytest.raises(ConfigError, match="without a shell") as caught:
        await credentials.open()
    assert "T3" not in str(caught.value)


@pytest.mark.parametrize(
    ("command", "text"),
    [
        ("/no/such/command", "cannot run the token command: FileNotFoundError"),
        ('"open quote', "cannot run the token command: ValueError"),
        (" ", "cannot run the token command: ValueError"),
        (f"{sys.executable} -c \"import sys; print('canary'); sys.exit(7)\"", "exit code 7"),
        (f'{sys.executable} -c "pass"', "an empty access token"),
        (printing("\n"), "an empty access token"),
    ],
)
async def test_a_command_that_gives_no_token_is_refused(command: str, text: str) -> None:
    """The error says what went wrong, and repeats nothing that the command printed."""
    with pytest.raises(ConfigError, match=text) as caught:
        await Credentials(KEY, token_command=command).open()
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
        await Credentials(KEY, token_file=path).open()


@pytest.mark.parametrize("token", ["tokén", "to\x00ken", "to\x7fken"])
async def test_a_token_that_no_header_can_hold_is_refused(tmp_path: Path, token: str) -> None:
    """Before it breaks a request; the error does not repeat it."""
    (tmp_path / "token").write_text(token)
    with pytest.raises(ConfigError) as caught:
        await Credentials(KEY, token_file=tmp_path / "token").open()
    assert "ken" not in str(caught.value).replace("token", "")


async def test_no_source_is_no_token() -> None:
    """Without token, file or command there is nothing to open."""
    with pytest.raises(ConfigError, match="no access token"):
        await Credentials(KEY).open()


def test_a_secret_file_may_be_empty_or_a_directory(tmp_path: Path) -> None:
    """Empty gives the empty text; what cannot be read is refused."""
    (tmp_path / "key").write_text("")
    assert read_secret(tmp_path / "key") == ""
    with pytest.raises(ConfigError, match="cannot read"):
        read_secret(tmp_path)


# -- a command that takes its time ---------------------------------------------------------------

AT_ONCE = 2.0  # s: far less than the command takes by itself


def hanging(folder: Path) -> str:
    """A command that starts another one, writes down both process ids, and waits for a minute."""
    script = folder / "token.sh"
    script.write_text(
        f'sleep 60 &\necho $! $$ > "{folder}/new"\nmv "{folder}/new" "{folder}/pids"\nwait'
    )
    return f"sh {script}"


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


@pytest.mark.parametrize("renewal", [False, True])
async def test_a_cancel_ends_the_command_and_what_it_started(tmp_path: Path, renewal: bool) -> None:
    """At once, for the first token and for a later one: nobody waits for it to end by itself."""
    credentials = Credentials(KEY, access_token=TOKEN, token_command=hanging(tmp_path))
    if not renewal:
        credentials.token = ""
    task = asyncio.ensure_future(credentials.renew() if renewal else credentials.open())
    pids = await pids_in(tmp_path)
    began = time.monotonic()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert time.monotonic() - began < AT_ONCE
    await asyncio.to_thread(until, lambda: not any(map(alive, pids)))


async def test_a_cancel_while_the_command_is_started_ends_it_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that is there, and that we have not been told of yet, is not left behind."""
    loop, told = asyncio.get_running_loop(), asyncio.Event()
    start = loop.subprocess_exec

    async def slowly(*anything: Any, **named: Any) -> Any:
        found = await start(*anything, **named)
        await told.wait()
        return found

    monkeypatch.setattr(loop, "subprocess_exec", slowly)
    task = asyncio.ensure_future(Credentials(KEY, token_command=hanging(tmp_path)).open())
    pids = await pids_in(tmp_path)
    task.cancel()
    loop.call_later(0.05, told.set)
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.to_thread(until, lambda: not any(map(alive, pids)))


@pytest.mark.parametrize("renewal", [False, True])
async def test_the_order_to_stop_ends_the_command(tmp_path: Path, renewal: bool) -> None:
    """And its reason is told, not that there is no token."""
    stop = StopSignal()
    credentials = Credentials(KEY, token_command=hanging(tmp_path), stop=stop)
    task = asyncio.ensure_future(credentials.renew() if renewal else credentials.open())
    pids = await pids_in(tmp_path)
    began = time.monotonic()
    stop.request(StopRun("SIGTERM", "stopped by SIGTERM"))
    with pytest.raises(StopRun, match="stopped by SIGTERM") as caught:
        await task
    assert caught.value.reason == "SIGTERM"
    assert time.monotonic() - began < AT_ONCE
    await asyncio.to_thread(until, lambda: not any(map(alive, pids)))


async def test_a_command_that_a_signal_to_everybody_ended_is_not_blamed(tmp_path: Path) -> None:
    """The order comes a moment after the command has failed of the same signal: it is told."""
    stop = StopSignal()
    credentials = Credentials(KEY, token_command=hanging(tmp_path), stop=stop)
    task = asyncio.ensure_future(credentials.open())
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
        await Credentials(KEY, token_command=f"touch {tmp_path}/ran", stop=stop).open()
    assert not (tmp_path / "ran").exists()


async def test_a_command_that_takes_too_long_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error says how long it was waited for."""
    monkeypatch.setattr("harvester.request.credentials._COMMAND_TIMEOUT", 1)
    with pytest.raises(ConfigError, match="took over 1 s"):
        await Credentials(KEY, token_command=hanging(tmp_path)).open()
    pids = await pids_in(tmp_path)
    await asyncio.to_thread(until, lambda: not any(map(alive, pids)))


# -- renewal -----------------------------------------------------------------------------------


async def test_a_renewal_says_whether_the_token_is_another(tmp_path: Path) -> None:
    """True for another token, False for the same."""
    path = tmp_path / "token"
    path.write_text("one")
    credentials = Credentials(KEY, token_file=path)
    await credentials.open()
    assert await credentials.renew() is False
    path.write_text("two")
    assert await credentials.renew() is True
    assert credentials.token == "two"


async def test_a_given_token_is_renewed_from_the_file(tmp_path: Path) -> None:
    """The given one is the first; the file has the next."""
    (tmp_path / "token").write_text("two")
    credentials = Credentials(KEY, access_token="one", token_file=tmp_path / "token")
    await credentials.open()
    assert credentials.token == "one"
    assert await credentials.renew() is True
    assert credentials.token == "two"


async def test_a_renewal_that_fails_keeps_the_token(tmp_path: Path) -> None:
    """A file that is gone is an error, and the old token stays."""
    credentials = Credentials(KEY, access_token="one", token_file=tmp_path / "token")
    with pytest.raises(ConfigError):
        await credentials.renew()
    assert credentials.token == "one"


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
    found = Credentials(KEY, access_token=TOKEN).scrub(f"before {spelled} after")
    assert found.startswith("before ")
    assert found.endswith(" after")
    assert "[secret]" in found
    assert not any(spelling in found for spelling in [*spellings(KEY), *spellings(TOKEN)])


def test_a_body_is_scrubbed_like_a_text() -> None:
    """Bytes that are no text stay as they are."""
    credentials = Credentials(KEY, access_token=TOKEN)
    body = b"\xff\x00 " + TOKEN.encode() + b" \xe2\x82"
    assert credentials.scrub_bytes(body) == b"\xff\x00 [secret] \xe2\x82"


async def test_only_so_many_old_tokens_are_kept(tmp_path: Path) -> None:
    """A run of weeks does not grow: the key and the latest tokens are always scrubbed."""
    path = tmp_path / "token"
    credentials = Credentials(KEY, access_token="token-start", token_file=path)
    for number in range(50):
        path.write_text(f"token-number-{number}")
        assert await credentials.renew()
        text = f"{KEY} token-number-{number} token-number-{max(number - 7, 0)}"
        assert credentials.scrub(text) == "[secret] [secret] [secret]"
        gone = f"token-number-{number - 8}" if number > 7 else "nothing"
        assert credentials.scrub(gone) == gone


def test_other_text_is_left_alone() -> None:
    """Nothing is scrubbed where no secret is, nor for a secret too short to be one."""
    text = "HTTP 500: nothing secret about abc"
    assert Credentials(KEY, access_token=TOKEN).scrub(text) == text
    assert Credentials("abc", access_token="").scrub(text) == text


async def test_a_token_of_before_the_renewal_is_still_a_secret(tmp_path: Path) -> None:
    """An answer to a request of before may echo it after the renewal."""
    (tmp_path / "token").write_text("another-token")
    credentials = Credentials(KEY, access_token=TOKEN, token_file=tmp_path / "token")
    await credentials.renew()
    assert TOKEN not in credentials.scrub(f"you sent {TOKEN}")


@given(st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=8, max_size=40))
def test_no_secret_is_left_whatever_it_is(secret: str) -> None:
    """After scrubbing, no spelling of any secret is in a text that held them all."""
    credentials = Credentials(secret, access_token=secret[::-1])
    text = " ".join([*spellings(secret), *spellings(secret[::-1])])
    left = credentials.scrub(text).replace("[secret]", "")
    assert not any(spelling in left for spelling in [*spellings(secret), *spellings(secret[::-1])])
