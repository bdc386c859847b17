"""The settings: checked whole before anything is sent, with no secret in sight."""

import ast
import dataclasses
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from harvester.config import HarvestConfig
from harvester.errors import ConfigError

SECRETS = {
    "api_key": "canary-key",
    "access_token": "canary-token",
    "token_command": "print canary",
    "proxy": "http://user:canary@proxy:8080",
    "client_id": "canary-client",
}
V2: dict[str, Any] = {"api": "v2"}


def test_the_defaults_are_those_of_the_contract() -> None:
    """Nothing needs to be given but ids and secrets."""
    config = HarvestConfig()
    assert (config.directory, config.reports, config.start) == (Path("harvest"), ("opens",), None)
    assert (config.page_size, config.rate, config.concurrency) == (500, 3.3, 16)
    assert (config.retries, config.timeout, config.max_wait) == (5, 60.0, 300.0)
    assert (config.daily_quota, config.quota_reserve, config.requests_a_day) == (10_000, 0, 10_000)
    assert (config.account, config.client_id, config.counts) == ("default", None, True)
    assert (config.api, config.base_url) == ("v3", "https://api.cc.email")
    assert config.auth_url == "https://authz.constantcontact.com"
    assert HarvestConfig(api="v2").base_url == "https://api.constantcontact.com"
    assert (config.max_pages, config.max_page_bytes) == (100_000, 67_108_864)
    assert (config.open_walks, config.open_files) == (64, 208)
    assert HarvestConfig(concurrency=1).open_walks == 1
    assert (config.sizes, config.proxy, config.key, config.tops_up) == (None, None, "", False)
    assert (config.summary, config.links, config.provenance, config.repair) == (False,) * 4
    assert (config.compress, config.fresh, config.retry_failed) == (None, False, False)
    assert (config.max_requests, config.max_duration, config.wait_for_quota) == (None, None, False)
    assert Path(config.state_dir or "").is_absolute()


