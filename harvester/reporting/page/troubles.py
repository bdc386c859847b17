"""What went wrong, from errors.ndjson and retries.ndjson. However long they are, little is kept."""

from collections.abc import Iterable, Mapping

from harvester.disk.layout import Layout
from harvester.reporting.page.figures import Cause, FailureKind
from harvester.reporting.page.sources import Failure, Repeat, is_file_name

_KINDS = 12
_EXAMPLES = 3


def failures_by_kind(
    layout: Layout, lines: Iterable[Failure], standing: Mapping[str, int] | None
) -> list[FailureKind]:
    """Failures by kind, those that stand now first. Examples are the latest that still stand.

    `standing` counts them by the state; None if it cannot be read.
    """
    unknown = None if standing is None else 0
    kinds = {kind: FailureKind(kind=kind, now=now) for kind, now in (standing or {}).items()}
    for line in lines:
        kind = kinds.setdefault(line.kind, FailureKind(kind=line.kind, now=unknown))
        kind.lines += 1
        kind.latest.append(line)
    for kind in kinds.values():
        still = {each.campaign_id: each for each in kind.latest if not _is_finished(layout, each)}
        kind.examples = list(still.values())[-_EXAMPLES:]
    return sorted(kinds.values(), key=lambda each: (-(each.now or 0), -each.lines))[:_KINDS]


def _is_finished(layout: Layout, failure: Failure) -> bool:
    """Whether the walk that failed was finished by a later run."""
    name = f"{failure.report}/{failure.campaign_id}.ndjson"
    endings = ("", ".gz", ".zst") if is_file_name(name) else ()
    return any((layout.root / f"{name}{ending}").exists() for ending in endings)


def repeats_by_cause(lines: Iterable[Repeat]) -> list[Cause]:
    """Repeated requests by cause, the most frequent first."""
    found: dict[str, Cause] = {}
    for line in lines:
        cause = found.setdefault(line.cause, Cause(cause=line.cause))
        cause.count += 1
        cause.wait_s += line.wait_s
        cause.longest_s = max(cause.longest_s, line.wait_s)
    return sorted(found.values(), key=lambda each: -each.count)[:_KINDS]
