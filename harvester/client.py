"""From a config to a fetcher: the one place where the layers are put on each other.

    RetryingFetcher(ThrottledSender(HttpSender(session), pacer, permits), policy)

Every attempt pays for a slot; a sleeping retry holds none.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager, closing
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
from msgspec import Struct

from harvester.api.base import Api
from harvester.campaign.edges import down_to
from harvester.campaign.rows import RowReader
from harvester.config import HarvestConfig
from harvester.errors import ConfigError
from harvester.events import Observer
from harvester.input.campaign_list import list_campaigns
from harvester.model import Fetcher, Page, Target
from harvester.request.auth import AuthGate, Reference
from harvester.request.credentials import Credentials, FixedToken, TokenFile, TokenSource
from harvester.request.http import HttpSender, open_session
from harvester.request.pace import Pacer
from harvester.request.pagination import walk_pages
from harvester.request.permits import Permits
from harvester.request.quota import QuotaLedger, has_ledgers, ledger_path
from harvester.request.retry import RetryingFetcher
from harvester.request.retry_policy import RetryBudget, RetryPolicy
from harvester.request.throttle import ThrottledSender, at_once
from harvester.runtime import Clock, StopSignal

if TYPE_CHECKING:  # imported where they are needed: a run with a token of its own needs no sign-in
    from harvester.disk.token_store import TokenStore
    from harvester.request.token_endpoint import TokenEndpoint
    from harvester.request.token_keeper import TokenKeeper


class Stack(Struct, frozen=True):
    """An open way to the API."""

    fetcher: Fetcher
    ledger: QuotaLedger


def limits_owner(config: HarvestConfig) -> str:
    """The key that owns pace and quota: v2's API key, or the client id of v3's app, which all
    accounts of the app share. Empty where it is not known."""
    if config.api == "v2" or config.client_id or config.gives_token:
        return config.key
    account = open_store(config).read()
    return account.client_id if account else config.key


def require_credentials(config: HarvestConfig) -> None:
    """Raise `ConfigError`, saying how to give it, if the key or the token is missing."""
    if config.api == "v3" and not config.gives_token:
        open_keeper(config)
    elif config.api == "v3" and not limits_owner(config):
        raise ConfigError(
            "no client id, which owns the pace and the quota: give `client_id` "
            "(HARVESTER_CLIENT_ID); or run `harvester login` instead of giving a token of your own"
        )
    elif config.api == "v2" and not config.api_key:
        raise ConfigError("no API key: give `api_key` (v2); for v3 run `harvester login`")
    elif not config.gives_token:
        raise ConfigError(
            "no access token: give `access_token`, `access_token_file` or `token_command`"
        )


def open_store(config: HarvestConfig) -> "TokenStore":
    """The file of the config's account."""
    from harvester.disk.token_store import TokenStore

    return TokenStore(Path(config.state_dir or ""), config.account)


def open_endpoint(config: HarvestConfig) -> "TokenEndpoint":
    """The sign-in's side of the wire."""
    from harvester.request.token_endpoint import RequestSpacing, TokenEndpoint

    spacing = RequestSpacing(Path(config.state_dir or ""), config.auth_origin, clock=Clock())
    proxy = config.proxy if config.auth_origin.startswith("https:") else None
    return TokenEndpoint(config.auth_origin, spacing, proxy=proxy)


def open_keeper(config: HarvestConfig, stop: StopSignal | None = None) -> "TokenKeeper":
    """The stored account's token. Raise `ConfigError` if it is not signed in, or was signed in
    with another origin or client id."""
    from harvester.request.token_keeper import TokenKeeper

    return TokenKeeper(
        open_store(config),
        open_endpoint(config),
        base_url=config.origin,
        client_id=config.client_id,
        max_wait=config.max_wait,
        stop=stop or StopSignal(),
    )


async def open_credentials(config: HarvestConfig, stop: StopSignal | None = None) -> Credentials:
    """The key and the first token. Raise `ConfigError` if one is missing or cannot be read,
    `StopRun` if the order to stop comes while the token is waited for."""
    require_credentials(config)
    credentials = Credentials(config.api_key or "", _token_source(config, stop or StopSignal()))
    await credentials.open()
    return credentials


def _token_source(config: HarvestConfig, stop: StopSignal) -> TokenSource:
    first = config.access_token or ""
    if config.token_command:
        from harvester.request.token_command import TokenCommand

        return TokenCommand(config.token_command, stop, first=first)
    if config.access_token_file:
        return TokenFile(Path(config.access_token_file), first=first)
    if first or config.api == "v2":
        return FixedToken(first)
    return open_keeper(config, stop)


