"""The figures of the page: values that the template shows."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, datetime

from harvester.disk.verified import Verified
from harvester.reporting.page.periods import Periods
from harvester.reporting.page.sources import Failure, Finished, Run
from harvester.reporting.page.verdict import Standing, Verdict, verdict


@dataclass(slots=True, kw_only=True)
class ReportFigures:
    """The finished files of one report, and its events by UTC day."""

    name: str
    has_dates: bool = True
    files: int = 0
    empty: int = 0
    not_asked: int = 0  # of the empty ones: the API's own count was 0
    rows: int = 0
    bytes: int = 0
    pages: int = 0
    first: datetime | None = None
    last: datetime | None = None
    days: Counter[date] = field(default_factory=Counter)
    agreeing: int = 0  # files whose rows agree with the API's count
    differing: int = 0
    examples: list[Finished] = field(default_factory=list)  # of the differing ones

    @property
    def undated(self) -> int:
        """Rows without a date that can be read."""
        return self.rows - self.days.total()

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
class Figures(Standing):
    """Everything that the template is given.

    `runs` are all that left figures, oldest first. `differences`: some files that differ, with
    what does. `state_readable`: the private state was there.
    """

    reports: Sequence[ReportFigures]
    periods: Periods | None  # None: no event has a date
    largest: Sequence[tuple[str, int]]  # campaigns by rows
    runs: Sequence[Run]
    failures: Sequence[FailureKind]
    causes: Sequence[Cause]
    differences: Sequence[tuple[str, str]]
    verified: Verified | None
    state_readable: bool
    manifest_sha256: str
    manifest_bytes: int
    broken_lines: Counter[str]

    @property
    def verdict(self) -> Verdict:
        """How the harvest stands, and what to do next."""
        return verdict(self)

    @property
    def bytes(self) -> int:
        """Their bytes on the disk."""
        return sum(report.bytes for report in self.reports)

    @property
    def files(self) -> int:
        """How many there are."""
        return sum(report.files for report in self.reports)
