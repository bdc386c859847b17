"""What became of a request, before it goes over the wire and into the log."""

from dataclasses import dataclass
from typing import Final

from .answers import Answer
from .log import Hit
from .requests import ParsedRequest, Request

_NO_STATUS: Final = ("reset", "lost", "timeout")


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """The answer to a request, the fault that hits it, and what is to be known of both.

    `throttled`: a limit refused it. `authorized`: its token was right; of the sign-in: its client
    id was. `grant_type`: of a token request, `device_code` or `refresh_token`.
    """

    asked: ParsedRequest
    answer: Answer
    fault: str | None = None
    throttled: bool = False
    authorized: bool = False
    grant_type: str = ""


def hit_of(request: Request, outcome: Outcome) -> Hit:
    """The line of the log."""
    asked, target = outcome.asked, outcome.asked.target
    return Hit(
        at=request.now,
        wall=request.wall,
        method=request.method,
        path=target.path,
        query=target.query,
        report=asked.report,
        campaign_id=asked.campaign_id,
        page=asked.page,
        cursor=target.cursor,
        status=0 if outcome.fault in _NO_STATUS else outcome.answer.status,
        fault=outcome.fault,
        throttled=outcome.throttled,
        api_key="api_key" in target.params,
        authorized=outcome.authorized,
        activity_id=asked.activity_id,
        grant_type=outcome.grant_type,
    )
