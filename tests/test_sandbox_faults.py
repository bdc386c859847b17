"""The fault plan: what goes wrong is decided by seed and place, and heals as promised."""

import math
from typing import Any, Literal

import pytest

from harvester.sandbox.answers import Answer, Body, document
from harvester.sandbox.faults import KINDS, FaultPlan, Faults, check_kind, status_of
from harvester.sandbox.settings import SandboxSettings
from harvester.sandbox.spoil import spoiled

PLACES = [("opens", str(1100394165287 + i), page) for i in range(100) for page in range(1, 21)]
PAGE = Answer(200, Body(b'{"meta":{"pagination":{}},"results":[{"a":"\\"results\\":["}]}'))


def test_rates_are_met() -> None:
    """Of two thousand requests, about the asked share is hit by each kind."""
    plan = FaultPlan(1, {"error500": 0.1, "reset": 0.05})
    kinds = [plan.at(place, 1) for place in PLACES]
    assert 150 < kinds.count("error500") < 250
    assert 60 < kinds.count("reset") < 140
    assert set(kinds) == {"error500", "reset", None}


def test_equal_seeds_make_equal_faults() -> None:
    """The same seed hits the same places; another seed hits others."""
    one, same, other = (FaultPlan(seed, {"html": 0.2}) for seed in (1, 1, 2))
    assert [one.at(p, 1) for p in PLACES] == [same.at(p, 1) for p in PLACES]
    assert [one.at(p, 1) for p in PLACES] != [other.at(p, 1) for p in PLACES]


def test_faults_heal() -> None:
    """A place fails at most as often as it is allowed to, then answers well for ever."""
    faults = Faults(FaultPlan(1, {"error500": 1.0}, heal_after=2))
    assert [faults.next(PLACES[0]) for _ in range(4)] == ["error500", "error500", None, None]


def test_healing_can_be_ruled_out() -> None:
    """Without healing every attempt is drawn anew: at rate 1 the server is all errors."""
    faults = Faults(FaultPlan(1, {"error500": 1.0}, heal_after=None))
    assert {faults.next(PLACES[0]) for _ in range(50)} == {"error500"}


def test_pinned_kinds_come_in_order() -> None:
    """A sequence is for successive attempts at its page; `ok` answers well; then all is well."""
    place = ("opens", "7", 3)
    faults = Faults(FaultPlan(pinned={("7", 3): ["reset", "ok", "html"]}))
    assert [faults.next(place) for _ in range(5)] == ["reset", None, "html", None, None]
    assert faults.next(("opens", "7", 2)) is None


def test_pinned_campaign_fails_for_good() -> None:
    """One kind instead of a sequence never ends, on any page of the campaign."""
    faults = Faults(FaultPlan(pinned={("7", None): "error503"}))
    assert {faults.next(("opens", "7", page)) for page in (1, 2, 2, 2)} == {"error503"}
    assert faults.next(("opens", "8", 1)) is None


def test_the_more_exact_pin_wins() -> None:
    """Campaign and page before campaign before page before anything; rates do not count there."""
    plan = FaultPlan(
        rates={"stall": 1.0},
        pinned={("7", 2): "ok", ("7", None): "cut", (None, 2): "slow"},
    )
    assert plan.at(("opens", "7", 2), 1) is None
    assert plan.at(("opens", "7", 3), 1) == "cut"
    assert plan.at(("opens", "8", 2), 1) == "slow"
    assert plan.at(("opens", "8", 1), 1) == "stall"


def test_first_pages_have_no_cursor_to_drop() -> None:
    """A dropped cursor hits later pages only, also when pinned to the whole campaign."""
    plan = FaultPlan(pinned={("7", None): "cursor_dropped"})
    assert plan.at(("opens", "7", 1), 1) is None
    assert plan.at(("opens", "7", 2), 1) == "cursor_dropped"


def test_memory_is_for_faulty_places_only() -> None:
    """Counting attempts costs nothing for requests that go well."""
    faults = Faults(FaultPlan(1, {"error500": 0.01}))
    hit = sum(faults.next(place) is not None for place in PLACES)
    assert len(faults._attempts) == hit


