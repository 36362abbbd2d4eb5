"""Connections over TCP, cut into lines or into frames.

What this file guarantees: only addresses of the allow-list are read from, and :data:`CONNECTIONS_MAX` of them at once;
a connection holds a line or a frame at most beside what is handed on, and isn't read while that waits; a line without
its end is none, since it may have been cut. A connection that says what can't be divided is closed.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from meterite.listener_setting import ListenerSetting
    from meterite.listeners.keeper import Tally

CONNECTIONS_MAX: Final = 1000
LINE_BYTES_MAX: Final = 16 * 1024
FRAME_BYTES_MAX: Final = 1024 * 1024
"""As carbon's."""
_READ_BYTES: Final = 64 * 1024
_LENGTH_BYTES: Final = 4


async def lines(reader: asyncio.StreamReader, tally: Tally) -> AsyncIterator[bytes]:
    """Whole lines, as many as are there."""
    rest = b""
    while data := await reader.read(_READ_BYTES):
        rest += data
        end = rest.rfind(b"\n") + 1
        if end:
            yield rest[:end]
            rest = rest[end:]
        if len(rest) > LINE_BYTES_MAX:
            tally.add("broken", f"a line has more than {LINE_BYTES_MAX} bytes")
            return
    if rest:
        tally.add("broken", "a connection ended within a line")


async def frames(reader: asyncio.StreamReader, tally: Tally) -> AsyncIterator[bytes]:
    """Bytes behind their length, big-endian in four bytes."""
    with contextlib.suppress(asyncio.IncompleteReadError):
        while True:
            size = int.from_bytes(await reader.readexactly(_LENGTH_BYTES), "big")
            if size > FRAME_BYTES_MAX:
                tally.add("broken", f"a pickle has more than {FRAME_BYTES_MAX} bytes")
                return
            yield await reader.readexactly(size)


class TcpListener:
    """Hands each part of each connection to ``take``, which may wait."""

    def __init__(
        self,
        setting: ListenerSetting,
        tally: Tally,
        divide: Callable[[asyncio.StreamReader, Tally], AsyncIterator[bytes]],
        take: Callable[[bytes], Awaitable[None]],
    ) -> None:
        self._setting = setting
        self._tally = tally
        self._divide = divide
        self._take = take
        self._connections: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        """OSError."""
        self._server = await asyncio.start_server(
            self._serve, self._setting.host, self._setting.port, limit=_READ_BYTES
        )

    async def close(self) -> None:
        """What was read is handed on; what wasn't, isn't."""
        if self._server is None:
            return
        self._server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            if self._may(writer):
                async for part in self._divide(reader, self._tally):
                    await self._take(part)
        except (OSError, asyncio.CancelledError):
            pass  # the client went, or the listener closes: either way this connection is over
        finally:
            self._connections.discard(task)
            writer.transport.abort()

    def _may(self, writer: asyncio.StreamWriter) -> bool:
        peer = writer.get_extra_info("peername")
        address = peer[0] if peer else ""
        if not self._setting.allows(address):
            self._tally.add("foreign", f"{address} isn't in the allow-list")
            return False
        if len(self._connections) > CONNECTIONS_MAX:
            self._tally.add("too_many", f"more than {CONNECTIONS_MAX} connections")
            return False
        return True
