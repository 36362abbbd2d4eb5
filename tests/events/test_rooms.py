"""Handlers in their rooms: what they raise, how long they take, and how they end. Real threads, and no sleeps."""

from __future__ import annotations

import asyncio
import functools
import threading
from queue import Queue

import pytest
import structlog

from events.given import a_delivery, an_event
from meterite.events import filters as filters_module
from meterite.events.filters import Filter, Filters
from meterite.events.handler import Handler, Refused
from meterite.events.rooms import Job, LoopRoom, ThreadRoom, make_room

WAIT_S = 10


@pytest.fixture
def rooms():
    """Stopped with the test; a handler that blocks is released first."""
    made = []
    yield made
    for room in made:
        room.stop()
    for room in made:
        assert room.join(WAIT_S)


class Place:
    """A room, and what came out of it."""

    def __init__(self, rooms, handler, *, concurrency=4, timeout_s=WAIT_S, filters=()):
        self.ended = Queue()
        self.timeout_s = timeout_s
        self.room = make_room("ops", handler, concurrency, Filters(filters), self.ended.put)
        rooms.append(self.room)

    def give(self, count=1):
        jobs = [Job(a_delivery(number), self.timeout_s, 0.0) for number in range(count)]
        self.room.submit(jobs)
        return jobs

    def one(self):
        """The job, ended."""
        self.give()
        return self.ended.get(timeout=WAIT_S)


class Sync(Handler):
    """Runs ``act`` in a thread."""

    def __init__(self, act):
        self.act = act
        self.calls = []

    async def open(self):
        self.calls.append("open")

    def handle(self, event):
        self.calls.append(event.id)
        return self.act()

    async def close(self):
        self.calls.append("close")


class Async(Sync):
    """Runs ``act`` in a loop."""

    async def handle(self, event):
        self.calls.append(event.id)
        answer = self.act()
        if answer is not None:
            await answer


KINDS = [Sync, Async]


def test_functions_get_threads_and_coroutine_functions_a_loop(rooms):
    """By how ``handle`` is written."""
    assert isinstance(Place(rooms, Sync(int)).room, ThreadRoom)
    assert isinstance(Place(rooms, Async(int)).room, LoopRoom)


@pytest.mark.parametrize("kind", KINDS)
def test_opened_once_closed_once(rooms, kind):
    """Before the first event, in the same place; and not at all where no event came."""
    handler, idle = kind(lambda: None), kind(lambda: None)
    place, other = Place(rooms, handler), Place(rooms, idle)
    jobs = place.give(3)
    for _ in jobs:
        assert place.ended.get(timeout=WAIT_S).error is None
    for each in (place, other):
        each.room.stop()
        assert each.room.join(WAIT_S)
    assert handler.calls[0] == "open"
    assert handler.calls[-1] == "close"
    assert sorted(handler.calls[1:-1]) == sorted(job.delivery.event.id for job in jobs)
    assert idle.calls == []


