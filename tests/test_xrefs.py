"""`campaigns` on v3: from v2 ids, by status, as records; one run of the token command."""

import asyncio
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from crashlab import Served
from shell import Done, assert_harvested, called, summary_of, surroundings

from harvester.api.v3 import V3
from harvester.errors import CampaignError, Unreadable
from harvester.input.xrefs import list_xrefs, read_xrefs
from harvester.model import Request
from harvester.sandbox import Sandbox, SandboxSettings

API = V3("http://127.0.0.1:1")
V3_IDS = [f"00000000-0000-4000-8000-{number:012d}" for number in range(200)]


def answer(*pairs: tuple[object, str]) -> bytes:
    """The documented body for these ids."""
    rows = [{"v2_email_campaign_id": v2_id, "campaign_id": v3_id} for v2_id, v3_id in pairs]
    return json.dumps({"xrefs": rows}).encode()


class Vendor:
    """Knows some ids; an unknown one is left out, or makes the whole answer a 404."""

    def __init__(self, known: Sequence[int], *, strict: bool = False) -> None:
        self.known, self.strict = set(known), strict
        self.asked: list[list[int]] = []

    async def fetch(self, call: Request[Any]) -> Any:
        path, _, ids = call.link.partition("?v2_email_campaign_ids=")
        assert path == "/v3/emails/campaign_id_xrefs"
        asked = [int(each) for each in ids.split(",")]
        self.asked.append(asked)
        if self.strict and not self.known.issuperset(asked):
            raise CampaignError("not_found", "HTTP 404", status=404)
        return call.read(answer(*((each, V3_IDS[each]) for each in asked if each in self.known)))


def translated(vendor: Vendor, ids: Sequence[int]) -> dict[str, str | None]:
    async def read() -> dict[str, str | None]:
        found = list_xrefs(vendor, API, map(str, ids))
        return {v2_id: xref and xref.v3_id async for v2_id, xref in found}

    return asyncio.run(read())


@pytest.mark.parametrize("strict", [False, True])
def test_each_id_is_answered_in_its_order(strict: bool) -> None:
    """Whether the API leaves an unknown id out or refuses all that stand beside it."""
    vendor = Vendor([each for each in range(120) if each not in {0, 63, 64, 119}], strict=strict)
    found = translated(vendor, range(120))
    assert [*found] == [str(each) for each in range(120)]
    assert {int(v2_id) for v2_id, v3_id in found.items() if v3_id is None} == {0, 63, 64, 119}
    assert all(v3_id in {None, V3_IDS[int(v2_id)]} for v2_id, v3_id in found.items())


def test_fifty_ids_are_asked_at_once() -> None:
    """The documented most; the vendor asks for few requests."""
    vendor = Vendor(range(120))
    translated(vendor, range(120))
    assert [len(asked) for asked in vendor.asked] == [50, 50, 20]


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b'{"xrefs":null}',
        b'{"xrefs":[{"v2_email_campaign_id":7}]}',
        b'{"error_key":"x","xrefs":[]}',
        answer((7, "nonsense")),
        answer((7, V3_IDS[7]), (8, V3_IDS[8])),
    ],
)
def test_an_answer_that_is_not_as_documented_is_no_answer(body: bytes) -> None:
    """Nor is one about an id that was not asked for."""
    with pytest.raises(Unreadable):
        read_xrefs(API, ["7"], body)


def test_ids_are_read_in_either_spelling() -> None:
    """Numbers or texts, in capitals or not."""
    found = read_xrefs(API, ["8", "7"], answer((7, V3_IDS[7].upper()), ("8", V3_IDS[8])))
    assert {v2_id: xref.v3_id for v2_id, xref in found.items()} == {"7": V3_IDS[7], "8": V3_IDS[8]}


# -- the command ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    """Six campaigns, two of which were sent twice, in pages of five."""
    settings = SandboxSettings(campaigns=6, resends=2, pages=12, rows_per_page=5, unsent=12)
    with Served(Sandbox(settings)) as server:
        yield server


Call = Callable[..., Done]


