"""The documents of v3 round the tracking reports: campaigns, counts, links, ids.

Source: the OpenAPI description 3.0.178 and the vendor's migration guide. The states of a campaign
are spelled "Done" in the list and "DONE" in its detail, as recorded.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

from .answers import Answer, Page, document, refusal
from .cursor import Window
from .dialect import V3_DIALECT
from .ids import Ids, is_uuid
from .rows import LINKS, link_url, timestamp
from .settings import SandboxSettings
from .version import list_page
from .world import World

_STATES: Final = {
    "SENT": "Done",
    "DRAFT": "Draft",
    "SCHEDULED": "Scheduled",
    "RUNNING": "Executing",
    "DELETED": "Removed",
}
_UNIQUE: Final = {
    "em_sends": "sends",
    "em_opens": "opens",
    "em_clicks": "clicks",
    "em_forwards": "forwards",
    "em_optouts": "unsubscribes",
    "em_bounces": "bounces",
}
_STATS: Final = (*_UNIQUE, "em_opens_all", "em_clicks_all", "em_not_opened", "em_abuse")
_MOST_XREFS: Final = 50
_MOST_ACTIVITIES: Final = 10
_NO_STATS: Final = refusal(
    404, {"error_key": "not_found", "error_message": "An id of the list is not valid"}
)


class Documents:
    """What v3 says of campaigns."""

    def __init__(self, settings: SandboxSettings, world: World) -> None:
        self._counts, self._doctored = settings.counts, frozenset(settings.doctored)
        self._world, self._mailings = world, world.mailings
        self._ids: Ids = world.mailings.ids

    # -- campaigns -----------------------------------------------------------------------------

    def campaigns(self, window: Window, path: str) -> Page:
        """`/v3/emails`: every campaign, the last updated first; `after_date`."""
        found = self._world.latest_campaigns(window.since_ms)
        return list_page("campaigns", found, self._brief, window, path, "o")

    def campaign(self, campaign_id: str) -> Answer:
        """`/v3/emails/{campaign_id}`: one campaign with its activities."""
        brief = self._brief(self._world.campaign(campaign_id))
        activities = [
            {"campaign_activity_id": activity, "role": role}
            for activity, role in self._world.activities(campaign_id)
        ]
        state = str(brief["current_status"]).upper()
        return document({**brief, "current_status": state, "campaign_activities": activities})

    def _brief(self, campaign: int) -> dict[str, object]:
        state = _STATES[self._mailings.status(campaign)]
        return {
            "campaign_id": self._ids.uuid("campaign", campaign),
            "created_at": timestamp(self._mailings.created_ms(campaign)),
            "current_status": "Error" if self._mailings.failed(campaign) else state,
            "name": self._world.name(campaign),
            "type": "NEWSLETTER",
            "type_code": 10,
            "updated_at": timestamp(self._mailings.updated_ms(campaign)),
        }

    def xrefs(self, params: Mapping[str, str]) -> Answer:
        """`/v3/emails/campaign_id_xrefs`: v3 ids of at most 50 v2 ids; unknown ones left out."""
        asked = [given for given in params.get("v2_email_campaign_ids", "").split(",") if given]
        if not 1 <= len(asked) <= _MOST_XREFS:
            return V3_DIALECT.bad_request(f"v2_email_campaign_ids: 1 to {_MOST_XREFS} ids")
        numbers = {given: self._ids.v2_number(given) for given in asked}
        xrefs = [
            {
                "v2_email_campaign_id": given,
                "campaign_id": self._world.v3_id(given),
                "campaign_activity_id": self._ids.uuid("activity", number),
            }
            for given, number in numbers.items()
            if number is not None and number in self._mailings.all
        ]
        return document({"xrefs": xrefs})

    # -- counts --------------------------------------------------------------------------------

    def campaign_stats(self, ids: str, wall: float) -> Answer:
        """`/v3/reports/stats/email_campaigns/{ids}`: the activities of each campaign together.

        One id that is malformed or unknown makes the whole answer a 404.
        """
        try:
            numbers = {given: self._world.campaign(given) for given in _listed(ids)}
        except KeyError:
            return _NO_STATS
        found = {given: self._mailings.mailings_of(number) for given, number in numbers.items()}
        return self._stats_answer("campaign_id", found, self._counts.most_ids, wall)

    def activity_stats(self, ids: str, wall: float) -> Answer:
        """`/v3/reports/stats/email_campaign_activities/{ids}`: each activity alone, at most 10.

        A malformed id makes the whole answer a 404, an unknown one stands in `errors`.
        """
        if not all(map(is_uuid, asked := _listed(ids))):
            return _NO_STATS
        numbers = {given: self._ids.number("activity", given) for given in asked}
        found = {
            given: (number,) if number is not None and number in self._mailings.all else ()
            for given, number in numbers.items()
        }
        return self._stats_answer("campaign_activity_id", found, _MOST_ACTIVITIES, wall)

    def _stats_answer(
        self, name: str, found: Mapping[str, Sequence[int]], most: int, wall: float
    ) -> Answer:
        """The stats of the mailings under each id; an id without mailings is an error."""
        if len(found) > most:
            return V3_DIALECT.bad_request(f"at most {most} ids")
        at, results, errors = wall - self._counts.age, [], []
        for given, mailings in found.items():
            if mailings and given not in self._counts.missing:
                stats = self._stats(mailings, at)
                stats["em_opens_all"] += given in self._doctored
                results.append(
                    {
                        name: given,
                        "stats": self._counts.spell(stats, mailings[0]),
                        "last_refresh_time": timestamp(int(at * 1000)),
                    }
                )
            elif not mailings or mailings[0] % 2:
                errors.append({name: given, "error_key": "not_found", "error_message": "No stats"})
        return document({"results": results, "errors": errors})

    def links(self, activity_id: str) -> Answer:
        """`…/{activity}/links`: unique clicks of each link that was clicked."""
        mailing = self._world.activity(activity_id)
        campaign = self._ids.v2(self._mailings.campaign_of(mailing))
        clicks = self._world.views.stream("clicks", mailing)
        contacts: dict[int, set[int]] = {number: set() for number in range(len(LINKS))}
        for event in range(-clicks.added, clicks.events):
            contacts[clicks.variant(event, len(LINKS))].add(clicks.contact(event))
        counts = [
            {"link_url": link_url(campaign, link), "url_id": link, "unique_clicks": len(who)}
            for link, who in zip(LINKS, contacts.values(), strict=True)
            if who
        ]
        return document({"campaign_activity_id": activity_id, "link_click_counts": counts})

    def _stats(self, mailings: Sequence[int], at: float) -> Counter[str]:
        """The stats of mailings together, as they were at a moment (Unix seconds).

        Each counts recipients, but for `em_opens_all` and `em_clicks_all`, which count rows. A
        contact of two mailings counts twice.
        """
        stats, views = Counter(dict.fromkeys(_STATS, 0)), self._world.views
        for mailing in (each for each in mailings if self._mailings.settled(each, at)):
            streams = {name: views.stream(kind, mailing, at) for name, kind in _UNIQUE.items()}
            stats.update({name: stream.unique() for name, stream in streams.items()})
            stats["em_opens_all"] += len(streams["em_opens"])
            stats["em_clicks_all"] += len(streams["em_clicks"])
            stats["em_not_opened"] += len(views.v3("didnotopens", mailing, at))
        return stats


def _listed(ids: str) -> list[str]:
    """The ids between commas, each once."""
    return list(dict.fromkeys(ids.lower().split(",")))