def raising(error):
    def act():
        raise error

    return act


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "error",
    [
        Refused("no"),
        ValueError(),
        SystemExit(1),
        KeyboardInterrupt(),
        GeneratorExit(),
        asyncio.CancelledError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_whatever_is_raised_ends_in_the_job(rooms, kind, error):
    """And the next event is handled as if nothing had been."""
    handler = kind(raising(error))
    place = Place(rooms, handler, concurrency=1)
    assert type(place.one().error) is type(error)
    handler.act = lambda: None
    assert place.one().error is None


@pytest.mark.parametrize("kind", KINDS)
def test_a_handler_that_cannot_be_opened(rooms, kind):
    """Its events fail with the reason, and it is tried again with the next one."""
    handler = kind(lambda: None)
    handler.open, opened = raising(OSError("no modem")), handler.open
    place = Place(rooms, handler)
    assert str(place.one().error) == "no modem"
    handler.open = opened
    assert place.one().error is None


def test_a_coroutine_is_cancelled_when_its_time_is_up(rooms):
    """With TimeoutError as what went wrong."""
    place = Place(rooms, Async(lambda: asyncio.Event().wait()), timeout_s=0.01)
    assert isinstance(place.one().error, TimeoutError)


@pytest.mark.parametrize("kind", KINDS)
def test_no_more_at_once_than_may(rooms, kind):
    """Three at a time of nine, and all of them in the end."""
    guard = threading.Lock()
    running, most = set(), []
    gate = threading.Event()
    full = threading.Barrier(4)

    def enter():
        with guard:
            running.add(object())
            most.append(len(running))

    def leave():
        with guard:
            running.pop()

    def act():
        enter()
        if len(most) <= 3:
            full.wait(WAIT_S)
        gate.wait(WAIT_S)
        leave()

    async def act_later():
        enter()
        if len(most) <= 3:
            await asyncio.to_thread(full.wait, WAIT_S)
        await asyncio.to_thread(gate.wait, WAIT_S)
        leave()

    place = Place(rooms, kind(act if kind is Sync else act_later), concurrency=3)
    place.give(9)
    full.wait(WAIT_S)
    gate.set()
    for _ in range(9):
        assert place.ended.get(timeout=WAIT_S).error is None
    assert max(most) == 3


def test_one_that_blocks_its_loop_stops_only_itself(rooms):
    """Another handler's events go on; what was under way comes back when it ends at last."""
    gate = threading.Event()
    blocked = Place(rooms, Async(lambda: gate.wait(WAIT_S) and None))
    (job,) = blocked.give()
    assert Place(rooms, Async(lambda: None)).one().error is None
    assert blocked.ended.empty()
    gate.set()
    assert blocked.ended.get(timeout=WAIT_S) is job


def test_what_was_taken_back_is_not_begun(rooms):
    """Who takes a job first has it; a room passes over what was withdrawn."""
    handler = Sync(lambda: None)
    place = Place(rooms, handler)
    job = Job(a_delivery(7), WAIT_S, 0.0)
    assert job.take()
    assert not job.take()
    place.room.submit([job])
    assert place.one() is not job
    assert job.delivery.event.id not in handler.calls


def test_a_task_that_raises_through_the_loop_ends_nothing(rooms):
    """SystemExit in a task of the handler's own ends the loop's run, which begins again."""

    async def leave():
        raise SystemExit(3)

    async def act():
        asyncio.get_running_loop().leaving = asyncio.create_task(leave())
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    handler = Async(act)
    place = Place(rooms, handler)
    with structlog.testing.capture_logs() as logs:
        place.one()
        handler.act = lambda: None
        assert place.one().error is None
    assert any(entry["event"] == "handler.raised" and "SystemExit" in entry["reason"] for entry in logs)


def test_the_end_cancels_what_runs(rooms):
    """And then the handler is closed."""
    began = threading.Event()

    async def act():
        began.set()
        await asyncio.Event().wait()

    handler = Async(act)
    place = Place(rooms, handler)
    place.give()
    assert began.wait(WAIT_S)
    place.room.stop()
    assert place.room.join(WAIT_S)
    assert handler.calls[-1] == "close"
    assert isinstance(place.ended.get(timeout=WAIT_S).error, asyncio.CancelledError)


def test_the_end_does_not_wait_for_what_blocks(rooms):
    """Joining says that somebody was left behind; the threads are daemons."""
    gate = threading.Event()
    for kind in KINDS:
        place = Place(rooms, kind(lambda: gate.wait(WAIT_S) and None))
        (job,) = place.give()
        while job.begun_s is None:
            pass
        place.room.stop()
        assert not place.room.join(0.01)
    assert all(thread.daemon for thread in threading.enumerate() if thread.name == "meterite-ops")
    gate.set()


def test_a_coroutine_function_behind_a_decorator(rooms):
    """It looks like a function; what it answers is waited for."""
    done = []

    async def act():
        done.append(threading.current_thread().name)

    handler = Sync(act)
    assert Place(rooms, handler).one().error is None
    assert done == ["meterite-ops"]


def test_a_handler_that_ends_its_own_loop(rooms):
    """Stopped, it goes on; the next event is handled."""

    async def act():
        asyncio.get_running_loop().stop()

    handler = Async(act)
    place = Place(rooms, handler)
    place.one()
    handler.act = lambda: None
    assert place.one().error is None


# Filters


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("opinions", "note"),
    [
        ([None, True, 0, "no"], ""),
        ([None, False], "left out by the filter of the plug-in p1"),
        ([ValueError(), SystemExit(), True], ""),
        ([ValueError(), False], "left out by the filter of the plug-in p1"),
    ],
)
def test_only_a_clear_no_leaves_an_event_out(rooms, kind, opinions, note):
    """None, others and exceptions are no opinion; the handler isn't called where one objects."""

    def run(opinion, event, handler):
        assert (event.id, handler) == (an_event().id, "ops")
        if isinstance(opinion, BaseException):
            raise opinion
        return opinion

    filters = [Filter(f"p{n}", functools.partial(run, each)) for n, each in enumerate(opinions)]
    handler = kind(lambda: None)
    job = Place(rooms, handler, filters=filters).one()
    assert (job.error, job.note) == (None, note)
    assert (job.delivery.event.id in handler.calls) is not bool(note)


@pytest.mark.parametrize("kind", KINDS)
def test_a_filter_that_blocks_has_no_opinion(rooms, kind, monkeypatch):
    """It is waited for once; while it is stuck it isn't asked, and what it says later counts for nothing."""
    monkeypatch.setattr(filters_module, "OPINION_S", 0.01)
    gate = threading.Event()
    asked = []

    def run(event, handler):
        asked.append(event.id)
        gate.wait(WAIT_S)
        return False

    place = Place(rooms, kind(lambda: None), filters=[Filter("slow", run)], concurrency=1)
    for _ in range(5):
        job = place.one()
        assert (job.error, job.note) == (None, "")
    assert len(asked) == 1
    gate.set()
