"""So many requests in flight, and who is let in next."""

import asyncio
import heapq
import itertools


class Permits:
    """So many requests in flight, no more; who waits is let in by priority, then by arrival.

    Taken before the slot: a slot that waited for a free connection would come out as a burst.
    The lowest priority value goes first: it is the pages a campaign has, so of the campaigns under
    way the least known one is asked first, and a giant is found out early. Where its size is known
    it is the pages left, negative: the longest way to go first.
    """

    def __init__(self, count: int) -> None:
        self._free = count
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._arrivals = itertools.count()

    async def acquire(self, priority: int) -> None:
        """Wait for a permit."""
        if self._free:
            self._free -= 1
            return
        turn = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (priority, next(self._arrivals), turn))
        try:
            await turn
        except BaseException:
            if not turn.cancelled():  # it was handed to us, and we are cancelled: pass it on
                self.release()
            raise

    def release(self) -> None:
        """Give a permit back, to whoever waits most urgently."""
        while self._waiting:
            turn = heapq.heappop(self._waiting)[2]
            if not turn.done():  # or its task was cancelled
                turn.set_result(None)
                return
        self._free += 1
