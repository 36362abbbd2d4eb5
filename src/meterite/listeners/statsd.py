"""StatsD over UDP and TCP: samples in, an interval's readings out.

What this file guarantees: samples are taken as they come and never wait; what there is no room for is dropped and
counted. When an interval ends, or the listener closes, its readings are recorded, all at that time.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
from typing import TYPE_CHECKING, Any, Final

from meterite.listeners.aggregate import Aggregate
from meterite.wire.statsd import decode_statsd

if TYPE_CHECKING:
    from collections.abc import Callable

    from meterite.listener_setting import ListenerSetting
    from meterite.listeners.keeper import Keeper, Tally

RECEIVE_BYTES: Final = 4 * 1024 * 1024
"""What the kernel is asked to hold of datagrams while this process does something else."""


class Intervals:
    """Gathers samples; ``now_us`` is the time of an interval's readings."""

    def __init__(self, keeper: Keeper, tally: Tally, flush_s: float, now_us: Callable[[], int]) -> None:
        self._keeper = keeper
        self._tally = tally
        self._flush_s = flush_s
        self._now_us = now_us
        self._aggregate = Aggregate()
        self._closing = asyncio.Event()
        self._task = asyncio.create_task(self._run())

    def take(self, lines: bytes) -> None:
        found = decode_statsd(lines)
        self._tally.reject(found.rejected)
        dropped = sum(not self._aggregate.add(sample) for sample in found.samples)
        if dropped:
            self._tally.add("dropped", "an interval holds no more samples", dropped)

    async def close(self) -> None:
        self._closing.set()
        self._keeper.close()
        await self._task

    async def _run(self) -> None:
        while not self._closing.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), self._flush_s)
            if len(self._aggregate):
                await self._keeper.keep(functools.partial(self._aggregate.take, self._now_us()))


class UdpListener(asyncio.DatagramProtocol):
    """Hands each datagram of an address of the allow-list to ``take``."""

    def __init__(self, setting: ListenerSetting, tally: Tally, take: Callable[[bytes], None]) -> None:
        self._setting = setting
        self._tally = tally
        self._take = take
        self._transport: asyncio.DatagramTransport | None = None

    async def open(self) -> None:
        """OSError."""
        loop = asyncio.get_running_loop()
        address = (self._setting.host, self._setting.port)
        self._transport, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=address)
        with contextlib.suppress(OSError):
            self._transport.get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES
            )

    async def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        if self._setting.allows(addr[0]):
            self._take(data)
        else:
            self._tally.add("foreign", f"{addr[0]} isn't in the allow-list")
