"""A signed-in account is never locked out: renewals, faults, kills, cancels, two processes."""

import asyncio
import errno
import os
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from fake_sign_in import CLIENT, InMemory, SignIn
from fakes import LoopClock, virtually

from harvester.api.oauth import Form
from harvester.disk.token_store import Account, TokenStore
from harvester.errors import ConfigError, StopRun, StorageError
from harvester.request.token_keeper import TokenKeeper
from harvester.runtime import StopSignal

API, AUTH = "https://api.example", "https://sign-in.example"


@dataclass
class House:
    """A signed-in account, its server, and keepers that share both as processes do."""

    root: Path
    server: SignIn
    endpoint: InMemory
    clock: LoopClock

    def store(self) -> TokenStore:
        return TokenStore(self.root, "default")

    def keeper(self, stop: StopSignal | None = None, **settings: Any) -> TokenKeeper:
        settings = {"base_url": API, **settings}
        settings["stop"] = stop or StopSignal()
        return TokenKeeper(self.store(), self.endpoint, clock=self.clock, **settings)

    def stored(self) -> Account:
        account = self.store().read()
        assert account is not None
        return account

    async def sign_in(self, **changes: Any) -> None:
        """As `login` leaves it, at the present moment."""
        reply = self.server._grant(new_refresh=True).body
        now = self.server.now()
        account = Account(
            name="default",
            client_id=CLIENT,
            base_url=API,
            auth_url=AUTH,
            scope=reply["scope"],
            access_token=reply["access_token"],
            refresh_token=reply.get("refresh_token"),
            signed_in_at=now,
            received_at=now,
            expires_at=now + self.server.life,
        )
        store = self.store()
        async with store.locked(asyncio.sleep):
            with store.room() as room:
                room.save(replace(account, **changes))


def house(root: Path, **settings: Any) -> House:
    clock = LoopClock()
    server = SignIn(now=lambda: clock.now().timestamp(), **settings)
    return House(root, server, InMemory(server, AUTH), clock)


# -- the usual course ----------------------------------------------------------------------------


def test_a_fresh_token_is_used_as_it_is(root: Path) -> None:
    """No request before its time."""
    home = house(root)

    async def main() -> None:
        await home.sign_in()
        keeper = home.keeper()
        first = await keeper.current()
        await asyncio.sleep(86_400 - 301)
        assert await keeper.current() == first
        assert home.server.asked == []
        await asyncio.sleep(2)
        assert await keeper.current() != first
        assert home.server.exchanges == 1

    virtually(main)


@pytest.mark.parametrize("life", [4.0, 60.0, 86_400.0])
def test_a_token_is_renewed_before_its_time_and_each_is_accepted(root: Path, life: float) -> None:
    """Asked for ten times in each life, over ten lives, it is always one that the API takes."""
    home = house(root, life=life)

    async def main() -> None:
        await home.sign_in()
        keeper = home.keeper()
        for _ in range(100):
            token = await keeper.current()
            assert home.server.accepts(f"Bearer {token}")
            await asyncio.sleep(life / 10)
        assert home.server.exchanges <= 14
        assert home.server.refused == 0

    virtually(main)


def test_a_hundred_tasks_that_meet_an_expired_token_make_one_request(root: Path) -> None:
    """Before the request and after a 401 alike."""
    home = house(root)

    async def main() -> None:
        await home.sign_in()
        keeper = home.keeper()
        old = await keeper.current()
        await asyncio.sleep(90_000)
        tokens = await asyncio.gather(*(keeper.current() for _ in range(100)))
        assert len(set(tokens)) == 1
        assert home.server.exchanges == 1
        assert all(await asyncio.gather(*(keeper.renew(old) for _ in range(100))))
        await asyncio.sleep(3_600)
        assert all(await asyncio.gather(*(keeper.renew(tokens[0]) for _ in range(100))))
        assert home.server.exchanges == 2

    virtually(main)


def test_two_processes_renew_once_each_time(root: Path) -> None:
    """Two keepers over one file, for twenty lives of four seconds."""
    home = house(root, life=4.0)

    async def run(keeper: TokenKeeper) -> None:
        for _ in range(160):
            assert home.server.accepts(f"Bearer {await keeper.current()}")
            await asyncio.sleep(0.5)

    async def main() -> None:
        await home.sign_in()
        await asyncio.gather(run(home.keeper()), run(home.keeper()))
        assert home.server.refused == 0
        assert home.server.exchanges <= 42
        assert home.endpoint.peak == 1

    virtually(main)


