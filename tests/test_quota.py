"""The day's count of a key: charged before sending, shared, durable, never under."""

import errno
import fcntl
import multiprocessing
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest
from fakes import NOON, FakeClock
from hypothesis import given
from hypothesis import strategies as st

from harvester.errors import StorageError
from harvester.request.quota import QuotaLedger, ledger_path
from harvester.request.quota_record import (
    Account,
    Granted,
    NotYet,
    Spent,
    claim,
    decode,
    encode,
    newest,
)
from harvester.runtime import Clock

TODAY = "2026-03-01"
MIDNIGHT = datetime(2026, 3, 2, tzinfo=UTC)


def claimed(
    account: Account, *, now: datetime = NOON, monotonic: float = 100.0, limit: int = 10
) -> tuple[Account, Granted | NotYet | Spent]:
    """A claim with a gap of 0.3 s."""
    return claim(account, now=now, monotonic=monotonic, gap=0.3, limit=limit)


# -- the decision ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("account", "answer"),
    [
        (Account(), Granted(1)),
        (Account({TODAY: 8}), Granted(9)),
        (Account({TODAY: 9}), Granted(10)),
        (Account({TODAY: 10}), Spent(MIDNIGHT)),
        (Account({TODAY: 999}), Spent(MIDNIGHT)),
        (Account({"2026-02-28": 10}), Granted(1)),
        (Account({"2026-03-02": 10}), Granted(1)),
        (Account({}, not_before=100.0), Granted(1)),
        (Account({}, not_before=99.0), Granted(1)),
        (Account({}, not_before=100.25), NotYet(0.25)),
        (Account({}, not_before=160.0), NotYet(60.0)),
        (Account({TODAY: 10}, not_before=160.0), Spent(MIDNIGHT)),
        (Account({}, not_before=1e6), NotYet(1e6 - 100.0)),
        (Account({}, not_before=7_200.0, set_at=101.0), Granted(1)),  # of before a reboot
        (Account({}, not_before=7_200.0, set_at=100.0), NotYet(7_100.0)),
    ],
)
def test_a_claim_is_granted_delayed_or_refused(
    account: Account, answer: Granted | NotYet | Spent
) -> None:
    """The day's limit first, then the spacing; only what is granted is charged."""
    after, found = claimed(account)
    assert found == answer
    if isinstance(answer, Granted):
        assert after.used(TODAY) == answer.used
        assert after.not_before == pytest.approx(100.3)
    else:
        assert after == account


def test_no_limit_never_ends() -> None:
    """With a limit of 0 requests are counted, not refused."""
    assert claimed(Account({TODAY: 10**6}), limit=0)[1] == Granted(10**6 + 1)


def test_a_clock_set_back_finds_its_count() -> None:
    """The day before is charged on top of what it had; nothing is forgotten by the jump."""
    account, _ = claimed(Account({TODAY: 9}))
    account, answer = claimed(account, now=NOON + timedelta(days=1), monotonic=200.0)
    assert answer == Granted(1)
    account, answer = claimed(account, now=NOON, monotonic=300.0)
    assert answer == Spent(MIDNIGHT)
    account, answer = claimed(account, now=NOON - timedelta(days=7), monotonic=400.0)
    assert answer == Granted(1)
    assert account.days == {"2026-02-22": 1, TODAY: 10, "2026-03-02": 1}


def test_days_to_come_do_not_hide_today() -> None:
    """A clock that was ahead has filled the record: today is counted all the same."""
    account = Account({f"2030-01-{day:02}": 1 for day in range(1, 9)})
    for used in range(1, 11):
        account, answer = claimed(account, monotonic=100.0 + used)
        assert answer == Granted(used)
    assert claimed(account, monotonic=200.0)[1] == Spent(MIDNIGHT)
    assert len(account.days) == 8


