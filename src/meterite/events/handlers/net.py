"""Calls to receivers over HTTP, from inside a network that a receiver's address must not lead into.

What this file guarantees:

- The address that is checked is the one that is connected to: the last check sits where the socket is made, after all
  names are resolved, so that nothing a resolver says later, or else, changes anything. TLS and ``Host`` go by the name.
- A name's addresses that may not be called are left out; where none is left, the call is refused.
- Redirects aren't followed, cookies aren't kept, and proxies, netrc and the like from the environment aren't used.
- Of an answer's body :data:`BODY_BYTES_MAX` are read, packed as it came, for :data:`BODY_S` and within the timeout;
  then the connection is cut. Once the status is there, it alone decides.
- What goes wrong comes out as Retry or Refused, whose reasons show neither the URL nor an address.
"""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NoReturn, TypeAlias

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from meterite.events.handler import Refused, Retry
from meterite.events.handlers.addresses import Reach, reach
from meterite.events.handlers.replies import Reply

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping

    from yarl import URL

BODY_BYTES_MAX: Final = 64 * 1024
BODY_S: Final = 1.0
DNS_KEPT_S: Final = 10
IDLE_S: Final = 4.0
"""Servers close idle connections after 5 s and more; a call on one that is being closed would fail for nothing."""
ADDRESSES_MAX: Final = 16

SPARE_S: Final = 0.25
"""Left of the timeout when no more of the body is read, so that an answer that came is never taken for none."""
USER_AGENT: Final = "Meterite"

Lookup: TypeAlias = Callable[[str], Awaitable[list[str]]]
"""A name to its addresses; OSError where it can't be resolved."""


class AddressRefusedError(OSError):
    """An OSError, since that is what may go wrong where sockets are made."""


class Guard:
    """What may be called."""

    def __init__(self, *, allow_private: bool, judge: Callable[[str], Reach] = reach) -> None:
        self._most = Reach.INNER if allow_private else Reach.OPEN
        self._judge = judge

    def allows(self, address: str) -> bool:
        return self._judge(address) <= self._most

    def check(self, address: str) -> None:
        verdict = self._judge(address)
        if verdict is Reach.NEVER:
            raise AddressRefusedError("leads to a link-local address, which is never called")
        if verdict > self._most:
            raise AddressRefusedError("leads to an address that isn't globally routable; see allow_private")

    def socket(self, info: aiohttp.AddrInfoType) -> socket.socket:
        """The socket for one address, which is connected to it and nothing else."""
        family, kind, protocol, _, place = info
        self.check(str(place[0]))
        return socket.socket(family, kind, protocol)


async def look_up(name: str) -> list[str]:
    """By the system's resolver, in a thread that nobody waits for at the end: a lookup can hang."""
    loop = asyncio.get_running_loop()
    found: asyncio.Future[list[str]] = loop.create_future()

    def settle(addresses: list[str], error: Exception | None) -> None:
        if found.done():
            return
        if error:
            found.set_exception(error)
        else:
            found.set_result(addresses)

    def ask() -> None:
        addresses: list[str] = []
        failed: Exception | None = None
        try:
            infos = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
            addresses = [str(info[4][0]) for info in infos]
        except (OSError, UnicodeError) as exc:
            failed = OSError(f"can't be resolved: {exc}")
        with suppress(RuntimeError):  # the loop is closed, nobody asks any more
            loop.call_soon_threadsafe(settle, addresses, failed)

    threading.Thread(target=ask, name="meterite-dns", daemon=True).start()
    return await found


class _Resolver(AbstractResolver):
    """Names to the addresses among theirs that may be called. aiohttp asks once for all calls that wait."""

    def __init__(self, guard: Guard, lookup: Lookup) -> None:
        self._guard = guard
        self._lookup = lookup

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        del family
        addresses = (await self._lookup(host))[:ADDRESSES_MAX]
        if not addresses:
            raise OSError("the name has no address")
        allowed = [address for address in addresses if self._guard.allows(address)]
        if not allowed:
            self._guard.check(addresses[0])
        return [_result(host, address, port) for address in allowed]

    async def close(self) -> None:
        pass


def _result(name: str, address: str, port: int) -> ResolveResult:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
    return ResolveResult(hostname=name, host=address, port=port, family=family, proto=0, flags=flags)


class Caller:
    """Posts to receivers, from one event loop. Without ``tls`` the system's authorities are trusted."""

    def __init__(
        self,
        guard: Guard,
        *,
        connections: int,
        tls: ssl.SSLContext | None = None,
        lookup: Lookup = look_up,
    ) -> None:
        connector = aiohttp.TCPConnector(
            resolver=_Resolver(guard, lookup),
            ttl_dns_cache=DNS_KEPT_S,
            socket_factory=guard.socket,
            ssl=tls or True,
            limit=connections,
            keepalive_timeout=IDLE_S,
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            auto_decompress=False,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
            headers={"user-agent": USER_AGENT, "accept-encoding": "identity"},
        )

    async def post(self, url: URL, body: bytes, headers: Mapping[str, str], *, timeout_s: float) -> Reply:
        """The answer, whatever it says. Retry or Refused where none came."""
        until_s = time.monotonic() + timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                response = await self._session.post(url, data=body, headers=headers, allow_redirects=False)
        except TimeoutError:
            raise Retry(f"no answer within {timeout_s:g} s") from None
        except aiohttp.ClientConnectorError as exc:
            _not_connected(exc)
        except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError):
            raise Refused("the url can't be called") from None
        except (aiohttp.ClientError, OSError) as exc:
            raise Retry(f"the call broke off: {type(exc).__name__}") from None
        try:
            beginning = await _beginning(response, min(BODY_S, until_s - time.monotonic() - SPARE_S))
        finally:
            if response.content.at_eof():
                response.release()
            else:
                response.close()
        return Reply(response.status, response.headers.get("retry-after"), beginning)

    async def close(self) -> None:
        await self._session.close()


async def _beginning(response: aiohttp.ClientResponse, seconds: float) -> bytes:
    """What comes of the body within the bounds. Whatever goes wrong meanwhile, the status is there already."""
    if response.content.at_eof():  # most answers have none, and a timer costs as much as the rest
        return b""
    body = bytearray()
    with suppress(TimeoutError, aiohttp.ClientError, OSError):
        async with asyncio.timeout(seconds):
            while len(body) < BODY_BYTES_MAX and not response.content.at_eof():
                body += await response.content.read(BODY_BYTES_MAX - len(body))
    return bytes(body)


def _not_connected(exc: aiohttp.ClientConnectorError) -> NoReturn:
    if isinstance(exc, aiohttp.ClientConnectorCertificateError):
        raise Retry("the receiver's certificate isn't valid for its name, or isn't trusted") from None
    if isinstance(exc.os_error, AddressRefusedError):
        raise Refused(f"the url {exc.os_error}") from None
    if isinstance(exc, aiohttp.ClientConnectorDNSError):
        raise Retry("the receiver's name can't be resolved") from None
    if isinstance(exc, aiohttp.ClientSSLError):
        raise Retry("TLS with the receiver failed") from None
    why = os.strerror(exc.os_error.errno) if exc.os_error.errno else "no address of it answers"
    raise Retry(f"no connection: {why}") from None
