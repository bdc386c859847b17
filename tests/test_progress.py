"""Events in, figures out."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fakes import NOON, FakeClock

from harvester import events
from harvester.events import Event
from harvester.model import Target
from harvester.reporting.counters import Counters
from harvester.reporting.progress import Figures, Progress, next_heartbeat_s

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
    run.see(started(10))
    return run


def started(
    total: int | None, *, quota: int = 100, reports: tuple[str, ...] = ("opens",)
) -> events.RunStarted:
    """A run at four requests a second."""
    return events.RunStarted(
        run_id="r",
        output="out",
        total=total,
        reports=reports,
        rate=4.0,
        quota_limit=quota,
        used_today=7,
    )


def sent(target: Target = A, attempt: int = 1, used: int = 8) -> events.RequestSent:
    """A request."""
    return events.RequestSent(target=target, page=1, attempt=attempt, used_today=used)


def refused(target: Target = A) -> events.RequestFailed:
    """A request that was too fast."""
    return events.RequestFailed(target=target, page=1, attempt=1, cause="throttled", status=403)


def completed(target: Target) -> events.CampaignCompleted:
    """A walk that is complete."""
    return events.CampaignCompleted(
        target=target, file="opens/1.ndjson", pages=1, rows=5, bytes=100, sha256="00"
    )


def failed(target: Target) -> events.CampaignFailed:
    """A walk that failed."""
    return events.CampaignFailed(
        target=target,
        kind="rejected",
        status=406,
        error_key=None,
        message="HTTP 406",
        attempts=1,
        pages=0,
        rows=0,
    )


def aside(target: Target) -> events.CampaignDeferred:
    """A walk that waits for a later run."""
    return events.CampaignDeferred(
        target=target, message="later", status=503, attempts=1, pages=0, rows=0, resume_at=NOON
    )


def test_the_figures_are_those_of_the_events(run: Run) -> None:
    """Campaigns, pages, records, bytes, requests, retries, throttles, and the time."""
    run.clock.advance(90)
    figures = run.see(
        events.CampaignStarted(A, 0, 0),
        events.CampaignStarted(B, 0, 0),
        sent(A),
        refused(A),
        sent(A, attempt=2, used=9),
        events.RequestSucceeded(A, 1, 2),
        events.PageCommitted(target=A, page=1, rows=500, bytes=90_000, last=True),
        completed(A),
        sent(B, used=10),
        failed(B),
        events.CampaignSkipped(Target("opens", "3"), "complete"),
        events.CampaignSkipped(Target("opens", "4"), "failed", "not_found"),
    )
    assert (figures.campaigns_done, figures.failed, figures.campaigns_total) == (2, 2, 10)
    assert (figures.pages, figures.rows, figures.bytes) == (1, 500, 90_000)
    assert (figures.throttled, figures.retried, figures.in_flight) == (1, 1, 1)
    assert (figures.used_today, figures.quota_limit, figures.rate) == (10, 100, 4.0)
    assert figures.elapsed_s == 90


@pytest.mark.parametrize("end", [completed, failed, aside])
def test_a_campaign_is_over_with_the_last_of_its_reports(clock: FakeClock, end: Any) -> None:
    """With two reports, a campaign is done when both are complete; else it is what is worse. A walk
    that the run's end interrupts is over for nothing."""
    run = Run(clock)
    run.see(started(3, reports=("opens", "clicks")))
    figures = run.see(completed(A), events.CampaignInterrupted(Target("clicks", "1"), 1, 5))
    assert (figures.campaigns_done, figures.failed, figures.requests_left) == (0, 0, 5)
    figures = run.see(end(Target("clicks", "1")))
    assert (figures.campaigns_done, figures.failed) == (end is completed, end is failed)
    assert (figures.campaigns_total, figures.requests_left) == (3, 4)


def test_repeated_ids_are_taken_off_the_total(clock: FakeClock) -> None:
    """So that the end is reached at all; one id of two reports is repeated twice."""
    run = Run(clock)
    run.see(started(10, reports=("opens", "clicks")))
    figures = run.see(events.IdRepeated("1"), events.IdRepeated("1"))
    assert (figures.campaigns_total, figures.requests_left) == (9, 18)


def test_an_unknown_total_is_none(clock: FakeClock) -> None:
    """Then there is no end in sight, and none is shown."""
    run = Run(clock)
    figures = run.see(started(None, quota=0), sent(), completed(A))
    assert (figures.campaigns_total, figures.requests_left) == (None, None)
    assert (figures.done_about, figures.at_least) == (None, False)


def test_the_rate_shown_is_that_of_the_last_seconds(run: Run) -> None:
    """An idle minute brings it down to nothing; a rate needs two requests."""
    assert run.see(sent()).requests_per_second == 0
    for _ in range(40):
        run.clock.advance(0.25)
        run.see(sent())
    assert run.progress.figures().requests_per_second == pytest.approx(4.0, rel=0.05)
    run.clock.advance(60)
    assert run.progress.figures().requests_per_second == 0


@pytest.mark.parametrize("count", [2, 3, 30])
def test_the_rate_shown_is_never_more_than_the_pace(run: Run, count: int) -> None:
    """Of evenly spaced starts, however few, the gaps are counted and not the starts."""
    for _ in range(count - 1):
        run.see(sent())
        run.clock.advance(0.5)
    assert run.see(sent()).requests_per_second == pytest.approx(2.0)
    run.clock.advance(0.25)
    assert run.progress.figures().requests_per_second < 2.0


