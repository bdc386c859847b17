"""The figures of the page: values that the template shows."""

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime

from harvester.disk.inspect import States
from harvester.disk.verified import Verified
from harvester.reporting.page.days import Day
from harvester.reporting.page.periods import Periods
from harvester.reporting.page.sources import Failure, Finished, Run


@dataclass(slots=True, kw_only=True)
class ReportFigures:
    """The finished files of one report, and its events by UTC day."""

    name: str
    has_dates: bool = True
    files: int = 0
    empty: int = 0
    pages: int = 0
    not_asked: int = 0  # of the empty ones: the API's own count was 0
    rows: int = 0
    bytes: int = 0
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
    """Failures of one kind: `now` of the state (None: unknown), `lines` of every run.

    `examples` are those of the `latest` that still stand.
    """

    kind: str
    now: int | None = None
    lines: int = 0
    latest: deque[Failure] = field(default_factory=lambda: deque(maxlen=50))
    examples: list[Failure] = field(default_factory=list)


@dataclass(slots=True, kw_only=True)
class Cause:
    """Repeated requests of one cause; `wait_s` is added up over all of them."""

    cause: str
    count: int = 0
    wait_s: float = 0.0
    longest_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What is left to do, in requests, and when it can be done."""

    requests: int
    done_about: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Everything that the template is given.

    `settings` are those of the state; None: it is missing or damaged. `runs` are all that left
    figures, oldest first; `killed` says that a later one has finished files; `days` are the latest
    on which they sent requests. Without an `estimate` nothing is left or no run has ended.
    `differing` files are
    not as the manifest says, `differences` names some with what differs. `largest` are campaigns by
    rows. Without `periods` no event has a date.
    """

    directory: str
    made_at: datetime
    settings: Mapping[str, str] | None
    campaigns: States
    runs: Sequence[Run] = ()
    under_way: bool = False
    killed: bool = False
    days: Sequence[Day] = ()
    estimate: Estimate | None = None
    reports: Sequence[ReportFigures] = ()
    periods: Periods | None = None
    largest: Sequence[tuple[str, int]] = ()
    differing: int = 0
    differences: Sequence[tuple[str, str]] = ()
    failures: Sequence[FailureKind] = ()
    causes: Sequence[Cause] = ()
    verified: Verified | None = None
    manifest_sha256: str = ""
    manifest_bytes: int = 0
    broken_lines: Mapping[str, int] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """Rows of the finished files."""
        return sum(report.rows for report in self.reports)

    @property
    def bytes(self) -> int:
        """Their bytes on the disk."""
        return sum(report.bytes for report in self.reports)

    @property
    def files(self) -> int:
        """How many there are."""
        return sum(report.files for report in self.reports)
