"""The v2 API without a wire: requests in, answers out, as the vendor's pages describe it.

`limit` is 1-500 for tracking and 1-50 for the campaign list, both defaulting to the most;
`created_since` needs a time zone; `next` may only be used by itself, beside api_key.
"""

from dataclasses import replace
from typing import Final

from .answers import Answer, AnswerCache, Page, document
from .cursor import Window, decode
from .dialect import INACTIVE, V2_DIALECT
from .mailings import STATUSES
from .paging import list_page, placed, report_page
from .reports import REPORTS
from .requests import ParsedRequest, Request, limit_of, moment_of
from .settings import SandboxSettings
from .world import World

_ROOT: Final = ["", "v2", "emailmarketing", "campaigns"]
_MOST: Final = {"campaigns": 50}
_MOST_ROWS: Final = 500


class V2:
    """The v2 API of an account."""

    dialect: Final = V2_DIALECT

    def __init__(self, settings: SandboxSettings, world: World) -> None:
        self._settings, self._world = settings, world
        self._cache = AnswerCache(settings.cache_pages)

    # -- who asks ------------------------------------------------------------------------------

    def app_of(self, request: Request) -> str | Answer:
        """The application that asks, or the gateway's refusal."""
        key = request.params.get("api_key")
        return key if key == self._settings.api_key else INACTIVE

    def authorized(self, request: Request) -> bool:
        """Whether the bearer token is right."""
        return bool(request.bearer) and request.bearer == self._settings.access_token

    # -- what is asked -------------------------------------------------------------------------

    def read(self, request: Request) -> ParsedRequest:
        """Read a request; never fails, but may find a problem."""
        report, campaign_id = _route(request.path)
        asked = ParsedRequest(request=request, report=report, campaign_id=campaign_id)
        if not report or (campaign_id and not self._has(campaign_id)):
            return replace(asked, problem=self.dialect.not_found)
        if report in ("campaign", "summary"):
            return asked
        try:
            window = _window(request, report)
        except ValueError as error:
            problem = self.dialect.bad_request(str(error))
            return replace(asked, page=int(request.cursor is None), problem=problem)
        if report in REPORTS:
            window = placed(window, self._world.view(report, campaign_id))
        return replace(asked, window=window, page=window.start // window.limit + 1)

    def _has(self, campaign_id: str) -> bool:
        try:
            self._world.v2_campaign(campaign_id)
        except KeyError:
            return False
        return True

    # -- what is answered ----------------------------------------------------------------------

    def answer(self, asked: ParsedRequest) -> Answer:
        """The answer of a server that is well. Does not change the world."""
        fresh = asked.request.params.get("updateSummary") == "true"
        match asked.report:
            case "campaigns":
                return self._spelled(self._campaigns(asked))
            case "campaign":
                return self._campaign(asked.campaign_id, fresh=fresh)
            case "summary":
                return document(self._summary(asked.campaign_id, fresh=fresh))
        arrived = self._world.arrived(asked.report, asked.campaign_id)
        key = (asked.report, asked.campaign_id, asked.window, arrived)
        return self._cache.get(key, lambda: self._spelled(self._tracking(asked)))

    def page(self, asked: ParsedRequest) -> Page | None:
        """The page that is asked for; None if it is no page."""
        if asked.report == "campaigns":
            return self._campaigns(asked)
        return self._tracking(asked) if asked.report in REPORTS else None

    def _campaigns(self, asked: ParsedRequest) -> Page:
        window = asked.window
        ids = self._world.listing(window.status, window.since_ms)
        here = ids[window.start : window.start + window.limit + 1]
        rows: list[object] = [self._world.brief(campaign_id) for campaign_id in here]
        return list_page("results", rows, window, asked.request.path, "pageNum")

    def _tracking(self, asked: ParsedRequest) -> Page:
        view, path = self._world.view(asked.report, asked.campaign_id), asked.request.path
        style, salt = self.dialect.style, int(asked.campaign_id)
        return report_page(view, asked.window, path, style, self._settings, salt)

    def _spelled(self, page: Page) -> Answer:
        return self.dialect.page(page, self._settings.last_page_of(self.dialect.version))

    def _campaign(self, campaign_id: str, *, fresh: bool) -> Answer:
        if self._world.status(campaign_id) == "DELETED":
            return self.dialect.not_found
        summary = self._summary(campaign_id, fresh=fresh)
        return document(self._world.detail(campaign_id) | {"tracking_summary": summary})

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


def _window(request: Request, report: str) -> Window:
    """The part of the list that is asked for; ValueError with what is wrong with the asking."""
    params = request.params
    if request.cursor is not None:
        if beside := params.keys() - {"next", "api_key", "access_token"}:
            others = ", ".join(sorted(beside))
            raise ValueError(f"next may only be used by itself, not with {others}")
        try:
            return decode(request.cursor)
        except ValueError as error:
            raise ValueError(f"The value of next is not valid: {error}") from error
    most = _MOST.get(report, _MOST_ROWS)
    limit = limit_of(params, default=most, most=most)
    status = params.get("status", "ALL")
    if status != "ALL" and status not in STATUSES:
        raise ValueError("The value of status is not valid")
    since = "modified_since" if report == "campaigns" else "created_since"
    return Window(limit=limit, since_ms=moment_of(params, since), status=status)
