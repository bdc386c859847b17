"""Read one body whole, or raise: a body cut short inside a well-framed answer is an error.

aiohttp's own decompression hands out a gzip stream that lacks its end as a clean 200, and has no
size limit. So the session runs with `auto_decompress=False` and the bytes are inflated here: end
of stream and CRC checked, memory capped, every encoding that was not asked for refused.
"""

import zlib

import aiohttp

from harvester.errors import TransportTrouble, Unreadable

ACCEPT_ENCODING = "gzip"
TOO_LARGE = "too_large"
_ERROR_BODY_CAP = 64 * 1024
_GZIP = 31  # zlib's wbits for a gzip header and trailer, both checked
_STEP = 64 * 1024  # of input; and of output:
_PIECE = 1024 * 1024
_MEMBERS = 1_000  # an honest server sends one, now and then a few
_KEPT = 4 * 1024 * 1024


def keep_freed_memory() -> None:
    """Have the allocator keep what a body leaves free for the next one: a tenth of a run's CPU.

    glibc gives memory back to the system, and each body faults its pages in anew, until a block
    larger than 128 KiB was freed: from then on it keeps twice that block (mallopt(3),
    M_MMAP_THRESHOLD). Nothing is written to this one, so it costs no memory.
    """
    bytes(_KEPT)


async def read_body(response: aiohttp.ClientResponse, *, cap: int) -> bytes:
    """The decoded body, at most `cap` bytes of it; `Unreadable` or `TransportTrouble` otherwise."""
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in {"identity", "gzip", "x-gzip", ""}:
        raise Unreadable("a content encoding that was not asked for", status=response.status)
    raw = await _read_raw(response, cap)
    gzipped = encoding.endswith("gzip")
    return inflate(raw, cap=cap, status=response.status) if gzipped else raw


async def read_error_body(response: aiohttp.ClientResponse) -> bytes:
    """The body of an error answer, empty if it cannot be read: its status is enough.

    Only for a 403 it is not: the body says whether it means too fast, spent or refused. So a
    damaged one, or one in an encoding that was not asked for, raises. One that is too large is
    empty too: the bodies that name a limit are short.
    """
    try:
        return await read_body(response, cap=_ERROR_BODY_CAP)
    except (Unreadable, TransportTrouble, aiohttp.ClientPayloadError) as wrong:
        large = isinstance(wrong, Unreadable) and wrong.cause == TOO_LARGE
        if response.status == 403 and not large:
            raise
        return b""


async def _read_raw(response: aiohttp.ClientResponse, cap: int) -> bytes:
    announced = response.content_length
    if announced is not None and announced <= cap:
        return await response.content.read()
    chunks, size = [], 0
    async for chunk in response.content.iter_any():
        size += len(chunk)
        if size > cap:
            # Closed, not drained: the rest may be of any length.
            response.close()
            raise too_large(cap, response.status)
        chunks.append(chunk)
    return b"".join(chunks)


def inflate(raw: bytes, *, cap: int, status: int = 200) -> bytes:
    """Every gzip member of `raw`, each to its checked end, at most `cap` bytes in all.

    In small steps: what a bomb costs is the cap, not twice the cap, and a thousand members end it.
    `status` is that of the answer, for the error.
    """
    parts: list[bytes] = []
    size, members, at, todo = 0, 0, 0, b""
    stream = zlib.decompressobj(_GZIP)
    while at < len(raw) or todo or not members or not stream.eof:
        if not todo:
            todo = raw[at : at + _STEP]
            at += len(todo)
        if stream.eof or not members:
            stream = zlib.decompressobj(_GZIP)
            members += 1
        try:
            part = stream.decompress(todo, _PIECE)
        except zlib.error:
            raise TransportTrouble(
                "the gzip stream is damaged", cause="cut", status=status
            ) from None
        size += len(part)
        if size > cap or members > _MEMBERS:
            parts.clear()
            raise too_large(cap, status)
        parts.append(part)
        todo = stream.unused_data if stream.eof else stream.unconsumed_tail
        if not (todo or part or stream.eof or at < len(raw)):
            raise TransportTrouble("the gzip stream has no end", cause="cut", status=status)
    return b"".join(parts)


def too_large(cap: int, status: int) -> Unreadable:
    """The error for a body over the cap."""
    return Unreadable(
        f"the body is larger than {cap} bytes (max_page_bytes)", cause=TOO_LARGE, status=status
    )