def test_a_pause_is_shown_until_it_is_over(run: Run) -> None:
    """By its time, or by the next request."""
    until = NOON + timedelta(seconds=30)
    figures = run.see(events.Paused("throttled", 30.0, until))
    assert (figures.paused, figures.paused_until) == ("throttled", until)
    assert figures.wait_s == 30
    run.clock.advance(31)
    assert run.progress.figures().paused is None
    run.see(events.Paused("quota_spent", 30.0, until + timedelta(hours=1)))
    assert run.see(sent()).paused is None


def test_an_eased_pace_is_the_rate_shown(run: Run) -> None:
    """Until it is back."""
    assert run.see(events.PaceChanged(0.5)).rate == 2.0
    assert run.see(events.PaceChanged(0.0)).rate == 0.0


def test_what_is_left_is_a_bound_that_holds(run: Run) -> None:
    """Of ten campaigns the two small ones are over: each of the others needs one request at least,
    however many the small ones took. Nothing is done before that."""
    for target in (A, B):
        for _ in range(10):
            run.clock.advance(0.25)
            run.see(sent(target))
        figures = run.see(completed(target))
    assert (figures.requests_left, figures.at_least) == (8, True)
    assert figures.done_about is not None
    seconds = (figures.done_about - run.clock.now()).total_seconds()
    assert seconds == pytest.approx(8 / 4.0, rel=0.1)


def test_with_nothing_left_the_figure_is_exact(clock: FakeClock) -> None:
    """No "at least" before a zero."""
    run = Run(clock)
    figures = run.see(started(1), sent(), completed(A))
    assert (figures.requests_left, figures.at_least) == (0, False)


def test_the_quota_moves_the_end_to_another_day(clock: FakeClock) -> None:
    """Two hundred requests to go and a hundred a day."""
    run = Run(clock)
    run.see(started(201), sent(used=90))
    about = run.see(completed(A)).done_about
    assert about is not None
    assert about > datetime(2026, 3, 3, tzinfo=UTC)


def test_a_wait_moves_the_end(run: Run) -> None:
    """Nothing is sent before it is over."""
    run.see(sent())
    until = NOON + timedelta(hours=5)
    about = run.see(events.Paused("throttled", 18_000.0, until)).done_about
    assert about is not None
    assert about >= until


# -- the heartbeat ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("elapsed", "wait", "seconds"),
    [
        (0, 0, 15),
        (599, 0, 15),
        (600, 0, 60),
        (90_000, 0, 60),
        (30, 600, 15),
        (30, 601, 601),
        (30, 40_000, 3_600),
        (90_000, 3_700, 3_600),
        (90_000, 100, 60),
    ],
)
def test_how_often_the_heart_beats(elapsed: float, wait: float, seconds: float) -> None:
    """Every 15 s in the first ten minutes, then once a minute; once an hour in a long wait, whose
    end is not slept through."""
    assert next_heartbeat_s(Figures(elapsed_s=elapsed, wait_s=wait)) == seconds


# -- requests left, by the API's counts ----------------------------------------------------------


def begun(target: Target, expected: int | None, pages: int = 0) -> events.CampaignStarted:
    """A walk is begun."""
    return events.CampaignStarted(target, pages, 10 * pages, expected)


def committed(target: Target, number: int = 1) -> events.PageCommitted:
    """A page is saved."""
    return events.PageCommitted(target=target, page=number, rows=5, bytes=9, last=False)


def test_what_is_counted_is_not_a_lower_bound(run: Run) -> None:
    """As soon as every walk is counted; the requests go down with the pages and the details."""
    figures = run.see(events.WorkCounted(walks=6, requests=50, details=6))
    assert (figures.requests_left, figures.at_least) == (50 + 6 + 4, True)
    figures = run.see(events.WorkCounted(walks=4, requests=8, details=4))
    assert (figures.requests_left, figures.at_least) == (58 + 10, False)
    figures = run.see(begun(A, 9), events.DetailAsked(A))
    assert (figures.requests_left, figures.at_least) == (58 + 9, False)
    assert run.see(*(committed(A, n) for n in range(4))).requests_left == 63
    assert run.see(begun(B, 5, pages=3)).requests_left == 63
    assert run.see(completed(B)).requests_left == 61
    skipped = events.CampaignSkipped(Target("opens", "3"), "complete", expected=0)
    assert run.see(skipped).requests_left == 61
    assert run.see(*(committed(A, n) for n in range(20))).requests_left == 56


def test_a_walk_without_a_count_makes_a_lower_bound(run: Run) -> None:
    """Also when all others are counted."""
    run.see(events.WorkCounted(walks=9, requests=20, details=0), begun(A, None))
    figures = run.see()
    assert (figures.requests_left, figures.at_least) == (21, True)
    figures = run.see(completed(A))
    assert (figures.requests_left, figures.at_least) == (20, False)
    figures = run.see(begun(B, 20), failed(B))
    assert (figures.requests_left, figures.at_least) == (0, False)


def test_a_walk_that_starts_over_has_its_pages_to_come(run: Run) -> None:
    """It asks for all of them again."""
    run.see(events.WorkCounted(walks=10, requests=9, details=0), begun(A, 9))
    assert run.see(*(committed(A, n) for n in range(5))).requests_left == 4
    over = events.WalkRestarted(
        target=A, page=6, cause="cursor_dropped", status=400, message="gone"
    )
    assert run.see(over).requests_left == 9
