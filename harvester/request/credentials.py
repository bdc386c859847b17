"""The key and the token: where they come from, how they are renewed, and where they never show.

A secret reaches exactly two places: the URL and the header of a request to the API's own origin.
`scrub` takes them out of any text that a server could have echoed them into.
"""

import asyncio
import base64
import html
import os
import re
import shlex
import signal
import subprocess
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import anyio

from harvester.errors import ConfigError
from harvester.runtime import StopSignal

_LONG_ENOUGH_TO_SCRUB = 4
_TOKENS_KEPT = 8
_COMMAND_TIMEOUT = 60.0  # s
_REAPED_WITHIN = 0.5  # s: what is killed is gone at once, unless it is another user's
_SAME_SIGNAL = 0.1  # s: a signal that ends the command may be meant for this run as well


class TokenSource(Protocol):
    """Where an access token comes from that is renewed before its time."""

    async def current(self) -> str:
        """The token to send. Raise `StopRun` if there is none to be had."""
        ...

    async def renew(self, refused: str) -> bool:
        """Whether there is another token than the one that was refused."""
        ...


class Credentials:
    """One API key and the access token of the moment.

    The token is a fixed string, the content of a file, or what a command prints; the last two can
    be renewed. The order to `stop` ends the command.
    """

    def __init__(
        self,
        api_key: str,
        *,
        access_token: str | None = None,
        token_file: Path | None = None,
        token_command: str | None = None,
        source: TokenSource | None = None,
        stop: StopSignal | None = None,
    ) -> None:
        self._source = source
        self.api_key = api_key
        self.token = access_token or ""
        # An answer may still echo a token that was renewed.
        self._tokens = deque([self.token], maxlen=_TOKENS_KEPT)
        self._echoes = echoes([api_key, self.token])
        self._file = token_file
        self._command = token_command
        self._stop = stop or StopSignal()

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    async def open(self) -> None:
        """Read the first token. Raise `ConfigError` if there is none to be had, `StopRun` if
        the order to stop comes first."""
        if self._source is not None:
            await self.current()
        elif not self.token:
            self._take(await self._read())

    async def current(self) -> str:
        """The token to send now, renewed before its time where the source can do so."""
        if self._source is not None and (token := await self._source.current()) != self.token:
            self._take(token)
        return self.token

    async def renew(self) -> bool:
        """Read the token again; True if it is another one than before. Raises as `open` does."""
        if self._source is not None:
            return await self._source.renew(self.token) and bool(await self.current())
        if self._file is None and self._command is None:
            return False
        token = await self._read()
        if token == self.token:
            return False
        self._take(token)
        return True

    def _take(self, token: str) -> None:
        self.token = token
        self._tokens.append(token)
        self._echoes = echoes([self.api_key, *self._tokens])

    async def _read(self) -> str:
        if self._command is not None:
            token = await _output_of(self._command, self._stop)
        elif self._file is not None:
            token = read_secret(self._file)
        else:
            raise ConfigError("no access token")
        if not token:
            raise ConfigError("the token file or token command gave an empty access token")
        if not (token.isascii() and token.isprintable()) or " " in token:
            raise ConfigError(
                "the token file or token command gave what is no token: it holds a blank or a "
                "character that no token has (a token command runs without a shell)"
            )
        return token

    def scrub(self, text: str) -> str:
        """`text` with every spelling of a secret replaced, also of tokens that were renewed."""
        return self._echoes.sub("[secret]", text)

    def scrub_bytes(self, body: bytes) -> bytes:
        """The same for a body, before a piece of it is quoted: half a secret is one as well."""
        text = body.decode("utf-8", "surrogateescape")
        return self.scrub(text).encode("utf-8", "surrogateescape")


