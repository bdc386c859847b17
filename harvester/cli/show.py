"""What a person sees on stderr: log lines, a live display on a terminal, a closing table."""

import logging
import os
import shlex
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

import click
import orjson

from harvester import events
from harvester.config import HarvestConfig
from harvester.disk.layout import Layout
from harvester.events import Event
from harvester.reporting.counters import Counters
from harvester.reporting.progress import REQUEST_LEVEL, Figures, Progress, describe
from harvester.reporting.summary import HarvestReport
from harvester.runtime import Clock, stamp

_EXAMPLES = 5
_LONGEST_COMMAND = 160
_SHOW_CURSOR = b"\x1b[?25h\n"
# What is logged, by the number of -v. The live display tells the course of the run already: only
# what needs a look goes above it unasked.
_PLAIN = (logging.INFO, logging.DEBUG, REQUEST_LEVEL)
_ABOVE = (logging.WARNING, logging.DEBUG, REQUEST_LEVEL)
logger = logging.getLogger("harvester")


class Screen:
    """Shows a run on stderr as log lines: what a pipe, a file or a service manager gets."""

    every = 15.0  # seconds between two looks at the figures

    def __init__(self, *, table: bool) -> None:
        self._table = table
        self._tally = Counters()
        self._progress = Progress(self._tally)
        self._kinds: Counter[str] = Counter()
        self._examples: list[events.CampaignFailed] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        return None

    def note(self, text: str) -> None:
        """Say something that is no event."""
        logger.info(text)

    def observe(self, event: Event) -> None:
        """Take one event in and show it."""
        self._tally(event)
        self._progress(event)
        if isinstance(event, events.CampaignFailed):
            self._kinds[event.kind] += 1
            if len(self._examples) < _EXAMPLES:
                self._examples.append(event)
        line = describe(event)
        if line is not None and logger.isEnabledFor(line[0]):
            logger.log(line[0], line[1], extra={"facts": line[2]})

    def tick(self) -> None:
        """Show the figures; called every `every` seconds while the run is under way."""
        logger.info(progress_line(self._progress.figures()))

    def abandon(self) -> None:
        """Leave the terminal usable; for a signal handler, right before the process ends."""

    def _differences(self) -> str:
        count, example = self._tally.unreconciled, self._tally.unreconciled_example
        return (
            f"{count:,} of the API's own counts are others, as for {example}: "
            "see reconciled in manifest.ndjson"
        )

    def close(self, report: HarvestReport, config: HarvestConfig) -> None:
        """The closing table: what was done, what failed and why, how to go on."""
        if self._table:
            for line in closing_lines(report, config, self._kinds, self._examples):
                click.echo(line, err=True)
            if self._tally.unreconciled:
                click.echo(_row("summary", self._differences()), err=True)


class LiveScreen(Screen):
    """Shows a run on a terminal: a bar and the figures, redrawn in place under the log lines."""

    every = 0.25

    def __init__(self, *, table: bool) -> None:
        super().__init__(table=table)
        from rich.console import Console
        from rich.live import Live

        self.console = Console(stderr=True, highlight=False)
        self._live = Live(console=self.console, auto_refresh=False, transient=True)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._live.stop()

    def abandon(self) -> None:
        """Show the cursor again, past every buffer and lock: who holds them may be interrupted."""
        if self._live.is_started:
            with suppress(OSError):
                os.write(self.console.file.fileno(), _SHOW_CURSOR)

    def tick(self) -> None:
        """Redraw."""
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        figures = self._progress.figures()
        bar = ProgressBar(total=figures.total or None, completed=figures.done + figures.failed)
        lines = Table.grid(expand=True)
        for line in (bar, Text(" · ".join(harvested(figures))), Text(" · ".join(asked(figures)))):
            lines.add_row(line)
        self._live.update(lines, refresh=True)


def open_screen(*, quiet: bool, verbose: int, live: bool, log_format: str) -> Screen:
    """The screen for where stderr goes, and the logging that belongs to it."""
    live = live and not quiet and log_format == "text" and _can_redraw()
    # With JSON on stderr, the table would be the one thing there that is none.
    table = not quiet and log_format == "text"
    screen = LiveScreen(table=table) if live else Screen(table=table)
    handler = _Above(screen) if isinstance(screen, LiveScreen) else logging.StreamHandler()
    logging.addLevelName(REQUEST_LEVEL, "REQUEST")
    handler.setFormatter(_JsonLines() if log_format == "json" else _TextLines())
    logger.handlers = [handler]
    logger.propagate = False
    levels = _ABOVE if live else _PLAIN
    logger.setLevel(logging.WARNING if quiet else levels[min(verbose, 2)])
    return screen


