"""The account behind the sandbox: one set of campaigns and events, seen by both versions.

The first `campaigns` were sent; `unsent` further ones (DRAFT, SCHEDULED, RUNNING, DELETED in turn)
stand in the campaign lists but have no events.

A judge asks this module what a perfect client finds. It follows from the seed, but for the changes
made by `add_events`, `send`, `resend`, `touch` and `delete_contact`.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from math import inf
from typing import Final

from .catalog import Catalog
from .mailings import Mailings
from .reports import REPORTS, V3_REPORTS, v3_name
from .rows import LINKS, link_url, timestamp
from .settings import SandboxSettings
from .views import View, Views


class World(Catalog):
    """The account's data: its campaigns and their events.

    `any_id` may be a v2 campaign id, a v3 campaign id or a v3 activity id.
    """

    def __init__(self, settings: SandboxSettings) -> None:
        super().__init__(Mailings(settings))
        self._wall = settings.wall
        self.views: Final = Views(settings, self.mailings)

    # -- rows ----------------------------------------------------------------------------------

    def view(self, report: str, any_id: str) -> View:
        """One report of a v2 campaign or of a v3 activity, as that version lists it.

        KeyError for a name or an id that the account does not have.
        """
        (view,) = self._views(report, any_id)
        return view

    def records(
        self, report: str, any_id: str, since_ms: int | None = None, *, at: float = inf
    ) -> Iterator[bytes]:
        """The exact JSON of every row, in the order of a finished file.

        Of a v3 campaign: activity by activity as the detail lists them, each newest first.
        `since_ms`: only rows on or after that moment, by the time that they show. `at`: the rows
        that there were at a moment (Unix seconds).
        """
        for view in self._views(report, any_id, at):
            yield from (row.encode() for row in view.rows(view.since(since_ms)))

    def rows(self, report: str, any_id: str) -> int:
        """How many rows the report has now."""
        return sum(map(len, self._views(report, any_id)))

    def pages(self, report: str, any_id: str, limit: int) -> int:
        """Requests it takes to read the report: one that is empty costs one."""
        return sum(max(1, -(-len(view) // limit)) for view in self._views(report, any_id))

    def least_requests(self, reports: Sequence[str], limit: int = 500) -> int:
        """The fewest requests that a v3 harvest of all sent campaigns takes, counts apart: a
        detail for each, and the pages that have rows.
        """
        ids = self.v3_campaign_ids
        views = (
            view for any_id in ids for report in reports for view in self._views(report, any_id)
        )
        return len(ids) + sum(-(-len(view) // limit) for view in views)

    def _views(self, report: str, any_id: str, at: float = inf) -> list[View]:
        """The report of each mailing that an id stands for."""
        there = [each for each in self.numbers(any_id) if self.mailings.settled(each, at)]
        if "-" in any_id:
            return [self.views.v3(v3_name(report), each, at) for each in there]
        return [self.views.v2(report, each, at) for each in there]

    # -- what happens --------------------------------------------------------------------------

    def add_events(self, report: str, any_id: str, count: int) -> None:
        """So many events happen now, the newest of their report. A campaign's go to its email."""
        events = report if report in REPORTS else V3_REPORTS[v3_name(report)].events
        self.views.arrivals[self.numbers(any_id)[0], events].append((self._wall(), count))

    def send(self, any_id: str) -> None:
        """An unsent campaign is sent; ValueError if it was sent before."""
        self.mailings.send(self.numbers(any_id)[0])
        self._forget()

    def resend(self, any_id: str) -> str:
        """A sent campaign is sent again; return the activity. Its v2 id is `v2_id(activity)`."""
        mailing = self.mailings.resend(self.numbers(any_id)[0])
        self._forget()
        return self._ids.uuid("activity", mailing)

    def touch(self, any_id: str) -> None:
        """Someone edits a campaign: it moves to the head of the campaign lists."""
        self.mailings.touch(self.numbers(any_id)[0])
        self._forget()

    def delete_contact(self, contact_id: str) -> None:
        """A contact (v3 id) is deleted: its v3 rows, old ones too, get `deleted_at`."""
        contact = self._ids.number("contact", contact_id)
        if contact is None:
            raise KeyError(contact_id)
        self.views.deleted[contact] = int(self._wall() * 1000)

    # -- campaigns, as v2 sees them ------------------------------------------------------------

    def detail(self, campaign_id: str, *, fresh: bool = False) -> dict[str, object]:
        """The campaign object of v2.

        Its `click_through_details` name the links whose ids click rows carry.
        """
        mailing = self.v2_campaign(campaign_id)
        campaign = self.mailings.campaign_of(mailing)
        clicks = self.views.stream("clicks", mailing)
        events = range(-clicks.added, clicks.events)
        counts = Counter(clicks.variant(event, len(LINKS)) for event in events)
        return {
            **self.brief(campaign_id),
            "subject": "News from the sandbox",
            "from_email": "sender@example.com",
            "created_date": timestamp(self.mailings.created_ms(campaign)),
            "last_run_date": timestamp(self.mailings.sent_ms(mailing)),
            "tracking_summary": self.summary(campaign_id, fresh=fresh),
            "click_through_details": [
                {
                    "url": link_url(self._ids.v2(campaign), link),
                    "url_uid": link,
                    "click_count": counts[number],
                }
                for number, link in enumerate(LINKS)
            ],
        }

    def summary(self, campaign_id: str, *, fresh: bool = False) -> dict[str, int]:
        """Distinct recipients of each kind, not rows, as v2 counts.

        Not `fresh`: as of before anything was added.
        """
        mailing, at = self.v2_campaign(campaign_id), float("inf" if fresh else "-inf")
        uniques = {name: self.views.stream(name, mailing, at).unique() for name in sorted(REPORTS)}
        return {**uniques, "spam_count": 0}