def test_only_some_days_are_kept() -> None:
    """The record fits its sector for ever."""
    account = Account()
    for day in range(40):
        account, _ = claimed(account, now=NOON + timedelta(days=day), monotonic=100.0 + day)
    assert sorted(account.days) == [f"2026-04-{day:02}" for day in range(2, 10)]
    days = dict.fromkeys(account.days, 10**9)
    record = encode(Account(days, not_before=1e300 / 3, set_at=1e300 / 3))
    assert len(record) == 512
    assert decode(record).days == days


@given(
    st.lists(st.tuples(st.integers(-3, 3), st.floats(0, 5, allow_subnormal=False)), max_size=40),
    st.integers(1, 6),
)
def test_no_day_is_overdrawn_whatever_the_clock_does(
    steps: list[tuple[int, float]], limit: int
) -> None:
    """Days come and go in any order: none of them gets more than the limit, starts keep apart."""
    account, monotonic, last = Account(), 0.0, float("-inf")
    granted: dict[str, int] = {}
    for days, seconds in steps:
        monotonic += seconds
        now = NOON + timedelta(days=days)
        account, answer = claim(account, now=now, monotonic=monotonic, gap=0.3, limit=limit)
        if isinstance(answer, Granted):
            day = now.date().isoformat()
            granted[day] = granted.get(day, 0) + 1
            assert answer.used == granted[day] <= limit
            assert monotonic - last >= 0.3 - 1e-9
            last = monotonic


# -- the file ----------------------------------------------------------------------------------


def ledger(path: Path, clock: FakeClock, *, limit: int = 10) -> QuotaLedger:
    """A ledger on a clock that is moved by hand."""
    return QuotaLedger(path, limit=limit, clock=clock)


def test_a_charge_is_in_the_file_when_it_is_granted(tmp_path: Path, clock: FakeClock) -> None:
    """A kill after the claim over-counts by one, and never under-counts."""
    path = tmp_path / "deep" / "key.json"
    one = ledger(path, clock)
    assert one.claim(0.3) == Granted(1)
    # No close: the process is gone.
    clock.advance(1)
    other = ledger(path, clock)
    assert other.used_today() == 1
    assert other.claim(0.3) == Granted(2)
    assert (path.stat().st_size, path.stat().st_mode & 0o777) == (1024, 0o600)
    one.close()
    other.close()


def test_spacing_and_holds_are_seen_by_the_next_run(tmp_path: Path, clock: FakeClock) -> None:
    """A run started right after another waits for the other's gap, and for its hold."""
    one, other = ledger(tmp_path / "k", clock), ledger(tmp_path / "k", clock)
    one.claim(0.3)
    assert other.claim(0.3) == NotYet(pytest.approx(0.3))
    one.hold(60)
    clock.advance(59)
    assert other.claim(0.3) == NotYet(pytest.approx(1.0))
    clock.advance(1)
    assert other.claim(0.3) == Granted(2)
    one.close()
    other.close()


def test_a_shorter_hold_shortens_nothing(tmp_path: Path, clock: FakeClock) -> None:
    """Of two holds the longer one stands."""
    one = ledger(tmp_path / "k", clock)
    one.hold(60)
    one.hold(1)
    assert one.claim(0.3) == NotYet(pytest.approx(60))
    one.close()


def test_a_hold_of_hours_is_seen_by_the_next_run(tmp_path: Path, clock: FakeClock) -> None:
    """With a --max-wait of hours a hold may be as long; other runs keep to it all the same."""
    one, other = ledger(tmp_path / "k", clock), ledger(tmp_path / "k", clock)
    one.hold(7_200)
    assert other.claim(0.3) == NotYet(pytest.approx(7_200))
    one.close()
    other.close()


def test_the_day_changes_at_midnight_utc(tmp_path: Path, clock: FakeClock) -> None:
    """The limit is of a day: the next one starts at nothing."""
    one = ledger(tmp_path / "k", clock, limit=1)
    assert one.claim(0.3) == Granted(1)
    clock.advance(12 * 3_600 - 1)
    assert one.claim(0.3) == Spent(MIDNIGHT)
    clock.advance(1)
    assert (one.used_today(), one.claim(0.3)) == (0, Granted(1))
    one.close()


