"""From v2 ids to v3 ids, in few requests.

Source: the vendor's migration guide, `GET /v3/emails/campaign_id_xrefs`: at most 50 ids a request,
to be used sparingly. What the API does with an id that it does not know is not documented: it may
leave it out, or answer 404 to all that were asked with it. Then each half is asked alone.
"""

from collections.abc import AsyncGenerator, Iterable, Sequence
from functools import partial
from itertools import islice
from typing import NamedTuple

import msgspec

from harvester.api.page import Shape, read_record, read_rows
from harvester.api.v3 import V3
from harvester.errors import CampaignError, ConfigError, Unreadable
from harvester.model import Fetcher, Request, Target

_MOST_IDS = 50
_PATH = "/v3/emails/campaign_id_xrefs"
_PAGE = Shape("xrefs")


class Xref(NamedTuple):
    """A campaign's id in both versions, and the API's own record of it."""

    v2_id: str
    v3_id: str
    record: bytes


class _Record(msgspec.Struct):
    v2_email_campaign_id: str | int
    campaign_id: str


_record = msgspec.json.Decoder(_Record)


async def list_xrefs(
    fetcher: Fetcher, api: V3, v2_ids: Iterable[str]
) -> AsyncGenerator[tuple[str, Xref | None], None]:
    """Yield each of the v2 ids with its xref, None where the API has none.

    Raise `CampaignError` if the API refuses to say.
    """
    rest = iter(v2_ids)
    while batch := [*islice(rest, _MOST_IDS)]:
        found = await _ask(fetcher, api, batch)
        for v2_id in batch:
            yield v2_id, found.get(v2_id)


async def _ask(fetcher: Fetcher, api: V3, v2_ids: Sequence[str]) -> dict[str, Xref]:
    link = f"{_PATH}?v2_email_campaign_ids={','.join(v2_ids)}"
    read = partial(read_xrefs, api, v2_ids)
    try:
        return await fetcher.fetch(Request(Target("campaigns", "xrefs"), link, read))
    except CampaignError as wrong:
        if wrong.kind != "not_found":
            raise
    if len(v2_ids) == 1:
        return {}
    half = len(v2_ids) // 2
    first = await _ask(fetcher, api, v2_ids[:half])
    return first | await _ask(fetcher, api, v2_ids[half:])


def read_xrefs(api: V3, v2_ids: Sequence[str], body: bytes) -> dict[str, Xref]:
    """Read the answer for `v2_ids`, by these. Raise `Unreadable` if it is not as documented, or
    about other ids."""
    found = {}
    for record in read_rows(body, _PAGE).ndjson.split(b"\n")[:-1]:
        row = read_record(record, _record)
        v2_id = str(row.v2_email_campaign_id)
        try:
            found[v2_id] = Xref(v2_id, api.check_id(row.campaign_id), record)
        except ConfigError:
            raise Unreadable("a campaign without a usable id", status=200) from None
    if not found.keys() <= set(v2_ids):
        raise Unreadable("ids that were not asked for", status=200)
    return found
