"""The order to stop: given once, seen by all."""

import anyio
import pytest
from fakes import NOON, LoopClock, virtually

from harvester.errors import StopRun
from harvester.runtime import StopSignal


def order(reason: str = "SIGTERM") -> StopRun:
    """An order with every field."""
    return StopRun(reason, f"stopped by {reason}", resume_at=NOON)


def test_nothing_is_ordered_at_first() -> None:
    """A new signal lets everything pass."""
    stop = StopSignal()
    stop.check()
    assert (stop.requested, stop.order, stop.grace) == (False, None, None)


def test_the_first_order_stands() -> None:
    """A second order changes neither the reason nor the grace."""
    stop = StopSignal()
    stop.request(order("SIGTERM"), grace=5.0)
    stop.request(order("sick_server"))
    assert stop.order is not None
    assert (stop.requested, stop.order.reason, stop.grace) == (True, "SIGTERM", 5.0)


def test_check_raises_a_fresh_copy_of_the_order() -> None:
    """Every task gets its own exception, with reason, text and time of the one order."""
    stop = StopSignal()
    stop.request(order())
    with pytest.raises(StopRun, match="stopped by SIGTERM") as caught:
        stop.check()
    assert caught.value is not stop.order
    assert (caught.value.reason, caught.value.resume_at) == ("SIGTERM", NOON)


def test_a_sleep_lasts_as_long_as_it_should() -> None:
    """Without an order, sleep is sleep."""

    async def main() -> float:
        await StopSignal().sleep(3_600)
        return LoopClock().monotonic()

    assert virtually(main) == pytest.approx(3_600)


def test_the_order_wakes_every_sleeper() -> None:
    """A sleep ends in the order as soon as it is given."""
    woken: list[float] = []

    async def sleeper(stop: StopSignal) -> None:
        with pytest.raises(StopRun):
            await stop.sleep(3_600)
        woken.append(LoopClock().monotonic())

    async def main() -> None:
        stop = StopSignal()
        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(sleeper, stop)
            await anyio.sleep(2)
            stop.request(order())
            await stop.wait()

    virtually(main)
    assert woken == [2.0] * 3


def test_no_sleep_begins_after_the_order() -> None:
    """A task that comes late stops at once."""

    async def main() -> None:
        stop = StopSignal()
        stop.request(order())
        with pytest.raises(StopRun):
            await stop.sleep(3_600)
        assert LoopClock().monotonic() == 0

    virtually(main)