def test_a_slow_disk_does_not_bring_two_starts_nearer(
    tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gap counts from when the claim returns: what syncing took must not be cut off it."""
    one, other = ledger(tmp_path / "k", clock), ledger(tmp_path / "k", clock)
    monkeypatch.setattr(os, "fdatasync", lambda file: clock.advance(0.25))
    assert one.claim(0.3) == Granted(1)
    clock.advance(0.1)
    assert isinstance(other.claim(0.3), NotYet)
    one.close()
    other.close()


def test_waiting_for_the_lock_does_not_bring_two_starts_nearer(
    tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gap counts from when the claim returns: nor what another process held the lock for."""
    one, other = ledger(tmp_path / "k", clock), ledger(tmp_path / "k", clock)
    real = fcntl.flock

    def slow(file: int, how: int) -> None:
        if how & fcntl.LOCK_EX:
            clock.advance(0.25)
        real(file, how)

    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "flock", slow)
        assert one.claim(0.3) == Granted(1)
    clock.advance(0.1)
    assert isinstance(other.claim(0.3), NotYet)
    one.close()
    other.close()


def test_a_file_that_is_held_is_asked_again_later(tmp_path: Path, clock: FakeClock) -> None:
    """Its holder may have been suspended: no run is blocked by that, nothing is charged."""
    one = ledger(tmp_path / "k", clock)
    with (tmp_path / "k").open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        answer = one.claim(0.3)
        assert isinstance(answer, NotYet)
        assert 0 < answer.wait < 0.1
    assert one.claim(0.3) == Granted(1)
    one.close()


def test_after_a_reboot_a_hold_is_over(tmp_path: Path, clock: FakeClock) -> None:
    """Its clock has begun anew; a new hold counts by the new one."""
    one = ledger(tmp_path / "k", clock)
    one.hold(7_200.0)
    clock.mono = 60.0
    assert one.claim(0.3) == Granted(1)
    one.hold(5.0)
    assert one.claim(0.3) == NotYet(5.0)
    one.close()


