"""A small sign-in: the two endpoints of OAuth2, and a v3 API that takes their tokens.

    SignIn          the state and the answers, without I/O; `faults` are used up one a request
    InMemory        asks it without a network, on any clock
    serving(...)    serves it on a loopback port, from a thread of its own

The server knows nothing of the client: only RFC 8628, RFC 6749 and the vendor's pages.
"""

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any
from uuid import NAMESPACE_URL, uuid5

import anyio
from aiohttp import web
from multidict import CIMultiDict

from harvester.api.oauth import Answer, Form, Passing, classify

CANARY = "canary"
"""Part of every token."""
CLIENT = "11111111-2222-3333-4444-555555555555"
HTML = b"<html><body>Service unavailable</body></html>"
CAMPAIGNS = [str(uuid5(NAMESPACE_URL, f"campaign {n}")) for n in range(6)]
PAGES = 3


@dataclass(frozen=True)
class Reply:
    """An answer on its way: `late` seconds, or `lost`."""

    status: int
    body: Any
    headers: dict[str, str] = field(default_factory=dict)
    lost: bool = False
    late: float = 0.0


@dataclass
class SignIn:
    """One account of one app. Times are seconds on the clock `now`."""

    now: Callable[[], float] = time.time
    life: float = 86_400.0
    leeway: float = 0.0
    """How long a used refresh token may be used again."""
    rotates: bool = True
    repeats: bool = True
    """Of a token that does not rotate: whether it stands in the answer again."""
    offline: bool = True
    """Whether there are refresh tokens at all."""
    pending: int = 0
    """Polls until the person has agreed."""
    interval: float = 1.0
    expires_in: float = 600.0
    faults: list[str] = field(default_factory=list)
    """lost, late (3 s after it has rotated), 429, 503, html, empty, slow_down, denied, expired,
    invalid_client, reset (before it is read)."""
    asked: list[tuple[float, str]] = field(default_factory=list)
    exchanges: int = 0
    refused: int = 0
    access: dict[str, float] = field(default_factory=dict)
    refresh: str = ""
    used: dict[str, float] = field(default_factory=dict)
    devices: set[str] = field(default_factory=set)
    made: int = 0

    # -- the answers ---------------------------------------------------------------------------

    def answer(self, path: str, form: dict[str, str]) -> Reply:
        """What one POST is answered with."""
        grant = form.get("grant_type", "").rpartition(":")[2] or "device"
        self.asked.append((self.now(), grant))
        fault = self.faults.pop(0) if self.faults else ""
        simple = {
            "429": Reply(429, {"errorCode": "E0000047", "errorSummary": "API call exceeded"}),
            "503": Reply(503, {"errorCode": "E0000010"}, {"Retry-After": "2"}),
            "html": Reply(200, HTML),
            "empty": Reply(200, b""),
            "slow_down": Reply(400, {"error": "slow_down"}),
            "denied": Reply(400, {"error": "access_denied"}),
            "expired": Reply(400, {"error": "expired_token"}),
            "reset": Reply(0, b"", lost=True),
        }
        if fault in simple:
            return simple[fault]
        if fault == "invalid_client" or form.get("client_id") != CLIENT:
            return Reply(401, {"error": "invalid_client", "error_description": "Unknown client"})
        if path.endswith("/device/authorize"):
            reply = self._device()
        elif grant == "device_code":
            reply = self._poll(form)
        else:
            reply = self._refresh(form)
        late = 3.0 if fault == "late" else 0.0
        return Reply(reply.status, reply.body, reply.headers, lost=fault == "lost", late=late)

    def _device(self) -> Reply:
        device = self._secret("device")
        self.devices.add(device)
        link = "https://activate.example/device"
        return Reply(
            200,
            {
                "device_code": device,
                "user_code": "ABCD-EFGH",
                "verification_uri": link,
                "verification_uri_complete": f"{link}?user_code=ABCD-EFGH",
                "expires_in": self.expires_in,
                "interval": self.interval,
            },
        )

    def _poll(self, form: dict[str, str]) -> Reply:
        if form.get("device_code") not in self.devices:
            return _invalid("The device code is invalid or has expired.")
        if self.pending:
            self.pending -= 1
            return Reply(400, {"error": "authorization_pending"})
        self.devices.remove(form["device_code"])
        return self._grant(new_refresh=True)

    def _refresh(self, form: dict[str, str]) -> Reply:
        given, now = form.get("refresh_token", ""), self.now()
        in_leeway = given in self.used and now - self.used[given] < self.leeway
        if not given or not (given == self.refresh or in_leeway):
            self.refused += 1
            # As the vendor's may do it, the answer repeats what it refuses.
            return _invalid(f"The refresh token is invalid or expired. {given}")
        self.exchanges += 1
        if self.rotates:
            self.used.setdefault(given, now)
        return self._grant(new_refresh=self.rotates)

    def _grant(self, *, new_refresh: bool) -> Reply:
        access = self._secret("access")
        self.access[access] = self.now() + self.life
        body: dict[str, Any] = {
            "access_token": access,
            "token_type": "Bearer",
            "expires_in": self.life,
            "scope": "campaign_data offline_access",
        }
        if self.offline:
            if new_refresh:
                self.refresh = self._secret("refresh")
            if new_refresh or self.repeats:
                body["refresh_token"] = self.refresh
        return Reply(200, body)

    def accepts(self, authorization: str | None) -> bool:
        """Whether a bearer token is good now."""
        token = (authorization or "").removeprefix("Bearer ")
        return self.access.get(token, 0.0) > self.now()

    def _secret(self, kind: str) -> str:
        self.made += 1
        return f"{CANARY}-{kind}-{self.made:04d}." + "x" * 40

    @property
    def grants(self) -> list[str]:
        """What was asked for, in order."""
        return [grant for _, grant in self.asked]

    @property
    def gaps(self) -> list[float]:
        """Seconds between two requests."""
        times = [at for at, _ in self.asked]
        return [after - before for before, after in pairwise(times)]


