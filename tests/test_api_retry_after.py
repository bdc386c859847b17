"""Retry-After: both its forms, and none so absurd that it does harm."""

import math
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harvester.api.errors import seconds_to_wait

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
TWO_MINUTES_ON = [
    "Sun, 01 Mar 2026 12:02:00 GMT",  # the form to be sent
    "Sunday, 01-Mar-26 12:02:00 GMT",  # RFC 850, obsolete
    "Sun Mar  1 12:02:00 2026",  # asctime, obsolete
]


@pytest.mark.parametrize(
    ("value", "wait"),
    [
        ("0", 0.0),
        ("1", 1.0),
        (" 120 ", 120.0),
        ("007", 7.0),
        ("999999999", 999_999_999.0),
        ("1000000000", 1e9),
        ("9" * 5_000, 1e10),  # however long: it is no shorter wait than others
        *[(date, 120.0) for date in TWO_MINUTES_ON],
        ("Sun, 01 Mar 2026 12:02:00 -0000", 120.0),
        ("Sun, 01 Mar 2026 14:02:00 +0200", 120.0),
        ("Sun, 01 Mar 2026 11:00:00 GMT", 0.0),  # the past is now
        ("Mon, 01 Jan 0001 00:00:00 GMT", 0.0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 251_629_934_399.0),
    ],
)
def test_what_can_be_meant_is_understood(value: str, wait: float) -> None:
    """Seconds and the three HTTP dates; a date that has passed asks for no wait."""
    assert seconds_to_wait([value], date=None, now=NOW) == wait


@pytest.mark.parametrize(
    "value",
    [
        "",
        " ",
        "-1",
        "+1",
        "1.5",
        "nan",
        "inf",
        "-inf",
        "Infinity",
        "1e400",
        "1e3",
        "1_0",
        "0x10",
        "\u0663",
        "\uff11\uff10",
        "Sun, 01 Mar 2026 25:00:00 GMT",
        "Sun, 32 Mar 2026 12:00:00 GMT",
        "Fri, 31 Dec 9999 23:59:59 -2359",
        "soon",
        "120, 240",
        "120 seconds",
        "tomorrow GMT",
        "\x00",
    ],
)
def test_what_cannot_be_meant_is_nothing(value: str) -> None:
    """Numbers that only a lenient parser takes, impossible dates and words ask for no wait."""
    assert seconds_to_wait([value], date=None, now=NOW) is None


@pytest.mark.parametrize(
    ("values", "wait"),
    [
        ([], None),
        (["1", "2"], 2.0),
        (["2", "1"], 2.0),
        (["nan", "3"], 3.0),
        (["soon", "later"], None),
        (["5", TWO_MINUTES_ON[0]], 120.0),
    ],
)
def test_of_two_headers_the_longer_wait_counts(values: list[str], wait: float | None) -> None:
    """Every value of the header is looked at; one that is no wait changes nothing."""
    assert seconds_to_wait(values, date=None, now=NOW) == wait


@pytest.mark.parametrize(
    ("date", "wait"),
    [
        ("Sun, 01 Mar 2026 12:01:00 GMT", 60.0),
        ("Sun, 01 Mar 2026 11:02:00 GMT", 3_600.0),
        ("Sun, 01 Mar 2026 13:00:00 GMT", 0.0),
        ("not a date", 120.0),
        ("", 120.0),
    ],
)
def test_a_date_is_compared_with_the_servers_own(date: str, wait: float) -> None:
    """The answer's Date stands for the server's clock; without a usable one ours has to do."""
    assert seconds_to_wait([TWO_MINUTES_ON[0]], date=date, now=NOW) == wait


@given(st.lists(st.text(max_size=40), max_size=3), st.none() | st.text(max_size=40))
def test_no_text_is_too_odd(values: list[str], date: str | None) -> None:
    """Any header gives None or a finite number of seconds, 0 or more."""
    wait = seconds_to_wait(values, date=date, now=NOW)
    assert wait is None or (math.isfinite(wait) and wait >= 0)


WORDS = ["Sun", "Mar", "GMT", "2026", "12:00:00", "99", "-2400", "+9999", ":", ",", "1", "0", "AM"]


@given(st.lists(st.sampled_from(WORDS), max_size=9).map(" ".join))
def test_no_near_date_is_too_odd(value: str) -> None:
    """Nor does anything that looks almost like a date."""
    wait = seconds_to_wait([value], date=value, now=NOW)
    assert wait is None or (math.isfinite(wait) and wait >= 0)
