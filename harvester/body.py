"""Read one body whole, or raise: a body cut short inside a well-framed answer is an error.

aiohttp's own decompression hands out a gzip stream that lacks its end as a clean 200, and has no
size limit. So the session runs with `auto_decompress=False` and the bytes are inflated here: end
of stream and CRC checked, memory capped, every encoding that was not asked for refused.
"""

import zlib

import aiohttp

from harvester.errors import TransportTrouble, Unreadable

ACCEPT_ENCODING = "gzip"
_ERROR_BODY_CAP = 64 * 1024
_GZIP = 31  # zlib's word for: a gzip header and trailer, checked


async def read_body(response: aiohttp.ClientResponse, *, cap: int) -> bytes:
    """The decoded body, at most `cap` bytes of it; `Unreadable` or `TransportTrouble` otherwise."""
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in {"identity", "gzip", "x-gzip", ""}:
        raise Unreadable("a content encoding that was not asked for", status=response.status)
    raw = await _read_raw(response, cap)
    return inflate(raw, cap=cap) if encoding.endswith("gzip") else raw


async def read_error_body(response: aiohttp.ClientResponse) -> bytes:
    """What an error answer says, empty if it is not worth reading; its status speaks anyway."""
    try:
        return await read_body(response, cap=_ERROR_BODY_CAP)
    except Unreadable:
        return b""


async def _read_raw(response: aiohttp.ClientResponse, cap: int) -> bytes:
    announced = response.content_length
    if announced is not None and announced <= cap:
        return await response.content.read()
    chunks, size = [], 0
    async for chunk in response.content.iter_any():
        size += len(chunk)
        if size > cap:
            # Closing beats draining: nobody knows how much more would come.
            response.close()
            raise too_large(cap)
        chunks.append(chunk)
    return b"".join(chunks)


def inflate(raw: bytes, *, cap: int) -> bytes:
    """Every gzip member of `raw`, each to its checked end, at most `cap` bytes in all."""
    parts: list[bytes] = []
    room = cap
    while raw or not parts:
        stream = zlib.decompressobj(_GZIP)
        try:
            part = stream.decompress(raw, room + 1)
        except zlib.error:
            raise TransportTrouble("the gzip stream is damaged", cause="cut", status=200) from None
        if len(part) > room:
            raise too_large(cap)
        if not stream.eof:
            raise TransportTrouble("the gzip stream has no end", cause="cut", status=200)
        parts.append(part)
        room -= len(part)
        raw = stream.unused_data
    return parts[0] if len(parts) == 1 else b"".join(parts)


def too_large(cap: int) -> Unreadable:
    """The error for a body over the cap."""
    return Unreadable(
        f"the body is larger than {cap} bytes (max_page_bytes)", cause="too_large", status=200
    )
