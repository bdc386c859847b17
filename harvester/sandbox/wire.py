"""Sending what `delivery` decided over a connection of aiohttp."""

import asyncio
import socket
import struct
from typing import Final

from aiohttp import web

from .delivery import Delivery

_RST: Final = struct.pack("ii", 1, 0)  # SO_LINGER on, for 0 s: close() sends a RST


async def send(request: web.BaseRequest, delivery: Delivery) -> web.StreamResponse:
    """Send an answer, or what is left of it."""
    if delivery.wait:
        await asyncio.sleep(delivery.wait)
    if delivery.end == "silent":
        await asyncio.Event().wait()
    if delivery.end == "closed" or delivery.pieces > 1:
        return await _in_pieces(request, delivery)
    if delivery.end == "reset":
        _reset(request)
    return web.Response(status=delivery.status, headers=delivery.headers, body=delivery.body)


def _reset(request: web.BaseRequest) -> None:
    """End the connection with a RST, as a dying load balancer does."""
    if request.transport is not None:
        connection = request.transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RST)
        request.transport.abort()


async def _in_pieces(request: web.BaseRequest, delivery: Delivery) -> web.StreamResponse:
    """Send the body piece by piece, and hang up afterwards if that is asked for."""
    response = web.StreamResponse(status=delivery.status, headers=delivery.headers)
    response.content_length = delivery.length
    await response.prepare(request)
    size = max(1, -(-len(delivery.body) // delivery.pieces))
    for start in range(0, len(delivery.body), size):
        await response.write(delivery.body[start : start + size])
        if delivery.pause:
            await asyncio.sleep(delivery.pause)
    if delivery.end == "closed" and request.transport is not None:
        request.transport.close()
    return response
