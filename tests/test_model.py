"""The nouns: frozen values and the little arithmetic they have."""

import pytest

from harvester.model import Page, Position, Target


def test_a_target_reads_like_its_file() -> None:
    """A target prints as report/campaign."""
    assert str(Target("opens", "7")) == "opens/7"


def test_nouns_are_frozen() -> None:
    """No layer changes a value that another one holds."""
    with pytest.raises(AttributeError, match="immutable"):
        Target("opens", "7").report = "clicks"  # type: ignore[misc]


def test_records_are_python_objects_with_exact_integers() -> None:
    """A page's records are what a JSON reader finds; a 30-digit integer stays one."""
    big = 123456789012345678901234567890
    assert Page(b'{"a":%d}\n{"b":"\xe2\x80\xa8"}\n' % big, 2, None).records() == [
        {"a": big},
        {"b": "\u2028"},
    ]


def test_an_empty_page_has_no_records() -> None:
    """No rows, no lines."""
    assert Page(b"", 0, None).records() == []


@pytest.mark.parametrize(
    ("position", "finished"),
    [(Position(), False), (Position("x", 1), False), (Position(None, 1), True)],
)
def test_finished_is_not_the_same_as_not_begun(position: Position, finished: bool) -> None:
    """Without a next link a walk is over only once it has had a page."""
    assert position.finished is finished


def test_a_position_moves_by_a_page() -> None:
    """After a page: its link, one page more, its rows more, and the file's new length."""
    assert Position("a", 1, 10, 100).after(Page(b"", 3, "b"), 130) == Position("b", 2, 13, 130)
