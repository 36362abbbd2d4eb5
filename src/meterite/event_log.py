"""Events as the service sees them: asked for, acknowledged, tried again, and followed as they happen.

What this file guarantees: who follows misses nothing, whichever worker committed it, since he reads the store behind
his cursor and is only told when to look; nothing is queued for him, so a slow one costs no more than a fast one. All of
a worker's followers share one look a second, and one after each of its own commits; those at one place share the read.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import structlog

from meterite.model.errors import MeteriteError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator

    from meterite.lanes import Lanes
    from meterite.model.event import Event
    from meterite.model.metric import MetricSpec, Point
    from meterite.storage.event_interface import Alert, DeliveryStatus, EventPage
    from meterite.storage.interface import Store

LOOK_S: Final = 1.0
GAP_S: Final = 0.05
"""At least so long between two looks, however many commits there are."""
FOLLOWERS_MAX: Final = 1000
FOLLOWERS_OF_ORG_MAX: Final = 200
PAGE_EVENTS: Final = 100
_READERS: Final = 2
"""Followers that read at the same time: requests come first."""

log = structlog.get_logger("meterite.events")


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which events: of these types (none: all), and of the metric with this code."""

    types: tuple[str, ...] = ()
    metric: str | None = None


@dataclass(frozen=True, slots=True)
class AlertView:
    """What is outside now, with its metric as it is now, and for a silent metric its newest reading."""

    alert: Alert
    spec: MetricSpec
    muted: bool
    current: Point | None