def test_a_token_that_another_process_renewed_is_adopted_after_a_401(root: Path) -> None:
    """Without a request of our own."""
    home = house(root)

    async def main() -> None:
        await home.sign_in()
        ours, theirs = home.keeper(), home.keeper()
        old = await ours.current()
        await asyncio.sleep(3_600)
        assert await theirs.renew(old)
        assert await ours.renew(old)
        assert await ours.current() == await theirs.current() != old
        assert home.server.exchanges == 1

    virtually(main)


def test_a_401_on_a_young_token_does_not_renew_again(root: Path) -> None:
    """A campaign that always answers 401 costs no exchange for each of its requests."""
    home = house(root)

    async def main() -> None:
        await home.sign_in()
        keeper = home.keeper()
        await asyncio.sleep(3_600)
        assert await keeper.renew(await keeper.current())
        for _ in range(20):
            assert not await keeper.renew(await keeper.current())
            await asyncio.sleep(1)
        assert home.server.exchanges == 1

    virtually(main)


def test_a_clock_that_was_set_back_makes_no_token_young(root: Path) -> None:
    """Of an old token the account says that it came a moment ago; the API refuses it."""
    home = house(root)

    async def main() -> None:
        await home.sign_in()
        keeper = home.keeper()
        await asyncio.sleep(90_000)
        home.clock.start -= timedelta(seconds=89_970)
        assert await keeper.renew(await keeper.current())
        assert home.server.exchanges == 1

    virtually(main)


@pytest.mark.parametrize("repeats", [True, False])
def test_a_long_lived_refresh_token_is_kept(root: Path, repeats: bool) -> None:
    """Whether it comes back in the answer or not."""
    home = house(root, rotates=False, repeats=repeats, life=100.0)

    async def main() -> None:
        await home.sign_in()
        keeper, first = home.keeper(), home.stored().refresh_token
        for _ in range(5):
            await asyncio.sleep(200)
            assert home.server.accepts(f"Bearer {await keeper.current()}")
        assert home.stored().refresh_token == first is not None
        assert home.server.exchanges == 5

    virtually(main)


def test_without_a_refresh_token_the_sign_in_ends_with_its_token(root: Path) -> None:
    """Until then a 401 is not its age; after it the error names the next step."""
    home = house(root, offline=False)

    async def main() -> None:
        await home.sign_in()
        keeper = home.keeper()
        token = await keeper.current()
        assert not await keeper.renew(token)
        await asyncio.sleep(90_000)
        assert await keeper.current() == token  # the API is the judge of it
        with pytest.raises(StopRun, match=r"lasts a day only.*harvester login") as stopped:
            await keeper.renew(token)
        assert stopped.value.reason == "credentials_refused"
        assert home.server.asked == []

    virtually(main)


def test_a_new_sign_in_is_taken_up_by_a_run_without_refresh_token(root: Path) -> None:
    """A person logs in again while it runs."""
    home = house(root, offline=False)

    async def main() -> None:
        await home.sign_in()
        keeper = home.keeper()
        token = await keeper.current()
        await asyncio.sleep(90_000)
        await home.sign_in(generation=2)
        assert await keeper.renew(token)
        assert home.server.accepts(f"Bearer {await keeper.current()}")

    virtually(main)


def test_a_good_token_is_used_while_it_is_renewed(root: Path) -> None:
    """Of a token that is near its end; and no task uses the new one before it is saved."""
    home = house(root)
    home.endpoint.delay = 10.0

    async def main() -> None:
        await home.sign_in()
        keeper = home.keeper()
        old = await keeper.current()
        await asyncio.sleep(86_400 - 200)
        with pytest.MonkeyPatch.context() as patch:
            _refuse(patch, "replace", times=3)
            renewing = asyncio.ensure_future(keeper.current())
            await asyncio.sleep(1)
            before = home.clock.monotonic()
            assert await keeper.current() == old
            assert home.clock.monotonic() == before
            await asyncio.sleep(9.5)
            assert home.server.exchanges == 1
            assert await keeper.current() == old
            assert await renewing == home.stored().access_token != old

    virtually(main)


