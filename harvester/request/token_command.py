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
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import anyio
from anyio.abc import ByteReceiveStream, Process

from harvester.errors import ConfigError
from harvester.request.credentials import checked_token
from harvester.runtime import StopSignal

_MOST_OUTPUT = 64 * 1024  # bytes
_REAPED_WITHIN = 0.5  # s: a killed process is gone at once, unless it is another user's
_SAME_SIGNAL = 0.1  # s: a signal that ends the command may be meant for this run as well
_LONGEST_QUOTE = 200  # characters
_TOKEN_LIKE = re.compile(r"[\w~+/=.-]{20,}|(?=[^\s\d]*\d)(?=[^\sA-Za-z]*[A-Za-z])[\w~+/=.-]{8,}")


@dataclass(frozen=True, slots=True)
class CommandLimits:
    """How long a command may take (s), how long a stop waits for it (s), and the pauses (s) before
    a renewal that failed is tried again."""

    timeout: float = 60.0
    stop_wait: float = 5.0
    pauses: Sequence[float] = (2.0, 10.0)


class TokenCommand:
    """A token source that runs a command, without a shell, once for each token.

    `first` is a token that is known already; the command is run when that is refused.
    """

    def __init__(
        self,
        command: str,
        stop: StopSignal,
        *,
        first: str = "",
        limits: CommandLimits | None = None,
    ) -> None:
        self._command = command
        self._stop = stop
        self._token = first
        self._limits = limits or CommandLimits()

    async def current(self) -> str:
        """The token of the last run of the command; the first use runs it."""
        if not self._token:
            self._token = await self._run()
        return self._token

    async def renew(self, refused: str) -> bool:
        """Run the command; a failure may pass, so it is tried again. False: the same token came."""
        for pause in self._limits.pauses:
            try:
                self._token = await self._run()
                break
            except ConfigError:
                await self._stop.sleep(pause)
        else:
            self._token = await self._run()
        return self._token != refused

    async def _run(self) -> str:
        """The token that the command prints. Its output is a secret: no error repeats it."""
        self._stop.check()
        if not self._command.strip():
            raise ConfigError("the token command is blank")
        run = _Run(self._limits, self._stop)
        try:
            await run.make(shlex.split(self._command))
        except (OSError, ValueError) as wrong:
            why = getattr(wrong, "strerror", None) or "it is not a command line"
            raise ConfigError(f"cannot run the token command: {why}") from None
        self._stop.check()
        if run.timed_out:
            raise ConfigError(f"the token command took over {self._limits.timeout:g} s")
        if len(run.output) > _MOST_OUTPUT:
            raise ConfigError(f"the token command printed more than {_MOST_OUTPUT:,} bytes")
        if run.status != 0:
            await self._stop.sleep(_SAME_SIGNAL)
            said = _last_line(run.errors)
            raise ConfigError(
                f"the token command failed with exit code {run.status}" + (said and f": {said}")
            )
        return token_in(run.output.decode("utf-8", "replace"))


class _Run:
    """One run of a command, which does not outlive it."""

    def __init__(self, limits: CommandLimits, stop: StopSignal) -> None:
        self._limits = limits
        self._stop = stop
        self._over = anyio.Event()
        self.output, self.errors = b"", b""
        self.status: int | None = None
        self.timed_out = False
        self._failure: OSError | ValueError | None = None

    async def make(self, argv: list[str]) -> None:
        """Run it to its end. A cancel, or the order to stop, waits for it a little."""
        scope = anyio.CancelScope(shield=True)
        scope.deadline = anyio.current_time() + self._limits.timeout

        def hurry() -> None:
            scope.deadline = min(scope.deadline, anyio.current_time() + self._limits.stop_wait)

        async def obey() -> None:
            await self._stop.wait()
            hurry()

        async def work() -> None:
            try:
                with scope:
                    await self._work(argv)
            except (OSError, ValueError) as failure:
                self._failure = failure
            finally:
                self._over.set()

        async with anyio.create_task_group() as group:
            group.start_soon(work)
            group.start_soon(obey)
            try:
                await self._over.wait()
            finally:
                hurry()
            group.cancel_scope.cancel()
        self.timed_out = scope.cancelled_caught
        if self._failure is not None:
            raise self._failure

    async def _work(self, argv: list[str]) -> None:
        # In a session of its own: all that it starts can be ended, and Ctrl-C does not reach it.
        process = await anyio.open_process(argv, stdin=subprocess.DEVNULL, start_new_session=True)
        try:
            async with anyio.create_task_group() as readers:
                readers.start_soon(_each, process.stdout, self._take_output(process))
                readers.start_soon(_each, process.stderr, self._take_errors)
                self.status = await process.wait()
                _end(process)
        finally:
            _end(process)
            with anyio.move_on_after(_REAPED_WITHIN, shield=True):
                await process.wait()
            with suppress(PermissionError):
                await process.aclose()

    def _take_output(self, process: Process) -> Callable[[bytes], None]:
        def take(data: bytes) -> None:
            if len(self.output) <= _MOST_OUTPUT:
                self.output += data
            else:
                _end(process)

        return take

    def _take_errors(self, data: bytes) -> None:
        self.errors = (self.errors + data)[-_MOST_OUTPUT:]


async def _each(stream: ByteReceiveStream | None, take: Callable[[bytes], None]) -> None:
    if stream is not None:
        async for data in stream:
            take(data)


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
