"""A simulated v2 API on the loopback interface, for the demo, the tests and the benchmarks.

    async with Sandbox(SandboxSettings(campaigns=40, pages=150, rate_limit=4)) as sandbox:
        ...  # any HTTP client against sandbox.base_url
        sandbox.world.records("opens", campaign_id)  # what it should have found
        sandbox.log  # what it did

It is an honest judge: it shares no code with the client and knows nothing of what the client hopes
for. Everything it serves follows from a seed. From the bottom up:

    chance                     repeatable chance
    reports, sizes, stream     how rows are spelled, how many there are, each from its number
    world                      the account: campaigns and events
    limits, faults, settings   who may pass; what goes wrong; all that can be asked for
    answers, cursor, question  answers as values; opaque cursors; a request, read
    api, spoil                 question to answer; what a fault makes of it
    log, wire, server          what arrived; faults of the connection; the port
"""

from .faults import KINDS, FaultPlan
from .log import Hit
from .server import Sandbox, serve
from .settings import SandboxSettings
from .world import World

__all__ = ["KINDS", "FaultPlan", "Hit", "Sandbox", "SandboxSettings", "World", "serve"]
