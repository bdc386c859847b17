"""The account behind the sandbox: one set of campaigns and events, seen by both versions.

v2 knows a mailing by a campaign id of 13 digits. v3 knows a campaign by a UUID and its mailings as
activities, each with a UUID. The first `campaigns` were sent; `unsent` further ones (DRAFT,
SCHEDULED, RUNNING, DELETED in turn) stand in the campaign lists but have no events.

A judge asks this module what a perfect client finds. It follows from the seed, but for the changes
made by `add_events`, `send`, `resend`, `touch` and `delete_contact`.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from .mailings import STATUSES, Mailings
from .reports import REPORTS, V3_REPORTS, v3_name
from .rows import LINKS, link_url, timestamp
from .view import View
from .views import Views, variant

__all__ = ["STATUSES", "World"]
_MOST_KEPT: Final = 16


class World:
    """The account's data.

    `any_id` may be a v2 campaign id, a v3 campaign id or an activity id.
    """

    def __init__(
        self,
        seed: int = 1,
        campaigns: int = 40,
        pages: int = 150,
        rows_per_page: int = 500,
        *,
        unsent: int = 5,
        resends: int = 0,
        awkward: bool = True,
        extras: bool = True,
        integer_ids: bool = False,
        whole_minutes: bool = True,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """`pages`: requests that reading the opens of all mailings takes at `rows_per_page`.

        `resends`: so many mailings more. `awkward`: one address in twelve is hard to parse.
        `extras`: unknown fields now and then. `integer_ids`: v2 rows carry campaign_id as a JSON
        integer, as the vendor's fixtures do. `whole_minutes`: the times of v3 rows have no seconds.
        `wall`: Unix seconds, for what happens later.
        """
        self._wall = wall
        self.mailings: Final = Mailings(
            seed, campaigns, pages, rows_per_page, unsent=unsent, resends=resends, wall=wall
        )
        self.views: Final = Views(
            seed,
            self.mailings,
            awkward=awkward,
            extras=extras,
            integer_ids=integer_ids,
            whole_minutes=whole_minutes,
        )
        self._ids = self.mailings.ids
        self._kept: dict[object, tuple[int, Sequence[str]]] = {}
        self._latest: tuple[int, Sequence[int]] = (-1, ())
        self.deletions = 0

    # -- ids -----------------------------------------------------------------------------------

    @property
    def campaign_ids(self) -> Sequence[str]:
        """The v2 ids of all that was sent, each resend included."""
        return self._listed("sent", self._v2_ids, sent=True)

    @property
    def unsent_ids(self) -> Sequence[str]:
        """The v2 ids of all that was not sent."""
        return self._listed("unsent", self._v2_ids, sent=False)

    @property
    def v3_campaign_ids(self) -> Sequence[str]:
        """The v3 ids of the campaigns that were sent."""
        return self._listed("v3 sent", self._v3_ids, sent=True)

    @property
    def v3_unsent_ids(self) -> Sequence[str]:
        """The v3 ids of the campaigns that were not sent."""
        return self._listed("v3 unsent", self._v3_ids, sent=False)

    def __contains__(self, any_id: object) -> bool:
        try:
            return bool(self.numbers(str(any_id)))
        except KeyError:
            return False

    def mailing(self, any_id: str) -> int:
        """The mailing of a v2 campaign id or a v3 activity id; KeyError if there is none."""
        number = self._ids.v2_number(any_id)
        if number is None:
            number = self._ids.number("activity", any_id)
        if number is None or number not in self.mailings.all:
            raise KeyError(any_id)
        return number

    def campaign(self, any_id: str) -> int:
        """The campaign of a v3 campaign id; KeyError if there is none."""
        number = self._ids.number("campaign", any_id)
        if number is None or number not in self.mailings.campaigns:
            raise KeyError(any_id)
        return number

    def numbers(self, any_id: str) -> Sequence[int]:
        """The mailings that an id stands for, in the order of a v3 campaign's activities."""
        try:
            return self.mailings.mailings_of(self.campaign(any_id))
        except KeyError:
            return (self.mailing(any_id),)

    def activities(self, any_id: str) -> Sequence[tuple[str, str]]:
        """(activity any_id, role) of each activity of a v3 campaign, as its detail lists them."""
        campaign = self.campaign(any_id)
        email, *resends = (
            self._ids.uuid("activity", n) for n in self.mailings.mailings_of(campaign)
        )
        found = [(email, "primary_email"), *((resend, "resend") for resend in resends)]
        permalink = (self._ids.uuid("permalink", campaign), "permalink")
        found.insert((1, 0, len(found))[campaign % 3], permalink)
        return found

    def v3_id(self, any_id: str) -> str:
        """The v3 campaign of a v2 campaign id or of an activity id."""
        return self._ids.uuid("campaign", self.mailings.campaign_of(self.mailing(any_id)))

    def v2_id(self, any_id: str) -> str:
        """The v2 id of a v3 activity, or of the email of a v3 campaign."""
        return self._ids.v2(self.numbers(any_id)[0])

    def latest_campaigns(self) -> Sequence[int]:
        """The numbers of all campaigns as v3's list orders them, the last updated first."""
        if self._latest[0] != self.mailings.changes:
            found = sorted(self.mailings.campaigns, key=self.mailings.updated_ms, reverse=True)
            self._latest = (self.mailings.changes, found)
        return self._latest[1]

    # -- rows ----------------------------------------------------------------------------------

    def view(self, report: str, any_id: str) -> View:
        """One report of a v2 campaign or of a v3 activity, as that version lists it.

        KeyError for a name or an id that the account does not have.
        """
        if self._ids.v2_number(any_id) is not None:
            return self.views.v2(report, self.mailing(any_id))
        return self.views.v3(v3_name(report), self.mailing(any_id))

    def records(self, report: str, any_id: str, since_ms: int | None = None) -> Iterator[bytes]:
        """The exact JSON of every row, in the order of a finished file.

        Of a v3 campaign: activity by activity as the detail lists them, each newest first.
        `since_ms`: only rows on or after that moment, by the time that they show.
        """
        for view in self._views(report, any_id):
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

    def _views(self, report: str, any_id: str) -> Iterator[View]:
        if self._ids.v2_number(any_id) is not None:
            yield self.view(report, any_id)
            return
        for mailing in self.numbers(any_id):
            yield self.views.v3(v3_name(report), mailing)

    # -- what happens --------------------------------------------------------------------------

    def add_events(self, report: str, any_id: str, count: int) -> None:
        """So many events happen now, the newest of their report. A campaign's go to its email."""
        events = report if report in REPORTS else V3_REPORTS[v3_name(report)].events
        self.views.arrivals.add((self.numbers(any_id)[0], events), count, self._wall())

    def arrived(self, report: str, any_id: str) -> int:
        """How many events were added to the report of a mailing so far."""
        return self.views.arrivals.total((self.mailing(any_id), report))

    def send(self, any_id: str) -> None:
        """An unsent campaign is sent; ValueError if it was sent before."""
        self.mailings.send(self.numbers(any_id)[0])

    def resend(self, any_id: str) -> str:
        """A sent campaign is sent again; return the activity. Its v2 id is `v2_id(activity)`."""
        return self._ids.uuid("activity", self.mailings.resend(self.numbers(any_id)[0]))

    def touch(self, any_id: str) -> None:
        """Someone edits a campaign: it moves to the head of the campaign lists."""
        self.mailings.touch(self.numbers(any_id)[0])

    def delete_contact(self, contact_id: str) -> None:
        """A contact (v3 any_id) is deleted: its v3 rows, old ones too, get `deleted_at`."""
        contact = self._ids.number("contact", contact_id)
        if contact is None:
            raise KeyError(contact_id)
        self.views.deleted[contact] = int(self._wall() * 1000)
        self.deletions += 1

    # -- campaigns, as v2 sees them ------------------------------------------------------------

    def status(self, any_id: str) -> str:
        """SENT, or for the extra campaigns one of the other states."""
        return self.mailings.status(self.numbers(any_id)[0])

    def brief(self, campaign_id: str) -> dict[str, str]:
        """A row of v2's campaign list: these four fields and no more, as documented."""
        mailing = self.mailing(campaign_id)
        return {
            "id": campaign_id,
            "name": self.name(mailing),
            "status": self.mailings.status(mailing),
            "modified_date": timestamp(self.mailings.modified_ms(mailing)),
        }

    def name(self, mailing: int) -> str:
        """The name of a campaign; not ASCII."""
        return f"Campaign \u2116 {mailing + 1} \u201cNews\u201d"

    def detail(self, campaign_id: str, *, fresh: bool = False) -> dict[str, object]:
        """The campaign object of v2.

        Its `click_through_details` name the links whose ids click rows carry.
        """
        mailing = self.mailing(campaign_id)
        campaign = self.mailings.campaign_of(mailing)
        clicks = self.views.stream("clicks", mailing)
        events = range(-clicks.added, clicks.events)
        counts = Counter(variant(clicks, event, len(LINKS)) for event in events)
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
        mailing, at = self.mailing(campaign_id), float("inf" if fresh else "-inf")
        uniques = {name: self.views.stream(name, mailing, at).unique() for name in sorted(REPORTS)}
        return {**uniques, "spam_count": 0}

    def listing(self, status: str = "ALL", modified_since_ms: int | None = None) -> list[str]:
        """v2 ids as its list orders them, latest first; deleted ones only when asked for."""

        def ids() -> list[str]:
            found = [
                (-self.mailings.modified_ms(mailing), mailing)
                for mailing in self.mailings.all
                if _shown(self.mailings.status(mailing), status)
            ]
            since = modified_since_ms if modified_since_ms is not None else float("-inf")
            return [self._ids.v2(mailing) for when, mailing in sorted(found) if -when >= since]

        return list(self._keep((status, modified_since_ms), ids))

    # -- lists that are kept until the account changes -----------------------------------------

    def _v2_ids(self, sent: bool) -> list[str]:
        return [self._ids.v2(m) for m in self.mailings.all if self.mailings.sent(m) is sent]

    def _v3_ids(self, sent: bool) -> list[str]:
        wanted = (c for c in self.mailings.campaigns if self.mailings.sent(c) is sent)
        return [self._ids.uuid("campaign", campaign) for campaign in wanted]

    def _listed(self, name: str, ids: Callable[[bool], list[str]], *, sent: bool) -> Sequence[str]:
        return self._keep(name, lambda: ids(sent))

    def _keep(self, key: object, make: Callable[[], list[str]]) -> Sequence[str]:
        changes, kept = self._kept.get(key, (-1, ()))
        if changes != self.mailings.changes:
            if len(self._kept) >= _MOST_KEPT:
                self._kept.clear()
            kept = tuple(make())
            self._kept[key] = (self.mailings.changes, kept)
        return kept


def _shown(own: str, asked: str) -> bool:
    return own == asked or (asked == "ALL" and own != "DELETED")
