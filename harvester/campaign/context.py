"""What the campaigns of one run share, as one frozen value."""

from collections.abc import Callable
from datetime import datetime

from msgspec import Struct

from harvester.api.base import Api
from harvester.disk.checkpoint import CheckpointStore
from harvester.disk.compress import Codec
from harvester.disk.layout import Layout
from harvester.disk.lock import DirectoryLock
from harvester.disk.ndjson_log import NdjsonLog
from harvester.events import Observer
from harvester.model import Fetcher, Target
from harvester.runtime import Clock


class WalkOptions(Struct, frozen=True, kw_only=True):
    """What is asked of every campaign.

    `page_size` rows a page; where no try at a page succeeds, pages may shrink to `min_page_size`
    rows (None: they never do).
    Events from `since` on (None: all), at most `max_pages` pages. `summary` compares each file with
    the API's own counts. `expected` gives the pages that a walk is thought to have, 0 if that is
    not known; `counted` those by the API's counts, None if it has none. Where `counts` are used,
    reports that are empty by them are not asked for.
    """

    page_size: int
    min_page_size: int | None = None
    since: datetime | None = None
    max_pages: int
    summary: bool = False
    expected: Callable[[Target], int] = lambda target: 0
    counted: Callable[[Target], int | None] = lambda target: None
    counts: bool = True


class RunContext(Struct, frozen=True, kw_only=True):
    """The API and the way to it, the directory's files, and the receiver of events."""

    run_id: str
    fetcher: Fetcher
    api: Api
    options: WalkOptions
    layout: Layout
    lock: DirectoryLock
    store: CheckpointStore
    manifest: NdjsonLog
    codec: Codec
    clock: Clock
    emit: Observer
