"""So many requests in flight, and who is let in next."""

import heapq
import itertools

import anyio


class Permits:
    """So many requests in flight, no more; who waits is let in by priority, then by arrival.

    Taken before the slot: a slot that waited for a free connection would come out as a burst.
    The lowest priority value goes first: it is the pages a campaign has, so of the campaigns under
    way the least known one is asked first, and a giant is found out early. Where its size is known
    it is the pages left, negative: the longest way to go first.
    """

    def __init__(self, count: int) -> None:
        self._free = count
        self._waiting: list[tuple[int, int, anyio.Event]] = []
        self._arrivals = itertools.count()

    async def acquire(self, priority: int) -> None:
        """Wait for a permit."""
        if self._free:
            self._free -= 1
            return
        turn = anyio.Event()
        entry = (priority, next(self._arrivals), turn)
        heapq.heappush(self._waiting, entry)
        try:
            await turn.wait()
        except BaseException:
            if turn.is_set():  # it was handed to us, and we are cancelled: pass it on
                self.release()
            else:
                self._waiting.remove(entry)
                heapq.heapify(self._waiting)
            raise

    def release(self) -> None:
        """Give a permit back, to whoever waits most urgently."""
        if self._waiting:
            heapq.heappop(self._waiting)[2].set()
        else:
            self._free += 1
