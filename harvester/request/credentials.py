"""The key and the token: where they come from, how they are renewed, and where they never show.

A secret reaches exactly two places: the URL and the header of a request to the API's own origin.
`scrub` takes them out of any text that a server could have echoed them into.
"""

import base64
import html
import re
import shlex
import subprocess
from collections.abc import Iterable
from pathlib import Path

import anyio

from harvester.errors import ConfigError

_LONG_ENOUGH_TO_SCRUB = 4
_TOKENS_KEPT = 8
_COMMAND_TIMEOUT = 60.0  # s


class Credentials:
    """One API key and the access token of the moment.

    The token is a fixed string, the content of a file, or what a command prints; the last two can
    be renewed.
    """

    def __init__(
        self,
        api_key: str,
        *,
        access_token: str | None = None,
        token_file: Path | None = None,
        token_command: str | None = None,
    ) -> None:
        self.api_key = api_key
        self.token = access_token or ""
        self._known = [api_key, self.token]  # an answer may still echo a token that was renewed
        self._echoes = echoes(self._known)
        self._file = token_file
        self._command = token_command

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    async def open(self) -> None:
        """Read the first token. Raise `ConfigError` if there is none to be had."""
        if not self.token:
            self._take(await self._read())

    async def renew(self) -> bool:
        """Read the token again; True if it is another one than before."""
        if self._file is None and self._command is None:
            return False
        token = await self._read()
        if token == self.token:
            return False
        self._take(token)
        return True

    def _take(self, token: str) -> None:
        self.token = token
        self._known = [*self._known[:1], *self._known[1:][-_TOKENS_KEPT:], token]
        self._echoes = echoes(self._known)

    async def _read(self) -> str:
        if self._command is not None:
            token = await _output_of(self._command)
        elif self._file is not None:
            token = read_secret(self._file)
        else:
            raise ConfigError("no access token")
        if not token:
            raise ConfigError("the token file or token command gave an empty access token")
        if not (token.isascii() and token.isprintable()):
            raise ConfigError("the token file or token command gave what no header can hold")
        return token

    def scrub(self, text: str) -> str:
        """`text` with every spelling of a secret replaced, also of tokens that were renewed."""
        return self._echoes.sub("[secret]", text)

    def scrub_bytes(self, body: bytes) -> bytes:
        """The same for a body, before a piece of it is quoted: half a secret is one as well."""
        text = body.decode("utf-8", "surrogateescape")
        return self.scrub(text).encode("utf-8", "surrogateescape")


def echoes(secrets: Iterable[str]) -> re.Pattern[str]:
    """What matches any echo of the secrets: each character plain or as URL, HTML and JSON spell
    it, or the whole in base64, at each of the three offsets that it can have there."""
    found = set()
    for secret in secrets:
        if len(secret) < _LONG_ENOUGH_TO_SCRUB:
            continue
        found.add("".join(map(_spelled, secret)))
        for at in range(3):
            known = slice(-(-8 * at // 6), 8 * (at + len(secret)) // 6)
            for encode in (base64.b64encode, base64.urlsafe_b64encode):
                text = encode(bytes(at) + secret.encode()).decode()[known]
                found.add("".join(map(_spelled, text)))
    return re.compile("|".join(sorted(found, key=len, reverse=True)) or "(?!)")


def _spelled(char: str) -> str:
    if char.isalnum():
        return char
    code = ord(char)
    ways = {re.escape(html.escape(char)), rf"\\*{re.escape(char)}"}
    ways |= {rf"%(?i:{code:02x})", rf"\\u00(?i:{code:02x})", rf"&#(?i:0*{code}|x0*{code:x});"}
    return f"(?:{'|'.join(sorted(ways))})"


def read_secret(path: Path) -> str:
    """The first line of a file that holds a secret. Raise `ConfigError` if it cannot be read."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as wrong:
        raise ConfigError(f"cannot read {path}: {getattr(wrong, 'strerror', 'not text')}") from None
    return lines[0].strip() if lines else ""


async def _output_of(command: str) -> str:
    """The first line a command prints. Its output is a secret: no error repeats it."""
    try:
        with anyio.fail_after(_COMMAND_TIMEOUT):
            done = await anyio.run_process(
                shlex.split(command), stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False
            )
    except TimeoutError:
        raise ConfigError(f"the token command took over {_COMMAND_TIMEOUT:g} s") from None
    except (OSError, ValueError) as wrong:
        raise ConfigError(f"cannot run the token command: {type(wrong).__name__}") from None
    if done.returncode != 0:
        raise ConfigError(f"the token command failed with exit code {done.returncode}")
    lines = done.stdout.decode("utf-8", "replace").splitlines()
    return lines[0].strip() if lines else ""
