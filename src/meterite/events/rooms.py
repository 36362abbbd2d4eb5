"""Where handlers run: each in a room of its own, so that what one does there is felt by nobody else.

What this file guarantees: whatever a handler raises, BaseException included, ends in its job's ``error``; a handler
that blocks stops its own room only; every job that began comes back through ``done`` when it ended, however late. The
threads are daemons: none of them keeps the process.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Final, Protocol

import structlog
import uvloop

from meterite.model.one_line import one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Sequence

    from meterite.events.filters import Filters
    from meterite.events.handler import Handler
    from meterite.model.event import Event
    from meterite.storage.event_interface import Delivery

REMIND_S: Final = 30.0
CLOSE_S: Final = 0.7
"""What a handler has for what it does at the end."""

log = structlog.get_logger("meterite.events")


@dataclass(slots=True, eq=False)
class Job:
    """One try. Begun by the room or withdrawn by who gave it, never both."""

    delivery: Delivery
    timeout_s: float
    given_s: float
    begun_s: float | None = None
    error: BaseException | None = None
    note: str = ""
    """Why the handler wasn't asked, where it wasn't."""
    _token: list[None] = field(default_factory=lambda: [None])

    def take(self) -> bool:
        """True for whoever asks first: ``list.pop`` is atomic."""
        try:
            self._token.pop()
        except IndexError:
            return False
        return True


class Room(Protocol):
    """Takes jobs from one thread; ``done`` is called from the room's."""

    def submit(self, jobs: Iterable[Job]) -> None: ...

    def remind(self, events: Sequence[Event], done: Callable[[], None], *, over: bool) -> None:
        """Have the handler reminded; ``done`` is called in any case, from the room's thread."""
        ...

    def stop(self) -> None:
        """Cancel what runs where that can be done, then let the handler close. Doesn't wait."""
        ...

    def join(self, timeout_s: float) -> bool:
        """Whether all ended within the time."""
        ...


def make_room(
    name: str, handler: Handler, concurrency: int, filters: Filters, done: Callable[[Job], None]
) -> Room:
    """A loop for coroutine functions, threads for functions."""
    kind = LoopRoom if inspect.iscoroutinefunction(handler.handle) else ThreadRoom
    return kind(name, handler, concurrency, filters, done)


