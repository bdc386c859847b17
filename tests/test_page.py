"""`harvester report`: what the page says, and that nothing in a directory can make it say more."""

import errno
import fcntl
import io
import json
import os
import re
import sys
from collections import Counter
from contextlib import closing
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from io import StringIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pagelab import NOW, Html, Made, opened, run

from harvester import HarvestConfig, harvest
from harvester.cli import main
from harvester.disk import finished
from harvester.disk.inspect import States
from harvester.errors import ConfigError
from harvester.reporting.page.days import requests_by_day
from harvester.reporting.page.figures import FailureKind, Figures
from harvester.reporting.page.gather import open_directory
from harvester.reporting.page.periods import periods
from harvester.reporting.page.sources import Run
from harvester.reporting.page.verdict import Verdict, run_command, verdict
from harvester.reporting.page.words import plain
from harvester.reporting.summary import Quota, Requests
from harvester.sandbox import Sandbox, SandboxSettings

MOST_BYTES = 200_000
SPENT = {"limit": 10, "used_today": 10, "resets_at": "2026-11-28T00:00:00.000Z"}
EVENTS_OF = {
    "opens": "open_date",
    "clicks": "click_date",
    "sends": "send_date",
    "bounces": "bounce_date",
    "forwards": "forward_date",
    "unsubscribes": "unsubscribe_date",
}
HOSTILE = "</code><script>alert(1)</script><img src=x onerror=alert(1)>\"'`{{7*7}}\u202e\x00&amp;"


@pytest.fixture
def made(root: Path) -> Made:
    """An empty directory of a harvest."""
    return Made(root / "out")


def check(page: Html) -> Html:
    """What holds of every page: well formed, closed to the outside, bounded, and accessible."""
    assert page.faults == []
    assert page.source.startswith("<!doctype html>")
    assert len(page.source.encode()) < MOST_BYTES
    tags = [tag for tag, _ in page.elements]
    assert not {"script", "iframe", "object", "embed", "form", "base", "link", "img"} & set(tags)
    policy = [meta["content"] for meta in page.all("meta") if "http-equiv" in meta]
    assert policy == ["default-src 'none'; style-src 'unsafe-inline'"]
    for tag, attributes in page.elements:
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            if name in {"href", "src", "xlink:href", "action", "style"}:
                assert re.fullmatch(r"#[a-z-]+", value), (tag, name, value)
    assert not re.search(r"@import|url\((?!#)", page.style)
    # -- landmarks, names, tables
    assert [tags.count(tag) for tag in ("h1", "header", "main", "footer", "nav")] == [1] * 5
    assert page.all("html") == [{"lang": "en"}]
    levels = [int(tag[1]) for tag in tags if re.fullmatch("h[1-6]", tag)]
    assert all(after - before <= 1 for before, after in pairwise(levels))
    assert set(page.ids.values()) == {1}
    for _, attributes in page.elements:
        for name in ("aria-labelledby", "href"):
            if name in attributes:
                assert attributes[name].lstrip("#") in page.ids
    assert all(each.get("scope") for each in page.all("th"))
    assert tags.count("caption") == tags.count("table")
    for rect in page.all("rect"):
        x, width, height = (float(rect.get(name, "0%")[:-1]) for name in ("x", "width", "height"))
        assert 0 <= x < x + width <= 100.01
        assert 0 < height <= 100
    for svg in page.all("svg"):
        assert svg.get("aria-hidden") == "true" or (svg["role"] == "img" and svg["aria-label"])
    return page


# -- the events ------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["", ".gz", ".zst"])
@pytest.mark.parametrize(("report", "field"), EVENTS_OF.items())
def test_events_are_dated_by_the_field_of_their_report(
    made: Made, report: str, field: str, ending: str
) -> None:
    """In v2 each report has its own field, in v3 all have one; compressed files are read, too."""
    v2 = [{field: f"2026-03-0{day}T23:59:59.999Z", "contact_id": "5"} for day in (1, 1, 2)]
    v3 = [{"created_time": f"2026-03-{day}T10:00:00.000Z"} for day in range(10, 35) if day < 32]
    made.finish(report, "1", v2, ending=ending)
    made.finish(report, "2", v3, ending=ending)
    (found,) = made.figures().reports
    assert (found.files, found.rows, found.undated) == (2, 25, 0)
    assert found.days[date(2026, 3, 1)] == 2
    assert found.first == datetime(2026, 3, 1, 23, 59, 59, 999_000, UTC)
    assert found.last == datetime(2026, 3, 31, 10, tzinfo=UTC)
    assert sum(found.days.values()) == 25
    check(made.page())


def test_a_date_belongs_to_its_utc_day(made: Made) -> None:
    """An offset is taken into account."""
    dates = ["2026-03-01T23:30:00-05:00", "2026-03-01T23:30:00-0500", "2026-03-01T10:00:00Z"]
    made.finish("opens", "1", [opened(each) for each in dates])
    (found,) = made.figures().reports
    assert found.days == {date(2026, 3, 2): 2, date(2026, 3, 1): 1}
    assert found.last == datetime(2026, 3, 2, 4, 30, tzinfo=UTC)
    assert "2026-03-02 04:30" in check(made.page()).text


