"""Canaries for a key and for tokens, through a server that echoes them in every way it can.

A run is a process of its own; afterwards all that it wrote, printed and logged is searched, for
pieces of eight characters too: half a secret is one as well.
"""

import asyncio
import base64
import html
import json
import os
import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest
from faultserver import (
    CLOSE,
    RESET,
    Answer,
    FaultServer,
    Late,
    Question,
    World,
    chunked,
    framed,
    gzipped,
    page,
    refusal,
    serving,
    unframed,
)

KEY = "Kq7zPx2vLm/W9sdR4tYbn+Hc3nJf8gKu=Q5eTz1xVoa&N6iyBr0wMp"
TOKEN = "Tm4hGs7cXw/Za1kUe9rFv+Lp2jDy6nBq=Ro8tIv3xEl%Yd5uHk0gCs\\Qb7nJw2mAz'Xf3g\"Vd6s"
RENEWED = "Wj8pCb5qNt/Ux3vMy7zKe+Fs1gHd9aRi=Oc4lQk6wTn%Bh2mZv5xPj"
CANARIES = (KEY, TOKEN, RENEWED)
PIECE = 8
WORLD = World(pages=2, rows=2)

ECHOES: dict[str, Callable[[str], str]] = {
    "plain": lambda secret: secret,
    "quoted": lambda secret: quote(secret, safe=""),
    "quoted_but_slash": quote,
    "quoted_plus": quote_plus,
    "quoted_lower": lambda secret: re.sub(
        "%..", lambda found: found[0].lower(), quote(secret, safe="")
    ),
    "html": html.escape,
    "json": lambda secret: json.dumps(secret).replace("/", "\\/"),
    "base64": lambda secret: base64.b64encode(secret.encode()).decode(),
    "base64_url": lambda secret: base64.urlsafe_b64encode(secret.encode()).decode().rstrip("="),
    "base64_pair": lambda secret: base64.b64encode(f"me:{secret}:x".encode()).decode(),
}


