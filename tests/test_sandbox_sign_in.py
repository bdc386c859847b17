"""The simulated sign-in: the device flow, the renewal of tokens, and what goes wrong there."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

import aiohttp
import orjson
import pytest

from harvester.sandbox import (
    Reply,
    Request,
    Sandbox,
    SandboxSettings,
    Service,
    SignInSettings,
)
from harvester.sandbox.sign_in import DEVICE_GRANT

ROOT = "/oauth2/default/v1"
SCOPE = "campaign_data offline_access"
APP = "sandbox-key"
DAY = 86_400.0


class Person:
    """A client that signs in, and the clock of its world."""

    def __init__(self, settings: SandboxSettings) -> None:
        self.service = Service(settings)
        self.wall = 1_800_000_000.0

    def post(self, path: str, **form: str) -> Reply:
        """One form, two seconds after the one before."""
        self.wall += 2
        return self.at_once(path, form)

    def at_once(self, path: str, form: Mapping[str, str]) -> Reply:
        """One form, at the same moment as the one before."""
        request = Request(
            method="POST",
            target=path,
            headers={
                "content-type": "application/x-www-form-urlencoded; charset=utf-8",
                "host": "127.0.0.1:9",
            },
            body=urlencode(form).encode(),
            now=self.wall,
            wall=self.wall,
        )
        return self.service.handle(request)

    def authorize(self, scope: str = SCOPE) -> Any:
        """A device code, with what a person needs."""
        return said(self.post(f"{ROOT}/device/authorize", client_id=APP, scope=scope))

    def poll(self, code: str) -> Any:
        """What the token endpoint says of a device code."""
        return said(
            self.post(f"{ROOT}/token", client_id=APP, device_code=code, grant_type=DEVICE_GRANT)
        )

    def sign_in(self, scope: str = SCOPE) -> Any:
        """The first tokens."""
        return self.poll(self.authorize(scope)["device_code"])

    def renew(self, token: str) -> Any:
        """What the token endpoint says of a refresh token."""
        form = {"client_id": APP, "refresh_token": token, "grant_type": "refresh_token"}
        return said(self.post(f"{ROOT}/token", **form))

    def status(self, token: str) -> int:
        """How v3 answers an access token."""
        headers = {"authorization": f"Bearer {token}"}
        request = Request(target="/v3/emails", headers=headers, now=self.wall, wall=self.wall)
        return self.service.handle(request).answer.status


def person(**sign_in: Any) -> Person:
    """Someone in front of a small account."""
    sign_in = {"interval": 1, **sign_in}
    return Person(SandboxSettings(campaigns=2, pages=2, sign_in=SignInSettings(**sign_in)))


def said(reply: Reply) -> Any:
    return orjson.loads(reply.answer.body)


# -- the device flow ----------------------------------------------------------------------------


async def test_whole_sign_in_over_http() -> None:
    """A code, a page, a person who agrees on it, tokens, a report, a renewal."""
    settings = SandboxSettings(sign_in=SignInSettings(person="waits", interval=0, rate_limit=0))
    async with Sandbox(settings) as sandbox, aiohttp.ClientSession() as session:

        async def post(path: str, **form: str) -> tuple[int, Any]:
            async with session.post(f"{sandbox.base_url}{ROOT}/{path}", data=form) as answer:
                return answer.status, await answer.json()

        status, code = await post("device/authorize", client_id=APP, scope=SCOPE)
        assert status == 200
        assert code["verification_uri"] == f"{sandbox.base_url}/activate"
        form = {
            "client_id": APP,
            "device_code": code["device_code"],
            "grant_type": DEVICE_GRANT,
        }
        assert await post("token", **form) == (
            400,
            {
                "error": "authorization_pending",
                "error_description": "The person has not decided yet.",
            },
        )
        async with session.get(code["verification_uri_complete"]) as page:
            assert code["user_code"] in await page.text()
        decision = {"user_code": code["user_code"], "decision": "allow"}
        async with session.post(code["verification_uri"], data=decision) as page:
            assert "Thank you" in await page.text()
        status, tokens = await post("token", **form)
        assert (status, tokens["token_type"], tokens["expires_in"]) == (200, "Bearer", 86_400)
        assert tokens["scope"] == SCOPE
        headers = {"Authorization": f"Bearer {tokens['access_token']}"}
        async with session.get(f"{sandbox.base_url}/v3/emails", headers=headers) as answer:
            assert answer.status == 200
        status, renewed = await post(
            "token",
            client_id=APP,
            grant_type="refresh_token",
            refresh_token=tokens["refresh_token"],
        )
        assert status == 200
        assert renewed["access_token"] != tokens["access_token"]
        assert [hit.report for hit in sandbox.log] == [
            *("authorize", "token", "activate", "activate", "token", "campaigns", "token"),
        ]


def test_code_is_for_a_person_and_for_a_device() -> None:
    """What each answer holds; no two codes are alike."""
    someone = person(device_code_age=600)
    one, other = someone.authorize(), someone.authorize()
    assert (one["expires_in"], one["interval"]) == (600, 1)
    assert one["verification_uri"] == "http://127.0.0.1:9/activate"
    assert one["verification_uri_complete"].endswith(f"/activate?user_code={one['user_code']}")
    assert len(one["user_code"]) == 9
    assert one["user_code"] != other["user_code"]
    assert one["device_code"] != other["device_code"]


@pytest.mark.parametrize("polls", [0, 1, 5])
def test_person_agrees_after_some_polls(polls: int) -> None:
    """So often the answer is `authorization_pending`; the code is good for one exchange."""
    someone = person(person="waits")
    code = someone.authorize()
    answers = [someone.poll(code["device_code"]) for _ in range(polls)]
    someone.service.sign_in.decide(code["user_code"], agree=True)
    answers += [someone.poll(code["device_code"]) for _ in range(2)]
    assert [each.get("error") for each in answers] == [
        *["authorization_pending"] * polls,
        None,
        "invalid_grant",
    ]


def test_person_may_deny() -> None:
    """Who denies is told so once."""
    someone = person(person="denies")
    code = someone.authorize()["device_code"]
    answers = [someone.poll(code)["error"] for _ in range(2)]
    assert answers == ["access_denied", "invalid_grant"]


def test_code_expires() -> None:
    """After its time no person can agree to it."""
    someone = person(person="waits", device_code_age=60)
    code = someone.authorize()
    someone.wall += 60
    assert someone.poll(code["device_code"])["error"] == "expired_token"
    with pytest.raises(KeyError):
        someone.service.sign_in.decide(code["user_code"], agree=True)


def test_hasty_polls_are_told_to_slow_down() -> None:
    """The interval grows by five seconds each time, and is kept."""
    someone = person(interval=5, rate_limit=0, person="waits")
    shown = someone.authorize()
    code = shown["device_code"]
    assert someone.poll(code)["error"] == "authorization_pending"
    assert someone.poll(code)["error"] == "slow_down"
    someone.wall += 6
    assert someone.poll(code)["error"] == "slow_down"
    someone.service.sign_in.decide(shown["user_code"], agree=True)
    someone.wall += 13
    assert "access_token" in someone.poll(code)


def test_test_may_be_the_person() -> None:
    """It decides by the code that was shown; a wrong one is an error."""
    someone = person(person="waits")
    codes = [someone.authorize() for _ in range(2)]
    someone.service.sign_in.decide(codes[0]["user_code"], agree=True)
    someone.service.sign_in.decide(codes[1]["user_code"], agree=False)
    assert "access_token" in someone.poll(codes[0]["device_code"])
    assert someone.poll(codes[1]["device_code"])["error"] == "access_denied"
    with pytest.raises(KeyError):
        someone.service.sign_in.decide("BCDF-GHJK", agree=True)


@pytest.mark.parametrize(
    ("path", "form", "status", "error"),
    [
        ("device/authorize", {"client_id": "other", "scope": SCOPE}, 401, "invalid_client"),
        ("device/authorize", {"scope": SCOPE}, 401, "invalid_client"),
        ("device/authorize", {"client_id": APP}, 400, "invalid_scope"),
        ("token", {"client_id": "other", "grant_type": "refresh_token"}, 401, "invalid_client"),
        ("token", {"client_id": APP}, 400, "unsupported_grant_type"),
        ("token", {"client_id": APP, "grant_type": "password"}, 400, "unsupported_grant_type"),
        ("token", {"client_id": APP, "grant_type": "refresh_token"}, 400, "invalid_grant"),
        ("token", {"client_id": APP, "grant_type": DEVICE_GRANT}, 400, "invalid_grant"),
    ],
)
def test_wrong_forms_are_refused(path: str, form: dict[str, str], status: int, error: str) -> None:
    """As RFC 6749 spells it."""
    reply = person().post(f"{ROOT}/{path}", **form)
    assert (reply.answer.status, said(reply)["error"]) == (status, error)


def test_a_form_is_no_query_and_no_json() -> None:
    """What does not stand in a form body was not said; other paths and methods are not there."""
    service = person().service
    form = urlencode({"client_id": APP, "scope": SCOPE})
    typed = {"content-type": "application/json"}
    requests = (
        Request(method="POST", target=f"{ROOT}/device/authorize?{form}", now=0, wall=0),
        Request(
            method="POST",
            target=f"{ROOT}/device/authorize",
            headers=typed,
            body=form.encode(),
            now=0,
            wall=0,
        ),
        Request(method="GET", target=f"{ROOT}/token", now=0, wall=0),
        Request(method="POST", target=f"{ROOT}/authorize", now=0, wall=0),
    )
    found = [service.handle(request) for request in requests]
    assert [reply.answer.status for reply in found] == [401, 401, 405, 404]
    assert found[0].hit.query == "client_id&scope"


# -- tokens -------------------------------------------------------------------------------------


def test_access_token_looks_real_and_ages() -> None:
    """Three parts, about a thousand characters; it dies in time, and a changed one at once."""
    someone = person(access_token_age=4)
    token = someone.sign_in()["access_token"]
    assert 900 <= len(token) <= 1_300
    assert token.count(".") == 2
    assert someone.status(token) == 200
    someone.wall += 3.9
    assert someone.status(token) == 200
    someone.wall += 0.1
    assert someone.status(token) == 401
    for wrong in ("", "x", "a.b.c", token[:-1], "é" + token, token.replace(".", "", 1)):
        assert someone.status(wrong) == 401


def test_access_token_outlives_a_restart() -> None:
    """It carries its own proof: a server with the same seed knows it, one with another does not."""
    token = person().sign_in()["access_token"]
    assert person().status(token) == 200
    assert Person(SandboxSettings(campaigns=2, pages=2, seed=2)).status(token) == 401


def test_rotating_refresh_tokens_are_for_one_use() -> None:
    """A new one ends the earlier ones; a used one ends nothing else."""
    someone = person()
    first = someone.sign_in()["refresh_token"]
    second = someone.renew(first)["refresh_token"]
    assert someone.renew(first) == {
        "error": "invalid_grant",
        "error_description": "The refresh token is invalid or expired.",
    }
    third = someone.renew(second)["refresh_token"]
    assert len({first, second, third}) == 3
    assert someone.renew(second)["error"] == "invalid_grant"
    assert "access_token" in someone.renew(third)


@pytest.mark.parametrize(("later", "good"), [(0, True), (27.9, True), (28.1, False)])
def test_leeway_lets_a_used_token_once_more(later: float, good: bool) -> None:
    """Within so many seconds after its use, once; the tokens of the lost answer give way."""
    someone = person(leeway=30)
    first = someone.sign_in()["refresh_token"]
    lost = someone.renew(first)["refresh_token"]
    someone.wall += later
    again = someone.renew(first)
    assert ("refresh_token" in again) is good
    assert someone.renew(first)["error"] == "invalid_grant"
    if good:
        assert "refresh_token" in someone.renew(again["refresh_token"])
        assert someone.renew(lost)["error"] == "invalid_grant"


@pytest.mark.parametrize(("kind", "comes_back"), [("long_lived", True), ("silent", False)])
def test_long_lived_refresh_tokens_stay(kind: str, comes_back: bool) -> None:
    """The same one comes back with each new access token, or none does."""
    someone = person(refresh_tokens=kind)
    token = someone.sign_in()["refresh_token"]
    answers = [someone.renew(token) for _ in range(3)]
    assert {each.get("refresh_token") for each in answers} == {token if comes_back else None}
    assert len({each["access_token"] for each in answers}) == 3


@pytest.mark.parametrize(("kind", "scope"), [("none", SCOPE), ("rotating", "campaign_data")])
def test_there_may_be_no_refresh_token(kind: str, scope: str) -> None:
    """Where the app gets none, or did not ask for offline access."""
    tokens = person(refresh_tokens=kind).sign_in(scope)
    assert "access_token" in tokens
    assert "refresh_token" not in tokens


def test_refresh_token_dies_of_disuse() -> None:
    """After 180 days without use; each use begins them anew."""
    someone = person()
    token = someone.sign_in()["refresh_token"]
    for _ in range(3):
        someone.wall += 179 * DAY
        token = someone.renew(token)["refresh_token"]
    someone.wall += 180 * DAY
    assert someone.renew(token)["error"] == "invalid_grant"


def test_accounts_of_an_app_share_its_day() -> None:
    """Two people, one client id, one quota; the sign-in costs nothing of it."""
    someone = Person(SandboxSettings(quota=2, sign_in=SignInSettings(interval=1)))
    one, other = (someone.sign_in()["access_token"] for _ in range(2))
    assert [someone.status(token) for token in (one, other, one, other)] == [200, 200, 429, 429]


# -- limits and faults --------------------------------------------------------------------------


def test_token_endpoint_has_a_limit_of_its_own() -> None:
    """One request a second, told by the gateway; what is refused is not done."""
    settings = SandboxSettings(retry_after="1", sign_in=SignInSettings(interval=1))
    someone = Person(settings)
    token = someone.sign_in()["refresh_token"]
    form = {"client_id": APP, "refresh_token": token, "grant_type": "refresh_token"}
    reply = someone.at_once(f"{ROOT}/token", form)
    assert (reply.answer.status, reply.answer.headers["Retry-After"]) == (429, "1")
    assert said(reply)["errorCode"] == "E0000047"
    assert reply.hit.throttled
    assert "access_token" in someone.renew(token)


@pytest.mark.parametrize(
    ("kind", "status", "done"),
    [
        ("error500", 500, False),
        ("error503", 503, False),
        ("throttle", 429, False),
        ("html", 200, False),
        ("empty", 200, False),
        ("wrong_shape", 200, False),
        ("auth", 401, False),
        ("reset", 0, False),
        ("timeout", 0, False),
        ("lost", 0, True),
        ("stall", 200, True),
        ("slow", 200, True),
        ("cut", 200, True),
    ],
)
def test_token_endpoint_fails_on_demand(kind: str, status: int, done: bool) -> None:
    """Once, on the second token request. Only some faults come after the token was rotated."""
    someone = person(pinned=["ok", kind])
    token = someone.sign_in()["refresh_token"]
    form = {"client_id": APP, "refresh_token": token, "grant_type": "refresh_token"}
    reply = someone.post(f"{ROOT}/token", **form)
    assert (reply.hit.status, reply.hit.fault, reply.hit.page) == (status, kind, 2)
    assert ("error" in someone.renew(token)) is done


def test_token_endpoint_fails_by_chance() -> None:
    """Each request is drawn for itself; the reports are not hit."""
    someone = person(faults={"error500": 0.5}, refresh_tokens="long_lived", rate_limit=0)
    while "refresh_token" not in (tokens := someone.sign_in()):
        pass
    answers = ["errorCode" in someone.renew(tokens["refresh_token"]) for _ in range(200)]
    assert 60 < sum(answers) < 140
    assert someone.status(tokens["access_token"]) == 200


@pytest.mark.parametrize(
    "wrong",
    [{"refresh_tokens": "x"}, {"person": "x"}, {"interval": -1}, {"pinned": ["sneeze"]}],
)
def test_impossible_settings_are_refused(wrong: dict[str, Any]) -> None:
    """Before anything is served."""
    with pytest.raises(ValueError, match=r"is one of|from 0|no fault"):
        SignInSettings(**wrong)


def test_log_holds_no_secret() -> None:
    """Only the kind of a grant and whether the app was known."""
    someone = person()
    code = someone.authorize()
    tokens = someone.poll(code["device_code"])
    renewed = someone.renew(tokens["refresh_token"])
    someone.post(f"/activate?user_code={code['user_code']}", user_code=code["user_code"])
    hits = someone.service.log.hits
    assert [hit.grant_type for hit in hits] == ["", "device_code", "refresh_token", ""]
    assert [hit.authorized for hit in hits] == [True, True, True, False]
    text = repr(hits) + repr(someone.service.settings)
    for secret in (*code.values(), *tokens.values(), *renewed.values()):
        assert len(str(secret)) < 9 or secret == SCOPE or str(secret) not in text
