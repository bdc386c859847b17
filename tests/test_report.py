"""Events in, reports out: what they say adds up."""

import json
import os
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from fakes import NOON, TARGET, FakeClock
from msgspec.structs import replace

from harvester import events
from harvester.disk.ndjson_log import NdjsonLog
from harvester.errors import StopRun
from harvester.model import Target
from harvester.reporting.counters import Counters
from harvester.reporting.logs import ErrorReport, Provenance, RetryReport
from harvester.reporting.summary import (
    EXIT_CODES,
    Campaigns,
    HarvestReport,
    Quota,
    Requests,
    conclude,
    new_run_id,
    to_json,
)

OTHER = Target("opens", "8")
LATER = NOON + timedelta(hours=1)


def failed(target: Target = TARGET) -> events.CampaignFailed:
    """A failure with every field."""
    return events.CampaignFailed(
        target=target,
        kind="not_found",
        status=404,
        error_key="key",
        message="gone",
        attempts=2,
        pages=3,
        rows=40,
    )


def aside(target: Target = TARGET, until: Any = LATER) -> events.CampaignDeferred:
    """A campaign that is to wait."""
    return events.CampaignDeferred(
        target=target,
        message="wait",
        status=503,
        attempts=2,
        pages=3,
        rows=40,
        resume_at=until,
    )


def sent(
    attempt: int, *, target: Target = TARGET, page: int = 1, used: int = 1
) -> events.RequestSent:
    """A request."""
    return events.RequestSent(target=target, page=page, attempt=attempt, used_today=used)


# -- the exit code -----------------------------------------------------------------------------


@pytest.mark.parametrize(("reason", "code"), EXIT_CODES.items())
def test_an_order_to_stop_decides(reason: str, code: int) -> None:
    """Its reason, text and time are the report's, whatever else happened."""
    order = StopRun(reason, "text", resume_at=LATER)
    end = conclude(order, Campaigns(3, 1, 1, 1), NOON)
    assert (end.exit_code, end.reason, end.message, end.resume_at) == (code, reason, "text", LATER)


@pytest.mark.parametrize(
    ("campaigns", "until", "code", "reason"),
    [
        (Campaigns(), None, 0, "complete"),
        (Campaigns(2, 2), None, 0, "complete"),
        (Campaigns(2, 1, 1), None, 3, "failures"),
        (Campaigns(2, 1, 0, 1), LATER, 75, "set_aside"),
        (Campaigns(3, 1, 1, 1), LATER, 75, "set_aside"),
    ],
)
def test_without_an_order_the_campaigns_decide(
    campaigns: Campaigns, until: Any, code: int, reason: str
) -> None:
    """All complete, some failed, some set aside: a failure never exits 0."""
    end = conclude(None, campaigns, until)
    assert (end.exit_code, end.reason, end.resume_at) == (code, reason, until)


def test_the_exit_codes_are_those_of_the_contract() -> None:
    """No other number leaves the program."""
    assert set(EXIT_CODES.values()) == {0, 1, 2, 3, 4, 75, 129, 130, 143}


# -- the tally ---------------------------------------------------------------------------------


def test_the_tally_counts_what_happened() -> None:
    """Requests, pages, rows, bytes and campaigns, each from its event."""
    tally = Counters()
    for event in (
        sent(1, target=TARGET, page=1, used=41),
        events.RequestFailed(target=TARGET, page=1, attempt=1, cause="throttled", status=429),
        sent(2, target=TARGET, page=1, used=42),
        events.RequestFailed(target=TARGET, page=1, attempt=2, cause="server_error", status=500),
        sent(3, target=TARGET, page=1, used=43),
        events.RequestSucceeded(TARGET, 1, 3),
        events.PageCommitted(target=TARGET, page=1, rows=500, bytes=9_000, last=False),
        events.PageCommitted(target=TARGET, page=2, rows=5, bytes=90, last=True),
        events.CampaignCompleted(
            target=TARGET, file="f", pages=2, rows=505, bytes=9_090, sha256="00"
        ),
        failed(),
        events.CampaignSkipped(TARGET, "complete", "rejected"),
        events.CampaignSkipped(TARGET, "failed", "not_found"),
        aside(until=LATER),
        aside(until=NOON),
        events.Paused("throttled", 1.0, NOON),
    ):
        tally(event)
    assert (tally.sent, tally.ok, tally.throttled, tally.used_today) == (3, 1, 1, 43)
    assert (tally.pages, tally.rows, tally.bytes) == (2, 505, 9_090)
    assert tally.failures == {"not_found": 2}
    assert tally.examples == {"not_found": failed()}
    assert tally.deferred_until == LATER


# -- files -------------------------------------------------------------------------------------


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[NdjsonLog]:
    """An open journal."""
    journal = NdjsonLog(tmp_path / "report.ndjson")
    yield journal
    journal.close()


def lines(journal: NdjsonLog) -> list[dict[str, Any]]:
    """What stands in it."""
    return [json.loads(line) for line in journal.path.read_bytes().splitlines()]


def scheduled(target: Target = TARGET, attempt: int = 2) -> events.RetryScheduled:
    """A retry."""
    return events.RetryScheduled(
        target=target,
        page=3,
        attempt=attempt,
        cause="server_error",
        status=500,
        wait_s=1.23456,
        wait_source="backoff",
    )