@pytest.mark.parametrize(
    "row",
    [
        b"{}",
        b"[]",
        b"not JSON",
        b'{"open_date": ',
        b"[" * 5_000 + b"]" * 5_000,
        {"open_date": None},
        {"open_date": 20260301},
        {"open_date": ["2026-03-01T10:00:00.000Z"]},
        {"open_date": "yesterday"},
        {"open_date": "2026-03-01"},
        {"open_date": "2026-03-01T10:00:00"},
        {"open_date": "2026-02-30T10:00:00.000Z"},
        {"open_date": "0001-01-01T00:00:00+14:00"},
        {"open_date": "9999-12-31T23:59:59.999Z"},
        {"open_date": "1994-12-31T23:59:59.999Z"},
    ],
)
def test_a_row_without_a_readable_date_is_counted_as_undated(made: Made, row: Any) -> None:
    """Also one that cannot be true; rows beside it keep their dates."""
    made.finish("opens", "1", [opened("2026-03-01T10:00:00.000Z"), row])
    (found,) = made.figures().reports
    assert (found.rows, found.undated) == (2, 1)
    assert found.days == {date(2026, 3, 1): 1}
    assert "1 row has no date that can be read" in check(made.page()).text


def test_a_row_with_a_lone_surrogate_has_its_date(made: Made) -> None:
    """The API sends them now and then; strict readers of JSON refuse the row."""
    row = b'{"open_date":"2026-03-01T10:00:00.000Z","email_address":"\\ud800"}'
    made.finish("opens", "1", [row, opened("2026-03-01T10:00:00.000Z")])
    (found,) = made.figures().reports
    assert found.days == {date(2026, 3, 1): 2}


SECONDS = st.integers(0, 30 * 365 * 86_400)
"""After the beginning of 1996."""


@given(st.lists(st.tuples(SECONDS, st.sampled_from(["milli", "second", "offset"]))))
def test_every_event_is_counted_once_whatever_the_form_of_its_date(
    tmp_path_factory: pytest.TempPathFactory, events: list[tuple[int, str]]
) -> None:
    """No row is lost, and none is counted for another day."""
    forms = {
        "milli": lambda at: f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03}Z",
        "second": lambda at: f"{at:%Y-%m-%dT%H:%M:%SZ}",
        "offset": lambda at: (at - timedelta(hours=5)).strftime("%Y-%m-%dT%H:%M:%S-05:00"),
    }
    made = Made(tmp_path_factory.mktemp("out"))
    epoch = datetime(1996, 1, 1, tzinfo=UTC)
    moments = [(epoch + timedelta(seconds=seconds), form) for seconds, form in events]
    made.finish("opens", "1", [opened(forms[form](at)) for at, form in moments])
    (found,) = made.figures().reports
    assert found.days == Counter(at.date() for at, _ in moments)
    assert found.undated == 0


def test_links_are_no_events(made: Made) -> None:
    """Their rows have no date, and that is as it should be."""
    made.finish("links", "1", [{"url": "https://example.com", "url_uid": "1"}])
    page = check(made.page())
    assert "no date" not in page.text
    assert "Events over time" not in page.text


def test_the_file_that_grew_is_counted_once(made: Made) -> None:
    """The last line of the manifest that names it is the one that counts."""
    made.finish("opens", "1", [opened("2026-03-01T10:00:00.000Z")])
    made.finish("opens", "1", [opened("2026-03-01T10:00:00.000Z")] * 3)
    figures = made.figures()
    assert (figures.files, figures.rows, figures.differing) == (1, 3, 0)


# -- files against the manifest --------------------------------------------------------------------


