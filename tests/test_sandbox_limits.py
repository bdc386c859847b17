"""The judges of pace and quota, by hand-made clocks."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harvester.sandbox.limits import (
    FixedWindows,
    Gate,
    Judge,
    LeakyBucket,
    Refused,
    SlidingLog,
    Verdict,
    judge_of,
)

DAY = 86_400.0


def test_sliding_log_admits_no_more_than_its_limit_in_any_second() -> None:
    """The fifth arrival within a second is refused, wherever the second starts."""
    judge = SlidingLog(4)
    assert [judge.admit(0.9 + i / 100) for i in range(5)] == [True] * 4 + [False]
    assert not judge.admit(1.8)
    assert judge.admit(1.9)


@given(st.lists(st.floats(0, 10), max_size=80).map(sorted))
def test_sliding_log_holds_for_any_arrivals(arrivals: list[float]) -> None:
    """However they come: never more than the limit admitted in any window of one second."""
    judge = SlidingLog(4)
    admitted = [now for now in arrivals if judge.admit(now)]
    for first, fifth in zip(admitted, admitted[4:], strict=False):
        assert fifth - first > 1.0 - 1e-8


def test_fixed_windows_let_two_bursts_meet_at_the_border() -> None:
    """Each second of the clock is counted for itself."""
    judge = FixedWindows(4)
    assert all(judge.admit(0.99) for _ in range(4))
    assert not judge.admit(0.999)
    assert all(judge.admit(1.0) for _ in range(4))
    assert not judge.admit(1.5)


def test_bucket_drains_at_its_rate() -> None:
    """A bucket of two takes a burst of two, and then one arrival every quarter of a second."""
    judge = LeakyBucket(rate=4, capacity=2)
    assert [judge.admit(10.0) for _ in range(3)] == [True, True, False]
    assert not judge.admit(10.2)
    assert judge.admit(10.25)
    assert not judge.admit(10.25)


def test_bucket_of_one_admits_the_exactly_punctual() -> None:
    """A client exactly on its beat is never refused through rounding."""
    judge = LeakyBucket(rate=10, capacity=1)
    assert all(judge.admit(i * 0.1) for i in range(10_000))


@pytest.mark.parametrize("judge", [SlidingLog(1), FixedWindows(1), LeakyBucket(1, 1)])
def test_refused_arrivals_count_only_where_asked(
    judge: SlidingLog | FixedWindows | LeakyBucket,
) -> None:
    """By default a refused request does not count."""
    assert judge.admit(5.0)
    assert not judge.admit(5.9)
    assert judge.admit(6.0)


def test_charged_refusals_keep_a_hammering_client_out() -> None:
    """Where refusals count too, a client that keeps knocking stays refused."""
    judge = SlidingLog(1)
    assert judge.admit(0.0, charge_refused=True)
    assert not any(judge.admit(i / 2, charge_refused=True) for i in range(1, 20))


def test_settings_choose_the_judge() -> None:
    """Each kind by its name; no rate means no limit."""
    assert isinstance(judge_of("sliding", 4, 0), SlidingLog)
    assert isinstance(judge_of("window", 4, 0), FixedWindows)
    assert type(judge_of("sliding", 0, 0)) is Judge
    bucket = judge_of("bucket", 4, 0)
    assert [bucket.admit(0.0) for _ in range(5)] == [True] * 4 + [False]


def test_quota_ends_with_the_utc_day() -> None:
    """Two a day: the third is refused until midnight, and a clock set back finds a fresh count."""
    gate = Gate(Judge(), 2)
    late = [gate.admit(0.0, DAY - left) for left in (3, 2, 1)]
    assert late == [Verdict.ADMITTED, Verdict.ADMITTED, Verdict.OVER_DAY]
    assert gate.used(DAY - 1) == 2
    assert gate.admit(0.0, DAY) is Verdict.ADMITTED
    assert gate.used(DAY) == 1


def test_no_quota_still_counts() -> None:
    """Zero is no quota, yet the day's requests are known."""
    gate = Gate(Judge())
    assert {gate.admit(0.0, DAY) for _ in range(100)} == {Verdict.ADMITTED}
    assert gate.used(DAY) == 100


@pytest.mark.parametrize(("refused", "used"), [("day", 3), ("both", 3), ("neither", 2)])
def test_gate_charges_refusals_to_the_day_as_told(refused: Refused, used: int) -> None:
    """A request refused for its pace costs a request of the day, unless it is told otherwise."""
    gate = Gate(SlidingLog(2), 10, refused)
    verdicts = [gate.admit(0.0, DAY) for _ in range(3)]
    assert verdicts == [Verdict.ADMITTED, Verdict.ADMITTED, Verdict.OVER_RATE]
    assert gate.used(DAY) == used


def test_gate_names_the_spent_day_first() -> None:
    """When both are exceeded the day is what counts, and it is charged no further."""
    gate = Gate(SlidingLog(1), 1)
    assert gate.admit(0.0, DAY) is Verdict.ADMITTED
    assert gate.admit(0.0, DAY) is Verdict.OVER_DAY
    assert gate.used(DAY) == 1
