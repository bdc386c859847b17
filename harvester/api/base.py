"""What a version of the API is: data, and pure functions on links and bodies.

`v2` and `v3` each fulfil `Api`. Nothing here sends anything; `request` is the only place where a
secret enters a URL or a header.
"""

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import ClassVar, Protocol

from msgspec import Struct

from harvester.api.counts import BulkCounts, CampaignCounts
from harvester.api.errors import Headers
from harvester.api.vendor import Report
from harvester.errors import HarvestError
from harvester.model import Page, Target


class Detail(Struct, frozen=True, kw_only=True):
    """What a campaign says of itself: its `activities` that have reports, when it was last changed
    (None: not known); where it holds them, its `counts` of this moment and its `links` (NDJSON)."""

    activities: tuple[str, ...] = ()
    updated_at: datetime | None = None
    counts: CampaignCounts | None = None
    links: str | None = None


class Secrets(Protocol):
    """What admits a request."""

    api_key: str
    """Whose limits count."""
    token: str
    """The bearer token of this moment."""


class SignedRequest(Struct, frozen=True):
    """A GET with its secrets in place: never log it. They are not in its repr."""

    url: str
    headers: dict[str, str]

    def __repr__(self) -> str:
        return "<SignedRequest>"


class Api(Protocol):
    """One version of the API at one origin. A link is a path and a query without any secret."""

    reports: ClassVar[Mapping[str, Report]]
    """The reports of this version by name, in the order in which they are harvested."""
    statuses: ClassVar[Collection[str]]
    """The campaign statuses that the list can be asked for."""
    bulk_counts: ClassVar[BulkCounts | None]
    """The counts of many campaigns at once; None if this version has them in each one's detail."""
    needs_detail: ClassVar[bool]
    """Whether no walk begins without the campaign's detail; else it is asked for where that saves
    requests."""

    @property
    def origin(self) -> str:
        """Scheme, host and port, without a slash at the end."""

    def check_id(self, campaign_id: str | int) -> str:
        """Return the id in its one spelling. Raise `ConfigError` if it is no id of this version."""

    def detail_link(self, campaign_id: str, /) -> str:
        """The link of a campaign's detail."""

    def read_detail(self, campaign_id: str, body: bytes, /) -> Detail:
        """Read the body of the 200 for it. Raise `Unreadable`, and `CampaignError` "not_sent"."""

    def first_link(
        self, target: Target, *, limit: int, since: datetime | None, detail: Detail | None = None
    ) -> str:
        """The link of a walk's first page of `limit` rows. `since` takes effect only for a report
        that has a `since_parameter`. Where that needs the `detail` and has none, the first page is
        the campaign's own and has no rows."""

    def activity_of(self, link: str, /) -> str | None:
        """The id of the activity that `link` reads, None if it is the campaign's own; empty in a
        version without activities."""

    def after_activity(self, target: Target, link: str) -> str | None:
        """The link that follows the last page of the activity that `link` reads."""

    def request(self, link: str, secrets: Secrets) -> SignedRequest:
        """The URL and the headers to send for `link`."""

    def read_page(self, target: Target, link: str, body: bytes, /) -> Page:
        """Read the body of the 200 for `link`. Raise `Unreadable` if it is not the documented page,
        `CampaignError` if the campaign has none ("not_sent") or its next link must not be followed
        ("foreign_link", "bad_link")."""

    def classify_response(
        self, link: str, status: int, headers: Headers, body: bytes, /
    ) -> HarvestError:
        """The error that an answer other than a 200 to `link` stands for."""

    def campaigns_link(
        self, *, status: str, modified_since: datetime | None, limit: int | None = None
    ) -> str:
        """The link of the first page of the campaign list; `limit` None asks for as many campaigns
        a page as the API gives."""

    def read_campaigns(self, link: str, body: bytes, /) -> Page:
        """Read a page of the campaign list. Raises as `read_page` does."""

    def listed_id(self, record: bytes, status: str) -> str | None:
        """The id in a record of the list; None if the campaign is not in that status. Raise
        `Unreadable` if there is no id."""