@pytest.mark.parametrize("kind", ["", "error", "error200", "error600", "sneeze"])
def test_unknown_kinds_are_refused(kind: str) -> None:
    """A misspelt kind is an error at once, with the accepted ones named."""
    with pytest.raises(ValueError, match="error500"):
        check_kind(kind)
    with pytest.raises(ValueError, match="error500"):
        SandboxSettings(faults={kind: 0.1})
    with pytest.raises(ValueError, match="error500"):
        SandboxSettings(pinned={("7", 1): [kind]})


@pytest.mark.parametrize(
    "rates", [{"reset": -0.1}, {"reset": 0.6, "cut": 0.6}, {"reset": math.nan}]
)
def test_impossible_rates_are_refused(rates: dict[str, float]) -> None:
    """Rates are probabilities that exclude each other."""
    with pytest.raises(ValueError, match="probabilities"):
        FaultPlan(1, rates)


@pytest.mark.parametrize(
    "wrong", [{"limit_kind": "vibes"}, {"last_page": "none"}, {"cursor": "x"}, {"refused": "all"}]
)
def test_unknown_choices_are_refused(wrong: dict[str, Any]) -> None:
    """A setting that is none of its choices is an error that names them."""
    with pytest.raises(ValueError, match=next(iter(wrong))):
        SandboxSettings(**wrong)


@pytest.mark.parametrize("number", [-1, -0.5, math.nan, math.inf])
@pytest.mark.parametrize("name", ["latency", "jitter", "rate_limit", "quota", "heal_after"])
def test_numbers_below_nothing_are_refused(name: str, number: float) -> None:
    """Nor can a wait or a limit be endless, or no number; the error names the setting."""
    with pytest.raises(ValueError, match=name.replace("_", "-")):
        SandboxSettings(**{name: number})


def test_any_error_status_may_be_asked_for() -> None:
    """error408 is as good as error500."""
    assert status_of("error408") == 408
    assert status_of("reset") is None


@pytest.mark.parametrize(
    ("kind", "status", "piece"),
    [
        ("error500", 500, b'[{"error_key":"http.status.500"'),
        ("error408", 408, b"error_message"),
        ("throttle", 403, b"mashery.not.authorized.over.qps"),
        ("throttle429", 429, b"Too Many Requests"),
        ("quota", 403, b"mashery.not.authorized.over.ratelimit"),
        ("auth", 401, b"http.status.authentication.invalid_token"),
        ("cursor_dropped", 400, b"http.status.bad_request"),
        ("html", 200, b"<!DOCTYPE html>"),
        ("empty", 200, b""),
        ("loop", 200, b'"next_link":"/v2/x?next=abc"}},"results":[{"a":"\\"results\\":["}]}'),
        ("foreign_link", 200, b'"next_link":"http://foreign.invalid/v2/x?next=abc"'),
        ("redirect", 302, b""),
    ],
)
def test_fault_makes_its_answer(kind: str, status: int, piece: bytes) -> None:
    """Each kind that is an answer of its own says what the table of kinds says."""
    answer = spoiled(PAGE, kind, "/v2/x?next=abc", SandboxSettings())
    assert answer.status == status
    assert piece in answer.body.plain
    assert "Retry-After" not in answer.headers


@pytest.mark.parametrize("status", [400, 404, 410])
def test_dropped_cursor_has_the_status_of_the_settings(status: Literal[400, 404, 410]) -> None:
    """How the real API says it is not known, so it can be chosen."""
    settings = SandboxSettings(dropped_status=status)
    assert spoiled(PAGE, "cursor_dropped", "/", settings).status == status


@pytest.mark.parametrize("kind", ["throttle", "throttle429", "quota", "error503"])
def test_retry_after_is_sent_as_it_was_set(kind: str) -> None:
    """The header is passed on raw, be it a number, a date or nonsense."""
    settings = SandboxSettings(retry_after="soon")
    assert spoiled(PAGE, kind, "/", settings).headers["Retry-After"] == "soon"
    assert "Retry-After" not in spoiled(PAGE, "error500", "/", settings).headers


def test_links_are_spoilt_on_pages_only() -> None:
    """A loop or a foreign link needs a page to stand on."""
    summary = document({"opens": 3})
    assert spoiled(summary, "loop", "/", SandboxSettings()) is summary


def test_every_kind_is_described() -> None:
    """The table of kinds is what a command line can print."""
    assert all(description for description in KINDS.values())
