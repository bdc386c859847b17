"""The sign-in as requests and answers: paths, forms, the limit, the faults, the person's page."""

from collections.abc import Mapping
from dataclasses import replace
from html import escape
from typing import Final

from .answers import Answer, refusal
from .corrupt import EMPTY, HTML, NAMELESS_429, redirect
from .dialect import V3_DIALECT
from .faults import Place, status_of
from .limits import judge_of
from .log import Outcome
from .requests import ParsedRequest, Request
from .settings import SandboxSettings
from .sign_in import DEVICE_GRANT, OVER_RATE, SignIn, form_of, oauth_error

_ROOT: Final = "/oauth2/default/v1"
_TOKEN: Final = f"{_ROOT}/token"
_ROUTES: Final = {
    f"{_ROOT}/device/authorize": "authorize",
    _TOKEN: "token",
    "/activate": "activate",
}
_GRANT_TYPES: Final = {DEVICE_GRANT: "device_code", "refresh_token": "refresh_token"}
_PAGE: Final = """<!DOCTYPE html>
<title>Sandbox</title><h1>{title}</h1>
<form method="post"><input name="user_code" value="{code}">
<button name="decision" value="allow">Allow</button>
<button name="decision" value="deny">Deny</button></form>
"""
_NO_ANSWER: Final = refusal(500, {})
_REFUSALS: Final[Mapping[str, Answer]] = {
    "throttle": OVER_RATE,
    "throttle429": NAMELESS_429,
    "quota": OVER_RATE,
    "auth": oauth_error("invalid_client", status=401),
    "forbidden": oauth_error("access_denied", status=403),
    "html": HTML,
    "empty": EMPTY,
    "wrong_shape": Answer(200, b'{"access_token":null,"expires_in":"soon"}'),
    "error_in_200": Answer(200, b'{"error":"temporarily_unavailable"}'),
    "reset": _NO_ANSWER,
    "timeout": _NO_ANSWER,
}


def is_sign_in(path: str) -> bool:
    """Whether a path belongs to the sign-in."""
    return path.startswith("/oauth2/") or path == "/activate"


class SignInApi:
    """Serves the paths of the sign-in."""

    def __init__(self, settings: SandboxSettings, sign_in: SignIn) -> None:
        self._settings, self._sign_in = settings, sign_in
        self._plan = settings.sign_in.fault_plan(settings.seed)
        self._judge = judge_of("sliding", settings.sign_in.rate_limit, 0)
        self._tokens = 0

    def handle(self, request: Request) -> Outcome:
        """Answer one request."""
        report, form = _ROUTES.get(request.path, ""), form_of(request)
        # What stands in the query may be a secret: only the names go into the log.
        logged = replace(request, target=f"{request.path}?{'&'.join(request.params)}")
        asked = ParsedRequest(request=logged, report=report)
        if not report:
            return Outcome(asked=asked, answer=V3_DIALECT.not_found)
        if report == "activate":
            answer = self._activate(request.method, form, request.params)
            return Outcome(asked=asked, answer=answer)
        if request.method != "POST":
            return Outcome(asked=asked, answer=V3_DIALECT.not_allowed)
        if report == "token":
            outcome = self._token(request, asked, form)
        else:
            answer = self._sign_in.authorize(form, _origin(request), request.wall)
            outcome = Outcome(asked=asked, answer=answer)
        return replace(outcome, authorized=form.get("client_id") == self._settings.client_id)

    def _token(self, request: Request, asked: ParsedRequest, form: Mapping[str, str]) -> Outcome:
        """One request at the token endpoint. Its page in the log is its number."""
        self._tokens += 1
        asked = replace(asked, page=self._tokens)
        grant_type = _GRANT_TYPES.get(form.get("grant_type", ""), "")
        if not self._judge.admit(request.now):
            return Outcome(asked=asked, answer=OVER_RATE, throttled=True, grant_type=grant_type)
        fault = self._plan.at(Place("token", "", self._tokens), 1)
        refused = token_refusal(fault, self._settings) if fault else None
        answer = refused or self._sign_in.token(form, request.wall)
        return Outcome(asked=asked, answer=answer, fault=fault, grant_type=grant_type)

    def _activate(self, method: str, form: Mapping[str, str], params: Mapping[str, str]) -> Answer:
        """The page on which a person agrees; a POST is the person's decision."""
        code, title = params.get("user_code", ""), "Sign in to the sandbox?"
        if method == "POST":
            code = form.get("user_code", "")
            try:
                self._sign_in.decide(code, agree=form.get("decision") == "allow")
                title = "Thank you. You can close this page."
            except KeyError:
                title = "This code is not known."
        page = _PAGE.format(title=title, code=escape(code, quote=True))
        return Answer(200, page.encode(), "text/html")


def token_refusal(kind: str, settings: SandboxSettings) -> Answer | None:
    """What a token request is answered that is not carried out; None if it is carried out."""
    if kind == "redirect":
        return redirect(_TOKEN, settings)
    if (status := status_of(kind)) is not None:
        return refusal(status, {"errorCode": "E0000009", "errorSummary": "Simulated"})
    return _REFUSALS.get(kind)


def _origin(request: Request) -> str:
    return f"http://{request.headers.get('host', '127.0.0.1')}"
