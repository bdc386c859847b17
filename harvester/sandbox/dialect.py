"""What the versions say differently: their errors and the envelope round the rows of a page.

v2: errors are arrays, too fast is a 403, `meta` comes before the rows. v3: errors are arrays or
bare objects, too fast is a 429, `_links` comes after the rows. Source: the vendor's pages of
errors, limits and paging; the 401 of v3 as recorded.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from .answers import Answer, Page, refusal
from .cursor import Style
from .settings import SandboxSettings

_V2_LAST: Final[Mapping[str, str]] = {
    "absent": '"meta":{"pagination":{}},',
    "null": '"meta":{"pagination":{"next_link":null}},',
    "empty": '"meta":{"pagination":{"next_link":""}},',
    "no_pagination": '"meta":{},',
    "no_meta": "",
}
_V3_LAST: Final[Mapping[str, str]] = {
    "absent": "",
    "null": ',"_links":null',
    "next_null": ',"_links":{"next":null}',
    "href_null": ',"_links":{"next":{"href":null}}',
}


def v2_members(page: Page, settings: SandboxSettings) -> str:
    """The members of a page of v2."""
    meta = f'"meta":{{"pagination":{{"next_link":"{page.link}"}}}},'
    return f'{meta if page.link else _V2_LAST[settings.last_page]}"{page.member}":[{page.rows}]'


def v3_members(page: Page, settings: SandboxSettings) -> str:
    """The members of a page of v3."""
    links = f',"_links":{{"next":{{"href":"{page.link}"}}}}'
    return f'"{page.member}":[{page.rows}]{links if page.link else _V3_LAST[settings.v3_last_page]}'


def error(status: int, error_key: str, message: str) -> Answer:
    """An error of either version, in an array."""
    return refusal(status, [{"error_key": error_key, "error_message": message}])


def _object(status: int, error_key: str, message: str, **headers: str) -> Answer:
    return refusal(status, {"error_key": error_key, "error_message": message}, **headers)


@dataclass(frozen=True, kw_only=True, slots=True)
class Dialect:
    """How one version refuses and pages.

    `style`: how its cursors are spelled. `member`: the JSON member with the rows of a report.
    """

    style: Style
    member: str
    unauthenticated: Answer
    forbidden: Answer
    not_acceptable: Answer
    not_allowed: Answer
    not_found: Answer
    over_rate: Answer
    over_day: Answer
    bad_request_key: str
    members: Callable[[Page, SandboxSettings], str]
    wrong_shapes: tuple[bytes, ...]

    def bad_request(self, message: str) -> Answer:
        """400 for a parameter that cannot be served."""
        return error(400, self.bad_request_key, message)

    def page(self, page: Page, settings: SandboxSettings) -> Answer:
        """A page as the vendor's example spells it."""
        body = f"{{{self.members(page, settings)}}}".encode()
        return Answer(200, body, more=page.link is not None)


INACTIVE: Final = error(403, "mashery.not.authorized.inactive", "Account Inactive")
"""v2's answer to an API key that is unknown."""

_SEEN: Final = "The Mashery account associated with this request is over its "

V2_DIALECT: Final = Dialect(
    style="startAt",
    member="results",
    unauthenticated=error(
        401, "http.status.authentication.invalid_token", "Token is invalid, expired or was revoked"
    ),
    forbidden=error(403, "http.status.forbidden", "The privilege contacts:read is missing"),
    not_acceptable=error(406, "http.status.not_acceptable", "Accept must be application/json"),
    not_allowed=error(405, "http.status.method_not_allowed", "Only GET is served"),
    not_found=error(404, "http.status.not_found", "Resource not found"),
    over_rate=error(403, "mashery.not.authorized.over.qps", _SEEN + "queries-per-second quota"),
    over_day=error(403, "mashery.not.authorized.over.ratelimit", _SEEN + "rate limit"),
    bad_request_key="http.status.bad_request",
    members=v2_members,
    wrong_shapes=(
        b"[]",
        b"null",
        b"{}",
        b'"ok"',
        b'{"meta":{"pagination":{}}}',
        b'{"meta":{"pagination":{}},"results":null}',
        b'{"meta":{"pagination":{}},"results":{"0":{}}}',
        b'{"meta":{"pagination":{}},"results":[1,"two",null]}',
        b'{"meta":{"pagination":{"next_link":["/v2/"]}},"results":[]}',
    ),
)

V3_DIALECT: Final = Dialect(
    style="o",
    member="tracking_activities",
    unauthenticated=_object(
        401,
        "unauthorized",
        "Unauthorized",
        **{
            "x-amzn-ErrorType": "UnauthorizedException",
            "WWW-Authenticate": "Bearer realm=api.cc.email",
        },
    ),
    forbidden=error(403, "forbidden", "The privilege ui:campaign:metrics is missing"),
    not_acceptable=error(406, "not_acceptable", "Accept must be application/json"),
    not_allowed=_object(405, "method_not_allowed", "Only GET is served"),
    not_found=error(404, "not_found", "Unable to find the resource"),
    over_rate=_object(429, "throttled", "Too Many Requests"),
    over_day=_object(429, "quota_exceeded", "Limit Exceeded"),
    bad_request_key="bad_request",
    members=v3_members,
    wrong_shapes=(
        b"[]",
        b"null",
        b"{}",
        b'"ok"',
        b'{"_links":{"next":null}}',
        b'{"tracking_activities":null,"campaigns":null,"results":null}',
        b'{"tracking_activities":{"0":{}},"campaigns":{},"results":{}}',
        b'{"tracking_activities":[1,"two",null],"campaigns":[1],"results":[null]}',
        b'{"tracking_activities":[],"campaigns":[],"results":{},"_links":{"next":["/v3/"]}}',
    ),
)
