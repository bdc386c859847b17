"""The next link: followed within the walk's own path at the API's own origin, and nowhere else."""

import pytest
from fakes import PATH
from hypothesis import given
from hypothesis import strategies as st

from harvester.api.next_link import has_cursor, validate_next_link
from harvester.errors import CampaignError

ORIGIN = "https://api.constantcontact.com"
OLDER = "/v2/emailcampaigns/7/tracking/opens"


def followed(raw: str, origin: str = ORIGIN) -> str:
    """The link as it would be asked."""
    found = validate_next_link(raw, origin=origin, paths=(PATH, OLDER))
    assert found is not None
    return found


@pytest.mark.parametrize(
    "raw",
    [
        f"{PATH}?next=abc",
        f"{ORIGIN}{PATH}?next=abc",
        f"{ORIGIN}:443{PATH}?next=abc",
        f"HTTPS://API.ConstantContact.com{PATH}?next=abc",
        "?next=abc",
        f"{PATH}?api_key=SECRET&next=abc",
        f"{PATH}?next=abc&api_key=SECRET",
        f"{PATH}?access_token=SECRET&next=abc&api_key",
        f"{ORIGIN}{PATH}?api_key=SECRET&next=abc&api_key=",
    ],
)
def test_every_spelling_of_our_own_path_is_followed(raw: str) -> None:
    """Relative, absolute or query only: what is left is path and cursor, no credential in it."""
    assert followed(raw) == f"{PATH}?next=abc"


@pytest.mark.parametrize("raw", [f"{OLDER}?next=abc", f"{ORIGIN}{OLDER}?api_key=x&next=abc"])
def test_the_other_spelling_of_the_path_is_followed_as_it_is(raw: str) -> None:
    """The vendor's recorded answers have it; the request goes where the API said."""
    assert followed(raw) == f"{OLDER}?next=abc"


@pytest.mark.parametrize(
    ("asked", "path"), [(PATH, PATH), (OLDER, OLDER), ("", PATH), ("/v2/other", PATH)]
)
def test_a_query_alone_belongs_to_the_path_that_was_asked(asked: str, path: str) -> None:
    """In the spelling in which it was asked; no other path can be chosen in this way."""
    found = validate_next_link(
        "?next=b", origin=ORIGIN, paths=(PATH, OLDER), asked=f"{asked}?next=a"
    )
    assert found == f"{path}?next=b"


@pytest.mark.parametrize(
    ("link", "has"),
    [
        (PATH, False),
        (f"{PATH}?limit=500", False),
        (f"{PATH}?limit=500&created_since=2026-01-31T00%3A00%3A00Z", False),
        (f"{PATH}?next=a", True),
        (f"{PATH}?limit=500&next=a", True),
        (f"{PATH}?cursor", True),
        ("/v2/emailmarketing/campaigns/7/tracking/reports/summary?updateSummary=true", False),
        ("/v3/emails/x#500,next=a", False),
        ("/v3/emails?limit=500&after_date=x", False),
        ("/v3/emails?cursor=a&limit=500", True),
        ("/v3/reports/email_reports/x/tracking/opens?limit=500#500,y", False),
        ("/v3/reports/email_reports/x/tracking/opens?next=1#500,y", True),
    ],
)
def test_a_cursor_is_what_we_did_not_make(link: str, has: bool) -> None:
    """A link of our own has no other parameters than those of a first page."""
    assert has_cursor(link) is has


@pytest.mark.parametrize(
    "cursor",
    [
        "abc%2Fdef",
        "abc/def",
        "a%2fb%2Bc+d%20e",
        "a=b==",
        "a;b:c@d",
        "%",
        "%zz",
        "a?b",
        "é%C3%A9",
        "\u2028",
        "a&limit=500",
        "api_keyring=1&my_api_key=2",
    ],
)
def test_a_cursor_is_kept_to_the_byte(cursor: str) -> None:
    """Escapes are not resolved, changed in case, or added."""
    assert followed(f"{PATH}?next={cursor}") == f"{PATH}?next={cursor}"
    assert followed(f"{ORIGIN}{PATH}?next={cursor}") == f"{PATH}?next={cursor}"


