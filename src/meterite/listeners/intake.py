"""What connections bring, gathered and recorded together.

What this file guarantees: parts are decoded and recorded in the order in which they were put; no more than
:data:`HELD_BYTES_MAX` wait, and who puts more waits, too, so that a connection isn't read on: its client feels it as a
slow network. After the last part was put, :meth:`Intake.close` returns when all of them are on disk or counted as lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections import deque
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from meterite.listeners.keeper import Keeper
    from meterite.model.columns import Decoded

HELD_BYTES_MAX: Final = 1024 * 1024
BATCH_BYTES: Final = 256 * 1024
"""So much is decoded at a time: requests are answered in between."""


class Intake:
    """``decode`` makes readings of parts; they wait ``flush_s`` for others, or until there are :data:`BATCH_BYTES`."""

    def __init__(self, decode: Callable[[Sequence[bytes]], Decoded], keeper: Keeper, flush_s: float) -> None:
        self._decode = decode
        self._keeper = keeper
        self._flush_s = flush_s
        self._parts: deque[bytes] = deque()
        self._held_bytes = 0
        self._some = asyncio.Event()
        self._enough = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._closing = False
        self._task = asyncio.create_task(self._run())

    async def put(self, part: bytes) -> None:
        """Waits until there is room."""
        while not self._room.is_set():
            await self._room.wait()
        self._parts.append(part)
        self._held_bytes += len(part)
        self._some.set()
        if self._held_bytes >= BATCH_BYTES:
            self._enough.set()
        if self._held_bytes >= HELD_BYTES_MAX:
            self._room.clear()

    async def close(self) -> None:
        self._closing = True
        self._keeper.close()
        self._some.set()
        self._enough.set()
        await self._task

    async def _run(self) -> None:
        while True:
            await self._some.wait()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._enough.wait(), self._flush_s)
            parts = self._take()
            if parts:
                await self._keeper.keep(functools.partial(self._decode, parts))
            elif self._closing:
                return

    def _take(self) -> list[bytes]:
        taken: list[bytes] = []
        size = 0
        while self._parts and size < BATCH_BYTES:
            taken.append(self._parts.popleft())
            size += len(taken[-1])
        self._held_bytes -= size
        self._room.set()
        if not self._closing:
            if self._held_bytes < BATCH_BYTES:
                self._enough.clear()
            if not self._parts:
                self._some.clear()
        return taken
