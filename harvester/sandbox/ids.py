"""Ids made from numbers, and read back: no table is kept, so a million ids cost no memory.

v2 ids look like the vendor's: 13 digits, ascending, with uneven gaps. v3 ids are UUIDs.
"""

import re
from typing import Final, Literal

from .chance import draw, number_of

Kind = Literal["campaign", "activity", "permalink", "contact"]
_FIRST_V2: Final = 1_100_394_165_287
_V2_GAP: Final = 9_973
_NODES: Final = 1 << 48
_STEP: Final = 0x5DEECE66D
"""Odd, so that multiplying by it maps the 48-bit numbers onto themselves."""
_STEP_BACK: Final = pow(_STEP, -1, _NODES)
_UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)


class Ids:
    """The ids of one account, by its seed."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        kinds: tuple[Kind, ...] = ("campaign", "activity", "permalink", "contact")
        self._salts = {kind: draw(seed, 12, number_of(kind)) for kind in kinds}

    def v2(self, number: int) -> str:
        """The v2 campaign id with that number, from 0."""
        return str(_FIRST_V2 + number * _V2_GAP + draw(self._seed, 3, number) % _V2_GAP)

    def v2_number(self, text: str) -> int | None:
        """The number of a v2 campaign id; None if no number has this id."""
        if not (text.isascii() and text.isdigit() and len(text) <= 15):
            return None
        number = (int(text) - _FIRST_V2) // _V2_GAP
        return number if number >= 0 and self.v2(number) == text else None

    def uuid(self, kind: Kind, number: int) -> str:
        """The UUID (version 4 in form) with that number; its last 12 digits hide the number."""
        salt = self._salts[kind]
        node = (number * _STEP + salt) % _NODES
        head = draw(salt, number)
        return (
            f"{head >> 32:08x}-{head >> 16 & 0xFFFF:04x}-4{head >> 4 & 0xFFF:03x}"
            f"-{8 + (head & 3):x}{(head ^ node) & 0xFFF:03x}-{node:012x}"
        )

    def number(self, kind: Kind, text: str) -> int | None:
        """The number of a UUID of that kind, in either case; None if no number has it."""
        text = text.lower()
        if not is_uuid(text):
            return None
        number = (int(text[-12:], 16) - self._salts[kind]) * _STEP_BACK % _NODES
        return number if self.uuid(kind, number) == text else None


def is_uuid(text: str) -> bool:
    """Whether a text has the form of a UUID in small letters."""
    return _UUID.fullmatch(text) is not None