@pytest.mark.parametrize(
    "raw",
    [
        f"https://evil.example{PATH}?next=abc",
        f"http://api.constantcontact.com{PATH}?next=abc",
        f"https://api.constantcontact.com:8443{PATH}?next=abc",
        f"https://api.constantcontact.com.evil.example{PATH}?next=abc",
        f"https://evil.example/?x=https://api.constantcontact.com{PATH}",
        f"//evil.example{PATH}?next=abc",
        f"//api.constantcontact.com{PATH}?next=abc",
        f"https://api.constantcontact.com@evil.example{PATH}?next=abc",
        f"https://user:pw@api.constantcontact.com{PATH}?next=abc",
        f"https://@api.constantcontact.com{PATH}?next=abc",
        f"https://api.constantcontact.com%2F.evil.example{PATH}?next=abc",
        f"https://api.constantcontact.com%2Fevil.example{PATH}?next=abc",
        f"https:{PATH}?next=abc",
        f"https://{PATH}?next=abc",
        f"ftp://api.constantcontact.com{PATH}?next=abc",
        "javascript:alert(1)?next=abc",
        "file:///etc/passwd?next=abc",
        "/v2/emailmarketing/campaigns/7/tracking/clicks?next=abc",
        "/v2/emailmarketing/campaigns/8/tracking/opens?next=abc",
        "/v2/emailcampaigns/8/tracking/opens?next=abc",
        "/v2/emailcampaigns/7/tracking/clicks?next=abc",
        "/v2/emailcampaigns?next=abc",
        "/v2/x/7/tracking/opens?next=abc",
        f"https://evil.example{OLDER}?next=abc",
        "/v2/emailmarketing/campaigns/7/tracking/opens/?next=abc",
        "/v2/emailmarketing/campaigns/8/../7/tracking/opens?next=abc",
        "/v2/emailmarketing/campaigns/7/tracking/../tracking/opens?next=abc",
        "/v2/emailmarketing/campaigns/7/tracking/%6Fpens?next=abc",
        "/V2/emailmarketing/campaigns/7/tracking/opens?next=abc",
        f"{ORIGIN}/../..{PATH}?next=abc",
        "/?next=abc",
        f"{PATH};x?next=abc",
        f"/{PATH}?next=abc",
        "../opens?next=abc",
        "opens?next=abc",
        "v2/emailmarketing?next=abc",
    ],
)
def test_a_link_that_leads_away_is_refused(raw: str) -> None:
    """Another host, scheme, port or path, userinfo, or any trick that hides one."""
    with pytest.raises(CampaignError) as caught:
        followed(raw)
    assert caught.value.kind == "foreign_link"
    assert "evil" not in str(caught.value)


@pytest.mark.parametrize(
    "raw",
    [
        f"{PATH}?next=abc#fragment",
        f"{PATH}?next=a\\b",
        f"https:\\\\evil.example{PATH}?next=abc",
        f"/\\evil.example{PATH}?next=abc",
        f"{PATH}?next=a b",
        f"{PATH}?next=a\tb",
        f"{PATH}?next=a\r\nX-Evil: 1",
        f"{PATH}?next=a\x00b",
        f"{PATH}?next=a\x7fb",
        f"{PATH}?next=\ud800",
        f" {PATH}?next=abc",
        f"\n//evil.example{PATH}?next=abc",
        f"{PATH}?next={'x' * 8_000}",
        PATH,
        f"{PATH}?",
        f"{PATH}?api_key=SECRET",
        "?",
        "https://api.constantcontact.com:port/?next=abc",
        "https://api.constantcontact.com:99999/?next=abc",
        "https://[::1/?next=abc",
        f"https://api\u2100.example{PATH}?next=abc",
    ],
)
def test_a_link_of_which_no_request_can_be_made_is_refused(raw: str) -> None:
    """Blanks, control characters, backslashes, fragments, no cursor, no sane port."""
    with pytest.raises(CampaignError) as caught:
        followed(raw)
    assert caught.value.kind == "bad_link"
    assert "SECRET" not in str(caught.value)


@pytest.mark.parametrize(
    ("origin", "raw"),
    [
        ("http://127.0.0.1:8080", f"http://127.0.0.1:8080{PATH}?next=abc"),
        ("http://127.0.0.1:8080", f"{PATH}?next=abc"),
        ("http://[::1]:8080", f"http://[::1]:8080{PATH}?next=abc"),
        ("https://api.constantcontact.com:443", f"{ORIGIN}{PATH}?next=abc"),
        ("http://localhost", f"http://localhost:80{PATH}?next=abc"),
    ],
)
def test_origins_with_a_port_are_compared_with_it(origin: str, raw: str) -> None:
    """A default port is the same port whether it is written or not."""
    assert followed(raw, origin) == f"{PATH}?next=abc"


def test_the_port_is_part_of_the_origin() -> None:
    """A link to another port of the same machine leads away."""
    with pytest.raises(CampaignError):
        followed(f"http://127.0.0.1:8081{PATH}?next=abc", "http://127.0.0.1:8080")


plain = st.characters(exclude_characters="\\#&", exclude_categories=["Cs", "Cc", "Zs"])


@given(st.text(plain, min_size=1, max_size=80))
def test_any_cursor_survives(cursor: str) -> None:
    """A cursor of any characters that can stand in a URL comes out as it went in."""
    assert followed(f"{PATH}?next={cursor}") == f"{PATH}?next={cursor}"


@given(st.text(min_size=1, max_size=60))
def test_no_link_leaves_the_path(raw: str) -> None:
    """Whatever text comes as a link: it is refused, or asks our own path with some query."""
    try:
        found = followed(raw)
    except CampaignError:
        return
    path, _, query = found.partition("?")
    assert path in {PATH, OLDER}
    assert query


pieces = ["https:", "//", "/", "\\", "@", ":", "443", "api.constantcontact.com", "evil.example"]


@given(
    st.lists(
        st.sampled_from([*pieces, PATH, OLDER, "?next=a", "%2F", "..", "#"]), min_size=1, max_size=8
    )
)
def test_no_composed_trick_leaves_the_path(parts: list[str]) -> None:
    """Nor does any text put together from the parts that attacks are made of."""
    try:
        found = followed("".join(parts))
    except CampaignError:
        return
    assert found.partition("?")[0] in {PATH, OLDER}
