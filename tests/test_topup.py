"""What a top-up adds: boundaries, multiplicities, overlaps, cursors that forget."""

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harvester.campaign.growth import (
    FilterForgotten,
    HighWaterMark,
    RowsGone,
    additions,
    marks_of,
    merged,
    news,
    pages,
)
from harvester.campaign.rows import Row, RowReader

READ = RowReader("open_date")


def row(second: int, who: str = "a") -> bytes:
    """An event at a second of a minute."""
    return b'{"who":"%s","open_date":"2026-01-01T00:00:%02d.000Z"}' % (who.encode(), second)


def at(second: int) -> datetime:
    """That second."""
    return datetime(2026, 1, 1, 0, 0, second, tzinfo=UTC)


def added(stored: Sequence[bytes], *each: Sequence[bytes]) -> list[bytes]:
    """What these pages add to what is stored."""
    return list(additions([list(page) for page in each], mark_of(stored), READ))


def mark_of(lines: Sequence[bytes]) -> HighWaterMark:
    """Where these rows end in time."""
    return marks_of(lines, READ).get("", HighWaterMark())


def test_the_boundary_is_the_latest_moment_and_its_rows() -> None:
    """In whatever order the rows stand, each as often as it does."""
    lines = [row(3), row(5, "b"), row(5, "b"), row(1), row(5, "c")]
    for order in (lines, lines[::-1]):
        found = mark_of([line + b"\n" for line in order])
        assert found.latest == at(5)
        assert found.rows == {READ(row(5, "b")): 2, READ(row(5, "c")): 1}


def test_an_empty_file_has_no_boundary() -> None:
    """Then everything is new."""
    found = mark_of([])
    assert (found.latest, found.left()) == (None, Counter())
    assert added([], [row(2), row(1)]) == [row(2), row(1)]


def test_rows_at_the_boundary_are_dropped_as_often_as_they_are_stored() -> None:
    """Two equal events in one millisecond are two."""
    assert added([row(5)], [row(6), row(5)]) == [row(6)]
    assert added([row(5)], [row(6), row(5), row(5)]) == [row(6), row(5)]
    assert added([row(5), row(5)], [row(5)], [row(5), row(5)]) == [row(5)]
    assert added([row(5, "a")], [row(5, "b"), row(5, "a")]) == [row(5, "b")]


def test_older_rows_are_dropped() -> None:
    """A cursor that forgot `created_since` brings what is stored long ago."""
    assert added([row(5), row(4)], [row(6), row(5)], [row(4), row(3)]) == [row(6)]


def test_a_list_that_runs_oldest_first_tells_when_the_filter_is_forgotten() -> None:
    """Page one is filtered and the pages after it are not: its rows would come once more, after old
    ones, or at once where there are few old ones."""
    many = [row(second) for second in range(1, 9)]
    with pytest.raises(FilterForgotten):
        added(many[:3], many[2:5], many[1:4], many[4:7], many[7:])
    with pytest.raises(FilterForgotten):
        added(many[:3], many[2:6], many[4:8])
    assert added(many[:3], many[2:5], many[5:8]) == many[3:]


def test_twins_on_two_pages_are_both_new() -> None:
    """Equal rows on either side of a page's end are two events."""
    assert added([row(5)], [row(8), row(7)], [row(7), row(6)]) == [
        row(8),
        row(7),
        row(7),
        row(6),
    ]


@pytest.mark.parametrize("date", [b"null", b'""', b'"yesterday"', b"5", b'"\\ud800"'])
def test_rows_without_a_date_are_compared_whole(date: bytes) -> None:
    """All that can be done with them is to count them."""
    undated = b'{"who":"x","open_date":%s}' % date
    assert added([row(5), undated], [undated, row(6), undated]) == [row(6), undated]


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        (b'"2026-01-01T00:00:05.000Z"', at(5)),
        (b'"2026-01-01T01:00:05+01:00"', at(5)),
        (b'"2026-01-01T00:00:05"', at(5)),
        (b'"2026-01-01"', at(0)),
        (b"7", None),
        (b"null", None),
    ],
)
def test_moments_are_aware_or_none(text: bytes, moment: datetime | None) -> None:
    """A date without a zone is taken for UTC, as the API means it."""
    assert READ.moment(b'{"open_date":%s,"other":1}' % text) == moment
    assert RowReader("click_date").moment(b'{"open_date":%s}' % text) is None


