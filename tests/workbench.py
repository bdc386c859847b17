"""An output directory with everything that harvests a campaign, one run at a time.

`Workbench` opens state, manifest and lock as a run does; `begin` opens them again, as the next run.
A campaign is harvested against a script of pages (`fakes.FakeFetcher`).
"""

import asyncio
import hashlib
import json
import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from fakes import TARGET, FakeClock, FakeFetcher, Seen
from msgspec.structs import replace

from harvester.api.base import Api
from harvester.api.v2 import V2
from harvester.campaign.context import RunContext, WalkOptions
from harvester.campaign.harvest import CampaignHarvester
from harvester.campaign.publish import Publisher
from harvester.disk.checkpoint import CheckpointStore
from harvester.disk.compress import CODECS
from harvester.disk.group_commit import TURNS
from harvester.disk.layout import Layout
from harvester.disk.lock import locked
from harvester.disk.ndjson_log import NdjsonLog
from harvester.disk.part import PartFile
from harvester.disk.saved_walk import SavedWalk
from harvester.input.lookup import Lookup
from harvester.model import Page, Position, Target


class Workbench:
    """The directory. `durable` and `codec` are those of its runs."""

    def __init__(
        self,
        root: Path,
        clock: FakeClock,
        seen: Seen | None = None,
        *,
        codec: str | None = None,
        durable: bool = True,
    ) -> None:
        self.clock, self.seen, self.codec = clock, seen or Seen(), CODECS[codec]
        self.durable = durable
        self.layout = Layout(root, self.codec.suffix)
        self.layout.state.mkdir(parents=True)
        (root / "opens").mkdir()
        self._open = ExitStack()
        self.begin()

    def begin(self, *, tops_up: bool = False) -> None:
        """A new run: everything is closed and opened again."""
        self.close()
        now: Any = self.clock.now()
        self.lock = self._open.enter_context(locked(self.layout, now=now))
        self.store = CheckpointStore(
            self.layout.database, durable=self.durable, check=self.lock.check
        )
        self._open.enter_context(closing(self.store))
        self.store.begin_run({"report": "opens"}, tops_up=tops_up)
        self.manifest = NdjsonLog(self.layout.manifest, keep=self.store.manifest_bytes())
        self._open.enter_context(closing(self.manifest))
        self.publisher = Publisher(self.context())

    def close(self) -> None:
        """End the run."""
        self._open.close()
        self._open = ExitStack()

    def context(self, fetcher: Any = None, **options: Any) -> RunContext:
        """What the campaigns of this run share."""
        clock: Any = self.clock
        return RunContext(
            run_id="run",
            fetcher=fetcher,
            api=V2(),
            options=WalkOptions(**{"page_size": 500, "max_pages": 100} | options),
            layout=self.layout,
            lock=self.lock,
            store=self.store,
            manifest=self.manifest,
            codec=self.codec,
            clock=clock,
            emit=self.seen,
        )

    # -- walks ---------------------------------------------------------------------------------

    def take(self, target: Target = TARGET) -> SavedWalk:
        """The walk of a target that this run has not taken yet."""
        saved = self.store.take(target)
        assert saved is not None
        return saved

    def part(self, target: Target = TARGET) -> PartFile:
        """Its part file, open until the run ends."""
        part = PartFile(self.layout.part(target))
        self._open.callback(part.close)
        return part

    async def commit(
        self, saved: SavedWalk, part: PartFile, *, at: Position, cursor: int | None = 1
    ) -> SavedWalk:
        """Save a position after a page of ten rows."""
        page = Page(b"", 10, at.next, cursor=cursor)
        saved = replace(saved, state="partial", kind=None, position=at, digest=part.digest())
        if at.next is not None:
            saved = replace(saved, recent=saved.recent_with(page))
        await self.store.commit(saved, part)
        return saved

    async def ended(
        self, data: bytes, target: Target = TARGET, **fields: Any
    ) -> tuple[SavedWalk, PartFile]:
        """A walk whose last page stands in its part file, not published yet."""
        saved, part = self.take(target), self.part(target)
        part.restart()
        at = Position(None, 2, data.count(b"\n"), part.append(data))
        digest = hashlib.sha256(data).digest()
        await turn()
        return replace(saved, position=at, digest=digest, completed_at="end", **fields), part

    async def harvest(
        self, *script: Any, target: Target = TARGET, delay: float | None = 0, **options: Any
    ) -> FakeFetcher:
        """Harvest a campaign against a script, in the present run."""
        fetcher = FakeFetcher(script, delay=delay)
        context = self.context(fetcher, **options)
        lookup = self.lookup(fetcher, believed=context.options.counts)
        await CampaignHarvester(context, self.publisher, lookup).harvest(self.take(target))
        return fetcher

    def lookup(self, fetcher: Any, api: Api | None = None, **wanted: Any) -> Lookup:
        """What asks of campaigns in this run."""
        clock: Any = self.clock
        wanted = {"reports": (), "links": False, "summary": False, "believed": True} | wanted
        return Lookup(
            fetcher=fetcher,
            api=api or V2(),
            store=self.store,
            clock=clock,
            emit=self.seen,
            **wanted,
        )

    # -- what is there -------------------------------------------------------------------------

    @property
    def final(self) -> Path:
        """The finished file."""
        return self.layout.final(TARGET)

    @property
    def part_path(self) -> Path:
        """The unfinished file."""
        return self.layout.part(TARGET)

    def lines(self) -> list[dict[str, Any]]:
        """The manifest."""
        return [json.loads(line) for line in self.layout.manifest.read_bytes().splitlines()]

    def state(self, target: Target = TARGET) -> str:
        """The walk's state, as a next run finds it."""
        self.begin()
        return self.take(target).state

    @contextmanager
    def killed(self) -> Iterator[CheckpointStore]:
        """The state as the next run would find it, were this one killed now."""
        with TemporaryDirectory(dir=self.layout.root) as folder:
            for path in self.layout.state.glob(f"{self.store.path.name}*"):
                shutil.copy(path, folder)
            with closing(CheckpointStore(Path(folder) / self.store.path.name)) as store:
                store.begin_run({})
                yield store

    def pages_of(self, saved: SavedWalk) -> int:
        """The pages of a walk that another process would find, were this one killed now."""
        with closing(sqlite3.connect(self.store.path)) as db:
            ((pages,),) = db.execute("SELECT pages FROM walks WHERE id = ?", (saved.id,))
        return int(pages)

    def note_commits(self, notes: list[str]) -> list[str]:
        """Have every transaction that ends well noted."""
        self.store._group._db.set_trace_callback(
            lambda statement: notes.append(statement) if statement == "COMMIT" else None
        )
        return notes


@contextmanager
def disk_calls(notes: list[str]) -> Iterator[list[str]]:
    """Note each sync and each final name, with the file's name, in order."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("fsync", "fdatasync"):
            real = getattr(os, name)

            def noted(file: int, call: str = name, real: Any = real) -> None:
                path = os.readlink(f"/proc/self/fd/{file}")  # noqa: PTH115
                notes.append(f"{call} {path.rpartition('/')[2]}")
                real(file)

            patch.setattr(os, name, noted)
        rename = os.replace

        def renamed(old: Any, new: Any) -> None:
            notes.append(f"rename {Path(new).name}")
            rename(old, new)

        patch.setattr(os, "replace", renamed)
        yield notes


@contextmanager
def no_sync(call: str = "fdatasync") -> Iterator[list[int]]:
    """Have the disk refuse every sync; gives the descriptors of those that were tried."""
    tried: list[int] = []

    def broken(file: int) -> None:
        tried.append(file)
        raise OSError(5, "Input/output error")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, call, broken)
        yield tried


async def turn() -> None:
    """Let so many turns of the loop end that what was changed is committed."""
    for _ in range(TURNS):
        await asyncio.sleep(0)
