"""What a sick server may cost, and what a run may cost: both are bounded, and both say so."""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import pytest
from crashlab import Home, Served, config_of, environment
from fakes import LoopClock, virtually
from faultserver import RESET, Answer, FaultServer, Question, World, framed, refusal, serving

from harvester import HarvestConfig, HarvestReport
from harvester.run import Harvester
from harvester.sandbox import Hit, Sandbox, SandboxSettings

T = TypeVar("T")
BUDGET = 200  # failed requests that a run puts up with
pytestmark = pytest.mark.usefixtures("instant_threads")
_DOWN = framed(refusal("http.status.500", "down"), status="500 Internal Server Error")
ANSWERS = {"500": Answer(_DOWN), "reset": Answer(b"", RESET), "garbage": Answer(framed(b"<html>"))}


@dataclass
class Moody:
    """A world whose server answers with `mood` when it is sick."""

    mood: Answer | None
    world: World = field(default_factory=lambda: World(pages=1))

    def script(self, question: Question) -> Answer:
        return self.mood or self.world.honest(question)


def served(moody: Moody, trial: Callable[[FaultServer], Awaitable[T]]) -> T:
    """Make the trial in virtual time: backoffs of minutes cost nothing."""

    async def main() -> T:
        async with serving(moody.script) as server:
            return await trial(server)

    return virtually(main)


async def harvest(server: FaultServer, root: Path, count: int, **settings: Any) -> HarvestReport:
    config = server.config(root, **{"retries": 5, **settings})
    clock: Any = LoopClock()
    return await Harvester(config, clock=clock).run([str(number) for number in range(1, count + 1)])


# -- a sick server -----------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 16, 64])
@pytest.mark.parametrize("retries", [0, 1, 5])
def test_a_dead_server_costs_a_bounded_number_of_requests(
    root: Path, workers: int, retries: int
) -> None:
    """5,000 campaigns at a server that always fails take some two hundred requests, then exit 75.

    The bound: what the budget has, the last request of each campaign whose retries that used up,
    and a request of each campaign that was under way (four a worker).
    """

    async def trial(server: FaultServer) -> None:
        report = await harvest(server, root, 5_000, concurrency=workers, retries=retries)
        bound = BUDGET + BUDGET // max(1, retries) + 4 * workers
        print(f"{workers} workers, {retries} retries: {len(server.heads)} requests of {bound}")
        assert report.requests.sent == len(server.heads) <= bound
        assert (report.exit_code, report.reason) == (75, "sick_server")
        assert report.resume_at is not None
        assert report.resume_at > report.finished_at
        assert "HTTP 500" in (report.message or "")
        assert report.campaigns.total == 5_000
        assert report.campaigns.complete == 0

    served(Moody(ANSWERS["500"]), trial)


@pytest.mark.parametrize("sickness", ["reset", "garbage"])
def test_the_bound_holds_for_every_kind_of_failure(root: Path, sickness: str) -> None:
    """Connections that are reset and answers that are no pages are failures as a 500 is."""

    async def trial(server: FaultServer) -> None:
        report = await harvest(server, root, 5_000)
        assert (report.exit_code, report.reason) == (75, "sick_server")
        assert report.requests.sent == len(server.heads) <= BUDGET + BUDGET // 5 + 64

    served(Moody(ANSWERS[sickness]), trial)


def test_a_port_without_a_server_costs_little_of_the_day(root: Path) -> None:
    """Where no connection can be made, the day is charged no more than for a dead server."""

    async def trial(server: FaultServer) -> HarvestReport:
        return await harvest(server, root, 5_000, base_url="http://127.0.0.1:9")

    report = served(Moody(None), trial)
    assert (report.exit_code, report.reason) == (75, "sick_server")
    assert report.requests.sent == report.quota.used_today <= BUDGET + BUDGET // 5 + 64


