"""The v3 ids of v2 campaigns, as v3 answers them.

Source: the vendor's migration guide, `GET /v3/emails/campaign_id_xrefs`: at most 50 ids a request,
to be used sparingly.
"""

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from harvester.api.page import Shape, read_record, read_rows
from harvester.api.v3 import V3
from harvester.errors import ConfigError, Unreadable

MOST_IDS = 50
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


def xrefs_link(v2_ids: Sequence[str]) -> str:
    """The link to ask for at most `MOST_IDS` ids."""
    return f"{_PATH}?v2_email_campaign_ids={','.join(v2_ids)}"


def read_xrefs(api: V3, v2_ids: Sequence[str], body: bytes) -> list[Xref]:
    """Read the answer for `v2_ids`, in their order; an id without an xref is left out.

    Raise `Unreadable` if it is not as documented, or about other ids.
    """
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
    return [found[v2_id] for v2_id in v2_ids if v2_id in found]