def _can_redraw() -> bool:
    """Whether stderr is a terminal that Rich draws on: on a dumb one it shows nothing at all."""
    if not sys.stderr.isatty():
        return False
    from rich.console import Console

    console = Console(stderr=True)
    return console.is_terminal and not console.is_dumb_terminal


class _Above(logging.Handler):
    """Prints above the live display."""

    def __init__(self, screen: LiveScreen) -> None:
        super().__init__()
        self._console = screen.console

    def emit(self, record: logging.LogRecord) -> None:
        self._console.print(self.format(record), markup=False, soft_wrap=True)


class _TextLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC)
        return f"{at:%Y-%m-%dT%H:%M:%SZ} {record.levelname.lower():7} {record.getMessage()}"


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "at": stamp(datetime.fromtimestamp(record.created, UTC)),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            **getattr(record, "facts", {}),
        }
        return orjson.dumps(line).decode()


def progress_line(figures: Figures) -> str:
    """Everything that moves, on one line."""
    return " · ".join((*harvested(figures), *asked(figures)))


def harvested(figures: Figures) -> Iterator[str]:
    """What has come in."""
    total = "?" if figures.total is None else f"{figures.total:,}"
    yield f"{figures.done:,}/{total} campaigns"
    if figures.failed:
        yield f"{figures.failed:,} failed"
    yield f"{figures.pages:,} pages"
    yield f"{figures.rows:,} records"
    if figures.pause is None and figures.done_about is not None:
        yield f"done about {figures.done_about:%a %H:%M} UTC"


def asked(figures: Figures) -> Iterator[str]:
    """What it costs, and what it waits for."""
    limit = f" of {figures.rate:.3g}" if figures.rate else ""
    yield f"{figures.requests_a_second:.1f}{limit} requests/s"
    if figures.quota:
        yield f"today {figures.used_today:,} of {figures.quota:,}"
    if figures.throttled:
        yield f"{figures.throttled:,} throttles"
    if figures.retried:
        yield f"{figures.retried:,} retries"
    if figures.pause is not None and figures.pause_until is not None:
        left = max(0.0, (figures.pause_until - Clock().now()).total_seconds())
        yield f"{figures.pause.replace('_', ' ')}: holds for {duration(left)}"


def duration(seconds: float) -> str:
    """A length of time as people say it."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def size(count: int) -> str:
    """A number of bytes as people say it."""
    amount, unit = float(count), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if amount < 1000:
            break
        amount, unit = amount / 1000, larger
    return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"


def closing_lines(
    report: HarvestReport,
    config: HarvestConfig,
    kinds: Mapping[str, int],
    examples: Sequence[events.CampaignFailed],
) -> Iterator[str]:
    """What a person wants to know at the end, a line each."""
    campaigns, requests, quota = report.campaigns, report.requests, report.quota
    yield ""
    yield _row(
        "campaigns",
        f"{campaigns.complete:,} of {campaigns.total:,} complete"
        + "".join(
            f", {count:,} {name}"
            for name, count in (
                ("failed", campaigns.failed),
                ("partial", campaigns.partial),
                ("pending", campaigns.pending),
            )
            if count
        ),
    )
    yield _row(
        "this run",
        f"{report.pages:,} pages, {report.rows:,} records, {size(report.bytes)} "
        f"in {duration(report.elapsed_s)}",
    )
    yield _row(
        "requests",
        f"{requests.sent:,} sent, {requests.retried:,} of them repeated, "
        f"{requests.throttled:,} throttled"
        + (f"; today {quota.used_today:,} of {quota.limit:,}" if quota.limit else ""),
    )
    yield _row("files", str(config.directory))
    for kind, count in sorted(kinds.items()):
        example = next((e for e in examples if e.kind == kind), None)
        yield _row("failed", f"{count:,} {kind}" + (f", as {example.target}" if example else ""))
    if campaigns.failed:
        yield _row("why", str(Layout(config.directory).errors))
    if report.exit_code:
        yield from _how_to_go_on(report, config)


def _how_to_go_on(report: HarvestReport, config: HarvestConfig) -> Iterator[str]:
    yield _row("stopped", report.message or report.reason.replace("_", " "))
    if report.resume_at is not None:
        yield _row("not before", f"{report.resume_at:%a %d %b %Y, %H:%M:%S} UTC")
    # Going on is the same command, but for the option that would throw away what is there.
    arguments = [word for word in sys.argv[1:] if word != "--fresh"]
    command = shlex.join(["harvester", *arguments])
    shown = len(command) <= _LONGEST_COMMAND
    if not shown:
        command = "the same command"
    if config.fresh and not (shown and "--fresh" in sys.argv):
        command += ", without --fresh (HARVESTER_FRESH, fresh)"
    yield _row("to go on", command)


def _row(name: str, text: str) -> str:
    return f"{name:>10}  {text}"
