"""Events in, what a person reads out."""

import dataclasses
import logging
from datetime import UTC, datetime, timedelta
from typing import Any, get_args

import pytest
from fakes import NOON, FakeClock

from harvester import events
from harvester.cli.show import asked, harvested, progress_line
from harvester.events import Event
from harvester.model import Target
from harvester.reporting.counters import Counters
from harvester.reporting.progress import REQUEST_LEVEL, Figures, Progress, describe

A, B = Target("opens", "1"), Target("opens", "2")


class Run:
    """A progress and the clock it looks at."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.tally = Counters()
        self.progress = Progress(self.tally, clock)  # type: ignore[arg-type]

    def see(self, *seen: Event) -> Figures:
        """Take events in, give the figures."""
        for event in seen:
            self.tally(event)
            self.progress(event)
        return self.progress.figures()


@pytest.fixture
def run(clock: FakeClock) -> Run:
    """A run that has begun: ten campaigns, four requests a second, a hundred a day."""
    run = Run(clock)
    run.see(events.RunStarted("r", "out", 10, 4.0, 100, 7))
    return run


def sent(target: Target = A, attempt: int = 1, used: int = 8) -> events.RequestSent:
    """A request."""
    return events.RequestSent(target, 1, attempt, used)


def completed(target: Target) -> events.CampaignCompleted:
    """A campaign that is over."""
    return events.CampaignCompleted(target, "opens/1.ndjson", 1, 5, 100, "00")


def failed(target: Target) -> events.CampaignFailed:
    """One that failed."""
    return events.CampaignFailed(target, "rejected", 406, None, "HTTP 406", 1, 0, 0)


def test_the_figures_are_those_of_the_events(run: Run) -> None:
    """Campaigns, pages, records, requests, retries, throttles."""
    figures = run.see(
        events.CampaignStarted(A, 0, 0),
        events.CampaignStarted(B, 0, 0),
        sent(A),
        events.RequestFailed(A, 1, 1, "throttled", 403),
        sent(A, attempt=2, used=9),
        events.PageCommitted(A, 1, 500, 90_000, True),
        completed(A),
        sent(B, used=10),
        failed(B),
        events.CampaignSkipped(Target("opens", "3"), "complete"),
    )
    assert (figures.done, figures.failed, figures.total, figures.active) == (2, 1, 10, 0)
    assert (figures.pages, figures.rows) == (1, 500)
    assert (figures.throttled, figures.retried) == (1, 1)
    assert (figures.used_today, figures.quota, figures.rate) == (10, 100, 4.0)


@pytest.mark.parametrize(
    "end",
    [
        completed(A),
        failed(A),
        events.CampaignDeferred(A, "later", 503, 1, 0, 0, NOON),
        events.CampaignInterrupted(A, 0, 0),
        events.CampaignSkipped(A, "complete"),
    ],
)
def test_however_a_campaign_ends_it_is_no_longer_active(run: Run, end: Event) -> None:
    """Also a top-up that finds nothing new."""
    assert run.see(events.CampaignStarted(A, 0, 0)).active == 1
    assert run.see(end).active == 0


def test_repeated_ids_are_taken_off_the_total(run: Run) -> None:
    """So that the end is reached at all."""
    assert run.see(events.IdRepeated("1"), events.IdRepeated("1")).total == 8


def test_a_total_nobody_knows_is_none(clock: FakeClock) -> None:
    """Then there is no end in sight, and none is shown."""
    run = Run(clock)
    figures = run.see(events.RunStarted("r", "out", None, 4.0, 0, 0), sent(), completed(A))
    assert (figures.total, figures.done_about) == (None, None)
    assert "1/? campaigns" in progress_line(figures)


def test_the_rate_shown_is_that_of_the_last_seconds(run: Run) -> None:
    """An idle minute brings it down to nothing; two requests are needed to tell one."""
    assert run.see(sent()).requests_a_second == 0
    for _ in range(40):
        run.clock.advance(0.25)
        run.see(sent())
    assert run.progress.figures().requests_a_second == pytest.approx(4.0, rel=0.05)
    run.clock.advance(60)
    assert run.progress.figures().requests_a_second == 0


@pytest.mark.parametrize("count", [2, 3, 30])
def test_the_rate_shown_is_never_more_than_the_pace(run: Run, count: int) -> None:
    """Of evenly spaced starts, however few, the gaps are counted and not the starts."""
    for _ in range(count - 1):
        run.see(sent())
        run.clock.advance(0.5)
    assert run.see(sent()).requests_a_second == pytest.approx(2.0)
    run.clock.advance(0.25)
    assert run.progress.figures().requests_a_second < 2.0


def test_a_pause_is_shown_until_it_is_over(run: Run) -> None:
    """By its time, or by the next request."""
    until = NOON + timedelta(seconds=30)
    figures = run.see(events.Paused("throttled", 30.0, until))
    assert (figures.pause, figures.pause_until) == ("throttled", until)
    run.clock.advance(31)
    assert run.progress.figures().pause is None
    run.see(events.Paused("quota_spent", 30.0, until + timedelta(hours=1)))
    assert run.see(sent()).pause is None


def test_an_eased_pace_is_the_rate_shown(run: Run) -> None:
    """Until it is back."""
    assert run.see(events.PaceChanged(0.5)).rate == 2.0
    assert run.see(events.PaceChanged(0.0)).rate == 0.0


def test_the_end_is_guessed_from_what_is_over(run: Run) -> None:
    """Ten campaigns, two over with ten requests each: eighty to go at four a second."""
    for target in (A, B):
        for _ in range(10):
            run.clock.advance(0.25)
            run.see(sent(target))
        run.see(completed(target))
    about = run.progress.figures().done_about
    assert about is not None
    assert abs(about - run.clock.now() - timedelta(seconds=20)) <= timedelta(seconds=2)


def test_the_quota_moves_the_end_to_another_day(run: Run) -> None:
    """Two hundred requests to go and a hundred a day."""
    for _ in range(25):
        run.clock.advance(0.25)
        run.see(sent(used=90))
    run.see(completed(A))
    about = run.progress.figures().done_about
    assert about is not None
    assert about > datetime(2026, 3, 3, tzinfo=UTC)


# -- lines ---------------------------------------------------------------------------------------


def figures(**more: Any) -> Figures:
    """Some figures."""
    names = {field.name for field in dataclasses.fields(Figures)}
    none = dict.fromkeys(names & {"total", "pause", "pause_until", "done_about"})
    return Figures(**{**dict.fromkeys(names, 0), **none, **more})


def test_a_line_says_only_what_there_is() -> None:
    """No failures, no throttles, no quota: no words about them."""
    line = progress_line(figures(total=3, done=1, pages=4, rows=2_000))
    assert line == "1/3 campaigns · 4 pages · 2,000 records · 0.0 requests/s"


def test_a_line_says_all_there_is() -> None:
    """And a pause takes the place of a guess at the end."""
    full = figures(
        total=300,
        done=120,
        failed=2,
        pages=1_200,
        rows=500_000,
        requests_a_second=3.14,
        rate=3.3,
        throttled=1,
        retried=2,
        used_today=1_300,
        quota=10_000,
        done_about=NOON,
    )
    assert " · ".join(harvested(full)) == (
        "120/300 campaigns · 2 failed · 1,200 pages · 500,000 records · done about Sun 12:00 UTC"
    )
    assert " · ".join(asked(full)) == (
        "3.1 of 3.3 requests/s · today 1,300 of 10,000 · 1 throttles · 2 retries"
    )
    held = dataclasses.replace(
        full, pause="quota_spent", pause_until=datetime.now(UTC) + timedelta(hours=3)
    )
    assert "done about" not in progress_line(held)
    assert progress_line(held).endswith("quota spent: holds for 3.0 h")


EXAMPLES: list[Event] = [
    events.RunStarted("r", "out", 3, 4.0, 100, 0),
    events.FilesRemoved(3, 4_000),
    events.IdRepeated("1"),
    events.CampaignSkipped(A, "failed", "not_found"),
    events.CampaignStarted(A, 2, 10),
    sent(),
    events.RequestSucceeded(A, 1, 1),
    events.RequestFailed(A, 1, 1, "reset", None),
    events.RetryScheduled(A, 1, 2, "reset", None, 0.25, "backoff"),
    events.WalkRestarted(A, 4, "cursor_dropped", 400, "HTTP 400"),
    events.PageCommitted(A, 1, 500, 90_000, False),
    completed(A),
    failed(A),
    events.CampaignDeferred(A, "later", 503, 1, 0, 0, NOON),
    events.CampaignInterrupted(A, 1, 5),
    events.Paused("throttled", 1.0, NOON),
    events.PaceChanged(0.5),
    events.RunStopping("SIGINT", "stopped by SIGINT", None),
    events.RunFinished(130, "SIGINT"),
]
COUNTED = {
    events.RequestSucceeded,
    events.RequestFailed,
    events.PageCommitted,
    events.CampaignInterrupted,
}
WARNINGS = {
    events.FilesRemoved,
    events.WalkRestarted,
    events.CampaignFailed,
    events.CampaignDeferred,
    events.RunStopping,
}


def test_there_is_an_example_of_every_event() -> None:
    """A new kind of event has to be looked at here."""
    assert {type(example) for example in EXAMPLES} == set(get_args(Event))


@pytest.mark.parametrize("event", EXAMPLES, ids=lambda event: type(event).__name__)
def test_an_event_is_a_line_or_is_only_counted(event: Event) -> None:
    """One printable line, with a level; warnings are for what a person should look at."""
    line = describe(event)
    assert (line is None) == (type(event) in COUNTED)
    if line is not None:
        level, text, fields = line
        assert level in {REQUEST_LEVEL, logging.DEBUG, logging.INFO, logging.WARNING}
        assert (level == logging.WARNING) == (type(event) in WARNINGS)
        assert text.isprintable()
        if hasattr(event, "target"):
            assert (fields["report"], fields["campaign_id"]) == ("opens", "1")
