"""What a run will cost, asked of the API: its counts, and the details of a few campaigns.

All that is asked for is charged, and kept in the directory's state for the run.
"""

import math
import zlib
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, closing
from heapq import nsmallest
from statistics import fmean, stdev
from typing import NamedTuple

from msgspec import Struct

from harvester.client import open_credentials, open_stack
from harvester.config import KNOWN, HarvestConfig
from harvester.disk.directory import open_directory
from harvester.disk.part import is_regular
from harvester.input.counts import CountsAhead
from harvester.input.lookup import Lookup
from harvester.input.order import KnownSizes
from harvester.input.queue import WalkQueue
from harvester.preflight import layout_of, preflight
from harvester.runtime import Clock, StopSignal

_SAMPLE = 30  # details that are asked for together
_LEAST, _MOST = 60, 240  # details
_NEAR = 0.02  # of all requests: twice the error of the estimate is to be less


class Estimate(Struct, frozen=True):
    """The requests of a run; `at_least` where the counts of some reports are not known."""

    requests: int
    at_least: bool


async def ask(campaign_ids: Collection[str], config: HarvestConfig) -> Estimate:
    """Ask for what tells the requests of a run over these campaigns.

    Raises as `harvest` does, and `StopRun` where nothing more may be sent.
    """
    stop, clock, api = StopSignal(), Clock(), config.make_api()
    preflight(config)
    credentials = await open_credentials(config, stop)
    with ExitStack() as stack:
        sizes = stack.enter_context(closing(KnownSizes()))
        directory = stack.enter_context(
            open_directory(
                layout_of(config),
                config.identity(),
                reports=config.walks,
                known_reports=KNOWN,
                fresh=False,
                provenance=False,
                tops_up=False,
                durable=config.durable,
                now=clock.now(),
                removing=lambda files, size: None,
            )
        )
        queue = WalkQueue(
            ids=campaign_ids,
            api=api,
            store=directory.store,
            reports=config.walks,
            retry_failed=config.retry_failed,
            top_up=config.tops_up,
            is_there=lambda saved: is_regular(directory.layout.name(saved.target)),
            sizes=sizes,
            clock=clock,
            stop=stop,
            emit=lambda event: None,
        )
        async with open_stack(
            config,
            credentials,
            api,
            stop=stop,
            clock=clock,
            emit=lambda event: None,
            call_after_commit=directory.store.call_after_commit,
        ) as way:
            lookup = Lookup(
                fetcher=way.fetcher,
                api=api,
                store=directory.store,
                reports=config.reports,
                links=config.links,
                summary=config.summary,
                believed=config.counts,
                clock=clock,
                emit=lambda event: None,
            )
            ahead = queue.use_counts(lookup, page_size=config.page_size)
            await ahead.count_all(campaign_ids)
            found = await estimate(ahead, campaign_ids)
            stop.check()
            directory.sync()
            return found


class _Work(NamedTuple):
    """What a campaign takes by what is known of it: the `requests`, the `detail` among them, if it
    is to be asked for; whether all is `certain`."""

    requests: int
    detail: bool
    certain: bool


async def estimate(ahead: CountsAhead, campaign_ids: Collection[str]) -> Estimate:
    """Add up the campaigns, and what a sample of them takes beyond its counts."""
    requests, certain, undetailed = 0, True, 0

    def without_detail() -> Iterator[str]:
        """Those whose detail is to be asked for; all are added up meanwhile."""
        nonlocal requests, certain, undetailed
        for campaign_id in campaign_ids:
            work = _work_of(campaign_id, ahead)
            requests, certain = requests + work.requests, certain and work.certain
            undetailed += work.detail
            if work.detail:
                yield campaign_id

    # By their digests: a sample by chance, and the same one each time.
    chosen = nsmallest(_MOST, without_detail(), key=_digest)
    beyond: list[float] = []
    for first in range(0, len(chosen), _SAMPLE):
        group = chosen[first : first + _SAMPLE]
        before = [_work_of(each, ahead).requests for each in group]
        shared = await ahead.details(group) / len(group)
        for each, had in zip(group, before, strict=True):
            more = _work_of(each, ahead).requests - had
            requests += more
            beyond.append(more + 1 + shared)  # the detail is not to be asked for again
        left = undetailed - len(beyond)
        if len(beyond) >= _LEAST and _error(beyond, left) < _NEAR * requests:
            break
    if beyond:
        requests += round((undetailed - len(beyond)) * fmean(beyond))
    return Estimate(requests, not certain and requests > 0)


def _work_of(campaign_id: str, ahead: CountsAhead) -> _Work:
    campaign, walks = ahead.lookup.kept(campaign_id), [*ahead.to_make(campaign_id)]
    detail, certain = ahead.asks_detail(campaign, walks), True
    requests = int(detail)
    for walk in walks:
        pages = ahead.requests_of(campaign, walk)
        if ahead.lookup.api.reports[walk.target.report].paged:
            if pages == 0 and not ahead.lookup.believed:  # it is asked all the same
                pages = max(1, len(campaign.activities))
            certain = certain and pages is not None and campaign.counts is not None
        requests += 1 if pages is None else max(0, pages - walk.position.pages)
    return _Work(requests, detail, certain)


def _digest(campaign_id: str) -> int:
    return zlib.crc32(campaign_id.encode())


def _error(sample: Sequence[float], left: int) -> float:
    """Twice the standard error of the sum over `left` more, from a sample."""
    share = left / (left + len(sample))
    return 2 * left * stdev(sample) * math.sqrt(share / len(sample))
