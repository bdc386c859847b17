"""`harvester plan` from the outside: what it says, and that it sends nothing."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from crashlab import Home, Served
from shell import quick

from harvester.disk.inspect import read_content
from harvester.disk.layout import Layout
from harvester.sandbox import Sandbox, SandboxSettings

CAMPAIGNS, PAGES = 30, 120


@dataclass
class Shell:
    """The command line in this process, against a sandbox."""

    served: Served
    home: Home

    def __call__(self, command: str, *options: str, code: int = 0) -> str:
        """What it prints."""
        where = ["-o", str(self.home.out), "--state-dir", str(self.home.state)]
        what = ["--base-url", self.served.sandbox.base_url, "--page-size", "2", "--rate", "0"]
        ids = self.served.sandbox.world.campaign_ids
        done = quick(self.home.path, command, *where, *what, *options, *ids)
        assert done.code == code, done.stderr
        return done.stdout

    def plan(self, *options: str) -> dict[str, Any]:
        """The plan's facts; and nothing was sent to learn them."""
        before = self.sent
        found: dict[str, Any] = json.loads(self("plan", "--json", *options))
        assert self.sent == before
        return found

    @property
    def sent(self) -> int:
        return len(self.served.hits())


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    """A sandbox of 30 campaigns on 120 pages, and a folder."""
    settings = SandboxSettings(campaigns=CAMPAIGNS, pages=PAGES, rows_per_page=2, unsent=0)
    with Served(Sandbox(settings)) as served:
        yield Shell(served, Home(tmp_path))


def day_after(found: dict[str, Any]) -> int:
    """In how many days from today (UTC) the plan has it done."""
    done = datetime.fromisoformat(found["done_about"])
    return (done.date() - datetime.now(UTC).date()).days


def test_before_the_first_run_everything_is_new_and_nothing_is_touched(shell: Shell) -> None:
    """A plan of a harvest that does not exist makes no directory, and no request."""
    found = shell.plan()
    assert not shell.home.out.exists()
    assert (found["campaigns"]["total"], found["campaigns"]["new"]) == (CAMPAIGNS, CAMPAIGNS)
    assert found["requests"] == CAMPAIGNS
    assert (found["used_today"], found["left_today"]) == (0, 10_000)
    assert found["days"] == 1
    assert shell.sent == 0


@pytest.mark.parametrize("sent", [1, 47, 119])
def test_after_a_partial_run_it_counts_what_is_there(shell: Shell, sent: int) -> None:
    """Done, partial and new are those of the run that stopped; so is what is left of the day."""
    shell("run", "-q", "--max-requests", str(sent), code=75)
    counts = shell.home.summary()["campaigns"]
    found = shell.plan()
    assert found["campaigns"]["total"] == counts["total"] == CAMPAIGNS
    assert found["campaigns"]["done"] == counts["complete"] == len(shell.home.finals())
    assert found["campaigns"]["partial"] == counts["partial"]
    assert found["campaigns"]["new"] == counts["pending"]
    assert found["requests"] == found["campaigns"]["partial"] + found["campaigns"]["new"]
    assert found["requests"] <= PAGES - sent
    assert found["used_today"] == shell.sent == sent
    assert found["left_today"] == 10_000 - sent


def test_after_the_last_run_there_is_nothing_to_do(shell: Shell) -> None:
    """A finished harvest costs no request and no day; started afresh, it costs what it did."""
    shell("run", "-q")
    found = shell.plan()
    assert (found["campaigns"]["done"], found["requests"]) == (CAMPAIGNS, 0)
    assert found["days"] == 0
    assert day_after(found) == 0
    afresh = shell.plan("--fresh")
    assert (afresh["campaigns"]["new"], afresh["requests"]) == (CAMPAIGNS, CAMPAIGNS)
    assert len(shell.home.finals()) == CAMPAIGNS


