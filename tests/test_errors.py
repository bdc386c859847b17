"""The error tree: what a caller can tell from an error without reading its message."""

import inspect

import pytest
from fakes import NOON

from harvester import errors
from harvester.errors import (
    CampaignError,
    ConfigError,
    CursorDropped,
    Deferred,
    HarvestError,
    QuotaExceeded,
    ServerTrouble,
    StopRun,
    StorageError,
    Throttled,
    TransportTrouble,
    TryAgain,
    Unauthorized,
    Unreadable,
)

CLASSES = [value for value in vars(errors).values() if inspect.isclass(value)]
OURS = [value for value in CLASSES if issubclass(value, Exception)]


@pytest.mark.parametrize("kind", OURS)
def test_every_error_has_one_root(kind: type[Exception]) -> None:
    """`except HarvestError` catches whatever is raised on purpose."""
    assert issubclass(kind, HarvestError)


@pytest.mark.parametrize("kind", OURS)
def test_the_docstring_shows_the_whole_tree(kind: type[Exception]) -> None:
    """The tree at the head of the module leaves no error out."""
    assert kind.__name__ in (errors.__doc__ or "")


@pytest.mark.parametrize(
    ("kind", "cause"),
    [
        (TryAgain, "try_again"),
        (Throttled, "throttled"),
        (QuotaExceeded, "quota_spent"),
        (Unauthorized, "unauthorized"),
        (ServerTrouble, "server_error"),
        (TransportTrouble, "connection"),
        (Unreadable, "unreadable"),
    ],
)
def test_each_trouble_has_its_slug(kind: type[TryAgain], cause: str) -> None:
    """The retry report's `cause` is a property of the class, unless a finer one is given."""
    assert kind("text").cause == cause
    assert kind("text", cause="finer").cause == "finer"


def test_a_trouble_carries_what_the_answer_said() -> None:
    """Status, error key and the wait travel in the error, not in its text."""
    trouble = ServerTrouble("text", status=503, error_key="down", retry_after=7.0)
    assert (str(trouble), trouble.status, trouble.error_key, trouble.retry_after) == (
        "text",
        503,
        "down",
        7.0,
    )
    assert ServerTrouble("text").retry_after is None


def test_a_throttle_starts_with_no_hold() -> None:
    """The pacer writes the hold into the error; until then there is none."""
    assert (Throttled("text").held, Throttled("text").wait_source) == (0.0, "throttle")


def test_a_campaign_error_took_one_attempt_until_told_otherwise() -> None:
    """`attempts` starts at 1: the retry layer writes the true number."""
    error = CampaignError("not_found", "text", status=404, error_key="key")
    assert (error.kind, error.status, error.error_key, error.attempts) == (
        "not_found",
        404,
        "key",
        1,
    )


def test_a_dropped_cursor_is_a_campaign_error() -> None:
    """A caller that does not restart walks sees an ordinary failure."""
    error = CursorDropped("text", status=410, error_key="gone")
    assert isinstance(error, CampaignError)
    assert (error.kind, error.status, error.error_key) == ("cursor_dropped", 410, "gone")


def test_setting_aside_says_until_when() -> None:
    """A campaign that is set aside is not failed for good: it carries its time."""
    error = Deferred("text", resume_at=NOON, status=503)
    assert (error.kind, error.resume_at, error.status) == ("set_aside", NOON, 503)


def test_an_order_to_stop_is_no_campaign_error() -> None:
    """Handlers of a campaign's failures never swallow the order to stop."""
    order = StopRun("max_requests", "text", resume_at=NOON)
    assert not isinstance(order, CampaignError | TryAgain | ConfigError)
    assert (order.reason, order.resume_at, str(order)) == ("max_requests", NOON, "text")


def test_a_full_disk_stops_the_run() -> None:
    """Storage trouble is an order to stop with its own reason."""
    assert isinstance(StorageError("text"), StopRun)
    assert StorageError("text").reason == "storage"
