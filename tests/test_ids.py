"""Ids, read lazily, checked, each once."""

import errno
import io
import os
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest
from fakes import NoRoom
from hypothesis import given
from hypothesis import strategies as st

from harvester.api.v2 import V2
from harvester.disk.disk_set import DiskSet
from harvester.errors import ConfigError, StorageError
from harvester.input.ids import spool

check = V2().check_id


def read(data: bytes, path: Path) -> list[str]:
    """The ids in a file."""
    path.write_bytes(data)
    with closing(spool((), str(path), check)) as ids:
        return list(ids)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", []),
        (b"\n\n", []),
        (b"1", ["1"]),
        (b"1\n2\n", ["1", "2"]),
        (b"1\r\n2\r\n", ["1", "2"]),
        (b"\xef\xbb\xbf1\n2", ["1", "2"]),
        (b"\xef\xbb\xbf# a comment\n1", ["1"]),
        (b" 1 \n\t2", ["1", "2"]),
        (b"# 9\n#\n  # 8\n1", ["1"]),
        (b"2\n1\n2\n3\n1\n", ["2", "1", "3"]),
        (b"01\n1\n", ["01", "1"]),
        (b"1\xc2\xa0\n", ["1"]),
    ],
)
def test_lines_become_ids(tmp_path: Path, data: bytes, expected: list[str]) -> None:
    """Blank lines and comments are skipped; order is kept; repeats are taken once."""
    assert read(data, tmp_path / "ids") == expected


@pytest.mark.parametrize(
    "line", [b"x", b"1 2", b"1#2", b"1\x00", b"\xff", b"1\xef\xbb\xbf", b"1" * 21]
)
@pytest.mark.parametrize("before", [0, 2])
def test_a_bad_line_is_named(tmp_path: Path, line: bytes, before: int) -> None:
    """By file and number, counted from 1, comments and blank lines included."""
    path = tmp_path / "ids"
    with pytest.raises(ConfigError, match=rf"ids, line {before + 1}: not a campaign id: '"):
        read(b"#\n" * before + line + b"\n5\n", path)


def test_a_byte_order_mark_on_a_later_line_is_no_id(tmp_path: Path) -> None:
    """As two files put together with cat have it: refused, not guessed."""
    with pytest.raises(ConfigError, match="line 2"):
        read(b"1\n\xef\xbb\xbf2\n", tmp_path / "ids")


@pytest.mark.parametrize(
    ("data", "why"),
    [
        ("1\n".encode("utf-16"), "is UTF-16 text: save it as UTF-8"),
        ("1\n".encode("utf-16-be"), "line 1"),
        (b"1\n" + b"#" * 100_000, "line 2 is longer than any id"),
    ],
)
def test_a_file_that_is_no_list_is_told(tmp_path: Path, data: bytes, why: str) -> None:
    """In another encoding, or without line ends: it is not taken into memory."""
    with pytest.raises(ConfigError, match=why):
        read(data, tmp_path / "ids")


def test_arguments_come_before_the_file(tmp_path: Path) -> None:
    """Both can be given; an id in both is taken once."""
    (tmp_path / "ids").write_text("2\n3\n")
    with closing(spool(("1", "2"), str(tmp_path / "ids"), check)) as ids:
        assert list(ids) == ["1", "2", "3"]
        assert ids.repeated == 1


def test_standard_input_is_a_dash(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error there says so."""
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(b"4\n5\n")))
    with closing(spool((), "-", check)) as ids:
        assert list(ids) == ["4", "5"]
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(b"4\nfive\n")))
    with pytest.raises(ConfigError, match="standard input, line 2"):
        spool((), "-", check)


def test_a_closed_standard_input_is_a_config_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python has none then, and there is nothing to read."""
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(ConfigError, match=r"^input: cannot read standard input: it is closed"):
        spool((), "-", check)


def test_a_standard_input_that_cannot_be_read_is_a_config_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A terminal that has gone away, say."""

    lines = iter([b"1\n"])

    def readline(_: int) -> bytes:
        for line in lines:
            return line
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=SimpleNamespace(readline=readline)))
    with pytest.raises(ConfigError, match=r"^input: cannot read standard input: Input/output"):
        spool((), "-", check)


@pytest.mark.parametrize("name", ["nowhere", "."])
def test_a_file_that_cannot_be_read_is_a_config_error(tmp_path: Path, name: str) -> None:
    """It names the setting."""
    with pytest.raises(ConfigError, match=r"^input: cannot read "):
        spool((), str(tmp_path / name), check)


@pytest.mark.parametrize("statement", ["CREATE", "INSERT", "ORDER BY"])
def test_a_full_temporary_folder_is_storage_trouble(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, statement: str
) -> None:
    """The folder is named; it is no bug."""
    NoRoom.placed(monkeypatch, statement)
    with pytest.raises(StorageError, match=r"temporary files \(.*database or disk is full"):
        read(b"1\n", tmp_path / "ids")


@given(st.lists(st.integers(0, 50).map(str)))
def test_a_spool_is_a_set_in_the_order_of_arrival(given_: list[str]) -> None:
    """Whatever comes, however often."""
    with closing(DiskSet()) as ids:
        new = [each for each in given_ if ids.add(each)]
        assert list(ids) == list(dict.fromkeys(given_)) == new
        assert len(ids) == len(set(given_))
        assert ids.repeated == len(given_) - len(ids)
        assert all(each in ids for each in given_)
        assert "none" not in ids


def test_a_spool_is_read_more_than_once_and_in_batches() -> None:
    """More than one batch, twice, also side by side."""
    with closing(DiskSet()) as ids:
        ids.extend(str(each) for each in range(2_500))
        expected = [str(each) for each in range(2_500)]
        assert list(ids) == expected
        assert list(zip(ids, ids, strict=True)) == list(zip(expected, expected, strict=True))
