"""A finished file and a top-up's pages, made into the file that takes its place."""

import hashlib
from pathlib import Path

import pytest
from workbench import disk_calls

from harvester.campaign.growth import Grown, grow, read_marks
from harvester.campaign.rows import RowReader
from harvester.disk.compress import CODECS, Codec
from harvester.disk.part import Damaged
from harvester.disk.saved_walk import Base

READ = RowReader("open_date")
KINDS = [None, "gzip", "zstd"]


def row(number: int) -> bytes:
    """An event; the higher, the later."""
    return b'{"n":%d,"open_date":"2026-01-01T00:%02d:%02d.000Z"}\n' % (number, *divmod(number, 60))


def joined(*numbers: int) -> bytes:
    """Some of them, as a file has them."""
    return b"".join(map(row, numbers))


class Files:
    """The three files of a growth."""

    def __init__(self, path: Path, codec: Codec, stored: bytes, *pages: bytes) -> None:
        self.codec = codec
        self.final, self.part, self.grown = path / "final", path / "part", path / "grown"
        self.final.write_bytes(codec.encode(stored))
        self.part.write_bytes(b"".join(codec.encode(page) for page in pages))
        data = self.final.read_bytes()
        self.base = Base(1, stored.count(b"\n"), len(data), hashlib.sha256(data).digest())
        self.counts = [page.count(b"\n") for page in pages]

    def grow(self) -> Grown | None:
        """Put them together."""
        return grow(
            self.final,
            self.part,
            self.grown,
            codec=self.codec,
            read=READ,
            marks=read_marks(self.final, self.base, self.codec, READ),
            page_rows=self.counts,
        )

    def content(self) -> bytes:
        """What the grown file holds."""
        with self.codec.open(self.grown) as file:
            return file.read()


@pytest.mark.parametrize("kind", KINDS)
def test_new_rows_follow_the_stored_bytes(tmp_path: Path, kind: str | None) -> None:
    """The finished file is the head of the new one, to the byte; size and digest are given."""
    files = Files(tmp_path, CODECS[kind], joined(3, 2, 1), joined(6, 5), joined(4, 3))
    grown = files.grow()
    data = files.grown.read_bytes()
    assert grown == Grown(3, len(data), hashlib.sha256(data).digest())
    assert files.content() == joined(3, 2, 1, 6, 5, 4)
    assert data.startswith(files.final.read_bytes())


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_new_makes_no_file(tmp_path: Path, kind: str | None) -> None:
    """The finished file stays what it is."""
    for stored, page in ((joined(2, 1), joined(2)), (b"", b"")):
        files = Files(tmp_path, CODECS[kind], stored, page)
        assert files.grow() is None
        assert not files.grown.exists()


@pytest.mark.parametrize("kind", KINDS)
def test_more_rows_than_one_member_holds(tmp_path: Path, kind: str | None) -> None:
    """1,201 rows are added in order."""
    new = tuple(range(1_300, 99, -1))
    files = Files(tmp_path, CODECS[kind], joined(3), joined(*new))
    grown = files.grow()
    assert grown is not None
    assert grown.added == 1_201
    assert files.content() == joined(3, *new)


def test_what_a_kill_left_is_written_over(tmp_path: Path) -> None:
    """A longer file under the new name, left half done, leaves no trace."""
    files = Files(tmp_path, CODECS[None], joined(1), joined(2, 1))
    files.grown.write_bytes(b"x" * 10_000)
    assert files.grow() is not None
    assert files.content() == joined(1, 2)


@pytest.mark.parametrize("harm", ["gone", "changed", "longer", "shorter"])
def test_a_file_that_is_not_what_was_finished_is_damaged(tmp_path: Path, harm: str) -> None:
    """Nothing may be added to it."""
    files = Files(tmp_path, CODECS[None], joined(2, 1), joined(3))
    data = files.final.read_bytes()
    match harm:
        case "gone":
            files.final.unlink()
        case "changed":
            files.final.write_bytes(data.replace(b"1", b"9"))
        case "longer":
            files.final.write_bytes(data + b"\n")
        case "shorter":
            files.final.write_bytes(data[:-1])
    with pytest.raises(Damaged):
        files.grow()


def test_a_grown_file_is_synced_when_it_is_given(tmp_path: Path) -> None:
    """Its name is next: a power cut must not leave that name to half of it."""
    files = Files(tmp_path, CODECS[None], joined(1), joined(2, 1))
    with disk_calls([]) as calls:
        files.grow()
    assert calls == ["fdatasync grown"]
