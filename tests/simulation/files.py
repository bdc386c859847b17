"""The judge of the output: every finished file against what the API has.

While nothing has come in, a file is exactly what the API has. Later it has at least what was there
when its walk began, at most what is there now, and each event once.
"""

import gzip
import json
import re
import shutil
import sqlite3
from collections import Counter
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from harvester import HarvestConfig
from harvester.disk.compress import CODECS
from harvester.disk.inspect import classify, read_content, verify
from harvester.disk.layout import Layout
from harvester.sandbox.world import World

_COMPLETE = "SELECT report, campaign_id FROM walks WHERE state = 'complete'"
_DERIVED = ("unique_opens",)  # its rows go when others come
_MOMENT = re.compile(rb'"(?:created_time|\w+_date)":"([^"]+)"')


class Files:
    """Knows the account and looks at directories."""

    def __init__(self, world: World, ids: Sequence[str], compress: str | None) -> None:
        self._world, self._ids = world, ids
        self.unsent: Sequence[str] = ()
        self.at_rest = True  # no event has come in
        self.began: dict[tuple[str, str], float] = {}
        """When the first page of a report was first asked for (Unix s)."""
        self.damaged: dict[Path, bytes] = {}
        self._looked_at: dict[Path, tuple[int, int, int]] = {}
        self._suffix = CODECS[compress].suffix
        self._truth: dict[tuple[str, str], Counter[bytes]] = {}

    def moved(self) -> None:
        """Events came in."""
        self.at_rest = False
        self._truth.clear()

    # -- one directory -------------------------------------------------------------------------

    def look(self, root: Path, reports: Sequence[str], *, ended: bool) -> None:
        """Look at what a run has left."""
        layout = Layout(root, self._suffix)
        if not rows_of(layout.database, "SELECT 1 FROM settings"):
            return  # no run has begun
        for path in sorted(root.glob("*/*.ndjson*")):
            if path.parent.name.startswith(".") or path.name.endswith(".part"):
                continue
            found = path.stat()
            now = found.st_ino, found.st_size, found.st_mtime_ns
            if self._looked_at.get(path) != now:  # what was right stays so: the API loses no row
                self._compare(path)
                self._looked_at[path] = now
        complete = [
            root / report / f"{each}.ndjson{self._suffix}"
            for report, each in rows_of(layout.database, _COMPLETE)
        ]
        acknowledged = layout.manifest.read_bytes() if complete else b""
        for path in complete:
            assert path.exists(), f"{path.name} is called complete and is not there"
            assert f"/{path.name}".encode() in acknowledged, f"{path.name} is not in the manifest"
        if ended:
            self._look_at_reports(layout, reports, complete)

    def _look_at_reports(
        self, layout: Layout, reports: Sequence[str], complete: Sequence[Path]
    ) -> None:
        """What a run that ended well says of its files."""
        for log in sorted(layout.root.glob("*.ndjson")):
            assert all(map(is_json, log.read_bytes().splitlines())), f"{log.name} has a torn line"
        findings = {each.file: each.what for each in verify(layout)}
        known = {str(path.relative_to(layout.root)) for path in self._still_damaged(layout.root)}
        assert findings.keys() <= known, f"verify: {findings}"
        assert known <= findings.keys(), f"verify does not see that {known} is damaged"
        lines = [json.loads(line) for line in layout.manifest.read_bytes().splitlines()]
        named = Counter(line["file"] for line in lines)
        assert max(named.values(), default=1) == 1, "a file stands twice in the manifest"
        walks = len(rows_of(layout.database, "SELECT 1 FROM walks"))
        if walks == len(self._ids) * len(reports):  # all reports are known to it
            states = read_content(layout).campaigns
            assert states.complete == self._done(complete, reports), f"status: {states}"

    def _done(self, complete: Sequence[Path], reports: Sequence[str]) -> int:
        """How many campaigns have all their files."""
        files = Counter(path.name.partition(".")[0] for path in complete)
        return sum(files[each] >= len(reports) for each in self._ids)

    def look_at_plan(self, config: HarvestConfig) -> None:
        """What `plan` says of the campaigns, without a request."""
        layout = Layout(config.directory, self._suffix)
        states = classify(layout, self._ids, config.walks, for_good=None).states
        known = rows_of(layout.database, _COMPLETE)
        complete = [config.directory / report / each for report, each in known]
        asked = [path for path in complete if path.parent.name in config.walks]
        done = self._done(asked, config.walks)
        assert (states.complete, states.total) == (done, len(self._ids)), f"plan: {states}"

    # -- one file ------------------------------------------------------------------------------

    def is_damaged(self, target: str) -> bool:
        """Whether a file of this name (report/campaign) was."""
        names = (f"{path.parent.name}/{path.name.partition('.')[0]}" for path in self.damaged)
        return target in names

    def _still_damaged(self, root: Path) -> list[Path]:
        return [
            path
            for path, content in self.damaged.items()
            if path.is_relative_to(root) and path.exists() and path.read_bytes() == content
        ]

    def _compare(self, path: Path) -> None:
        name, content = f"{path.parent.name}/{path.name}", path.read_bytes()
        if self.damaged.get(path) == content:
            return
        report, any_id = path.parent.name, path.name.partition(".")[0]
        assert any_id not in self.unsent, f"{name} is finished, and was never sent"
        content = gzip.decompress(content) if path.suffix == ".gz" else content
        if self.at_rest:
            truth = b"".join(row + b"\n" for row in self._world.records(report, any_id))
            assert content == truth, f"{name} is not what the API has: {self._difference(path)}"
        elif report not in _DERIVED:
            rows, truth = Counter(content.splitlines()), self._rows(report, any_id)
            assert rows <= truth, f"{name}: {self._difference(path)}"
            began = self.began.get((report, any_id))
            if began is not None:
                before = began - 1e-5  # its own answer had not brought an event yet
                least = Counter(self._world.records(report, any_id, at=before))
                assert least <= rows, f"{name}: {(least - rows).total()} rows of its start missing"

    def require_all(self, root: Path, reports: Sequence[str], *, exact: bool) -> None:
        """Each file is there; if nothing came in since, with each event once."""
        for report in reports:
            for any_id in self._ids:
                path = root / report / f"{any_id}.ndjson{self._suffix}"
                assert path.exists(), f"{report}/{any_id} is missing"
                same = not exact or self._in(path) == self._rows(report, any_id)
                assert same, f"{report}/{any_id}: {self._difference(path)}"

    def _in(self, path: Path) -> Counter[bytes]:
        content = path.read_bytes()
        return Counter((gzip.decompress(content) if path.suffix == ".gz" else content).splitlines())

    def _rows(self, report: str, any_id: str) -> Counter[bytes]:
        """What the API has now."""
        if (report, any_id) not in self._truth:
            self._truth[report, any_id] = Counter(self._world.records(report, any_id))
        return self._truth[report, any_id]

    def _difference(self, path: Path) -> str:
        rows, truth = self._in(path), self._rows(path.parent.name, path.name.partition(".")[0])
        return f"{(rows - truth).total()} rows too many, {(truth - rows).total()} missing"

    # -- what a harvest costs ------------------------------------------------------------------

    def least(self, reports: Sequence[str], size: int) -> int:
        """The pages of all reports; one that is empty has one."""
        return sum(self._world.pages(name, each, size) for name in reports for each in self._ids)

    def open_edges(self, reports: Sequence[str], size: int) -> int:
        """Edges of pages where two rows have the same time: whether one came again can take a
        request to know."""
        found = 0
        for report in reports:
            for any_id in self._ids:
                rows = [*self._world.records(report, any_id)]
                for at in range(size, len(rows)):
                    found += _moment(rows[at - 1]) == _moment(rows[at])
        return found


def _moment(row: bytes) -> bytes | None:
    found = _MOMENT.search(row)
    return found[1] if found else None


def rows_of(database: Path, query: str) -> list[Any]:
    """What a query finds in a copy of the state; nothing where there is none yet."""
    scratch = database.parents[3] / "copy.sqlite"
    for name in ("", "-wal"):
        copy, path = (each.with_name(f"{each.name}{name}") for each in (scratch, database))
        copy.unlink(missing_ok=True)
        if path.exists():
            shutil.copyfile(path, copy)
    with closing(sqlite3.connect(scratch)) as db, suppress(sqlite3.OperationalError):
        return db.execute(query).fetchall()
    return []  # no such table


def is_json(line: bytes) -> bool:
    """Whether a line is JSON; a sector that was never written is not."""
    try:
        json.loads(line)
    except ValueError:
        return False
    return True
