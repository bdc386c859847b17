"""The append-only reports."""

import errno
import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from fakes import refusing

from harvester.disk.ndjson_log import NdjsonLog
from harvester.errors import StorageError


def lines(path: Path, *, keep: int | None = None, more: int = 0) -> bytes:
    """Open a journal, append so many lines, close it; give the file."""
    journal = NdjsonLog(path, keep=keep)
    for number in range(more):
        journal.append({"n": number})
    journal.sync()
    assert journal.size == path.stat().st_size
    journal.close()
    return path.read_bytes()


def test_a_journal_is_appended_to(tmp_path: Path) -> None:
    """Each line in one step; what was there stays."""
    assert lines(tmp_path / "j", more=2) == b'{"n":0}\n{"n":1}\n'
    assert lines(tmp_path / "j", more=1) == b'{"n":0}\n{"n":1}\n{"n":0}\n'


@pytest.mark.parametrize(
    ("content", "left"),
    [
        (b"", b""),
        (b'{"n":0}\n', b'{"n":0}\n'),
        (b'{"n":0}\n{"n', b'{"n":0}\n'),
        (b'{"n"', b""),
        (b"\n", b"\n"),
        (b'{"n":0}\n' + b"x" * 3_000_000, b'{"n":0}\n'),
        (b"x" * 3_000_000, b""),
        (b"x" * 1_048_575 + b"\ny", b"x" * 1_048_575 + b"\n"),
        (b"x" * 1_048_576 + b"\ny", b"x" * 1_048_576 + b"\n"),
        (b"\n" + b"x" * 1_048_576, b"\n"),
    ],
    ids=lambda content: f"{content[:9]!r}{len(content)}",
)
def test_a_torn_last_line_is_cut_off(tmp_path: Path, content: bytes, left: bytes) -> None:
    """On opening, whatever follows the last newline goes, however long it is."""
    (tmp_path / "j").write_bytes(content)
    assert lines(tmp_path / "j") == left


@pytest.mark.parametrize(
    ("keep", "left"), [(0, b""), (8, b'{"n":0}\n'), (16, b'{"n":0}\n{"n":1}\n'), (99, None)]
)
def test_an_unacknowledged_line_is_cut_off(tmp_path: Path, keep: int, left: bytes | None) -> None:
    """The manifest is cut back to what the state knows of; it is never stretched."""
    whole = lines(tmp_path / "j", more=2)
    assert lines(tmp_path / "j", keep=keep) == (whole if left is None else left)


@pytest.mark.parametrize("keep", [1, 1_048_576, 1_500_000, 2_500_001, 3_000_000, 3_000_003])
def test_a_large_log_is_cut_back_to_a_whole_line(tmp_path: Path, keep: int) -> None:
    """Wherever the acknowledged length lies in it, and however far back the last newline is."""
    content = b"x" * 999_999 + b"\n" + b"y" * 1_499_999 + b"\n" + b"z" * 500_002 + b"\n"
    (tmp_path / "j").write_bytes(content)
    assert lines(tmp_path / "j", keep=keep) == content[: content.rfind(b"\n", 0, keep) + 1]


@pytest.mark.parametrize(
    ("torn", "left"), [(b'{"n":0}\n{"n":', b'{"n":0}\n'), (b'{"n":0', b""), (b"", b"")]
)
@pytest.mark.parametrize("keep", [16, 12])
def test_a_line_is_never_glued_to_a_torn_one(
    tmp_path: Path, keep: int, torn: bytes, left: bytes
) -> None:
    """Where less is left than was acknowledged, only whole lines are; and it is known."""
    (tmp_path / "j").write_bytes(torn)
    journal = NdjsonLog(tmp_path / "j", keep=keep)
    assert journal.lost
    journal.append({"n": 2})
    journal.close()
    assert (tmp_path / "j").read_bytes() == left + b'{"n":2}\n'
    journal = NdjsonLog(tmp_path / "j", keep=len(left) + 8)
    assert not journal.lost
    journal.close()


def test_a_line_holds_json_only(tmp_path: Path) -> None:
    """Text of any kind stays on its line; what is no JSON is a bug, found at once."""
    journal = NdjsonLog(tmp_path / "j")
    journal.append({"message": "a\nb\u2028\x00é"})
    with pytest.raises(TypeError):
        journal.append({"path": tmp_path})
    journal.close()
    assert (tmp_path / "j").read_bytes().count(b"\n") == 1


@pytest.mark.parametrize(
    ("call", "use"),
    [("pwrite", lambda j: j.append({})), ("fdatasync", lambda j: j.sync())],
)
def test_a_journal_the_disk_refuses_stops_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, use: Callable[[NdjsonLog], Any]
) -> None:
    """The journal's name is in the error; its size is what was acknowledged."""
    journal = NdjsonLog(tmp_path / "j.ndjson")
    with monkeypatch.context() as patch:
        patch.setattr(os, call, refusing(errno.EIO))
        with pytest.raises(StorageError, match=r"j\.ndjson"):
            use(journal)
    assert journal.size == 0
    journal.close()


def test_the_last_line_of_each_value_is_kept(tmp_path: Path) -> None:
    """In the order of the lines that stay; what has no such member stays too, and the file goes on
    growing."""
    path = tmp_path / "j"
    path.write_bytes(b'{"f":"a","n":1}\n{"f":"b","n":2}\n[3]\nx\n{"f":"a","n":4}\n')
    with closing(NdjsonLog(path)) as journal:
        assert journal.lines() == 5
        journal.keep_last("f")
        journal.append({"f": "c"})
        assert (journal.lines(), journal.size) == (5, path.stat().st_size)
    assert path.read_bytes() == b'{"f":"b","n":2}\n[3]\nx\n{"f":"a","n":4}\n{"f":"c"}\n'
    assert [each.name for each in tmp_path.iterdir()] == ["j"]
