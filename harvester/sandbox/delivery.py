"""How an answer reaches the client: as a value, so that no socket is needed to know it."""

import zlib
from dataclasses import dataclass, replace
from typing import Literal

from .answers import Answer
from .settings import SandboxSettings

_DRIPS = 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Delivery:
    """What goes over the connection. Times in seconds.

    `length` is the Content-Length. `wait` passes before the first byte; the `body` is sent in
    `pieces` that are `pause` apart. `end`: the connection stays good, is reset before any byte, is
    closed after the body, or stays silent for ever.
    """

    status: int
    headers: dict[str, str]
    body: bytes
    length: int
    wait: float = 0.0
    pieces: int = 1
    pause: float = 0.0
    end: Literal["good", "reset", "closed", "silent"] = "good"


def deliver(
    answer: Answer, fault: str | None, encodings: str, settings: SandboxSettings
) -> Delivery:
    """The delivery of an answer. `encodings`: the client's Accept-Encoding."""
    body, headers = answer.body, {"Content-Type": answer.content_type, **answer.headers}
    if settings.gzip and body and "gzip" in encodings:
        body = zlib.compress(body, 1, wbits=31)
        headers["Content-Encoding"] = "gzip"
    good = Delivery(
        status=answer.status, headers=headers, body=body, length=len(body), wait=settings.latency
    )
    half = body[: len(body) // 2]
    match fault:
        case "reset" | "lost":
            return replace(good, end="reset")
        case "timeout":
            return replace(good, end="silent")
        case "cut":
            return replace(good, body=half, end="closed")
        case "cut_gzip":
            return replace(good, body=half, length=len(half))
        case "stall":
            return replace(good, wait=settings.latency + settings.stall_seconds)
        case "slow":
            return replace(good, pieces=_DRIPS, pause=settings.slow_seconds / _DRIPS)
    return good
