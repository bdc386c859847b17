"""The tracking reports of both versions.

The events belong to six kinds, named as v2 names its reports. v3 serves the same six (one under
another name) and two that follow from them. Source: the vendor's pages of each report.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

REPORTS: Final = ("sends", "opens", "clicks", "forwards", "bounces", "unsubscribes")
"""The kinds of events, and the reports of v2 by the last part of their path."""
ONCE: Final = frozenset({"sends", "bounces", "unsubscribes"})
"""A contact has at most one such event in a mailing: it is sent to once, but opens often."""
OLDEST_FIRST: Final = frozenset({"bounces"})
"""So v2 lists them; v3 lists all reports newest first."""


@dataclass(frozen=True, slots=True)
class V3Report:
    """One tracking report of v3.

    `events`: the kind of event its rows are. `only`: a choice of them. `activity_type`: the value
    of `tracking_activity_type`.
    """

    events: str
    activity_type: str
    only: Literal["", "last_of_each_contact", "did_not_open"] = ""


V3_REPORTS: Final[Mapping[str, V3Report]] = {
    "sends": V3Report("sends", "em_sends"),
    "opens": V3Report("opens", "em_opens"),
    "unique_opens": V3Report("opens", "em_opens", "last_of_each_contact"),
    "didnotopens": V3Report("sends", "em_didnotopens", "did_not_open"),
    "clicks": V3Report("clicks", "em_clicks"),
    "forwards": V3Report("forwards", "em_forwards"),
    "optouts": V3Report("unsubscribes", "em_optouts"),
    "bounces": V3Report("bounces", "em_bounces"),
}
"""The reports of v3 by the last part of their path."""

_OTHER_NAMES: Final = {"unsubscribes": "optouts", "did_not_open": "didnotopens"}


def v3_name(report: str) -> str:
    """The last part of the v3 path of a report, which may be given by its v2 name."""
    return _OTHER_NAMES.get(report, report)
