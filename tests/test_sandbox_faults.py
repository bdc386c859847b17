"""The fault plan: what goes wrong is decided by seed and place, and heals as promised."""

import math
from typing import Any, Literal

import orjson
import pytest
from sandbox_client import client

from harvester.sandbox.answers import Answer, Page, document
from harvester.sandbox.corrupt import corrupted
from harvester.sandbox.cursor import Window, encode
from harvester.sandbox.dialect import V2_DIALECT, V3_DIALECT, Dialect
from harvester.sandbox.faults import KINDS, FaultPlan, Faults, Place, check_kind, status_of
from harvester.sandbox.settings import SandboxSettings

PLACES = [Place("opens", str(1100394165287 + i), page) for i in range(100) for page in range(1, 21)]
ROW = '{"a":"\\"results\\":["}'
TARGET = "/v2/x?next=abc"


def broken(
    kind: str, dialect: Dialect = V2_DIALECT, link: str | None = None, **settings: Any
) -> Answer:
    """What a fault makes of a page with one row, asked for with a limit of two."""
    member = "results" if dialect is V2_DIALECT else "tracking_activities"
    page = Page(member, ROW, 1, Window(limit=2), link)
    asked = SandboxSettings(**settings)
    return corrupted(dialect.page(page, asked), kind, page, TARGET, dialect, asked)


def page_of(rows: str, link: str | None) -> object:
    """A page of v3, read."""
    links = {"_links": {"next": {"href": link}}} if link else {}
    return {"tracking_activities": orjson.loads(f"[{rows}]"), **links}


AGAIN = encode("limit=2&o=0&gap=1")


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
    place = Place("opens", "7", 3)
    faults = Faults(FaultPlan(pinned={("7", 3): ["reset", "ok", "html"]}))
    assert [faults.next(place) for _ in range(5)] == ["reset", None, "html", None, None]
    assert faults.next(Place("opens", "7", 2)) is None


def test_pinned_campaign_fails_for_good() -> None:
    """One kind instead of a sequence never ends, on any page of the campaign."""
    faults = Faults(FaultPlan(pinned={("7", None): "error503"}))
    assert {faults.next(Place("opens", "7", page)) for page in (1, 2, 2, 2)} == {"error503"}
    assert faults.next(Place("opens", "8", 1)) is None


def test_the_more_exact_pin_wins() -> None:
    """Campaign and page before campaign before page before anything; rates do not count there."""
    plan = FaultPlan(
        rates={"stall": 1.0},
        pinned={("7", 2): "ok", ("7", None): "cut", (None, 2): "slow"},
    )
    assert plan.at(Place("opens", "7", 2), 1) is None
    assert plan.at(Place("opens", "7", 3), 1) == "cut"
    assert plan.at(Place("opens", "8", 2), 1) == "slow"
    assert plan.at(Place("opens", "8", 1), 1) == "stall"


def test_first_pages_have_no_cursor_to_drop() -> None:
    """A dropped cursor hits later pages only, also when pinned to the whole campaign."""
    plan = FaultPlan(pinned={("7", None): "cursor_dropped"})
    assert plan.at(Place("opens", "7", 1), 1) is None
    assert plan.at(Place("opens", "7", 2), 1) == "cursor_dropped"


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
    answer = broken(kind)
    assert answer.status == status
    assert piece in answer.body


@pytest.mark.parametrize(
    ("kind", "status", "body"),
    [
        ("throttle", 429, {"error_key": "throttled", "error_message": "Too Many Requests"}),
        ("quota", 429, {"error_key": "quota_exceeded", "error_message": "Limit Exceeded"}),
        ("auth", 401, {"error_key": "unauthorized", "error_message": "Unauthorized"}),
        ("loop", 200, page_of(f"{ROW}", TARGET)),
        ("foreign_link", 200, page_of(f"{ROW}", f"http://foreign.invalid{TARGET}")),
        ("twice", 200, page_of("", None)),
        ("flood", 200, page_of(",".join([ROW] * 20), None)),
        ("endless_same", 200, page_of(ROW, f"/v2/x?next={AGAIN}")),
        ("endless_empty", 200, page_of("", f"/v2/x?next={AGAIN}")),
    ],
)
def test_v3_has_its_own_forms(kind: str, status: int, body: object) -> None:
    """The same fault is said in the form of the version; a body is as a JSON library reads it."""
    answer = broken(kind, V3_DIALECT)
    assert (answer.status, orjson.loads(answer.body)) == (status, body)


