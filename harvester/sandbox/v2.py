"""The v2 API without a wire: requests in, answers out, as the vendor's pages describe it.

`limit` is 1-500 for tracking and 1-50 for the campaign list, both defaulting to the most;
`created_since` needs a time zone; `next` may only be used by itself, beside api_key.
"""

from dataclasses import replace
from typing import Final

from .answers import Answer, Page, document
from .cursor import Window, decode
from .dialect import INACTIVE, V2_DIALECT
from .mailings import STATUSES
from .reports import REPORTS
from .requests import ParsedRequest, Request, limit_of, moment_of
from .version import Version, is_known, list_page

_ROOT: Final = ["", "v2", "emailmarketing", "campaigns"]
_MOST: Final = {"campaigns": 50}
_MOST_ROWS: Final = 500


class V2(Version):
    """The v2 API of an account."""

    dialect = V2_DIALECT
    reports = REPORTS

    def app_of(self, request: Request) -> str | Answer:
        key = request.params.get("api_key")
        return key if key == self._settings.api_key else INACTIVE

    def authorized(self, request: Request) -> bool:
        return bool(request.bearer) and request.bearer == self._settings.access_token

    def read(self, request: Request) -> ParsedRequest:
        report, campaign_id = _route(request.path)
        asked = ParsedRequest(request=request, report=report, campaign_id=campaign_id)
        if not report or (campaign_id and not is_known(self._world.v2_campaign, campaign_id)):
            return replace(asked, problem=self.dialect.not_found)
        return self._placed(asked)

    def _window(self, request: Request, report: str) -> Window:
        params = request.params
        if request.cursor is not None:
            if beside := params.keys() - {"next", "api_key", "access_token"}:
                others = ", ".join(sorted(beside))
                raise ValueError(f"next may only be used by itself, not with {others}")
            return decode(request.cursor)
        status = params.get("status", "ALL")
        if status != "ALL" and status not in STATUSES:
            raise ValueError("The value of status is not valid")
        most = _MOST.get(report, _MOST_ROWS)
        since = "modified_since" if report == "campaigns" else "created_since"
        limit, since_ms = limit_of(params, default=most, most=most), moment_of(params, since)
        return Window(limit=limit, since_ms=since_ms, status=status)

    def _campaigns(self, window: Window, path: str) -> Page:
        mailings = self._world.latest_mailings(window.status, window.since_ms)
        return list_page("results", mailings, self._brief, window, path, "pageNum")

    def _brief(self, mailing: int) -> dict[str, str]:
        return self._world.brief(self._world.mailings.ids.v2(mailing))

    def _document(self, asked: ParsedRequest) -> Answer:
        fresh = asked.request.params.get("updateSummary") == "true"
        summary = self._summary(asked.campaign_id, fresh=fresh)
        if asked.report == "summary":
            return document(summary)
        if self._world.status(asked.campaign_id) == "DELETED":
            return self.dialect.not_found
        return document(self._world.detail(asked.campaign_id) | {"tracking_summary": summary})

    def _summary(self, campaign_id: str, *, fresh: bool) -> dict[str, int | str]:
        """What is said of a campaign's recipients; not always the truth."""
        summary = self._world.summary(campaign_id, fresh=fresh)
        if campaign_id in self._settings.doctored:
            summary["opens"] += 1
        return self._settings.counts.spell(summary, int(campaign_id))


def _route(path: str) -> tuple[str, str]:
    """(report, campaign id) of a path; empty strings for one the API does not have."""
    parts = path.split("/")
    if parts[:4] != _ROOT:
        return "", ""
    match parts[4:]:
        case []:
            return "campaigns", ""
        case [str(campaign_id)] if campaign_id:
            return "campaign", campaign_id
        case [str(campaign_id), "tracking", str(report)] if campaign_id and report in REPORTS:
            return report, campaign_id
        case [str(campaign_id), "tracking", "reports", "summary"] if campaign_id:
            return "summary", campaign_id
    return "", ""