def test_a_server_that_is_well_again_is_harvested(root: Path) -> None:
    """The same command after the sickness completes every campaign, those that failed too."""
    moody = Moody(ANSWERS["500"])

    async def trial(server: FaultServer) -> None:
        first = await harvest(server, root, 300, concurrency=2)
        assert (first.exit_code, first.campaigns.total) == (75, 300)
        assert first.campaigns.failed > 0
        moody.mood = None
        second = await harvest(server, root, 300)
        assert (second.exit_code, second.campaigns.complete) == (0, 300)
        assert second.requests.sent == 300

    served(moody, trial)


def test_a_server_that_fails_one_time_in_four_is_harvested(root: Path) -> None:
    """The budget is for the sick, not for the slow: what succeeds pays it back."""
    clock: Any = LoopClock()

    async def main() -> None:
        settings = SandboxSettings(
            campaigns=300,
            pages=900,
            rows_per_page=2,
            faults={"error500": 0.1, "reset": 0.1, "cut": 0.05},
            heal_after=None,
        )
        async with Sandbox(settings) as sandbox:
            # By rate, a fault that never heals hits each attempt anew.
            config = _config(sandbox, Home(root), retries=12)
            report = await Harvester(config, clock=clock).run(sandbox.world.campaign_ids)
            assert (report.exit_code, report.reason) == (0, "complete")
            assert report.requests.retried > BUDGET

    virtually(main)


EVILS = {
    "auth": "unauthorized",
    "error403": "forbidden",
    "throttle": "throttled",
    "throttle429": "throttled",
    "error500": "server_error",
    "html": "unreadable",
    "wrong_shape": "unreadable",
    "foreign_link": "foreign_link",
    "redirect": "redirected",
    "loop": "looping_cursor",
    "reset": "reset",
    "cut": "cut",
}
MORE_EVILS = {
    "error405": "rejected",
    "endless_empty": "endless_cursor",
    "timeout": "timeout",
    "twice": "unreadable",
    "flood": "flood",
    "error_in_200": "unreadable",
    "empty": "unreadable",
    "cut_gzip": "cut",
    "error404": "not_found",
    "error406": "rejected",
    "error503": "server_error",
    "forbidden": "forbidden",
}


@pytest.mark.parametrize("evils", [EVILS, MORE_EVILS], ids=["evils", "more evils"])
@pytest.mark.parametrize(
    ("concurrency", "rate", "first"),
    [(1, 3.3, 0), (1, 0, 88), (2, 3.3, 0), (2, 3.3, 44), (16, 3.3, 0), (16, 3.3, 88), (16, 0, 0)],
)
def test_one_bad_campaign_of_each_kind_costs_itself(
    root: Path, concurrency: int, rate: float, first: int, evils: dict[str, str]
) -> None:
    """Twelve evils among a hundred campaigns, side by side: 88 are complete after one run."""
    clock: Any = LoopClock()

    async def main() -> None:
        settings = SandboxSettings(campaigns=100, pages=150, rows_per_page=3)
        names = Sandbox(settings).world.campaign_ids
        bad = dict(zip(names[first:], evils, strict=False))
        pinned = {(name, None): kind for name, kind in bad.items()}
        async with Sandbox(replace(settings, pinned=pinned, clock=clock.monotonic)) as sandbox:
            config = replace(_config(sandbox, Home(root), concurrency=concurrency), rate=rate)
            report = await Harvester(config, clock=clock).run(sandbox.world.campaign_ids)
            assert (report.exit_code, report.campaigns.complete) == (3, 88)
            errors = (Home(root).out / "errors.ndjson").read_bytes().splitlines()
            found = [json.loads(line) for line in errors]
            assert {line["campaign_id"]: line["kind"] for line in found} == {
                name: evils[kind] for name, kind in bad.items()
            }
            assert sandbox.requests <= 150 + 250
            per_campaign = Counter(hit.campaign_id for hit in sandbox.log)
            assert max(per_campaign[name] for name in bad) <= 60

    virtually(main)


