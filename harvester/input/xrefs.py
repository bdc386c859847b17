"""From v2 ids to v3 ids, in few requests.

What the API does with an id that it does not know is not documented: it may leave it out, or answer
404 to all that were asked with it. Then each half is asked alone.
"""

from collections.abc import AsyncGenerator, Iterable, Sequence
from functools import partial
from itertools import islice

from harvester.api.v3 import V3
from harvester.api.xrefs import MOST_IDS, Xref, read_xrefs, xrefs_link
from harvester.errors import CampaignError
from harvester.model import Fetcher, Request, Target


async def list_xrefs(
    fetcher: Fetcher, api: V3, v2_ids: Iterable[str]
) -> AsyncGenerator[tuple[str, Xref | None], None]:
    """Yield each of the v2 ids with its xref, None where the API has none.

    Raise `CampaignError` if the API refuses to say.
    """
    rest = iter(v2_ids)
    while batch := [*islice(rest, MOST_IDS)]:
        found = {xref.v2_id: xref for xref in await _ask(fetcher, api, batch)}
        for v2_id in batch:
            yield v2_id, found.get(v2_id)


async def _ask(fetcher: Fetcher, api: V3, v2_ids: Sequence[str]) -> list[Xref]:
    read = partial(read_xrefs, api, v2_ids)
    try:
        return await fetcher.fetch(Request(Target("campaigns", "xrefs"), xrefs_link(v2_ids), read))
    except CampaignError as wrong:
        if wrong.kind != "not_found":
            raise
    if len(v2_ids) == 1:
        return []
    half = len(v2_ids) // 2
    first = await _ask(fetcher, api, v2_ids[:half])
    return first + await _ask(fetcher, api, v2_ids[half:])
