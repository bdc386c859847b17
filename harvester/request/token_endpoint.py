"""One POST to the sign-in: a second apart over all processes, never repeated unasked.

The endpoint allows one request a second. The time of the last one stands in a small file for each
origin; a lock on it makes look and claim one step for all processes.
"""

import fcntl
import hashlib
import os
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import KW_ONLY, dataclass, field, replace
from pathlib import Path

import aiohttp
import anyio
from yarl import URL

from harvester.api.oauth import Answer, Form, Passing, Rejected, classify
from harvester.disk.storage import storage, write_all
from harvester.errors import TransportTrouble, Unreadable
from harvester.request.body import read_body
from harvester.request.http import open_session
from harvester.request.redact import Redactor
from harvester.runtime import Clock

REQUEST_TIMEOUT = 14.0  # s: two tries end within the leeway of 30 s for a lost answer
_GAP = 1.1  # s between two requests: the endpoint's second, and room for the network
_BUSY = 0.02  # s until the file is tried again
_LARGEST = 256 * 1024  # bytes of an answer: tokens take about 3 kB


class RequestSpacing:
    """Keeps the requests to one origin `gap` seconds apart, over all processes of the machine."""

    def __init__(self, state_dir: Path, origin: str, *, clock: Clock, gap: float = _GAP) -> None:
        digest = hashlib.blake2b(origin.encode(), digest_size=8).hexdigest()
        self._path = state_dir / "accounts" / f".last-request.{digest}"
        self._clock = clock
        self._gap = gap

    async def wait(self, sleep: Callable[[float], Awaitable[None]]) -> None:
        """Return when the next request may go; it is claimed then. `sleep` may raise."""
        while (wait := self._claim()) > 0:
            await sleep(wait)

    def _claim(self) -> float:
        """Seconds to wait; 0 if the start is ours. Never waits for the lock."""
        with storage(self._path):
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                now, since = self._clock.monotonic(), float("inf")
                with suppress(ValueError):  # one that cannot be read was long ago
                    since = now - float(os.pread(file, 64, 0))
                if 0 <= since < self._gap:  # a later moment is of an earlier boot
                    return max(self._gap - since, _BUSY)  # a rounding residue is no wait
                write_all(file, f"{now!r}\n".encode().ljust(64), at=0)
            except BlockingIOError:
                return _BUSY
            finally:
                os.close(file)
        return 0.0


@dataclass(eq=False, repr=False)
class TokenEndpoint:
    """Asks the sign-in at one origin. Holds no secret."""

    auth_url: str
    spacing: RequestSpacing
    _: KW_ONLY
    timeout: float = REQUEST_TIMEOUT
    proxy: str | None = None
    clock: Clock = field(default_factory=Clock)

    async def ask(
        self, form: Form, *, sleep: Callable[[float], Awaitable[None]] = anyio.sleep
    ) -> Answer:
        """Send `form` once, when its turn comes. What goes wrong on the way is an answer too;
        only `sleep` (while it waits for its turn) and the disk (`StorageError`) raise."""
        await self.spacing.wait(sleep)
        # A life is counted from the question: the answer may have been long on its way.
        now = self.clock.now().timestamp()
        # A session of its own: an idle connection could be gone by the next use, a day later.
        async with open_session(connections=1, timeout=self.timeout) as session:
            try:
                async with session.post(
                    URL(self.auth_url + form.path, encoded=True),
                    data=form.fields,
                    allow_redirects=False,
                    proxy=self.proxy,
                ) as response:
                    body = await read_body(response, cap=_LARGEST)
            except (aiohttp.ClientConnectorError, aiohttp.ClientHttpProxyError):
                return Passing("cannot connect")
            except TimeoutError:
                return Passing(f"no answer within {self.timeout:g} s", lost=True)
            except (aiohttp.ClientError, TransportTrouble, Unreadable) as wrong:
                # Not its text: that can hold the request.
                return Passing(f"the answer was lost ({type(wrong).__name__})", lost=True)
        answer = classify(response.status, response.headers, body, now=now)
        secret = form.fields.get("refresh_token") or form.fields.get("device_code", "")
        scrub = Redactor(secret).scrub
        match answer:
            case Passing():
                return replace(answer, text=scrub(answer.text))
            case Rejected():
                return replace(answer, error=scrub(answer.error), text=scrub(answer.text))
        return answer
