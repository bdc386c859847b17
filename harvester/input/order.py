"""How many pages campaigns had in an earlier harvest: the longest are begun first.

A long campaign that is begun last is walked alone at the end. The sizes are on disk, not in memory.
"""

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Annotated

import msgspec

from harvester.disk.disk_set import DiskSet
from harvester.errors import ConfigError
from harvester.model import Target


class _Line(msgspec.Struct):
    report: str
    campaign_id: str
    pages: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class KnownSizes:
    """The pages of each walk, as far as a manifest has them; kept on disk."""

    def __init__(self) -> None:
        self._walks = DiskSet()
        self._ordered = DiskSet()
        self._counted = DiskSet()
        self._reports: set[str] = set()

    def read(self, manifest: Path) -> None:
        """Take the sizes from a manifest.ndjson. Raise `ConfigError` if it cannot be read.

        Only a regular file is read: a pipe may keep everything waiting for ever.
        """
        if manifest.exists() and not manifest.is_file():
            raise ConfigError(f"{manifest} is not a regular file", setting="sizes")
        try:
            with manifest.open("rb") as lines:
                self._walks.weigh(map(self._entry, lines))
        except OSError as wrong:
            raise ConfigError(
                f"cannot read {manifest}: {wrong.strerror}", setting="sizes"
            ) from None
        except msgspec.DecodeError:
            raise ConfigError(f"{manifest} is no manifest.ndjson", setting="sizes") from None

    def _entry(self, line: bytes) -> tuple[str, float]:
        entry = _decode(line)
        self._reports.add(entry.report)
        return str(Target(entry.report, entry.campaign_id)), entry.pages

    def note(self, pages: Mapping[Target, int]) -> None:
        """Take the pages of walks as the API's counts have them."""
        self._counted.weigh((str(target), number) for target, number in pages.items())

    def counted(self, target: Target) -> int | None:
        """The pages of a walk by the API's counts; None if they are not known."""
        name = str(target)
        return int(self._counted.weight(name)) if name in self._counted else None

    def pages(self, target: Target) -> int:
        """The pages of a walk, by the counts or else the manifest; 0 if they are not known."""
        found = self.counted(target)
        if found is None:
            return int(self._walks.weight(str(target))) if self._reports else 0
        return found

    def longest_first(self, ids: Collection[str | int]) -> Collection[str]:
        """The ids by the pages of all their reports; unknown ones keep their order, at the end."""
        self._ordered.weigh(self._weighed(ids))
        return self._ordered

    def _weighed(self, ids: Collection[str | int]) -> Iterator[tuple[str, float]]:
        for campaign_id in map(str, ids):
            walks = (str(Target(report, campaign_id)) for report in self._reports)
            yield campaign_id, sum(map(self._walks.weight, walks))

    def close(self) -> None:
        """Drop what was read."""
        self._walks.close()
        self._ordered.close()
        self._counted.close()


_decode = msgspec.json.Decoder(_Line).decode
