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
        self._scheduled = False  # whenever there are free permits and somebody waits

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
            if not turn.cancelled():  # it was handed to us, and we are cancelled: pass it on
                self.release()
            raise

    def release(self) -> None:
        """Give a permit back.

        Whoever is resumed in this turn of the event loop may still ask for it; after that it goes
        to the most urgent of those who wait.
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
