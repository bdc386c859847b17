"""The one order to stop, seen by every task that is about to wait or to send."""

from collections.abc import Callable

import anyio

from harvester.errors import StopRun


class StopSignal:
    """Set once; from then on nothing is sent, and whoever sleeps is woken.

    Requests in flight are not touched: they are paid for, and their pages are still saved.
    `grace` is how long (s) they get before they are cancelled; None leaves them their timeout.
    """

    def __init__(self) -> None:
        self._event = anyio.Event()
        self.on_order: Callable[[StopRun], None] = lambda order: None
        self.order: StopRun | None = None
        self.grace: float | None = None

    def request(self, order: StopRun, *, grace: float | None = None) -> None:
        """Give the order; the first one stands."""
        if self.order is None:
            self.order = order
            self.grace = grace
            self._event.set()
            self.on_order(order)

    @property
    def requested(self) -> bool:
        """Whether the order has been given."""
        return self.order is not None

    def check(self) -> None:
        """Raise the order if it has been given."""
        if self.order is not None:
            raise StopRun(
                self.order.reason, str(self.order), resume_at=self.order.resume_at
            ) from None

    async def wait(self) -> None:
        """Return when the order is given."""
        await self._event.wait()

    async def sleep(self, seconds: float) -> None:
        """Sleep; raise `StopRun` as soon as the order is given."""
        self.check()
        with anyio.move_on_after(seconds):
            await self._event.wait()
        self.check()
