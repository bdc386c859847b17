"""The figures as HTML."""

from datetime import UTC
from importlib import resources

import jinja2

from harvester._version import __version__
from harvester.reporting.page import charts, words
from harvester.reporting.page.figures import Figures

_GAP = "\N{NO-BREAK SPACE}"


def render(figures: Figures) -> bytes:
    """The page, in UTF-8. Everything in it is escaped by the template engine."""
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": lambda count: f"{count:,}",
        "share": _share,
        "size": size,
        "moment": lambda moment: f"{moment.astimezone(UTC):%d %b %Y, %H:%M}",
        "day": lambda moment: f"{moment:%d %b %Y}",
        "clock": lambda moment: f"{moment.astimezone(UTC):%H:%M}",
        "duration": duration,
        "because": words.because,
        "advice": words.advice,
        "plain": words.plain,
        "identifier": words.identifier,
        "columns": charts.columns,
        "bars": lambda parts, whole: charts.stack(parts, whole=whole),
    }
    source = resources.files(__package__).joinpath("page.html").read_text(encoding="utf-8")
    page = environment.from_string(source).render(figures=figures, version=__version__)
    return page.encode()


def size(count: int) -> str:
    """A number of bytes as people write it."""
    amount, unit = float(count), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if amount < 1000:
            break
        amount, unit = amount / 1000, larger
    return f"{amount:,.0f}{_GAP}B" if unit == "B" else f"{amount:,.1f}{_GAP}{unit}"


def duration(seconds: float) -> str:
    """A length of time as people write it."""
    if seconds < 120:
        return f"{seconds:.1f}{_GAP}s" if seconds < 10 else f"{seconds:.0f}{_GAP}s"
    if seconds < 7200:
        return f"{seconds / 60:.0f}{_GAP}min"
    return f"{seconds / 3600:,.1f}{_GAP}h"


def _share(part: int, whole: int) -> str:
    percent = 100 * part / whole if whole else 0.0
    if 0 < percent < 0.1:
        return f"<0.1{_GAP}%"
    shown = "100" if percent == 100 else f"{min(percent, 99.9) if percent < 100 else percent:.1f}"
    return f"{shown}{_GAP}%"
