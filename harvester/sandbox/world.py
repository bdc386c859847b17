"""The account behind the sandbox: campaigns, their sizes, and every event, all from one seed.

Nothing but the sizes is kept: a row is made when it is asked for. Ids look like the vendor's (13
digits, ascending, uneven gaps). The first `campaigns` ids are SENT; `unsent` further ones (DRAFT,
SCHEDULED, RUNNING, DELETED in turn) stand in the campaign list but have no events.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Final

from .chance import draw, number_of
from .reports import LINKS, REPORTS
from .sizes import events_of, opens_of_each, pages_of_each
from .stream import Stream, timestamp

STATUSES: Final = ("SENT", "DRAFT", "SCHEDULED", "RUNNING", "DELETED")
_FIRST_ID: Final = 1_100_394_165_287
_ID_GAP: Final = 9_973
_DAY_MS: Final = 86_400_000
_LAST_SENT_MS: Final = 1_704_110_400_000  # 2024-01-01T12:00Z
_LIFE_MS: Final = 90 * _DAY_MS
_LONGEST_STEP_MS: Final = 3 * 3_600_000


class World:
    """The account's data.

    Fixed by its arguments, but for what `add_events` and `touch` do to it later.
    """

    def __init__(
        self,
        seed: int = 1,
        campaigns: int = 40,
        pages: int = 150,
        rows_per_page: int = 500,
        *,
        unsent: int = 5,
        awkward: bool = True,
        extras: bool = True,
        integer_ids: bool = False,
    ) -> None:
        """`pages`: requests a full harvest of the opens report takes at `rows_per_page` rows a
        page.

        `awkward`: one address in twelve is hard to parse. `extras`: unknown fields now and then.
        `integer_ids`: rows carry campaign_id as a JSON integer, as the vendor's fixtures do.
        """
        self._seed = seed
        self._awkward, self._extras, self._integer_ids = awkward, extras, integer_ids
        shares = pages_of_each(seed, campaigns, pages)
        self._opens = opens_of_each(seed, shares, rows_per_page)
        ids = [
            str(_FIRST_ID + index * _ID_GAP + draw(seed, 3, index) % _ID_GAP)
            for index in range(campaigns + unsent)
        ]
        self._index = {campaign_id: index for index, campaign_id in enumerate(ids)}
        self.campaign_ids: Final = tuple(ids[:campaigns])
        self.unsent_ids: Final = tuple(ids[campaigns:])
        self._order = ids
        self._touched: dict[str, int] = {}
        self._touches = 0
        self._added: Counter[tuple[str, str]] = Counter()
        self._listing: tuple[str, int | None, list[str]] | None = None

    def __contains__(self, campaign_id: object) -> bool:
        return campaign_id in self._index

    # -- events -------------------------------------------------------------------------------

    def stream(self, report: str, campaign_id: str) -> Stream:
        """One report of one campaign as it stands now.

        KeyError for a name the account does not have.
        """
        index = self._index[campaign_id]
        counts = self._counts(index)
        events, sends = counts[report], counts["sends"]
        first_contact = 1_000_000 + draw(self._seed, 4, index) % 1_000_000
        if report == "bounces":  # whoever bounced did not open: the far end of the mailing
            first_contact += sends - events
        return Stream(
            report=REPORTS[report],
            campaign=campaign_id if self._integer_ids else f'"{campaign_id}"',
            key=draw(self._seed, 5, index, number_of(report)),
            events=events,
            added=self._added[report, campaign_id],
            sent_ms=self._sent_ms(index),
            step_ms=min(_LONGEST_STEP_MS, max(2, _LIFE_MS // (events + 1))),
            first_contact=first_contact,
            awkward=self._awkward,
            extras=self._extras,
        )

    def records(
        self, report: str, campaign_id: str, since_ms: int | None = None
    ) -> Iterator[bytes]:
        """The exact JSON of every row, in the API's order: what a perfect client writes, a line
        each.
        """
        stream = self.stream(report, campaign_id)
        return (row.encode() for row in stream.rows(stream.since(since_ms)))

    def rows(self, report: str, campaign_id: str) -> int:
        """How many rows the report has now."""
        return len(self.stream(report, campaign_id))

    def pages(self, report: str, campaign_id: str, limit: int) -> int:
        """Requests it takes to read the report: an empty one costs one."""
        return max(1, -(-self.rows(report, campaign_id) // limit))

    def add_events(self, report: str, campaign_id: str, count: int) -> None:
        """So many events happen now: they stand before all others (after them in an oldest-first
        report).
        """
        if report not in REPORTS or campaign_id not in self._index:
            raise KeyError((report, campaign_id))
        self._added[report, campaign_id] += count

    def arrived(self, report: str, campaign_id: str) -> int:
        """How many events were added to the report so far."""
        return self._added[report, campaign_id]

    def _counts(self, index: int) -> dict[str, int]:
        if index >= len(self.campaign_ids):
            return dict.fromkeys(REPORTS, 0)
        return dict(events_of(self._opens[index], draw(self._seed, 6, index)))

    # -- campaigns ----------------------------------------------------------------------------

    def status(self, campaign_id: str) -> str:
        """SENT, or for the extra campaigns one of the other states."""
        beyond = self._index[campaign_id] - len(self.campaign_ids)
        return "SENT" if beyond < 0 else STATUSES[1 + beyond % (len(STATUSES) - 1)]

    def brief(self, campaign_id: str) -> dict[str, str]:
        """A row of the campaign list: these four fields and no more, as documented."""
        return {
            "id": campaign_id,
            "name": f"Campaign \u2116 {self._index[campaign_id] + 1} \u201cNews\u201d",
            "status": self.status(campaign_id),
            "modified_date": timestamp(self._modified_ms(campaign_id)),
        }

    def detail(self, campaign_id: str, *, fresh: bool = False) -> dict[str, object]:
        """The campaign object; its `click_through_details` name the links whose ids click rows
        carry.
        """
        clicks = self.stream("clicks", campaign_id)
        counts = Counter(clicks.spelling(clicks.event_at(place)) for place in range(len(clicks)))
        sent = timestamp(self._sent_ms(self._index[campaign_id]))
        return {
            **self.brief(campaign_id),
            "subject": "News from the sandbox",
            "from_email": "sender@example.com",
            "created_date": timestamp(self._sent_ms(self._index[campaign_id]) - _DAY_MS),
            "last_run_date": sent,
            "tracking_summary": self.summary(campaign_id, fresh=fresh),
            "click_through_details": [
                {
                    "url": f"https://www.example.com/{campaign_id}/{link}?a=1&b=%2F",
                    "url_uid": link,
                    "click_count": counts[number],
                }
                for number, link in enumerate(LINKS)
            ],
        }

    def summary(self, campaign_id: str, *, fresh: bool = False) -> dict[str, int]:
        """Distinct recipients of each kind, not rows.

        Not `fresh`: as of before anything was added.
        """
        uniques = {
            name: self.stream(name, campaign_id).unique(added=fresh) for name in sorted(REPORTS)
        }
        return {**uniques, "spam_count": 0}

    def listing(self, status: str = "ALL", modified_since_ms: int | None = None) -> list[str]:
        """Ids as the list endpoint orders them, latest first; deleted ones only when asked for."""
        if self._listing is None or self._listing[:2] != (status, modified_since_ms):
            ids = [c for c in self._order if self._listed(c, status, modified_since_ms)]
            self._listing = (status, modified_since_ms, ids)
        return self._listing[2]

    def touch(self, campaign_id: str) -> None:
        """Somebody edits a campaign: it gets the latest modified_date and moves to the head of the
        list.
        """
        self._order = [campaign_id, *(c for c in self._order if c != campaign_id)]
        self._touches += 1
        self._touched[campaign_id] = _LAST_SENT_MS + _LIFE_MS + self._touches * 60_000
        self._listing = None

    def _listed(self, campaign_id: str, status: str, modified_since_ms: int | None) -> bool:
        own = self.status(campaign_id)
        if own != status and (status != "ALL" or own == "DELETED"):
            return False
        return modified_since_ms is None or self._modified_ms(campaign_id) >= modified_since_ms

    def _modified_ms(self, campaign_id: str) -> int:
        return self._touched.get(campaign_id) or self._sent_ms(self._index[campaign_id]) + 61_000

    def _sent_ms(self, index: int) -> int:
        """Each campaign was sent some minutes before the one listed above it."""
        return _LAST_SENT_MS - index * 600_000 - draw(self._seed, 7, index) % 600_000
