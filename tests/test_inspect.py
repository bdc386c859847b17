"""Looking into an output directory: nothing is sent, nothing is changed."""

import hashlib
import json
import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from fakes import virtually
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from harvester.disk.checkpoint import CheckpointStore
from harvester.disk.compress import CODECS
from harvester.disk.directory import open_directory
from harvester.disk.inspect import (
    Finding,
    Forecast,
    States,
    check_directory,
    classify,
    holder,
    read_content,
    read_summary,
    verify,
)
from harvester.disk.layout import Layout
from harvester.disk.lock import locked
from harvester.errors import ConfigError
from harvester.model import Position, Target
from harvester.runtime import Clock

IDENTITY = {"api": "v2", "report": "opens", "compress": ""}


def fill(layout: Layout) -> None:
    """A state with a walk in each state, of two reports."""
    layout.state.mkdir(parents=True)

    async def take() -> None:
        with closing(CheckpointStore(layout.database)) as store:
            store.begin_run(IDENTITY)
            for number in range(1, 5):
                for report in ("opens", "clicks"):
                    store.take(Target(report, str(number)))
            store.save()

    virtually(take)
    with closing(sqlite3.connect(layout.database)) as db, db:
        set_state = "UPDATE walks SET state = ?, kind = ?, pages = ? WHERE campaign_id = ?"
        db.execute(set_state, ("complete", None, 1, "1"))
        db.execute(set_state, ("failed", "not_found", 0, "2"))
        db.execute(set_state, ("partial", None, 2, "3"))


def finished(root: Path, suffix: str = "", content: bytes = b'{"n":1}\n{"n":2}\n') -> Path:
    """A finished file, and the manifest that names it."""
    (root / "opens").mkdir(parents=True, exist_ok=True)
    path = root / "opens" / f"1.ndjson{suffix}"
    codec = next(codec for codec in CODECS.values() if codec.suffix == suffix)
    path.write_bytes(codec.encode(content))
    data = path.read_bytes()
    list_in_manifest(root, path, len(data), hashlib.sha256(data).hexdigest(), content.count(b"\n"))
    return path


def list_in_manifest(root: Path, path: Path, size: int, digest: str, rows: int) -> None:
    """A line in the manifest."""
    line = {"file": str(path.relative_to(root)), "bytes": size, "sha256": digest, "rows": rows}
    with (root / "manifest.ndjson").open("a") as file:
        file.write(json.dumps(line) + "\n")


# -- states --------------------------------------------------------------------------------------


def test_a_run_and_a_look_at_its_directory_agree(tmp_path: Path) -> None:
    """Of a campaign whose one report is empty by the counts: no page came, and it is begun."""
    layout = Layout(tmp_path)
    fill(layout)
    with closing(sqlite3.connect(layout.database)) as db, db:
        db.execute(
            "UPDATE walks SET state = 'complete' WHERE campaign_id = '4' AND report = 'clicks'"
        )
    with closing(CheckpointStore(layout.database)) as store:
        store.run = 1
        assert store.counts() == {"complete": 1, "failed": 1, "partial": 2}
    assert read_content(layout).campaigns == States(complete=1, failed=1, partial=2)


def test_campaigns_are_counted_by_their_worst_walk(tmp_path: Path) -> None:
    """With two reports a campaign is complete when both are."""
    layout = Layout(tmp_path)
    fill(layout)
    with closing(sqlite3.connect(layout.database)) as db, db:
        only = "campaign_id = '3' AND report = 'opens'"
        db.execute(f"UPDATE walks SET state = 'complete' WHERE {only}")
    assert read_content(layout).campaigns == States(complete=1, failed=1, partial=1, pending=1)
    assert read_content(layout).campaigns.total == 4


def test_what_a_run_would_find(tmp_path: Path) -> None:
    """Complete and refused walks cost nothing, the others are gone on with or begun; ids that were
    never heard of are new; a top-up walks what is complete once more."""
    layout, opens = Layout(tmp_path), ("opens",)
    new = classify(layout, ["1", "2"], opens, for_good="not_found")
    assert new == Forecast(States(pending=2), walks=2)
    fill(layout)
    ids = ["1", "2", "3", "4", "5"]
    found = classify(layout, ids, opens, for_good="not_found")
    assert found == Forecast(States(complete=1, failed=1, partial=1, pending=2), walks=3)
    again = classify(layout, ids, opens, for_good=None)
    assert again == Forecast(States(complete=1, failed=0, partial=1, pending=3), walks=4)
    topped = classify(layout, ids, opens, for_good="not_found", top_up=True)
    assert topped == Forecast(found.states, walks=4)