# -- an endpoint in trouble ----------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["429", "503", "html", "empty", "reset"])
def test_passing_trouble_is_waited_out(root: Path, fault: str) -> None:
    """Five bad answers in a row, on a token that is over: the sixth is good."""
    home = house(root, faults=[fault] * 5)

    async def main() -> None:
        await home.sign_in()
        keeper = home.keeper()
        await asyncio.sleep(90_000)
        assert home.server.accepts(f"Bearer {await keeper.current()}")
        assert min(home.server.gaps) >= 1

    virtually(main)


def test_trouble_while_the_token_is_good_holds_up_nothing(root: Path) -> None:
    """It is used to its end; tries are far apart."""
    home = house(root, life=3_000.0, faults=["503"] * 8)

    async def main() -> None:
        await home.sign_in()
        keeper = home.keeper()
        await asyncio.sleep(2_710)
        before = home.clock.monotonic()
        for _ in range(200):
            assert home.server.accepts(f"Bearer {await keeper.current()}")
            await asyncio.sleep(1)
        assert home.clock.monotonic() - before < 215
        assert len(home.server.asked) <= 8
        await asyncio.sleep(200)
        assert home.server.accepts(f"Bearer {await keeper.current()}")

    virtually(main)


def test_a_token_that_ends_in_a_calm_is_renewed_then(root: Path) -> None:
    """The calm after a try that failed is for as long as the token is good."""
    home = house(root, life=100.0, faults=["503"])

    async def main() -> None:
        await home.sign_in()
        keeper = home.keeper()
        await asyncio.sleep(91)
        old = await keeper.current()
        await asyncio.sleep(10)
        assert await keeper.current() != old
        assert len(home.server.asked) == 2

    virtually(main)


def test_trouble_that_stays_ends_the_run_for_now_and_changes_nothing(root: Path) -> None:
    """Exit 75 with a time, the stored tokens as they were; later it works."""
    home = house(root, faults=["503"] * 50)

    async def main() -> None:
        await home.sign_in()
        stop = StopSignal()
        keeper, before = home.keeper(stop), home.stored()
        await asyncio.sleep(90_000)
        with pytest.raises(StopRun, match="HTTP 503") as stopped:
            await keeper.current()
        assert stopped.value.reason == "sick_server"
        assert stopped.value.resume_at is not None
        assert stop.requested
        assert home.stored() == before
        home.server.faults.clear()
        assert home.server.accepts(f"Bearer {await home.keeper().current()}")

    virtually(main)


def test_the_order_to_stop_ends_the_wait_for_the_endpoint(root: Path) -> None:
    """Without another request."""
    home = house(root, faults=["503"] * 50)

    async def main() -> None:
        await home.sign_in()
        stop = StopSignal()
        keeper = home.keeper(stop)
        await asyncio.sleep(90_000)
        waiting = asyncio.ensure_future(keeper.current())
        await asyncio.sleep(20)
        asked = len(home.server.asked)
        before = home.clock.monotonic()
        stop.request(StopRun("SIGTERM", "stopped"))
        with pytest.raises(StopRun, match="stopped"):
            await waiting
        assert home.clock.monotonic() - before < 0.5
        assert len(home.server.asked) == asked

    virtually(main)


def test_a_lost_answer_is_asked_for_once_more_within_the_leeway(root: Path) -> None:
    """A second later, however late the loss was known."""
    home = house(root, leeway=30.0, faults=["lost"])
    home.endpoint.delay = 5.0

    async def main() -> None:
        await home.sign_in()
        keeper = home.keeper()
        await asyncio.sleep(90_000)
        assert home.server.accepts(f"Bearer {await keeper.current()}")
        assert len(home.server.asked) == 2
        assert home.server.gaps == [pytest.approx(6.0)]

    virtually(main)


def test_a_lost_answer_is_asked_for_once_more_after_a_signal_too(root: Path) -> None:
    """The order to stop comes while the first answer is lost; the next run needs no sign-in."""
    home = house(root, leeway=30.0, faults=["lost"])
    home.endpoint.delay = 0.02

    async def main() -> None:
        await home.sign_in()
        stop = StopSignal()
        keeper = home.keeper(stop)
        await asyncio.sleep(90_000)
        renewing = asyncio.ensure_future(keeper.current())
        await asyncio.sleep(0.01)
        stop.request(StopRun("SIGTERM", "stopped"))
        await renewing
        await asyncio.sleep(60)  # the leeway is over
        assert home.server.accepts(f"Bearer {await home.keeper().current()}")
        assert home.server.refused == 0

    virtually(main)


