"""The v3 API without a wire: requests in, answers out, as the OpenAPI description has it.

Parameters that it does not know are ignored. Whether `next` may stand beside others is not
known: here it wins. Paths: `/v3/emails…` and `/v3/reports/…`.
"""

from dataclasses import replace
from typing import Final

from .answers import Answer, AnswerCache, Page
from .cursor import Window, decode
from .dialect import V3_DIALECT
from .paging import placed, report_page
from .reports import V3_REPORTS
from .requests import ParsedRequest, Request, limit_of, moment_of
from .settings import SandboxSettings
from .sign_in import SignIn
from .v3_documents import Documents
from .world import World

_MOST: Final = 500
_LIST_DEFAULT: Final = 50


class V3:
    """The v3 API of an account."""

    dialect: Final = V3_DIALECT

    def __init__(self, settings: SandboxSettings, world: World, sign_in: SignIn) -> None:
        self._settings, self._world, self._sign_in = settings, world, sign_in
        self._documents = Documents(settings, world)
        self._cache = AnswerCache(settings.cache_pages)

    # -- who asks ------------------------------------------------------------------------------

    def app_of(self, request: Request) -> str | Answer:
        """The application whose token it is, or the gateway's refusal."""
        return self._app(request) or self.dialect.unauthenticated

    def authorized(self, request: Request) -> bool:
        """Whether the bearer token is right and in date."""
        return self._app(request) is not None

    def _app(self, request: Request) -> str | None:
        if request.bearer and request.bearer == self._settings.access_token:
            return self._settings.client_id
        return self._sign_in.app_of(request.bearer, request.wall)

    # -- what is asked -------------------------------------------------------------------------

    def read(self, request: Request) -> ParsedRequest:
        """Read a request; never fails, but may find a problem."""
        report, given = _route(request.path)
        asked = ParsedRequest(request=request, report=report)
        if not report:
            return replace(asked, problem=self.dialect.not_found)
        if report == "campaign":
            problem = None if self._has_campaign(given) else self.dialect.not_found
            return replace(asked, campaign_id=given.lower(), problem=problem)
        if report in ("stats", "activity_stats"):
            return replace(asked, activity_id=given)
        if report == "xrefs":
            return asked
        if report != "campaigns":
            asked = self._of_activity(asked, given)
            if asked.problem is not None or report == "links":
                return asked
        try:
            window = _window(request, report)
        except ValueError as error:
            problem = self.dialect.bad_request(str(error))
            return replace(asked, page=int(request.cursor is None), problem=problem)
        if report in V3_REPORTS:
            window = placed(window, self._world.view(report, asked.activity_id))
        return replace(asked, window=window, page=window.start // window.limit + 1)

    def _has_campaign(self, given: str) -> bool:
        try:
            self._world.campaign(given)
        except KeyError:
            return False
        return True

    def _of_activity(self, asked: ParsedRequest, given: str) -> ParsedRequest:
        """The request with its activity and the campaign of it; only mailings have reports."""
        try:
            self._world.activity(given)
        except KeyError:
            return replace(asked, activity_id=given.lower(), problem=self.dialect.not_found)
        activity = given.lower()
        return replace(asked, campaign_id=self._world.v3_id(activity), activity_id=activity)

    # -- what is answered ----------------------------------------------------------------------

    def answer(self, asked: ParsedRequest) -> Answer:
        """The answer of a server that is well. Does not change the world."""
        params = asked.request.params
        match asked.report:
            case "campaign":
                return self._documents.campaign(asked.campaign_id)
            case "links":
                return self._documents.links(asked.activity_id, params)
            case "stats":
                return self._documents.campaign_stats(asked.activity_id, asked.request.wall)
            case "activity_stats":
                return self._documents.activity_stats(asked.activity_id, asked.request.wall)
            case "xrefs":
                return self._documents.xrefs(params)
            case "campaigns":
                return self._spelled(self._documents.campaigns(asked.window, asked.request.path))
        activity, view = asked.activity_id, self._world.view(asked.report, asked.activity_id)
        # A page of a derived report moves with the events of others, so the whole is the key.
        state = (len(view), view.stream.added, self._world.deletions)
        key = (asked.report, activity, asked.window, state)
        return self._cache.get(key, lambda: self._spelled(self._tracking(asked)))

    def page(self, asked: ParsedRequest) -> Page | None:
        """The page that is asked for; None if it is no page."""
        if asked.report == "campaigns":
            return self._documents.campaigns(asked.window, asked.request.path)
        return self._tracking(asked) if asked.report in V3_REPORTS else None

    def _tracking(self, asked: ParsedRequest) -> Page:
        view, path = self._world.view(asked.report, asked.activity_id), asked.request.path
        style, salt = self.dialect.style, int(asked.activity_id[-12:], 16)
        return report_page(view, asked.window, path, style, self._settings, salt)

    def _spelled(self, page: Page) -> Answer:
        return self.dialect.page(page, self._settings.last_page_of(self.dialect.version))


def _route(path: str) -> tuple[str, str]:
    """(report, id or ids) of a path; empty strings for one the API does not have."""
    match path.split("/")[2:]:
        case ["emails"]:
            return "campaigns", ""
        case ["emails", "campaign_id_xrefs"]:
            return "xrefs", ""
        case ["emails", str(given)]:
            return "campaign", given
        case ["reports", "email_reports", str(given), "links"]:
            return "links", given
        case ["reports", "email_reports", str(given), "tracking", str(report)] if (
            report in V3_REPORTS
        ):
            return report, given
        case ["reports", "stats", "email_campaigns", str(ids)]:
            return "stats", ids
        case ["reports", "stats", "email_campaign_activities", str(ids)]:
            return "activity_stats", ids
    return "", ""


def _window(request: Request, report: str) -> Window:
    """The part of the list that is asked for; ValueError with what is wrong with the asking."""
    if request.cursor is not None:
        try:
            return decode(request.cursor)
        except ValueError as error:
            raise ValueError(f"The value of next is not valid: {error}") from error
    default = _MOST if report in V3_REPORTS else _LIST_DEFAULT
    limit = limit_of(request.params, default=default, most=_MOST)
    if report != "campaigns":
        return Window(limit=limit)
    return Window(
        limit=limit,
        since_ms=moment_of(request.params, "after_date"),
        before_ms=moment_of(request.params, "before_date"),
    )
