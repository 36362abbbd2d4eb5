"""Following events: nothing is missed, nobody is queued for, and looks are shared."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from meterite.event_log import (
    FOLLOWERS_OF_ORG_MAX,
    LOOK_S,
    PAGE_EVENTS,
    EventLog,
    Wanted,
)
from meterite.model.errors import InvalidInputError, UnavailableError
from meterite.storage.event_interface import EventPage

ALL = Wanted()
IDLE_S = 60.0


class Lanes:
    """Calls at once."""

    async def read(self, work, *args, **kwargs):
        await asyncio.sleep(0)
        return work(*args, **kwargs)

    write = read


class Store:
    """Numbers for events and for cursors, as texts that sort."""

    def __init__(self):
        self.events = self
        self.told = []
        self.looks = 0
        self.asked = []
        self.during = None
        self.broken = 0

    def tell(self, *numbers, org="a"):
        self.told += [(org, f"{number:04}") for number in numbers]

    def newest(self):
        self.looks += 1
        if self.broken:
            self.broken -= 1
            raise UnavailableError("database-locked", "Not now.")
        return self.told[-1][1] if self.told else "0000"

    def select(self, org, *, after, types, metric, acked, limit):
        if after == "bad":
            raise InvalidInputError("cursor-invalid", "No.")
        self.asked.append((org, after, types, metric))
        behind = [number for whose, number in self.told if number > after and whose == org]
        found = [SimpleNamespace(id=number) for number in behind[:limit]]
        if self.during is not None:
            self.during()
        return EventPage(found, {}, found[-1].id if found else None)


class Timers:
    """The loop's clock goes on only when nothing else is to be done, and then to the next timer at once."""

    def __init__(self, loop):
        self.loop = loop
        self.now = 0.0
        self.select = loop._selector.select
        loop.time = lambda: self.now
        loop._selector.select = self._select

    def _select(self, timeout):
        found = self.select(0 if timeout is None or timeout > 0 else timeout)
        if not found and timeout:
            self.now += timeout
        return found


def run(scenario):
    """``scenario(store, log, timers)`` in a loop that waits for nothing."""

    async def main():
        timers = Timers(asyncio.get_running_loop())
        store = Store()
        log = EventLog(store, Lanes())
        await asyncio.wait_for(scenario(store, log, timers), 3600)
        log.stop()

    loop = asyncio.SelectorEventLoop()
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(main())


def ids(told):
    return [event.id for event in told[0]]


def following(log, after=None, org="a", wanted=ALL, idle_s=IDLE_S):
    return log.follow(org, wanted, after=after, idle_s=idle_s)


def test_from_now_on():
    """The first answer has no events and a cursor, behind which nothing is missed."""

    async def scenario(store, log, timers):
        store.tell(1, 2)
        events = following(log)
        assert await anext(events) == ([], "0002")
        store.tell(3)
        store.tell(4)
        assert ids(await anext(events)) == ["0003", "0004"]
        assert timers.now <= LOOK_S
        await events.aclose()

    run(scenario)


def test_behind_a_cursor_in_pages():
    """All there is, a page at a time, then what comes."""

    async def scenario(store, log, timers):
        store.tell(*range(1, 2 * PAGE_EVENTS + 2))
        events = following(log, after="0001")
        pages = [ids(await anext(events)) for _ in range(2)]
        assert [len(page) for page in pages] == [PAGE_EVENTS, PAGE_EVENTS]
        assert pages[0] + pages[1] == [number for _, number in store.told[1:]]
        store.tell(9000)
        assert ids(await anext(events)) == ["9000"]
        await events.aclose()

    run(scenario)


def test_what_happens_during_a_look_is_not_missed():
    """An event behind what the look saw, which others were told of before it came back, needs no other after it."""

    async def scenario(store, log, timers):
        def commit():
            store.during = None
            store.tell(1)
            log._tail.newest = store.newest()
            log._tail._tell()

        events = following(log)
        await anext(events)
        store.during = commit
        assert ids(await anext(events)) == ["0001"]
        assert timers.now < LOOK_S
        await events.aclose()

    run(scenario)


def test_other_orgs_events_are_not_told_and_keep_nobody_from_a_sign_of_life():
    """While another org has an event a second, an answer without events comes every ``idle_s`` all the same."""

    async def scenario(store, log, timers):
        async def others():
            for number in range(1, 200):
                store.tell(number, org="b")
                await asyncio.sleep(1)

        noise = asyncio.create_task(others())
        events = following(log, idle_s=15)
        await anext(events)
        for n in range(1, 5):
            assert ids(await anext(events)) == []
            assert 15 * n <= timers.now <= 15 * n + 2
        noise.cancel()
        await events.aclose()

    run(scenario)


