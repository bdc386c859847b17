"""What the vendor has, as data: the origins, reports and campaign statuses of both versions.

Sources: the vendor's page on each report, and on the list of campaigns.
"""

from collections.abc import Mapping

from msgspec import Struct

ORIGINS = {"v2": "https://api.constantcontact.com", "v3": "https://api.cc.email"}
SIGN_IN_ORIGIN = "https://authz.constantcontact.com"
"""Of v3."""
PAGE_SIZES = range(1, 501)
"""Rows that a page of a tracking report can be asked to have (v2 and v3: `limit`, 1 to 500)."""
LINKS = "links"
"""The report of a campaign's links: it lists no events and has one page."""


class Report(Struct, frozen=True, kw_only=True):
    """One report of a version, as the vendor's page on it describes it.

    `path` is the end of its URL, `row_type` what every row says it is, `time_field` the field that
    says when an event happened ("": the rows are no events). `since_parameter` is the parameter of
    the first request that leaves older events out (None: the API has none). `newest_first` says
    that the vendor documents this order, `paged` that a page can be smaller and have a next link,
    `in_all` that `--report all` includes it.
    """

    name: str
    path: str
    row_type: str = ""
    time_field: str = ""
    since_parameter: str | None = None
    newest_first: bool = False
    paged: bool = True
    in_all: bool = True

    @property
    def derived(self) -> bool:
        """Whether it follows from other reports: its rows do not stay when events arrive."""
        return self.paged and not self.in_all


_V2_EVENTS = {
    "opens": ("EMAIL_OPEN", "open_date"),
    "clicks": ("EMAIL_CLICK", "click_date"),
    "sends": ("EMAIL_SEND", "send_date"),
    "bounces": ("EMAIL_BOUNCE", "bounce_date"),
    "forwards": ("EMAIL_FORWARD", "forward_date"),
    "unsubscribes": ("EMAIL_UNSUBSCRIBE", "unsubscribe_date"),
}
_V3_EVENTS = {
    "opens": ("opens", "em_opens"),
    "clicks": ("clicks", "em_clicks"),
    "sends": ("sends", "em_sends"),
    "bounces": ("bounces", "em_bounces"),
    "forwards": ("forwards", "em_forwards"),
    "unsubscribes": ("optouts", "em_optouts"),
    "unique_opens": ("unique_opens", "em_opens"),
    "did_not_open": ("didnotopens", "em_didnotopens"),
}
_DERIVED = {"unique_opens", "did_not_open"}  # they follow from opens and sends
V2_REPORTS: Mapping[str, Report] = {
    name: Report(
        name=name,
        path=f"/tracking/{name}",
        row_type=row_type,
        time_field=time_field,
        since_parameter="created_since",
    )
    for name, (row_type, time_field) in _V2_EVENTS.items()
} | {LINKS: Report(name=LINKS, path="", paged=False, in_all=False)}  # in the campaign itself
V3_REPORTS: Mapping[str, Report] = {
    name: Report(
        name=name,
        path=f"/tracking/{path}",
        row_type=row_type,
        time_field="created_time",
        newest_first=True,
        in_all=name not in _DERIVED,
    )
    for name, (path, row_type) in _V3_EVENTS.items()
} | {LINKS: Report(name=LINKS, path="/links", paged=False, in_all=False)}
REPORTS = {"v2": V2_REPORTS, "v3": V3_REPORTS}
"""By version, in the order in which they are harvested."""
V2_STATUSES = ("ALL", "DRAFT", "RUNNING", "SENT", "SCHEDULED", "DELETED")
V3_STATUSES: Mapping[str, str | None] = {
    "ALL": None,
    "DRAFT": "draft",
    "RUNNING": "executing",
    "SENT": "done",
    "SCHEDULED": "scheduled",
    "DELETED": "removed",
    "ERROR": "error",
}
"""The names of v2, and those of v3 in small letters: the API itself writes them in two ways."""