def test_a_lost_answer_without_leeway_is_named_in_the_error(root: Path) -> None:
    """It cannot be healed: exit 4, with what happened and the next step, also when known late."""
    home = house(root, faults=["lost", "503", "html"])

    async def main() -> None:
        await home.sign_in()
        keeper, before = home.keeper(), home.stored()
        await asyncio.sleep(90_000)
        with pytest.raises(StopRun, match=r"never arrived.*harvester login") as stopped:
            await keeper.current()
        assert stopped.value.reason == "credentials_refused"
        assert home.stored() == before

    virtually(main)


def test_invalid_grant_loses_to_a_token_that_another_program_stored(root: Path) -> None:
    """A program that does not know our lock renewed meanwhile: its token is taken."""
    home = house(root)

    def beaten(form: Form) -> None:
        home.endpoint.before = lambda form: None
        body = home.server.answer(form.path, dict(form.fields)).body
        new = {name: body[name] for name in ("access_token", "refresh_token")}
        now = home.server.now()
        times = {"received_at": now, "expires_at": now + 86_400}
        with home.store().room() as room:
            room.save(replace(home.stored(), generation=2, **times, **new))

    async def main() -> None:
        await home.sign_in()
        keeper = home.keeper()
        await asyncio.sleep(90_000)
        home.endpoint.before = beaten
        assert home.server.accepts(f"Bearer {await keeper.current()}")
        assert (home.server.exchanges, home.server.refused) == (1, 1)

    virtually(main)


def test_a_refused_refresh_token_stops_all_tasks_after_one_request(root: Path) -> None:
    """Final: exit 4; the stored file stays as it is."""
    home = house(root)

    async def main() -> None:
        await home.sign_in(refresh_token="revoked")
        stop = StopSignal()
        keeper, before = home.keeper(stop), home.stored()
        await asyncio.sleep(90_000)
        ends = await asyncio.gather(*(keeper.current() for _ in range(50)), return_exceptions=True)
        assert {type(end) for end in ends} == {StopRun}
        assert {end.reason for end in ends if isinstance(end, StopRun)} == {"credentials_refused"}
        assert "harvester login" in str(stop.order)
        assert len(home.server.asked) == 1
        assert home.stored() == before

    virtually(main)


def test_a_client_id_that_the_server_does_not_know_stops_the_run(root: Path) -> None:
    """It says so, and keeps the tokens."""
    home = house(root, faults=["invalid_client"])

    async def main() -> None:
        await home.sign_in()
        keeper, before = home.keeper(), home.stored()
        await asyncio.sleep(90_000)
        with pytest.raises(StopRun, match=r"invalid_client.*developer portal"):
            await keeper.current()
        assert home.stored() == before

    virtually(main)


# -- whose tokens --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changed",
    [
        {"base_url": "https://evil.example"},
        {"client_id": "another"},
        {"auth_url": "https://evil.example"},
    ],
)
def test_tokens_go_to_no_other_origin_or_app(root: Path, changed: dict[str, str]) -> None:
    """Whatever the configuration says: an error before anything is sent."""
    home = house(root)

    async def main() -> None:
        await home.sign_in()
        if auth_url := changed.pop("auth_url", None):
            home.endpoint.auth_url = auth_url
        with pytest.raises(ConfigError, match="was signed in with"):
            home.keeper(**changed)

    virtually(main)


def test_an_account_that_is_bound_elsewhere_meanwhile_is_not_adopted(root: Path) -> None:
    """A sign-in of the same name to another server, during a run: the run stops."""
    home = house(root)

    async def main() -> None:
        await home.sign_in()
        keeper = home.keeper()
        await home.sign_in(base_url="https://other.example", generation=2)
        await asyncio.sleep(90_000)
        with pytest.raises(StopRun, match="was signed in with"):
            await keeper.current()
        assert home.server.asked == []

    virtually(main)


def test_a_sign_out_during_a_run_is_respected(root: Path) -> None:
    """The tokens do not come back by a renewal."""
    home = house(root)

    async def main() -> None:
        await home.sign_in()
        keeper, store = home.keeper(), home.store()
        async with store.locked(asyncio.sleep):
            assert store.forget()
        await asyncio.sleep(90_000)
        with pytest.raises(StopRun, match="is not signed in"):
            await keeper.current()
        assert store.read() is None

    virtually(main)