@pytest.fixture
def call(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    served: Served,
) -> Call:
    """`harvester` in this process, asking v3 of the sandbox."""

    def asked(*argv: object, **more: str) -> Done:
        env = surroundings(
            tmp_path,
            HARVESTER_BASE_URL=served.sandbox.base_url,
            HARVESTER_RATE="0",
            HARVESTER_CLIENT_ID="sandbox-key",
            **more,
        )
        return called(tmp_path, monkeypatch, capfd, *argv, env=env)

    return asked


def test_v2_ids_come_out_as_v3_ids(call: Call, served: Served, tmp_path: Path) -> None:
    """One campaign is listed once, though its resends had ids of their own; what has no v3 id is
    named on standard error, and the exit code is 3."""
    world = served.sandbox.world
    (tmp_path / "old.txt").write_text("\n".join([*world.campaign_ids, "# mine", "424242", ""]))
    done = call("campaigns", "--from-v2", "old.txt")
    assert done.code == 3
    assert done.stdout.split() == list(dict.fromkeys(map(world.v3_id, world.campaign_ids)))
    assert [line for line in done.complaints if "424242" in line] == done.complaints
    (tmp_path / "old.txt").write_text("\n".join(world.campaign_ids))
    done = call("campaigns", "--from-v2", "old.txt", "--json")
    assert (done.code, done.stderr) == (0, "")
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert [each["v2_email_campaign_id"] for each in records] == list(world.campaign_ids)


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (("--from-v2", "none.txt"), "--from-v2: cannot read none.txt"),
        (("--from-v2", "empty.txt"), "no v2 ids"),
        (("--from-v2", "new.txt"), "new.txt, line 1"),
        (("--from-v2", "old.txt", "--status", "ALL"), "--status has no effect"),
        (("--from-v2", "old.txt", "--api", "v2"), "--from-v2 asks v3"),
        (("--from-v2", ""), "the path is empty"),
    ],
)
def test_what_cannot_be_translated_is_a_mistake(
    call: Call, served: Served, tmp_path: Path, argv: tuple[str, ...], said: str
) -> None:
    """Exit code 2, and nothing is sent."""
    (tmp_path / "empty.txt").write_text("# none\n")
    (tmp_path / "new.txt").write_text(V3_IDS[0])
    (tmp_path / "old.txt").write_text("1\n")
    before = len(served.hits())
    done = call("campaigns", *argv)
    assert done.code == 2
    assert said in done.stderr
    assert len(served.hits()) == before


def test_campaigns_that_ended_in_an_error_can_be_listed(call: Call, served: Served) -> None:
    """`--status ERROR`, in v3 only; `--json` prints the API's own records."""
    failed = [
        each
        for each in served.sandbox.world.v3_unsent_ids
        if served.sandbox.world.mailings.failed(served.sandbox.world.campaign(each))
    ]
    assert failed
    done = call("campaigns", "--status", "error", "--json")
    assert done.code == 0, done.stderr
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert {each["campaign_id"] for each in records} == set(failed)
    assert {each["current_status"] for each in records} == {"Error"}
    assert call("campaigns", "--status", "ERROR", "--api", "v2").code == 2


@pytest.mark.parametrize("api", ["v2", "v3"])
def test_a_token_command_is_run_once(call: Call, served: Served, tmp_path: Path, api: str) -> None:
    """For the list and the harvest of `--all-sent` together: it may exchange a token that is good
    for one use."""
    script = tmp_path / "token.py"
    script.write_text(
        "import pathlib\n"
        f"with pathlib.Path({str(tmp_path / 'runs')!r}).open('a') as runs:\n"
        "    runs.write('x')\n"
        "print('sandbox-token')\n"
    )
    argv = ("run", "--all-sent", "--api", api, "-o", "out", "--page-size", "5", "-q")
    done = call(*argv, "--token-command", f"{sys.executable} {script}", HARVESTER_ACCESS_TOKEN="")
    assert done.code == 0, done.stderr
    assert (tmp_path / "runs").read_text() == "x"
    world = served.sandbox.world
    ids = world.campaign_ids if api == "v2" else world.v3_campaign_ids
    assert_harvested(tmp_path / "out", served.sandbox, ids)
    assert summary_of(tmp_path / "out")["exit_code"] == 0
