"""Planted bugs: pace, quota, the end of a run, and secrets."""

import asyncio
import dataclasses
import os
from contextlib import suppress
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

from msgspec.structs import replace

from harvester import runtime
from harvester.api import errors as api_errors
from harvester.disk.ndjson_log import NdjsonLog
from harvester.errors import StopRun
from harvester.reporting.summary import EXIT_CODES
from harvester.request import quota, quota_record, token_keeper
from harvester.request.http import HttpSender
from harvester.request.pace import Pacer
from harvester.request.quota import QuotaLedger
from harvester.request.quota_record import Granted
from harvester.request.token_keeper import TokenKeeper
from harvester.runtime import StopSignal

from .bugs import Patch, bug
from .machine import rebind
from .process import RUNNING

# -- pace and quota ------------------------------------------------------------------------------


@bug
def charge_after_send(patch: Patch, plan: Any) -> None:
    """A request is charged when the next one is about to be sent."""
    real = QuotaLedger._write
    held: dict[int, Any] = {}

    def write(ledger: Any, account: Any) -> Any:
        key = id(RUNNING.get())
        before = held.get(key, account)
        held[key] = account
        written = real(ledger, replace(account, days=before.days))
        return replace(written, days=account.days)

    patch.setattr(QuotaLedger, "_write", write)


@bug
def charge_without_sync(patch: Patch, plan: Any) -> None:
    """A request is sent before its charge is safe from a power cut."""
    patch.setattr(quota, "os", SimpleNamespace(**{**vars(os), "fdatasync": lambda file: None}))


@bug
def one_too_many(patch: Patch, plan: Any) -> None:
    """A day has one request more than its quota."""
    real = quota.claim
    patch.setattr(
        quota, "claim", lambda account, limit, **more: real(account, limit=limit + 1, **more)
    )


@bug
def day_in_local_time(patch: Patch, plan: Any) -> None:
    """The quota's day begins at midnight where the machine is."""
    rebind(patch, quota_record.day_of, lambda now: now.astimezone().date().isoformat())


@bug
def reset_too_early(patch: Patch, plan: Any) -> None:
    """The day is said to begin an hour before it does."""
    real = runtime.next_reset
    rebind(patch, real, lambda now: real(now) - timedelta(hours=1))


@bug
def pace_too_fast(patch: Patch, plan: Any) -> None:
    """The spacing is a tenth shorter than asked for."""
    real = Pacer.__init__
    patch.setattr(
        Pacer, "__init__", lambda pacer, *args, rate, **more: real(
            pacer, *args, rate=rate / 0.9, **more
        )
    )  # fmt: skip


@bug
def pace_forgotten(patch: Patch, plan: Any) -> None:
    """A run does not know when the one before has sent its last request."""
    real = quota.claim

    def claim(account: Any, **more: Any) -> Any:
        return real(replace(account, not_before=0.0), **more)

    patch.setattr(quota, "claim", claim)


@bug
def boot_forgotten(patch: Patch, plan: Any) -> None:
    """A moment of the monotonic clock is believed after a reboot."""
    real = quota.claim

    def claim(account: Any, **more: Any) -> Any:
        return real(replace(account, set_at=0.0), **more)

    patch.setattr(quota, "claim", claim)


@bug
def hold_for_one(patch: Patch, plan: Any) -> None:
    """After a throttle only the request that met it waits."""
    patch.setattr(Pacer, "hold", lambda pacer, seconds, reason: None)


@bug
def retry_after_ignored(patch: Patch, plan: Any) -> None:
    """What the API asks for is not read."""
    patch.setattr(api_errors, "seconds_to_wait", lambda *args, **named: None)


@bug
def spent_day_not_kept(patch: Patch, plan: Any) -> None:
    """A run does not know that the API called the day spent: it sends some requests at once."""
    patch.setattr(quota_record, "Granted", lambda used, doubtful: Granted(used))


@bug
def spent_day_ignored(patch: Patch, plan: Any) -> None:
    """The API says that the day is spent, and is asked on."""
    patch.setattr(Pacer, "day_spent", lambda pacer: None)


# -- the end of a run ----------------------------------------------------------------------------


@bug
def stop_not_obeyed(patch: Patch, plan: Any) -> None:
    """After a signal each request that waits is still sent."""
    patch.setattr(StopSignal, "check", lambda stop: None)


@bug
def no_resume_at(patch: Patch, plan: Any) -> None:
    """A run that stops does not say when it can go on."""
    real = StopRun.__init__
    patch.setattr(
        StopRun, "__init__", lambda stop, reason, message, resume_at=None: real(
            stop, reason, message
        )
    )  # fmt: skip


@bug
def stop_exits_0(patch: Patch, plan: Any) -> None:
    """A run that is not done says that it is."""
    patch.setitem(EXIT_CODES, "quota_spent", 0)


# -- secrets -------------------------------------------------------------------------------------


@bug
def token_used_before_saved(patch: Patch, plan: Any) -> None:
    """New tokens are saved some seconds after their first use."""

    async def save(keeper: Any, account: Any, room: Any) -> None:
        def save_now() -> None:
            with suppress(OSError, StopRun), keeper.store.room() as later:
                later.save(account)

        asyncio.get_running_loop().call_later(2.0, save_now)

    patch.setattr(TokenKeeper, "_save", save)


@bug
def old_refresh_token_kept(patch: Patch, plan: Any) -> None:
    """The new refresh token is thrown away."""
    real = token_keeper.renewed

    def renewed(account: Any, tokens: Any) -> Any:
        return dataclasses.replace(real(account, tokens), refresh_token=account.refresh_token)

    patch.setattr(token_keeper, "renewed", renewed)


@bug
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
