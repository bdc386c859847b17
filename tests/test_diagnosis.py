"""What `check` makes of one answer, and of the age of a sign-in."""

from datetime import UTC, datetime, timedelta

import pytest

from harvester.diagnosis import sign_in_age, verdict_of
from harvester.disk.token_store import Account
from harvester.errors import (
    CampaignError,
    Forbidden,
    QuotaExceeded,
    ServerTrouble,
    Throttled,
    TransportTrouble,
    TryAgain,
    Unauthorized,
    Unreadable,
)

NOW = datetime(2026, 11, 27, tzinfo=UTC)


def account(*, days: float = 0, refresh: bool = True, scope: str = "campaign_data") -> Account:
    """Renewed so many days ago."""
    at = (NOW - timedelta(days=days)).timestamp()
    return Account(
        name="default",
        client_id="app",
        base_url="https://api.example",
        auth_url="https://sign-in.example",
        scope=scope,
        access_token="canary",
        refresh_token="canary" if refresh else None,
        signed_in_at=at - 86_400,
        received_at=at,
        expires_at=at + 86_400,
    )


@pytest.mark.parametrize(
    ("error", "wrong", "code"),
    [
        (None, None, 0),
        (Unauthorized("HTTP 401", status=401), "token", 4),
        (Forbidden("HTTP 403", error_key="mashery.not.authorized.inactive"), "key", 4),
        (Forbidden("HTTP 403"), "privilege", 4),
        (Throttled("HTTP 429"), "pace", 75),
        (QuotaExceeded("HTTP 429"), "quota", 75),
        (ServerTrouble("HTTP 503"), "server", 75),
        (TransportTrouble("cannot connect"), "server", 75),
        (Unreadable("not a page"), "server", 75),
        (CampaignError("not_found", "HTTP 404", status=404), "origin", 2),
        (CampaignError("redirected", "HTTP 301", status=301), "origin", 2),
    ],
)
@pytest.mark.parametrize("api", ["v2", "v3"])
def test_each_answer_names_what_is_wrong(
    error: TryAgain | CampaignError | None, wrong: str | None, code: int, api: str
) -> None:
    """With the exit code of the contract."""
    verdict = verdict_of(error, api=api, account=None)
    assert (verdict.wrong, verdict.exit_code) == (wrong, code)
    assert error is None or str(error) in verdict.message


def test_a_missing_scope_is_not_a_missing_privilege() -> None:
    """By what the sign-in was granted; and a refused token says how to get another."""
    refusal = Forbidden("HTTP 403", status=403)
    granted = verdict_of(refusal, api="v3", account=account(scope="campaign_data offline_access"))
    assert granted.wrong == "privilege"
    missing = verdict_of(refusal, api="v3", account=account(scope="contact_data"))
    assert missing.wrong == "scope"
    assert "campaign_data" in missing.message
    assert "harvester login" in verdict_of(Unauthorized("x"), api="v3", account=account()).message


@pytest.mark.parametrize(
    ("days", "warned"), [(0, False), (1, False), (149.9, False), (150, True), (179, True)]
)
def test_a_sign_in_that_was_not_used_for_150_days_is_warned_of(days: float, warned: bool) -> None:
    """Thirty days before a refresh token dies of disuse."""
    before = account(days=days)
    age = sign_in_age(before, NOW, before=before)
    assert (age.warning is not None) == warned
    renewed = sign_in_age(account(), NOW, before=before)
    assert (renewed.warning, renewed.last_renewed_at) == (age.warning, NOW)
    assert age.dies_at == NOW - timedelta(days=days) + timedelta(days=180)
    assert "canary" not in repr(age)


def test_without_a_refresh_token_the_end_is_shown() -> None:
    """It ends with its access token."""
    before = account(refresh=False)
    age = sign_in_age(before, NOW, before=before)
    assert age.dies_at == NOW + timedelta(days=1)
    assert age.warning is not None
    assert "2026-11-28" in age.warning