def test_pages_are_cut_by_their_counts() -> None:
    """As they came, the empty ones too; line ends are taken off."""
    lines = iter([b"1\n", b"2\n", b"3\n"])
    assert list(pages(lines, [2, 0, 1])) == [[b"1", b"2"], [], [b"3"]]


@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from("ab")), max_size=25), st.data())
def test_a_top_up_is_the_difference(events: list[tuple[int, str]], data: st.DataObject) -> None:
    """What is stored and what is added are all events, as a multiset, wherever the cut was and
    however the pages fall."""
    ordered = [row(*event) for event in sorted(events)]
    cut = data.draw(st.integers(0, len(ordered)))
    stored, latest = ordered[:cut], mark_of(ordered[:cut]).latest
    asked = [each for each in ordered if latest is None or (READ.moment(each) or latest) >= latest]
    asked.reverse()
    limit = data.draw(st.integers(1, 6))
    each = [asked[start : start + limit] for start in range(0, len(asked), limit)]
    assert Counter(stored) + Counter(added(stored, *each)) == Counter(ordered)


def test_a_mark_can_be_filled_by_hand() -> None:
    """Rows one by one, dated or not."""
    found, rows = HighWaterMark(), [Row(None, "", (b"x",)), *map(READ, (row(1), row(0)))]
    for each in rows:
        found.add(each)
    assert found.left() == {rows[0]: 1, rows[1]: 1}


# -- activities --------------------------------------------------------------------------------


def open_of(activity: str, second: int, contact: int = 1) -> bytes:
    """An open of an activity; the identity of a row is without what may change."""
    return (
        b'{"contact_id":"%d","campaign_activity_id":"%s","open_date":"2026-01-01T00:00:%02dZ"}'
        % (contact, activity.encode(), second)
    )


def grown(stored: list[bytes], came: list[bytes], order: Sequence[str]) -> list[bytes]:
    """The rows of the file after a top-up."""
    marks = marks_of(stored, READ)
    return list(merged(news(came, marks, READ, order), stored, READ))


def test_new_rows_stand_before_the_stored_ones_of_their_activity() -> None:
    """Each activity newest first, in the campaign's order, a new activity in its place."""
    stored = [open_of("a", 5), open_of("a", 4), open_of("c", 3)]
    came = [open_of("a", 6), open_of("a", 5), open_of("b", 9), open_of("c", 7), open_of("c", 3)]
    assert grown(stored, came, ["a", "b", "c"]) == [
        *(open_of("a", second) for second in (6, 5, 4)),
        open_of("b", 9),
        open_of("c", 7),
        open_of("c", 3),
    ]


def test_a_row_that_the_api_changed_since_is_the_stored_one() -> None:
    """A contact was deleted: the row is known all the same, and stays as it was harvested."""
    stored = [open_of("a", 5)]
    came = [open_of("a", 6), stored[0][:-1] + b',"deleted_at":"2026-02-01"}']
    assert grown(stored, came, ["a"]) == [came[0], stored[0]]


@pytest.mark.parametrize(
    ("came", "order"),
    [([], "a"), ([open_of("a", 6)], "a"), ([open_of("a", 5)], "a"), ([open_of("b", 5)], "b")],
)
def test_stored_rows_that_do_not_come_are_gone(came: list[bytes], order: str) -> None:
    """None of them, one of two equal ones, or their whole activity: the walk is the new truth."""
    with pytest.raises(RowsGone):
        grown([open_of("a", 5), open_of("a", 5)], came, [order])
