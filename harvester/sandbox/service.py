"""The whole sandbox without sockets: a request value in, a reply value out.

A request goes the vendor's way: the gateway looks at the key (v2) or the token (v3), then at the
pace and the day of the application, and only then does the service behind it see the request (and
may fail), check the token (v2), the method, the Accept header and the parameters. A request with a
wrong key (v2) or token (v3) belongs to no application: it counts against no limit.
"""

from collections import defaultdict
from dataclasses import dataclass, replace
from typing import Final

from .answers import Answer
from .chance import draw
from .corrupt import corrupted
from .cursor import cursor_for
from .delivery import Delivery, deliver
from .faults import Faults, Place
from .limits import Gate, Verdict
from .log import Hit, Outcome, RequestLog
from .reports import REPORTS, V3_REPORTS
from .requests import ParsedRequest, Request
from .settings import SandboxSettings
from .sign_in import SignIn
from .sign_in_api import SignInApi, is_sign_in
from .v2 import V2
from .v3 import V3
from .version import Version
from .world import World

_MAY_WAIT: Final = ("throttle", "throttle429", "quota", "error503")
_JSON: Final = ("application/json", "application/*", "*/*")


@dataclass(frozen=True, kw_only=True, slots=True)
class Reply:
    """What the server does with a request: its answer, how that arrives, its line in the log."""

    answer: Answer
    delivery: Delivery
    hit: Hit


class Service:
    """Both versions and the sign-in of one account. Reads no clock but for what happens in `world`.

    `world` is what a perfect client finds; `log` is what clients did; `sign_in` is the person.
    """

    def __init__(self, settings: SandboxSettings | None = None) -> None:
        self.settings: Final = settings or SandboxSettings()
        self.world: Final[World] = World(self.settings)
        self.sign_in: Final = SignIn(self.settings)
        self.log = RequestLog(keep=self.settings.keep_log)
        self._v2 = V2(self.settings, self.world)
        self._v3 = V3(self.settings, self.world, self.sign_in)
        self._sign_in_api = SignInApi(self.settings, self.sign_in)
        self._gates: defaultdict[str, Gate] = defaultdict(self.settings.gate)
        self._faults = Faults(self.settings.fault_plan())
        self._moves = self.settings.reorder_list

    def handle(self, request: Request) -> Reply:
        """Answer one request, count it and note it in the log."""
        if is_sign_in(request.path):
            outcome = self._sign_in_api.handle(request)
        else:
            api: Version = self._v3 if request.path.startswith("/v3/") else self._v2
            outcome = self._decide(request, api)
            self._afterwards(outcome.asked, outcome.answer)
        answer, hit = outcome.answer, outcome.hit()
        self.log.add(hit)
        if self.settings.retry_after and (hit.throttled or hit.fault in _MAY_WAIT):
            waits = {**answer.headers, "Retry-After": self.settings.retry_after}
            answer = replace(answer, headers=waits)
        encodings = request.headers.get("accept-encoding", "")
        delivery = deliver(answer, hit.fault, encodings, self.settings)
        return Reply(answer=answer, delivery=delivery, hit=hit)

    def _decide(self, request: Request, api: Version) -> Outcome:
        """Send a request through the gateway to the service behind it."""
        asked, authorized = api.read(request), api.authorized(request)
        app = api.app_of(request)
        if isinstance(app, Answer):
            return Outcome(asked=asked, answer=app, authorized=authorized)
        verdict = self._gates[app].admit(request.now, request.wall)
        if verdict is not Verdict.ADMITTED:
            over_rate = verdict is Verdict.OVER_RATE
            refusal = api.dialect.over_rate if over_rate else api.dialect.over_day
            return Outcome(asked=asked, answer=refusal, throttled=True, authorized=authorized)
        answer = self._answer(request, api, asked) if authorized else api.dialect.unauthenticated
        fault = self._faults.next(
            Place(asked.report, asked.campaign_id, asked.page, asked.activity_id)
        )
        if fault is not None:
            page = api.page(asked) if asked.problem is None else None
            cursor = request.cursor or cursor_for(asked.window, api.dialect.style)
            target = f"{request.path}?next={cursor}"
            answer = corrupted(answer, fault, page, target, api.dialect, self.settings)
        return Outcome(asked=asked, answer=answer, fault=fault, authorized=authorized)

    def _answer(self, request: Request, api: Version, asked: ParsedRequest) -> Answer:
        """What the service behind the gateway says to a client that it knows."""
        if request.method != "GET":
            return api.dialect.not_allowed
        accept = request.headers.get("accept", "*/*")
        if not any(kind in accept for kind in _JSON):
            return api.dialect.not_acceptable
        return asked.problem or api.answer(asked)

    def _afterwards(self, asked: ParsedRequest, answer: Answer) -> None:
        """What happens in the account right after a good answer: events arrive, campaigns move."""
        if answer.status != 200 or asked.problem is not None:
            return
        tracking = asked.report in REPORTS or asked.report in V3_REPORTS
        if self.settings.arrivals and tracking and answer.more:
            self.world.add_events(asked.report, asked.mailing_id, self.settings.arrivals)
        if self._moves and asked.report == "campaigns":
            ids = self.world.listing("SENT")
            self.world.touch(ids[draw(self.settings.seed, 8, self._moves) % len(ids)])
            self._moves -= 1
