"""Events and figures as text: one line each, with a level, a name and fields for a JSON log."""

import logging
import re
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any

from msgspec import Struct

from harvester import events
from harvester.events import Event
from harvester.model import Target
from harvester.reporting.progress import Figures
from harvester.runtime import stamp

REQUEST_LEVEL = 5  # below DEBUG


class Line(Struct, frozen=True):
    """One log line."""

    level: int
    event: str
    text: str
    fields: dict[str, Any]


def count(number: int, noun: str, plural: str = "") -> str:
    """A number of things, in singular or plural."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def length_of_time(seconds: float) -> str:
    """Hours, minutes and seconds, with days before them if there are any: 0:45:27."""
    return str(timedelta(seconds=round(seconds)))


def _started(event: events.RunStarted) -> str:
    of = "" if event.total is None else f": {count(event.total, 'campaign')}"
    return f"run {event.run_id} into {event.output}{of}"


def _removed(event: events.FilesRemoved) -> str:
    return f"an earlier harvest is removed: {count(event.files, 'file')}, {event.bytes:,} bytes"


def _counts_missed(event: events.CountsMissed) -> str:
    of = count(event.campaigns, "campaign")
    return f"the API's counts of {of} cannot be had: {event.message}"


def _begun(event: events.CampaignStarted) -> str:
    how = f"continues after page {event.pages:,}" if event.pages else "begins"
    return f"{event.target} {how}"


def _completed(event: events.CampaignCompleted) -> str:
    pages, rows = count(event.pages, "page"), count(event.rows, "record")
    return f"{event.target} is complete: {rows} on {pages}"


# Warnings are for what a person should look at, INFO is the course of the run, DEBUG each campaign,
# REQUEST_LEVEL each request. An event that is not here is only counted.
_TABLE: dict[type[Any], tuple[int, str | Callable[[Any], str]]] = {
    events.RunStarted: (logging.INFO, _started),
    events.FilesRemoved: (logging.WARNING, _removed),
    events.ObserverFailed: (
        logging.WARNING,
        "an observer raised {0.error}: it gets no more events",
    ),
    events.CountsMissed: (logging.WARNING, _counts_missed),
    events.IdRepeated: (logging.DEBUG, "{0.campaign_id} came before and is taken once"),
    events.CampaignSkipped: (logging.DEBUG, "{0.target} is {0.state} already"),
    events.CampaignStarted: (logging.DEBUG, _begun),
    events.CampaignCompleted: (logging.DEBUG, _completed),
    events.CampaignFailed: (logging.WARNING, "{0.target} failed: {0.kind}: {0.message}"),
    events.CampaignDeferred: (logging.WARNING, "{0.target} is set aside: {0.message}"),
    events.WalkRestarted: (
        logging.WARNING,
        "{0.target} starts over at its first page: {0.cause}: {0.message}",
    ),
    events.RequestSent: (REQUEST_LEVEL, "{0.target} page {0.page}, attempt {0.attempt}"),
    events.RetryScheduled: (
        logging.INFO,
        "{0.target} page {0.page}: {0.cause}, attempt {0.attempt} in {0.wait_s:.1f} s "
        "({0.wait_source})",
    ),
    events.Paused: (
        logging.INFO,
        "{0.reason}: no request for {0.seconds:.1f} s, until {0.until:%a %H:%M:%S} UTC",
    ),
    events.PaceChanged: (logging.INFO, "request starts are now {0.gap:.3f} s apart"),
    events.RunStopping: (logging.WARNING, "stopping: {0.message}"),
    events.RunFinished: (logging.INFO, "the run has ended: {0.reason}"),
}


def describe(event: Event, *, least: int = 0) -> Line | None:
    """The line of an event; None if it has none, or one of a level below `least`."""
    level, text = _TABLE.get(type(event), (-1, ""))
    if level < least:
        return None
    shown = text.format(event) if isinstance(text, str) else text(event)
    return Line(level, _snake_case(type(event).__name__), shown, dict(_fields(event)))


def heartbeat(figures: Figures) -> Line:
    """The line with all figures."""
    rows = {"": harvested(figures), "requests: ": requested(figures), "left: ": left(figures)}
    text = " · ".join(f"{name}{' · '.join(parts)}" for name, parts in rows.items())
    return Line(logging.INFO, "heartbeat", text, dict(_fields(figures)))


def harvested(figures: Figures) -> Iterator[str]:
    """What has come in, campaigns first."""
    total = "?" if figures.campaigns_total is None else f"{figures.campaigns_total:,}"
    failed = f", {figures.failed:,} failed" if figures.failed else ""
    yield f"{figures.campaigns_done:,} of {total} campaigns{failed}"
    yield count(figures.pages, "page")
    yield count(figures.rows, "record")
    yield size(figures.bytes)
    if figures.throttled:
        yield count(figures.throttled, "throttle")
    if figures.retried:
        yield count(figures.retried, "retry", "retries")


def done_of(figures: Figures) -> tuple[int, int]:
    """What the bar shows: requests where it is known how many are left, else campaigns."""
    if figures.requests_left and not figures.at_least:
        return figures.requests_done, figures.requests_done + figures.requests_left
    return figures.campaigns_done + figures.failed, figures.campaigns_total or 0


def requested(figures: Figures) -> Iterator[str]:
    """What the requests are like."""
    limit = f" of {figures.rate:.3g}" if figures.rate else ""
    yield f"{figures.requests_per_second:.1f}{limit} a second"
    yield f"{figures.in_flight:,} in flight"
    if figures.quota_limit:
        yield f"today {figures.used_today:,} of {figures.quota_limit:,}"


def left(figures: Figures) -> Iterator[str]:
    """What is still to come, and what is waited for."""
    if figures.requests_left is None:
        yield "an unknown number of requests"
    else:
        bound = "at least " if figures.at_least else ""
        yield f"{bound}{count(figures.requests_left, 'request')}"
    if figures.paused and figures.paused_until:
        reason = figures.paused.replace("_", " ")
        yield f"{reason} until {figures.paused_until:%a %H:%M:%S} UTC"
    elif figures.done_about is not None and figures.requests_left:
        when = "not before" if figures.at_least else "done about"
        yield f"{when} {figures.done_about:%a %H:%M} UTC"


def size(number: int) -> str:
    """A number of bytes, in steps of a thousand."""
    from rich.filesize import decimal

    return decimal(number)


def _snake_case(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


def _fields(value: Event | Figures) -> Iterator[tuple[str, Any]]:
    """The fields of an event or of figures as JSON has them. The line has a message of its own."""
    for name in value.__struct_fields__:
        found = getattr(value, name)
        if isinstance(found, Target):
            yield "report", found.report
            yield "campaign_id", found.campaign_id
        elif isinstance(found, datetime):
            yield name, stamp(found)
        elif isinstance(found, float):
            yield name, round(found, 3)
        elif name != "message":
            yield name, found
