"""Events and figures as lines: text for people, fields for programs."""

import logging
import re
from datetime import datetime, timedelta
from typing import get_args

import orjson
import pytest
from fakes import NOON
from msgspec.structs import replace
from test_progress import A, aside, completed, failed, refused, sent, started

from harvester import events
from harvester.events import Event
from harvester.reporting.lines import (
    REQUEST_LEVEL,
    count,
    describe,
    harvested,
    heartbeat,
    left,
    length_of_time,
    requested,
)
from harvester.reporting.progress import Figures

HEARTBEAT = {
    "elapsed_s", "campaigns_done", "campaigns_total", "failed", "pages", "rows", "bytes",
    "in_flight", "requests_done", "requests_left", "at_least", "done_about",
    "requests_per_second", "rate",
    "used_today", "quota_limit", "paused", "paused_until",
}  # fmt: skip
FULL = Figures(
    elapsed_s=83.4,
    campaigns_done=120,
    campaigns_total=300,
    failed=2,
    pages=1_200,
    rows=500_000,
    bytes=88_000_000,
    in_flight=16,
    requests_left=180,
    at_least=True,
    done_about=NOON,
    requests_per_second=3.14,
    rate=3.3,
    throttled=1,
    retried=2,
    used_today=1_300,
    quota_limit=10_000,
)


def test_a_line_says_only_what_there_is() -> None:
    """No failures, no throttles, no quota: no words about them; one thing is singular."""
    few = Figures(campaigns_total=3, campaigns_done=1, pages=1, rows=1, bytes=1, requests_left=1)
    assert heartbeat(few).text == (
        "1 of 3 campaigns · 1 page · 1 record · 1 byte · requests: 0.0 a second · 0 in flight · "
        "left: 1 request"
    )
    assert heartbeat(Figures()).text.startswith("0 of ? campaigns · 0 pages · ")
    assert heartbeat(Figures()).text.endswith("left: an unknown number of requests")


def test_a_line_says_all_there_is() -> None:
    """A wait, with its clock time, takes the place of the end."""
    assert " · ".join(harvested(FULL)) == (
        "120 of 300 campaigns, 2 failed · 1,200 pages · 500,000 records · 88.0 MB · "
        "1 throttle · 2 retries"
    )
    assert " · ".join(requested(FULL)) == (
        "3.1 of 3.3 a second · 16 in flight · today 1,300 of 10,000"
    )
    assert " · ".join(left(FULL)) == "at least 180 requests · not before Sun 12:00 UTC"
    exact = replace(FULL, at_least=False)
    assert " · ".join(left(exact)) == "180 requests · done about Sun 12:00 UTC"
    until = NOON + timedelta(hours=12)
    held = replace(FULL, paused="quota_spent", paused_until=until)
    assert " · ".join(left(held)) == ("at least 180 requests · quota spent until Mon 00:00:00 UTC")


def test_the_heartbeat_carries_all_figures() -> None:
    """As the contract names them, moments as text, nothing left out."""
    line = heartbeat(FULL)
    assert (line.event, line.level) == ("heartbeat", logging.INFO)
    assert line.fields.keys() >= HEARTBEAT
    assert line.fields["done_about"] == "2026-03-01T12:00:00.000Z"
    assert (line.fields["requests_left"], line.fields["at_least"]) == (180, True)
    assert (line.fields["paused"], line.fields["paused_until"]) == (None, None)
    assert orjson.loads(orjson.dumps(line.fields)) == line.fields


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0:00:00"), (119.6, "0:02:00"), (7_199, "1:59:59"), (180_000, "2 days, 2:00:00")],
)
def test_a_length_of_time(seconds: float, text: str) -> None:
    """Hours, minutes, seconds; days before them."""
    assert length_of_time(seconds) == text


def test_a_number_of_things() -> None:
    """Thousands apart, one in singular."""
    assert [count(n, "page") for n in (0, 1, 2_000)] == ["0 pages", "1 page", "2,000 pages"]
    assert [count(n, "retry", "retries") for n in (1, 2)] == ["1 retry", "2 retries"]


EXAMPLES: list[Event] = [
    started(3),
    events.FilesRemoved(3, 4_000),
    events.IdRepeated("1"),
    events.WorkCounted(walks=6, requests=20, details=1),
    events.CountsMissed(150, "the body is empty"),
    events.DetailAsked(A),
    events.ObserverFailed("KeyError at observer.py:7"),
    events.CampaignSkipped(A, "failed", "not_found"),
    events.CampaignStarted(A, 2, 10),
    events.CampaignStarted(A, 0, 0),
    sent(),
    events.RequestSucceeded(A, 1, 1),
    refused(),
    events.RetryScheduled(
        target=A,
        page=1,
        attempt=2,
        cause="reset",
        status=None,
        wait_s=0.25,
        wait_source="backoff",
    ),
    events.WalkRestarted(
        target=A, page=4, cause="cursor_dropped", status=400, message="HTTP 400 {0} %s"
    ),
    events.PageCommitted(target=A, page=1, rows=500, bytes=90_000, last=False),
    completed(A),
    failed(A),
    aside(A),
    events.CampaignInterrupted(A, 1, 5),
    events.Paused("throttled", 1.0, NOON),
    events.PaceChanged(1 / 3),
    events.PaceChanged(0.5),
    events.RunStopping("SIGINT", "stopped by SIGINT", None),
    events.RunFinished(130, "SIGINT"),
]
COUNTED = {
    events.WorkCounted,
    events.DetailAsked,
    events.RequestSucceeded,
    events.RequestFailed,
    events.PageCommitted,
    events.CampaignInterrupted,
}
WARNINGS = {
    events.CountsMissed,
    events.FilesRemoved,
    events.WalkRestarted,
    events.CampaignFailed,
    events.CampaignDeferred,
    events.RunStopping,
    events.ObserverFailed,
}


def test_there_is_an_example_of_every_event() -> None:
    """A new kind of event has to be looked at here."""
    assert {type(example) for example in EXAMPLES} == set(get_args(Event))


@pytest.mark.parametrize("event", EXAMPLES, ids=lambda event: type(event).__name__)
def test_an_event_is_a_line_or_is_only_counted(event: Event) -> None:
    """One printable line, with a level; warnings are for what a person should look at. The fields
    are those of the event, and JSON can hold them."""
    line = describe(event)
    assert (line is None) == (type(event) in COUNTED)
    if line is None:
        return
    assert describe(event, least=line.level) == line
    assert describe(event, least=line.level + 1) is None
    assert line.level in {REQUEST_LEVEL, logging.DEBUG, logging.INFO, logging.WARNING}
    assert (line.level == logging.WARNING) == (type(event) in WARNINGS)
    assert line.text.isprintable()
    assert re.fullmatch(r"[a-z]+(_[a-z]+)*", line.event)
    assert line.event.replace("_", "") == type(event).__name__.lower()
    names = set(event.__struct_fields__) - {"target", "message"}
    if hasattr(event, "target"):
        names |= {"report", "campaign_id"}
        assert (line.fields["report"], line.fields["campaign_id"]) == ("opens", "1")
    assert line.fields.keys() == names
    for name, value in orjson.loads(orjson.dumps(line.fields)).items():
        given = getattr(event, name, value)
        if isinstance(given, datetime):
            assert datetime.fromisoformat(value) == given
        else:
            assert value == (list(given) if isinstance(given, tuple) else given) or (
                isinstance(given, float) and value == round(given, 3)
            )
    if message := getattr(event, "message", None):
        assert message in line.text
