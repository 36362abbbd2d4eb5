"""Group commit: requests hand in their appends and wait; one thread takes all that wait and commits them together.

Guarantees: an append's future is done, or its callback called, only after its commit is on disk, or has failed as a
whole; what waits is bounded in bytes. A commit that doesn't get the database within its bound fails, so nobody waits
for ever.

After a commit of several, those just answered get up to ``GATHER_S`` to come back, and the next commit starts as soon
as so many wait as took part or waited before. Without this, halves of the clients take turns in commits half as large,
and a commit costs much the same whatever is in it. Who comes alone never waits.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Final, TypeAlias

from meterite.model.errors import MeteriteError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from meterite.storage.interface import Append

READING_BYTES: Final = 32
APPEND_BYTES: Final = 512
GATHER_S: Final = 0.002

Done: TypeAlias = "Callable[[Exception | None], None]"
"""Is told None once the append is on disk, or the error that kept it out."""


class GroupCommit:
    """One for each worker; used from the event loop's thread."""

    def __init__(self, commit: Callable[[Sequence[Append]], None], queue_bytes_max: int) -> None:
        self._commit = commit
        self._bytes_max = queue_bytes_max
        self._bytes = 0
        self._waiting: list[tuple[Append, Done]] = []
        self._running = False
        self._gathering: asyncio.TimerHandle | None = None
        self._expected = 0
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="meterite-commit")

    def add(self, append: Append) -> asyncio.Future[None]:
        """A future that is done when the append is on disk, or has the error that kept it out."""
        future = asyncio.get_running_loop().create_future()
        self.submit(append, partial(_settle, future))
        return future

    def submit(self, append: Append, done: Done) -> None:
        """As :meth:`add`, for who needs no task to wait in: ``done`` is called in the event loop, later and once."""
        size = APPEND_BYTES + READING_BYTES * len(append.batch)
        if self._bytes + size > self._bytes_max and self._bytes:
            raise UnavailableError("queue-full", "Too many readings are waiting to be written; try again.")
        self._bytes += size
        self._waiting.append((append, done))
        if not self._running:
            self._running = True
            loop = asyncio.get_running_loop()
            loop.call_soon(self._start, loop)
        elif self._gathering is not None and len(self._waiting) >= self._expected:
            self._gathering.cancel()
            self._gathering = None
            loop = asyncio.get_running_loop()
            loop.call_soon(self._start, loop)

    def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        group, self._waiting = self._waiting, []
        self._pool.submit(self._work, loop, group)

    def _work(self, loop: asyncio.AbstractEventLoop, group: list[tuple[Append, Done]]) -> None:
        failure: Exception | None = None
        try:
            self._commit([append for append, _ in group])
        except Exception as exc:  # noqa: BLE001 -- whatever it is, each of the waiting must learn of it
            failure = exc
        loop.call_soon_threadsafe(self._finish, loop, group, failure)

    def _finish(
        self, loop: asyncio.AbstractEventLoop, group: list[tuple[Append, Done]], failure: Exception | None
    ) -> None:
        for append, done in group:
            self._bytes -= APPEND_BYTES + READING_BYTES * len(append.batch)
            error = append.error or failure
            try:
                done(None if error is None else _own(error))
            except Exception as exc:  # noqa: BLE001 -- one that can't be told must not keep the others waiting
                loop.call_exception_handler({"message": "an append could not be answered", "exception": exc})
        self._expected = len(group) + len(self._waiting)
        if self._expected > 1:
            self._gathering = loop.call_later(GATHER_S, self._gathered, loop)
        else:
            self._running = False

    def _gathered(self, loop: asyncio.AbstractEventLoop) -> None:
        self._gathering = None
        if self._waiting:
            self._start(loop)
        else:
            self._running = False

    def close(self) -> None:
        """After what is in flight."""
        self._pool.shutdown(wait=True)


def _settle(future: asyncio.Future[None], error: Exception | None) -> None:
    if future.done():  # whoever waited has left
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)


def _own(error: Exception) -> Exception:
    """An error of its own for each of those who wait: raising one instance twice would tangle the tracebacks."""
    if isinstance(error, UnavailableError):
        return UnavailableError(error.code, error.message, retry_after_s=error.retry_after_s)
    if isinstance(error, MeteriteError):
        return type(error)(error.code, error.message)
    return error
