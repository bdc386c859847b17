"""Work that a cancel must not cut short: a token exchange between its question and its save."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import anyio

T = TypeVar("T")
_CANCEL_WAIT = 30.0  # s: two tries at the token endpoint


async def outlive_cancel(work: Coroutine[Any, Any, T]) -> T:
    """Do `work` to its end, also when the waiting task is cancelled: the cancel then waits for
    it, at most `_CANCEL_WAIT` seconds."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        with anyio.move_on_after(_CANCEL_WAIT, shield=True):
            await asyncio.wait([task])
        task.cancel()
        if task.done() and not task.cancelled():
            task.exception()  # the cancel goes on its way, whatever the work came to
        raise
