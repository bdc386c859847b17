"""A campaign's own detail: asked for once, whatever the number of its reports, and kept."""

import asyncio
from collections import OrderedDict
from functools import partial
from weakref import WeakValueDictionary

from msgspec.structs import replace

from harvester import events
from harvester.api.base import Details
from harvester.api.counts import detail_is_worth_it
from harvester.campaign.context import RunContext
from harvester.errors import CampaignError, Deferred
from harvester.input.known import KnownCampaign, known
from harvester.model import Request, Target

_KEPT_FAILURES = 1_000  # far more than there are campaigns under way


class CampaignDetails:
    """Knows campaigns by their detail; shared by all workers."""

    def __init__(self, context: RunContext) -> None:
        self._context = context
        self._store = context.store
        # A lock for each campaign that is asked for now; one that is not held is gone.
        self._asking: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._failures: OrderedDict[str, CampaignError] = OrderedDict()

    def kept(self, target: Target) -> KnownCampaign:
        """What the state has of a campaign, old or not."""
        return known(self._store.campaign(target.campaign_id))

    async def of(self, target: Target, *, top_up: bool = False) -> KnownCampaign:
        """The campaign, with a current detail where walks need it or it saves requests.

        Tasks that want the same campaign's wait for one answer. Raise what asking for a detail that
        is required raises; a failure stands for all reports of the campaign in this run.
        """
        details = self._context.api.details
        if details is None or not (details.required or self._is_worth_it(top_up=top_up)):
            return self.kept(target)
        asking = self._asking.setdefault(target.campaign_id, asyncio.Lock())
        async with asking:
            campaign = self.kept(target)
            if campaign.detail_is_current(self._store.round, self._context.clock.now()):
                return campaign
            try:
                return await self._ask(campaign, target, details)
            except CampaignError:
                if details.required:
                    raise
                return campaign  # its reports may be there all the same

    def _is_worth_it(self, *, top_up: bool) -> bool:
        options = self._context.options
        if top_up:  # whether something came is seen by asking
            return False
        reports = options.reports if options.counts else ()
        return detail_is_worth_it(reports, links=options.links, summary=options.summary)

    async def _ask(
        self, campaign: KnownCampaign, target: Target, details: Details
    ) -> KnownCampaign:
        campaign_id = target.campaign_id
        if (failure := self._failures.get(campaign_id)) is not None:
            raise _again(failure)
        read = partial(details.read, campaign_id)
        link, optional = details.link(campaign_id), not details.required
        try:
            detail = await self._context.fetcher.fetch(
                Request(target, link, read, optional=optional)
            )
        except CampaignError as error:
            self._context.emit(events.DetailAsked(target))
            if not isinstance(error, Deferred):
                self._failures[campaign_id] = error
            if len(self._failures) > _KEPT_FAILURES:
                self._failures.popitem(last=False)
            raise
        self._context.emit(events.DetailAsked(target))
        if not self._context.options.links:
            detail = replace(detail, links=None)
        campaign = campaign.with_detail(detail, self._store.round, self._context.clock.now())
        self._store.keep([campaign.saved])  # committed before the request gives back its permit
        return campaign


def _again(failure: CampaignError) -> CampaignError:
    error = CampaignError(
        failure.kind, str(failure), status=failure.status, error_key=failure.error_key
    )
    error.attempts = failure.attempts
    return error