def open_ledger(config: HarvestConfig, clock: Clock) -> QuotaLedger:
    """The day's count of the config's key."""
    path = ledger_path(
        Path(config.state_dir or ""), origin=config.origin, identity=limits_owner(config)
    )
    return QuotaLedger(path, limit=config.requests_a_day, clock=clock)


def requests_used_today(config: HarvestConfig) -> int:
    """What the ledger has for the config's key; 0 without a key, or before its first run."""
    if not limits_owner(config) or not has_ledgers(Path(config.state_dir or "")):
        return 0
    with closing(open_ledger(config, Clock())) as ledger:
        return ledger.used_today()


@asynccontextmanager
async def open_stack(
    config: HarvestConfig,
    credentials: Credentials,
    api: Api,
    *,
    stop: StopSignal,
    clock: Clock,
    emit: Observer,
    reference: Reference | None = None,
    call_after_commit: Callable[[Callable[[], None]], None] = at_once,
) -> AsyncIterator[Stack]:
    """Open the ledger and the session, and build the stack over them.

    `reference` is given where other campaigns can be asked while one is put off (`InDoubt`).
    `call_after_commit` calls back once a page is committed: until then its request is in flight.
    """
    session = open_session(connections=config.concurrency, timeout=config.timeout)
    try:
        with closing(open_ledger(config, clock)) as ledger:
            http = HttpSender(
                session,
                api,
                credentials,
                max_page_bytes=config.max_page_bytes,
                proxy=config.proxy,
            )
            pacer = Pacer(
                ledger,
                stop,
                rate=config.rate,
                max_wait=config.max_wait,
                wait_for_quota=config.wait_for_quota,
                max_requests=config.max_requests,
                clock=clock,
                emit=emit,
            )
            policy = RetryPolicy(retries=config.retries, max_wait=config.max_wait)
            gate = AuthGate(
                credentials=credentials,
                pacer=pacer,
                stop=stop,
                clock=clock,
                retry_delay=policy.refused,
                reference=reference,
            )
            fetcher = RetryingFetcher(
                ThrottledSender(
                    http,
                    pacer,
                    Permits(config.concurrency),
                    clock=clock,
                    emit=emit,
                    call_after_commit=call_after_commit,
                ),
                policy,
                credentials=credentials,
                budget=RetryBudget(),
                stop=stop,
                auth_gate=gate,
                clock=clock,
                emit=emit,
            )
            yield Stack(fetcher, ledger)
    finally:
        with anyio.CancelScope(shield=True):
            await session.close()


@asynccontextmanager
async def open_alone(
    config: HarvestConfig, credentials: Credentials | None = None
) -> AsyncIterator[tuple[Fetcher, Api]]:
    """A stack for reading without a run; with `credentials` that are open already, if there are."""
    stop, api = StopSignal(), config.make_api()
    credentials = credentials or await open_credentials(config, stop)
    async with open_stack(
        config, credentials, api, stop=stop, clock=Clock(), emit=lambda event: None
    ) as stack:
        yield stack.fetcher, api


async def walk(
    campaign_id: str | int, config: HarvestConfig, *, report: str = "opens"
) -> AsyncGenerator[Page, None]:
    """Yield one campaign's pages, in order, without any file.

    Retries, pace and quota are those of `config`; walks and harvests of one key share them,
    whatever process they run in. Raises `ConfigError` before anything is sent, `CampaignError`
    if this campaign cannot be read to its end, `StopRun` if nothing more may be sent.
    """
    async with open_alone(config) as (fetcher, api):
        if report not in api.reports:
            raise ConfigError(f"report: any of {', '.join(api.reports)}, not {report!r}")
        target = Target(report, api.check_id(campaign_id))
        first = api.first_link(target, limit=config.page_size, since=config.start)

        async def on_or_after(link: str, page: Page) -> Page:
            if config.start is None or not api.reports[report].time_field:
                return page
            read = RowReader(api.reports[report].time_field)
            return down_to(page, config.start, read, partial(api.after_activity, target, link))

        pages = walk_pages(
            fetcher,
            api,
            target,
            first=first,
            page_size=config.page_size,
            fit=on_or_after,
            max_pages=config.max_pages,
        )
        async with aclosing(pages):
            async for page in pages:
                yield page


async def campaigns(
    config: HarvestConfig, *, status: str = "SENT", modified_since: datetime | None = None
) -> AsyncGenerator[tuple[str, bytes], None]:
    """Yield id and record (the API's own JSON) of every campaign of the account, each once.

    `status` is one of `harvester.input.campaign_list.STATUSES`. Raises as `walk` does.
    """
    async with open_alone(config) as (fetcher, api):
        found = list_campaigns(fetcher, api, status=status, modified_since=modified_since)
        async with aclosing(found):
            async for campaign in found:
                yield campaign