# -- cancels and the lock ------------------------------------------------------------------------


@pytest.mark.parametrize("after", [0.0, 0.05, 1.0, 3.05])
def test_a_cancel_waits_for_the_exchange(root: Path, after: float) -> None:
    """At any moment: the next run goes on without a sign-in."""
    home = house(root, faults=["late"])

    async def main() -> None:
        await home.sign_in()
        keeper = home.keeper()
        await asyncio.sleep(90_000)
        task = asyncio.ensure_future(keeper.current())
        await asyncio.sleep(after)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert home.server.accepts(f"Bearer {await home.keeper().current()}")
        assert home.server.refused == 0

    virtually(main)


def test_a_cancel_does_not_wait_for_ever(root: Path) -> None:
    """Half a minute, where the endpoint hangs."""
    home = house(root)
    home.endpoint.delay = 1e6

    async def main() -> None:
        await home.sign_in()
        keeper = home.keeper()
        await asyncio.sleep(90_000)
        task = asyncio.ensure_future(keeper.current())
        await asyncio.sleep(5)
        before = home.clock.monotonic()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert home.clock.monotonic() - before <= 31

    virtually(main)


def test_a_lock_that_is_never_released_delays_only_a_renewal_that_is_needed(root: Path) -> None:
    """A stopped process has it: a token that is good is used, one that is over ends the run in
    time, and the order to stop is heard."""
    home = house(root)

    async def main() -> None:
        await home.sign_in()
        keeper, other = home.keeper(max_wait=20.0), home.store()
        await asyncio.sleep(86_400 - 200)
        async with other.locked(asyncio.sleep):
            before = home.clock.monotonic()
            assert home.server.accepts(f"Bearer {await keeper.current()}")
            assert home.clock.monotonic() - before < 10
            await asyncio.sleep(300)
            with pytest.raises(StopRun, match="holds the lock"):
                await keeper.current()
            stop = StopSignal()
            waiting = asyncio.ensure_future(home.keeper(stop).current())
            await asyncio.sleep(1)
            before = home.clock.monotonic()
            stop.request(StopRun("SIGTERM", "stopped"))
            with pytest.raises(StopRun, match="stopped"):
                await waiting
            assert home.clock.monotonic() - before < 0.5
        assert home.server.asked == []

    virtually(main)


# -- kills ---------------------------------------------------------------------------------------

CALLS = ("open", "write", "pwrite", "fsync", "ftruncate", "fchmod", "replace", "unlink", "mkdir")


class Killed(BaseException):
    """The process is gone: nothing of it runs any more."""