def test_a_retry_is_written_when_it_is_sent(journal: NdjsonLog, clock: FakeClock) -> None:
    """A line for each repeated request, with why and after which wait."""
    report = RetryReport(journal, "run", clock)
    report(sent(1, target=TARGET, page=3, used=1))
    report(scheduled())
    assert lines(journal) == []
    clock.advance(1.2)
    report(sent(2, target=TARGET, page=3, used=2))
    report(sent(1, target=TARGET, page=4, used=3))
    assert lines(journal) == [
        {
            "at": "2026-03-01T12:00:01.200Z",
            "run_id": "run",
            "report": "opens",
            "campaign_id": "7",
            "page": 3,
            "attempt": 2,
            "cause": "server_error",
            "status": 500,
            "wait_s": 1.235,
            "wait_source": "backoff",
        }
    ]


@pytest.mark.parametrize(
    "end",
    [failed(), aside(), events.CampaignInterrupted(TARGET, 1, 1)],
    ids=lambda e: type(e).__name__,
)
def test_a_retry_that_was_never_sent_is_no_retry(
    journal: NdjsonLog, clock: FakeClock, end: events.Event
) -> None:
    """A wait that an end cut short repeats nothing, also not in the walk's next request."""
    report = RetryReport(journal, "run", clock)
    report(scheduled())
    report(end)
    report(sent(1, target=TARGET, page=1, used=1))
    assert lines(journal) == []


def test_retries_of_many_campaigns_are_told_apart(journal: NdjsonLog, clock: FakeClock) -> None:
    """Each waits for its own request."""
    report = RetryReport(journal, "run", clock)
    report(scheduled(TARGET))
    report(scheduled(OTHER))
    report(sent(2, target=OTHER, page=3, used=1))
    report(sent(2, target=TARGET, page=3, used=2))
    assert [line["campaign_id"] for line in lines(journal)] == ["8", "7"]


def test_a_restarted_walk_repeats_a_request(journal: NdjsonLog, clock: FakeClock) -> None:
    """Its first page is asked for again, because a cursor was dropped."""
    report = RetryReport(journal, "run", clock)
    report(
        events.WalkRestarted(
            target=TARGET, page=5, cause="cursor_dropped", status=410, message="gone"
        )
    )
    report(sent(1, target=TARGET, page=1, used=1))
    (line,) = lines(journal)
    assert (line["cause"], line["status"], line["wait_s"], line["wait_source"]) == (
        "cursor_dropped",
        410,
        0.0,
        "none",
    )


def test_failures_are_written_with_all_that_is_known(journal: NdjsonLog, clock: FakeClock) -> None:
    """A line for each campaign that failed or was set aside; nothing for any other event."""
    report = ErrorReport(journal, "run", clock)
    report(failed())
    report(aside(OTHER))
    report(events.CampaignInterrupted(TARGET, 1, 1))
    common = {"at": "2026-03-01T12:00:00.000Z", "run_id": "run", "report": "opens", "pages": 3,
              "rows": 40, "attempts": 2}  # fmt: skip
    assert lines(journal) == [
        {**common, "campaign_id": "7", "kind": "not_found", "status": 404, "error_key": "key",
         "message": "gone"},
        {**common, "campaign_id": "8", "kind": "set_aside", "status": 503, "error_key": None,
         "message": "wait"},
    ]  # fmt: skip


def test_the_provenance_of_each_page_is_told(journal: NdjsonLog, clock: FakeClock) -> None:
    """A line for each page with where it was found; nothing for any other event."""
    report = Provenance(journal, "run", clock)
    committed = events.PageCommitted(target=TARGET, page=2, rows=500, bytes=9_000, last=False)
    report(replace(committed, link="/x?next=a"))
    report(failed())
    (line,) = lines(journal)
    assert (line["campaign_id"], line["page"], line["link"], line["rows"], line["bytes"]) == (
        "7",
        2,
        "/x?next=a",
        500,
        9_000,
    )


def test_the_summary_is_the_report() -> None:
    """Every field of the contract, moments in UTC with Z, no number changed."""
    report = HarvestReport(
        run_id="run",
        exit_code=75,
        reason="quota_spent",
        message="spent",
        resume_at=LATER,
        campaigns=Campaigns(4, 1, 1, 1, 1),
        requests=Requests(9, 7, 2, 1),
        pages=7,
        rows=3_500,
        bytes=2**53 - 1,
        quota=Quota(10_000, 9_999, LATER),
        started_at=NOON,
        finished_at=LATER,
        elapsed_s=3_600.123,
        errors=Path(os.fsdecode(b"out\xff/errors.ndjson")),
    )
    found = json.loads(to_json(report))
    assert found["campaigns"] == {
        "total": 4, "complete": 1, "failed": 1, "partial": 1, "pending": 1,
    }  # fmt: skip
    assert found["requests"] == {"sent": 9, "ok": 7, "retried": 2, "throttled": 1}
    assert found["resume_at"] == found["finished_at"] == "2026-03-01T13:00:00.000Z"
    assert found["quota"]["resets_at"] == "2026-03-01T13:00:00.000Z"
    assert found["errors"] == "out?/errors.ndjson"
    assert (found["bytes"], found["elapsed_s"]) == (2**53 - 1, 3_600.123)
    assert to_json(report).endswith(b"}\n")


def test_run_ids_sort_by_time_and_differ() -> None:
    """Two runs of one second are two runs."""
    ids = {new_run_id(NOON) for _ in range(50)}
    assert len(ids) == 50
    assert all(name.startswith("20260301T120000Z-") for name in ids)
    assert max(ids) < new_run_id(LATER)
