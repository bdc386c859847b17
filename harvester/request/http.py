"""One request: one answer, or one classified error.

The only place that talks HTTP. What aiohttp does unasked is turned off here: the hidden second
GET, redirects, cookies, decompression, proxies from the environment, the resolver of `speedups`.
"""

import string
from typing import Any
from urllib.parse import quote

import aiohttp
from aiohttp.connector import Connection
from aiohttp.tracing import Trace
from yarl import URL

from harvester._version import __version__
from harvester.api.base import Api
from harvester.errors import TransportTrouble
from harvester.model import Request
from harvester.request.body import ACCEPT_ENCODING, keep_freed_memory, read_body, read_error_body
from harvester.request.credentials import Credentials

_KEEPALIVE = 15.0


class Dropped(aiohttp.ClientError):
    """The connection went away. aiohttp does not send again after an error of this class."""


async def no_hidden_retry(
    request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    """Turn off aiohttp's silent second GET: one charge, one request on the wire."""
    try:
        return await handler(request)
    except aiohttp.ClientConnectorError:
        raise
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as gone:
        raise Dropped(type(gone).__name__) from None


class CleanConnector(aiohttp.TCPConnector):
    """A pool that never lends a connection on which something has come unasked.

    aiohttp would take it for the answer to the next request: one campaign's page for another's.
    """

    async def connect(
        self, req: aiohttp.ClientRequest, traces: list[Trace], timeout: aiohttp.ClientTimeout
    ) -> Connection:
        """A new connection, or an idle one with nothing on it."""
        while True:
            connection = await super().connect(req, traces, timeout)
            if connection.protocol is None or not connection.protocol.should_close:
                return connection
            connection.close()


def open_session(*, connections: int, timeout: float) -> aiohttp.ClientSession:
    """A session for one origin. It holds no secret: those are given to each request.

    `timeout` is for a whole request (s), so that a slow drip of bytes ends in time too. The pool
    has a connection for each request in flight: waiting for one would count against the timeout.
    """
    keep_freed_memory()
    return aiohttp.ClientSession(
        connector=CleanConnector(
            limit=connections, resolver=aiohttp.ThreadedResolver(), keepalive_timeout=_KEEPALIVE
        ),
        timeout=aiohttp.ClientTimeout(
            total=timeout,
            ceil_threshold=float("inf"),  # or a timeout over 5 s is rounded up to a full second
        ),
        headers={
            "Accept": "application/json",
            "Accept-Encoding": ACCEPT_ENCODING,
            "User-Agent": f"harvester/{__version__}",
        },
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        trust_env=False,
        middlewares=(no_hidden_retry,),
    )


class HttpSender:
    """Sends each request once, with the key and the token of the moment."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        api: Api,
        credentials: Credentials,
        *,
        max_page_bytes: int,
        proxy: str | None = None,
    ) -> None:
        self._session = session
        self._api = api
        self._credentials = credentials
        self._max_page_bytes = max_page_bytes
        self._proxy = proxy

    async def send(self, request: Request[Any]) -> bytes:
        """Give the body of a 200, else raise what the answer means. An error may quote a secret
        that the answer repeats: `Redactor.scrub_error` is for the caller."""
        # `encoded`: the cursor goes out as the bytes it came in, %2F and all; what is not ASCII
        # would break the request line, and goes percent-encoded.
        signed = self._api.request(request.link, self._credentials)
        url = signed.url if signed.url.isascii() else quote(signed.url, safe=string.punctuation)
        try:
            async with self._session.get(
                URL(url, encoded=True),
                headers=signed.headers,
                allow_redirects=False,
                proxy=self._proxy,
            ) as response:
                if response.status == 200:
                    return await read_body(response, cap=self._max_page_bytes)
                body = await read_error_body(response)
                raise self._api.classify_response(
                    request.link, response.status, response.headers, body
                )
        except (aiohttp.ClientError, TimeoutError) as error:
            # Its text or repr can hold the URL with the key, or the headers with the token.
            raise _translated(error, self._session.timeout.total) from None


def _translated(error: Exception, timeout: float | None) -> TransportTrouble:
    match error:
        case TimeoutError():
            return TransportTrouble(f"no whole answer within {timeout:g} s", cause="timeout")
        case Dropped():
            return TransportTrouble(f"the connection was dropped ({error})", cause="reset")
        case aiohttp.ClientPayloadError():
            return TransportTrouble("the body was cut short", cause="cut")
        case aiohttp.ClientConnectorCertificateError():
            return TransportTrouble("the server's certificate is not valid", cause="tls")
        case aiohttp.ClientProxyConnectionError():
            return TransportTrouble(
                f"cannot connect to the proxy: {error.os_error.strerror}", cause="connect"
            )
        case aiohttp.ClientConnectorError():
            return TransportTrouble(f"cannot connect: {error.os_error.strerror}", cause="connect")
        case aiohttp.ClientHttpProxyError():
            return TransportTrouble(f"the proxy answered HTTP {error.status}", cause="proxy")
        case aiohttp.ClientResponseError():
            return TransportTrouble("the answer is not HTTP", cause="protocol")
        case _:
            return TransportTrouble(f"the request failed ({type(error).__name__})")
