"""What a person sees on stderr during a run: log lines, or a live display on a terminal."""

import json
import logging
import os
import sys
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from harvester.cli.closing import closing_lines
from harvester.cli.flags import by_flags
from harvester.config import HarvestConfig
from harvester.events import Event
from harvester.reporting import lines
from harvester.reporting.counters import Counters
from harvester.reporting.lines import REQUEST_LEVEL, Line
from harvester.reporting.progress import Figures, Progress, next_heartbeat_s
from harvester.reporting.summary import HarvestReport
from harvester.runtime import Clock, stamp

if TYPE_CHECKING:
    from rich.console import Group

_WIDEST = 78  # columns: lines that do not reach the edge of a terminal are not wrapped by a resize
_SHOW_CURSOR = b"\x1b[?25h\n"
# What is logged, by the number of -v. The live display shows the course of the run already: only
# what a person should look at goes above it.
_PLAIN = (logging.INFO, logging.DEBUG, REQUEST_LEVEL)
_ABOVE = (logging.WARNING, logging.DEBUG, REQUEST_LEVEL)
logger = logging.getLogger("harvester")


class Screen:
    """Shows a run on stderr as log lines: what a pipe, a file or a service manager gets."""

    every = 1.0  # seconds between two calls of `tick`

    def __init__(self) -> None:
        self.table = True
        self.live: AbstractContextManager[object] = nullcontext()  # entered for the run
        self.counters = Counters()
        self.clock = Clock()
        self.progress = Progress(self.counters, self.clock)
        self._heartbeat_at = self.clock.monotonic() + next_heartbeat_s(Figures())

    def note(self, text: str, level: int = logging.INFO) -> None:
        """Log a line that belongs to no event."""
        log(Line(level, "note", text, {}))

    def observe(self, event: Event) -> None:
        """Take one event in and show it."""
        self.counters(event)
        self.progress(event)
        if line := lines.describe(event, least=logger.level):
            log(line)

    def tick(self) -> None:
        """Show the figures where that is due."""
        if self.clock.monotonic() >= self._heartbeat_at:
            figures = self.progress.figures()
            log(lines.heartbeat(figures))
            self._heartbeat_at = self.clock.monotonic() + next_heartbeat_s(figures)

    def abandon(self) -> None:
        """Leave the terminal usable; for a signal handler, right before the process ends."""

    def close(self, report: HarvestReport, config: HarvestConfig) -> None:
        """Print the closing table, where stderr is for people."""
        if self.table:
            for line in closing_lines(report, config, self.counters):
                click.echo(line, err=True)


class LiveScreen(Screen):
    """Shows a run on a terminal: a bar and the figures, redrawn in place under the log lines."""

    every = 0.25

    def __init__(self) -> None:
        super().__init__()
        from rich.console import Console
        from rich.live import Live

        self.console = Console(stderr=True, highlight=False)
        self.live = self._display = Live(console=self.console, auto_refresh=False, transient=True)
        self._widths: list[int] = []  # of the lines that are shown

    def abandon(self) -> None:
        """Show the cursor again without any lock or buffer: another frame may hold them."""
        if self._display.is_started:
            with suppress(OSError):
                os.write(self.console.file.fileno(), _SHOW_CURSOR)

    def tick(self) -> None:
        """Redraw."""
        width = min(self.console.width - 1, _WIDEST)
        self._erase_wrapped(self.console.width)
        shown = display(self.progress.figures(), width=width)
        self._display.update(shown, refresh=True)
        self._widths = [
            sum(segment.cell_length for segment in line)
            for line in self.console.render_lines(shown, pad=False)
        ]

    def _erase_wrapped(self, width: int) -> None:
        """A line that a narrower terminal has wrapped is on several rows: Rich erases one."""
        from rich.control import Control
        from rich.segment import ControlType

        more = sum((each - 1) // width for each in self._widths)
        erase = ((ControlType.ERASE_IN_LINE, 2), (ControlType.CURSOR_UP, 1))
        if more:
            self.console.control(Control(*(erase * more)))


def display(figures: Figures, *, width: int) -> "Group":
    """The live display: always four lines, of at most `width` columns."""
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    def row(name: str, parts: Iterable[str], style: str = "") -> Text:
        text = Text.assemble((f"{name:>9}  ", "dim"), (" · ".join(parts), style))
        text.truncate(width, overflow="ellipsis")
        return text

    campaigns, *harvest = lines.harvested(figures)
    bar = Table.grid(padding=(0, 2))
    for _ in range(3):
        bar.add_column(no_wrap=True, overflow="ellipsis")
    completed, total = lines.done_of(figures)
    bar.add_row(
        ProgressBar(
            total=total or 1,
            completed=completed,
            width=max(4, width - len(campaigns) - 14),
        ),
        Text(campaigns, "red" if figures.failed else ""),
        lines.length_of_time(figures.elapsed_s),
    )
    return Group(
        bar,
        row("harvested", harvest),
        row("requests", lines.requested(figures)),
        row("left", lines.left(figures), "yellow" if figures.paused else ""),
    )


def open_screen(*, quiet: bool, verbose: int, live: bool, log_format: str) -> Screen:
    """The screen for where stderr goes, and the logging that belongs to it."""
    live = live and not quiet and log_format == "text" and _can_redraw()
    screen = LiveScreen() if live else Screen()
    # With JSON on stderr, the table would be the one thing there that is no JSON.
    screen.table = not quiet and log_format == "text"
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


def log(line: Line) -> None:
    """Log one line with its fields."""
    logger.log(line.level, by_flags(line.text), extra={"line": line})


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
        line: Line = record.__dict__["line"]
        found = {
            "at": stamp(datetime.fromtimestamp(record.created, UTC)),
            "level": record.levelname.lower(),
            "event": line.event,
            "message": record.getMessage(),
            **line.fields,
        }
        # A path may hold any byte: what is no text is replaced.
        text = json.dumps(found, ensure_ascii=False, separators=(",", ":"))
        return text.encode(errors="replace").decode()