def test_charges_are_synced_at_the_apis_pace(
    tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every charge is, unless they come faster than any API allows."""
    synced: list[int] = []
    monkeypatch.setattr(os, "fdatasync", synced.append)
    one = ledger(tmp_path / "k", clock, limit=0)
    for _ in range(10):
        assert isinstance(one.claim(0.25), Granted)
        clock.advance(0.25)
    assert len(synced) == 10
    for _ in range(1_000):
        assert isinstance(one.claim(0.0), Granted)
        clock.advance(0.001)
    assert 19 <= len(synced) <= 21
    one.close()


@pytest.mark.parametrize(
    "content",
    [
        b"garbage",
        b"\0" * 512,
        b"[]",
        b"null",
        b'"days"',
        b"{}",
        b'{"version":1,"days":{}}',
        b'{"version":1,"days":[],"not_before":0}',
        b'{"version":1,"days":{"2026-03-01":"many"},"not_before":0}',
        b'{"version":1,"days":{"2026-03-01":null},"not_before":0}',
        b'{"version":1,"days":{"2026-03-01":-5},"not_before":0}',
        b'{"version":1,"days":{},"not_before":"soon"}',
        b'{"version":2,"days":{},"not_before":0}',
        b'{"version":3,"days":{},"not_before":0,"set_at":0.0,"checksum":""}',
        b'{"days":{},"not_before":0}',
        b'{"version":1,"days":{"2026-03-01":9},"not_bef',
    ],
)
def test_a_file_that_cannot_be_read_stops_everything(
    tmp_path: Path, clock: FakeClock, content: bytes
) -> None:
    """Guessing 0 could spend the day twice: the error says what may be done, the file is left."""
    (tmp_path / "k").write_bytes(content)
    one = ledger(tmp_path / "k", clock)
    for use in (lambda: one.claim(0.3), one.used_today, lambda: one.hold(1)):
        with pytest.raises(StorageError, match="is damaged: remove it if you know"):
            use()
    assert (tmp_path / "k").read_bytes() == content
    one.close()


def days_in(raw: bytes) -> dict[str, int]:
    """The counts that a file tells."""
    account, _ = newest(raw, TODAY)
    assert account is not None
    return account.days


def two_records(path: Path, clock: FakeClock) -> bytes:
    """The file after two charges."""
    one = ledger(path, clock)
    one.claim(0.3)
    clock.advance(1)
    one.claim(0.3)
    one.close()
    return path.read_bytes()


def test_every_flipped_bit_is_found(tmp_path: Path, clock: FakeClock) -> None:
    """In any field, in the checksum or in the padding: the other record stands in, and the count is
    never lower than it was."""
    good = two_records(tmp_path / "k", clock)
    assert days_in(good) == {TODAY: 2}
    for bit in range(len(good) * 8):
        bad = bytearray(good)
        bad[bit // 8] ^= 1 << bit % 8
        assert 2 <= days_in(bytes(bad))[TODAY] <= 3, bit
        with pytest.raises((ValueError, KeyError, TypeError, AttributeError)):
            decode(bytes(bad[:512] if bit < 512 * 8 else bad[512:]))


@pytest.mark.parametrize("after", [0, 1, 2, 3])
def test_a_write_that_is_cut_short_anywhere_leaves_the_count(
    tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    """At any byte of any charge: the next run goes on, and counts at least what was sent."""
    write = os.pwrite
    for cut in range(0, 513, 23):
        path = tmp_path / f"{after}-{cut}"
        one = ledger(path, clock)
        for _ in range(after):
            one.claim(0.3)
            clock.advance(1)

        def torn(file: int, data: bytes, at: int, size: int = cut) -> int:
            write(file, data[:size], at)
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(os, "pwrite", torn)
            with pytest.raises(KeyboardInterrupt):
                one.claim(0.3)
        one.close()
        clock.advance(1)
        two = ledger(path, clock)
        answer = two.claim(0.3)
        assert isinstance(answer, Granted)
        assert after + 1 <= answer.used <= after + 2
        two.close()


@pytest.mark.parametrize("edit", [(b'":9', b'":1'), (b" \n", b"\n "), (b"}", b"} ")])
def test_edited_digits_are_refused(
    tmp_path: Path, clock: FakeClock, edit: tuple[bytes, bytes]
) -> None:
    """The error says what to do: neither a hold nor a reader believes the file."""
    (tmp_path / "k").write_bytes(encode(Account({TODAY: 9})).replace(*edit))
    one = ledger(tmp_path / "k", clock)
    for use in (lambda: one.claim(0.3), one.used_today, lambda: one.hold(1)):
        with pytest.raises(StorageError, match="damaged: remove it if you know"):
            use()
    one.close()


def test_a_count_of_version_1_goes_on(tmp_path: Path, clock: FakeClock) -> None:
    """It had no checksum; the first charge writes one."""
    old = {"version": 1, "days": {TODAY: 7}, "not_before": 0.0, "set_at": 0.0}
    (tmp_path / "k").write_bytes(orjson.dumps(old).ljust(511) + b"\n")
    one = ledger(tmp_path / "k", clock)
    assert (one.used_today(), one.claim(0.3)) == (7, Granted(8))
    assert b'"checksum"' in (tmp_path / "k").read_bytes()
    one.close()


def test_the_day_is_that_of_utc(
    tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever the machine stands: at noon UTC it is tomorrow on Kiritimati."""
    monkeypatch.setenv("TZ", "Pacific/Kiritimati")
    time.tzset()
    try:
        one = ledger(tmp_path / "k", clock)
        one.claim(0.3)
        one.close()
    finally:
        monkeypatch.undo()
        time.tzset()
    assert days_in((tmp_path / "k").read_bytes()) == {TODAY: 1}


# -- the file under a run ----------------------------------------------------------------------


def _removed(path: Path) -> None:
    shutil.rmtree(path.parent)


def _replaced(path: Path) -> None:
    path.with_name("new").write_bytes(path.read_bytes())
    path.with_name("new").replace(path)


def _moved(path: Path) -> None:
    path.parent.rename(path.parent.with_name("elsewhere"))
    path.parent.mkdir()
    path.write_bytes(b"")


def _restored(path: Path) -> None:
    path.write_bytes(encode(Account({TODAY: 1})))


def _emptied(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("attack", [_removed, _replaced, _moved, _restored, _emptied])
def test_a_count_that_others_do_not_see_is_not_used(
    tmp_path: Path, clock: FakeClock, attack: Callable[[Path], None]
) -> None:
    """The state folder removed, replaced or restored under a run: it stops before a request."""
    path = tmp_path / "state" / "k"
    one = ledger(path, clock)
    for _ in range(3):
        one.claim(0.3)
        clock.advance(1)
    attack(path)
    for use in (lambda: one.claim(0.3), lambda: one.hold(1)):
        with pytest.raises(StorageError, match="removed or replaced under this run"):
            use()
    one.close()


@pytest.mark.parametrize("attack", [_removed, _replaced, _moved])
def test_a_count_is_watched_from_the_first_request_on(
    tmp_path: Path, clock: FakeClock, attack: Callable[[Path], None]
) -> None:
    """Also before this run has charged anything."""
    path = tmp_path / "state" / "k"
    one = ledger(path, clock)
    attack(path)
    with pytest.raises(StorageError, match="removed or replaced under this run"):
        one.claim(0.3)
    one.close()


def test_of_two_holds_at_a_busy_file_the_longer_stands(tmp_path: Path, clock: FakeClock) -> None:
    """Neither could be written when it was ordered."""
    one, other = ledger(tmp_path / "k", clock), ledger(tmp_path / "k", clock)
    with (tmp_path / "k").open("rb") as suspended:
        fcntl.flock(suspended, fcntl.LOCK_EX)
        one.hold(60)
        one.hold(5)
    assert one.claim(0.0) == NotYet(60)
    assert other.claim(0.0) == NotYet(60)
    one.close()
    other.close()


def test_a_count_that_another_run_raised_is_used(tmp_path: Path, clock: FakeClock) -> None:
    """Also over midnight, and where the clock was set back."""
    one, other = ledger(tmp_path / "k", clock), ledger(tmp_path / "k", clock)
    used = []
    for run in (one, other, other, one):
        used.append(run.claim(0.3))
        clock.advance(1)
    assert used == [Granted(1), Granted(2), Granted(3), Granted(4)]
    clock.wall += timedelta(days=1)
    assert one.claim(0.3) == Granted(1)
    clock.wall -= timedelta(days=1)
    clock.advance(1)
    assert other.claim(0.3) == Granted(5)
    one.close()
    other.close()


def test_nothing_waits_for_a_process_that_holds_the_file(tmp_path: Path, clock: FakeClock) -> None:
    """It may have been suspended: a reader needs no lock, a hold is written by the next claim."""
    one, other = ledger(tmp_path / "k", clock), ledger(tmp_path / "k", clock)
    one.claim(0.0)
    with (tmp_path / "k").open("rb") as suspended:
        fcntl.flock(suspended, fcntl.LOCK_EX)
        assert one.used_today() == 1
        one.hold(60)
        assert isinstance(one.claim(0.0), NotYet)
    assert other.claim(0.0) == Granted(2)
    clock.advance(1)
    assert one.claim(0.0) == NotYet(pytest.approx(59))
    assert other.claim(0.0) == NotYet(pytest.approx(59))
    one.close()
    other.close()


def test_a_read_during_a_write_is_repeated(
    tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of a record is not taken for a damaged one."""
    one, other = ledger(tmp_path / "k", clock), ledger(tmp_path / "k", clock)
    one.claim(0.0)
    real, reads = os.pread, []

    def torn(file: int, size: int, at: int) -> bytes:
        reads.append(file)
        found = real(file, size, at)
        return found[:20] + b"9" + found[21:] if len(reads) < 3 else found

    monkeypatch.setattr(os, "pread", torn)
    assert other.used_today() == 1
    assert len(reads) == 3
    one.close()
    other.close()


def test_a_full_disk_refuses_the_charge(
    tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What could not be charged is not granted."""

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    one = ledger(tmp_path / "k", clock)
    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(StorageError, match="No space left"):
        one.claim(0.3)
    one.close()


def test_a_state_folder_that_cannot_be_is_named(tmp_path: Path) -> None:
    """A file where the folder should be is storage trouble."""
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot use"):
        QuotaLedger(tmp_path / "file" / "k", limit=1)
    with pytest.raises(StorageError, match="cannot use"):
        ledger_path(tmp_path / "file", origin="o", identity="k")


# -- many at once ------------------------------------------------------------------------------


class RacingClock(Clock):
    """A clock that moves a little with every reading, in any thread."""

    __slots__ = ()
    ticks = 0
    lock = threading.Lock()

    def now(self) -> datetime:
        """Always the same day."""
        return NOON

    def monotonic(self) -> float:
        """A tenth of a second later than at the reading before."""
        with self.lock:
            RacingClock.ticks += 1
            return RacingClock.ticks / 10


def test_threads_share_a_ledger_file_exactly(tmp_path: Path) -> None:
    """Of many claims from many threads, as many are granted as the day has, each number once."""

    def claims(_: int) -> list[int]:
        one = QuotaLedger(tmp_path / "k", limit=40, clock=RacingClock())
        found = []
        while not isinstance(answer := one.claim(0.0), Spent):
            found += [answer.used] if isinstance(answer, Granted) else []
        one.close()
        return found

    with ThreadPoolExecutor(8) as pool:
        granted = [used for found in pool.map(claims, range(8)) for used in found]
    assert sorted(granted) == list(range(1, 41))


def _claim_in_a_process(path: Path, begin: object, found: object) -> None:
    one = QuotaLedger(path, limit=200, clock=Clock())
    begin.wait()  # type: ignore[attr-defined]
    for _ in range(100):
        answer = one.claim(0.000_5)
        if isinstance(answer, Granted):
            found.put(answer.used)  # type: ignore[attr-defined]
    found.put(None)  # type: ignore[attr-defined]


def test_processes_share_a_ledger_file_exactly(tmp_path: Path) -> None:
    """The same for processes: no number is given out twice, and the file has the last one."""
    context = multiprocessing.get_context("spawn")
    begin, found = context.Barrier(3), context.Queue()
    arguments = (tmp_path / "k", begin, found)
    processes = [context.Process(target=_claim_in_a_process, args=arguments) for _ in range(3)]
    for process in processes:
        process.start()
    granted, ended = [], 0
    while ended < 3:
        used = found.get(timeout=60)
        ended += used is None
        granted += [] if used is None else [used]
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    found.close()
    found.join_thread()
    assert sorted(granted) == list(range(1, len(granted) + 1))
    one = QuotaLedger(tmp_path / "k", limit=200)
    assert one.used_today() == len(granted)
    one.close()


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 0.4)), min_size=1, max_size=60))
def test_two_ledgers_never_start_within_the_gap(steps: list[tuple[bool, float]]) -> None:
    """Two runs on one file, in any interleaving: no two grants nearer than the gap."""
    clock, last = FakeClock(), float("-inf")
    with tempfile.TemporaryDirectory() as folder:
        runs = [ledger(Path(folder) / "k", clock, limit=15) for _ in range(2)]
        granted = 0
        for which, seconds in steps:
            clock.advance(seconds)
            answer = runs[which].claim(0.3)
            if isinstance(answer, Granted):
                granted += 1
                assert clock.mono - last >= 0.3 - 1e-9
                assert answer.used == granted <= 15
                last = clock.mono
        for run in runs:
            run.close()