@pytest.mark.parametrize("kind", ["auth", "error403"])
@pytest.mark.parametrize(("concurrency", "rate"), [(1, 3.3), (16, 3.3), (16, 0)])
def test_a_refusal_everywhere_stops_within_a_few_requests(
    root: Path, kind: str, concurrency: int, rate: float
) -> None:
    """Exit 4, and no campaign is called failed: the same command goes on with a good token."""
    clock: Any = LoopClock()

    async def main() -> None:
        settings = SandboxSettings(campaigns=100, pages=150, rows_per_page=2, latency=0.1)
        pinned = {(None, None): kind}
        async with Sandbox(replace(settings, pinned=pinned, clock=clock.monotonic)) as sandbox:
            config = replace(_config(sandbox, Home(root), concurrency=concurrency), rate=rate)
            report = await Harvester(config, clock=clock).run(sandbox.world.campaign_ids)
            assert (report.exit_code, report.reason) == (4, "credentials_refused")
            assert report.campaigns.failed == 0
            assert sandbox.requests <= (8 if rate else 24)

    virtually(main)


async def refusing(
    root: Path, kind: str, which: Callable[[list[str]], list[str]], **more: Any
) -> tuple[HarvestReport, dict[str, str], int]:
    """Harvest twelve campaigns, of which `which` are refused always: the report, what failed, and
    the requests. `names` are harvested of them; in the API's own order where it is not given."""
    clock: Any = LoopClock()
    names, api = more.pop("names", None), more.pop("api", "v2")
    settings = SandboxSettings(campaigns=12, pages=24, rows_per_page=2, latency=0.05, unsent=0)
    world = Sandbox(settings).world
    everyone = list(world.campaign_ids if api == "v2" else world.v3_campaign_ids)
    pinned: dict[Any, Any] = {(name, None): kind for name in which(everyone)}
    kept = root / "port"  # the next run into the same directory goes to the same origin
    port = int(kept.read_text()) if kept.exists() else 0
    settings = replace(settings, pinned=pinned, clock=clock.monotonic)
    async with Sandbox(settings, port=port) as sandbox:
        root.mkdir(exist_ok=True)
        kept.write_text(sandbox.base_url.rpartition(":")[2])
        config = _config(sandbox, Home(root), api=api, **more)
        report = await Harvester(config, clock=clock).run(everyone if names is None else names)
        errors = Home(root).out / "errors.ndjson"
        lines = map(json.loads, errors.read_bytes().splitlines())
        found = {line["campaign_id"]: line["kind"] for line in lines}
        return report, found, sandbox.requests


@pytest.mark.parametrize("api", ["v2", "v3"])
@pytest.mark.parametrize("report", ["opens", "all"])
@pytest.mark.parametrize("concurrency", [1, 16])
@pytest.mark.parametrize("kind", ["auth", "error403", "throttle429"])
def test_campaigns_that_are_refused_before_any_is_accepted_cost_themselves(
    root: Path, kind: str, concurrency: int, report: str, api: str
) -> None:
    """The first ones of a run, whatever the number of reports: the others are harvested."""
    names = {"auth": "unauthorized", "error403": "forbidden", "throttle429": "throttled"}
    count = 2 if kind == "throttle429" else 4

    async def main() -> None:
        found, failed, _ = await refusing(
            root,
            kind,
            lambda ids: ids[:count],
            concurrency=concurrency,
            rate=3.3,
            report=report,
            api=api,
            counts=False,
            max_wait=60.0 if concurrency == 1 else 300.0,
        )
        assert (found.exit_code, found.campaigns.complete) == (3, 12 - count)
        assert set(failed.values()) == {names[kind]}
        assert len(failed) == found.campaigns.failed == count

    virtually(main)


@pytest.mark.parametrize("concurrency", [1, 2, 16])
def test_a_campaign_that_is_refused_alone_is_so_in_the_next_run_too(
    root: Path, concurrency: int
) -> None:
    """No other one is left to ask for: one that was harvested before shows that the key works."""

    async def main() -> None:
        for sent in (26, 2):
            report, failed, requests = await refusing(
                root, "error403", lambda ids: ids[3:4], concurrency=concurrency
            )
            assert (report.exit_code, report.reason) == (3, "failures")
            assert (list(failed.values()), report.campaigns.complete) == (["forbidden"], 11)
            assert requests <= sent

    virtually(main)


