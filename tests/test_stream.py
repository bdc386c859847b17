"""Ids from a source that can be read once: in blocks, ahead, and without keeping walks waiting."""

from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from accountlab import ACCOUNT, Account
from fakes import virtually

from harvester.input.stream import BlockStream
from harvester.sandbox import Sandbox, SandboxSettings

MOST = 10


class Source:
    """Gives numbers; `read` is how many were taken from it, `blocks` what was asked about."""

    def __init__(self, count: int, *, pause: float = 0) -> None:
        self.count, self.pause = count, pause
        self.read = 0
        self.blocks: list[int] = []

    async def ask(self, block: list[int]) -> AsyncGenerator[list[int], None]:
        """Note a block, and give it in two parts."""
        self.blocks.append(len(block))
        await anyio.sleep(0.01)
        yield block[:3]
        yield block[3:]

    async def slowly(self) -> AsyncIterator[int]:
        """One each `pause` seconds."""
        for number in self:
            if self.pause:
                await anyio.sleep(self.pause)
            yield number

    def __iter__(self) -> Iterator[int]:
        for number in range(self.count):
            self.read += 1
            yield number


async def taken(stream: BlockStream[int], source: Source, *, pause: float = 0) -> list[int]:
    """All items, one each `pause` seconds; never more than two blocks are read ahead."""
    found: list[int] = []
    async with anyio.create_task_group() as group:
        group.start_soon(stream.run)
        async for number in stream:
            found.append(number)
            assert source.read - len(found) <= 3 * MOST
            await anyio.sleep(pause)
    return found


@pytest.mark.parametrize("is_async", [True, False])
def test_a_source_is_read_in_whole_blocks(*, is_async: bool) -> None:
    """In order, a bounded number ahead."""
    source = Source(35)
    items = source.slowly() if is_async else iter(source)
    stream = BlockStream(items, MOST, source.ask)
    assert virtually(lambda: taken(stream, source)) == list(range(35))
    assert source.blocks == [10, 10, 10, 5]


def test_what_waits_for_a_slow_source_gets_what_there_is() -> None:
    """The first item is not kept waiting for the tenth."""
    source = Source(3, pause=60)
    stream = BlockStream(source.slowly(), MOST, source.ask)
    assert virtually(lambda: taken(stream, source)) == [0, 1, 2]
    assert source.blocks == [1, 1, 1]


def test_while_walks_have_work_a_slow_source_fills_a_block() -> None:
    """Then more items share a request."""
    source = Source(30, pause=1)
    stream = BlockStream(source.slowly(), MOST, source.ask)
    assert virtually(lambda: taken(stream, source, pause=20)) == list(range(30))
    assert len(source.blocks) <= 5


@pytest.mark.parametrize("is_async", [True, False])
def test_no_item_ends_a_source(*, is_async: bool) -> None:
    """Whatever it is: what is no id is refused by name, and not silently the last one."""

    class Odd(Source):
        def __iter__(self) -> Iterator[Any]:
            self.read = 4
            yield from [1, None, (), 2]

    source = Odd(4)
    items = source.slowly() if is_async else iter(source)
    stream = BlockStream(items, MOST, source.ask)
    assert virtually(lambda: taken(stream, source)) == [1, None, (), 2]


@pytest.mark.parametrize("is_async", [True, False])
async def test_ids_of_any_source_have_counts(tmp_path: Path, *, is_async: bool) -> None:
    """The same requests as for a list."""
    async with Sandbox(SandboxSettings(**ACCOUNT)) as sandbox:
        account = Account(sandbox, tmp_path)

        async def ids() -> AsyncIterator[str]:
            for each in account.ids:
                yield each

        source: Any = ids() if is_async else iter(account.ids)
        report = await account.run(source)
        assert report.exit_code == 0
        account.assert_whole(account.config())
        (asked,) = [hit for hit in sandbox.log if hit.report == "stats"]
        assert asked.activity_id.split(",") == account.ids


@pytest.mark.parametrize("is_async", [True, False])
async def test_what_a_source_raises_is_raised(tmp_path: Path, *, is_async: bool) -> None:
    """As the caller's own; what came before it is saved."""
    async with Sandbox(SandboxSettings(**ACCOUNT)) as sandbox:
        account = Account(sandbox, tmp_path)

        def broken() -> Iterator[str]:
            yield account.ids[0]
            raise ValueError("no more")

        async def ids() -> AsyncIterator[str]:
            for each in broken():
                yield each

        source: Any = ids() if is_async else broken()
        with pytest.raises(ValueError, match="no more"):
            await account.run(source)
        assert (await account.run()).exit_code == 0
        account.assert_whole(account.config())