# -- the name of the file ----------------------------------------------------------------------


def test_no_file_tells_the_key(tmp_path: Path, clock: FakeClock) -> None:
    """Neither a name nor a content under the state folder holds it, in any spelling."""
    path = ledger_path(tmp_path, origin="https://h", identity="canary-key")
    one = ledger(path, clock)
    one.claim(0.3)
    one.close()
    for file in tmp_path.rglob("*"):
        assert "canary" not in str(file)
        assert b"canary" not in file.read_bytes()


def test_a_key_keeps_its_file(tmp_path: Path) -> None:
    """The same key at the same origin finds the same count; any other finds another."""
    name = ledger_path(tmp_path, origin="https://h", identity="k")
    assert ledger_path(tmp_path, origin="https://h", identity="k") == name
    others = {
        ledger_path(tmp_path, origin="https://h", identity="l"),
        ledger_path(tmp_path, origin="https://i", identity="k"),
        ledger_path(tmp_path / "other", origin="https://h", identity="k").relative_to(
            tmp_path / "other"
        ),
    }
    assert name not in others
    assert name.name not in {str(other) for other in others}
    assert len(others) == 3


def test_the_salt_is_private_and_made_once(tmp_path: Path) -> None:
    """No other user can read it, and nothing of its making is left behind."""
    ledger_path(tmp_path / "state", origin="o", identity="k")
    first = (tmp_path / "state" / "salt").read_bytes()
    ledger_path(tmp_path / "state", origin="o", identity="l")
    assert (tmp_path / "state" / "salt").read_bytes() == first
    assert len(first) == 32 + 8
    assert [path.name for path in (tmp_path / "state").iterdir()] == ["salt"]
    assert (tmp_path / "state" / "salt").stat().st_mode & 0o777 == 0o600


