"""A part file, and its final name."""

import errno
import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fakes import refusing
from hypothesis import given
from hypothesis import strategies as st

from harvester.disk.part import Damaged, PartFile, publish
from harvester.errors import StorageError


def sha(data: bytes) -> bytes:
    """SHA-256."""
    return hashlib.sha256(data).digest()


# -- the part file -----------------------------------------------------------------------------


def test_a_part_grows_and_knows_its_digest(tmp_path: Path) -> None:
    """Offset and digest are those of all that was written."""
    part = PartFile(tmp_path / "x.part")
    assert (part.offset, part.digest()) == (0, sha(b""))
    assert part.append(b"one\n") == 4
    assert part.append(b"") == 4
    assert part.append(b"two\n") == 8
    assert (part.offset, part.digest()) == (8, sha(b"one\ntwo\n"))
    part.sync()
    part.close()
    assert (tmp_path / "x.part").read_bytes() == b"one\ntwo\n"


@pytest.mark.parametrize("beyond", [b"", b"torn", b"x" * 3_000_000])
def test_a_resume_cuts_back_to_the_checkpoint(tmp_path: Path, beyond: bytes) -> None:
    """What came after it is fetched again; writing goes on at the cut."""
    (tmp_path / "x.part").write_bytes(b"one\n" + beyond)
    part = PartFile(tmp_path / "x.part")
    part.resume(4, sha(b"one\n"))
    assert part.append(b"two\n") == 8
    assert part.digest() == sha(b"one\ntwo\n")
    part.close()
    assert (tmp_path / "x.part").read_bytes() == b"one\ntwo\n"


@pytest.mark.parametrize(
    ("content", "offset"),
    [(b"", 4), (b"one", 4), (b"onE\n", 4), (b"\0\0\0\0", 4), (b"one\ntwo\n", 3), (b"x" * 10**6, 4)],
)
def test_a_damaged_part_is_never_stretched(tmp_path: Path, content: bytes, offset: int) -> None:
    """Shorter than its checkpoint, or of other content: said so, and left as it is."""
    (tmp_path / "x.part").write_bytes(content)
    part = PartFile(tmp_path / "x.part")
    with pytest.raises(Damaged):
        part.resume(offset, sha(b"one\n"))
    part.close()
    assert (tmp_path / "x.part").read_bytes() == content


def test_a_large_part_is_checked_whole(tmp_path: Path) -> None:
    """Every byte up to the checkpoint counts, however many reads that takes."""
    content = bytearray(os.urandom(1 << 16) * 40)
    (tmp_path / "x.part").write_bytes(content)
    part = PartFile(tmp_path / "x.part")
    part.resume(len(content), sha(content))
    part.close()
    digest = sha(content)
    content[1_500_000] ^= 1
    (tmp_path / "x.part").write_bytes(content)
    part = PartFile(tmp_path / "x.part")
    with pytest.raises(Damaged):
        part.resume(len(content), digest)
    part.close()


def test_a_restart_throws_everything_away(tmp_path: Path) -> None:
    """Also after a resume that failed: the next byte is the first."""
    (tmp_path / "x.part").write_bytes(b"damaged")
    part = PartFile(tmp_path / "x.part")
    with pytest.raises(Damaged):
        part.resume(7, sha(b"whole!!"))
    part.restart()
    assert part.append(b"new") == 3
    assert part.digest() == sha(b"new")
    part.close()
    assert (tmp_path / "x.part").read_bytes() == b"new"


@pytest.mark.parametrize(
    ("call", "use"),
    [
        ("write", lambda part: part.append(b"x")),
        ("fdatasync", lambda part: part.sync()),
        ("ftruncate", lambda part: part.restart()),
        ("ftruncate", lambda part: part.resume(0, sha(b""))),
    ],
)
def test_what_the_disk_refuses_stops_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, use: Callable[[PartFile], Any]
) -> None:
    """A full or broken disk is storage trouble that names the file."""
    (tmp_path / "x.part").write_bytes(b"rows")
    part = PartFile(tmp_path / "x.part")
    with monkeypatch.context() as patch:
        patch.setattr(os, call, refusing(errno.ENOSPC))
        with pytest.raises(StorageError, match=r"x\.part: No space left"):
            use(part)
    part.close()


def test_a_part_that_cannot_be_opened_stops_the_run(tmp_path: Path) -> None:
    """The folder is gone."""
    with pytest.raises(StorageError, match=r"x\.part"):
        PartFile(tmp_path / "gone" / "x.part")


@given(st.lists(st.binary(max_size=20), max_size=6), st.data())
def test_any_cut_of_any_part_resumes_at_its_checkpoint(
    pages: list[bytes], data: st.DataObject
) -> None:
    """Whatever a kill left behind a checkpoint, the file ends as an undisturbed one."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.part"
        saved = data.draw(st.integers(0, len(pages)))
        good = b"".join(pages[:saved])
        path.write_bytes(good + data.draw(st.binary(max_size=30)))
        part = PartFile(path)
        part.resume(len(good), sha(good))
        for page in pages[saved:]:
            part.append(page)
        assert part.digest() == sha(b"".join(pages))
        part.close()
        assert path.read_bytes() == b"".join(pages)


# -- the final name ----------------------------------------------------------------------------


def test_publishing_twice_is_publishing_once(tmp_path: Path) -> None:
    """Idempotent: after a kill that came behind the rename, the work is found done."""
    part, final = tmp_path / "x.part", tmp_path / "x"
    part.write_bytes(b"rows")
    for _ in range(2):
        publish(part, final, size=4)
        assert final.read_bytes() == b"rows"
        assert not part.exists()


def test_a_new_part_takes_an_old_ones_place(tmp_path: Path) -> None:
    """Where both names stand, the part is the one that was finished."""
    (tmp_path / "x").write_bytes(b"old")
    (tmp_path / "x.part").write_bytes(b"new!")
    publish(tmp_path / "x.part", tmp_path / "x", size=4)
    assert (tmp_path / "x").read_bytes() == b"new!"


@pytest.mark.parametrize(
    ("part", "final"),
    [(b"row", None), (b"rowss", None), (b"", b"rows"), (None, b"row"), (None, None), (None, b"")],
)
def test_what_is_not_whole_is_not_published(
    tmp_path: Path, part: bytes | None, final: bytes | None
) -> None:
    """Neither a part nor a final file of another size gets the name; both are left alone."""
    for name, content in (("x.part", part), ("x", final)):
        if content is not None:
            (tmp_path / name).write_bytes(content)
    with pytest.raises(Damaged):
        publish(tmp_path / "x.part", tmp_path / "x", size=4)
    for name, content in (("x.part", part), ("x", final)):
        assert ((tmp_path / name).read_bytes() if content is not None else None) == content


def test_an_empty_campaign_is_published_too(tmp_path: Path) -> None:
    """A file of no bytes is a finished file."""
    (tmp_path / "x.part").write_bytes(b"")
    publish(tmp_path / "x.part", tmp_path / "x", size=0)
    publish(tmp_path / "x.part", tmp_path / "x", size=0)
    assert (tmp_path / "x").read_bytes() == b""
