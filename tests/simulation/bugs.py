"""Bugs, each planted by a patch, each of a kind that a harvester could have.

A bug that no seed finds is a hole in the simulation.
"""

import asyncio
import dataclasses
import os
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from itertools import count
from typing import Any

import pytest
from msgspec.structs import replace

from harvester import runtime
from harvester.api import errors as api_errors
from harvester.api.v2 import V2
from harvester.api.v3 import V3
from harvester.campaign.growth import HighWaterMark
from harvester.campaign.publish import Publisher
from harvester.campaign.walk import Walker
from harvester.disk import ndjson_log
from harvester.disk.group_commit import GroupCommit
from harvester.disk.ndjson_log import NdjsonLog
from harvester.disk.part import PartFile
from harvester.disk.storage import sync_directory, write_all
from harvester.errors import StopRun
from harvester.reporting.summary import EXIT_CODES
from harvester.request import pagination, quota, token_keeper
from harvester.request.http import HttpSender
from harvester.request.pace import Pacer
from harvester.request.quota import QuotaLedger
from harvester.request.token_keeper import TokenKeeper
from harvester.runtime import StopSignal

from .machine import rebind

Patch = pytest.MonkeyPatch
Bug = Callable[[Patch, Any], None]
"""Plants itself. The second argument is the plan of the life."""


def _later(seconds: float, work: Callable[[], object]) -> None:
    def quietly() -> None:
        with suppress(OSError, StopRun):
            work()

    asyncio.get_running_loop().call_later(seconds, quietly)


# -- the order on the disk -----------------------------------------------------------------------


def position_before_rows(patch: Patch, plan: Any) -> None:
    """The rows of a page are written some time after its position is saved."""

    def append(part: Any, data: bytes) -> int:
        at = part.offset
        part._hash.update(data)
        part.offset += len(data)
        part.held = [*getattr(part, "held", []), (at, data)]
        _later(0.01, lambda: flush(part))
        return int(part.offset)

    def flush(part: Any) -> None:
        held, part.held = getattr(part, "held", []), []
        for at, data in held:
            write_all(part._file, data, at=at)

    def flushed(name: str) -> Callable[[Any], Any]:
        real = getattr(PartFile, name)

        def call(part: Any) -> Any:
            with suppress(OSError):
                flush(part)
            return real(part)

        return call

    patch.setattr(PartFile, "append", append)
    for name in ("stands", "close"):
        patch.setattr(PartFile, name, flushed(name))


def resume_without_truncate(patch: Patch, plan: Any) -> None:
    """What stands behind the checkpoint stays, and new rows go behind it."""
    real = PartFile.resume

    def resume(part: Any, offset: int, digest: bytes) -> None:
        tail = os.pread(part._file, 1 << 20, offset)
        real(part, offset, digest)
        os.write(part._file, tail)

    patch.setattr(PartFile, "resume", resume)


def restart_without_truncate(patch: Patch, plan: Any) -> None:
    """A walk that starts over leaves its rows where they are."""
    real = PartFile.restart

    def restart(part: Any) -> None:
        rows = os.pread(part._file, 1 << 20, 0)
        real(part)
        os.write(part._file, rows)

    patch.setattr(PartFile, "restart", restart)


def part_without_sync(patch: Patch, plan: Any) -> None:
    """A checkpoint is committed before the rows that it refers to are synced."""
    patch.setattr(GroupCommit, "sync_before_commit", lambda group, part: None)


def commit_without_sync(patch: Patch, plan: Any) -> None:
    """A commit is not on the disk when it returns."""
    real = GroupCommit._set_durable
    patch.setattr(GroupCommit, "_set_durable", lambda group, durable: real(group, False))


def rename_without_sync(patch: Patch, plan: Any) -> None:
    """A walk is called complete before its final name is durable."""

    def sync_names(publisher: Any, walks: Any) -> None:
        publisher._manifest.sync()

    patch.setattr(Publisher, "_sync_names", sync_names)