def test_many_first_runs_at_once_share_a_salt(tmp_path: Path) -> None:
    """Threads, or containers with one process id each: all find the same file, none fails."""
    for folder in range(20):
        begin = threading.Barrier(4)

        def path(_: int, state: Path = tmp_path / str(folder), begin: Any = begin) -> Path:
            begin.wait()
            return ledger_path(state, origin="o", identity="k")

        with ThreadPoolExecutor(4) as pool:
            assert len(set(pool.map(path, range(4)))) == 1
        assert [file.name for file in (tmp_path / str(folder)).iterdir()] == ["salt"]


@pytest.mark.parametrize("damage", [lambda b: b[:31], lambda b: b[:39], lambda b: b"x" + b[1:]])
def test_a_damaged_salt_is_refused(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    """It would name another file, and the day would be counted from nothing."""
    ledger_path(tmp_path, origin="o", identity="k")
    salt = tmp_path / "salt"
    salt.write_bytes(damage(salt.read_bytes()))
    with pytest.raises(StorageError, match="salt is damaged: restore it"):
        ledger_path(tmp_path, origin="o", identity="k")


def test_of_two_first_runs_one_makes_the_salt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that finds the salt made in the meantime takes that one."""
    real = os.link

    def beaten(own: Path, path: Path) -> None:
        path.write_bytes(b"theirs, of thirty-two bytes: abc")
        real(own, path)

    monkeypatch.setattr(os, "link", beaten)
    first = ledger_path(tmp_path, origin="o", identity="k")
    monkeypatch.undo()
    assert ledger_path(tmp_path, origin="o", identity="k") == first
    assert (tmp_path / "salt").read_bytes() == b"theirs, of thirty-two bytes: abc"
    assert len(list(tmp_path.iterdir())) == 1