@pytest.mark.parametrize("kind", ["auth", "error403"])
@pytest.mark.parametrize("count", [1, 4, 12])
def test_a_key_that_is_refused_everywhere_is_found_out_in_few_requests(
    root: Path, kind: str, count: int
) -> None:
    """However few campaigns there are, and with every report of each; also where a campaign was
    harvested before."""

    async def main() -> None:
        def all_of(ids: list[str]) -> list[str]:
            return ids[:count] if count < 12 else ids

        settings: dict[str, Any] = {"concurrency": 1, "rate": 3.3, "report": "all"}
        everyone = Sandbox(SandboxSettings(campaigns=12, pages=24)).world.campaign_ids
        names = all_of(everyone)
        report, failed, requests = await refusing(root, kind, all_of, names=names, **settings)
        assert (report.exit_code, failed) == (4, {})
        assert requests <= 11  # of 401 and `all`: five details and reports, one of them twice

        home = root / "later"
        await refusing(home, kind, lambda ids: [], names=names, **(settings | {"report": "opens"}))
        report, failed, requests = await refusing(home, kind, all_of, names=names, **settings)
        assert (report.exit_code, failed) == (4, {})
        assert requests <= 5

    virtually(main)


@pytest.mark.parametrize("kind", ["auth", "error403"])
@pytest.mark.parametrize("concurrency", [1, 16])
def test_counts_do_not_show_that_campaigns_may_be_asked_for(
    root: Path, kind: str, concurrency: int
) -> None:
    """Where every campaign is refused, a privilege may be missing: the run stops."""

    async def main() -> None:
        report, failed, requests = await refusing(
            root,
            kind,
            lambda ids: ids,
            api="v3",
            report="opens,clicks",
            concurrency=concurrency,
            rate=3.3,
        )
        assert (report.exit_code, report.reason, failed) == (4, "credentials_refused", {})
        assert requests <= 8

    virtually(main)


def test_an_answer_in_flight_shows_that_the_key_works(root: Path) -> None:
    """Five campaigns are refused at once, while the page of a sixth takes its time."""
    clock: Any = LoopClock()

    async def main() -> None:
        settings = SandboxSettings(campaigns=12, pages=24, rows_per_page=2, slow_seconds=20.0)
        ids = Sandbox(settings).world.campaign_ids
        pinned: dict[Any, Any] = {(name, None): "error403" for name in ids[:5]}
        pinned |= {(name, 1): ["slow", "ok"] for name in ids[5:]}
        async with Sandbox(replace(settings, pinned=pinned, clock=clock.monotonic)) as sandbox:
            report = await Harvester(_config(sandbox, Home(root)), clock=clock).run(ids)
            assert (report.exit_code, report.campaigns.complete) == (3, 7)

    virtually(main)


def _config(sandbox: Sandbox, home: Home, **settings: Any) -> HarvestConfig:
    return config_of(sandbox, home.path, **settings)


# -- a run's own bounds, from the command line -------------------------------------------------


