"""For the tests of the page: directories as a harvest leaves them, and a reader of HTML."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from harvester.disk.compress import CODECS
from harvester.reporting.page.figures import Figures
from harvester.reporting.page.gather import gather, open_directory
from harvester.reporting.page.render import render

NOW = datetime(2026, 11, 27, 12, 0, tzinfo=UTC)
ENCODE: Mapping[str, Callable[[bytes], bytes]] = {
    "": lambda data: data,
    ".gz": CODECS["gzip"].encode,
    ".zst": CODECS["zstd"].encode,
}
_VOID = {"meta", "link", "br", "hr", "img", "input"}


class Made:
    """A directory that looks harvested. Every file is written by hand: no harvest ran."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True)
        (root / "manifest.ndjson").touch()

    def finish(
        self, report: str, campaign_id: str, rows: Iterable[Any], *, ending: str = "", **more: Any
    ) -> Path:
        """Write a finished file, a member for each ten rows, and its line in the manifest."""
        lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
        pages = [lines[at : at + 10] for at in range(0, len(lines), 10)]
        data = b"".join(ENCODE[ending](b"".join(row + b"\n" for row in page)) for page in pages)
        path = self.root / report / f"{campaign_id}.ndjson{ending}"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
        line = {
            "report": report,
            "campaign_id": campaign_id,
            "file": str(path.relative_to(self.root)),
            "rows": len(lines),
            "pages": max(1, len(pages)),
            "bytes": len(data),
            "sha256": hashlib.sha256(data).hexdigest(),
            "run_id": "20261126T100000Z-000001",
        }
        self.add("manifest.ndjson", {**line, **more})
        return path

    def add(self, name: str, *lines: Any) -> None:
        """Add lines to a report file."""
        with (self.root / name).open("ab") as file:
            for line in lines:
                data = line if isinstance(line, bytes) else json.dumps(line).encode()
                file.write(data + b"\n")

    def figures(self, *, now: datetime = NOW) -> Figures:
        """What the page is made of."""
        layout, manifest = open_directory(self.root)
        return gather(layout, manifest, now=now, advance=lambda count: None)

    def page(self, *, now: datetime = NOW) -> "Html":
        """The page."""
        return Html(render(self.figures(now=now)).decode())


def run(run_id: str = "20261126T100000Z-000001", **more: Any) -> dict[str, Any]:
    """A line of runs.ndjson: a run that was complete."""
    return {
        "run_id": run_id,
        "exit_code": 0,
        "reason": "complete",
        "message": None,
        "resume_at": None,
        "campaigns": {"total": 1, "complete": 1, "failed": 0, "partial": 0, "pending": 0},
        "requests": {"sent": 10, "ok": 10, "retried": 0, "throttled": 0},
        "pages": 10,
        "rows": 100,
        "bytes": 1000,
        "quota": {"limit": 10_000, "used_today": 10, "resets_at": "2026-11-27T00:00:00.000Z"},
        "started_at": "2026-11-26T10:00:00.000Z",
        "finished_at": "2026-11-26T10:01:00.000Z",
        "elapsed_s": 60.0,
        **more,
    }


def opened(at: str, **more: Any) -> dict[str, Any]:
    """A row of v2's opens."""
    return {
        "activity_type": "EMAIL_OPEN",
        "campaign_id": "1",
        "contact_id": "contact-51",
        "email_address": "jane.doe@example.com",
        "open_date": at,
        **more,
    }


@dataclass
class Html(HTMLParser):
    """A page taken apart: elements with their attributes, text, and what is not well formed."""

    source: str
    elements: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    texts: list[tuple[str, str]] = field(default_factory=list)  # (the element it stands in, text)

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self._open: list[str] = []
        self.feed(self.source)
        self.close()
        self.faults += [f"<{tag}> is not closed" for tag in self._open]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """An element begins."""
        names = [name for name, _ in attrs]
        if len(names) != len(set(names)):
            self.faults.append(f"<{tag}> has an attribute twice")
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in _VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """An element of SVG that is closed at once."""
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        """An element ends: it must be the one that was opened last."""
        if not self._open or self._open.pop() != tag:
            self.faults.append(f"</{tag}> at {self.getpos()} closes nothing")

    def handle_data(self, data: str) -> None:
        """Text, with its references resolved."""
        if data.strip():
            self.texts.append((self._open[-1] if self._open else "", " ".join(data.split())))

    @property
    def text(self) -> str:
        """Everything that is read, styles left out."""
        return " ".join(text for tag, text in self.texts if tag != "style")

    @property
    def style(self) -> str:
        """The style sheet."""
        return " ".join(text for tag, text in self.texts if tag == "style")

    def all(self, tag: str) -> list[dict[str, str]]:
        """The attributes of every such element."""
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def ids(self) -> Counter[str]:
        """Every id, with how often it is given."""
        return Counter(attrs["id"] for _, attrs in self.elements if "id" in attrs)
