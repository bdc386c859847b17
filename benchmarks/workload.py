"""The account that the benchmarks harvest: sizes from a seed, pages rendered as they are asked.

Server and judge make the same bytes from the same few numbers, so no run needs a copy of the
other's data to be checked against. Every row is unique: it names its campaign, page and place.
"""

import argparse
import hashlib
import json
import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

_FIRST_ID = 1_100_394_000_000
_NAMES = ("abigail", "benjamin", "charlotte", "dominic", "eleanor", "frederick", "gabriella")
_HOSTS = ("example.com", "mail.example.org", "example.net", "post.example.co.uk")
_VARIANTS = 4


@dataclass(frozen=True)
class Workload:
    """`campaigns` campaigns on `pages` pages in all, the longest of `longest`; a page is `rows`."""

    campaigns: int
    pages: int
    longest: int
    rows: int = 500
    seed: int = 7

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
        return [str(_FIRST_ID + index) for index in range(self.campaigns)]

    def shuffled(self, seed: int) -> list[str]:
        """The ids in another order."""
        return random.Random(seed).sample(self.ids, self.campaigns)

    def index(self, campaign_id: str) -> int:
        """Where a campaign stands; raise `ValueError` if there is none of that id."""
        index = int(campaign_id) - _FIRST_ID
        if not 0 <= index < self.campaigns:
            raise ValueError(campaign_id)
        return index

    def rows_of(self, index: int, page: int) -> int:
        """The rows of a page (from 1): full ones, but for the last."""
        if page < self.sizes[index]:
            return self.rows
        return 1 + hash((self.seed, index)) % self.rows

    def body(self, index: int, page: int) -> bytes:
        """A page as the API sends it."""
        pagination = b""
        if page < self.sizes[index]:
            link = f"/v2/emailmarketing/campaigns/{self.ids[index]}/tracking/opens?next={page + 1}"
            pagination = b'"next_link":"%s"' % link.encode()
        head = b'{"meta":{"pagination":{%s}},"results":[' % pagination
        return head + self._joined(index, page, self._api) + b"]}"

    def lines(self, index: int, page: int) -> bytes:
        """The same page as it belongs on the disk."""
        return self._joined(index, page, self._disk) + b"\n"

    def _joined(self, index: int, page: int, variants: list[list[bytes]]) -> bytes:
        pieces = variants[(index + page) % _VARIANTS]
        count = self.rows_of(index, page)
        own = b'%s","contact_id":"%05d' % (self.ids[index].encode(), page)
        whole = own.join(pieces[: count + 1])
        # The last piece leads over to a row that is not there any more.
        return whole if count == self.rows else whole[: whole.rindex(b"}") + 1]

    @cached_property
    def _api(self) -> list[list[bytes]]:
        return [list(_pieces(self.rows, b",", variant)) for variant in range(_VARIANTS)]

    @cached_property
    def _disk(self) -> list[list[bytes]]:
        return [list(_pieces(self.rows, b"\n", variant)) for variant in range(_VARIANTS)]

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
        found = {path.name: path for path in folder.iterdir() if path.suffix == ".ndjson"}
        if wrong := set(found) ^ {f"{name}.ndjson" for name in self.ids}:
            raise WrongOutput(f"{len(wrong)} files too many or too few in {folder}")
        for name, (rows, digest) in self.digests.items():
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

    Where that leaves one page for everybody but one, it is a giant among dwarfs.
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


def _pieces(rows: int, between: bytes, variant: int) -> Iterator[bytes]:
    """What stands between the places where campaign and page are told."""
    opening = b'{"activity_type":"EMAIL_OPEN","campaign_id":"'
    chance = random.Random(variant)
    yield opening
    for row in range(rows):
        email = f"{chance.choice(_NAMES)}.{chance.randrange(10**6)}@{chance.choice(_HOSTS)}"
        date = (
            f"{chance.randrange(2010, 2026)}-{chance.randrange(1, 13):02}"
            f"-{chance.randrange(1, 29):02}T{chance.randrange(24):02}"
            f":{chance.randrange(60):02}:{chance.randrange(60):02}.{chance.randrange(1000):03}Z"
        )
        tail = f'{row:03}","email_address":"{email}","open_date":"{date}"}}'.encode()
        yield tail + between + opening if row < rows - 1 else tail
