"""Work that a cancel must not cut short: from a question to the sign-in to the saved answer."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import anyio

T = TypeVar("T")
_ENDED_WITHIN = 1.0  # s: what the work itself does where it is cut short


async def outlive_cancel(work: Coroutine[Any, Any, T], *, wait: float) -> T:
    """Do `work` to its end, also when the waiting task is cancelled: the cancel then waits for
    it, at most `wait` seconds."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        with anyio.CancelScope(shield=True):
            await asyncio.wait([task], timeout=wait)
            task.cancel()
            await asyncio.wait([task], timeout=_ENDED_WITHIN)
        if task.done() and not task.cancelled():
            task.exception()  # the cancel goes on its way, whatever the work came to
        raise
