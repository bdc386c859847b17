"""The border to the disk: what it says is translated, what is written is written whole."""

import errno
import os
import sqlite3
from pathlib import Path

import pytest
from workbench import disk_calls

from harvester.disk import storage as module
from harvester.disk.storage import replace_file, storage, sync_directory, write_all
from harvester.errors import StorageError


@pytest.mark.parametrize(
    "wrong",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        PermissionError(errno.EACCES, "Permission denied"),
        OSError("no number at all"),
        sqlite3.OperationalError("database or disk is full"),
    ],
)
def test_trouble_is_named_with_its_path(wrong: Exception) -> None:
    """Every error of the disk becomes a storage error that names the path."""
    with (
        pytest.raises(StorageError, match="cannot use /some/file: ") as caught,
        storage("/some/file"),
    ):
        raise wrong
    assert str(getattr(wrong, "strerror", None) or wrong) in str(caught.value)
    assert caught.value.__cause__ is wrong


def test_what_is_not_of_the_disk_passes() -> None:
    """Other errors are left as they are."""
    with pytest.raises(KeyError), storage("x"):
        raise KeyError("x")


@pytest.mark.parametrize("at", [None, 3])
def test_short_writes_lose_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int | None
) -> None:
    """A system that takes three bytes at a time still gets them all, in order."""
    real_write, real_pwrite = os.write, os.pwrite
    monkeypatch.setattr(os, "write", lambda file, data: real_write(file, data[:3]))
    monkeypatch.setattr(os, "pwrite", lambda file, data, to: real_pwrite(file, data[:3], to))
    file = os.open(tmp_path / "x", os.O_RDWR | os.O_CREAT)
    write_all(file, b"")
    write_all(file, b"0123456789", at=at)
    os.close(file)
    assert (tmp_path / "x").read_bytes() == b"\0" * (at or 0) + b"0123456789"


def test_a_file_is_replaced_in_one_step(tmp_path: Path) -> None:
    """The new content takes the old one's name, and nothing else is left behind."""
    path = tmp_path / "summary.json"
    replace_file(path, b"old, and longer")
    replace_file(path, b"new")
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["summary.json"]  # noqa: PTH208


def test_a_replacement_is_synced_before_it_has_the_name_and_the_name_after_it(
    tmp_path: Path,
) -> None:
    """A power cut leaves all of the old or all of the new, and the new once it has returned."""
    with disk_calls([]) as calls:
        replace_file(tmp_path / "summary.json", b"new")
    assert calls == ["fsync summary.json.new", "rename summary.json", f"fsync {tmp_path.name}"]


@pytest.mark.parametrize("step", ["write_all", "fsync", "sync_directory"])
def test_a_failed_replacement_leaves_a_whole_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """Whichever step the disk refuses, the name shows all of the old or all of the new."""
    path = tmp_path / "summary.json"
    replace_file(path, b"old")

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os if step == "fsync" else module, step, refuse)
    with pytest.raises(StorageError, match="No space left"):
        replace_file(path, b"new")
    assert path.read_bytes() in {b"old", b"new"}


def test_a_directory_that_is_gone_is_trouble(tmp_path: Path) -> None:
    """Syncing a directory that is not there says so, and leaks no file."""
    with pytest.raises(StorageError, match="gone"):
        sync_directory(tmp_path / "gone")
