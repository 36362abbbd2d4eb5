"""Threads for what blocks: one lane for the group commit, one for other writes, a few for reads, one for decoding.

Each lane's queue is bounded; a full one answers 503 rather than grow. A write whose turn doesn't come in time is not
begun: while another program holds the database, those behind the first one aren't made to wait once more each.
"""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Final, ParamSpec, TypeVar

from meterite.model.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable

P = ParamSpec("P")
T = TypeVar("T")

READERS: Final = 4
WAITING_MAX: Final = 1000
WRITE_WAIT_S: Final = 5.0


class Lane:
    """A bounded queue before some threads."""

    def __init__(self, name: str, threads: int, wait_s: float | None = None) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=f"meterite-{name}")
        self._wait_s = wait_s
        self._waiting = 0

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        if self._waiting >= WAITING_MAX:
            raise UnavailableError("queue-full", "Too many requests are waiting; try again.")
        self._waiting += 1
        try:
            until = None if self._wait_s is None else time.monotonic() + self._wait_s
            return await asyncio.wrap_future(
                self._pool.submit(_in_time, until, partial(work, *args, **kwargs))
            )
        finally:
            self._waiting -= 1

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)


def _in_time(until: float | None, work: Callable[[], T]) -> T:
    if until is not None and time.monotonic() > until:
        raise UnavailableError("queue-full", "Too many writes were waiting before this one; try again.")
    return work()


class Lanes:
    """The service's threads."""

    def __init__(self) -> None:
        self._reads = Lane("read", READERS)
        self._writes = Lane("write", 1, WRITE_WAIT_S)
        self._decodes = Lane("decode", 1)

    async def read(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._reads.run(work, *args, **kwargs)

    async def write(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._writes.run(work, *args, **kwargs)

    async def decode(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """One large body at a time: what decoding takes in memory is several times the body."""
        return await self._decodes.run(work, *args, **kwargs)

    def close(self) -> None:
        self._reads.close()
        self._writes.close()
        self._decodes.close()
