"""Take secrets out of a text in which a server may have repeated them.

An answer may spell a secret in many ways: as it is, or escaped for a URL, for HTML or for JSON,
once or twice, or in base64. So the words of the text and the secrets are unescaped before they are
compared. The work is linear in the text.
"""

import base64
import re
from collections import deque
from urllib.parse import unquote

from harvester.errors import CampaignError, TryAgain

REDACTED = "[secret]"
_SHORTEST_SECRET = 4  # characters
_TOKENS_KEPT = 8
_ROUNDS = 3  # of unescaping: an escape may be escaped itself
_JSON_ESCAPE = r"\\u00([0-9A-Fa-f]{2})"


class Redactor:
    """Knows one key and the latest tokens: an answer may repeat a token that was renewed."""

    def __init__(self, key: str) -> None:
        self._key = key
        self._tokens: deque[str] = deque(maxlen=_TOKENS_KEPT)
        self._spellings: set[str] | None = None  # made when a text is to be scrubbed

    def add(self, token: str) -> None:
        """Take out this token as well; of the tokens the latest few are kept."""
        self._tokens.append(token)
        self._spellings = None

    def scrub(self, text: str) -> str:
        """`text` with every word replaced that holds a secret in any spelling."""
        if self._spellings is None:
            self._spellings = _spellings_of([self._key, *self._tokens])
        words = text.split(" ")  # no secret holds a blank
        return " ".join(REDACTED if _is_any_in(self._spellings, word) else word for word in words)

    def scrub_error(self, error: TryAgain | CampaignError) -> None:
        """Scrub all that an error quotes of an answer."""
        error.args = tuple(self.scrub(str(text)) for text in error.args)
        if error.error_key:
            error.error_key = self.scrub(error.error_key)


def _spellings_of(secrets: list[str]) -> set[str]:
    """Each secret as it is, without its escapes, and in base64."""
    found = set()
    for secret in secrets:
        if len(secret) < _SHORTEST_SECRET:
            continue
        found |= {secret, _unescaped(secret)}
        for offset in range(3):  # in base64 a secret looks different at each of three offsets
            known = slice(-(-8 * offset // 6), 8 * (offset + len(secret)) // 6)
            for encode in (base64.b64encode, base64.urlsafe_b64encode):
                found.add(encode(bytes(offset) + secret.encode()).decode()[known])
    found.discard("")
    return found


def _is_any_in(spellings: set[str], word: str) -> bool:
    plain = _unescaped(word)
    texts = (word,) if plain is word else (word, plain)
    return any(spelling in text for text in texts for spelling in spellings)


def _unescaped(word: str) -> str:
    """The word without escapes, of whatever depth."""
    for _ in range(_ROUNDS):
        plain = unquote(word)
        if "&" in plain and (";" in plain or "#" in plain):  # most links have an & only
            from html import unescape  # its table of names costs a start more than all texts do

            plain = unescape(plain)
        if "\\" in plain:
            plain = re.sub(_JSON_ESCAPE, lambda found: chr(int(found[1], 16)), plain)
            plain = plain.replace("\\", "")  # of a JSON escape
        plain = plain.replace("\0", "")  # the other halves of UTF-16
        if plain == word:
            break
        word = plain
    return word
