"""The access token of a signed-in account, renewed once for all tasks, runs and processes.

    lock → read again → ask → save → use

A refresh token is good for one exchange, so each step has its reason: without the lock two
processes exchange the same token, and one is signed out; without reading again a new token is
exchanged once more; a token that is used before it is saved is lost by a kill. The exchange is a
task of its own: a cancel between answer and save would lose the tokens too.
"""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import KW_ONLY, asdict, dataclass, field, replace

import anyio

from harvester.api.oauth import Passing, Rejected, Tokens, refresh
from harvester.api.vendor import ORIGINS, SIGN_IN_ORIGIN
from harvester.disk.token_store import DEFAULT_ACCOUNT, Account, Room, TokenStore
from harvester.errors import ConfigError, StopRun, StorageError
from harvester.request.outlive import outlive_cancel
from harvester.request.token_endpoint import TokenEndpoint
from harvester.runtime import Clock, StopSignal, later

_MARGIN, _MARGIN_PART = 300.0, 0.1  # renewed so long before its end (s; part of its life)
_YOUNG, _YOUNG_PART = 60.0, 0.5  # a token of this age is refused for another reason than its age
_SECOND_TRY = 1.0  # s after a lost answer
_SAVE_TRIES, _SAVE_PAUSE = 10, 0.5  # s between two tries to save the tokens
_FIRST_WAIT, _LONGEST_WAIT = 1.0, 30.0  # s between two tries at an endpoint in trouble
_CALM = 30.0  # s without another try while the present token is still good
_CANCEL_WAIT = 30.0  # s that a cancel waits for an exchange: two tries at the endpoint
_LOCK_WAIT = 5.0  # s that a still good token waits for another process


def renew_at(account: Account) -> float:
    """When the token is to be renewed (seconds since 1970): some time before its end."""
    life = account.expires_at - account.received_at
    return account.expires_at - min(_MARGIN, _MARGIN_PART * life)


def renewed(account: Account, tokens: Tokens) -> Account:
    """The account with its new tokens. What they do not name is kept: a long-lived refresh token
    may come back or not."""
    given = {name: value for name, value in asdict(tokens).items() if value}
    return replace(account, **given, generation=account.generation + 1)