@contextmanager
def killed_at(point: int, *, torn: bool = False) -> Iterator[list[str]]:
    """Die before the call number `point` that changes the disk, or in the middle of a write; from
    then on nothing reaches the disk, as nothing does of a dead process."""
    trace: list[str] = []
    dead = False

    def wrap(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **named: Any) -> Any:
            nonlocal dead
            if dead:
                raise Killed
            trace.append(name)
            if len(trace) == point:
                dead = True
                if torn and name == "pwrite":
                    real(args[0], bytes(args[1])[: len(args[1]) // 100], *args[2:])
                raise Killed
            return real(*args, **named)

        return call

    with pytest.MonkeyPatch.context() as patch:
        for name in CALLS:
            patch.setattr(os, name, wrap(name, getattr(os, name)))
        yield trace


def renewal(home: House) -> Callable[[], Coroutine[Any, Any, list[tuple[str, str, bool]]]]:
    """A process that dies at each point of a renewal, and the one after it: what that came to."""

    async def main() -> list[tuple[str, str, bool]]:
        ends: list[tuple[str, str, bool]] = []
        for torn in (False, True):
            for point in range(1, 100):
                await home.sign_in(generation=home.server.made)
                await asyncio.sleep(90_000)
                dying = home.keeper()
                with killed_at(point, torn=torn) as trace:
                    try:
                        await dying.current()
                    except Killed:
                        pass
                    else:
                        break
                assert len(trace) >= point
                try:
                    token = await home.keeper().current()
                except StopRun as over:
                    ends.append((trace[point - 1], over.reason, "never arrived" in str(over)))
                    continue
                assert home.server.accepts(f"Bearer {token}")
                left = {path.name for path in (home.root / "accounts").iterdir()}
                assert left == {"default.json", "default.lock"}
        return ends

    return main


def test_a_kill_at_any_call_of_a_renewal_costs_no_sign_in(root: Path) -> None:
    """With the leeway that such servers give, at every call that touches the disk."""
    home = house(root, leeway=30.0)
    assert virtually(renewal(home)) == []
    assert home.server.exchanges > 25


def test_without_leeway_only_an_answer_that_was_not_written_is_lost(root: Path) -> None:
    """One point of each round: at the write of the answer. The error says so."""
    home = house(root, leeway=0.0)
    assert virtually(renewal(home)) == [("pwrite", "credentials_refused", True)] * 2


@pytest.mark.parametrize("name", ["open", "pwrite", "fsync"])
def test_a_disk_that_refuses_before_the_question_costs_nothing(root: Path, name: str) -> None:
    """Room for the answer is made first: nothing is asked."""
    home = house(root)

    async def main() -> None:
        await home.sign_in()
        keeper, before = home.keeper(), home.stored()
        await asyncio.sleep(90_000)
        with pytest.MonkeyPatch.context() as patch:
            if name == "open":
                _refuse(patch, name, only=lambda args: str(args[0]).endswith(".new"))
            else:
                _refuse(patch, name)
            with pytest.raises(StorageError):
                await keeper.current()
        assert home.server.asked == []
        assert home.stored() == before
        assert home.server.accepts(f"Bearer {await home.keeper().current()}")

    virtually(main)


@pytest.mark.parametrize("name", ["pwrite", "fsync", "replace"])
def test_a_disk_that_refuses_the_answer_is_asked_again(root: Path, name: str) -> None:
    """The tokens are in memory only: a disk that is full for a moment loses nothing."""
    home = house(root)

    async def main() -> None:
        await home.sign_in()
        keeper = home.keeper()
        await asyncio.sleep(90_000)
        with pytest.MonkeyPatch.context() as patch:
            _refuse(patch, name, only=lambda args: home.server.exchanges > 0, times=3)
            token = await keeper.current()
        assert home.stored().access_token == token
        assert home.server.accepts(f"Bearer {token}")
        assert home.server.exchanges == 1
        assert await home.keeper().current() == token
        left = {path.name for path in (home.root / "accounts").iterdir()}
        assert left == {"default.json", "default.lock"}

    virtually(main)


def test_a_disk_that_refuses_for_good_stops_all_tasks_after_one_exchange(root: Path) -> None:
    """What was written before the refusal is taken up by the next run."""
    home = house(root)

    async def main() -> None:
        await home.sign_in()
        stop = StopSignal()
        keeper = home.keeper(stop)
        await asyncio.sleep(90_000)
        with pytest.MonkeyPatch.context() as patch:
            _refuse(patch, "replace")
            ends = await asyncio.gather(
                *(keeper.current() for _ in range(20)), return_exceptions=True
            )
        assert all(isinstance(end, StopRun) for end in ends)
        assert "cannot be saved" in str(stop.order)
        assert home.server.exchanges == 1
        assert home.server.accepts(f"Bearer {await home.keeper().current()}")
        assert home.server.exchanges == 1

    virtually(main)


def test_the_answer_is_durable_before_it_is_used(root: Path) -> None:
    """Room and its name, then the answer, its bytes, its name."""
    home = house(root)

    async def main() -> None:
        await home.sign_in()
        await asyncio.sleep(90_000)
        keeper = home.keeper()
        with killed_at(0) as trace:
            home.endpoint.before = lambda form: trace.append("ask")
            await keeper.current()
        asked = trace.index("ask")
        assert trace[:asked][-5:] == ["fchmod", "pwrite", "fsync", "open", "fsync"]
        assert trace[asked + 1 :] == ["pwrite", "ftruncate", "fsync", "replace", "open", "fsync"]

    virtually(main)


def _refuse(
    patch: pytest.MonkeyPatch,
    name: str,
    *,
    only: Callable[[tuple[Any, ...]], bool] = lambda args: True,
    times: int = 10**6,
) -> None:
    real, left = getattr(os, name), times

    def call(*args: Any, **named: Any) -> Any:
        nonlocal left
        if left and only(args):
            left -= 1
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(*args, **named)

    patch.setattr(os, name, call)
