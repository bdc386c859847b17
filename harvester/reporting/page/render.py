"""The figures as HTML."""

from importlib import resources

import jinja2

from harvester._version import __version__
from harvester.reporting import lines
from harvester.reporting.page import words
from harvester.reporting.page.figures import Figures
from harvester.reporting.page.verdict import verdict


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
        "size": lines.size,
        "moment": lambda moment: f"{moment:%d %b %Y, %H:%M}",
        "duration": _duration,
        "ended_by": words.ended_by,
        "advice": words.advice,
        "plain": words.plain,
        "identifier": words.identifier,
    }
    source = resources.files(__package__).joinpath("page.html").read_text(encoding="utf-8")
    page = environment.from_string(source).render(
        figures=figures, verdict=verdict(figures), version=__version__
    )
    return page.encode(errors="backslashreplace")  # a path may hold any byte


def _duration(seconds: float) -> str:
    """A length of time as people write it."""
    return f"{seconds:.1f} s" if seconds < 60 else lines.length_of_time(seconds)


def _share(part: int, whole: int) -> str:
    """Per cent. What is little or almost all is not rounded to nothing or to all."""
    percent = 100 * part / whole if whole else 0.0
    rounded = min(max(percent, 0.1), 99.9) if 0 < percent < 100 else percent
    return f"{rounded:.1f} %"