@dataclass(eq=False, repr=False)
class TokenKeeper:
    """A token source: the stored account `store` names, renewed at `endpoint`.

    The tokens are for `base_url` and the endpoint's origin only. `max_wait` bounds the wait for an
    endpoint in trouble (s). Its errors are `StopRun`: the order to `stop` is given with them.
    """

    store: TokenStore
    endpoint: TokenEndpoint
    _: KW_ONLY
    base_url: str
    client_id: str | None = None
    max_wait: float = 300.0
    stop: StopSignal = field(default_factory=StopSignal)
    clock: Clock = field(default_factory=Clock)

    def __post_init__(self) -> None:
        which = account_options(self.store.name, self.base_url, self.endpoint.auth_url)
        self._login = f"harvester login{which}"
        self._turn = asyncio.Lock()
        self._calm_until = float("-inf")
        self._lost = False  # an answer never arrived: it may have held the only good tokens
        self._new_since = float("-inf")  # when the run first had the present token (monotonic s)
        self.account = self._bound(self.store.read())

    def __repr__(self) -> str:
        return f"<TokenKeeper {self.account.name}, generation {self.account.generation}>"

    async def current(self) -> str:
        """The access token, renewed before its time. Raise `StopRun` if that cannot be."""
        if self._is_due() and not (self._turn.locked() and self._is_good()):
            async with self._turn:
                if self._is_due():
                    await self._renew(None)
        return self.account.access_token

    async def renew(self, refused: str) -> bool:
        """Have another token than the one the API `refused`; False if there is none to be had.

        Raise `StopRun` if the sign-in is over, or its endpoint stays in trouble.
        """
        async with self._turn:
            self._adopt(self.store.read)
            if self.account.access_token != refused:
                return True
            if self.account.refresh_token is None:
                if not self._is_good():
                    raise self._give_up("lasts a day only, for it has no refresh token; it is over")
                return False
            if self._is_young():
                return False
            await self._renew(refused)
            return True

    # -- one renewal ---------------------------------------------------------------------------

    async def _renew(self, refused: str | None) -> None:
        """Try until there is a token; one that is still good needs no more than one try."""
        wait, waited = _FIRST_WAIT, 0.0
        while True:
            self.stop.check()
            try:
                trouble = await self._try_once(refused)
            except StopRun as order:
                self.stop.request(order)
                raise
            if trouble is None:
                return
            pause = max(wait, trouble.retry_after or 0.0)
            if refused is None and self._is_good():
                self._calm_until = self.clock.monotonic() + max(pause, _CALM)
                return
            if waited + pause > self.max_wait:
                raise self._order(
                    "sick_server",
                    f"the token cannot be renewed: {self.endpoint.auth_url}: {trouble.text}",
                    wait=pause,
                )
            await self.stop.sleep(pause)
            waited += pause
            wait = min(2 * wait, _LONGEST_WAIT)

    async def _try_once(self, refused: str | None) -> Passing | None:
        """Adopt what another process has fetched, else ask; None once there is a new token."""
        patience = _LOCK_WAIT if refused is None and self._is_good() else self.max_wait
        async with AsyncExitStack() as lock:
            with anyio.move_on_after(patience) as waiting:
                await lock.enter_async_context(self.store.locked(self.stop.sleep))
            if waiting.cancelled_caught:
                return Passing("another process holds the lock of the account")
            self._adopt(self.store.recover)
            if self.account.access_token != refused and not self._is_due():
                return None
            return await outlive_cancel(self._exchange(self.account), wait=_CANCEL_WAIT)

    async def _exchange(self, account: Account) -> Passing | None:
        if account.refresh_token is None:
            return None
        form = refresh(account.client_id, account.refresh_token)
        with self.store.room() as room:
            answer = await self.endpoint.ask(form, sleep=self.stop.sleep)
            if isinstance(answer, Passing) and answer.lost:
                self._lost = True
                # At once and also after a signal: a server that gives a lost answer again does so
                # for some seconds only.
                await anyio.sleep(_SECOND_TRY)
                answer = await self.endpoint.ask(form)
            if isinstance(answer, Tokens):
                new = renewed(account, answer)
                await self._save(new, room)
                self._take(new)
                self._lost = False
                return None
        if isinstance(answer, Passing):
            return answer
        self._adopt(self.store.recover)
        if self.account.refresh_token != account.refresh_token:  # renewed without our lock
            return None
        lost = self._lost or self.store.interrupted
        raise self._give_up(
            f"is refused ({getattr(answer, 'text', type(answer).__name__)})"
            + ("; the answer to an earlier renewal never arrived" if lost else ""),
            final=isinstance(answer, Rejected) and answer.error == "invalid_grant",
        )

    async def _save(self, account: Account, room: Room) -> None:
        """Save durably. Nothing else holds these tokens: a disk that refuses is asked again."""
        with suppress(StorageError):
            room.save(account)
            return
        for _ in range(_SAVE_TRIES):
            await anyio.sleep(_SAVE_PAUSE)
            with suppress(StorageError), self.store.room() as again:
                again.save(account)
                self.store.recover()  # removes what the tries before have left
                return
        raise StorageError(f"the new tokens cannot be saved in {self.store.path}")

    # -- what is known -------------------------------------------------------------------------

    def _is_due(self) -> bool:
        now = self.clock.now().timestamp()
        account = self.account
        if account.refresh_token is None or now < renew_at(account):
            return False
        return now >= account.expires_at or self.clock.monotonic() >= self._calm_until

    def _is_good(self) -> bool:
        return self.clock.now().timestamp() < self.account.expires_at

    def _take(self, account: Account) -> None:
        if account.access_token != self.account.access_token:
            self._new_since = self.clock.monotonic()
        self.account = account

    def _is_young(self) -> bool:
        """Whether this run has seen the token come, a moment ago. What the account says of its age
        is of a wall clock that may have been set since."""
        life = self.account.expires_at - self.account.received_at
        age = self.clock.monotonic() - self._new_since
        return age < min(_YOUNG, _YOUNG_PART * life)

    def _bound(self, account: Account | None) -> Account:
        """The account, if it is for these origins and this app. Raise `ConfigError` if not."""
        name = self.store.name
        if account is None:
            raise ConfigError(
                f"account {name!r} is not signed in: {self._login} "
                "(v2: give `api_key` and `access_token`)"
            )
        bound = (
            ("`base_url`", account.base_url, self.base_url),
            ("`auth_url`", account.auth_url, self.endpoint.auth_url),
            ("`client_id`", account.client_id, self.client_id or account.client_id),
        )
        for what, made, given in bound:
            if made != given:
                raise ConfigError(
                    f"account {name!r} was signed in with {what} {made}, and is never used with "
                    f"{given}: give that one, or another `account`"
                )
        return account

    def _adopt(self, read: Callable[[], Account | None]) -> None:
        """Take what `read` finds, during a run: an account that cannot be used stops it."""
        try:
            self._take(self._bound(read()))
        except ConfigError as wrong:
            raise self._order("credentials_refused", str(wrong)) from None

    def _give_up(self, why: str, *, final: bool = True) -> StopRun:
        name = self.store.name
        step = "sign in again" if final else "see the app in the developer portal, then sign in"
        return self._order(
            "credentials_refused",
            f"the sign-in of account {name!r} {why}; {step}: {self._login}",
        )

    def _order(self, reason: str, text: str, *, wait: float | None = None) -> StopRun:
        resume_at = None if wait is None else later(self.clock.now(), wait)
        order = StopRun(reason, text, resume_at=resume_at)
        self.stop.request(order)
        return order


def account_options(name: str, base_url: str, auth_url: str) -> str:
    """The options that name this account to a command; none for the usual one."""
    options = (
        ("--account", name, DEFAULT_ACCOUNT),
        ("--base-url", base_url, ORIGINS["v3"]),
        ("--auth-url", auth_url, SIGN_IN_ORIGIN),
    )
    return "".join(f" {option} {value}" for option, value, usual in options if value != usual)