def test_a_config_is_frozen() -> None:
    """The settings of a run cannot be changed."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        HarvestConfig().rate = 99.0  # type: ignore[misc]


def test_no_secret_is_shown() -> None:
    """Neither in the repr nor in any text made of it."""
    config = HarvestConfig(**SECRETS)
    assert "canary" not in f"{config!r} {config} {[config]}"
    assert "canary" not in str(config.identity())


REFUSED = [
    ("api", "v1", "v2 or v3"),
    ("page_size", 0, "from 1 to 500"),
    ("page_size", 501, "from 1 to 500"),
    ("page_size", -1, "from 1 to 500"),
    ("min_page_size", 0, "from 1 to 500"),
    ("min_page_size", 501, "from 1 to 500"),
    ("rate", -0.1, "a number of requests a second from 0 to"),
    ("rate", float("nan"), "a number of requests a second from 0 to"),
    ("rate", float("inf"), "a number of requests a second from 0 to"),
    ("concurrency", 0, "from 1 to 1000"),
    ("concurrency", 1_001, "from 1 to 1000"),
    ("retries", -1, "from 0 to 100"),
    ("retries", 101, "from 0 to 100"),
    ("timeout", 0, "seconds"),
    ("timeout", float("nan"), "seconds"),
    ("timeout", float("inf"), "seconds"),
    ("max_wait", -1, "seconds"),
    ("max_wait", float("nan"), "seconds"),
    ("max_wait", float("inf"), "seconds"),
    ("daily_quota", -1, "of 0 or more"),
    ("quota_reserve", -1, "of 0 or more"),
    ("quota_reserve", 10_000, "less than the daily quota of 10000"),
    ("max_requests", 0, "of 1 or more"),
    ("max_requests", -1, "number"),
    ("max_duration", 0, "over 0"),
    ("max_duration", float("nan"), "over 0"),
    ("max_duration", float("inf"), "over 0"),
    ("compress", "brotli", "zstd or gzip"),
    ("compress", "", "zstd or gzip"),
    ("max_pages", 0, "number"),
    ("max_page_bytes", 0, "number"),
    ("report", "opened", "any of opens"),
    ("report", "opens,nothing", "any of opens"),
    ("report", "../opens", "any of opens"),
    ("report", "", "any of opens"),
    ("report", ",", "any of opens"),
    ("report", (), "any of opens"),
    ("since", "yesterday", "an ISO-8601 date"),
    ("since", "", "an ISO-8601 date"),
    ("since", "2026-13-01", "an ISO-8601 date"),
    ("since", "2026-01-31T00:00:00", "with its offset"),
    ("since", "2026-01-31 10:00", "with its offset"),
    ("since", datetime(2026, 1, 31), "with its offset"),  # noqa: DTZ001
    ("since", 1_769_817_600, "an ISO-8601 date"),
    ("base_url", "", "https://HOST"),
    ("base_url", "api.example", "https://HOST"),
    ("base_url", "http://api.example", "loopback"),
    ("base_url", "http://10.0.0.1", "loopback"),
    ("base_url", "http://127.0.0.1.evil.example", "loopback"),
    ("base_url", "ftp://127.0.0.1", "https://HOST"),
    ("base_url", "https://", "https://HOST"),
    ("base_url", "https://h/v2", "no path"),
    ("base_url", "https://h/?x=1", "no path"),
    ("base_url", "https://h#x", "no path"),
    ("base_url", "https://user:canary@h", "no user"),
    ("base_url", "https://h:port", "https://HOST"),
    ("base_url", "https://h:99999", "https://HOST"),
    ("base_url", "https://[::1", "https://HOST"),
    ("base_url", "https://h:0", "https://HOST"),
    ("base_url", "http://127.0.0.1:0", "https://HOST"),
    ("base_url", "https://.", "https://HOST"),
    ("auth_url", "http://auth.example", "loopback"),
    ("auth_url", "https://user:canary@h", "no user"),
    ("auth_url", "https://h/oauth2", "no path"),
    ("account", "", "letters, digits"),
    ("account", "../tokens", "letters, digits"),
    ("account", ".hidden", "letters, digits"),
    ("account", "a/b", "letters, digits"),
    ("account", "é", "letters, digits"),
    ("output", " ", "a directory"),
    ("counts", "no", "true or false"),
]


@pytest.mark.parametrize(("name", "value", "accepted"), REFUSED)
def test_a_refused_value_names_its_setting(name: str, value: Any, accepted: str) -> None:
    """And says what it accepts, without a word of flags; a password in it is not repeated."""
    with pytest.raises(ConfigError) as caught:
        HarvestConfig(**{**V2, name: value})
    text = str(caught.value)
    assert text.startswith(f"{name}: ")
    assert caught.value.setting == name
    assert accepted in text
    assert "--" not in text
    assert "canary" not in text


EDGES = [
    ("page_size", 1), ("page_size", 500), ("rate", 0), ("rate", 1_000_000), ("concurrency", 1),
    ("concurrency", 1_000), ("retries", 0), ("retries", 100), ("timeout", 1e-9),
    ("timeout", 86_400),
    ("max_wait", 0), ("max_wait", 86_400), ("daily_quota", 0), ("max_requests", 1),
    ("max_duration", 1e-9), ("max_pages", 1), ("max_page_bytes", 1), ("min_page_size", 500),
    ("quota_reserve", 9_999), ("account", "me+work@example.com"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), EDGES)
def test_the_ends_of_a_range_belong_to_it(name: str, value: Any) -> None:
    """The smallest and the largest value that is accepted."""
    assert getattr(HarvestConfig(**{name: value}), name) == value


def test_a_smaller_page_size_bounds_the_smallest_one() -> None:
    """`min_page_size` is never more than `page_size`."""
    assert HarvestConfig(page_size=100, min_page_size=100).min_page_size == 100
    with pytest.raises(ConfigError, match="min_page_size: at most the page size of 100"):
        HarvestConfig(page_size=100, min_page_size=101)


# -- the version -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "api", "key"),
    [
        ({}, "v3", ""),
        ({"api_key": "k"}, "v2", "k"),
        ({"client_id": "c"}, "v3", "c"),
        ({"client_id": "c", "api_key": "k"}, "v3", "c"),
        ({"api": "v3", "api_key": "k"}, "v3", "k"),
        ({"api": "v3", "api_key": "k", "client_id": "c"}, "v3", "c"),
        ({"api": "v2", "api_key": "k", "client_id": "c"}, "v2", "k"),
        ({"access_token": "t"}, "v3", ""),
    ],
)
def test_the_credentials_decide_about_the_version(given: Any, api: str, key: str) -> None:
    """A client id is v3's, an API key alone v2's; `key` is what the limits belong to. A changed
    copy stays with its version."""
    config = HarvestConfig(**given)
    assert (config.api, config.key) == (api, key)
    assert config.make_api().origin == config.base_url
    assert dataclasses.replace(config, rate=1.0).api == api


def test_the_settings_load_nothing_heavy() -> None:
    """In an interpreter of its own: no HTTP client, no database, no terminal."""
    script = "import sys, harvester.config; print([m for m in sys.modules if '.' not in m])"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    loaded = set(ast.literal_eval(done.stdout))
    assert "msgspec" in loaded
    assert loaded & {"aiohttp", "sqlite3", "rich", "click", "anyio"} == set()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("page_size", "500"),
        ("page_size", 500.0),
        ("page_size", True),
        ("rate", "fast"),
        ("concurrency", 16.5),
        ("retries", None),
        ("timeout", "60"),
        ("max_requests", 1.5),
        ("max_requests", "many"),
        ("daily_quota", "many"),
        ("report", 7),
        ("base_url", 7),
        ("compress", ["gzip"]),
    ],
)
def test_a_value_of_the_wrong_type_is_refused_like_any_other(name: str, value: Any) -> None:
    """A settings file has no types: the error names the setting, and is no traceback."""
    with pytest.raises(ConfigError, match=f"^{name}: "):
        HarvestConfig(**{name: value})


@pytest.mark.parametrize("name", sorted({*SECRETS, "access_token"}))
@pytest.mark.parametrize("value", [b"canary", ["canary"], {"canary": 1}])
def test_a_secret_of_the_wrong_type_is_not_shown(name: str, value: Any) -> None:
    """The message has its type, not its value."""
    with pytest.raises(ConfigError, match=f"^{name}: text, not <class ") as caught:
        HarvestConfig(**{name: value})
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("moment", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
def test_a_moment_outside_the_calendar_is_refused(moment: str) -> None:
    """A time that UTC has no year for is refused like any other."""
    with pytest.raises(ConfigError, match=r"^since: "):
        HarvestConfig(**V2, since=moment)


@pytest.mark.parametrize("url", ["https://ho st", "https://h\\evil", "https://h\x00"])
def test_a_host_that_cannot_be_one_is_refused(url: str) -> None:
    """Blanks, backslashes and control characters are refused before anything is sent."""
    with pytest.raises(ConfigError, match=r"^base_url: "):
        HarvestConfig(base_url=url)


@pytest.mark.parametrize("name", ["api_key", "access_token", "client_id"])
@pytest.mark.parametrize(
    "value", ["canary key", "canary\n", "canary\x00", "canáry", "canary\u2028"]
)
def test_a_secret_with_a_blank_is_a_copying_mistake(name: str, value: str) -> None:
    """It is refused before it breaks a header, and not repeated."""
    with pytest.raises(ConfigError, match=f"{name}: a blank or a character") as caught:
        HarvestConfig(**{name: value})
    assert "can" not in str(caught.value).removeprefix(name)


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://api.example", "https://api.example"),
        ("https://API.example/", "https://api.example"),
        ("HTTPS://api.example:8443", "https://api.example:8443"),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("http://127.9.9.9", "http://127.9.9.9"),
        ("http://localhost:8080/", "http://localhost:8080"),
        ("http://[::1]:8080", "http://[::1]:8080"),
        ("https://api.example:443", "https://api.example"),
        ("https://api.example.", "https://api.example"),
        ("https://api.example.:443/", "https://api.example"),
        ("https://api.example:80", "https://api.example:80"),
        ("http://localhost:80", "http://localhost"),
        ("http://localhost.:443", "http://localhost:443"),
        ("http://[::1]:80", "http://[::1]"),
        ("https://[::1]:", "https://[::1]"),
    ],
)
def test_an_origin_is_brought_to_one_form(url: str, origin: str) -> None:
    """Scheme, host and port, without the usual port; plain http for loopback only."""
    config = HarvestConfig(base_url=url)
    assert config.base_url == config.make_api().origin == origin


@pytest.mark.parametrize(
    ("given", "proxy"),
    [
        (None, None),
        ("", None),
        ("proxy.local:3128", "http://proxy.local:3128"),
        ("user:secret@proxy.local:3128", "http://user:secret@proxy.local:3128"),
        (" http://proxy.local ", "http://proxy.local"),
        ("HTTPS://[::1]:3128/", "HTTPS://[::1]:3128/"),
    ],
)
def test_a_proxy_without_a_scheme_is_http(given: str | None, proxy: str | None) -> None:
    """As other tools have it; with one it stays as it is."""
    assert HarvestConfig(proxy=given).proxy == proxy


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("socks5://me:canary@proxy.local:1080", "not socks5://"),
        ("ftp://proxy.local", "not ftp://"),
        ("me:canary://proxy.local", "not this"),
        ("http://me:canary@", "not http://"),
        ("me:canary@", "not http://"),
        ("http://me:canary@proxy.local:port", "not http://"),
        ("http://proxy.local:99999", "not http://"),
        ("http://proxy.local:0", "not http://"),
        ("http://me:canary@pro xy", "not http://"),
        ("https://[::1", "not https://"),
    ],
)
def test_a_proxy_that_cannot_be_used_is_refused(given: str, shown: str) -> None:
    """Before a request is counted that is never sent; a password is not."""
    with pytest.raises(ConfigError) as caught:
        HarvestConfig(proxy=given)
    text = str(caught.value)
    assert text.startswith("proxy: ")
    assert text.endswith(shown)
    assert "canary" not in text


@pytest.mark.parametrize(
    ("since", "start"),
    [
        ("2026-01-31", datetime(2026, 1, 31, tzinfo=UTC)),
        (date(2026, 1, 31), datetime(2026, 1, 31, tzinfo=UTC)),
        ("2026-01-31T02:00:00+02:00", datetime(2026, 1, 31, tzinfo=UTC)),
        ("2026-01-31T00:00:00Z", datetime(2026, 1, 31, tzinfo=UTC)),
        ("20260131T000000Z", datetime(2026, 1, 31, tzinfo=UTC)),
        (
            datetime(2026, 1, 31, 2, tzinfo=timezone(timedelta(hours=2))),
            datetime(2026, 1, 31, tzinfo=UTC),
        ),
        (None, None),
    ],
)
def test_a_start_is_brought_to_utc(since: Any, start: datetime | None) -> None:
    """A date is a day of the API, which counts in UTC; a time needs its offset."""
    config = HarvestConfig(**V2, since=since)
    assert config.start == start
    assert config.identity()["since"] == ("2026-01-31T00:00:00Z" if start else "")


@pytest.mark.parametrize("report", ["opens", " opens , opens", ["opens"], ("opens", "opens")])
def test_reports_are_named_in_any_way(report: Any) -> None:
    """As text with commas or as a sequence; each is taken once."""
    assert HarvestConfig(report=report).reports == ("opens",)


@pytest.mark.parametrize(
    ("quota", "reserve", "ours"), [(10_000, 0, 10_000), (10_000, 9_999, 1), (0, 0, 0), (0, 99, 0)]
)
def test_the_reserve_is_left_to_others(quota: int, reserve: int, ours: int) -> None:
    """Without a quota there is nothing to leave."""
    assert HarvestConfig(daily_quota=quota, quota_reserve=reserve).requests_a_day == ours


@pytest.mark.parametrize(("concurrency", "walks"), [(1, 1), (2, 8), (16, 64)])
def test_more_campaigns_are_open_than_are_asked(concurrency: int, walks: int) -> None:
    """So that the giants among them are found out early; one at a time stays one at a time."""
    assert HarvestConfig(concurrency=concurrency).open_walks == walks


@pytest.mark.parametrize(
    ("rate", "every"), [(0.1, True), (3.3, True), (10.0, True), (11.0, False), (0.0, False)]
)
def test_every_commit_is_durable_at_the_apis_pace(rate: float, every: bool) -> None:
    """Only a pace that no API allows groups its syncs."""
    assert HarvestConfig(rate=rate).durable is every


def test_an_identity_is_what_decides_about_the_rows() -> None:
    """Other settings may change between runs of one directory; these may not."""
    base = HarvestConfig(**V2).identity()
    same: list[dict[str, Any]] = [{"rate": 1.0}, {"concurrency": 1}, {"output": "x"}, SECRETS]
    other: list[dict[str, Any]] = [
        {"page_size": 100}, {"since": "2026-01-31"}, {"compress": "gzip"},
        {"base_url": "https://h"},
    ]  # fmt: skip
    assert all(HarvestConfig(**V2, **change).identity() == base for change in same)
    assert all(HarvestConfig(**V2, **change).identity() != base for change in other)
