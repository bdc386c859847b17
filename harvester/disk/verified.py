"""What the last `verify` found, kept for the page. It is best effort, and no run reads it."""

from contextlib import suppress
from datetime import datetime

import msgspec
from msgspec import Struct

from harvester.disk.layout import Layout
from harvester.disk.storage import replace_file
from harvester.errors import StorageError


class Verified(Struct, frozen=True, kw_only=True):
    """When it was, how many files were read, how many things differed, and some of them."""

    at: datetime
    files: int
    differences: int
    examples: tuple[str, ...] = ()


def save(layout: Layout, found: Verified) -> None:
    """Keep it, where the directory has a state and can be written to: an archive need not."""
    with suppress(StorageError):
        replace_file(layout.verified, msgspec.json.encode(found))


def read(layout: Layout) -> Verified | None:
    """What was kept; None if there is nothing that can be read."""
    try:
        found = msgspec.json.decode(layout.verified.read_bytes(), type=Verified)
    except (OSError, msgspec.DecodeError, ValueError):
        return None
    return found if found.at.tzinfo else None