def flip(path: Path) -> None:
    """Change one byte."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def cut(path: Path) -> None:
    """Take the end away."""
    path.write_bytes(path.read_bytes()[:-7])


def link(path: Path) -> None:
    """Put a link to another file in its place."""
    other = path.with_name("elsewhere")
    path.rename(other)
    path.symlink_to(other)


@pytest.mark.parametrize("ending", ["", ".gz", ".zst"])
@pytest.mark.parametrize("damage", [flip, cut, link, Path.unlink])
def test_a_file_that_differs_from_the_manifest_is_named(
    made: Made, damage: Any, ending: str
) -> None:
    """The page is made all the same, says which file it is, and to repair it."""
    rows = [opened("2026-03-01T10:00:00.000Z")] * 25
    damage(made.finish("opens", "1", rows, ending=ending))
    made.finish("opens", "2", rows, ending=ending)
    page = check(made.page())
    assert f"1 of 2 files differ from the manifest: opens/1.ndjson{ending}" in page.text
    assert "--repair" in page.text


def test_files_that_agree_are_said_to_agree(made: Made) -> None:
    """They were all read."""
    made.finish("opens", "1", [opened("2026-03-01T10:00:00.000Z")])
    assert "1 file was read when this page was made: rows, bytes and sha256 agree" in (
        check(made.page()).text
    )


def test_the_page_shows_the_last_verify(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    """When it was, how much it read and what differed; a record that is damaged is none."""
    path = made.finish("opens", "1", [opened("2026-03-01T10:00:00.000Z")])
    state = made.root / ".harvester"
    state.mkdir()
    assert "Last verify none that is recorded" in check(made.page()).text
    assert main(["verify", str(made.root)]) == 0
    assert "UTC: 1 file checked, no difference" in check(made.page()).text
    flip(path)
    assert main(["verify", str(made.root), "--json"]) == 3
    assert "1 file checked, 1 difference: opens/1.ndjson: sha256: " in check(made.page()).text
    record = state / "verified.json"
    record.write_bytes(record.read_bytes() + b"}")
    assert "Last verify none that is recorded" in check(made.page()).text
    assert [each.name for each in state.iterdir()] == ["verified.json"]
    assert capsys.readouterr().err == f"1 file checked in {made.root}: no difference\n"


def test_verify_adds_nothing_to_data_without_a_state(made: Made) -> None:
    """An archive of the files alone stays as it is."""
    made.finish("opens", "1", [opened("2026-03-01T10:00:00.000Z")])
    before = sorted(made.root.rglob("*"))
    assert main(["verify", str(made.root)]) == 0
    assert sorted(made.root.rglob("*")) == before


@pytest.mark.parametrize(
    "name",
    [
        "../secret.ndjson",
        "/etc/passwd",
        "opens/../../secret.ndjson",
        "opens/a/b.ndjson",
        "opens/1.ndjson\n",
        ".harvester/x.ndjson",
        "clicks/1.ndjson",
        "opens/1.txt",
        "",
    ],
)
def test_a_manifest_leads_to_no_file_outside(made: Made, name: str) -> None:
    """Such a line is not one of ours: counted, and not followed."""
    secret = made.root.parent / "secret.ndjson"
    secret.write_text('{"open_date":"2026-03-01T10:00:00.000Z"}\n')
    made.finish("opens", "7", [])
    made.finish("opens", "8", [], file=name)
    figures = made.figures()
    assert (figures.files, figures.rows) == (1, 0)
    assert figures.broken_lines == {"manifest.ndjson": 1}


@pytest.mark.parametrize(
    ("name", "code", "said"),
    [("opens/1.ndjson", 0, "the page is"), ("retries.ndjson", 1, "retries.ndjson: Input/output")],
)
def test_a_disk_that_fails_is_no_bug(
    made: Made,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
    code: int,
    said: str,
) -> None:
    """One finished file is a finding, a report file ends the command with the file's name."""
    made.finish("opens", "1", [opened("2026-03-01T10:00:00.000Z")])
    made.add("retries.ndjson", {"cause": "reset"})
    real = io.open

    def refuse(path: Any, *arguments: Any, **more: Any) -> Any:
        if path == made.root / name:
            raise OSError(errno.EIO, "Input/output error", str(path))
        return real(path, *arguments, **more)

    class Refused(finished._Metered):
        def read(self, size: int | None = -1, /) -> bytes:
            return b"" if name != "opens/1.ndjson" else refuse(made.root / name)

    monkeypatch.setattr(io, "open", refuse)
    monkeypatch.setattr(finished, "_Metered", Refused)
    assert main(["report", str(made.root)]) == code
    assert said in capsys.readouterr().err
    if code == 0:
        text = check(Html((made.root / "report.html").read_text())).text
        assert "opens/1.ndjson cannot be read: Input/output error" in text


# -- hostile, broken, large ------------------------------------------------------------------------


def test_nothing_in_a_directory_becomes_markup(made: Made) -> None:
    """Hostile text in every field of every file is shown as text, or not at all."""
    made.finish("opens", "1", [opened(HOSTILE), opened("2026-03-01T10:00:00.000Z")])
    made.add(
        "manifest.ndjson",
        {
            **json.loads((made.root / "manifest.ndjson").read_text()),
            "campaign_id": HOSTILE,
            "run_id": f"20261127T100000Z-{HOSTILE}",
            "reconciled": False,
            "summary": {HOSTILE: 3, "opens": 4},
        },
    )
    made.add("runs.ndjson", run(HOSTILE, reason=HOSTILE, message=HOSTILE, exit_code=9))
    made.add(
        "errors.ndjson",
        {"kind": HOSTILE, "report": HOSTILE, "campaign_id": HOSTILE, "message": HOSTILE},
        {"kind": "not_found", "report": "opens", "campaign_id": "../../x", "message": HOSTILE},
    )
    made.add("retries.ndjson", {"cause": HOSTILE, "wait_s": 1.5, "run_id": HOSTILE})
    page = check(made.page())
    assert "<script" not in page.source
    assert "<script>alert(1)</script>" in page.text
    assert "{{7*7}}" in page.text
    assert "\u202e" not in page.source
    assert "\x00" not in page.source


def test_the_directorys_own_name_is_text_as_well(root: Path) -> None:
    """It stands in the title, in a sentence, and quoted in a command."""
    made = Made(root / "<b>x & 'y'")
    made.add("runs.ndjson", run())
    page = check(made.page())
    assert "<b>x & 'y'" in page.text
    assert page.all("b") == []


def test_the_name_of_a_directory_may_hold_any_byte(root: Path) -> None:
    """One that is no UTF-8 is shown as it is on a terminal."""
    made = Made(root / os.fsdecode(b"out\xff"))
    made.add("runs.ndjson", run())
    assert "out\\udcff" in check(made.page()).text


