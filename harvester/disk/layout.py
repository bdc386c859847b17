"""Where everything stands in an output directory."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from harvester.model import Target

PART, GROWN = ".part", ".grown.part"


class Layout:
    """Where everything is under the output directory `root`. `suffix` follows `.ndjson`."""

    def __init__(self, root: Path, suffix: str = "") -> None:
        self.root, self.suffix = root, suffix
        self.manifest = root / "manifest.ndjson"  # a line for each finished file
        self.errors = root / "errors.ndjson"  # a line for each campaign that failed
        self.retries = root / "retries.ndjson"  # a line for each repeated request
        self.pages = root / "pages.ndjson"  # where each page came from, if that is asked for
        self.runs = root / "runs.ndjson"  # a line for each run
        self.summary = root / "summary.json"  # the last run
        self.logs = (
            self.manifest, self.errors, self.retries, self.pages, self.runs, self.summary
        )  # fmt: skip
        self.report_page = root / "report.html"  # what `harvester report` makes
        self.state = root / ".harvester"  # the private folder
        self.database = self.state / "state.sqlite"  # the checkpoints
        self.lock = self.state / "lock"  # held by the one run of this directory
        self.verified = self.state / "verified.json"  # what the last `verify` found

    def final(self, target: Target) -> Path:
        """The finished file. Ids were checked (`Api.check_id`): they cannot lead elsewhere."""
        return Path(self.name(target))

    def part(self, target: Target) -> Path:
        """The unfinished file."""
        return Path(self.name(target, PART))

    def grown(self, target: Target) -> Path:
        """What will take the finished file's place after a top-up."""
        return Path(self.name(target, GROWN))

    def name(self, target: Target, ending: str = "") -> str:
        """The path of a campaign's file as text: a `Path` takes as long as saving a page."""
        return f"{self.root}/{self.name_in_root(target)}{ending}"

    def name_in_root(self, target: Target) -> str:
        """The finished file's path within the output directory, as the manifest has it."""
        return f"{target.report}/{target.campaign_id}.ndjson{self.suffix}"

    def parts(self, report: str) -> Iterator[tuple[Target, Path]]:
        """Every unfinished file of a report, in any order."""
        with suppress(FileNotFoundError), os.scandir(self.root / report) as entries:
            for entry in entries:
                if entry.name.endswith(".part") and entry.is_file(follow_symlinks=False):
                    yield Target(report, entry.name.partition(".")[0]), Path(entry.path)
