"""The figures of the page: values that the template shows."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime

from harvester.reporting.page.charts import Periods
from harvester.reporting.page.days import Day
from harvester.reporting.page.sources import Campaigns, Failure, Finished, Run
from harvester.reporting.page.verdict import Verdict


@dataclass(slots=True, kw_only=True)
class ReportFigures:
    """The finished files of one report."""

    name: str
    has_dates: bool = True
    files: int = 0
    empty: int = 0
    not_asked: int = 0  # of the empty ones: the API's own count was 0
    rows: int = 0
    bytes: int = 0
    pages: int = 0
    undated: int = 0
    first: datetime | None = None
    last: datetime | None = None
    days: Mapping[date, int] = field(default_factory=dict)  # events by UTC day
    agreeing: int = 0  # files whose rows agree with the API's count
    differing: int = 0
    examples: list[Finished] = field(default_factory=list)  # of the differing ones

    @property
    def compared(self) -> int:
        """Files for which the API gave a count."""
        return self.agreeing + self.differing


@dataclass(slots=True, kw_only=True)
class FailureKind:
    """Failures of one kind: `now` of the state (None: unknown), `lines` of every run."""

    kind: str
    now: int | None = None
    lines: int = 0
    examples: list[Failure] = field(default_factory=list)


@dataclass(slots=True, kw_only=True)
class Cause:
    """Repeated requests of one cause; `wait_s` is added up over all of them."""

    cause: str
    count: int = 0
    wait_s: float = 0.0
    longest_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Largest:
    """One of the campaigns with the most rows."""

    campaign_id: str
    rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FileChecks:
    """The finished files held against the manifest: examples of (file, what differs)."""

    differing: int
    examples: Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What is left to do, in requests, and when it can be done."""

    requests: int
    done_about: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class RunHistory:
    """The latest runs, newest first; how many came before; ids of runs that left no figures.

    `kept`: every run is known. Without runs.ndjson there is the last one only.
    """

    shown: Sequence[Run]
    earlier: int
    cut_off: Sequence[str]
    total_sent: int
    kept: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where the harvest came from."""

    settings: Mapping[str, str]
    manifest_sha256: str
    manifest_bytes: int
    broken_lines: Counter[str]
    state_readable: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Everything that the template is given."""

    directory: str
    made_at: datetime
    verdict: Verdict
    campaigns: Campaigns
    reports: Sequence[ReportFigures]
    periods: Periods | None  # None: no event has a date
    largest: Sequence[Largest]
    days: Sequence[Day]
    runs: RunHistory
    estimate: Estimate | None
    failures: Sequence[FailureKind]
    causes: Sequence[Cause]
    checks: FileChecks
    origin: Origin

    @property
    def rows(self) -> int:
        """Rows of every finished file."""
        return sum(report.rows for report in self.reports)

    @property
    def bytes(self) -> int:
        """Their bytes on the disk."""
        return sum(report.bytes for report in self.reports)

    @property
    def files(self) -> int:
        """How many there are."""
        return sum(report.files for report in self.reports)