def test_no_address_and_no_contact_is_shown(made: Made) -> None:
    """Not from the rows, and not from the API's messages."""
    contact = "1d3a7b5e-0c1f-4a52-9a6b-0123456789ab"
    made.finish("opens", "1100394165287", [opened("2026-03-01T10:00:00.000Z")], reconciled=False)
    made.add(
        "errors.ndjson",
        {
            "kind": "rejected",
            "campaign_id": "1100394165299",
            "report": "opens",
            "message": f"no <jane.doe@example.com> ({contact}, 4711471147) in 1100394165299",
        },
        {"kind": "rejected", "campaign_id": "bob@example.org", "message": "no"},
    )
    text = check(made.page()).source
    assert "@" not in text.replace("@media", "").replace("@import", "")
    assert contact not in text
    assert "4711471147" not in text
    assert "contact-51" not in text
    assert "in 1100394165299" in text


def test_lines_that_cannot_be_read_are_stepped_over_and_counted(made: Made) -> None:
    """In every report file, at every place."""
    made.finish("opens", "1", [opened("2026-03-01T10:00:00.000Z")])
    broken = [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"kind": 5}', b'{"a":1}' * 3, b"[" * 9999]
    names = ("manifest.ndjson", "runs.ndjson", "errors.ndjson", "retries.ndjson")
    for name in names:
        made.add(name, *broken)
    made.add("runs.ndjson", run(), run("b", requests={"sent": -5}), run("c", elapsed_s=1e300))
    made.add("errors.ndjson", {"kind": "not_found"})
    made.add("retries.ndjson", {"cause": "reset", "wait_s": 2})
    with (made.root / "errors.ndjson").open("ab") as file:
        file.write(b'{"kind": "cut off in the mi')
    figures = made.figures()
    assert len(figures.runs) == 1
    assert [(each.kind, each.lines) for each in figures.failures] == [("not_found", 1)]
    assert [(each.cause, each.count) for each in figures.causes] == [("reset", 1)]
    assert figures.broken_lines == {
        "manifest.ndjson": 7,
        "runs.ndjson": 9,
        "errors.ndjson": 8,
        "retries.ndjson": 7,
    }
    assert "Unreadable lines" in check(made.page()).text


def test_a_large_harvest_makes_a_small_page(made: Made) -> None:
    """100,000 campaigns, many runs, many kinds of failure: the page is bounded."""
    with (made.root / "manifest.ndjson").open("w") as manifest:
        for number in range(100_000):
            name = f"opens/{number}.ndjson"
            entry = {"report": "opens", "campaign_id": str(number), "file": name, "rows": 9}
            line = {**entry, "pages": 1, "bytes": 900, "sha256": "0" * 64, "reconciled": False}
            manifest.write(json.dumps(line) + "\n")
    for number in range(12):
        days = [date(2026, 1, 1) + timedelta(days=each % 100) for each in range(200)]
        dates = [{"created_time": f"{day}T10:00:00.000Z"} for day in days]
        made.finish("abcdefghijkl"[number] * 40, "x" * 60, dates, reconciled=False)
    made.add(
        "runs.ndjson",
        *(
            run(
                f"{number:05}",
                reason="&" * 1_000,
                started_at=f"2026-{number // 28 % 11 + 1:02}-{number % 28 + 1:02}T09:00:00Z",
                finished_at=f"2026-{number // 28 % 11 + 1:02}-{number % 28 + 1:02}T10:00:00Z",
            )
            for number in range(900)
        ),
    )
    failed = [
        {"kind": f"{'&' * 100}{kind}", "campaign_id": f"{'&' * 99}{each}", "message": "&" * 1_999}
        for kind in range(100)
        for each in range(100)
    ]
    made.add("errors.ndjson", *failed)
    made.add("retries.ndjson", *({"cause": f"{'&' * 99}{number}"} for number in range(300)))
    page = check(made.page())
    assert "100,0" in page.text


# -- days and runs ---------------------------------------------------------------------------------


def ran(start: datetime, end: datetime, sent: int, used: int, limit: int = 10_000) -> Run:
    """A run with its requests."""
    return Run(
        run_id=f"{start:%Y%m%dT%H%M%SZ}-x",
        started_at=start,
        finished_at=end,
        requests=Requests(sent=sent),
        quota=Quota(limit=limit, used_today=used, resets_at=end),
    )


def at(day: int, hour: int = 0, minute: int = 0) -> datetime:
    """A moment in November."""
    return datetime(2026, 11, day, hour, minute, tzinfo=UTC)


def test_requests_belong_to_the_day_of_their_run() -> None:
    """Two runs of a day are one bar; what others used with the key stands beside them."""
    first, second = ran(at(3, 8), at(3, 9), 100, 120), ran(at(3, 10), at(3, 11), 50, 200)
    (day,) = requests_by_day([first, second])
    assert (day.sent, day.others, day.limit, day.about) == (150, 50, 10_000, False)


def test_a_run_over_midnight_is_divided_by_what_the_key_had_used() -> None:
    """At its end the key had used 300 on the new day: no more of the run belong there."""
    days = requests_by_day([ran(at(3, 23), at(4, 1), 1_000, 300)])
    assert [(each.day.day, each.sent, each.about) for each in days] == [
        (3, 700, True),
        (4, 300, True),
    ]


