"""Where everything stands in an output directory."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from msgspec import Struct

from harvester.model import Target


class Layout(Struct, frozen=True):
    """Where everything is under one output directory."""

    root: Path
    suffix: str = ""

    def final(self, target: Target) -> Path:
        """The finished file. Ids were checked (`Api.check_id`): they cannot lead elsewhere."""
        return self._of(target, "")

    def part(self, target: Target) -> Path:
        """The unfinished file."""
        return self._of(target, ".part")

    def grown(self, target: Target) -> Path:
        """What will take the finished file's place after a top-up."""
        return self._of(target, ".grown.part")

    def _of(self, target: Target, ending: str) -> Path:
        # From one text: joining paths costs a campaign of one page a tenth of its time.
        return Path(f"{self.root}/{target.report}/{target.campaign_id}.ndjson{self.suffix}{ending}")

    def parts(self, report: str) -> Iterator[tuple[Target, Path]]:
        """Every unfinished file of a report, in any order."""
        with suppress(FileNotFoundError), os.scandir(self.root / report) as entries:
            for entry in entries:
                if entry.name.endswith(".part") and entry.is_file(follow_symlinks=False):
                    yield Target(report, entry.name.partition(".")[0]), Path(entry.path)

    @property
    def state(self) -> Path:
        """The private folder."""
        return self.root / ".harvester"

    @property
    def database(self) -> Path:
        """The checkpoints."""
        return self.state / "state.sqlite"

    @property
    def lock(self) -> Path:
        """Held by the one run of this directory."""
        return self.state / "lock"

    @property
    def verified(self) -> Path:
        """What the last `verify` found."""
        return self.state / "verified.json"

    @property
    def manifest(self) -> Path:
        """A line for each finished file."""
        return self.root / "manifest.ndjson"

    @property
    def errors(self) -> Path:
        """A line for each campaign that failed."""
        return self.root / "errors.ndjson"

    @property
    def retries(self) -> Path:
        """A line for each repeated request."""
        return self.root / "retries.ndjson"

    @property
    def pages(self) -> Path:
        """Where each page came from, if that is asked for."""
        return self.root / "pages.ndjson"

    @property
    def runs(self) -> Path:
        """A line for each run."""
        return self.root / "runs.ndjson"

    @property
    def logs(self) -> tuple[Path, ...]:
        """Every file about the harvest."""
        return (
            self.manifest, self.errors, self.retries, self.pages, self.runs, self.summary
        )  # fmt: skip

    @property
    def summary(self) -> Path:
        """The last run."""
        return self.root / "summary.json"

    @property
    def report_page(self) -> Path:
        """What `harvester report` makes."""
        return self.root / "report.html"
