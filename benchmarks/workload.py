"""The account that the benchmarks harvest: sizes from a seed, pages rendered as they are asked.

Server and judge make the same bytes from the same few numbers, so no run needs a copy of the
other's data to be checked against. Every row is unique: it names its campaign, page and place.
"""

import argparse
import hashlib
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path

import orjson

from benchmarks.rows import MIXES, Mix

_FIRST_ID = 1_100_394_000_000
_UUID = "%08x-0000-4000-8000-%012x"
_CAMPAIGN, _ACTIVITY = 0xCA, 0xAC
_NEWEST = datetime(2026, 3, 1, tzinfo=UTC)
_VARIANTS = 4


@dataclass(frozen=True)
class Workload:
    """`campaigns` campaigns on `pages` pages in all, the longest of `longest`; a page has `rows` of
    the kind `mix` (see `rows.MIXES`)."""

    campaigns: int
    pages: int
    longest: int
    rows: int = 500
    seed: int = 7
    mix: str = "opens"

    @property
    def kind(self) -> Mix:
        """What the rows are like."""
        return MIXES[self.mix]

    @cached_property
    def sizes(self) -> list[int]:
        """The pages of each campaign, in list order."""
        if self.pages == self.campaigns:
            return [1] * self.campaigns
        if self.campaigns == 1:
            return [self.pages]
        sizes = _tail(self.campaigns, self.pages, self.longest)
        random.Random(self.seed).shuffle(sizes)
        return sizes

    @cached_property
    def ids(self) -> list[str]:
        """The campaign ids, in list order."""
        if self.kind.api == "v3":
            return [_UUID % (index, _CAMPAIGN) for index in range(self.campaigns)]
        return [str(_FIRST_ID + index) for index in range(self.campaigns)]

    def owner(self, index: int) -> str:
        """The id that every row of a campaign carries: the campaign's, or v3's activity's."""
        return _UUID % (index, _ACTIVITY) if self.kind.api == "v3" else self.ids[index]

    def shuffled(self, seed: int) -> list[str]:
        """The ids in another order."""
        return random.Random(seed).sample(self.ids, self.campaigns)

    def index(self, owner: str) -> int:
        """Where a campaign, or its activity, stands; raise `ValueError` if there is none."""
        index = int(owner[:8], 16) if self.kind.api == "v3" else int(owner) - _FIRST_ID
        if not 0 <= index < self.campaigns:
            raise ValueError(owner)
        return index

    def rows_of(self, index: int, page: int) -> int:
        """The rows of a page (from 1): full ones, but for the last."""
        if page < self.sizes[index]:
            return self.rows
        return 1 + hash((self.seed, index)) % self.rows

    def detail(self, index: int) -> bytes:
        """A v3 campaign as the API sends it: its email, and one activity that has no report."""
        activities = [
            {"campaign_activity_id": self.owner(index), "role": "primary_email"},
            {"campaign_activity_id": _UUID % (index, 1), "role": "permalink"},
        ]
        campaign = {"campaign_id": self.ids[index], "current_status": "Done"}
        return json.dumps(campaign | {"campaign_activities": activities}).encode()

    def body(self, index: int, page: int) -> bytes:
        """A page as the API sends it."""
        rows = self._joined(index, page, self._api)
        more = page < self.sizes[index]
        if self.kind.api == "v3":
            path = f"/v3/reports/email_reports/{self.owner(index)}/tracking/{self.kind.report}"
            links = f',"_links":{{"next":{{"href":"{path}?next={page + 1}"}}}}' if more else ""
            return b'{"tracking_activities":[' + rows + b"]" + links.encode() + b"}"
        path = f"/v2/emailmarketing/campaigns/{self.ids[index]}/tracking/{self.kind.report}"
        link = f'"next_link":"{path}?next={page + 1}"' if more else ""
        return b'{"meta":{"pagination":{%s}},"results":[%s]}' % (link.encode(), rows)

    def lines(self, index: int, page: int) -> bytes:
        """The same page as it belongs on the disk."""
        return self._joined(index, page, self._disk) + b"\n"

    def _joined(self, index: int, page: int, spelling: "_Spelling") -> bytes:
        pieces = spelling.variants[(index + page) % _VARIANTS]
        count = self.rows_of(index, page)
        hour = (_NEWEST - timedelta(hours=page)).strftime("%Y-%m-%dT%H").encode()
        own = spelling.own % {b"owner": self.owner(index).encode(), b"page": page, b"hour": hour}
        whole = own.join(pieces[: count + 1])
        # The last piece leads over to a row that is not there any more.
        return whole if count == self.rows else whole[: whole.rindex(b"}") + 1]

    @cached_property
    def _api(self) -> "_Spelling":
        mix = self.kind
        between = ",\n    " if mix.indented else ","
        return _spelling(mix, self.rows, between.encode(), mix.spelled)

    @cached_property
    def _disk(self) -> "_Spelling":
        return _spelling(self.kind, self.rows, b"\n", str.encode)

    @cached_property
    def digests(self) -> dict[str, tuple[int, str]]:
        """What must be on the disk in the end: rows and SHA-256 of each campaign."""
        return {name: self._digest(index) for index, name in enumerate(self.ids)}

    def _digest(self, index: int) -> tuple[int, str]:
        rows, digest = 0, hashlib.sha256()
        for page in range(1, self.sizes[index] + 1):
            rows += self.rows_of(index, page)
            digest.update(self.lines(index, page))
        return rows, digest.hexdigest()

    def arguments(self) -> list[str]:
        """The command line that makes this workload again in another process."""
        return ["--workload", json.dumps(asdict(self))]

    def verify(self, folder: Path) -> None:
        """Compare every file in `folder` with what was served. Raise `WrongOutput`."""
        self._verify(folder, self.digests)

    def verify_values(self, folder: Path) -> None:
        """The same for a contender that spells every row anew, as orjson does."""
        respelled = {}
        for index, name in enumerate(self.ids):
            pages = range(1, self.sizes[index] + 1)
            lines = b"".join(self.lines(index, page) for page in pages).splitlines(keepends=False)
            data = b"".join(orjson.dumps(orjson.loads(line)) + b"\n" for line in lines)
            respelled[name] = len(lines), hashlib.sha256(data).hexdigest()
        self._verify(folder, respelled)

    def _verify(self, folder: Path, expected: dict[str, tuple[int, str]]) -> None:
        found = {path.name: path for path in folder.iterdir() if path.suffix == ".ndjson"}
        if wrong := set(found) ^ {f"{name}.ndjson" for name in self.ids}:
            raise WrongOutput(f"{len(wrong)} files too many or too few in {folder}")
        for name, (rows, digest) in expected.items():
            data = found[f"{name}.ndjson"].read_bytes()
            if data.count(b"\n") != rows or hashlib.sha256(data).hexdigest() != digest:
                raise WrongOutput(f"{name}: not what was served")

    def verify_manifest(self, manifest: Path) -> None:
        """Compare the manifest of a harvest with what was served. Raise `WrongOutput`."""
        found = {
            line["campaign_id"]: (line["rows"], line["sha256"])
            for line in map(json.loads, manifest.read_bytes().splitlines())
        }
        if found != self.digests:
            raise WrongOutput(f"{manifest}: not what was served")