class LoopRoom:
    """A thread with an event loop, made when the first job comes."""

    def __init__(
        self, name: str, handler: Handler, concurrency: int, filters: Filters, done: Callable[[Job], None]
    ) -> None:
        self._name = name
        self._handler = handler
        self._concurrency = concurrency
        self._filters = filters
        self._done = done
        self._waiting: deque[Job] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._opened = False
        self._opening = asyncio.Lock()
        self._ending = False
        self._over = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def submit(self, jobs: Iterable[Job]) -> None:
        self._running().call_soon_threadsafe(self._take, list(jobs))

    def remind(self, events: Sequence[Event], done: Callable[[], None], *, over: bool) -> None:
        self._running().call_soon_threadsafe(lambda: self._begin(self._remind(events, done, over=over)))

    def _running(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            self._loop = uvloop.new_event_loop()
            self._thread = threading.Thread(target=self._work, name=f"meterite-{self._name}", daemon=True)
            self._thread.start()
        return self._loop

    def stop(self) -> None:
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed already
                self._loop.call_soon_threadsafe(self._begin_end)

    def join(self, timeout_s: float) -> bool:
        if self._thread is None:
            return True
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    # --- In the room's thread

    def _work(self) -> None:
        loop = self._loop
        assert loop is not None
        asyncio.set_event_loop(loop)
        loop.set_exception_handler(self._unhandled)
        while not self._over and not loop.is_closed():
            try:
                loop.run_forever()
            except BaseException as exc:  # noqa: BLE001 - a task of the handler's own may raise SystemExit through the loop
                log.warning("handler.raised", handler=self._name, reason=one_line(exc))
        loop.close()

    def _unhandled(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        reason = context.get("exception") or str(context.get("message"))
        log.warning("handler.raised", handler=self._name, reason=one_line(reason))

    def _take(self, jobs: list[Job]) -> None:
        self._waiting.extend(jobs)
        self._begin_more()

    def _begin_more(self) -> None:
        while self._waiting and len(self._tasks) < self._concurrency and not self._ending:
            job = self._waiting.popleft()
            if job.take():
                self._begin(self._try(job))

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._begin_more()

    async def _try(self, job: Job) -> None:
        job.begun_s = time.monotonic()
        try:
            async with asyncio.timeout(job.timeout_s):
                await self._open()
                job.note = await self._filters.objection(job.delivery.event, self._name)
                if not job.note:
                    handling = self._handler.handle(job.delivery.event)
                    assert handling is not None
                    await handling
        except BaseException as exc:  # noqa: BLE001 - nothing that a handler raises may go further
            job.error = exc
        self._done(job)

    async def _remind(self, events: Sequence[Event], done: Callable[[], None], *, over: bool) -> None:
        try:
            async with asyncio.timeout(REMIND_S):
                await self._open()
                wanted = [event for event in events if not await self._filters.objection(event, self._name)]
                if wanted:
                    await self._handler.remind(wanted, over=over)
        except BaseException as exc:  # noqa: BLE001 - as above
            log.info("handler.not_reminded", handler=self._name, reason=one_line(exc))
        done()

    async def _open(self) -> None:
        if self._opened:
            return
        async with self._opening:
            if not self._opened:
                await self._handler.open()
                self._opened = True

    def _begin_end(self) -> None:
        if not self._ending:
            self._ending = True
            self._closing = asyncio.get_running_loop().create_task(self._end())

    async def _end(self) -> None:
        try:
            async with asyncio.timeout(CLOSE_S):
                for task in self._tasks:
                    task.cancel()
                if self._tasks:
                    await asyncio.wait(self._tasks)
                if self._opened:
                    await self._handler.close()
        except BaseException as exc:  # noqa: BLE001 - as above
            log.warning("handler.not_closed", handler=self._name, reason=one_line(exc))
        self._over = True
        asyncio.get_running_loop().stop()


class ThreadRoom:
    """As many threads as may run at once, made when there is work for them."""

    def __init__(
        self, name: str, handler: Handler, concurrency: int, filters: Filters, done: Callable[[Job], None]
    ) -> None:
        self._name = name
        self._handler = handler
        self._concurrency = concurrency
        self._filters = filters
        self._done = done
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._guard = threading.Lock()
        self._open = 0
        self._opened = False
        self._opening = threading.Lock()

    def submit(self, jobs: Iterable[Job]) -> None:
        for job in jobs:
            with self._guard:
                self._open += 1
                if self._open > len(self._threads) < self._concurrency:
                    self._add_thread()
            self._jobs.put(job)

    def _add_thread(self) -> None:
        thread = threading.Thread(target=self._work, name=f"meterite-{self._name}", daemon=True)
        self._threads.append(thread)
        thread.start()

    def remind(self, events: Sequence[Event], done: Callable[[], None], *, over: bool) -> None:
        """Who needs reminding writes coroutine functions."""
        del events, over
        done()

    def stop(self) -> None:
        for _ in range(len(self._threads)):
            self._jobs.put(None)
        if self._opened:
            thread = threading.Thread(target=self._close, name=f"meterite-{self._name}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def join(self, timeout_s: float) -> bool:
        until = time.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    # --- In the room's threads

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            if job.take():
                self._try(job)
            with self._guard:
                self._open -= 1

    def _try(self, job: Job) -> None:
        job.begun_s = time.monotonic()
        try:
            self._open_once()
            job.note = self._filters.objection_now(job.delivery.event, self._name)
            if not job.note:
                finish(self._handler.handle(job.delivery.event))
        except BaseException as exc:  # noqa: BLE001 - nothing that a handler raises may go further
            job.error = exc
        self._done(job)

    def _open_once(self) -> None:
        if self._opened:
            return
        with self._opening:
            if not self._opened:
                asyncio.run(self._handler.open())
                self._opened = True

    def _close(self) -> None:
        try:
            asyncio.run(self._handler.close())
        except BaseException as exc:  # noqa: BLE001 - as above
            log.warning("handler.not_closed", handler=self._name, reason=one_line(exc))


def finish(answer: Any) -> None:
    """Wait for what a function answered: it may be an awaitable, too, of a coroutine function behind a decorator."""
    if inspect.isawaitable(answer):

        async def waiting() -> None:
            await answer

        asyncio.run(waiting())