def test_a_file_that_only_lacks_its_name_costs_no_request(tmp_path: Path) -> None:
    """Its last page came before the kill; it is partial until the next run has named it."""
    layout = Layout(tmp_path)
    fill(layout)
    with closing(sqlite3.connect(layout.database)) as db, db:
        db.execute("UPDATE walks SET state = 'finishing', pages = 1 WHERE report = 'opens'")
    for top_up in (False, True):
        found = classify(layout, ["1", "3"], ("opens",), for_good=None, top_up=top_up)
        assert found == Forecast(States(partial=2), walks=0)


def test_with_several_reports_walks_and_campaigns_are_counted_apart(tmp_path: Path) -> None:
    """A campaign that is complete in one report and not begun in another is partial: one walk."""
    layout = Layout(tmp_path)
    fill(layout)
    found = classify(layout, ["1", "3", "4"], ("opens", "sends"), for_good=None)
    assert found == Forecast(States(complete=0, partial=2, pending=1), walks=1 + 2 + 2)


async def test_a_top_up_that_was_interrupted_is_partial(tmp_path: Path) -> None:
    """Its finished file is still there."""
    layout = Layout(tmp_path)
    layout.state.mkdir()
    with closing(CheckpointStore(layout.database)) as store:
        store.begin_run(IDENTITY)
        saved = store.take(Target("opens", "1"))
        assert saved is not None
        store.begin_top_up(replace(saved, position=Position(None, 2, 9, 90)))
    assert read_content(layout).campaigns == States(partial=1)


STATES = st.sampled_from(["new", "partial", "finishing", "complete", "failed", None])
KINDS = st.sampled_from(["not_found", "rejected"])
WALKS = st.lists(
    st.tuples(STATES, STATES, KINDS, st.integers(0, 2), st.booleans()), min_size=1, max_size=6
)


@given(WALKS, st.booleans())
def test_plan_and_status_agree(campaigns: list[Any], top_up: bool) -> None:
    """Whatever the state, each campaign is the same for a run, for status and for plan: only what
    failed and is tried again counts as partial or new in a plan."""
    with TemporaryDirectory() as folder:
        layout = Layout(Path(folder))
        fill(layout)
        asked = set()
        with closing(sqlite3.connect(layout.database)) as db, db:
            db.execute("DELETE FROM walks")
            for number, (opens, clicks, kind, pages, grows) in enumerate(campaigns):
                for report, state in (("opens", opens), ("clicks", clicks)):
                    if state is None:
                        state = "new"
                    done = state == "complete"
                    db.execute(
                        "INSERT INTO walks (report, campaign_id, run, state, kind, pages, "
                        "base_pages) VALUES (?, ?, 1, ?, ?, ?, ?)",
                        (
                            *(report, str(number), state),
                            kind if state == "failed" else None,
                            pages + done,
                            1 if grows and not done else None,
                        ),
                    )
                    asked.add(str(number))
        status = read_content(layout).campaigns
        plan = classify(layout, sorted(asked), ("opens", "clicks"), for_good=None, top_up=top_up)
        assert plan.states.total == status.total == len(campaigns)
        assert plan.states.complete == status.complete
        assert plan.states.failed == 0
        assert plan.states.partial >= status.partial
        assert plan.states.pending >= status.pending
        refused = classify(layout, sorted(asked), ("opens", "clicks"), for_good="not_found")
        assert refused.states.failed <= status.failed
        with closing(CheckpointStore(layout.database)) as store:
            store.run = 1
            counts = store.counts()
        assert States(**counts) == status


