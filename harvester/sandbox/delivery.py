"""How an answer reaches the client: as a value, so that no socket is needed to know it."""

from dataclasses import dataclass
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
    body, headers = answer.body.plain, {"Content-Type": answer.content_type, **answer.headers}
    if settings.gzip and body and "gzip" in encodings:
        body = answer.body.gzip()
        headers["Content-Encoding"] = "gzip"
    length, wait, pieces, pause = len(body), settings.latency, 1, 0.0
    end: Literal["good", "reset", "closed", "silent"] = "good"
    match fault:
        case "reset" | "lost":
            end = "reset"
        case "timeout":
            end = "silent"
        case "cut":
            body, end = body[: len(body) // 2], "closed"
        case "cut_gzip":
            body = body[: len(body) // 2]
            length = len(body)
        case "stall":
            wait += settings.stall_seconds
        case "slow":
            pieces, pause = _DRIPS, settings.slow_seconds / _DRIPS
    return Delivery(
        status=answer.status,
        headers=headers,
        body=body,
        length=length,
        wait=wait,
        pieces=pieces,
        pause=pause,
        end=end,
    )
