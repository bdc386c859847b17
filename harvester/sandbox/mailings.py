"""Which campaigns the account has, and which mailings each one consists of.

A *mailing* is one sending: the email of a campaign, or a resend of it. v2 sees each mailing as a
campaign of its own. v3 sees one campaign, with a mailing as an activity of it.

Mailings are numbered: first the campaigns that were sent, then the unsent ones, then the resends.
A campaign has the number of its email. Nothing is kept of them but their sizes and what changed.
"""

from collections.abc import Sequence
from typing import Final

from .chance import draw
from .ids import Ids
from .settings import SandboxSettings
from .sizes import opens_of_each, pages_of_each

STATUSES: Final = ("SENT", "DRAFT", "SCHEDULED", "RUNNING", "DELETED")
"""The states of a campaign, as v2 spells them."""
_DAY_MS: Final = 86_400_000
_LAST_SENT_MS: Final = 1_704_110_400_000  # 2024-01-01T12:00Z
_LIFE_MS: Final = 90 * _DAY_MS
_RESENT_AFTER_MS: Final = 3 * _DAY_MS
_SHORT_LIFE_MS: Final = 3_600_000


class Mailings:
    """The campaigns and mailings of one account."""

    def __init__(self, settings: SandboxSettings) -> None:
        """Of the sent campaigns the first `resends` have a resend, round and round."""
        self.ids: Final = Ids(settings.seed)
        self._seed, self._wall = settings.seed, settings.wall
        self._rows_per_page = settings.rows_per_page
        campaigns, resends = settings.campaigns, settings.resends
        shares = pages_of_each(self._seed, campaigns + resends, settings.pages)
        self._opens = opens_of_each(self._seed, shares, self._rows_per_page)
        self._sent_first, self._campaigns = campaigns, campaigns + settings.unsent
        self.campaigns: Final = range(self._campaigns)
        """The numbers of all campaigns, sent or not."""
        self._parents = [number % campaigns for number in range(resends)]
        self._resent: dict[int, list[int]] = {}
        for resend, parent in enumerate(self._parents, self._campaigns):
            self._resent.setdefault(parent, []).append(resend)
        self._sent_later: dict[int, int] = {}
        self._sent_at: dict[int, float] = {}
        self._touched: dict[int, int] = {}
        self._latest_ms = _LAST_SENT_MS + _LIFE_MS

    # -- what there is -------------------------------------------------------------------------

    @property
    def all(self) -> range:
        """The numbers of all mailings, sent or not."""
        return range(self._campaigns + len(self._parents))

    def sent(self, mailing: int) -> bool:
        """Whether a mailing was sent."""
        return not self._sent_first <= mailing < self._campaigns or mailing in self._sent_later

    def campaign_of(self, mailing: int) -> int:
        """The campaign a mailing belongs to."""
        return mailing if mailing < self._campaigns else self._parents[mailing - self._campaigns]

    def mailings_of(self, campaign: int) -> Sequence[int]:
        """The email of a campaign, then its resends in the order of sending."""
        return (campaign, *self._resent.get(campaign, ()))

    def status(self, mailing: int) -> str:
        """SENT, or for the unsent campaigns the other states in turn."""
        if self.sent(mailing):
            return "SENT"
        return STATUSES[1 + (mailing - self._sent_first) % (len(STATUSES) - 1)]

    def failed(self, campaign: int) -> bool:
        """Whether v3 has an unsent campaign in the state Error, which v2 does not know."""
        return not self.sent(campaign) and (campaign - self._sent_first) % 5 == 4

    def opens(self, mailing: int) -> int:
        """How many opens a mailing had when it was first seen; 0 for an unsent one."""
        if not self.sent(mailing):
            return 0
        if mailing in self._sent_later:
            return 1 + draw(self._seed, 11, mailing) % (2 * self._rows_per_page)
        beyond = mailing - self._campaigns
        return self._opens[mailing if beyond < 0 else self._sent_first + beyond]

    # -- when it was ---------------------------------------------------------------------------

    def created_ms(self, campaign: int) -> int:
        """When a campaign was written: a day before it was sent, or was planned to be sent."""
        sent = _LAST_SENT_MS - campaign * 600_000 - draw(self._seed, 7, campaign) % 600_000
        return sent - _DAY_MS

    def sent_ms(self, mailing: int) -> int:
        """When a mailing was sent, in epoch milliseconds.

        Each campaign was sent some minutes before the one listed above it; what is sent later is
        sent an hour before the call that says so.
        """
        if (at := self._sent_later.get(mailing)) is not None:
            return at - _SHORT_LIFE_MS
        campaign = self.campaign_of(mailing)
        resent = self.mailings_of(campaign).index(mailing)
        return self.created_ms(campaign) + _DAY_MS + resent * _RESENT_AFTER_MS

    def life_ms(self, mailing: int) -> int:
        """How long after the sending events of a mailing came in."""
        return _SHORT_LIFE_MS if mailing in self._sent_later else _LIFE_MS

    def modified_ms(self, mailing: int) -> int:
        """v2's modified_date of a mailing."""
        when = self._touched.get(mailing) or self._sent_later.get(mailing)
        return when or self.sent_ms(mailing) + 61_000

    def updated_ms(self, campaign: int) -> int:
        """v3's updated_at of a campaign: it moves with each edit, sending and resend."""
        return max(self.modified_ms(mailing) for mailing in self.mailings_of(campaign))

    def settled(self, mailing: int, at: float) -> bool:
        """Whether a mailing was not sent after a moment (Unix seconds)."""
        return self._sent_at.get(mailing, at) <= at

    # -- what happens --------------------------------------------------------------------------

    def send(self, campaign: int) -> None:
        """An unsent campaign is sent."""
        if self.sent(campaign):
            raise ValueError("this campaign was sent before")
        self._send_now(campaign)

    def resend(self, campaign: int) -> int:
        """A sent campaign is sent again; return the new mailing."""
        if not self.sent(campaign) or campaign >= self._campaigns:
            raise ValueError("only a campaign that was sent can be sent again")
        mailing = self._campaigns + len(self._parents)
        self._parents.append(campaign)
        self._resent.setdefault(campaign, []).append(mailing)
        self._send_now(mailing)
        return mailing

    def touch(self, mailing: int) -> None:
        """Someone edits a campaign: it becomes the latest modified one."""
        self._touched[mailing] = self._now_ms()

    def _send_now(self, mailing: int) -> None:
        self._sent_later[mailing] = self._now_ms()
        self._sent_at[mailing] = self._wall()

    def _now_ms(self) -> int:
        """The present, but later than every change before."""
        self._latest_ms = max(self._latest_ms + 1, int(self._wall() * 1000))
        return self._latest_ms