def test_what_a_directory_holds(tmp_path: Path) -> None:
    """Rows and bytes of every file, those of a file that grows too, and failures by kind."""
    layout = Layout(tmp_path)
    fill(layout)
    with closing(sqlite3.connect(layout.database)) as db, db:
        db.execute("UPDATE walks SET rows = 5, bytes = 70")
        db.execute("UPDATE walks SET base_rows = 3, base_bytes = 30, base_pages = 1 WHERE id = 1")
    found = read_content(layout)
    assert (found.rows, found.bytes) == (8 * 5 + 3, 8 * 70 + 30)
    assert found.failed == {"not_found": 2}


@pytest.mark.parametrize(
    "name",
    [
        "plain",
        "a b",
        "a#b",
        "a?b",
        "a%20b",
        "\u00e9",
        "'",
        "a;b",
        "a&mode=rw",
        os.fsdecode(b"\xff"),
    ],
)
def test_any_name_of_a_directory_will_do(tmp_path: Path, name: str) -> None:
    """Names that mean something in a URI, and names that are no UTF-8."""
    layout = Layout(tmp_path / name)
    fill(layout)
    assert read_content(layout).campaigns.total == 4


def test_a_directory_without_state_holds_no_harvest(tmp_path: Path) -> None:
    """And none is made by asking."""
    for ask in (read_content, lambda layout: list(verify(layout))):
        with pytest.raises(ConfigError, match="holds no harvest"):
            ask(Layout(tmp_path / "nowhere"))
    assert not (tmp_path / "nowhere").exists()


def test_a_state_that_cannot_be_read_is_a_config_error(tmp_path: Path) -> None:
    """Not a bug."""
    layout = Layout(tmp_path)
    layout.state.mkdir()
    layout.database.write_bytes(b"no database" * 100)
    with pytest.raises(ConfigError, match=r"cannot read .*state.sqlite: .*`fresh`"):
        read_content(layout)


def test_looking_changes_nothing(tmp_path: Path) -> None:
    """Not even the files beside the database."""
    layout = Layout(tmp_path)
    fill(layout)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    read_content(layout)
    classify(layout, ["1"], ["opens"], for_good=None)
    check_directory(layout, IDENTITY, known_reports=("opens",))
    after = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert {path: after.get(path) for path in before} == before


def test_other_settings_and_strangers_are_refused(tmp_path: Path) -> None:
    """As a run would."""
    layout = Layout(tmp_path)
    check_directory(layout, IDENTITY, known_reports=("opens",))
    finished(tmp_path)
    with pytest.raises(ConfigError, match="no state"):
        check_directory(layout, IDENTITY, known_reports=("opens",))
    fill(layout)
    check_directory(layout, IDENTITY, known_reports=("opens",))
    with pytest.raises(ConfigError, match="`compress` was 'not given' and is 'gzip'"):
        check_directory(layout, {**IDENTITY, "compress": "gzip"}, known_reports=("opens",))


# -- the last run --------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [None, b"", b"{", b"[]", b"7"])
def test_a_summary_that_is_none_is_none(tmp_path: Path, content: bytes | None) -> None:
    """Absent, torn, or something else."""
    if content is not None:
        (tmp_path / "summary.json").write_bytes(content)
    assert read_summary(Layout(tmp_path)) is None


def test_the_holder_is_named_while_it_holds(tmp_path: Path) -> None:
    """By process and time; afterwards there is none."""
    layout = Layout(tmp_path)
    assert holder(layout) is None
    layout.state.mkdir()
    with locked(layout, now=Clock().now()):
        assert "process " in (holder(layout) or "")
    assert holder(layout) is None


def test_a_run_on_another_machine_is_seen_as_long_as_it_shows_signs_of_life(
    tmp_path: Path,
) -> None:
    """Its lock may not reach this machine; its record does."""
    layout = Layout(tmp_path)
    layout.state.mkdir()
    layout.lock.write_bytes(b"process 7, since just now, on elsewhere, boot another\n")
    assert holder(layout) == "process 7, since just now, on elsewhere"
    os.utime(layout.lock, (0, 0))
    assert holder(layout) is None


# -- verify --------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_a_file_as_the_manifest_says_is_no_finding(tmp_path: Path, suffix: str) -> None:
    """Rows are counted in what is inside."""
    finished(tmp_path, suffix)
    assert list(verify(Layout(tmp_path, suffix))) == []


def _remove(path: Path) -> None:
    path.unlink()


def _link(path: Path) -> None:
    path.rename(path.with_suffix(".elsewhere"))
    path.symlink_to(path.with_suffix(".elsewhere"))


