"""Planted bugs: what is written, in which order, and which pages are taken."""

import asyncio
import os
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from typing import Any

from msgspec.structs import replace

from harvester import run
from harvester.api.v2 import V2
from harvester.api.v3 import V3
from harvester.campaign.edges import Edges
from harvester.campaign.growth import HighWaterMark
from harvester.campaign.publish import Publisher
from harvester.campaign.repeats import Repeats
from harvester.campaign.walk import Walker
from harvester.disk import ndjson_log
from harvester.disk.group_commit import GroupCommit
from harvester.disk.ndjson_log import NdjsonLog
from harvester.disk.part import PartFile
from harvester.disk.storage import sync_directory, write_all
from harvester.request import pagination
from harvester.request.http import HttpSender

from .bugs import Patch, bug

# -- the order on the disk -----------------------------------------------------------------------


@bug
def position_before_rows(patch: Patch, plan: Any) -> None:
    """The rows of a page are written some time after its position is saved."""

    def append(part: Any, data: bytes) -> int:
        at = part.offset
        part._hash.update(data)
        part.offset += len(data)
        part.held = [*getattr(part, "held", []), (at, data)]
        asyncio.get_running_loop().call_later(0.01, quietly, part)
        return int(part.offset)

    def flush(part: Any) -> None:
        held, part.held = getattr(part, "held", []), []
        for at, data in held:
            write_all(part._file, data, at=at)

    def quietly(part: Any) -> None:
        with suppress(OSError):
            flush(part)

    def flushed(name: str) -> Callable[[Any], Any]:
        real = getattr(PartFile, name)

        def call(part: Any) -> Any:
            quietly(part)
            return real(part)

        return call

    patch.setattr(PartFile, "append", append)
    for name in ("stands", "close"):
        patch.setattr(PartFile, name, flushed(name))


@bug
def resume_without_truncate(patch: Patch, plan: Any) -> None:
    """What stands behind the checkpoint stays, and new rows go behind it."""
    real = PartFile.resume

    def resume(part: Any, offset: int, digest: bytes) -> None:
        tail = os.pread(part._file, 1 << 20, offset)
        real(part, offset, digest)
        part.append(tail)

    patch.setattr(PartFile, "resume", resume)


@bug
def restart_without_truncate(patch: Patch, plan: Any) -> None:
    """A walk that starts over leaves its rows where they are."""
    real = PartFile.restart

    def restart(part: Any) -> None:
        rows = os.pread(part._file, 1 << 20, 0)
        real(part)
        part.append(rows)

    patch.setattr(PartFile, "restart", restart)


@bug
def part_without_sync(patch: Patch, plan: Any) -> None:
    """A checkpoint is committed before the rows that it refers to are synced."""
    patch.setattr(GroupCommit, "sync_before_commit", lambda group, part: None)


@bug
def commit_without_sync(patch: Patch, plan: Any) -> None:
    """A commit is not on the disk when it returns."""
    real = GroupCommit._set_durable
    patch.setattr(GroupCommit, "_set_durable", lambda group, durable: real(group, False))


@bug
def rename_without_sync(patch: Patch, plan: Any) -> None:
    """A walk is called complete before its final name is durable."""

    def sync_names(publisher: Any, walks: Any) -> None:
        publisher._manifest.sync()

    patch.setattr(Publisher, "_sync_names", sync_names)


@bug
def manifest_without_sync(patch: Patch, plan: Any) -> None:
    """A walk is called complete before its line in the manifest is durable."""

    def sync_names(publisher: Any, walks: Any) -> None:
        for folder in {publisher._layout.final(saved.target).parent for saved in walks}:
            sync_directory(folder)

    patch.setattr(Publisher, "_sync_names", sync_names)


@bug
def grown_file_listed_twice(patch: Patch, plan: Any) -> None:
    """Of the lines of a file that has grown the manifest keeps them all."""
    patch.setattr(NdjsonLog, "keep_last", lambda log, name: None)


@bug
def damaged_file_stays(patch: Patch, plan: Any) -> None:
    """A finished file is taken for whole without a look at it."""
    patch.setattr(run, "is_whole", lambda final, size, digest: True)


@bug
def torn_lines_stay(patch: Patch, plan: Any) -> None:
    """A report goes on behind a line that was cut by a power cut."""
    patch.setattr(ndjson_log, "_whole_lines", lambda file, size: size)


# -- pages ---------------------------------------------------------------------------------------


@bug
def last_page_lost(patch: Patch, plan: Any) -> None:
    """The rows of a last page are not written."""
    real = Walker._encode

    def encode(walker: Any, page: Any, part: Any) -> bytes:
        return b"" if page.next is None and part.offset else real(walker, page, part)

    patch.setattr(Walker, "_encode", encode)


@bug
def short_page_ends(patch: Patch, plan: Any) -> None:
    """A page with fewer rows than asked for is taken for the last one."""
    for version in (V2, V3):
        real = version.read_page

        def read(api: Any, *args: Any, real: Any = real, **named: Any) -> Any:
            page = real(api, *args, **named)
            short = 0 < page.rows < plan.config["page_size"]
            return replace(page, next=None) if short else page

        patch.setattr(version, "read_page", read)


@bug
def error_is_a_page(patch: Patch, plan: Any) -> None:
    """A 200 that carries an error is taken for an empty last page."""
    real = HttpSender.send

    async def send(sender: Any, request: Any) -> bytes:
        body = await real(sender, request)
        return body.replace(
            b',"error_key":"internal_error","error_message":"Simulated by the sandbox"', b""
        )

    patch.setattr(HttpSender, "send", send)


@bug
def loop_followed(patch: Patch, plan: Any) -> None:
    """A next link that leads back is followed, and its page taken for a new one."""
    numbers = count()
    patch.setattr(pagination, "cursor_digest", lambda link: next(numbers))
    repeats_taken(patch, plan)


@bug
def repeats_taken(patch: Patch, plan: Any) -> None:
    """A page that came again under a new cursor is taken for a new one."""

    async def refuse(*_: Any) -> None:
        pass

    patch.setattr(Repeats, "refuse", refuse)


@bug
def edges_not_looked_at(patch: Patch, plan: Any) -> None:
    """Rows that came again, because the report has grown, are taken."""

    async def fit(*args: Any) -> Any:
        return args[-1]

    patch.setattr(Edges, "fit", fit)


@bug
def boundary_taken_twice(patch: Patch, plan: Any) -> None:
    """A top-up takes the rows at the latest stored moment once more."""
    patch.setattr(HighWaterMark, "left", lambda mark: Counter())