def manifest_without_sync(patch: Patch, plan: Any) -> None:
    """A walk is called complete before its line in the manifest is durable."""

    def sync_names(publisher: Any, walks: Any) -> None:
        for folder in {publisher._layout.final(saved.target).parent for saved in walks}:
            sync_directory(folder)

    patch.setattr(Publisher, "_sync_names", sync_names)


def manifest_not_cut_back(patch: Patch, plan: Any) -> None:
    """Lines that no state acknowledged stay, and are written once more."""
    real = NdjsonLog.__init__
    patch.setattr(NdjsonLog, "__init__", lambda log, path, keep=None: real(log, path))


def torn_lines_stay(patch: Patch, plan: Any) -> None:
    """A report goes on behind a line that was cut by a power cut."""
    patch.setattr(ndjson_log, "_whole_lines", lambda file, size: size)


# -- pages ---------------------------------------------------------------------------------------


def last_page_lost(patch: Patch, plan: Any) -> None:
    """The rows of a last page are not written."""
    real = Walker._encode

    def encode(walker: Any, page: Any, part: Any) -> bytes:
        return b"" if page.next is None and part.offset else real(walker, page, part)

    patch.setattr(Walker, "_encode", encode)


def short_page_ends(patch: Patch, plan: Any) -> None:
    """A page with fewer rows than asked for is taken for the last one."""
    for version in (V2, V3):
        real = version.read_page

        def read(api: Any, *args: Any, real: Any = real, **named: Any) -> Any:
            page = real(api, *args, **named)
            short = 0 < page.rows < plan.config["page_size"]
            return replace(page, next=None) if short else page

        patch.setattr(version, "read_page", read)


def error_is_a_page(patch: Patch, plan: Any) -> None:
    """A 200 that carries an error is taken for an empty last page."""
    real = HttpSender.send

    async def send(sender: Any, request: Any) -> bytes:
        body = await real(sender, request)
        return body.replace(
            b',"error_key":"internal_error","error_message":"Simulated by the sandbox"', b""
        )

    patch.setattr(HttpSender, "send", send)


def loop_followed(patch: Patch, plan: Any) -> None:
    """A next link that leads back is followed."""
    numbers = count()
    patch.setattr(pagination, "cursor_digest", lambda link: next(numbers))


def boundary_taken_twice(patch: Patch, plan: Any) -> None:
    """A top-up takes the rows at the latest stored moment once more."""
    patch.setattr(HighWaterMark, "left", lambda mark: Counter())


# -- pace and quota ------------------------------------------------------------------------------


def charge_after_send(patch: Patch, plan: Any) -> None:
    """A request is charged when it is on its way."""

    def write(ledger: Any, account: Any) -> None:
        raw = quota._encoded(account)
        ledger._last = raw, account
        _later(0.0, lambda: write_all(ledger._file, raw, at=0))

    patch.setattr(QuotaLedger, "_write", write)


def one_too_many(patch: Patch, plan: Any) -> None:
    """A day has one request more than its quota."""
    real = quota.claim
    patch.setattr(
        quota, "claim", lambda account, limit, **more: real(account, limit=limit + 1, **more)
    )


def day_in_local_time(patch: Patch, plan: Any) -> None:
    """The quota's day begins at midnight where the machine is."""
    patch.setattr(quota, "_day", lambda now: now.astimezone().date().isoformat())


def reset_too_early(patch: Patch, plan: Any) -> None:
    """The day is said to begin an hour before it does."""
    real = runtime.next_reset
    rebind(patch, real, lambda now: real(now) - timedelta(hours=1))


def pace_too_fast(patch: Patch, plan: Any) -> None:
    """The spacing is a tenth shorter than asked for."""
    real = Pacer.__init__
    patch.setattr(
        Pacer, "__init__", lambda pacer, *args, rate, **more: real(
            pacer, *args, rate=rate / 0.9, **more
        )
    )  # fmt: skip


