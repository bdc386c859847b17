"""How a page becomes bytes in a file: plain, or as a gzip member or zstd frame of its own.

A member a page is what keeps a compressed part file appendable and cuttable at any page; every
reader of the formats takes many members as one stream.
"""

import gzip
import sys
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd


@dataclass(frozen=True, slots=True)
class Codec:
    """`suffix` follows `.ndjson`; `encode` makes one self-contained member, `decode` reads any
    number of them."""

    suffix: str
    encode: Callable[[bytes], bytes]
    decode: Callable[[bytes], bytes]
    open: Callable[[Path], IO[bytes]]


def _gzip(data: bytes) -> bytes:
    # wbits 31: a gzip member, with no time in its header, so the same page gives the same bytes.
    deflate = zlib.compressobj(6, zlib.DEFLATED, 31)
    return deflate.compress(data) + deflate.flush()


DAMAGED = (OSError, EOFError, zlib.error, zstd.ZstdError)
"""What reading a damaged file raises."""

CODECS: dict[str | None, Codec] = {
    None: Codec("", lambda data: data, lambda data: data, lambda path: path.open("rb")),
    "gzip": Codec(
        ".gz", _gzip, gzip.decompress, lambda path: cast("IO[bytes]", gzip.open(path, "rb"))
    ),
    "zstd": Codec(
        ".zst",
        zstd.compress,
        zstd.decompress,
        lambda path: cast("IO[bytes]", zstd.open(path, "rb")),
    ),
}