def echoes(secrets: Iterable[str]) -> re.Pattern[str]:
    """What matches any echo of the secrets: each character plain or as URL, HTML and JSON spell
    it, or the whole in base64, at each of the three offsets that it can have there."""
    found = set()
    for secret in secrets:
        if len(secret) < _LONG_ENOUGH_TO_SCRUB:
            continue
        found.add("".join(map(_spelled, secret)))
        for at in range(3):
            known = slice(-(-8 * at // 6), 8 * (at + len(secret)) // 6)
            for encode in (base64.b64encode, base64.urlsafe_b64encode):
                text = encode(bytes(at) + secret.encode()).decode()[known]
                found.add("".join(map(_spelled, text)))
    return re.compile("|".join(sorted(found, key=len, reverse=True)) or "(?!)")


def _spelled(char: str) -> str:
    if char.isalnum():
        return char
    code = ord(char)
    ways = {re.escape(html.escape(char)), rf"\\*{re.escape(char)}"}
    ways |= {rf"%(?i:{code:02x})", rf"\\u00(?i:{code:02x})", rf"&#(?i:0*{code}|x0*{code:x});"}
    return f"(?:{'|'.join(sorted(ways))})"


def read_secret(path: Path) -> str:
    """The first line of a file that holds a secret, with or without a byte order mark before it.

    Raise `ConfigError` if it cannot be read.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as wrong:
        raise ConfigError(f"cannot read {path}: {getattr(wrong, 'strerror', 'not text')}") from None
    return lines[0].strip() if lines else ""


async def _output_of(command: str, stop: StopSignal) -> str:
    """The first line a command prints. Its output is a secret: no error repeats it."""
    try:
        with anyio.fail_after(_COMMAND_TIMEOUT):
            status, output = await _run(shlex.split(command), stop)
    except TimeoutError:
        raise ConfigError(f"the token command took over {_COMMAND_TIMEOUT:g} s") from None
    except (OSError, ValueError) as wrong:
        raise ConfigError(f"cannot run the token command: {type(wrong).__name__}") from None
    if status != 0:
        await stop.sleep(_SAME_SIGNAL)
        raise ConfigError(f"the token command failed with exit code {status}")
    lines = output.decode("utf-8", "replace").splitlines()
    return lines[0].strip() if lines else ""


class _Reader(asyncio.SubprocessProtocol):
    """Keeps what a command prints, and tells when it has ended, and when its output has too."""

    def __init__(self) -> None:
        self.output = bytearray()
        self.exited = asyncio.Event()
        self.over = asyncio.Event()

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        self.output += data

    def process_exited(self) -> None:
        self.exited.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.over.set()


async def _run(argv: list[str], stop: StopSignal) -> tuple[int | None, bytes]:
    """Exit code and output of a command, which does not outlive the wait for it."""
    stop.check()
    # A cancel does not reach into the start of it: half started, its process is not known to us.
    starting = asyncio.ensure_future(_start(argv))
    try:
        transport, reader = await asyncio.shield(starting)
        await _until(reader.over, stop)
    finally:
        await _end(starting)
    return transport.get_returncode(), bytes(reader.output)


async def _start(argv: list[str]) -> tuple[asyncio.SubprocessTransport, _Reader]:
    """Start a command in a session of its own, so that all of what it starts can be killed, and so
    that Ctrl-C is first of all told to us."""
    program, *arguments = argv
    return await asyncio.get_running_loop().subprocess_exec(
        _Reader,
        program,
        *arguments,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


async def _until(over: asyncio.Event, stop: StopSignal) -> None:
    """Wait for the end of a command; raise `StopRun` if the order to stop comes first."""

    async def obey() -> None:
        await stop.wait()
        group.cancel_scope.cancel()

    async with anyio.create_task_group() as group:
        group.start_soon(obey)
        await over.wait()
        group.cancel_scope.cancel()
    if not over.is_set():
        stop.check()


async def _end(starting: asyncio.Future[tuple[asyncio.SubprocessTransport, _Reader]]) -> None:
    """Let go of a command; kill it, and all that it started, unless it has ended by itself.

    Waiting for that would hold up the run: a cancel is told only once.
    """
    with anyio.CancelScope(shield=True):
        await asyncio.wait([starting])
    if starting.exception() is not None:
        return
    transport, reader = starting.result()
    if not reader.over.is_set():
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(transport.get_pid(), signal.SIGKILL)
        with anyio.move_on_after(_REAPED_WITHIN, shield=True):
            await reader.exited.wait()
    with suppress(PermissionError):
        transport.close()