class WrongOutput(Exception):
    """A contender was fast, and wrong."""


def workload_of(namespace: argparse.Namespace) -> Workload:
    """The workload of a parsed command line."""
    return Workload(**json.loads(namespace.workload))


def _tail(campaigns: int, pages: int, longest: int) -> list[int]:
    """Sizes that fall with the rank (Zipf), none over `longest`, none under 1, summing to `pages`.

    Where that leaves one page for each campaign but one, that one is the heavy tail.
    """
    if pages - longest == campaigns - 1:
        return [longest] + [1] * (campaigns - 1)
    low, high = float(longest), float(pages * campaigns)
    for _ in range(80):
        first = (low + high) / 2
        if sum(_ranked(campaigns, longest, first)) > pages:
            high = first
        else:
            low = first
    sizes = _ranked(campaigns, longest, low)
    # Rounding leaves a few pages over: they go to the campaigns that are next in length.
    room = [rank for rank, size in enumerate(sizes) if size < longest]
    short = pages - sum(sizes)
    if not 0 <= short <= len(room):
        raise ValueError(f"no sizes of {campaigns} campaigns, {pages} pages, longest {longest}")
    for rank in room[:short]:
        sizes[rank] += 1
    return sizes


def _ranked(campaigns: int, longest: int, first: float) -> list[int]:
    return [max(1, min(longest, int(first / rank))) for rank in range(1, campaigns + 1)]


@dataclass(frozen=True, slots=True)
class _Spelling:
    """What stands between the places where campaign and page are named, and those places."""

    own: bytes
    variants: list[list[bytes]]


def _spelling(mix: Mix, rows: int, between: bytes, spell: Callable[[str], bytes]) -> _Spelling:
    return _Spelling(
        spell(mix.own),
        [list(_pieces(mix, rows, between, spell, variant)) for variant in range(_VARIANTS)],
    )


def _pieces(
    mix: Mix, rows: int, between: bytes, spell: Callable[[str], bytes], variant: int
) -> Iterator[bytes]:
    chance = random.Random(variant)
    lead = b""
    for row in range(rows):
        head, tail = mix.row(chance, row)
        yield lead + spell(head)
        lead = spell(tail) + between
    yield lead.removesuffix(between)
