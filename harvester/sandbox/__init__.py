"""The vendor's API simulated on the loopback interface, for the demo, the tests and the benchmarks.

    async with Sandbox(SandboxSettings(campaigns=40, pages=150, rate_limit=4)) as sandbox:
        ...  # any HTTP client against sandbox.base_url
        sandbox.world.records("opens", campaign_id)  # what it should have found
        sandbox.log  # what it did

One account stands behind both versions: `/v2/…` with a key and a token, `/v3/…` with a token, and
`/oauth2/default/v1/…`, where a person signs in. It is an honest judge: it shares no code with the
client and knows nothing of what the client hopes for. Everything it serves follows from a seed.
From the bottom up:

    chance, ids                     repeatable chance; ids made from numbers and read back
    reports, rows                   which reports there are; contacts and rows as JSON text
    limits, faults, settings        pace and quota; what goes wrong; all that can be asked for
    sizes, stream                   how many events; an event from its number
    mailings                        campaigns, their emails and resends, and what changes them
    views                           reports as a version lists them, row by row
    catalog, world                  campaigns by their ids; the account, and its truth
    cursor, answers, dialect        opaque cursors; answers as values; how a version says things
    requests                        a request as a value
    version, v2                     what both versions do alike; the v2 API
    tokens, sign_in                 tokens; the device flow and renewals
    v3_documents, v3                the v3 API
    corrupt, delivery               what a fault makes of an answer; how it reaches the client
    log                             what became of a request, and its line
    sign_in_api, service            the sign-in's paths; a request in, a reply out
    server                          the same on a port
"""

from .faults import KINDS, FaultPlan
from .log import Hit
from .requests import Request
from .server import Sandbox, serve
from .service import Reply, Service
from .settings import CountSettings, SandboxSettings, SignInSettings
from .world import World

__all__ = [
    "KINDS",
    "CountSettings",
    "FaultPlan",
    "Hit",
    "Reply",
    "Request",
    "Sandbox",
    "SandboxSettings",
    "Service",
    "SignInSettings",
    "World",
    "serve",
]
