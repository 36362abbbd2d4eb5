"""Receivers on loopback that answer as a test wants: well, wrongly, slowly, never, without end."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

OK = b"HTTP/1.1 204 No Content\r\n\r\n"


def answer(status, *, headers="", body=b"ok"):
    head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
    return head.encode() + body


@dataclass
class Request:
    method: str
    path: str
    headers: dict
    body: bytes


@dataclass
class Receiver:
    """Answers with the next of ``answers``, the last one for ever: bytes, or a coroutine function that writes."""

    answers: list = field(default_factory=lambda: [OK])
    requests: list = field(default_factory=list)
    connections: int = 0
    hung_up: asyncio.Event = field(default_factory=asyncio.Event)
    """A client closed its connection."""
    port: int = 0
    names: list = field(default_factory=list)
    """What clients asked for by TLS' server name."""

    async def serve(self, reader, writer):
        self.connections += 1
        try:
            while request := await self._read(reader):
                self.requests.append(request)
                reply = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
                if isinstance(reply, bytes):
                    writer.write(reply)
                    await writer.drain()
                else:
                    await reply(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self.hung_up.set()
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    async def _read(self, reader):
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
        except asyncio.IncompleteReadError:
            return None
        first, *lines = head.strip().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        method, path, _ = first.split(" ")
        return Request(method, path, headers, body)


@asynccontextmanager
async def receiving(*answers, host="127.0.0.1", port=0, tls=None):
    """A receiver that listens until the end of the block."""
    receiver = Receiver(*([list(answers)] if answers else []))
    if tls:
        tls.sni_callback = lambda _socket, name, _context: receiver.names.append(name)
    server = await asyncio.start_server(receiver.serve, host, port, ssl=tls)
    receiver.port = server.sockets[0].getsockname()[1]
    try:
        yield receiver
    finally:
        server.close()
        tasks = [task for task in asyncio.all_tasks() if "Receiver.serve" in repr(task.get_coro())]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def never(reader, _writer):
    """Takes the request and says nothing."""
    await reader.read()


def endless(status=200):
    async def reply(reader, writer):
        writer.write(f"HTTP/1.1 {status} X\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        while True:
            writer.write(b"4000\r\n" + b"x" * 0x4000 + b"\r\n")
            await writer.drain()

    return reply


def stuck(status=200):
    """A body that begins and never goes on."""

    async def reply(reader, writer):
        writer.write(f"HTTP/1.1 {status} X\r\nContent-Length: 1000\r\n\r\nbeginning".encode())
        await writer.drain()
        await reader.read()

    return reply


async def hang_up(_reader, writer):
    writer.close()


async def headers_without_end(_reader, writer):
    writer.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        writer.write(b"X-More: " + b"y" * 1000 + b"\r\n")
        await writer.drain()