def test_a_run_of_many_days_is_divided_evenly_before_its_last() -> None:
    """Without a quota by time alone."""
    days = requests_by_day([ran(at(3, 12), at(6, 12), 25_000, 5_000)])
    assert [each.sent for each in days] == [6_666, 6_667, 6_667, 5_000]
    days = requests_by_day([ran(at(3, 12), at(4, 12), 1_000, 0, limit=0)])
    assert [each.sent for each in days] == [500, 500]


HOURS = st.integers(0, 24 * 20)


@given(st.lists(st.tuples(HOURS, HOURS, st.integers(0, 50_000), st.integers(0, 10_000))))
def test_no_request_is_lost_or_made_up_between_days(runs: list[tuple[int, int, int, int]]) -> None:
    """Whatever runs there were: the days add up to them."""
    found = [
        ran(at(1) + timedelta(hours=start), at(1) + timedelta(hours=start + took), sent, used)
        for start, took, sent, used in runs
    ]
    days = requests_by_day(found)
    assert sum(each.sent for each in days) == sum(each.requests.sent for each in found)
    assert all(each.sent >= 0 and each.others >= 0 for each in days)
    assert [each.day for each in days] == sorted({each.day for each in days})


def test_the_runs_are_shown_with_why_they_ended(made: Made) -> None:
    """Newest first."""
    made.add("runs.ndjson", run("20261125T100000Z-a", reason="quota_spent", exit_code=75))
    later = {"started_at": "2026-11-27T08:00:00Z", "message": "stopped by SIGTERM"}
    made.add("runs.ndjson", run("20261127T080000Z-b", exit_code=143, **later))
    text = check(made.page()).text
    assert text.count("0.1 %") == 2  # of the day's quota
    assert text.index("stopped by SIGTERM") < text.index("quota spent")
    assert "2026-11-27 08:00" in text


def test_a_run_that_left_no_figures_was_cut_off(made: Made) -> None:
    """A file of it is there, its summary is not."""
    made.add("runs.ndjson", run("20261126T100000Z-000001"))
    made.finish("opens", "1", [], run_id="20261127T090000Z-killed")
    assert "The last run was cut off" in check(made.page()).text


def test_of_two_runs_in_one_second_none_was_cut_off(made: Made) -> None:
    """Their ids sort by chance."""
    made.add("runs.ndjson", run("20261126T100000Z-b"), run("20261126T100000Z-a"))
    made.finish("opens", "1", [], run_id="20261126T100000Z-b")
    assert "cut off" not in check(made.page()).text


# -- failures, repeats, counts ---------------------------------------------------------------------


def test_failures_are_shown_by_kind_with_what_to_do(made: Made) -> None:
    """Each kind with its latest examples; the message is the API's."""
    for number in range(5):
        made.add(
            "errors.ndjson",
            {"kind": "not_found", "campaign_id": f"10{number}", "report": "opens", "status": 404},
            {"kind": "new_kind", "campaign_id": f"20{number}", "message": "the API's own words"},
        )
    text = check(made.page()).text
    assert "5 failures in all runs. The API does not know this campaign." in text
    assert "--retry-failed" in text
    assert "104 opens: HTTP 404" in text
    assert "100" not in re.findall(r"\b10\d\b", text)
    assert "204 : the API's own words" in text


def test_a_failure_that_a_later_run_got_past_is_no_example(made: Made) -> None:
    """Its finished file is there."""
    for campaign_id in ("1", "2"):
        made.add("errors.ndjson", {"kind": "reset", "campaign_id": campaign_id, "report": "opens"})
    made.finish("opens", "1", [], ending=".gz")
    (failure,) = made.figures().failures
    assert [each.campaign_id for each in failure.examples] == ["2"]


def test_repeats_are_shown_with_the_time_they_cost(made: Made) -> None:
    """By cause, the most frequent first."""
    made.add("retries.ndjson", *({"cause": "throttled", "wait_s": 30.0} for _ in range(4)))
    made.add("retries.ndjson", {"cause": "reset", "wait_s": 0.5})
    figures = made.figures()
    assert [(each.cause, each.count, each.wait_s, each.longest_s) for each in figures.causes] == [
        ("throttled", 4, 120.0, 30.0),
        ("reset", 1, 0.5, 0.5),
    ]
    assert "throttled 4 0:02:00 30.0 s" in check(made.page()).text


def test_counts_of_the_api_are_held_beside_ours(made: Made) -> None:
    """Only files that have a count are compared."""
    row = opened("2026-03-01T10:00:00.000Z")
    more = {"summary": {"opens": 3, "clicks": 0}, "distinct_contacts": 1}
    made.finish("opens", "11", [row, row], reconciled=False, **more)
    made.finish("opens", "12", [row], reconciled=True, **more)
    made.finish("opens", "13", [row], reconciled=None)
    text = check(made.page()).text
    assert "opens 2 1 1" in text
    assert "11 opens: the API counts 3, the file has 1 contacts in 2 rows" in text


# -- the verdict -----------------------------------------------------------------------------------