def _invalid(text: str) -> Reply:
    return Reply(400, {"error": "invalid_grant", "error_description": text})


# -- without a network ---------------------------------------------------------------------------


@dataclass
class InMemory:
    """Stands where `TokenEndpoint` stands; its requests are 1.1 s apart."""

    server: SignIn
    auth_url: str = "https://sign-in.example"
    delay: float = 0.1
    under_way: int = 0
    peak: int = 0
    before: Callable[[Form], None] = lambda form: None
    """Called before a request reaches the server."""

    async def ask(self, form: Form, *, sleep: Any = anyio.sleep) -> Answer:
        """One request."""
        now = self.server.now()
        if self.server.asked and (soon := self.server.asked[-1][0] + 1.1 - now) > 0:
            await sleep(soon)
        now = self.server.now()
        self.under_way += 1
        self.peak = max(self.peak, self.under_way)
        self.before(form)
        try:
            reply = self.server.answer(form.path, dict(form.fields))
            await anyio.sleep(self.delay + reply.late)
        finally:
            self.under_way -= 1
        if reply.lost:
            return Passing("the answer was lost", lost=True)
        return classify(reply.status, CIMultiDict(reply.headers), _body(reply), now=now)


def _body(reply: Reply) -> bytes:
    if isinstance(reply.body, bytes):
        return reply.body
    return json.dumps(reply.body).encode()


# -- on a port -----------------------------------------------------------------------------------


@dataclass
class Serving:
    """A server under way: sign-in and API are one origin."""

    sign_in: SignIn
    url: str = ""
    hits: list[tuple[str, int]] = field(default_factory=list)
    """Path and status of each request to the API."""
    queries: list[str] = field(default_factory=list)
    """Everything that stood in a query."""
    latency: float = 0.0
    forbidden: bool = False

    async def token(self, request: web.Request) -> web.StreamResponse:
        """The two endpoints of the sign-in."""
        self.queries.append(request.query_string)
        form = {name: str(value) for name, value in (await request.post()).items()}
        reply = self.sign_in.answer(request.path, form)
        await asyncio.sleep(reply.late)
        if reply.lost:
            assert request.transport is not None
            request.transport.close()
            return web.Response()
        html = "text/html" if reply.body == HTML else "application/json"
        return web.Response(
            status=reply.status, body=_body(reply), headers=reply.headers, content_type=html
        )

    async def api(self, request: web.Request) -> web.StreamResponse:
        """Campaigns of one activity each, of some pages of opens."""
        await asyncio.sleep(self.latency)
        status, body = self._api(request)
        self.hits.append((request.path_qs, status))
        return web.json_response(body, status=status)

    def _api(self, request: web.Request) -> tuple[int, Any]:
        if not self.sign_in.accepts(request.headers.get("Authorization")):
            return 401, {"error_key": "unauthorized", "error_message": "Unauthorized"}
        if self.forbidden:
            return 403, [{"error_key": "forbidden", "error_message": "Missing privilege"}]
        parts = request.path.split("/")
        if request.path == "/v3/emails":
            return 200, {
                "campaigns": [{"campaign_id": id_, "current_status": "Done"} for id_ in CAMPAIGNS]
            }
        if parts[2] == "emails":
            activity = {"campaign_activity_id": parts[3], "role": "primary_email"}
            return 200, {
                "campaign_id": parts[3],
                "campaign_activities": [activity],
                "current_status": "Done",
            }
        at = int(request.query.get("cursor", "0"))
        row = {
            "contact_id": str(uuid5(NAMESPACE_URL, f"{parts[4]} {at}")),
            "campaign_activity_id": parts[4],
            "tracking_activity_type": "em_opens",
            "email_address": f"person{at}@example.com",
            "created_time": f"2026-03-01T12:{59 - at:02d}:00.000Z",
        }
        page: dict[str, Any] = {"tracking_activities": [row]}
        if at + 1 < PAGES:
            page["_links"] = {"next": {"href": f"{request.path}?cursor={at + 1}"}}
        return 200, page


@asynccontextmanager
async def served(server: Serving) -> AsyncIterator[Serving]:
    """Serve on the running loop."""
    app = web.Application()
    app.router.add_post("/oauth2/default/v1/{tail:.*}", server.token)
    app.router.add_get("/v3/{tail:.*}", server.api)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield server
    finally:
        await runner.cleanup()


@contextmanager
def serving(server: Serving) -> Iterator[Serving]:
    """Serve from a thread of its own, for the real command."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    context = served(server)
    try:
        asyncio.run_coroutine_threadsafe(context.__aenter__(), loop).result(30)
        yield server
    finally:
        asyncio.run_coroutine_threadsafe(context.__aexit__(None, None, None), loop).result(30)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
