"""Take secrets out of a text in which a server may have repeated them.

An answer may spell a secret in many ways: as it is, or escaped for a URL, for HTML or for JSON,
once or twice, or in base64. So the text and the secrets are both unescaped before they are
compared. The work is linear in the text.
"""

import base64
import re
from collections import deque
from collections.abc import Sequence

from harvester.errors import CampaignError, TryAgain

REDACTED = "[secret]"
_SHORTEST_SECRET = 4  # characters
_TOKENS_KEPT = 8
_ROUNDS = 3  # of unescaping: an escape may be escaped itself
_ESCAPE = re.compile(
    r"%[0-9A-Fa-f]{2}|\\+u00[0-9A-Fa-f]{2}|&(?:#\d{1,7}|#[xX][0-9A-Fa-f]{1,6}|[a-z]{2,4});"
    r"|\\+|\x00+",
    re.ASCII,
)


class Redactor:
    """Knows one key and the latest tokens: an answer may repeat a token that was renewed."""

    def __init__(self, key: str) -> None:
        self._key = key
        self._tokens: deque[str] = deque(maxlen=_TOKENS_KEPT)
        self._spellings: list[str] | None = None  # made when a text is to be scrubbed

    def add(self, token: str) -> None:
        """Take out this token as well; of the tokens the latest few are kept."""
        self._tokens.append(token)
        self._spellings = None

    def scrub(self, text: str) -> str:
        """`text` with every spelling of a secret replaced."""
        if self._spellings is None:
            self._spellings = _spellings_of([self._key, *self._tokens])
        plain, at = _unescaped(text)
        there = [spelling for spelling in self._spellings if spelling in plain]
        if not there:
            return text
        parts, end = [], 0
        for found in re.finditer("|".join(map(re.escape, there)), plain):
            parts += [text[end : at[found.start()]], REDACTED]
            end = at[found.end()]
        return "".join(parts) + text[end:]

    def scrub_error(self, error: TryAgain | CampaignError) -> None:
        """Scrub all that an error quotes of an answer."""
        error.args = tuple(self.scrub(str(text)) for text in error.args)
        if error.error_key:
            error.error_key = self.scrub(error.error_key)


def _spellings_of(secrets: list[str]) -> list[str]:
    """Each secret as it stands in an unescaped text, as it is or in base64, the longest first."""
    found = set()
    for secret in secrets:
        if len(secret) < _SHORTEST_SECRET:
            continue
        found.add(_unescaped(secret)[0])
        for offset in range(3):  # in base64 a secret looks different at each of three offsets
            known = slice(-(-8 * offset // 6), 8 * (offset + len(secret)) // 6)
            for encode in (base64.b64encode, base64.urlsafe_b64encode):
                found.add(encode(bytes(offset) + secret.encode()).decode()[known])
    found.discard("")
    return sorted(found, key=len, reverse=True)


def _unescaped(text: str) -> tuple[str, Sequence[int]]:
    """The text without escapes; where each character, and the end, stood in the original."""
    at: Sequence[int] = range(len(text) + 1)
    for _ in range(_ROUNDS):
        parts: list[str] = []
        origins: list[int] = []
        end = 0
        for escape in _ESCAPE.finditer(text):
            char = _meaning(escape[0])
            parts += [text[end : escape.start()], char]
            origins += [*at[end : escape.start()], *[at[escape.start()]] * len(char)]
            end = escape.end()
        if not parts:
            break
        text, at = "".join(parts) + text[end:], [*origins, *at[end:]]
    return text, at


def _meaning(escape: str) -> str:
    if escape[0] == "&":
        from html import unescape  # an answer without a secret has hardly ever one

        return unescape(escape)
    digits = escape[1:] if escape[0] == "%" else escape.rpartition("u00")[2]
    # What is left are backslashes of a JSON escape, or the other halves of UTF-16.
    return "" if escape[-1] in "\\\x00" else chr(int(digits, 16))
