"""Threads for what blocks: one lane for the group commit, one for other writes, a few for reads, two for decoding.

Each lane's queue is bounded; a full one answers 503 rather than grow. A write whose turn doesn't come in time is not
begun: while another program holds the database, those behind the first one aren't made to wait once more each. What has
begun isn't refused for want of time or room, however many came behind it.

Nobody waits for all of another org's work. A write that takes long (making many series) is done in steps, and goes to
the end of the queue after each; of an org only one such write is under way, the others stand in a line of their own.
Bodies to decode are as many steps, so that orgs take turns there, too, and the largest have a lane of their own.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final, Generic, ParamSpec, TypeVar

from meterite.model.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from meterite.storage.steps import Steps

P = ParamSpec("P")
T = TypeVar("T")

READERS: Final = 4
WAITING_MAX: Final = 1000
"""Before a lane, and in an org's line."""
WRITE_WAIT_S: Final = 5.0
LARGE_BODY_BYTES: Final = 2 << 20
"""As much of the slowest format takes 0.8 s on a busy machine: so long another org's bodies of that size wait."""


@dataclass(slots=True)
class _Line:
    """Those of an org, one at a time, in the order they came."""

    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    length: int = 0


@dataclass(frozen=True, slots=True)
class _End(Generic[T]):
    """What work in steps came to."""

    value: T


class Lane:
    """A bounded queue before some threads, and before it a line for each org, as long as somebody stands in it."""

    def __init__(self, name: str, threads: int, wait_s: float | None = None) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=f"meterite-{name}")
        self._wait_s = wait_s
        self._waiting = 0
        self._lines: dict[str, _Line] = {}

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        if self._waiting >= WAITING_MAX:
            raise _full()
        until = None if self._wait_s is None else time.monotonic() + self._wait_s
        return await self._run(_in_time, until, partial(work, *args, **kwargs))

    async def _run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        self._waiting += 1
        try:
            return await asyncio.wrap_future(self._pool.submit(work, *args, **kwargs))
        finally:
            self._waiting -= 1

    async def run_in_line(self, org: str, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """When all that the org asked for before in this way is done."""
        async with self._in_line(org):
            return await self.run(work, *args, **kwargs)

    async def run_steps(self, org: str, steps: Steps[T]) -> T:
        """As :meth:`run_in_line`, behind all that came meanwhile after each step. In a lane of one thread."""
        async with self._in_line(org):
            try:
                done = await self.run(_step, steps)
                while not isinstance(done, _End):
                    await asyncio.sleep(done)
                    done = await self._run(_step, steps)
            except BaseException:
                self._end(steps)
                raise
            return done.value

    def _end(self, steps: Steps[T]) -> None:
        try:
            self._pool.submit(steps.close)  # behind the step that may be under way
        except RuntimeError:  # the lane is closed
            with contextlib.suppress(ValueError):  # under way: it ends when nobody knows of it any more
                steps.close()

    @contextlib.asynccontextmanager
    async def _in_line(self, org: str) -> AsyncIterator[None]:
        line = self._lines.setdefault(org, _Line())
        if line.length >= WAITING_MAX:
            raise _full()
        line.length += 1
        try:
            try:
                async with asyncio.timeout(self._wait_s):
                    await line.turn.acquire()
            except TimeoutError:
                raise _late() from None
            try:
                yield
            finally:
                line.turn.release()
        finally:
            line.length -= 1
            if not line.length:
                del self._lines[org]

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)


def _full() -> UnavailableError:
    return UnavailableError("queue-full", "Too many requests are waiting; try again.")


def _late() -> UnavailableError:
    return UnavailableError("queue-full", "Too many writes were waiting before this one; try again.")


def _in_time(until: float | None, work: Callable[[], T]) -> T:
    if until is not None and time.monotonic() > until:
        raise _late()
    return work()


def _step(steps: Steps[T]) -> float | _End[T]:
    """For how long there is nothing to do, or the end."""
    try:
        return next(steps)
    except StopIteration as end:
        return _End(end.value)


class Lanes:
    """The service's threads."""

    def __init__(self) -> None:
        self._reads = Lane("read", READERS)
        self._writes = Lane("write", 1, WRITE_WAIT_S)
        self._decodes = Lane("decode", 1)
        self._large_decodes = Lane("decode-large", 1)

    async def read(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._reads.run(work, *args, **kwargs)

    async def write(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._writes.run(work, *args, **kwargs)

    async def write_steps(self, org: str, steps: Steps[T]) -> T:
        """What takes long, after the org's others of that kind, and with other writes between its steps."""
        return await self._writes.run_steps(org, steps)

    async def decode(self, org: str, body_bytes: int, work: Callable[[], T]) -> T:
        """One large body at a time, and one that isn't: what decoding takes in memory is several times the body."""
        lane = self._decodes if body_bytes <= LARGE_BODY_BYTES else self._large_decodes
        return await lane.run_in_line(org, work)

    def close(self) -> None:
        self._reads.close()
        self._writes.close()
        self._decodes.close()
        self._large_decodes.close()