def pace_forgotten(patch: Patch, plan: Any) -> None:
    """A run does not know when the one before has sent its last request."""
    real = quota.claim

    def claim(account: Any, **more: Any) -> Any:
        return real(replace(account, not_before=0.0), **more)

    patch.setattr(quota, "claim", claim)


def boot_forgotten(patch: Patch, plan: Any) -> None:
    """A moment of the monotonic clock is believed after a reboot."""
    real = quota.claim

    def claim(account: Any, **more: Any) -> Any:
        return real(replace(account, set_at=0.0), **more)

    patch.setattr(quota, "claim", claim)


def hold_for_one(patch: Patch, plan: Any) -> None:
    """After a throttle only the request that met it waits."""
    patch.setattr(Pacer, "hold", lambda pacer, seconds, reason: None)


def retry_after_ignored(patch: Patch, plan: Any) -> None:
    """What the API asks for is not read."""
    patch.setattr(api_errors, "seconds_to_wait", lambda *args, **named: None)


def spent_day_ignored(patch: Patch, plan: Any) -> None:
    """The API says that the day is spent, and is asked on."""
    patch.setattr(Pacer, "day_spent", lambda pacer: None)


# -- the end of a run ----------------------------------------------------------------------------


def stop_not_obeyed(patch: Patch, plan: Any) -> None:
    """After a signal each request that waits is still sent."""
    patch.setattr(StopSignal, "check", lambda stop: None)


def no_resume_at(patch: Patch, plan: Any) -> None:
    """A run that stops does not say when it can go on."""
    real = StopRun.__init__
    patch.setattr(
        StopRun, "__init__", lambda stop, reason, message, resume_at=None: real(
            stop, reason, message
        )
    )  # fmt: skip


def stop_exits_0(patch: Patch, plan: Any) -> None:
    """A run that is not done says that it is."""
    patch.setitem(EXIT_CODES, "quota_spent", 0)


# -- secrets -------------------------------------------------------------------------------------


def token_used_before_saved(patch: Patch, plan: Any) -> None:
    """New tokens are saved some seconds after their first use."""

    async def save(keeper: Any, account: Any, room: Any) -> None:
        def save_now() -> None:
            with keeper._store.room() as later:
                later.save(account)

        _later(2.0, save_now)

    patch.setattr(TokenKeeper, "_save", save)


def old_refresh_token_kept(patch: Patch, plan: Any) -> None:
    """The new refresh token is thrown away."""
    real = token_keeper.renewed

    def renewed(account: Any, tokens: Any) -> Any:
        return dataclasses.replace(real(account, tokens), refresh_token=account.refresh_token)

    patch.setattr(token_keeper, "renewed", renewed)


def secret_in_a_report(patch: Patch, plan: Any) -> None:
    """An error that is reported quotes the header of its request."""
    bearer: list[str] = []
    send, append = HttpSender.send, NdjsonLog.append

    async def sent(sender: Any, request: Any) -> bytes:
        bearer[:] = [sender._credentials.token]
        return await send(sender, request)

    def appended(log: Any, line: dict[str, Any]) -> None:
        append(log, line | {"header": bearer} if log.path.name == "retries.ndjson" else line)

    patch.setattr(HttpSender, "send", sent)
    patch.setattr(NdjsonLog, "append", appended)


BUGS: dict[str, Bug] = {
    bug.__name__: bug
    for bug in (
        *(position_before_rows, resume_without_truncate, restart_without_truncate),
        *(part_without_sync, commit_without_sync, rename_without_sync, manifest_without_sync),
        *(manifest_not_cut_back, torn_lines_stay),
        *(last_page_lost, short_page_ends, error_is_a_page, loop_followed, boundary_taken_twice),
        *(charge_after_send, one_too_many, day_in_local_time, reset_too_early, pace_too_fast),
        *(pace_forgotten, boot_forgotten, hold_for_one, retry_after_ignored, spent_day_ignored),
        *(stop_not_obeyed, no_resume_at, stop_exits_0),
        *(token_used_before_saved, old_refresh_token_kept, secret_in_a_report),
    )
}
