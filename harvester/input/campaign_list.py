"""The account's campaigns, from a list that moves while it is read.

The API pages the list by number and keeps it sorted by the last change, so a campaign that is
touched between two pages jumps to the head, past the reader. A pass over the whole list may miss
it; so passes are made until one brings nothing new. Each campaign is given once.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import datetime

from harvester.api.base import Api
from harvester.api.vendor import V3_STATUSES
from harvester.disk.disk_set import DiskSet
from harvester.errors import CampaignError, ConfigError
from harvester.model import Fetcher, Target
from harvester.request.pagination import walk_links

STATUSES = tuple(V3_STATUSES)
"""Those of both versions."""
_MOST_PASSES = 10


async def list_campaigns(
    fetcher: Fetcher, api: Api, *, status: str = "SENT", modified_since: datetime | None = None
) -> AsyncGenerator[tuple[str, bytes], None]:
    """Yield id and record (the API's own JSON) of each campaign.

    Raise `CampaignError` if the list cannot be read to its end, or does not come to rest,
    `ConfigError` if the API has no such status.
    """
    if status not in api.statuses:
        raise ConfigError(f"`status`: any of {', '.join(api.statuses)}, not {status!r}")
    target = Target("campaigns", "list")
    first = api.campaigns_link(status=status, modified_since=modified_since)
    known = DiskSet()
    try:
        for _ in range(_MOST_PASSES):
            before = len(known)
            pages = walk_links(fetcher, api.read_campaigns, target, first=first)
            async with aclosing(pages):
                async for page in pages:
                    for line in page.ndjson.split(b"\n")[:-1]:
                        campaign_id = api.listed_id(line, status)
                        if campaign_id is not None and known.add(campaign_id):
                            yield campaign_id, line
            if len(known) == before:
                return
        raise CampaignError(
            "unsettled", f"the campaign list still changes after {_MOST_PASSES} passes"
        )
    finally:
        known.close()