def test_members_stand_twice() -> None:
    """A reader that takes the last of two equal members loses the rows, one that looks does not."""
    link = '"_links":{"next":{"href":"/n"}}'
    body = broken("twice", V3_DIALECT, link="/n").body.decode()
    member = '"tracking_activities"'
    assert body == f"{{{member}:[{ROW}],{link},{member}:[],{link}}}"


@pytest.mark.parametrize("dialect", [V2_DIALECT, V3_DIALECT])
def test_an_error_may_hide_in_a_good_page(dialect: Dialect) -> None:
    """No rows, no next link, status 200, and an error_key."""
    answer = broken("error_in_200", dialect, link="/n")
    document = orjson.loads(answer.body)
    assert document["error_key"]
    assert [] in document.values()
    assert b"/n" not in answer.body
    assert not answer.more


@pytest.mark.parametrize("status", [400, 404, 410])
def test_dropped_cursor_has_the_status_of_the_settings(status: Literal[400, 404, 410]) -> None:
    """How the real API says it is not known, so it can be chosen."""
    assert broken("cursor_dropped", dropped_status=status).status == status


@pytest.mark.parametrize(
    ("kind", "header"),
    [
        *((kind, "soon") for kind in ("throttle", "throttle429", "quota", "error503")),
        ("html", None),
    ],
)
def test_retry_after_is_sent_as_it_was_set(kind: str, header: str | None) -> None:
    """The header is passed on raw, be it a number, a date or nonsense."""
    reply = client(retry_after="soon", pinned={(None, None): kind}).ask("/v3/emails")
    assert reply.answer.headers.get("Retry-After") == header


@pytest.mark.parametrize("kind", ["loop", "twice", "flood", "endless_same"])
def test_only_pages_are_corrupted_as_pages(kind: str) -> None:
    """A loop or a foreign link needs a page to stand on, and a good one."""
    summary = document({"opens": 3})
    assert corrupted(summary, kind, None, "/", V2_DIALECT, SandboxSettings()) is summary
    page = Page("results", ROW, 1, Window(), None)
    refused = V2_DIALECT.unauthenticated
    assert corrupted(refused, kind, page, "/", V2_DIALECT, SandboxSettings()) is refused


@pytest.mark.parametrize(
    ("name", "hit"),
    [("act-1", ["act-1"]), ("camp-1", ["act-1", "act-2"]), ("opens", ["act-1", "act-2", "act-9"])],
)
def test_pins_name_activities_campaigns_and_reports(name: str, hit: list[str]) -> None:
    """In v3 one activity of a campaign may fail alone, and so may one kind of request."""
    plan = FaultPlan(pinned={(name, None): "html"})
    owners = {"act-1": "camp-1", "act-2": "camp-1", "act-9": "camp-9"}
    places = {each: Place("opens", campaign, 1, each) for each, campaign in owners.items()}
    assert [each for each, place in places.items() if plan.at(place, 1)] == hit
    assert plan.at(Place("stats", "", 1, "act-7,act-8"), 1) is None


def test_pins_may_name_requests_without_a_campaign() -> None:
    """An empty name stands for the campaign list and what else is about no campaign."""
    plan = FaultPlan(pinned={("", 2): "html", ("stats", 1): "empty"})
    places = (Place("campaigns", "", 1), Place("campaigns", "", 2), Place("opens", "7", 2))
    assert [plan.at(place, 1) for place in places] == [None, "html", None]
    assert plan.at(Place("stats", "", 1, "act-7,act-8"), 1) == "empty"


def test_every_kind_is_described() -> None:
    """The table of kinds is what a command line can print."""
    assert all(description for description in KINDS.values())
