"""The dispatcher: from events to deliveries to handlers, in a thread of its own, in every worker.

What this file guarantees: nothing here runs in a request's way; an event is looked at and its deliveries are stored
before anything is called; what became of a try is stored before the delivery is forgotten, so that whatever ends the
process, it is tried again. Without events there is one look a second, and one after a commit of this process. Closing
takes :data:`DRAIN_S` and :data:`~meterite.events.rooms.CLOSE_S`, whatever handlers do.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from random import SystemRandom
from typing import TYPE_CHECKING, Final, TypeAlias
from uuid import uuid4

import numpy as np
import structlog

from meterite.events.courier import Clock, Courier
from meterite.events.filters import Filter, Filters
from meterite.events.reminders import Reminders
from meterite.events.rooms import CLOSE_S, finish, make_room
from meterite.model.errors import MeteriteError
from meterite.model.event import TYPE_BITS, parse_event_id
from meterite.model.one_line import one_line
from meterite.model.time import SECOND_US

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from random import Random

    from numpy.typing import NDArray

    from meterite.events.configure import Configured
    from meterite.events.handler import Handler, Interest
    from meterite.events.plugins import Call, Plugins
    from meterite.events.rooms import Job, Room
    from meterite.model.event_row import EventRow
    from meterite.storage.event_interface import Delivery, Events, Outbox

MakeRoom: TypeAlias = "Callable[[str, Handler, int, Filters, Callable[[Job], None]], Room]"

LOOK_S: Final = 1.0
GAP_S: Final = 0.02
"""At least so long between two passes, however often somebody wakes us."""
BUSY_GAP_S: Final = 0.002
"""After a pass that claimed or stored something: of an ordered series the next event waits for it."""
RENEW_S: Final = 2.5
AFTER_ERROR_S: Final = 2.0
FAN_OUT_S: Final = 0.05
"""A pass spends no more on events that aren't deliveries yet, but for the page at hand: what is due waits meanwhile."""
PAGE_EVENTS: Final = 1000
DRAIN_S: Final = 0.7
STARTUP_S: Final = 10.0

log = structlog.get_logger("meterite.events")


def wanted_by(interest: Interest) -> Callable[[EventRow], NDArray[np.bool_]]:
    """By ordinal: whether the handler is to be told. Computed on columns; the metric's code decides once a metric."""
    bits = sum(bit for type_, bit in TYPE_BITS.items() if interest.takes_type(type_))

    def wanted(row: EventRow) -> NDArray[np.bool_]:
        if not interest.takes_org(row.org):
            return np.zeros(len(row), bool)
        mask: NDArray[np.bool_] = (row.kinds() & bits) != 0
        if interest.metrics is not None:
            ids = [id_ for id_, name in row.names.items() if interest.takes_metric(name.code)]
            mask &= np.isin(row.metrics(), ids)
        return mask

    return wanted


@dataclass(slots=True)
class _Post:
    """A courier, and what its handler is interested in."""

    courier: Courier
    wanted: Callable[[EventRow], NDArray[np.bool_]]
    reminders: Reminders
    more: bool = True
    """There may be events that weren't looked at."""

    @property
    def ordered(self) -> bool:
        options = self.courier.options
        return options.ordered or options.min_gap > 0