class EventLog:
    """Async face of the events; used from the event loop's thread, but for :meth:`wake`."""

    def __init__(self, store: Store, lanes: Lanes, gap_s: float = GAP_S) -> None:
        self._store = store
        self._lanes = lanes
        self._tail = Tail(self._newest, gap_s)
        self._following: Counter[str] = Counter()
        self._turns = asyncio.Semaphore(_READERS)
        self._reading: dict[tuple[str, Wanted, str, str], asyncio.Task[EventPage]] = {}

    async def page(
        self, org: str, wanted: Wanted, *, after: str | None, acked: bool | None = None, limit: int
    ) -> EventPage:
        return await self._lanes.read(
            self._store.events.select,
            org,
            after=after,
            types=wanted.types,
            metric=wanted.metric,
            acked=acked,
            limit=limit,
        )

    async def get(self, org: str, event_id: str) -> tuple[Event, int | None, list[DeliveryStatus]]:
        """The event, when it was acknowledged, µs, and its deliveries. NotFoundError."""
        return await self._lanes.read(self._get, org, event_id)

    def _get(self, org: str, event_id: str) -> tuple[Event, int | None, list[DeliveryStatus]]:
        event, acked_at_us = self._store.events.get(org, event_id)
        return event, acked_at_us, self._store.events.deliveries(org, event_id)

    async def ack(self, org: str, event_id: str) -> tuple[Event, int | None]:
        """The event, and when it was first acknowledged, µs. NotFoundError."""
        await self._lanes.write(self._store.events.ack, org, event_id)
        return await self._lanes.read(self._store.events.get, org, event_id)

    async def retry(self, org: str, event_id: str, handler: str) -> DeliveryStatus | None:
        """The delivery, pending again; None where it is gone meanwhile. NotFoundError; ConflictError: it isn't dead."""
        await self._lanes.write(self._store.outbox.retry, org, event_id, handler)
        statuses = await self._lanes.read(self._store.events.deliveries, org, event_id)
        return next((status for status in statuses if status.handler == handler), None)

    async def alerts(self, org: str, *, after: int, limit: int) -> tuple[list[AlertView], int | None]:
        """What is outside its limits or silent now, by series, of those behind ``after``; and where to go on."""
        return await self._lanes.read(self._alerts, org, after, limit)

    def _alerts(self, org: str, after: int, limit: int) -> tuple[list[AlertView], int | None]:
        alerts = self._store.events.alerts(org, after=after, limit=limit)
        catalog, now_us = self._store.catalog, self._store.clock()
        metrics = {code: catalog.metric(org, code) for code in {alert.metric.code for alert in alerts}}
        silent = sorted({alert.metric_id for alert in alerts if alert.silent})
        states = self._store.states(catalog.org_id(org), np.array(silent, np.int64)) if silent else []
        current = {id_: state.current for id_, state in zip(silent, states, strict=True)}
        found = []
        for alert in alerts:
            metric = metrics[alert.metric.code]
            if metric is None or metric.id != alert.metric_id:
                continue  # deleted in between
            if alert.silent and metric.spec.expected_every is None:
                continue  # nothing is expected any more
            muted = now_us < (metric.spec.mute_until_us or 0)
            newest = current.get(alert.metric_id) if alert.silent else None
            found.append(AlertView(alert, metric.spec, muted, newest))
        return found, alerts[-1].series if len(alerts) >= limit else None

    # --- As they happen

    def wake(self) -> None:
        """There may be new events. From any thread."""
        self._tail.wake()

    def stop(self) -> None:
        """Those who follow are told that this is the end, and nobody may begin."""
        self._tail.stop()

    async def follow(
        self, org: str, wanted: Wanted, *, after: str | None, idle_s: float
    ) -> AsyncGenerator[tuple[list[Event], str], None]:
        """Events behind the cursor (None: from now on), oldest first, each time with the cursor behind them.

        No events, and the cursor, come first, and whenever none came for ``idle_s``. UnavailableError where there are
        too many followers, InvalidInputError where the cursor is none; ends with :meth:`stop`. To be closed.
        """
        time = asyncio.get_running_loop().time
        with self._place(org):
            cursor = await self._newest() if after is None else after
            due = time()
            while True:
                seen = self._tail.newest  # before the look: what comes during it is looked for once more
                page = await self._shared(org, wanted, cursor, seen)
                cursor = page.next or cursor
                if page.events or time() >= due:
                    due = time() + idle_s
                    yield page.events, cursor
                elif page.next is None:
                    await self._tail.newer(seen, due - time())
                if self._tail.stopped:
                    return

    async def _shared(self, org: str, wanted: Wanted, cursor: str, seen: str) -> EventPage:
        """One read for all who stand at one place and know of the same events: it began after those."""
        key = org, wanted, cursor, seen
        reading = self._reading.get(key)
        if reading is None:
            reading = self._reading[key] = asyncio.create_task(self._in_turn(org, wanted, cursor))
            reading.add_done_callback(lambda done: self._read(key, done))
        return await asyncio.shield(reading)

    def _read(self, key: tuple[str, Wanted, str, str], done: asyncio.Task[EventPage]) -> None:
        del self._reading[key]
        if not done.cancelled():
            done.exception()  # seen, even if nobody waits any more

    async def _in_turn(self, org: str, wanted: Wanted, cursor: str) -> EventPage:
        async with self._turns:
            return await self.page(org, wanted, after=cursor, limit=PAGE_EVENTS)

    @contextlib.contextmanager
    def _place(self, org: str) -> Iterator[None]:
        if self._tail.stopped:
            raise UnavailableError("stopping", "The service is stopping; try again.")
        if self._following[org] >= FOLLOWERS_OF_ORG_MAX or self._following.total() >= FOLLOWERS_MAX:
            raise UnavailableError(
                "streams-full",
                "Too many streams of events are open; close some, or try again.",
                retry_after_s=5,
            )
        self._following[org] += 1
        try:
            yield
        finally:
            self._following[org] -= 1
            self._following += Counter()  # drops what is 0

    async def _newest(self) -> str:
        return await self._lanes.read(self._store.events.newest)


class Tail:
    """Notices that there are new events, as long as anybody waits for them."""

    def __init__(self, ask: Callable[[], Awaitable[str]], gap_s: float) -> None:
        self._ask = ask
        self._gap_s = gap_s
        self._waiting = 0
        self._changed = asyncio.Event()
        self._woken = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._looking: asyncio.Task[None] | None = None
        self.newest = ""
        """A cursor behind all events, as of the last look. Cursors sort as events happened."""
        self.stopped = False

    async def newer(self, seen: str, timeout_s: float) -> None:
        """Returns when there are events behind ``seen``, or this is the end, or the time is up."""
        self._waiting += 1
        self._loop = asyncio.get_running_loop()
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look())
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    while self.newest <= seen and not self.stopped:
                        await self._changed.wait()
        finally:
            self._waiting -= 1

    async def _look(self) -> None:
        while self._waiting and not self.stopped:
            try:
                newest = await self._ask()
            except MeteriteError as exc:
                log.warning("events.look_failed", reason=exc.message)
                newest = self.newest
            if newest > self.newest:
                self.newest = newest
                self._tell()
            await asyncio.sleep(self._gap_s)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S - self._gap_s):
                    await self._woken.wait()
            self._woken.clear()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def wake(self) -> None:
        loop = self._loop
        if loop is not None and self._waiting:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(self._woken.set)

    def stop(self) -> None:
        self.stopped = True
        self._tell()
        self._woken.set()