def _change(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"1", b"7"))


def _join(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"\n", b" ", 1))


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])


@pytest.mark.parametrize(
    ("harm", "problems"),
    [
        (_remove, {"is missing"}),
        (_link, {"is missing"}),
        (_change, {"sha256"}),
        (_join, {"sha256", "rows"}),
        (_cut, {"bytes", "sha256", "rows"}),
    ],
)
def test_every_difference_is_named(
    tmp_path: Path, harm: Callable[[Path], None], problems: set[str]
) -> None:
    """What is different, what it is, and what it should be."""
    harm(finished(tmp_path))
    found = list(verify(Layout(tmp_path)))
    assert {finding.file for finding in found} == {"opens/1.ndjson"}
    assert {finding.what.partition(":")[0] for finding in found} == problems


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_a_damaged_compressed_file_is_a_finding(tmp_path: Path, suffix: str) -> None:
    """Not a crash."""
    _cut(finished(tmp_path, suffix))
    problems = [finding.what for finding in verify(Layout(tmp_path, suffix))]
    assert any(problem.startswith("rows: None instead of 2") for problem in problems)


def test_the_last_line_of_a_file_counts(tmp_path: Path) -> None:
    """A file that was topped up has an older line too."""
    path = finished(tmp_path, content=b'{"n":1}\n')
    finished(tmp_path)
    assert list(verify(Layout(tmp_path))) == []
    assert path.read_bytes().count(b"\n") == 2


@pytest.mark.parametrize("line", ["{", "[]", "7", '{"file":"opens/1.ndjson"}', '{"file":7}', ""])
def test_a_line_that_cannot_be_read_is_a_finding(tmp_path: Path, line: str) -> None:
    """With its number; the others are still checked."""
    finished(tmp_path)
    with (tmp_path / "manifest.ndjson").open("a") as file:
        file.write(line + "\n")
    assert list(verify(Layout(tmp_path))) == [Finding("manifest.ndjson", "line 2 cannot be read")]


def test_a_finished_file_without_a_line_is_a_finding(tmp_path: Path) -> None:
    """Unfinished ones are none."""
    finished(tmp_path)
    (tmp_path / "opens/2.ndjson").write_bytes(b"")
    (tmp_path / "opens/3.ndjson.part").write_bytes(b"{")
    (tmp_path / "clicks").mkdir()
    (tmp_path / "clicks/2.ndjson.gz").write_bytes(b"")
    (tmp_path / "clicks/3.ndjson.zst").write_bytes(b"")
    assert set(verify(Layout(tmp_path))) == {
        Finding("opens/2.ndjson", "is not in the manifest"),
        Finding("clicks/2.ndjson.gz", "is not in the manifest"),
        Finding("clicks/3.ndjson.zst", "is not in the manifest"),
    }


def test_a_campaign_that_is_complete_and_not_named_is_a_finding(tmp_path: Path) -> None:
    """The state knows better than a manifest that lost a line."""
    layout = Layout(tmp_path)
    fill(layout)
    finished(tmp_path)
    found = {finding for finding in verify(layout) if "no line" in finding.what}
    assert found == {
        Finding("clicks/1.ndjson", "is complete, but has no line in the manifest"),
    }


def test_an_open_directory_is_found_by_verify(tmp_path: Path) -> None:
    """A run that has only begun has a manifest, and nothing is wrong with it."""
    layout = Layout(tmp_path)
    with open_directory(
        layout,
        IDENTITY,
        reports=("opens",),
        known_reports=("opens",),
        fresh=False,
        provenance=False,
        tops_up=False,
        durable=True,
        now=Clock().now(),
        removing=lambda files, size: None,
    ):
        assert list(verify(layout)) == []


def test_a_run_that_ended_before_its_state_was_made_left_no_harvest(tmp_path: Path) -> None:
    """`status` and `verify` say so; it is not a state that cannot be read."""
    layout = Layout(tmp_path)
    layout.state.mkdir()
    layout.database.touch()  # SQLite's file before its first commit
    with pytest.raises(ConfigError, match="holds no harvest"):
        read_content(layout)
    assert list(verify(layout)) == [Finding("manifest.ndjson", "is missing")]