def test_looks_are_shared_and_end_with_the_last_follower():
    """One look a second for all; none where nobody waits; nothing read where there is nothing new."""

    async def scenario(store, log, timers):
        crowd = [following(log) for _ in range(50)]
        for one in crowd:
            await anext(one)
        store.looks = 0
        store.asked.clear()
        waiting = [asyncio.ensure_future(anext(one)) for one in crowd]
        await asyncio.sleep(30.5)
        reads = len(store.asked)
        assert reads <= 3
        assert store.looks <= 32
        await asyncio.sleep(20)
        assert len(store.asked) == reads
        store.tell(1)
        assert all(ids(told) == ["0001"] for told in await asyncio.gather(*waiting))
        assert len(store.asked) == reads + 1
        for one in crowd:
            await one.aclose()
        await asyncio.sleep(5)
        store.looks = 0
        await asyncio.sleep(60)
        assert store.looks == 0

    run(scenario)


def test_woken_by_a_commit_of_this_process():
    """Within the gap between two looks, not within a second; many commits are one look."""

    async def scenario(store, log, timers):
        events = following(log)
        await anext(events)
        waiting = asyncio.ensure_future(anext(events))
        await asyncio.sleep(5.5)
        begun, looks = timers.now, store.looks
        store.tell(1)
        for _ in range(1000):
            log.wake()
        assert ids(await waiting) == ["0001"]
        assert timers.now - begun <= 0.1
        assert store.looks - looks <= 2
        await events.aclose()
        log.wake()

    run(scenario)


def test_a_store_that_is_busy_for_a_while_is_asked_again():
    """A look that fails ends nobody's stream."""

    async def scenario(store, log, timers):
        events = following(log)
        await anext(events)
        waiting = asyncio.ensure_future(anext(events))
        await asyncio.sleep(2.5)
        store.broken = 3
        store.tell(1)
        assert ids(await waiting) == ["0001"]
        assert store.broken == 0
        await events.aclose()

    run(scenario)


def test_a_stop_ends_all_and_nobody_may_begin():
    """At once, whatever they wait for."""

    async def scenario(store, log, timers):
        events = following(log)
        await anext(events)
        waiting = asyncio.ensure_future(anext(events, "end"))
        await asyncio.sleep(1.5)
        begun = timers.now
        log.stop()
        assert await waiting == "end"
        assert timers.now == begun
        with pytest.raises(UnavailableError, match="stopping"):
            await anext(following(log))

    run(scenario)


def test_followers_are_bounded():
    """By org; a place is free again once its follower is closed, or was refused."""

    async def scenario(store, log, timers):
        with pytest.raises(InvalidInputError):
            await anext(following(log, after="bad"))
        crowd = [following(log) for _ in range(FOLLOWERS_OF_ORG_MAX)]
        for one in crowd:
            await anext(one)
        with pytest.raises(UnavailableError, match="Too many"):
            await anext(following(log))
        other = following(log, org="b")
        await anext(other)
        await crowd.pop().aclose()
        crowd.append(following(log))
        await anext(crowd[-1])
        for one in (*crowd, other):
            await one.aclose()
        assert not log._following

    run(scenario)


def test_one_who_leaves_takes_nothing_from_the_others():
    """Not the read that they share, nor what became of it."""

    async def scenario(store, log, timers):
        crowd = [following(log, after="0000") for _ in range(3)]
        waiting = [asyncio.ensure_future(anext(one)) for one in crowd]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert len(log._reading) == 1
        waiting[0].cancel()
        store.tell(1)
        assert [ids(await one) for one in waiting[1:]] == [["0001"], ["0001"]]
        for one in crowd:
            await one.aclose()
        assert not log._reading
        lonely = following(log, after="bad")
        refused = asyncio.ensure_future(anext(lonely))
        await asyncio.sleep(0)
        refused.cancel()
        await asyncio.sleep(1)
        assert not log._reading

    run(scenario)


def test_filters_are_asked_of_the_store():
    """Types and the metric's code."""

    async def scenario(store, log, timers):
        events = following(log, after="0007", wanted=Wanted(("t",), "M1"))
        await anext(events)
        assert store.asked == [("a", "0007", ("t",), "M1")]
        await events.aclose()

    run(scenario)