class Dispatcher:
    """Made and started after the store is open, closed before it is."""

    def __init__(
        self,
        outbox: Outbox,
        events: Events,
        handlers: Sequence[Configured],
        plugins: Plugins,
        clock: Clock,
        random: Random | None = None,
        *,
        make_room: MakeRoom = make_room,
    ) -> None:
        self._outbox = outbox
        self._events = events
        self._plugins = plugins
        self._clock = clock
        self._owner = uuid4().hex
        self._woken = threading.Event()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        filters = Filters([Filter(call.plugin, call.run) for call in plugins.calls("meterite_filter_event")])
        chance = random or SystemRandom()
        self._posts = [self._post(configured, filters, chance, make_room) for configured in handlers]
        self._newest = ""
        self._renewed_s = 0.0
        self._busy = False

    def _post(self, configured: Configured, filters: Filters, random: Random, make_room: MakeRoom) -> _Post:
        courier = Courier(configured, self._clock, random, self._woken.set)
        courier.room = room = make_room(
            configured.name, configured.handler, configured.options.concurrency, filters, courier.done
        )
        reminders = Reminders(
            configured, room, self._events, self._clock, mine=self._outbox.reminds, wake=self._woken.set
        )
        return _Post(courier, wanted_by(configured.interest), reminders)

    # --- From other threads

    def start(self) -> None:
        """Blocks: handlers are registered."""
        self._outbox.register([post.courier.name for post in self._posts])
        if self._posts or self._plugins.calls("meterite_startup"):
            self._thread = threading.Thread(target=self._work, name="meterite-dispatch", daemon=True)
            self._thread.start()

    def wake(self) -> None:
        """There may be new events."""
        self._woken.set()

    def stop(self) -> None:
        """Begin to close, without waiting for it."""
        self._stopping.set()
        self._woken.set()

    def close(self) -> None:
        """Blocks, for a bounded time. What didn't end is given back, for another worker or the next start."""
        self.stop()
        if self._thread is not None:
            self._thread.join(timeout=DRAIN_S + 2 * CLOSE_S + 1.0)

    # --- In the dispatcher's thread

    def _work(self) -> None:
        call_all(self._plugins.calls("meterite_startup"), STARTUP_S, self._stopping)
        while not self._stopping.is_set():
            pause_s = self._guarded_pass()
            gap_s = BUSY_GAP_S if self._busy else GAP_S
            self._stopping.wait(gap_s)
            if pause_s > gap_s:
                self._woken.wait(pause_s - gap_s)
            self._woken.clear()
        self._end()
        call_all(self._plugins.calls("meterite_shutdown"), CLOSE_S)

    def _guarded_pass(self) -> float:
        try:
            return self.run_once()
        except MeteriteError as exc:
            log.warning("dispatch.put_off", reason=exc.message)
        except Exception:
            log.exception("dispatch.failed")
        self._stopping.wait(AFTER_ERROR_S)
        return 0.0

    def run_once(self) -> float:
        """All there is to do now; answers in how many seconds there may be more, unless somebody wakes us."""
        self._busy = False
        self._look()
        for post in self._posts:
            self._serve(post)
            post.reminders.look(self._newest)
        self._renew()
        return min(self._pauses())

    def _pauses(self) -> list[float]:
        pauses = [LOOK_S]
        if any(post.more for post in self._posts):
            pauses.append(0.0)
        again = [post.courier.looks_again_in_s() for post in self._posts]
        return pauses + [pause for pause in again if pause is not None]

    def _look(self) -> None:
        """Events become deliveries, a page after the other, of each handler in turn."""
        if not self._posts:
            return
        newest = self._events.newest()
        if newest != self._newest:
            self._newest = newest
            for post in self._posts:
                post.more = True
        until_s = self._clock.monotonic() + FAN_OUT_S
        behind = [post for post in self._posts if post.more]
        while behind:
            post = behind.pop(0)
            post.more = self._outbox.fan_out(
                post.courier.name, post.wanted, ordered=post.ordered, limit=PAGE_EVENTS
            )
            if self._clock.monotonic() >= until_s:
                break
            if post.more:
                behind.append(post)
        self._posts = self._posts[1:] + self._posts[:1]  # another one is first the next time

    def _serve(self, post: _Post) -> None:
        courier = post.courier
        courier.collect()
        self._store(courier)
        vacancies = courier.vacancies()
        if vacancies > 0:
            claimed = self._outbox.claim(self._owner, courier.name, vacancies)
            self._busy = self._busy or bool(claimed)
            courier.give(self._admitted(courier, claimed))
            self._store(courier)

    def _store(self, courier: Courier, *, all_of_them: bool = False) -> None:
        results = courier.results(all_of_them=all_of_them)
        if results:
            self._outbox.finish(self._owner, results)
            courier.stored(results)
            self._busy = True

    def _admitted(self, courier: Courier, claimed: list[Delivery]) -> list[Delivery]:
        """Those that ``min_gap`` lets through. The rest is held back, and of those held the newest stays."""
        gap_us = int(courier.options.min_gap * SECOND_US)
        if not gap_us or not claimed:
            return claimed
        admitted = []
        sent_us = self._outbox.last_done(courier.name, claimed)
        now_us = self._clock.now_us()
        for delivery, last_us in zip(claimed, sent_us, strict=True):
            if last_us is None:
                admitted.append(delivery)
            elif now_us < last_us + gap_us:
                courier.hold(delivery, last_us + gap_us)
            elif not (
                _recorded_us(delivery) < last_us + gap_us and self._outbox.supersede(self._owner, delivery)
            ):
                admitted.append(delivery)
        return admitted

    def _renew(self) -> None:
        now_s = self._clock.monotonic()
        if now_s - self._renewed_s < RENEW_S:
            return
        self._renewed_s = now_s
        for post in self._posts:
            claimed = post.courier.claimed
            if claimed:
                self._outbox.renew(self._owner, claimed)

    # --- The end

    def _end(self) -> None:
        """What runs may end by itself for a while; then all is given back, and the rooms are closed."""
        until_s = time.monotonic() + DRAIN_S
        couriers = [post.courier for post in self._posts]
        for courier in couriers:
            courier.give_back(begun=False)
        while any(courier.is_busy for courier in couriers) and time.monotonic() < until_s:
            self._woken.wait(until_s - time.monotonic())
            self._woken.clear()
            for courier in couriers:
                courier.collect()
        for courier in couriers:
            courier.collect()
            courier.give_back(begun=True)
            try:
                self._store(courier, all_of_them=True)
            except Exception as exc:  # noqa: BLE001 - leases end by themselves
                log.warning("dispatch.not_given_back", handler=courier.name, reason=one_line(exc))
        self._close_rooms(couriers)

    def _close_rooms(self, couriers: list[Courier]) -> None:
        for courier in couriers:
            if courier.room is not None:
                courier.room.stop()
        until_s = time.monotonic() + CLOSE_S
        for courier in couriers:
            if courier.room is not None and not courier.room.join(max(0.0, until_s - time.monotonic())):
                log.warning("handler.left_behind", handler=courier.name)


def _recorded_us(delivery: Delivery) -> int:
    parsed = parse_event_id(delivery.event.id)
    assert parsed is not None
    return parsed[0] * 1000


def call_all(calls: Sequence[Call], seconds: float, stopping: threading.Event | None = None) -> None:
    """Each plug-in's hook, all at once, for so long at most. What they raise is logged."""
    threads = [
        threading.Thread(target=_call, args=(call,), name="meterite-hook", daemon=True) for call in calls
    ]
    for thread in threads:
        thread.start()
    until_s = time.monotonic() + seconds
    for thread, call in zip(threads, calls, strict=True):
        while thread.is_alive() and time.monotonic() < until_s and not (stopping and stopping.is_set()):
            thread.join(min(0.1, max(0.0, until_s - time.monotonic())))
        if thread.is_alive():
            log.warning("plugin.slow", plugin=call.plugin, seconds=seconds)


def _call(call: Call) -> None:
    try:
        finish(call.run())
    except BaseException as exc:  # noqa: BLE001 - a plug-in may raise whatever it likes
        log.warning("plugin.raised", plugin=call.plugin, reason=one_line(exc))
