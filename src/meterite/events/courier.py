"""One handler's deliveries in one worker: how many are claimed, what becomes of each, when to look again.

What this file guarantees: no more than :data:`WINDOW_LAST` deliveries are in memory; every delivery that was claimed
ends in exactly one result; a try that doesn't end in its time is given up, and its place is taken until it ends. All of
it runs in the dispatcher's thread, but for :meth:`Courier.done`.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import structlog

from meterite.events.breaker import Breaker, delay_s
from meterite.events.handler import Refused, Retry
from meterite.events.rooms import Job
from meterite.model.one_line import one_line
from meterite.model.time import SECOND_US
from meterite.storage.event_interface import Outcome, Result

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from random import Random

    from meterite.events.configure import Configured
    from meterite.events.rooms import Room
    from meterite.storage.event_interface import Delivery

WINDOW_FIRST: Final = 16
WINDOW_LAST: Final = 256
LATE_S: Final = 1.0
"""So long after its timeout a try is given up, where its room couldn't end it."""
IDLE_S: Final = 5.0
"""A delivery that waited so long for its turn is given back: another worker may have room."""
RESULTS_ENOUGH: Final = 128
RESULTS_WAIT_S: Final = 0.05

log = structlog.get_logger("meterite.events")


@dataclass(frozen=True, slots=True)
class Clock:
    """``monotonic`` in seconds measures, ``now_us`` since 1970 tells the time."""

    monotonic: Callable[[], float]
    now_us: Callable[[], int]


