"""The campaigns of the account by the ids of both versions, and in the order of their lists.

v2 knows each mailing by a campaign id of 13 digits. v3 knows a campaign by a UUID and its mailings
as activities, each with a UUID.
"""

from collections.abc import Callable, Sequence
from functools import partial
from math import inf
from typing import Final, Generic, TypeVar

from .mailings import STATUSES, Mailings
from .rows import timestamp

__all__ = ["STATUSES", "Catalog"]
T = TypeVar("T")
_MOST_KEPT: Final = 16


class Catalog:
    """Ids and lists. `any_id` may be a v2 campaign id, a v3 campaign id or a v3 activity id.

    A method that is given an unknown id raises KeyError.
    """

    def __init__(self, mailings: Mailings) -> None:
        self.mailings: Final = mailings
        self._ids: Final = mailings.ids
        self._kept_ids = _Kept[str](mailings)
        self._kept_numbers = _Kept[int](mailings)

    # -- all ids -------------------------------------------------------------------------------

    @property
    def campaign_ids(self) -> Sequence[str]:
        """The v2 ids of all that was sent, each resend included."""
        return self._listed("v2", self._ids.v2, sent=True)

    @property
    def unsent_ids(self) -> Sequence[str]:
        """The v2 ids of all that was not sent."""
        return self._listed("v2", self._ids.v2, sent=False)

    @property
    def v3_campaign_ids(self) -> Sequence[str]:
        """The v3 ids of the campaigns that were sent."""
        return self._listed("v3", partial(self._ids.uuid, "campaign"), sent=True)

    @property
    def v3_unsent_ids(self) -> Sequence[str]:
        """The v3 ids of the campaigns that were not sent."""
        return self._listed("v3", partial(self._ids.uuid, "campaign"), sent=False)

    def _listed(self, version: str, spell: Callable[[int], str], *, sent: bool) -> Sequence[str]:
        numbers = self.mailings.all if version == "v2" else self.mailings.campaigns
        wanted = (number for number in numbers if self.mailings.sent(number) is sent)
        return self._kept_ids.get((version, sent), lambda: tuple(map(spell, wanted)))

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

    def listing(self, status: str = "ALL", modified_since_ms: int | None = None) -> list[str]:
        """v2 ids as its list orders them, latest first; deleted ones only when asked for."""
        modified = self.mailings.modified_ms

        def ids() -> list[str]:
            shown = (m for m in self.mailings.all if _shown(self.mailings.status(m), status))
            latest = sorted(shown, key=modified, reverse=True)
            since = modified_since_ms
            return [self._ids.v2(m) for m in latest if since is None or modified(m) >= since]

        return list(self._kept_ids.get((status, modified_since_ms), ids))

    def latest_campaigns(self, after_ms: int | None, before_ms: int | None) -> Sequence[int]:
        """The numbers of campaigns as v3's list orders them, the last updated first.

        Only those that were updated from the one moment to the other, both included.
        """
        updated = self.mailings.updated_ms
        low = -inf if after_ms is None else after_ms
        high = inf if before_ms is None else before_ms

        def found() -> list[int]:
            latest = sorted(self.mailings.campaigns, key=updated, reverse=True)
            return [campaign for campaign in latest if low <= updated(campaign) <= high]

        return self._kept_numbers.get((after_ms, before_ms), found)

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


class _Kept(Generic[T]):
    """Lists by a key, each made anew after the account has changed."""

    def __init__(self, mailings: Mailings) -> None:
        self._mailings = mailings
        self._lists: dict[object, tuple[int, Sequence[T]]] = {}

    def get(self, key: object, make: Callable[[], Sequence[T]]) -> Sequence[T]:
        """The list of a key."""
        changes, kept = self._lists.get(key, (-1, ()))
        if changes != self._mailings.changes:
            if len(self._lists) >= _MOST_KEPT:
                self._lists.clear()
            kept = make()
            self._lists[key] = (self._mailings.changes, kept)
        return kept


def _known(asked: str, number: int | None, numbers: range) -> int:
    if number is None or number not in numbers:
        raise KeyError(asked)
    return number


def _shown(own: str, asked: str) -> bool:
    return own == asked or (asked == "ALL" and own != "DELETED")
