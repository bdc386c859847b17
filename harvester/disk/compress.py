"""How a page becomes bytes in a file: plain, or as a gzip member or zstd frame of its own.

A member a page is what keeps a compressed part file appendable and cuttable at any page; every
reader of the formats takes many members as one stream.
"""

import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO, TYPE_CHECKING, cast

from msgspec import Struct

if TYPE_CHECKING:
    from types import ModuleType


class Codec(Struct, frozen=True):
    """`suffix` follows `.ndjson`; `encode` makes one self-contained member, `decode` reads any
    number of them. `open` reads the content of a file, also of one that is open."""

    suffix: str
    encode: Callable[[bytes], bytes]
    decode: Callable[[bytes], bytes]
    open: Callable[[Path | IO[bytes]], IO[bytes]]


def _gzip(data: bytes) -> bytes:
    # wbits 31: a gzip member, with no time in its header, so the same page gives the same bytes.
    return zlib.compress(data, 6, wbits=31)


def _gunzip(data: bytes) -> bytes:
    import gzip

    return gzip.decompress(data)


def _open(file: Path | IO[bytes]) -> IO[bytes]:
    return file.open("rb") if isinstance(file, Path) else file


def _open_gzip(file: Path | IO[bytes]) -> IO[bytes]:
    import gzip

    return cast("IO[bytes]", gzip.open(file, "rb"))


def _zstd() -> "ModuleType":
    """The module of the format, imported by a run that needs it."""
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    return zstd


def damage_errors() -> tuple[type[Exception], ...]:
    """What reading a damaged file raises."""
    return OSError, EOFError, zlib.error, _zstd().ZstdError


CODECS: dict[str | None, Codec] = {
    None: Codec("", lambda data: data, lambda data: data, _open),
    "gzip": Codec(".gz", _gzip, _gunzip, _open_gzip),
    "zstd": Codec(
        ".zst",
        lambda data: cast("bytes", _zstd().compress(data)),
        lambda data: cast("bytes", _zstd().decompress(data)),
        lambda file: cast("IO[bytes]", _zstd().open(file, "rb")),
    ),
}
