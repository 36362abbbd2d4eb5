"""An outbox in memory, a clock that is moved by hand, and a room that does as it is told."""

from __future__ import annotations

import heapq
import itertools
from dataclasses import replace

from events.given import RECORDED_AT_US, a_delivery
from meterite.events.courier import Clock
from meterite.model.time import SECOND_US
from meterite.storage.event_interface import Outcome


class Time:
    """Both clocks go on together."""

    def __init__(self):
        self.now_s = 0.0
        self.clock = Clock(lambda: self.now_s, self.now_us)

    def now_us(self):
        return RECORDED_AT_US + round(self.now_s * SECOND_US)


class FakeOutbox:
    """Of one handler. ``ready`` are made at once; leases are only counted."""

    def __init__(self, time, deliveries=()):
        self._time = time
        self._numbers = itertools.count()
        self._due = []
        self.results = []
        self.renewed = []
        self.registered = None
        self.claims = []
        self.taken_us = {}
        self.superseded = []
        for delivery in deliveries:
            self.add(delivery)

    def add(self, delivery, due_us=0):
        heapq.heappush(self._due, (due_us, next(self._numbers), delivery))

    def register(self, handlers):
        self.registered = list(handlers)

    def reminds(self):
        return True

    def fan_out(self, handler, wanted, *, ordered=False, limit=1000):
        return False

    def newest(self):
        return ""

    def claim(self, owner, handler, limit):
        self.claims.append(limit)
        found = []
        while self._due and len(found) < limit and self._due[0][0] <= self._time.now_us():
            found.append(heapq.heappop(self._due)[2])
        return found

    def renew(self, owner, deliveries):
        self.renewed += [delivery.place for delivery in deliveries]

    def finish(self, owner, results):
        self.results += results
        for result in results:
            delivery = result.delivery
            if result.outcome == Outcome.DONE:
                self.taken_us[delivery.event.subject] = self._time.now_us()
            elif result.outcome == Outcome.RETRY:
                self.add(replace(delivery, attempts=delivery.attempts + 1), result.retry_at_us)
            elif result.outcome == Outcome.RELEASED:
                self.add(delivery, result.retry_at_us)

    def last_done(self, handler, deliveries):
        return [self.taken_us.get(delivery.event.subject) for delivery in deliveries]

    def supersede(self, owner, delivery):
        same = [each for each in self._due if each[2].event.subject == delivery.event.subject]
        if not same:
            return False
        self.superseded.append(delivery.event.id)
        return True

    def of(self, outcome):
        return [result for result in self.results if result.outcome == outcome]


class FakeRoom:
    """Jobs wait in ``jobs`` until the test begins and ends them."""

    def __init__(self, time):
        self._time = time
        self.jobs = []
        self.stopped = False
        self.courier = None

    def submit(self, jobs):
        self.jobs += jobs

    def begin(self, count=None):
        """Begins those that nobody took back, and answers them."""
        begun = []
        while self.jobs and (count is None or len(begun) < count):
            job = self.jobs.pop(0)
            if job.take():
                job.begun_s = self._time.now_s
                begun.append(job)
        return begun

    def end(self, jobs, error=None):
        for job in jobs:
            job.error = error
            self.courier.done(job)

    def stop(self):
        self.stopped = True

    def join(self, timeout_s):
        return True


def deliveries(count, **fields):
    return [a_delivery(number, **fields) for number in range(count)]
