"""Repeatable chance: the same numbers in every process, on every machine, with nothing remembered.

Every size, address, date, delay and fault of the sandbox is drawn by what it belongs to (seed,
campaign, row, attempt), never by the order in which it was asked for.
"""

from hashlib import blake2b
from typing import Final

_MASK: Final = (1 << 64) - 1
_GOLDEN: Final = 0x9E3779B97F4A7C15


def draw(*parts: int) -> int:
    """64 evenly spread bits that depend on every one of `parts` (the mixing of splitmix64)."""
    state = _GOLDEN
    for part in parts:
        state = ((state ^ part) + _GOLDEN) & _MASK
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
        state ^= state >> 31
    return state


def fraction(*parts: int) -> float:
    """An even draw from 0.0 up to, never including, 1.0."""
    return (draw(*parts) >> 11) * 2.0**-53


def number_of(text: str) -> int:
    """64 bits for a name, so that a name can be drawn by; unlike `hash`, the same everywhere."""
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big")