def ended(reason: str, **more: Any) -> Run:
    """A run that ended so."""
    quota = Quota(10_000, 10, NOW)
    return Run(run_id="r", started_at=NOW, finished_at=NOW, quota=quota, reason=reason, **more)


def standing(**more: Any) -> Verdict:
    """The verdict on a harvest that is complete, but for what is said."""
    facts: dict[str, Any] = {
        "directory": "out",
        "made_at": NOW,
        "settings": {"report": "opens"},
        "campaigns": States(complete=5),
        "runs": [ended("complete")],
    }
    return verdict(Figures(**{**facts, **more}))


def failed(*kinds: str) -> dict[str, Any]:
    """One of five campaigns failed, of each of these kinds."""
    failures = [FailureKind(kind=kind, now=1) for kind in kinds]
    return {"campaigns": States(complete=4, failed=1), "failures": failures}


OPEN = States(complete=2, partial=1, pending=2)


@pytest.mark.parametrize(
    ("more", "headline", "command"),
    [
        ({}, "Complete", "harvester run -i IDS -o out --since last"),
        ({"under_way": True}, "A run is under way", "harvester status out"),
        ({"killed": True, "campaigns": OPEN}, "The last run was cut off", None),
        ({"runs": [], "campaigns": OPEN}, "The last run was cut off", None),
        ({"campaigns": OPEN}, "Stopped before the end", "harvester run -i IDS -o out"),
        ({"campaigns": States()}, "Nothing is harvested yet", None),
        ({"differing": 2}, "Finished files differ from the manifest", None),
        (
            failed("not_found"),
            "Over, with 1 failed campaign",
            "harvester run -i IDS -o out --retry-failed",
        ),
        (
            failed("rejected", "forbidden"),
            "Over, with 1 failed campaign",
            "harvester run -i IDS -o out",
        ),
        (
            failed("not_found", "reset"),
            "Over, with 1 failed campaign",
            "harvester run -i IDS -o out",
        ),
        (failed(), "Over, with 1 failed campaign", "harvester run -i IDS -o out"),
        *(
            (
                {"campaigns": OPEN, "runs": [ended(reason)]},
                "The key or token was refused",
                "harvester check",
            )
            for reason in ("credentials_refused", "sign_in_refused")
        ),
    ],
)
def test_the_verdict_and_the_next_command(
    more: dict[str, Any], headline: str, command: str | None
) -> None:
    """One sentence and one step, by the facts."""
    found = standing(**more)
    assert found.headline == headline
    assert found.sentence.endswith(".")
    if command is not None:
        assert found.command == command


def test_a_stopped_run_says_why_and_when_it_goes_on() -> None:
    """A moment that has passed is not given."""
    tomorrow = NOW + timedelta(hours=12)
    spent = ended("quota_spent", message="the day is spent", resume_at=tomorrow)
    found = standing(campaigns=OPEN, runs=[spent])
    assert found.sentence.endswith("The last run was ended by: the day is spent.")
    assert found.not_before == tomorrow
    past = standing(campaigns=OPEN, runs=[ended("sick_server", resume_at=NOW)])
    assert past.sentence.endswith(": sick server.")
    assert past.not_before is None


def test_the_command_has_the_options_that_are_not_the_usual_ones() -> None:
    """Quoted for a shell."""
    settings = {
        "api": "v3",
        "report": ",".join(EVENTS_OF),
        "base_url": "https://api.cc.email",
        "page_size": "100",
        "compress": "zstd",
        "since": "",
        "run": "4",
    }
    assert run_command("my harvest", settings) == (
        "harvester run -i IDS -o 'my harvest' --report all --api v3 --page-size 100 --compress zstd"
    )


def test_long_text_is_cut_and_ids_are_taken_out() -> None:
    """The campaign's own id stays."""
    assert len(plain("x" * 10_000)) == 160
    assert plain("of 123456789 and 12345678", keep="123456789") == "of 123456789 and [id]"


def stopped(made: Made, **more: Any) -> None:
    """One of ten campaigns is there, of three pages; then the day's quota was spent."""
    made.finish("opens", "1", [opened("2026-03-01T10:00:00.000Z")] * 30)
    counts = {"total": 10, "complete": 1, "failed": 1, "partial": 0, "pending": 8}
    made.add("runs.ndjson", run(campaigns=counts, **more))


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        # 24 requests are left, at 10 requests in 60 s.
        ({}, NOW + timedelta(seconds=144)),
        ({"resume_at": "2026-11-28T00:00:00Z"}, at(28, 0, 2) + timedelta(seconds=24)),
        ({"quota": SPENT}, at(29, 0, 0) + timedelta(seconds=24)),
        (
            {"quota": SPENT, "finished_at": "2026-11-27T11:00:00Z"},
            at(30, 0, 0) + timedelta(seconds=24),
        ),
    ],
)
def test_the_rest_is_done_by_the_pace_and_the_quota_of_the_last_run(
    made: Made, more: dict[str, Any], expected: datetime
) -> None:
    """What the key used on an earlier day counts no more."""
    stopped(made, **more)
    estimate = made.figures().estimate
    assert estimate is not None
    assert (estimate.requests, estimate.done_about) == (24, expected)
    assert "about 24 requests left" in check(made.page()).text


