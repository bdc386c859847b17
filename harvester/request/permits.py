"""How many requests may be in flight, and which one is let in next."""

import asyncio
import heapq
import itertools


class Permits:
    """At most `count` requests in flight; the others are let in by priority, then by arrival.

    A request takes its permit before its start: starts that waited for a free connection would
    come out as a burst. The lowest priority goes first. It is the number of pages that a campaign
    has so far, so that a campaign with many pages is found early; where the size is known, it is
    the number of pages left, negative, so that the longest walk goes first.
    """

    def __init__(self, count: int) -> None:
        self._free = count
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._arrivals = itertools.count()
        self._scheduled = False  # whenever a permit is free and a request waits

    def __repr__(self) -> str:
        return f"<Permits {self._free} free, {len(self._waiting)} waiting>"

    async def acquire(self, priority: int) -> None:
        """Wait for a permit."""
        if self._free and not (self._waiting and self._waiting[0][0] <= priority):
            self._free -= 1
            return
        turn = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (priority, next(self._arrivals), turn))
        try:
            await turn
        except BaseException:
            if not turn.cancelled():  # it was granted, and then the task was cancelled: pass it on
                self.release()
            raise

    def release(self) -> None:
        """Give a permit back.

        A task that is resumed in this turn of the event loop may still ask for it; after that it
        goes to the waiting request of the lowest priority.
        """
        self._free += 1
        if self._waiting and not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._let_in)

    def _let_in(self) -> None:
        self._scheduled = False
        while self._free and self._waiting:
            turn = heapq.heappop(self._waiting)[2]
            if not turn.done():  # or its task was cancelled
                self._free -= 1
                turn.set_result(None)
