"""Signing in to v3 by the device flow: a person confirms a code in any browser.

Source: developer.constantcontact.com, "Device flow", and RFC 8628. No secret, no redirect: it works
over ssh, and on a machine that has no browser.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path

import anyio

from harvester.api import oauth
from harvester.api.oauth import DeviceCode, Passing, Pending, Rejected, Tokens
from harvester.client import open_endpoint, open_store
from harvester.config import HarvestConfig
from harvester.disk.token_store import Account, TokenStore
from harvester.errors import ConfigError, StopRun
from harvester.request.token_endpoint import TokenEndpoint
from harvester.runtime import Clock, later

_TRIES = 5  # for a device code
_FIRST_WAIT = 1.0  # s between two of them; doubled each time
_SLOWER = 5.0  # s more between two polls after `slow_down` (RFC 8628, 3.5)


async def sign_in(config: HarvestConfig, *, show: Callable[[DeviceCode], None]) -> Account:
    """Sign an account in and store its tokens; `harvest` and `walk` use them from then on.

    `show` is called once with the link to open and the code (`DeviceCode.link`, `user_code`); a
    person has `expires_in_s` seconds to confirm. The account is `config.account`, the app
    `config.client_id`; a later sign-in may leave the client id out.

    Raises `ConfigError` before anything is sent, `StopRun` if the sign-in is denied or runs out
    ("sign_in_refused"), or does not answer ("sick_server"). An account that was signed in before
    stays so until the new tokens are there.
    """
    store = open_store(config)
    return await sign_in_at(
        open_endpoint(config),
        store,
        client_id=_client_id(config, store),
        base_url=config.origin,
        show=show,
    )


async def sign_in_at(
    endpoint: TokenEndpoint,
    store: TokenStore,
    *,
    client_id: str,
    base_url: str,
    show: Callable[[DeviceCode], None],
    clock: Clock | None = None,
) -> Account:
    """The same, with its parts given."""
    clock = clock or Clock()
    async with store.locked(anyio.sleep):
        with store.room():
            pass  # a disk that refuses is found out before a person is asked
    code = await _ask_for_code(endpoint, client_id, clock)
    show(code)
    tokens = await _wait_for_consent(endpoint, client_id, code, clock)
    account = Account(
        name=store.name,
        client_id=client_id,
        base_url=base_url,
        auth_url=endpoint.auth_url,
        signed_in_at=tokens.received_at,
        **asdict(tokens),
    )
    return await _save(store, account)


async def sign_out(config: HarvestConfig) -> Path | None:
    """Forget the account's tokens; gives the file that held them, None if there was none."""
    store = open_store(config)
    if not store.path.parent.exists():
        return None
    async with store.locked(anyio.sleep):
        return store.path if store.forget() else None


def _client_id(config: HarvestConfig, store: TokenStore) -> str:
    """The app to sign in with: the given one, else the one this account had before."""
    if config.api != "v3":
        raise ConfigError("`api`: only v3 has a sign-in")
    known = None
    with suppress(ConfigError):  # a damaged file is no reason not to sign in anew
        known = store.read()
    stored = known.client_id if known and known.auth_url == config.auth_url else None
    if found := config.client_id or stored or config.api_key:
        return found
    raise ConfigError(
        "no client id: give `client_id` (HARVESTER_CLIENT_ID). It stands in the developer "
        "portal (https://developer.constantcontact.com), My Applications; the app's "
        "OAuth2 setting must be Device Flow"
    )


async def _ask_for_code(endpoint: TokenEndpoint, client_id: str, clock: Clock) -> DeviceCode:
    wait = _FIRST_WAIT
    for left in reversed(range(_TRIES)):
        answer = await endpoint.ask(oauth.device_authorization(client_id))
        if isinstance(answer, DeviceCode):
            return answer
        if isinstance(answer, Rejected):
            raise _refused(
                f"the sign-in refuses this client id ({answer.text}): check it in the developer "
                "portal, My Applications; the app's OAuth2 setting must be Device Flow"
            )
        text = answer.text if isinstance(answer, Passing) else "an unexpected answer"
        if left:
            await anyio.sleep(wait)
            wait *= 2
    raise StopRun(
        "sick_server",
        f"the sign-in at {endpoint.auth_url} gives no code ({text}): try again later",
        resume_at=later(clock.now(), wait),
    )


async def _wait_for_consent(
    endpoint: TokenEndpoint, client_id: str, code: DeviceCode, clock: Clock
) -> Tokens:
    """Poll until the person has decided, through whatever passes, as long as the code lives."""
    deadline = clock.monotonic() + code.expires_in_s
    interval = pause = code.interval_s
    while clock.monotonic() + pause < deadline:
        await anyio.sleep(pause)
        answer = await endpoint.ask(oauth.device_poll(client_id, code.device_code))
        match answer:
            case Tokens():
                return answer
            case Pending(slow_down):
                interval += _SLOWER if slow_down else 0.0
            case Passing() | DeviceCode():
                pass
            case Rejected("access_denied"):
                raise _refused("the sign-in was denied in the browser")
            case Rejected("expired_token" | "invalid_grant"):
                break
            case Rejected():
                raise _refused(f"the sign-in failed ({answer.text})")
        asked = answer.retry_after if isinstance(answer, Passing) else None
        pause = max(interval, asked or 0.0)
    raise _refused("the code was not confirmed in time")


async def _save(store: TokenStore, account: Account) -> Account:
    async with store.locked(anyio.sleep):
        before = None
        with suppress(ConfigError):
            before = store.recover()
        if before is not None:
            account = replace(account, generation=before.generation + 1)
        with store.room() as room:
            room.save(account)
    return account


def _refused(text: str) -> StopRun:
    return StopRun("sign_in_refused", text)
