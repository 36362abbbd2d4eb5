"""The load: a process of its own that sends requests over keep-alive connections on the loopback and counts answers.

Each connection sends its next request when the last answer is complete, until ``total`` were answered. Where requests
say ``Connection: close``, each goes over a connection of its own, and is answered when that has ended. Any answer but
200 and 204 ends the run with an error: a fast refusal is no throughput.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, cast

if TYPE_CHECKING:
    from collections.abc import Sequence
    from multiprocessing.connection import Connection

OK: Final = (b"HTTP/1.1 200", b"HTTP/1.1 204")
CLOSE: Final = b"Connection: close\r\n"


@dataclass(frozen=True, slots=True)
class Load:
    """How long it took from the first request to the last answer."""

    answered: int
    seconds: float

    @property
    def per_s(self) -> float:
        return self.answered / self.seconds


def ending(requests: Sequence[bytes]) -> list[bytes]:
    """The same, each as the last one of its connection."""
    return [each.replace(b"\r\n", b"\r\n" + CLOSE, 1) for each in requests]


def request(method: str, path: str, body: object, token: str, media: str = "application/json") -> bytes:
    """A request's bytes; a body that isn't bytes yet goes out as JSON."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = (
        f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nx-auth-token: {token}\r\nContent-Type: {media}\r\n"
    )
    return f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data


def send(port: int, requests: Sequence[bytes], *, connections: int, total: int) -> Load:
    """Connection n takes requests n, n + connections, … and begins anew where they end."""
    here, there = multiprocessing.Pipe()
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=_work, args=(there, port, list(requests), connections, total))
    process.start()
    there.close()
    try:
        answered, seconds, wrong = here.recv()
    except EOFError:
        raise RuntimeError("the load broke off") from None
    finally:
        process.join(30)
    if wrong:
        raise RuntimeError(f"no success: {wrong[:300]!r}")
    return Load(answered, seconds)


def _work(out: Connection, port: int, requests: list[bytes], connections: int, total: int) -> None:
    import uvloop

    out.send(uvloop.run(_drive(port, requests, connections, total)))


async def _drive(port: int, requests: list[bytes], connections: int, total: int) -> tuple[int, float, bytes]:
    loop = asyncio.get_running_loop()
    shared = _Shared(total, loop.create_future())
    parts = [requests[n::connections] or requests for n in range(connections)]
    if all(CLOSE in each for each in requests):
        began = time.monotonic()
        tasks = [loop.create_task(_one_each(port, part, shared)) for part in parts]
        wrong = await shared.done
        await asyncio.wait(tasks)
        return shared.answered, time.monotonic() - began, wrong
    clients = [_Client(part, shared) for part in parts]
    for client in clients:
        await loop.create_connection(lambda client=client: client, "127.0.0.1", port)  # type: ignore[misc]  # mypy can't type a lambda's defaults
    began = time.monotonic()
    for client in clients:
        client.next()
    wrong = await shared.done
    return shared.answered, time.monotonic() - began, wrong


async def _one_each(port: int, requests: list[bytes], shared: _Shared) -> None:
    """A connection a request, one after the other."""
    loop, place = asyncio.get_running_loop(), 0
    while shared.left and not shared.done.done():
        shared.left -= 1
        connection = _Connection(requests[place])
        try:
            await loop.create_connection(lambda connection=connection: connection, "127.0.0.1", port)  # type: ignore[misc]  # as above
            answer = await connection.ended
        except OSError as error:
            answer = f"no connection: {error}".encode()
        shared.count(answer if _is_whole(answer) else b"cut: " + answer)
        place = (place + 1) % len(requests)


class _Shared:
    """What the connections count together."""

    def __init__(self, total: int, done: asyncio.Future[bytes]) -> None:
        self.left = total
        self.total = total
        self.answered = 0
        self.done = done

    def count(self, answer: bytes) -> None:
        """What isn't a success ends it all."""
        if not answer.startswith(OK):
            self.finish(answer)
            return
        self.answered += 1
        if self.answered == self.total:
            self.finish(b"")

    def finish(self, wrong: bytes) -> None:
        if not self.done.done():
            self.done.set_result(wrong)


class _Client(asyncio.Protocol):
    def __init__(self, requests: list[bytes], shared: _Shared) -> None:
        self._requests = requests
        self._shared = shared
        self._place = 0
        self._got = b""
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.WriteTransport", transport)  # uvloop's own isn't a subclass

    def next(self) -> None:
        if self._shared.left == 0:
            return
        self._shared.left -= 1
        assert self._transport is not None
        self._transport.write(self._requests[self._place])
        self._place = (self._place + 1) % len(self._requests)

    def data_received(self, data: bytes) -> None:
        self._got += data
        if not _is_whole(self._got):
            return
        answer, self._got = self._got, b""
        self._shared.count(answer)
        if answer.startswith(OK):
            self.next()

    def connection_lost(self, exc: Exception | None) -> None:
        self._shared.finish(f"the connection was lost: {exc}".encode())


class _Connection(asyncio.Protocol):
    """For one request; ``ended`` is its answer."""

    def __init__(self, request: bytes) -> None:
        self._request = request
        self._got = b""
        self.ended: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast("asyncio.WriteTransport", transport).write(self._request)

    def data_received(self, data: bytes) -> None:
        self._got += data

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended.set_result(self._got if exc is None else f"the connection was lost: {exc}".encode())


def _is_whole(answer: bytes) -> bool:
    end = answer.find(b"\r\n\r\n")
    return end >= 0 and len(answer) >= end + 4 + _length(answer[:end])


def _length(head: bytes) -> int:
    if head.startswith(OK[1]):
        return 0
    place = head.lower().find(b"content-length:")
    if place < 0:
        assert head.startswith(OK[1]), head
        return 0
    return int(head[place + 15 :].split(b"\r\n", 1)[0])
