"""The day's count of one key and its next start, durable and shared by every run on this machine.

A request is charged before it is sent, so a kill can only over-count: by one for each run. The
file has two records (`quota_record`). A flock makes claim and charge one step for all processes.
`not_before` carries the spacing (and a throttle's hold) from run to run.

Nothing here waits for another process: one that holds the lock may have been suspended.
"""

import hashlib
import os
from datetime import datetime
from pathlib import Path

from msgspec.structs import replace

from harvester.disk.storage import flocked, replace_file, storage, sync_directory, write_all
from harvester.errors import StorageError
from harvester.request.quota_record import (
    SIZE,
    Account,
    Granted,
    NotYet,
    Spent,
    checksum,
    claim,
    day_of,
    encode,
    newest,
)
from harvester.runtime import Clock

_READS = 5
_SALT_SIZE = 32  # bytes, and a checksum of eight
BUSY = 0.005  # another run is at the file just now (s)
_SYNC_EVERY = 0.1  # at the API's pace that is every charge


class QuotaLedger:
    """The account of one key at one origin. `limit` is the day's quota less the reserve."""

    def __init__(self, path: Path, *, limit: int, clock: Clock | None = None) -> None:
        self.limit = limit
        self._path, self._name = path, os.fspath(path)
        self._disk = storage(path)
        self._clock = clock or Clock()
        self._synced = float("-inf")
        self._hold_until = float("-inf")  # a hold that is not in the file yet (monotonic s)
        self._seen: tuple[bytes, Account] = b"", Account()  # the file when it was last read
        self._serial = 0  # the newest record that this run has seen
        with self._disk:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            self._inode = _inode(os.fstat(self._file))

    def claim(self, gap: float) -> Granted | NotYet | Spent:
        """Charge one request and keep the next start `gap` seconds off, or say why not."""
        with self._disk, flocked(self._file) as held:
            if not held:
                return NotYet(BUSY)
            now, monotonic = self._clock.now(), self._clock.monotonic()
            account, answer = claim(
                self._current(now), now=now, monotonic=monotonic, gap=gap, limit=self.limit
            )
            if isinstance(answer, Granted):
                account = self._write(account)
                if monotonic - self._synced >= _SYNC_EVERY:
                    os.fdatasync(self._file)
                    # The start is now, not before the disk answered.
                    self._synced = self._clock.monotonic()
                    later = self._synced + gap
                    self._write(replace(account, not_before=later, set_at=self._synced))
        return answer

    def hold(self, seconds: float) -> None:
        """Let no run of this key start a request for `seconds`.

        Where another run holds the file, the hold is written with the next claim.
        """
        self._hold_until = max(self._hold_until, self._clock.monotonic() + seconds)
        with self._disk, flocked(self._file) as held:
            if held:
                self._current(self._clock.now())

    def day_spent(self) -> None:
        """The API says that the day is spent. Where another run holds the file just now, later runs
        are not told."""
        with self._disk, flocked(self._file) as held:
            if held:
                now = self._clock.now()
                self._write(replace(self._current(now), spent=day_of(now)))

    def used_today(self) -> int:
        """Requests charged to this UTC day, by all runs."""
        with self._disk:
            now = self._clock.now()
            return self._read(now)[1].used(day_of(now))

    def close(self) -> None:
        """Give the file back."""
        os.close(self._file)

    def _current(self, now: datetime) -> Account:
        """The account, with the hold that was not written yet. Call it with the lock held.

        Raise `StorageError` if the file is no longer the one that all runs of the key share, or has
        an older content: one `stat` tells.
        """
        try:
            shared = _inode(os.stat(self._name)) == self._inode  # noqa: PTH116 - at each request
        except FileNotFoundError:
            shared = False
        self._seen = self._read(now) if shared else (b"", Account())
        account = self._seen[1]
        if account.serial < self._serial or not shared:
            raise StorageError(
                f"the day's count in {self._path} was removed or replaced under this run: keep the "
                "state folder as it is while a run is under way, then give the same command again"
            )
        monotonic, until = self._clock.monotonic(), self._hold_until
        if until > monotonic and (until > account.not_before or monotonic < account.set_at):
            account = self._write(replace(account, not_before=until, set_at=monotonic))
        self._hold_until = float("-inf")
        self._serial = account.serial
        return account

    def _read(self, now: datetime) -> tuple[bytes, Account]:
        """The content of the file, and what it says. A reader without the lock may meet half a
        write: it reads again."""
        for _ in range(_READS):
            raw = os.pread(self._file, 2 * SIZE + 1, 0)
            if raw == self._seen[0]:  # no other run has written since
                return self._seen
            account, intact = newest(raw, day_of(now))
            if intact:
                break
        if account is not None:
            return raw, account
        # Guessing 0 could send a day's requests twice.
        raise StorageError(
            f"the day's count in {self._path} is damaged: remove it if you know that no other run "
            "of this key is under way, and give what was sent today as `quota_reserve`"
        )

    def _write(self, account: Account) -> Account:
        """Write the next record over the older one; give what it says."""
        account = replace(account, serial=account.serial + 1)
        record, at = encode(account), (account.serial - 1) % 2 * SIZE
        write_all(self._file, record, at=at)
        before = self._seen[0].ljust(at, b"\0")
        self._seen = before[:at] + record + before[at + SIZE :], account
        self._serial = account.serial
        return account


def _inode(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino


def ledger_path(state_dir: Path, *, origin: str, identity: str) -> Path:
    """Where the count of a key is kept: under a keyed hash, so that no file tells a key.

    `identity` is the API key. The hash's own key is random and made once for each state folder.
    """
    salt = _salt(state_dir / "salt")
    digest = hashlib.blake2b(f"{origin}\n{identity}".encode(), key=salt, digest_size=16)
    return state_dir / f"{digest.hexdigest()}.json"


def has_ledgers(state_dir: Path) -> bool:
    """Whether any run has counted here yet."""
    return (state_dir / "salt").exists()


def _salt(path: Path) -> bytes:
    with storage(path):
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not path.exists():
            # Linked into place whole: of many first runs one wins, and all read the same. A process
            # id is not unique: threads share it, and every container may have the same.
            own = path.with_name(f"salt.{os.urandom(8).hex()}")
            fresh = os.urandom(_SALT_SIZE)
            try:
                replace_file(own, fresh + checksum(fresh), mode=0o600)
                os.link(own, path)
            except FileExistsError:
                pass
            finally:
                own.unlink(missing_ok=True)
                sync_directory(path.parent)
        found = path.read_bytes() if path.is_file() else b""  # a pipe would block
    salt, sum_ = found[:_SALT_SIZE], found[_SALT_SIZE:]
    # A damaged one would name another file, and the day's count would begin anew. One without a
    # checksum was made by version 1.
    if len(salt) < _SALT_SIZE or sum_ not in (b"", checksum(salt)):
        raise StorageError(
            f"{path} is damaged: restore it, or remove the folder if you know that no run of today "
            "has used it"
        )
    return salt
