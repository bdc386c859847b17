"""The campaigns of the account by the ids of both versions, and in the order of their lists.

v2 knows each mailing by a campaign id of 13 digits. v3 knows a campaign by a UUID and its mailings
as activities, each with a UUID.
"""

from collections.abc import Sequence
from functools import lru_cache, partial
from typing import Final

from .mailings import Mailings
from .rows import timestamp

_MOST_KEPT: Final = 16


class Catalog:
    """Ids and lists. `any_id` may be a v2 campaign id, a v3 campaign id or a v3 activity id.

    A method that is given an unknown id raises KeyError.
    """

    def __init__(self, mailings: Mailings) -> None:
        self.mailings: Final = mailings
        self._ids: Final = mailings.ids
        self._listed = lru_cache(_MOST_KEPT)(self._ids_of)
        self._latest = lru_cache(_MOST_KEPT)(self._sorted)

    def _forget(self) -> None:
        """Make the lists anew: the account has changed."""
        self._listed.cache_clear()
        self._latest.cache_clear()

    # -- all ids -------------------------------------------------------------------------------

    @property
    def campaign_ids(self) -> Sequence[str]:
        """The v2 ids of all that was sent, each resend included."""
        return self._listed("v2", True)

    @property
    def unsent_ids(self) -> Sequence[str]:
        """The v2 ids of all that was not sent."""
        return self._listed("v2", False)

    @property
    def v3_campaign_ids(self) -> Sequence[str]:
        """The v3 ids of the campaigns that were sent."""
        return self._listed("v3", True)

    @property
    def v3_unsent_ids(self) -> Sequence[str]:
        """The v3 ids of the campaigns that were not sent."""
        return self._listed("v3", False)

    def _ids_of(self, version: str, sent: bool) -> Sequence[str]:
        numbers = self.mailings.all if version == "v2" else self.mailings.campaigns
        spell = self._ids.v2 if version == "v2" else partial(self._ids.uuid, "campaign")
        return tuple(spell(number) for number in numbers if self.mailings.sent(number) is sent)

    # -- from an id to a number ----------------------------------------------------------------

    def v2_campaign(self, v2_id: str) -> int:
        """The mailing of a v2 campaign id."""
        return _known(v2_id, self._ids.v2_number(v2_id), self.mailings.all)

    def campaign(self, v3_id: str) -> int:
        """The campaign of a v3 campaign id."""
        return _known(v3_id, self._ids.number("campaign", v3_id), self.mailings.campaigns)

    def activity(self, activity_id: str) -> int:
        """The mailing of a v3 activity id; a permalink has none."""
        return _known(activity_id, self._ids.number("activity", activity_id), self.mailings.all)

    def numbers(self, any_id: str) -> Sequence[int]:
        """The mailings that an id stands for, in the order of a v3 campaign's activities."""
        if "-" not in any_id:
            return (self.v2_campaign(any_id),)
        try:
            return (self.activity(any_id),)
        except KeyError:
            return self.mailings.mailings_of(self.campaign(any_id))

    # -- from one id to another ----------------------------------------------------------------

    def v3_id(self, any_id: str) -> str:
        """The v3 campaign id."""
        return self._ids.uuid("campaign", self.mailings.campaign_of(self.numbers(any_id)[0]))

    def v2_id(self, any_id: str) -> str:
        """The v2 campaign id; of a v3 campaign, that of its email."""
        return self._ids.v2(self.numbers(any_id)[0])

    def activities(self, v3_id: str) -> Sequence[tuple[str, str]]:
        """(activity id, role) of each activity of a v3 campaign, as its detail lists them."""
        campaign = self.campaign(v3_id)
        email, *resends = (
            self._ids.uuid("activity", mailing) for mailing in self.mailings.mailings_of(campaign)
        )
        found = [(email, "primary_email"), *((resend, "resend") for resend in resends)]
        permalink = (self._ids.uuid("permalink", campaign), "permalink")
        found.insert((1, 0, len(found))[campaign % 3], permalink)
        return found

    # -- the lists of the API ------------------------------------------------------------------

    def listing(self, status: str = "ALL", since_ms: int | None = None) -> list[str]:
        """v2 ids as its list orders them, latest first; deleted ones only when asked for."""
        return [self._ids.v2(mailing) for mailing in self.latest_mailings(status, since_ms)]

    def latest_mailings(self, status: str, since_ms: int | None) -> Sequence[int]:
        """The mailings of v2's list, the last modified first."""
        return self._latest("v2", status, since_ms)

    def latest_campaigns(self, since_ms: int | None) -> Sequence[int]:
        """The campaigns of v3's list, the last updated first."""
        return self._latest("v3", None, since_ms)

    def _sorted(self, version: str, status: str | None, since_ms: int | None) -> Sequence[int]:
        mailings = self.mailings
        numbers = mailings.all if version == "v2" else mailings.campaigns
        changed = mailings.modified_ms if version == "v2" else mailings.updated_ms
        shown = (n for n in numbers if status is None or _shown(mailings.status(n), status))
        if since_ms is not None:
            shown = (number for number in shown if changed(number) >= since_ms)
        return sorted(shown, key=changed, reverse=True)

    def status(self, any_id: str) -> str:
        """SENT, or for the extra campaigns one of the other states, as v2 spells them."""
        return self.mailings.status(self.numbers(any_id)[0])

    def name(self, mailing: int) -> str:
        """The name of a campaign; not ASCII."""
        return f"Campaign \u2116 {mailing + 1} \u201cNews\u201d"

    def brief(self, campaign_id: str) -> dict[str, str]:
        """A row of v2's campaign list: these four fields and no more, as documented."""
        mailing = self.v2_campaign(campaign_id)
        return {
            "id": campaign_id,
            "name": self.name(mailing),
            "status": self.mailings.status(mailing),
            "modified_date": timestamp(self.mailings.modified_ms(mailing)),
        }


def _known(asked: str, number: int | None, numbers: range) -> int:
    if number is None or number not in numbers:
        raise KeyError(asked)
    return number


def _shown(own: str, asked: str) -> bool:
    return own == asked or (asked == "ALL" and own != "DELETED")