def test_after_a_top_up_that_stopped_plan_and_status_agree(shell: Shell) -> None:
    """A finished file that is growing is partial for both; the plan counts a request for each
    campaign that this top-up has not had yet."""
    shell("run", "-q")
    shell("run", "-q", "--since", "last", "--max-requests", "7", "-j", "2", code=75)
    found = shell.plan("--since", "last")
    known = read_content(Layout(shell.home.out)).campaigns
    assert (found["campaigns"]["done"], found["campaigns"]["partial"]) == (
        known.complete,
        known.partial,
    )
    assert (found["campaigns"]["new"], known.pending) == (0, 0)
    assert 0 < found["requests"] <= CAMPAIGNS
    shell("run", "-q", "--since", "last")
    assert shell.plan()["requests"] == 0
    assert shell.plan("--since", "last")["requests"] == CAMPAIGNS


def test_it_knows_how_many_days_a_quota_makes_of_it(shell: Shell) -> None:
    """30 requests at 12 a day, 7 of which are used: 5 today, 12, 12, and one on the fourth day."""
    shell("run", "-q", "--max-requests", "7", code=75)
    options = ("--daily-quota", "12", "--fresh")
    found = shell.plan(*options)
    assert (found["used_today"], found["left_today"]) == (7, 5)
    assert found["requests"] == 30
    assert found["days"] == 4
    assert day_after(found) == 3
    # Less a reserve of 6 a day, there is nothing left today: 6 on each of five more days.
    found = shell.plan(*options, "--quota-reserve", "6")
    assert found["left_today"] == 0
    assert found["days"] == 5
    assert day_after(found) == 5


def test_it_knows_the_pace(shell: Shell) -> None:
    """At one request in ten seconds, 30 campaigns take at least five minutes."""
    before = datetime.now(UTC)
    found = shell.plan("--rate", "0.1")
    done = datetime.fromisoformat(found["done_about"])
    assert timedelta(seconds=299) <= done - before <= timedelta(seconds=330)


def test_it_says_so_in_words(shell: Shell) -> None:
    """The text has the same figures, each with what it is."""
    shell("run", "-q", "--max-requests", "47", code=75)
    found, text = shell.plan(), shell("plan")
    for name, number in {**found["campaigns"], "campaigns": CAMPAIGNS}.items():
        shown = re.search(rf"^ +{name}  (at least )?{number}\b", text, re.MULTILINE)
        assert shown or (name, number) in {("total", CAMPAIGNS), ("failed", 0)}, name
    assert f"requests  at least {found['requests']} (47 used today, 9,953 left today)" in text
    assert "      time  at least 1 day with no pace, not before " in text


def test_what_the_api_refused_for_good_is_told_apart(tmp_path: Path) -> None:
    """A campaign that is not there costs nothing more, unless it is to be tried again."""
    sandbox = Sandbox(SandboxSettings(campaigns=5, pages=10, rows_per_page=2))
    gone = sandbox.world.campaign_ids[2]
    pinned = {(gone, 1): "error404"}
    settings = SandboxSettings(campaigns=5, pages=10, rows_per_page=2, pinned=pinned)
    with Served(Sandbox(settings)) as served:
        shell = Shell(served, Home(tmp_path))
        shell("run", "-q", code=3)
        found = shell.plan()
        assert (found["campaigns"]["failed"], found["campaigns"]["done"], found["requests"]) == (
            1,
            4,
            0,
        )
        assert "failed  1: asked again only with --retry-failed" in shell("plan")
        found = shell.plan("--retry-failed")
        assert (found["campaigns"]["failed"], found["requests"]) == (0, 1)


def test_a_plan_that_asks_is_exact(shell: Shell) -> None:
    """v3: its requests are charged, and those of the run are what it says."""
    sandbox = shell.served.sandbox
    where = ["-o", str(shell.home.out), "--state-dir", str(shell.home.state), "--api", "v3"]
    what = ["--base-url", sandbox.base_url, "--page-size", "2", "--rate", "0", "--report", "all"]
    arguments = [*where, *what, *sandbox.world.v3_campaign_ids]
    done = quick(shell.home.path, "plan", "--ask", "--json", *arguments)
    assert done.code == 0, done.stderr
    plan = json.loads(done.stdout)
    assert (plan["at_least"], plan["used_today"]) == (False, shell.sent)
    text = quick(shell.home.path, "plan", "--ask", *arguments).stdout
    assert "done about" in text
    assert "at least" not in text
    before = shell.sent
    assert quick(shell.home.path, "run", *arguments).code == 0
    assert shell.sent - before == pytest.approx(plan["requests"], rel=0.03)
