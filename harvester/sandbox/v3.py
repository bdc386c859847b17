"""The v3 API without a wire: requests in, answers out, as the OpenAPI description has it.

Parameters that it does not know are ignored. Whether `next` may stand beside others is not
known: here it wins. Paths: `/v3/emails…` and `/v3/reports/…`.
"""

from dataclasses import replace
from typing import Final

from .answers import Answer, Page
from .cursor import Window, decode
from .dialect import V3_DIALECT
from .reports import V3_REPORTS
from .requests import ParsedRequest, Request, limit_of, moment_of
from .settings import SandboxSettings
from .sign_in import SignIn
from .v3_documents import Documents
from .version import Version, is_known
from .world import World

_MOST: Final = 500
_LIST_DEFAULT: Final = 50


class V3(Version):
    """The v3 API of an account."""

    dialect = V3_DIALECT
    reports = V3_REPORTS

    def __init__(self, settings: SandboxSettings, world: World, sign_in: SignIn) -> None:
        super().__init__(settings, world)
        self._sign_in = sign_in
        self._documents = Documents(settings, world)

    def app_of(self, request: Request) -> str | Answer:
        return self._app(request) or self.dialect.unauthenticated

    def authorized(self, request: Request) -> bool:
        return self._app(request) is not None

    def _app(self, request: Request) -> str | None:
        if request.bearer and request.bearer == self._settings.access_token:
            return self._settings.client_id
        return self._sign_in.app_of(request.bearer, request.wall)

    def read(self, request: Request) -> ParsedRequest:
        report, given = _route(request.path)
        asked, known = ParsedRequest(request=request, report=report), bool(report)
        if report in ("stats", "activity_stats"):
            asked = replace(asked, activity_id=given)
        elif report == "campaign":
            asked = replace(asked, campaign_id=given.lower())
            known = is_known(self._world.campaign, given)
        elif report not in ("", "campaigns", "xrefs"):  # only mailings have reports
            asked = replace(asked, activity_id=given.lower())
            known = is_known(self._world.activity, given)
            if known:
                asked = replace(asked, campaign_id=self._world.v3_id(given.lower()))
        return self._placed(asked) if known else replace(asked, problem=self.dialect.not_found)

    def _window(self, request: Request, report: str) -> Window:
        if request.cursor is not None:
            return decode(request.cursor)
        params = request.params
        default = _LIST_DEFAULT if report == "campaigns" else _MOST
        limit = limit_of(params, default=default, most=_MOST)
        if report != "campaigns":
            return Window(limit=limit)
        return Window(limit=limit, since_ms=moment_of(params, "after_date"))

    def _campaigns(self, window: Window, path: str) -> Page:
        return self._documents.campaigns(window, path)

    def _document(self, asked: ParsedRequest) -> Answer:
        request = asked.request
        match asked.report:
            case "campaign":
                return self._documents.campaign(asked.campaign_id)
            case "links":
                return self._documents.links(asked.activity_id)
            case "stats":
                return self._documents.campaign_stats(asked.activity_id, request.wall)
            case "activity_stats":
                return self._documents.activity_stats(asked.activity_id, request.wall)
        return self._documents.xrefs(request.params)


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