def test_before_a_run_has_ended_the_number_of_campaigns_is_not_known(made: Made) -> None:
    """Those that were begun are counted."""
    made.finish("opens", "1", [])
    assert "campaigns that were begun" in check(made.page()).text


# -- the pictures ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "last", "unit", "count"),
    [
        (date(2026, 1, 1), date(2026, 1, 1), "day", 1),
        (date(2026, 1, 1), date(2026, 4, 10), "day", 100),
        (date(2026, 1, 1), date(2026, 4, 11), "month", 4),
        (date(2026, 1, 31), date(2026, 12, 1), "month", 12),
        (date(2018, 9, 1), date(2026, 12, 31), "month", 100),
        (date(1995, 12, 31), date(2026, 1, 1), "year", 32),
    ],
)
def test_the_steps_of_time_are_as_fine_as_can_be_shown(
    first: date, last: date, unit: str, count: int
) -> None:
    """Days, months or years, without a gap."""
    found = periods(first, last)
    assert (found.unit, len(found.labels)) == (unit, count)


@given(st.dictionaries(st.dates(date(1995, 1, 1), date(2030, 1, 1)), st.integers(1, 10**9)))
def test_no_event_is_lost_between_the_steps(days: dict[date, int]) -> None:
    """Each day falls into one step."""
    if days:
        found = periods(min(days), max(days)).sums(days)
        assert sum(found) == sum(days.values())


