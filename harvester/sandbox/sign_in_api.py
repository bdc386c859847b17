"""The sign-in as requests and answers: paths, forms, the limit, the faults, the person's page."""

from dataclasses import dataclass, field
from html import escape
from typing import Final

from .answers import Answer, Body
from .corrupt import cancels_effect, corrupted_token
from .dialect import V3_DIALECT
from .faults import Place
from .requests import ParsedRequest, Request, parse_target
from .settings import SandboxSettings
from .sign_in import DEVICE_GRANT, OVER_RATE, SignIn, form_of, oauth_error

_ROOT: Final = "/oauth2/default/v1"
_ROUTES: Final = {
    f"{_ROOT}/device/authorize": "authorize",
    f"{_ROOT}/token": "token",
    "/activate": "activate",
}
_PAGE: Final = """<!DOCTYPE html>
<title>Sandbox</title><h1>{title}</h1>
<form method="post"><input name="user_code" value="{code}">
<button name="decision" value="allow">Allow</button>
<button name="decision" value="deny">Deny</button></form>
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class SignInReply:
    """An answer of the sign-in, and what the log says of it."""

    asked: ParsedRequest
    answer: Answer
    fault: str | None = None
    throttled: bool = False
    authorized: bool = False
    grant_type: str = ""
    secrets: frozenset[str] = field(default_factory=frozenset)


def is_sign_in(path: str) -> bool:
    """Whether a path belongs to the sign-in."""
    return path.startswith("/oauth2/") or path == "/activate"


class SignInApi:
    """Serves the paths of the sign-in."""

    def __init__(self, settings: SandboxSettings, sign_in: SignIn) -> None:
        self._settings, self._sign_in = settings, sign_in
        self._plan = settings.sign_in.fault_plan(settings.seed)
        self._tokens = 0

    def handle(self, request: Request) -> SignInReply:
        """Answer one request."""
        target = parse_target(request.target)
        report, form = _ROUTES.get(target.path, ""), form_of(request)
        asked = ParsedRequest(target=target, wall=request.wall, report=report)
        known = form.get("client_id") == self._settings.client_id
        if not report:
            return SignInReply(asked=asked, answer=V3_DIALECT.not_found)
        if report == "activate":
            return SignInReply(asked=asked, answer=self._activate(request, form, target.params))
        if request.method != "POST":
            return SignInReply(asked=asked, answer=V3_DIALECT.not_allowed)
        if report == "token":
            return self._token(request, asked, form, known=known)
        answer = self._sign_in.authorize(form, _origin(request), request.wall)
        return SignInReply(asked=asked, answer=answer, authorized=known)

    def _token(
        self, request: Request, asked: ParsedRequest, form: dict[str, str], *, known: bool
    ) -> SignInReply:
        self._tokens += 1
        grant_type = form.get("grant_type", "")
        asked = ParsedRequest(
            target=asked.target, wall=request.wall, report="token", page=self._tokens
        )
        shown = "device_code" if grant_type == DEVICE_GRANT else grant_type
        fault, throttled = None, self._sign_in.too_fast(request.now)
        if throttled:
            answer = OVER_RATE
        else:
            fault = self._plan.at(Place("token", "", self._tokens), 1)
            carried_out = fault is None or not cancels_effect(fault)
            answer = self._sign_in.token(form, request.wall) if carried_out else _NOT_DONE
            if fault is not None:
                answer = corrupted_token(answer, fault, self._settings)
        return SignInReply(
            asked=asked,
            answer=answer,
            fault=fault,
            throttled=throttled,
            authorized=known,
            grant_type=shown if shown in ("device_code", "refresh_token") else "",
        )

    def _activate(self, request: Request, form: dict[str, str], params: object) -> Answer:
        """The page on which a person agrees; a POST is the person's decision."""
        code, title = "", "Sign in to the sandbox?"
        if request.method == "POST":
            code = form.get("user_code", "")
            try:
                self._sign_in.decide(code, agree=form.get("decision") == "allow")
                title = "Thank you. You can close this page."
            except KeyError:
                title = "This code is not known."
        elif isinstance(params, dict):
            code = str(params.get("user_code", ""))
        page = _PAGE.format(title=title, code=escape(code, quote=True))
        return Answer(200, Body(page.encode()), "text/html")


_NOT_DONE: Final = oauth_error("server_error", status=500)


def _origin(request: Request) -> str:
    return f"http://{request.headers.get('host', '127.0.0.1')}"
