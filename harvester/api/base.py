"""The wire without I/O: what to ask, how to read a page, and what an answer means.

Everything here is a pure function or a frozen value. `Api` is what a version of the vendor's API
must be able to say; `v2` and `v3` are those that are spoken.
"""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Protocol

from harvester.model import Page, Target


class Api(Protocol):
    """One version of the API, bound to the origin it is asked at."""

    @property
    def name(self) -> str:
        """The version's name in options and state: "v2" or "v3"."""
        ...

    @property
    def origin(self) -> str:
        """Scheme, host and port, no slash after it."""
        ...

    @property
    def reports(self) -> Sequence[str]:
        """The tracking reports this version has."""
        ...

    @property
    def lacks(self) -> Collection[str]:
        """The settings of a harvest that this version has nothing for."""
        ...

    def check_id(self, campaign_id: str | int) -> str:
        """Give the id back if it can be one; raise `ConfigError` saying what one looks like."""
        ...

    def first_link(self, target: Target, *, limit: int, since: datetime | None) -> str:
        """The link of a walk's first page: path and query, no secret in it."""
        ...

    def url_for(self, link: str, api_key: str) -> str:
        """The URL to ask for `link`, the key put back where this version wants it."""
        ...

    def read_page(self, target: Target, link: str, body: bytes, /) -> Page:
        """Read the body of the 200 that `link` was answered with; raise `Unreadable`, or
        `CampaignError` for a next link we must refuse."""
        ...

    def date_field(self, report: str) -> str:
        """The field of a report's rows that says when an event happened."""
        ...

    def campaigns_link(self, *, status: str, modified_since: datetime | None) -> str:
        """The link of the campaign list's first page."""
        ...

    def read_campaigns(self, body: bytes) -> Page:
        """Read a page of the campaign list."""
        ...

    def listed_id(self, record: bytes, status: str) -> str | None:
        """The id in a record of that list; None if it is not in the state asked for. Raise
        `Unreadable` if there is none."""
        ...

    def summary_link(self, campaign_id: str) -> str:
        """The link of a campaign's own counts."""
        ...

    def read_summary(self, body: bytes) -> dict[str, int]:
        """Read them: unique recipients by report."""
        ...