class Courier:
    """Claimed deliveries go in by :meth:`give`, results come out of :meth:`results`."""

    def __init__(
        self, configured: Configured, clock: Clock, random: Random, wake: Callable[[], None]
    ) -> None:
        self.options = configured.options
        self.name = configured.name
        self._clock = clock
        self._random = random
        self._wake = wake
        self._breaker = Breaker(random)
        self._ended: deque[Job] = deque()
        self._jobs: dict[int, Job] = {}
        self._stuck: set[int] = set()
        self._results: list[Result] = []
        self._oldest_s = 0.0
        self._window = WINDOW_FIRST
        self._due_us: int | None = None
        self._asked = 0
        self._more_wait = False
        self.room: Room | None = None
        """Set once, before anything is given: the room is told of :meth:`done`."""

    def done(self, job: Job) -> None:
        """From the room's thread."""
        self._ended.append(job)
        self._wake()

    # --- What to claim

    def vacancies(self) -> int:
        """How many deliveries to claim now."""
        self._asked = self._vacancies()
        return self._asked

    def _vacancies(self) -> int:
        if self._due_us is not None and self._due_us <= self._clock.now_us():
            self._due_us = None
        if len(self._stuck) >= self.options.concurrency or len(self._results) >= WINDOW_LAST:
            return 0
        allowed = self._breaker.allows(self._clock.monotonic(), len(self._jobs))
        if allowed is not None:
            return allowed
        in_flight = len(self._jobs)
        return self._window - in_flight if in_flight <= self._window // 2 else 0

    def give(self, deliveries: Sequence[Delivery]) -> None:
        """Deliveries claimed, after :meth:`vacancies` was asked.

        One that was tried too often, the process ending each time, is dead untried.
        """
        assert self.room is not None
        now_s = self._clock.monotonic()
        self._more_wait = 1 < self._asked <= len(deliveries)
        jobs = []
        for delivery in deliveries:
            if delivery.attempts >= self.options.tries:
                self._add(
                    Result(delivery, Outcome.DEAD, error="given up: the tries never came to an end"), now_s
                )
                continue
            job = Job(delivery, self.options.timeout, now_s)
            self._jobs[id(job)] = job
            jobs.append(job)
        if jobs:
            self._submit(self.room, jobs)

    def _submit(self, room: Room, jobs: list[Job]) -> None:
        try:
            room.submit(jobs)
        except Exception as exc:  # noqa: BLE001 - no thread can be had, or the handler closed its loop: a failed try
            for job in jobs:
                if job.take():
                    job.error = exc
                    self.done(job)

    def hold(self, delivery: Delivery, until_us: int) -> None:
        """It isn't to be tried before then."""
        self._add(Result(delivery, Outcome.RELEASED, retry_at_us=until_us), self._clock.monotonic())

    @property
    def claimed(self) -> list[Delivery]:
        """Whose leases are to be renewed."""
        return [job.delivery for job in self._jobs.values()] + [result.delivery for result in self._results]

    @property
    def is_busy(self) -> bool:
        return bool(self._jobs)

    # --- What became of them

    def collect(self) -> None:
        """Take what the room has done, and give up what it can't."""
        now_s = self._clock.monotonic()
        drained = bool(self._ended)
        while self._ended:
            job = self._ended.popleft()
            if self._jobs.pop(id(job), None) is None:
                self._stuck.discard(id(job))
                continue
            self._settle(job, now_s)
        for job in list(self._jobs.values()):
            self._check_time(job, now_s)
        if drained and self._more_wait and len(self._jobs) <= self._window // 4:
            self._window = min(WINDOW_LAST, self._window * 2)

    def _check_time(self, job: Job, now_s: float) -> None:
        if job.begun_s is not None:
            if now_s > job.begun_s + job.timeout_s + LATE_S:
                del self._jobs[id(job)]
                self._stuck.add(id(job))
                log.warning("handler.stuck", handler=self.name, event_id=job.delivery.event.id)
                self._failed(job, Retry(f"took longer than {job.timeout_s:g} s, and can't be stopped"), now_s)
        elif (self._breaker.is_open or now_s > job.given_s + IDLE_S) and job.take():
            self._window = max(self.options.concurrency, self._window // 2)
            self._release(job, now_s)

    def _settle(self, job: Job, now_s: float) -> None:
        error = job.error
        if error is None:
            if self._breaker.success(now_s):
                log.info("handler.works_again", handler=self.name)
            self._add(Result(job.delivery, Outcome.DONE, error=job.note), now_s)
        elif isinstance(error, Refused):
            self._dead(job, self._reason(job, error), now_s)
        else:
            self._failed(job, error, now_s)

    def _failed(self, job: Job, error: BaseException, now_s: float) -> None:
        reason = self._reason(job, error)
        if self._breaker.failure(now_s):
            log.warning("handler.paused", handler=self.name, reason=reason)
        attempts = job.delivery.attempts + 1
        now_us = self._clock.now_us()
        if attempts >= self.options.tries or self._is_too_old(job.delivery, now_us):
            self._dead(job, f"given up after {attempts} tries: {reason}", now_s)
            return
        again_us = now_us + int(delay_s(attempts, self._random, _after_s(error)) * SECOND_US)
        self._add(Result(job.delivery, Outcome.RETRY, again_us, reason), now_s)

    def _is_too_old(self, delivery: Delivery, now_us: int) -> bool:
        return now_us - delivery.first_at_us >= self.options.give_up * SECOND_US

    def _dead(self, job: Job, reason: str, now_s: float) -> None:
        log.warning("delivery.dead", handler=self.name, event_id=job.delivery.event.id, reason=reason)
        self._add(Result(job.delivery, Outcome.DEAD, error=reason), now_s)

    def _release(self, job: Job, now_s: float) -> None:
        del self._jobs[id(job)]
        self._add(Result(job.delivery, Outcome.RELEASED), now_s)

    def _reason(self, job: Job, error: BaseException) -> str:
        if isinstance(error, Retry | Refused):
            return _said(error)
        if isinstance(error, TimeoutError) and not error.args:
            return f"took longer than {job.timeout_s:g} s"
        return one_line(error)

    # --- Results

    def _add(self, result: Result, now_s: float) -> None:
        if not self._results:
            self._oldest_s = now_s
        self._results.append(result)

    def results(self, *, all_of_them: bool = False) -> Sequence[Result]:
        """Those to be stored now: when they are enough, or the oldest waited long enough, or nobody else is coming."""
        if not self._results:
            return ()
        waited_s = self._clock.monotonic() - self._oldest_s
        enough = len(self._results) >= RESULTS_ENOUGH or waited_s >= RESULTS_WAIT_S or not self._jobs
        return tuple(self._results) if enough or all_of_them else ()

    def stored(self, results: Sequence[Result]) -> None:
        """Those of :meth:`results` are on disk."""
        del self._results[: len(results)]
        due = [result.retry_at_us for result in results if result.retry_at_us]
        if self._due_us is not None:
            due.append(self._due_us)
        self._due_us = min(due, default=None)

    def looks_again_in_s(self) -> float | None:
        """When there is something to do without anybody's waking; None where there isn't."""
        now_s = self._clock.monotonic()
        times = [self._breaker.wakes_in_s(now_s)]
        if self._results:
            times.append(max(0.0, self._oldest_s + RESULTS_WAIT_S - now_s))
        if self._due_us is not None and not self._breaker.is_open:
            times.append(max(0.0, (self._due_us - self._clock.now_us()) / SECOND_US))
        return min((time for time in times if time is not None), default=None)

    def give_back(self, *, begun: bool) -> None:
        """This is the end: release what wasn't begun, or all that is left."""
        now_s = self._clock.monotonic()
        for job in list(self._jobs.values()):
            if job.take() or begun:
                self._release(job, now_s)


def _said(error: Retry | Refused) -> str:
    """The reason, as a plug-in's own Retry or Refused may not have it: nothing of it may end our thread."""
    try:
        return one_line(str(error.reason))
    except BaseException:  # noqa: BLE001 - as above
        return one_line(error)


def _after_s(error: BaseException) -> float | None:
    """Likewise, for how long to wait; None where the error doesn't say."""
    if not isinstance(error, Retry):
        return None
    try:
        after_s = None if error.after_s is None else float(error.after_s)
    except BaseException:  # noqa: BLE001 - as above
        return None
    return after_s if after_s is not None and after_s >= 0 else None  # NaN isn't