def test_each_step_with_events_has_a_column(made: Made) -> None:
    """As high as its share of the most; one row among a thousand can be seen."""
    for day, count in (("01", 1000), ("02", 500), ("04", 1)):
        made.finish("opens", day, [opened(f"2026-03-{day}T10:00:00.000Z")] * count)
    columns = [each for each in check(made.page()).all("rect") if "class" not in each]
    assert [each["height"] for each in columns] == ["100.0%", "50.0%", "1.5%"]
    assert [float(each["x"][:-1]) // 25 for each in columns] == [0, 1, 3]


# -- contrast --------------------------------------------------------------------------------------


def luminance(colour: str) -> float:
    """Relative luminance, as WCAG 2 has it."""
    digits = colour.lstrip("#")
    digits = "".join(2 * each for each in digits) if len(digits) == 3 else digits
    parts = [int(digits[place : place + 2], 16) / 255 for place in (0, 2, 4)]
    linear = [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    """The ratio of two colours."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_text_can_be_read_in_both_schemes_and_on_paper(made: Made) -> None:
    """WCAG AA: 4.5 for text, 3 for what a picture is made of."""
    schemes = re.findall(r":root\s*{([^}]*--page[^}]*)}", made.page().style)
    assert len(schemes) == 3
    for scheme in schemes:
        colour = dict(re.findall(r"--(\w+):\s*(#\w+)", scheme))
        for text in ("ink", "muted", "accent"):
            for ground in ("page", "soft"):
                assert contrast(colour[text], colour[ground]) >= 4.5, (text, ground, scheme)
        assert contrast(colour["accent"], colour["pale"]) >= 3


# -- real harvests ---------------------------------------------------------------------------------


@pytest.fixture
def sandbox_config(root: Path) -> HarvestConfig:
    """A harvest of the sandbox, without its address."""
    return HarvestConfig(
        output=root / "out",
        state_dir=root / "state",
        page_size=5,
        rate=0,
        api_key="sandbox-key",
        access_token="sandbox-token",
        base_url="http://127.0.0.1:9",
    )


async def harvested(config: HarvestConfig, *more: str, **changes: Any) -> Path:
    """Harvest a small account."""
    settings = SandboxSettings(campaigns=4, pages=8, rows_per_page=5)
    async with Sandbox(settings) as sandbox:
        config = replace(config, base_url=sandbox.base_url, **changes)
        await harvest([*sandbox.world.campaign_ids, *more], config)
    return config.directory


def page_of(directory: Path) -> Html:
    """The page that the command makes."""
    assert main(["report", str(directory)]) == 0
    return check(Html((directory / "report.html").read_text()))


async def test_the_page_of_a_complete_harvest(sandbox_config: HarvestConfig) -> None:
    """Everything that a run leaves is understood."""
    page = page_of(await harvested(sandbox_config, report="all"))
    assert "All 4 campaigns are harvested" in page.text
    assert "Unreadable lines" not in page.text
    assert "has no date" not in page.text
    assert "agree with the manifest" in page.text
    assert "complete (exit" in page.text


async def test_the_page_of_a_harvest_with_failures(sandbox_config: HarvestConfig) -> None:
    """The state says how many stand."""
    page = page_of(await harvested(sandbox_config, "999"))
    assert "Over, with 1 failed campaign" in page.text
    assert "1 failed now" in page.text
    assert "--retry-failed" in page.text


async def test_the_page_of_a_harvest_that_was_stopped(sandbox_config: HarvestConfig) -> None:
    """It says why, how much is left, and when that can be done."""
    page = page_of(await harvested(sandbox_config, max_requests=5))
    assert "Stopped before the end" in page.text
    assert "as many requests as `max_requests` allows are sent" in page.text
    assert "Done about" in page.text


async def test_the_page_while_a_run_is_under_way(sandbox_config: HarvestConfig) -> None:
    """It says so, and changes nothing."""
    directory = await harvested(sandbox_config)
    lock = directory / ".harvester" / "lock"
    with lock.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        page = page_of(directory)
    assert "A run is under way" in page.text


async def test_the_page_of_a_harvest_whose_state_is_gone(sandbox_config: HarvestConfig) -> None:
    """An archive of the data alone has its page, too; a damaged state is said to be that."""
    directory = await harvested(sandbox_config)
    database = directory / ".harvester" / "state.sqlite"
    database.write_bytes(b"no database")
    assert "missing or damaged" in page_of(directory).text
    database.unlink()
    assert "missing or damaged" in page_of(directory).text


def test_the_page_of_a_harvest_that_did_nothing(made: Made) -> None:
    """An empty manifest is a harvest."""
    page = check(made.page())
    assert "Nothing is harvested yet" in page.text
    assert "No file is finished yet." in page.text


# -- the command -----------------------------------------------------------------------------------


def run_report(capture: pytest.CaptureFixture[str], *argv: object) -> tuple[int, str]:
    """The exit code of the command and what it says on standard error."""
    code = main(["report", *map(str, argv)])
    return code, capture.readouterr().err


def test_a_directory_without_a_harvest_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2, and nothing is written."""
    for directory in (tmp_path, tmp_path / "none"):
        code, said = run_report(capsys, directory)
        assert (code, "holds no harvest" in said) == (2, True)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ConfigError):
        open_directory(tmp_path)


def test_the_page_goes_to_standard_output_alone(
    made: Made, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    """With `-o -`; no file is made."""
    before = sorted(made.root.iterdir())
    assert main(["report", str(made.root), "-o", "-"]) == 0
    said = capsysbinary.readouterr()
    check(Html(said.out.decode()))
    assert said.err == b""
    assert sorted(made.root.iterdir()) == before


def test_the_page_takes_the_place_of_the_older_one_in_one_step(
    made: Made, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where that fails, the older one stands, and nothing is left over."""
    page = made.root / "report.html"
    page.write_text("older")

    def full(number: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        code, said = run_report(capsys, made.root)
    assert (code, "No space left" in said) == (1, True)
    assert page.read_text() == "older"
    assert sorted(path.name for path in made.root.iterdir()) == ["manifest.ndjson", "report.html"]
    before = page.stat().st_ino
    assert run_report(capsys, made.root)[0] == 0
    assert page.stat().st_ino != before
    check(Html(page.read_text()))


def test_a_terminal_shows_how_far_it_is(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bar of the bytes; a pipe gets the last line alone."""

    class Terminal(StringIO):
        def isatty(self) -> bool:
            return True

    made.finish("opens", "1", [opened("2026-03-01T10:00:00.000Z")] * 100)
    monkeypatch.setenv("TERM", "xterm")
    for stream, shown in ((Terminal(), True), (StringIO(), False)):
        monkeypatch.setattr(sys, "stderr", stream)
        assert main(["report", str(made.root)]) == 0
        assert ("reading the files" in stream.getvalue()) is shown
        assert stream.getvalue().endswith(f"the page is {made.root}/report.html\n")


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("out/manifest.ndjson", "must end in .html"),
        ("out/opens/1.ndjson", "there is no directory"),
        ("out", "is a directory"),
        ("none/page.html", "there is no directory"),
        (" ", "is empty"),
    ],
)
def test_a_place_that_is_not_for_the_page_is_refused(
    made: Made,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    why: str,
) -> None:
    """Above all the harvest's own files."""
    monkeypatch.chdir(made.root.parent)
    code, said = run_report(capsys, "out", "-o", name)
    assert code == 2
    assert why in said
    assert (made.root / "manifest.ndjson").read_bytes() == b""


def test_the_page_goes_through_a_link_and_into_a_device(
    made: Made, capsys: pytest.CaptureFixture[str]
) -> None:
    """A link stays one; what is no file is not replaced by one."""
    link, target = made.root.parent / "link.html", made.root.parent / "target.html"
    target.touch()
    link.symlink_to(target)
    assert run_report(capsys, made.root, "-o", link)[0] == 0
    assert link.is_symlink()
    check(Html(target.read_text()))
    pipe = made.root.parent / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    fcntl.fcntl(reader, 1031, 1 << 20)  # F_SETPIPE_SZ: the whole page fits
    with closing(os.fdopen(reader, "rb")) as file:
        assert run_report(capsys, made.root, "-o", pipe)[0] == 0
        check(Html(file.read().decode()))
    assert pipe.is_fifo()


@pytest.mark.parametrize(
    ("reports", "options"),
    [
        ("", ""),
        ("opens", ""),
        ("opens,clicks", " --report opens,clicks"),
        ("sends,opens,clicks,bounces,forwards,unsubscribes,links", " --report all --links"),
    ],
)
def test_the_next_command_is_of_all_reports_that_are_there(reports: str, options: str) -> None:
    """A top-up of the opens alone would leave the others as they are."""
    command = run_command("out", {"report": reports})
    assert command == f"harvester run -i IDS -o out{options}"
