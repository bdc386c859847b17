"""How a page becomes bytes: members that can be appended, cut apart, and read by every reader."""

import gzip
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harvester.disk.compress import CODECS

NAMES = list(CODECS)


@pytest.mark.parametrize(("name", "suffix"), [(None, ""), ("gzip", ".gz"), ("zstd", ".zst")])
def test_each_codec_has_its_suffix(name: str | None, suffix: str) -> None:
    """Plain, gzip and zstd, and nothing else."""
    assert CODECS[name].suffix == suffix
    assert len(CODECS) == 3


@given(st.sampled_from(NAMES), st.lists(st.binary(max_size=200), min_size=1, max_size=5))
def test_members_in_a_row_are_one_text(name: str | None, pages: list[bytes]) -> None:
    """A file of many members reads as their contents one after the other."""
    codec = CODECS[name]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x"
        path.write_bytes(b"".join(codec.encode(data) for data in pages))
        with codec.open(path) as file:
            assert file.read() == b"".join(pages)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_page_gives_the_same_bytes(
    name: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No time and no chance in a member: a page fetched again is the same file."""
    data = b'{"a":1}\n' * 500
    first = CODECS[name].encode(data)
    monkeypatch.setattr("time.time", lambda: 2e9)
    assert CODECS[name].encode(data) == first


@pytest.mark.parametrize("name", ["gzip", "zstd"])
def test_compression_compresses(name: str) -> None:
    """A page of like rows shrinks a lot."""
    assert len(CODECS[name].encode(b'{"a":1}\n' * 500)) < 400


@pytest.mark.parametrize("name", NAMES)
def test_an_empty_page_is_a_valid_file(name: str | None, tmp_path: Path) -> None:
    """One member of nothing reads as nothing."""
    (tmp_path / "x").write_bytes(CODECS[name].encode(b""))
    with CODECS[name].open(tmp_path / "x") as file:
        assert file.read() == b""


def test_a_gzip_member_is_one_for_every_reader() -> None:
    """The standard library's reader checks header and trailer."""
    assert gzip.decompress(CODECS["gzip"].encode(b"abc") * 2) == b"abcabc"