def pieces(secret: str) -> set[bytes]:
    """Every piece of a secret that must stand nowhere: in plain, and in base64 at any offset.

    A piece has letters and digits only, which URL, HTML and JSON spell as they are.
    """
    found = set()
    for run in re.findall(r"[A-Za-z0-9]+", secret):
        found |= {run[at : at + PIECE].encode() for at in range(len(run) - PIECE + 1)}
    for offset in range(3):
        known = 8 * (offset + len(secret)) // 6
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            text = encode(b"\0" * offset + secret.encode())[-(-8 * offset // 6) : known]
            found |= {text[at : at + 2 * PIECE] for at in range(len(text) - 2 * PIECE + 1)}
    return found


NEEDLES = {piece for secret in CANARIES for piece in pieces(secret)}


def hits(texts: Iterable[tuple[str, bytes]]) -> set[tuple[str, bytes]]:
    """Where a piece of a secret stands, each place with the first piece found."""
    found = set()
    for name, text in texts:
        for piece in NEEDLES:
            if (at := text.find(piece)) >= 0:
                found.add((name, text[max(0, at - 60) : at + 60]))
                break
    return found


def test_the_search_would_find_each_echo() -> None:
    """The search of this suite sees each spelling in which its server echoes a secret."""
    for spell in ECHOES.values():
        for secret in CANARIES:
            assert hits([("text", f"before {spell(secret)} after".encode())])
            assert hits([("text", spell(secret)[: len(spell(secret)) // 2].encode())])


# -- the server ------------------------------------------------------------------------------


def _echoing(form: str, spell: Callable[[str], str], pad: int) -> Callable[[Question], Answer]:
    def answer(question: Question) -> Answer:
        text = "x" * pad + " " + " ".join(spell(secret) for secret in (TOKEN, KEY))
        markup = f"<html><body>{text}</body></html>".encode()
        match form:
            case "message":
                return Answer(framed(refusal("a.b", text), status="406 Not Acceptable"))
            case "error_key":
                return Answer(framed(refusal(text, "no"), status="400 Bad Request"))
            case "refused_html":
                return Answer(framed(markup, status="415 Unsupported"))
            case "broken":
                return Answer(gzipped(markup).replace(b"200 OK", b"500 Oops"))
            case "html":
                return Answer(framed(markup))
        return Answer(framed(json.dumps({text: text, "results": {text: text}}).encode()))

    return answer


def _linking(link: str) -> Callable[[Question], Answer]:
    def answer(question: Question) -> Answer:
        more = link.format(
            path=question.path,
            key=quote(KEY, safe=""),
            token=quote(TOKEN, safe=""),
            query=question.query,
            line=question.line.decode(),
        )
        if question.query.startswith("next="):
            return Answer(gzipped(WORLD.body(question.campaign, 2)))
        return Answer(gzipped(page(WORLD.records(question.campaign, 1), more)))

    return answer


def _dropping(question: Question) -> Answer:
    """A page, then a refusal of its cursor that repeats the whole request."""
    if question.page == 1:
        return WORLD.honest(question)
    return Answer(framed(refusal("gone", question.head.decode()), status="410 Gone"))


def _raw(wire: Callable[[str], bytes], then: str = CLOSE) -> Callable[[Question], Answer]:
    return lambda question: Answer(wire(question.head.decode()[:-4]), then)


SECRET_LINE = f"{TOKEN} {KEY}"
SPECIAL: list[Callable[[Question], Answer]] = [
    _dropping,
    _raw(lambda head: framed(b"", f"Location: https://h/{SECRET_LINE}", status="302 Found")),
    _raw(lambda head: framed(b"", f"Location: //{TOKEN}@{KEY}/", status="307 Moved")),
    _raw(lambda head: framed(b"", status=f"406 {SECRET_LINE}")),
    _raw(lambda head: framed(b"", f"Retry-After: {TOKEN}", f"Date: {KEY}", status="503 No")),
    _raw(lambda head: framed(b"", f"Content-Encoding: {TOKEN}", f"X-Key: {KEY}")),
    _raw(lambda head: framed(head.encode(), f"Set-Cookie: {TOKEN}={KEY}")),
    _raw(lambda head: f"{SECRET_LINE}\r\n\r\n".encode()),
    _raw(lambda head: head.encode() + b"\r\n\r\n"),
    _raw(lambda head: f"HTTP/1.1 {SECRET_LINE}\r\n\r\n".encode()),
    _raw(lambda head: framed(b"", f"X-Long: {SECRET_LINE * 100}")),
    _raw(lambda head: framed(b"", f"{SECRET_LINE}: 1")),
    _raw(lambda head: unframed(b"", f"Content-Length: {TOKEN}")),
    _raw(lambda head: unframed(f"{TOKEN}\r\n".encode(), "Transfer-Encoding: chunked")),
    _raw(lambda head: chunked(head.encode(), end=f"{KEY}\r\n".encode())),
    _raw(lambda head: framed(head.encode(), "Content-Encoding: gzip")),
    _raw(lambda head: framed(head.encode(), length=9_999)),
    _raw(lambda head: framed(head.encode(), length=9_999), RESET),
    _raw(lambda head: framed(head.encode())),
    _raw(lambda head: framed(head.encode(), status="404 Not Found")),
    _raw(lambda head: framed(b"[" * 50_000 + head.encode())),
    _raw(lambda head: framed(json.dumps([head] * 3).encode())),
    _raw(lambda head: framed(json.dumps({"results": [head]}).encode())),
    _linking("{path}?next=x-2&api_key={key}"),
    _linking("{path}?next=x-2&access_token={token}&api_key={key}"),
    _linking("{path}?next=x-2&more={key}"),
    _linking("{path}?next=x-2&API_KEY={key}"),
    _linking("{path}?next={token}"),
    _linking("{path}?next=x-2&{query}"),
    _linking("https://example.com/{query}"),
    _linking("https://{key}:{token}@example.com/"),
    _linking("{line}"),
]


def echo_faults() -> dict[str, Callable[[Question], Answer]]:
    """Every form of echo, in every spelling, the secrets at the edges of what might be quoted."""
    forms = ["message", "error_key", "refused_html", "broken", "html", "shape"]
    faults = [
        _echoing(form, spell, pad)
        for form in forms
        for spell in ECHOES.values()
        for pad in (0, 120, 165, 185)
    ]
    return {str(n): fault for n, fault in enumerate(faults + SPECIAL, start=1000)}


def bearer(question: Question) -> str:
    """The token that a request came with."""
    (found,) = re.findall(rb"(?im)^authorization: bearer (.*)\r$", question.head)
    return str(found.decode())


# -- the process -----------------------------------------------------------------------------

LIBRARY = """
import asyncio, json, logging, os, sys, traceback
from harvester import HarvestConfig, HarvestError, harvest, walk

logging.basicConfig(level=logging.DEBUG)
options = json.loads(sys.argv[1])
look = options.pop("look")
config = HarvestConfig(
    **options,
    api_key=os.environ.get("HARVESTER_API_KEY"),
    access_token=os.environ.get("HARVESTER_ACCESS_TOKEN"),
)
print(config)
ids = sys.stdin.read().split()
report = asyncio.run(harvest(ids, config, observe=print), debug=True)
print(report)


async def traced():
    for campaign in ids[:: max(1, len(ids) // look)] if look else ():
        try:
            async for page in walk(campaign, config):
                pass
        except HarvestError:
            traceback.print_exc()


asyncio.run(traced())
sys.exit(report.exit_code)
"""


@dataclass
class Ran:
    """What a process left: its exit code, and all that it wrote anywhere."""

    exit_code: int
    root: Path
    stdout: bytes
    stderr: bytes

    def texts(self) -> Iterable[tuple[str, bytes]]:
        """Everything that can be searched."""
        yield "stdout", self.stdout
        yield "stderr", self.stderr
        for path in self.root.rglob("*"):
            yield f"name {path}", str(path).encode()
            if path.is_file():
                yield str(path), path.read_bytes()

    def kinds(self) -> list[str]:
        """The kinds in errors.ndjson."""
        lines = (self.root / "out/errors.ndjson").read_bytes().splitlines()
        return [json.loads(line)["kind"] for line in lines]


@pytest.fixture(params=["library", "command", "command-json-log"])
def driver(request: pytest.FixtureRequest) -> str:
    """In which way a harvest is called."""
    return str(request.param)


async def process(
    driver: str,
    server: FaultServer,
    root: Path,
    ids: Iterable[str],
    *,
    look: int = 0,
    token_command: str | None = None,
    **options: int,
) -> Ran:
    """One harvest in a process of its own, the secrets in its environment."""
    given = {
        "output": str(root / "out"),
        "state_dir": str(root / "state"),
        "base_url": server.base_url,
        "rate": 0,
        "retries": 0,
        "timeout": 20,
        **options,
    }
    secrets = {"HARVESTER_API_KEY": KEY}
    if token_command is None:
        secrets["HARVESTER_ACCESS_TOKEN"] = TOKEN
    else:
        given["token_command"] = token_command
    if driver == "library":
        argv = ["-X", "dev", "-c", LIBRARY, json.dumps({**given, "look": look})]
    else:
        flags = [f"--{name.replace('_', '-')}={value}" for name, value in given.items()]
        logs = ["--log-format=json"] if driver == "command-json-log" else ["--json"]
        argv = ["-m", "harvester", "run", "-i", "-", "-vv", "--no-progress", *logs, *flags]
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        *argv,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={name: value for name, value in os.environ.items() if "HARVESTER" not in name}
        | secrets
        | {"PYTHONPATH": str(Path(__file__).parent.parent)},
    )
    stdout, stderr = await child.communicate("\n".join(ids).encode())
    assert child.returncode is not None
    return Ran(child.returncode, root, stdout, stderr)


async def test_no_echo_of_a_secret_is_written_anywhere(driver: str, tmp_path: Path) -> None:
    """Through every fault with every echo, key and token stand in no file and in no output."""
    faults = echo_faults()

    def script(question: Question) -> Answer:
        return faults.get(question.campaign, WORLD.honest)(question)

    async with serving(script) as server:
        ran = await process(driver, server, tmp_path / "run", [*faults, "1", "2"], look=60)
        assert ran.exit_code == 3, ran.stderr[-2000:]
        assert len(ran.kinds()) >= len(faults) - 10
        assert hits(ran.texts()) == set()
        assert b"[secret]" in (ran.root / "out/errors.ndjson").read_bytes()


async def test_refused_key_is_not_repeated(driver: str, tmp_path: Path) -> None:
    """A refusal that quotes the whole request stops the run and is quoted without the secrets."""

    def script(question: Question) -> Answer:
        text = " ".join([question.head.decode(), SECRET_LINE, quote(SECRET_LINE)])
        return Answer(framed(refusal(f"mashery.{TOKEN}", text), status="403 Forbidden"))

    async with serving(script) as server:
        ran = await process(driver, server, tmp_path / "run", ["1", "2"], look=2)
        assert ran.exit_code == 4, ran.stderr[-2000:]
        assert hits(ran.texts()) == set()


async def test_sick_server_is_told_without_secrets(driver: str, tmp_path: Path) -> None:
    """When too many requests fail, the last failure's text is in the summary, not its echo."""

    def script(question: Question) -> Answer:
        return Answer(framed(refusal("a.b", question.head.decode()), status="502 Bad Gateway"))

    async with serving(script) as server:
        ids = [str(n) for n in range(1, 261)]
        ran = await process(driver, server, tmp_path / "run", ids, retries=1, concurrency=260)
        assert ran.exit_code == 75, ran.stderr[-2000:]
        assert hits(ran.texts()) == set()


async def test_throttle_is_told_without_secrets(driver: str, tmp_path: Path) -> None:
    """A 429 that asks for a wait beyond all patience stops the run without its echo."""

    def script(question: Question) -> Answer:
        body = refusal("throttled", question.head.decode())
        return Answer(framed(body, "Retry-After: 9999", status=f"429 {SECRET_LINE}"))

    async with serving(script) as server:
        ran = await process(driver, server, tmp_path / "run", ["1", "2"])
        assert ran.exit_code == 75, ran.stderr[-2000:]
        assert hits(ran.texts()) == set()


def renewing_command(folder: Path) -> str:
    """A token command that prints the first token once, and the renewed one from then on."""
    folder.mkdir()
    (folder / "first").write_text(TOKEN + "\n")
    (folder / "second").write_text(RENEWED + "\n")
    script = folder / "token.sh"
    script.write_text(
        f'cd "{folder}"\n'
        f'echo "{SECRET_LINE_ON_STDERR}" >&2\n'
        "cat first\nmv second first 2>/dev/null\ntrue\n"
    )
    return f"sh {script}"


SECRET_LINE_ON_STDERR = "debug: Tm4hGs7cXw Wj8pCb5qNt"


async def test_renewed_and_old_tokens_are_not_repeated(driver: str, tmp_path: Path) -> None:
    """What the token command prints is in no output, nor is the token that it replaced."""
    renewed = asyncio.Event()

    def script(question: Question) -> Answer:
        if bearer(question) == RENEWED:
            renewed.set()
            return WORLD.honest(question)
        if question.campaign == "1":
            return Answer(framed(refusal("unauthorized", TOKEN), status="401 Unauthorized"))
        # Refused for another reason, and only when the old token is a thing of the past.
        late = framed(refusal(TOKEN, f"{TOKEN} {KEY}"), status="406 Not Acceptable")
        return Answer(b"", late=Late(late, renewed, asyncio.Event()))

    async with serving(script) as server:
        command = renewing_command(tmp_path / "secret")
        ran = await process(
            driver, server, tmp_path / "run", ["1", "2"], token_command=command, concurrency=2
        )
        assert ran.exit_code == 3, ran.stderr[-2000:]
        assert ran.kinds() == ["rejected"]
        assert hits(ran.texts()) == set()


async def test_tokens_refused_twice_are_not_repeated(driver: str, tmp_path: Path) -> None:
    """A renewed token that is refused too stops the run; neither of the two is quoted."""

    def script(question: Question) -> Answer:
        text = f"{bearer(question)} {TOKEN} {RENEWED} {KEY}"
        return Answer(framed(refusal(text, text), status="401 Unauthorized"))

    async with serving(script) as server:
        command = renewing_command(tmp_path / "secret")
        ran = await process(driver, server, tmp_path / "run", ["1", "2"], token_command=command)
        assert ran.exit_code == 4, ran.stderr[-2000:]
        assert {bearer(Question(head)) for head in server.heads} == {TOKEN, RENEWED}
        assert hits(ran.texts()) == set()


@pytest.mark.parametrize("odd", ["\x00", "\x7f", "\xe9"])
async def test_unusable_output_of_the_token_command_is_refused_unquoted(
    odd: str, driver: str, tmp_path: Path
) -> None:
    """A token that no header can hold is a wrong setting: nothing is sent, or repeated."""
    file = tmp_path / "token"
    file.write_text(TOKEN + odd)
    async with serving(WORLD.honest) as server:
        ran = await process(driver, server, tmp_path / "run", ["1"], token_command=f"cat {file}")
        assert ran.exit_code == (1 if driver == "library" else 2)
        assert b"ConfigError" in ran.stderr or driver != "library"
        assert server.heads == []
        assert hits(ran.texts()) == set()