@dataclass
class Shell:
    """The command line in a process of its own, against a sandbox."""

    served: Served
    home: Home

    def run(self, *options: str, code: int) -> dict[str, Any]:
        """`harvester run`; what `--json` prints."""
        command = [sys.executable, "-m", "harvester", "run", "--json", "-q"]
        where = ["-o", str(self.home.out), "--state-dir", str(self.home.state)]
        what = ["--base-url", self.served.sandbox.base_url, "--page-size", "2"]
        ids = self.served.sandbox.world.campaign_ids
        done = subprocess.run(
            [*command, *where, *what, *options, *ids],
            env=environment(),
            capture_output=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == code, done.stderr.decode()
        found: dict[str, Any] = json.loads(done.stdout)
        assert found == self.home.summary()
        return found

    def hits(self) -> list[Hit]:
        return self.served.hits()

    def places(self) -> set[tuple[str, int]]:
        """What was asked, each once: a page where equal events meet may be looked at again."""
        hits = self.hits()
        assert len(hits) <= len({(hit.campaign_id, hit.page) for hit in hits}) + 4
        return {(hit.campaign_id, hit.page) for hit in hits}


@pytest.fixture
def shell(root: Path) -> Iterator[Shell]:
    """A sandbox of 20 campaigns on 100 pages, and a folder."""
    settings = SandboxSettings(campaigns=20, pages=100, rows_per_page=2)
    with Served(Sandbox(settings)) as served:
        yield Shell(served, Home(root))


def test_max_requests_is_exact_and_the_same_command_goes_on(shell: Shell) -> None:
    """Each run sends so many requests and exits 75; the last one is done before that."""
    for run in (1, 2, 3):
        summary = shell.run("--rate", "0", "--max-requests", "30", code=75)
        assert summary["reason"] == "max_requests"
        assert summary["requests"]["sent"] == 30
        assert summary["resume_at"] is not None
        assert len(shell.hits()) == 30 * run
    shell.run("--rate", "0", "--max-requests", "30", code=0)
    assert len(shell.places()) == 100


def test_max_duration_stops_a_run_that_can_go_on(shell: Shell) -> None:
    """No request starts once the time is over, and exit 75 says that there is more to do."""
    summary = shell.run("--rate", "20", "--max-duration", "0.5", code=75)
    assert summary["reason"] == "max_duration"
    assert summary["requests"]["sent"] == len(shell.hits()) <= 1 + 0.5 * 20
    assert summary["campaigns"]["complete"] < summary["campaigns"]["total"] == 20
    assert shell.run("--rate", "0", code=0)["campaigns"]["complete"] == 20
    assert len(shell.places()) == 100


def test_a_reserve_is_left_untouched(shell: Shell) -> None:
    """With a quota of 50 and a reserve of 20, 30 requests are sent; the summary tells the quota."""
    options = ("--rate", "0", "--daily-quota", "50", "--quota-reserve", "20")
    summary = shell.run(*options, code=75)
    assert summary["reason"] == "quota_spent"
    assert summary["quota"]["used_today"] == len(shell.hits()) == 30
    assert summary["resume_at"] == summary["quota"]["resets_at"]
    assert summary["resume_at"].endswith("T00:00:00.000Z")
    assert shell.run(*options, code=75)["requests"]["sent"] == 0


async def test_a_limit_met_in_flight_loses_no_page(root: Path) -> None:
    """What was sent before the limit is answered, saved, and not asked again."""
    async with Sandbox(
        SandboxSettings(campaigns=20, pages=100, rows_per_page=2, latency=0.02)
    ) as sandbox:
        ids = sandbox.world.campaign_ids
        home = Home(root)
        first = await Harvester(_config(sandbox, home, max_requests=33)).run(ids)
        assert first.exit_code == 75
        second = await Harvester(_config(sandbox, home)).run(ids)
        assert (second.exit_code, first.pages + second.pages) == (0, 100)
        assert len({(hit.campaign_id, hit.page) for hit in sandbox.log}) == 100
        assert sandbox.requests <= 104  # a page where equal events meet may be looked at again


@pytest.mark.parametrize("sent", [1, 5, 17, 40])
def test_a_run_that_was_stopped_knows_what_there_is_to_do(root: Path, sent: int) -> None:
    """Wherever it stops, every campaign is counted, and as complete only with all its reports."""

    async def main() -> None:
        async with Sandbox(SandboxSettings(campaigns=50, pages=100, rows_per_page=2)) as sandbox:
            for concurrency in (1, 2, 3, 8):
                config = _config(
                    sandbox,
                    Home(root / str(concurrency)),
                    report="opens,clicks,sends",
                    max_requests=sent,
                    concurrency=concurrency,
                )
                report = await Harvester(config, clock=clock).run(sandbox.world.campaign_ids)
                counts = report.campaigns
                assert (report.exit_code, report.pages, counts.total) == (75, sent, 50)
                assert counts.complete + counts.partial + counts.pending == 50
                done = Counter(path.name for path in config.directory.glob("*/*.ndjson"))
                assert counts.complete == list(done.values()).count(3)

    clock: Any = LoopClock()
    virtually(main)
