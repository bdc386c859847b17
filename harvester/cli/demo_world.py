"""What the demo serves, and where: a small account with a bad connection, the same every time."""

import socket
from contextlib import closing
from pathlib import Path

from harvester.errors import ConfigError
from harvester.sandbox import SandboxSettings

PAGE_SIZE = 50
RATE = 60.0
DEMO = SandboxSettings(
    seed=7,
    campaigns=40,
    pages=150,
    rows_per_page=PAGE_SIZE,
    latency=0.03,
    jitter=0.02,
    faults={
        "throttle": 0.012,
        "error500": 0.02,
        "error503": 0.01,
        "reset": 0.015,
        "cut": 0.01,
        "cut_gzip": 0.01,
        "html": 0.01,
    },
)


def choose_port(memory: Path, *, fresh: bool) -> int:
    """The port the demo of this directory is served on, the same at every call.

    A harvest belongs to one origin, so a demo that goes on must find the sandbox where it was.
    Raise `ConfigError` if that port is taken, or if there can be no such directory.
    """
    try:
        return _chosen(memory, fresh=fresh)
    except OSError as wrong:
        raise ConfigError(f"cannot keep {memory} (--output): {wrong.strerror}") from None


def _chosen(memory: Path, *, fresh: bool) -> int:
    text = memory.read_text().strip() if memory.exists() and not fresh else ""
    if text.isdecimal():
        port = int(text)
        if not _is_free(port):
            raise ConfigError(
                f"port {port}, where this demo was served, is taken: is another demo running? "
                "Stop it, or give another --output, or --fresh"
            )
        return port
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    memory.parent.mkdir(parents=True, exist_ok=True)
    memory.write_text(f"{port}\n")
    return port


def _is_free(port: int) -> bool:
    with closing(socket.socket()) as probe:
        # As the server itself will: a port in TIME_WAIT after a kill is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
