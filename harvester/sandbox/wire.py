"""Sending an answer, or what a fault of the connection leaves of it."""

import asyncio
import socket
import struct
from typing import Final

from aiohttp import web

from .answers import Answer
from .settings import SandboxSettings

_DRIPS: Final = 20
_RST: Final = struct.pack("ii", 1, 0)  # SO_LINGER on, for 0 s: close() sends a RST


async def send(
    request: web.BaseRequest, answer: Answer, fault: str | None, settings: SandboxSettings
) -> web.StreamResponse:
    """Send the answer, compressed if the client accepts that; `fault` may get in the way."""
    body, headers = answer.body.plain, {"Content-Type": answer.content_type, **answer.headers}
    if settings.gzip and body and "gzip" in request.headers.get("Accept-Encoding", ""):
        body = answer.body.gzip()
        headers["Content-Encoding"] = "gzip"
    match fault:
        case "reset":
            _reset(request)
        case "timeout":
            await asyncio.Event().wait()
        case "stall":
            await asyncio.sleep(settings.stall_seconds)
        case "cut_gzip":
            body = body[: len(body) // 2]
        case "cut":
            return await _cut(
                request, web.StreamResponse(status=answer.status, headers=headers), body
            )
        case "slow":
            response = web.StreamResponse(status=answer.status, headers=headers)
            return await _drip(request, response, body, settings.slow_seconds)
    return web.Response(status=answer.status, headers=headers, body=body)


def _reset(request: web.BaseRequest) -> None:
    """End the connection with a RST, as a dying load balancer does."""
    if request.transport is not None:
        connection = request.transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RST)
        request.transport.abort()


async def _cut(
    request: web.BaseRequest, response: web.StreamResponse, body: bytes
) -> web.StreamResponse:
    """Promise the whole body, send half of it and hang up."""
    response.content_length = len(body)
    await response.prepare(request)
    await response.write(body[: len(body) // 2])
    if request.transport is not None:
        request.transport.close()
    return response


async def _drip(
    request: web.BaseRequest, response: web.StreamResponse, body: bytes, seconds: float
) -> web.StreamResponse:
    """Send the whole body in small pieces, evenly spread over `seconds`."""
    response.content_length = len(body)
    await response.prepare(request)
    size = max(1, -(-len(body) // _DRIPS))
    for start in range(0, len(body), size):
        await response.write(body[start : start + size])
        await asyncio.sleep(seconds / _DRIPS)
    return response
