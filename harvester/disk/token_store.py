"""The tokens of the signed-in accounts: one file of mode 0600 for each, replaced in one step.

    accounts/NAME.json            the account, with a version and a checksum, in two copies
    accounts/NAME.lock            held by the process that renews or replaces it (flock)
    accounts/.NAME.<random>.new   room for the next one, made before the server is asked

A refresh token is good for one exchange. So the room for the answer is on the disk before the
question is sent, and a whole answer that a kill left there is taken up by the next reader.
"""

import fcntl
import hashlib
import os
import re
import secrets
import stat
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import orjson

from harvester.disk.storage import storage, sync_directory, write_all
from harvester.errors import ConfigError

DEFAULT_ACCOUNT = "default"
_VERSION = 1
_ROOM = 8 * 1024  # bytes: several times what an account takes
_LARGEST = 256 * 1024  # bytes
_POLL = 0.05  # s between two tries at a lock that another process holds
_OPEN = os.O_CLOEXEC | os.O_NOFOLLOW


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """A signed-in account, bound to the origins and the client id it was made with.

    Moments are seconds since 1970. `generation` counts the renewals: of two, the higher is newer.
    """

    name: str
    client_id: str
    base_url: str
    auth_url: str
    scope: str
    access_token: str = field(repr=False)
    refresh_token: str | None = field(repr=False)
    signed_in_at: float
    received_at: float
    expires_at: float
    generation: int = 1


class TokenStore:
    """The file of one account, whose name can be one. Raises `StorageError` where the disk
    refuses."""

    def __init__(self, state_dir: Path, name: str = DEFAULT_ACCOUNT) -> None:
        self.name = name
        self._folder = state_dir / "accounts"
        self.path = self._folder / f"{name}.json"
        self._lock = self._folder / f"{name}.lock"
        self._left_over = re.compile(rf"\.{re.escape(name)}\.[0-9a-f]{{16}}\.new")
        self.interrupted = False
        """`recover` met an exchange that ended between its question and its answer."""

    def __repr__(self) -> str:
        return f"TokenStore({str(self.path)!r})"

    def read(self) -> Account | None:
        """The account; None if it is not signed in. Raise `ConfigError` for a file that is not
        as this program wrote it."""
        with storage(self.path):
            raw = _read_regular(self.path)
        if raw is None:
            return None
        account = _decode(raw)
        if account is None or account.name != self.name:
            raise ConfigError(
                f"{self.path} is damaged or not a signed-in account of this version: sign in "
                f"again with `harvester login --account {self.name}`"
            )
        return account

    @asynccontextmanager
    async def locked(self, sleep: Callable[[float], Awaitable[None]]) -> AsyncIterator[None]:
        """Hold the account among all tasks and processes; `sleep` may end the wait by raising."""
        with storage(self._lock):
            self._make_folder()
        while (file := _try_lock(self._lock)) is None:
            await sleep(_POLL)
        with closing(os.fdopen(file, "rb")):
            yield

    # -- under the lock ------------------------------------------------------------------------

    def recover(self) -> Account | None:
        """Read, and finish a replacement that a kill interrupted. Raises as `read` does."""
        with storage(self._folder):
            if not (left_over := self._left_overs()):
                return self.read()
            found = [(path, _decode(_read_regular(path) or b"")) for path in left_over]
            whole = [(path, account) for path, account in found if account is not None]
            self.interrupted = self.interrupted or not whole
            if whole:
                path, newest = max(whole, key=lambda each: each[1].generation)
                if newest.generation > self._generation():
                    with path.open("rb") as written:
                        os.fsync(written.fileno())
                    self._replace(path)
            current = self.read()
            for path in left_over:
                path.unlink(missing_ok=True)
        return current

    @contextmanager
    def room(self) -> Iterator["Room"]:
        """Room on the disk for the next account, before anything is asked for it."""
        with storage(self._folder):
            self._make_folder()
            path = self._folder / f".{self.name}.{secrets.token_hex(8)}.new"
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | _OPEN, 0o600)
        room = Room(self, path, file)
        try:
            with storage(path):
                os.fchmod(file, 0o600)  # whatever the umask has left of it
                write_all(file, b" " * (_ROOM - 1) + b"\n", at=0)
                os.fsync(file)
                sync_directory(self._folder)
            yield room
        finally:
            os.close(file)
            if not room.written:  # else it holds tokens that nothing else holds
                with suppress(OSError):
                    path.unlink(missing_ok=True)

    def forget(self) -> bool:
        """Remove the account's tokens; False if there were none."""
        with storage(self._folder):
            found = [path for path in (self.path, *self._left_overs()) if path.exists()]
            for path in found:
                path.unlink()
            sync_directory(self._folder)
        return bool(found)

    def _left_overs(self) -> list[Path]:
        return [path for path in self._folder.iterdir() if self._left_over.fullmatch(path.name)]

    def _generation(self) -> int:
        with suppress(ConfigError):
            if (current := self.read()) is not None:
                return current.generation
        return 0

    def _replace(self, path: Path) -> None:
        path.replace(self.path)
        sync_directory(self._folder)

    def _make_folder(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)


@dataclass
class Room:
    """An open, empty file that becomes the account. `written` says that it may hold tokens."""

    store: TokenStore
    path: Path
    file: int
    written: bool = False

    def save(self, account: Account) -> None:
        """Put `account` in the place of the stored one, durably."""
        self.written = True
        with storage(self.path):
            raw = _encode(account).ljust(_ROOM)
            write_all(self.file, raw, at=0)
            os.ftruncate(self.file, len(raw))
            os.fsync(self.file)
            self.store._replace(self.path)


def _encode(account: Account) -> bytes:
    body = orjson.dumps(asdict(account), option=orjson.OPT_SORT_KEYS)
    digest = hashlib.sha256(body).hexdigest()
    line = b'{"version":%d,"sha256":"%s","account":%s}' % (_VERSION, digest.encode(), body)
    return b"%s\n\n%s\n" % (line, line)


def _decode(raw: bytes) -> Account | None:
    """The account, or None if no line is one, whole and of this version.

    One sign-in is worth a second copy: where one is damaged, the other is read.
    """
    return next(filter(None, map(_decode_line, raw.split(b"\n"))), None)


def _decode_line(line: bytes) -> Account | None:
    try:
        found: dict[str, Any] = orjson.loads(line)
        body = orjson.dumps(found["account"], option=orjson.OPT_SORT_KEYS)
        if found["version"] != _VERSION or found["sha256"] != hashlib.sha256(body).hexdigest():
            return None
        return Account(**found["account"])
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return None


def _read_regular(path: Path) -> bytes | None:
    """The bytes of a regular file, None if there is none. A pipe could block, a link could lead
    anywhere: both are refused."""
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            raise ConfigError(f"{path} is not a regular file: move it away")
        with path.open("rb") as file:
            return file.read(_LARGEST)
    except FileNotFoundError:
        return None


def _try_lock(path: Path) -> int | None:
    """The open and locked file, or None while another one holds it."""
    with storage(path):
        file = os.open(path, os.O_RDWR | os.O_CREAT | _OPEN, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            return None
        return file
