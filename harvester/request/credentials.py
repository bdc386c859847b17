"""The key and the token of the moment: where a token comes from, and how it is renewed.

A secret reaches exactly two places: the URL and the header of a request to the API's own origin.
"""

from pathlib import Path
from typing import Protocol

from harvester.errors import ConfigError, StopRun
from harvester.request.redact import Redactor

_LARGEST_FILE = 64 * 1024  # bytes: a secret is one line


class TokenSource(Protocol):
    """Where access tokens come from: a fixed text, a file, a command, a signed-in account."""

    async def current(self) -> str:
        """The token to use now. Raise `ConfigError` if there is none, `StopRun` on the order."""
        ...

    async def renew(self, refused: str) -> bool:
        """Look for another token than the `refused` one; False if there is none. Raise as
        `current` does."""
        ...


class FixedToken:
    """A token that was given, and stays."""

    def __init__(self, token: str) -> None:
        self._token = token

    async def current(self) -> str:
        """The token."""
        return self._token

    async def renew(self, refused: str) -> bool:
        """There is no other one."""
        return self._token != refused


class TokenFile:
    """A token that stands in a file, read anew when it is refused.

    `first` is a token that is known already; the file is read when that is refused.
    """

    def __init__(self, path: Path, *, first: str = "") -> None:
        self._path = path
        self._token = first

    async def current(self) -> str:
        """The token that was read last; the first use reads the file."""
        if not self._token:
            self._token = checked_token(read_secret(self._path))
        return self._token

    async def renew(self, refused: str) -> bool:
        """Read the file again."""
        self._token = checked_token(read_secret(self._path))
        return self._token != refused


class Credentials:
    """One API key and the access token of the moment."""

    def __init__(self, api_key: str, source: TokenSource) -> None:
        self.api_key = api_key
        self.token = ""
        self.redactor = Redactor(api_key)
        self._source = source

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    async def open(self) -> None:
        """Get the first token. Raise `ConfigError` if there is none, `StopRun` if the order to stop
        comes first."""
        token = await self._source.current()
        if token != self.token:
            self.token = token
            self.redactor.add(token)

    async def refresh(self) -> None:
        """Get the token to use now: a source may renew it before its time. Raise `StopRun`."""
        try:
            await self.open()
        except ConfigError as wrong:
            raise self._stop(wrong) from None

    async def renew(self) -> bool:
        """Get another token, after this one was refused; False if there is none. Raise `StopRun`
        if the source fails."""
        try:
            if not await self._source.renew(self.token):
                return False
            await self.open()
        except ConfigError as wrong:
            raise self._stop(wrong) from None
        return True

    def _stop(self, wrong: ConfigError) -> StopRun:
        text = self.redactor.scrub(str(wrong))
        return StopRun("credentials_refused", f"the token could not be renewed: {text}")


def read_secret(path: Path) -> str:
    """The first line of a file that holds a secret, with or without a byte order mark before it.

    Raise `ConfigError` if it cannot be read. Only a regular file is: a pipe or a device may keep
    its reader waiting for ever.
    """
    try:
        if path.exists() and not path.is_file():
            raise ConfigError(
                f"cannot read {path}: it is not a regular file (a command that prints a "
                "token: `token_command`)"
            )
        with path.open("rb") as file:
            lines = file.read(_LARGEST_FILE).decode("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as wrong:
        raise ConfigError(f"cannot read {path}: {getattr(wrong, 'strerror', 'not text')}") from None
    return lines[0].strip() if lines else ""


def checked_token(token: str) -> str:
    """Give the token back; raise `ConfigError` if no header can hold it."""
    if not token:
        raise ConfigError("the token file or token command gave an empty access token")
    if not (token.isascii() and token.isprintable()) or " " in token:
        raise ConfigError(
            "the token file or token command gave no token: it holds a blank or a character that "
            "no token has (a token command runs without a shell)"
        )
    return token
