"""An access token from a command of the user's: `--token-command`.

The command may exchange a single-use refresh token. Then a kill between the server's answer and
the command's own save would lose the account. So a signal or a cancel waits for the command, for
some seconds; nothing that it started is left behind.
"""

import json
import os
import re
import shlex
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import KW_ONLY, dataclass, field
from typing import cast

import anyio
from anyio.abc import ByteReceiveStream, Process

from harvester.errors import ConfigError
from harvester.request.credentials import checked_token
from harvester.request.outlive import outlive_cancel
from harvester.runtime import StopSignal

_MOST_OUTPUT = 64 * 1024  # bytes
_REAPED_WITHIN = 0.5  # s: a killed process is gone at once, unless it is another user's
_SAME_SIGNAL = 0.1  # s: a signal that ends the command may be meant for this run as well
_LONGEST_QUOTE = 200  # characters
_TOKEN_LIKE = re.compile(r"[\w~+/=.-]{20,}|(?=[^\s\d]*\d)(?=[^\sA-Za-z]*[A-Za-z])[\w~+/=.-]{8,}")


@dataclass
class TokenCommand:
    """A token source that runs a command, without a shell, once for each token.

    `first` is a token that is known already; the command is run when that is refused. It may take
    `timeout` s, a stop waits `stop_wait` s for it, and a renewal that failed is tried again after
    each of the `pauses` (s).
    """

    command: str = field(repr=False)
    stop: StopSignal
    first: str = field(default="", repr=False)
    timeout: float = 60.0
    stop_wait: float = 5.0
    pauses: Sequence[float] = (2.0, 10.0)

    def __post_init__(self) -> None:
        self._token = self.first

    async def current(self) -> str:
        """The token of the last run of the command; the first use runs it."""
        if not self._token:
            self._token = await self._run()
        return self._token

    async def renew(self, refused: str) -> bool:
        """Run the command; a failure may pass, so it is tried again. False: the same token came."""
        for pause in self.pauses:
            try:
                self._token = await self._run()
                break
            except ConfigError:
                await self.stop.sleep(pause)
        else:
            self._token = await self._run()
        return self._token != refused

    async def _run(self) -> str:
        """The token that the command prints. Its output is a secret: no error repeats it."""
        self.stop.check()
        if not self.command.strip():
            raise ConfigError("the token command is blank")
        run = _Run(self.stop, timeout=self.timeout, stop_wait=self.stop_wait)
        try:
            await outlive_cancel(run.make(shlex.split(self.command)), wait=self.stop_wait)
        except (OSError, ValueError) as wrong:
            why = getattr(wrong, "strerror", None) or "it is not a command line"
            raise ConfigError(f"cannot run the token command: {why}") from None
        self.stop.check()
        if len(run.output) > _MOST_OUTPUT:
            raise ConfigError(f"the token command printed more than {_MOST_OUTPUT:,} bytes")
        if run.status is None:
            raise ConfigError(f"the token command took over {self.timeout:g} s")
        if run.status != 0:
            await self.stop.sleep(_SAME_SIGNAL)
            said = _last_line(run.errors)
            raise ConfigError(
                f"the token command failed with exit code {run.status}" + (said and f": {said}")
            )
        return token_in(run.output.decode("utf-8", "replace"))


@dataclass
class _Run:
    """One run of a command: what it printed, and its exit code; None if it took too long."""

    stop: StopSignal
    _: KW_ONLY
    timeout: float
    stop_wait: float
    output: bytes = field(default=b"", repr=False)
    errors: bytes = field(default=b"", repr=False)
    status: int | None = None

    async def make(self, argv: Sequence[str]) -> None:
        """Run it to its end, or to that of its time; nothing that it started outlives this."""
        # In a session of its own: all that it starts can be ended, and Ctrl-C does not reach it.
        process = await anyio.open_process(argv, stdin=subprocess.DEVNULL, start_new_session=True)

        async def hurry() -> None:
            await self.stop.wait()
            scope.deadline = min(scope.deadline, anyio.current_time() + self.stop_wait)

        try:
            with anyio.move_on_after(self.timeout) as scope:
                async with anyio.create_task_group() as group:
                    group.start_soon(hurry)
                    self.status = await self._ended(process)
                    group.cancel_scope.cancel()
        finally:
            _end(process)
            with anyio.move_on_after(_REAPED_WITHIN, shield=True):
                await process.wait()
            with suppress(PermissionError):
                await process.aclose()

    async def _ended(self, process: Process) -> int:
        """The exit code, once all that was printed is read."""
        async with anyio.create_task_group() as readers:
            readers.start_soon(self._read_output, process)
            readers.start_soon(self._read_errors, process)
            status = await process.wait()
            _end(process)
        return status

    async def _read_output(self, process: Process) -> None:
        async for data in cast(ByteReceiveStream, process.stdout):
            self.output += data
            if len(self.output) > _MOST_OUTPUT:
                _end(process)
                return

    async def _read_errors(self, process: Process) -> None:
        async for data in cast(ByteReceiveStream, process.stderr):
            self.errors = (self.errors + data)[-_MOST_OUTPUT:]


def _end(process: Process) -> None:
    """Kill a command and all that it started."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def token_in(output: str) -> str:
    """The first line of an output, or the `access_token` of a JSON object."""
    if output.lstrip().startswith("{"):
        try:
            found = json.loads(output).get("access_token")
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, str):
            raise ConfigError("the token command printed JSON without a text `access_token`")
        return checked_token(found)
    lines = output.splitlines()
    return checked_token(lines[0].strip() if lines else "")


def _last_line(errors: bytes) -> str:
    """The last line of a command's stderr, without what looks like a token."""
    lines = errors.decode("utf-8", "replace").strip().splitlines()
    text = "".join(char if char.isprintable() else " " for char in lines[-1]) if lines else ""
    return _TOKEN_LIKE.sub("[…]", text)[:_LONGEST_QUOTE].strip()
