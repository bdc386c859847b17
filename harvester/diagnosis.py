"""One request that says whether the credentials work, and if not, which of them is wrong."""

from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

from harvester.api.oauth import TRACKING_SCOPE
from harvester.client import open_credentials, open_ledger, open_store
from harvester.config import HarvestConfig
from harvester.disk.token_store import Account
from harvester.errors import (
    CampaignError,
    Forbidden,
    QuotaExceeded,
    StopRun,
    Throttled,
    TryAgain,
    Unauthorized,
)
from harvester.model import Page, Request, Target
from harvester.reporting.summary import Quota
from harvester.request.credentials import Credentials
from harvester.request.http import HttpSender, open_session
from harvester.request.quota import QuotaLedger
from harvester.request.quota_record import Granted, NotYet
from harvester.runtime import Clock, StopSignal, next_reset

UNUSED_LIFE = timedelta(days=180)  # then a refresh token dies
_WARN_AFTER = timedelta(days=150)
_KEY_REFUSED = "mashery.not.authorized"
_FINE, _USAGE, _REFUSED, _LATER = 0, 2, 4, 75


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the API's answer says: a slug, a sentence with the next step, an exit code."""

    wrong: str | None
    message: str
    exit_code: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SignInAge:
    """A stored account in time. `dies_at` is when it ends if it is not used before."""

    account: str
    signed_in_at: datetime
    last_renewed_at: datetime
    dies_at: datetime
    warning: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """The verdict, the day's requests, and the age of the sign-in where there is one."""

    verdict: Verdict
    api: str
    origin: str
    quota: Quota
    sign_in: SignInAge | None


async def diagnose(config: HarvestConfig) -> Diagnosis:
    """Ask for one campaign of the list, charged to the quota. Raises `ConfigError` if there are no
    credentials, `StopRun` if the quota is spent or the sign-in is over."""
    clock, stop = Clock(), StopSignal()
    stored = config.api == "v3" and not config.gives_token
    before = open_store(config).read() if stored else None
    credentials = await open_credentials(config, stop)
    error: TryAgain | CampaignError | None = None
    with closing(open_ledger(config, clock)) as ledger:
        try:
            await _ask(config, credentials, ledger, stop)
        except (TryAgain, CampaignError) as answer:
            credentials.redactor.scrub_error(answer)
            error = answer
        used = ledger.used_today()
    after, now = open_store(config).read() if before else None, clock.now()
    return Diagnosis(
        verdict=verdict_of(error, api=str(config.api), account=before),
        api=str(config.api),
        origin=config.origin,
        quota=Quota(config.daily_quota, used, next_reset(now)),
        sign_in=sign_in_age(after, now, before=before) if before and after else None,
    )


async def _ask(
    config: HarvestConfig, credentials: Credentials, ledger: QuotaLedger, stop: StopSignal
) -> None:
    api = config.make_api()
    link = api.campaigns_link(status="ALL", modified_since=None, limit=1)
    read = partial(api.read_campaigns, link)
    request: Request[Page] = Request(Target("campaigns", "list"), link, read)
    gap = 1.0 / config.rate if config.rate else 0.0
    async with open_session(connections=1, timeout=config.timeout) as session:
        sender = HttpSender(
            session, api, credentials, max_page_bytes=config.max_page_bytes, proxy=config.proxy
        )
        await _start(ledger, gap, stop)
        try:
            body = await sender.send(request)
        except Unauthorized:
            if not await credentials.renew():
                raise
            await _start(ledger, gap, stop)
            body = await sender.send(request)
        request.read(body)


async def _start(ledger: QuotaLedger, gap: float, stop: StopSignal) -> None:
    """Wait for a start within pace and quota."""
    while not isinstance(answer := ledger.claim(gap), Granted):
        if not isinstance(answer, NotYet):
            raise StopRun(
                "quota_spent", "the day's quota of requests is spent", resume_at=answer.until
            )
        await stop.sleep(answer.wait)


def verdict_of(
    error: TryAgain | CampaignError | None, *, api: str, account: Account | None
) -> Verdict:
    """What the answer to one request says about the credentials."""
    if error is None:
        return Verdict(None, "the API accepts the credentials", _FINE)
    key = error.error_key or ""
    match error:
        case Throttled():
            return Verdict("pace", f"the API says: too fast ({error}); try again", _LATER)
        case QuotaExceeded():
            reset = f"{next_reset(Clock().now()):%a %d %b %Y, %H:%M} UTC"
            return Verdict("quota", f"the day is spent ({error}); resets {reset}", _LATER)
        case Unauthorized():
            step = "sign in again: harvester login" if account else "get a new token"
            return Verdict(
                "token", f"the API does not accept the token ({error}); {step}", _REFUSED
            )
        case Forbidden() if key.startswith(_KEY_REFUSED):
            return Verdict("key", f"the API does not accept the API key ({error})", _REFUSED)
        case Forbidden() if account and TRACKING_SCOPE not in account.scope.split():
            return Verdict(
                "scope",
                f"the sign-in lacks the scope {TRACKING_SCOPE} ({error}); allow it in the app's "
                "settings, then: harvester login",
                _REFUSED,
            )
        case Forbidden():
            needed = "ui:campaign:metrics" if api == "v3" else "campaign:list and contacts:read"
            return Verdict(
                "privilege",
                f"the token is good, but its user lacks a privilege ({needed}), or the app is "
                f"not active ({error}); ask the account's owner",
                _REFUSED,
            )
        case TryAgain():
            return Verdict("server", f"the API gives no answer now ({error}); try again", _LATER)
        case _:
            return Verdict(
                "origin", f"this does not answer as the API does ({error}): see `base_url`", _USAGE
            )


def sign_in_age(account: Account, now: datetime, *, before: Account) -> SignInAge:
    """How old the sign-in is, and when it dies of disuse; a warning where that was near `before`
    this use, which may have renewed it."""
    signed_in, renewed, expires = (
        datetime.fromtimestamp(moment, now.tzinfo)
        for moment in (account.signed_in_at, account.received_at, account.expires_at)
    )
    unused = now - datetime.fromtimestamp(before.received_at, now.tzinfo)
    warning = None
    if account.refresh_token is None:
        warning = f"there is no refresh token: the sign-in ends {expires:%Y-%m-%d %H:%M} UTC"
    elif unused >= _WARN_AFTER:
        warning = (
            f"the sign-in was not used for {unused.days} days before this; after "
            f"{UNUSED_LIFE.days} unused days it is over: run this program at least once a month"
        )
    dies = expires if account.refresh_token is None else renewed + UNUSED_LIFE
    return SignInAge(
        account=account.name,
        signed_in_at=signed_in,
        last_renewed_at=renewed,
        dies_at=dies,
        warning=warning,
    )
