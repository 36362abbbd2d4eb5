"""From events to deliveries to handlers, pass by pass, on an outbox in memory and a clock moved by hand."""

from __future__ import annotations

import threading
from random import Random

import numpy as np
import pluggy
import pytest
import structlog

from events.given import a_delivery, a_row, transition
from events.outbox import FakeOutbox, FakeRoom, Time, deliveries
from meterite.events import dispatch as module
from meterite.events.configure import Configured
from meterite.events.dispatch import LOOK_S, RENEW_S, Dispatcher, wanted_by
from meterite.events.handler import Handler, HandlerOptions, Interest, Retry
from meterite.events.hooks import Hooks, hookimpl
from meterite.events.plugins import Plugins
from meterite.model.errors import UnavailableError
from meterite.model.event import EventType
from meterite.model.event_row import Document, MetricName
from meterite.model.limits import QUIET
from meterite.storage.event_interface import Outcome

WAIT_S = 10


def no_plugins(*plugins):
    found = Plugins(pluggy.PluginManager("meterite"))
    found.manager.add_hookspecs(Hooks)
    for plugin in plugins:
        found.manager.register(plugin)
    return found


class Place:
    """A dispatcher with one handler."""

    def __init__(self, found=(), **options):
        self.time = Time()
        self.outbox = FakeOutbox(self.time, found)
        self.room = FakeRoom(self.time)
        options = HandlerOptions(**({"name": "ops", "kind": "test"} | options))
        self.dispatcher = Dispatcher(
            self.outbox,
            self.outbox,
            [Configured(options, Handler())],
            no_plugins(),
            self.time.clock,
            Random(1),
            make_room=self._make_room,
        )

    def _make_room(self, _name, _handler, _concurrency, _filters, done):
        self.room.courier = self
        self.done = done
        return self.room

    def go(self, seconds=0.0, error=None):
        """A pass, the tries that it begins, and a pass that stores what became of them."""
        self.time.now_s += seconds
        self.dispatcher.run_once()
        begun = self.room.begin()
        self.room.end(begun, error)
        self.dispatcher.run_once()
        return [job.delivery.event.id for job in begun]


# Who is told what


@pytest.fixture
def row():
    """Above M1, cleared M2, quiet M1, a change of M3, a death about no metric."""
    return a_row(
        transition(),
        transition(EventType.CLEARED, metric=2),
        transition(quiet=QUIET),
        documents=[Document(EventType.CHANGED, 3, {}), Document(EventType.DEAD, 0, {}, "x")],
        names={1: MetricName("a1", ""), 2: MetricName("a2", ""), 3: MetricName("b1", "")},
    )


@pytest.mark.parametrize(
    ("interest", "mask"),
    [
        (Interest(), [1, 1, 0, 1, 1]),
        (Interest(orgs=frozenset({"org_01", "x"})), [1, 1, 0, 1, 1]),
        (Interest(orgs=frozenset({"org_02"})), [0, 0, 0, 0, 0]),
        (Interest(types=frozenset({EventType.CLEARED, EventType.DEAD})), [0, 1, 0, 0, 1]),
        (Interest(metrics=("a*",)), [1, 1, 0, 0, 0]),
        (Interest(metrics=("a2", "b*")), [0, 1, 0, 1, 0]),
        (Interest(metrics=("*",)), [1, 1, 0, 1, 0]),
        (Interest(metrics=("c",)), [0, 0, 0, 0, 0]),
    ],
)
def test_who_is_told_what(row, interest, mask):
    """By columns it is the same as asking for each event; quiet rows are none."""
    found = wanted_by(interest)(row)
    assert found.astype(int).tolist() == mask
    codes = ["a1", "a2", None, "b1", None]
    types = [EventType.ABOVE_MAX, EventType.CLEARED, None, EventType.CHANGED, EventType.DEAD]
    one_by_one = [t is not None and interest.takes(row.org, t, c) for t, c in zip(types, codes, strict=True)]
    assert found.tolist() == one_by_one


class Paging(FakeOutbox):
    """So many pages of events are behind ``newest``; looking at one takes ``page_s``."""

    at = "a"
    asked = 0
    page_s = 0.0

    def __init__(self, time, **pages):
        super().__init__(time)
        self.pages = pages
        self.seen = []

    def newest(self):
        self.asked += 1
        return self.at

    def fan_out(self, handler, wanted, *, ordered=False, limit=1000):
        assert callable(wanted)
        self.seen.append((handler, ordered, limit))
        self._time.now_s += self.page_s
        self.pages[handler] -= 1
        return self.pages[handler] > 0


def paging(*names, pages, **options):
    """A dispatcher with these handlers, and its outbox."""
    time = Time()
    outbox = Paging(time, **dict(zip(names, pages, strict=True)))
    handlers = [Configured(HandlerOptions(name=name, kind="test", **options), Handler()) for name in names]
    room = FakeRoom(time)
    made = Dispatcher(
        outbox, outbox, handlers, no_plugins(), time.clock, Random(1), make_room=lambda *_: room
    )
    return made, outbox


def test_events_become_deliveries():
    """All that there are; then it isn't asked until there are newer ones."""
    dispatcher, outbox = paging("ops", pages=[3])
    assert dispatcher.run_once() == LOOK_S
    assert len(outbox.seen) == 3
    dispatcher.run_once()
    assert len(outbox.seen) == 3
    outbox.at, outbox.pages["ops"] = "b", 1
    dispatcher.run_once()
    assert len(outbox.seen) == 4


def test_many_events_keep_nothing_else_waiting():
    """A pass looks at some, of each handler in turn; the rest is for the next, which comes at once."""
    dispatcher, outbox = paging("a", "b", "c", pages=[9, 9, 1])
    outbox.page_s = module.FAN_OUT_S / 3.5
    assert dispatcher.run_once() == 0
    assert [name for name, _, _ in outbox.seen] == ["a", "b", "c", "a"]
    outbox.seen.clear()
    assert dispatcher.run_once() == 0
    assert [name for name, _, _ in outbox.seen] == ["b", "a", "b", "a"]
    for _ in range(4):
        dispatcher.run_once()
    assert dispatcher.run_once() == LOOK_S
    assert outbox.pages == {"a": 0, "b": 0, "c": 0}


@pytest.mark.parametrize(
    ("options", "ordered"), [({}, False), ({"ordered": True}, True), ({"min_gap": "1m"}, True)]
)
def test_series_are_kept_in_order_where_that_matters(options, ordered):
    """Where it is asked for, and where a gap between two is."""
    dispatcher, outbox = paging("ops", pages=[1], **options)
    dispatcher.run_once()
    assert outbox.seen == [("ops", ordered, module.PAGE_EVENTS)]


def test_without_events_there_is_one_look_a_second():
    """A pass asks once for the newest and once for what is due, and the next is a second later."""
    dispatcher, outbox = paging("ops", pages=[1])
    dispatcher.run_once()
    before = outbox.asked, len(outbox.claims)
    assert dispatcher.run_once() == LOOK_S
    assert (outbox.asked, len(outbox.claims)) == (before[0] + 1, before[1] + 1)
    assert len(outbox.seen) == 1


# What becomes of deliveries


def test_what_is_due_is_tried_and_stored():
    """All in order; done once is done."""
    found = deliveries(3)
    place = Place(found)
    assert place.go() == [delivery.event.id for delivery in found]
    assert [result.outcome for result in place.outbox.results] == [Outcome.DONE] * 3
    assert place.go(3600) == []


def test_what_failed_comes_again_when_it_is_due():
    """Within five seconds the first time; each try is counted."""
    place = Place(deliveries(1))
    (first,) = place.go(error=Retry("no"))
    retried_us = place.outbox.results[-1].retry_at_us
    assert place.go((retried_us - place.time.now_us() - 1) / 1e6) == []
    assert place.go(0.000002) == [first]
    assert [result.delivery.attempts for result in place.outbox.results] == [0, 1]


def test_leases_are_renewed_while_a_try_goes_on():
    """Every 2.5 s, for what is under way or not yet stored; a lease is 8 s."""
    place = Place(deliveries(1), timeout="1m")
    place.time.now_s = 100.0
    place.dispatcher.run_once()
    (job,) = place.room.begin()
    place.outbox.renewed.clear()
    for _ in range(3):
        place.time.now_s += RENEW_S
        place.dispatcher.run_once()
    assert place.outbox.renewed == [job.delivery.place] * 3
    place.room.end([job])
    place.dispatcher.run_once()
    place.time.now_s += RENEW_S
    place.dispatcher.run_once()
    assert len(place.outbox.renewed) == 3


class Locked(FakeOutbox):
    """Stores nothing for a while."""

    locked = True

    def finish(self, owner, results):
        if self.locked:
            raise UnavailableError("busy", "The database is locked.")
        super().finish(owner, results)


def test_what_could_not_be_stored_is_stored_later():
    """Nothing is called twice for that, and nothing is forgotten."""
    place = Place()
    place.dispatcher._outbox = outbox = Locked(place.time, deliveries(1))
    with pytest.raises(UnavailableError):
        place.go()
    with pytest.raises(UnavailableError):
        place.go()
    outbox.locked = False
    assert place.go() == []
    assert [result.outcome for result in outbox.results] == [Outcome.DONE]


# A gap between two of a series

GAP = {"min_gap": "60s", "ordered": True}


def test_within_the_gap_events_are_held_back():
    """The first goes at once; the next of its series when the gap ends, of another series at once."""
    place = Place([a_delivery(0)], **GAP)
    assert len(place.go()) == 1
    late = a_delivery(1)
    place.outbox.add(late)
    other = a_delivery(2, code="M2")
    place.outbox.add(other)
    assert place.go(1) == [other.event.id]
    (held,) = place.outbox.of(Outcome.RELEASED)
    assert held.delivery == late
    assert place.go(58.9) == []
    assert place.go(0.2) == [late.event.id]


def test_when_the_gap_ends_the_newest_goes():
    """Older ones that were held are superseded by it."""
    place = Place([a_delivery(0)], **GAP)
    place.go()
    held, newest = a_delivery(1), a_delivery(2)
    place.outbox.add(held)
    place.go(1)
    place.outbox.add(newest, place.time.now_us() + 60_000_000)
    assert place.go(59.5) == []
    assert place.outbox.superseded == [held.event.id]
    assert place.go(1) == [newest.event.id]


def test_what_happened_after_the_gap_is_superseded_by_nothing(monkeypatch):
    """It wasn't held back, so it goes, though there is a newer one."""
    place = Place([a_delivery(0)], **GAP)
    place.go()
    first = a_delivery(1)
    place.outbox.add(first)
    place.outbox.add(a_delivery(2), place.time.now_us() + 10**9)
    monkeypatch.setattr(module, "_recorded_us", lambda _delivery: place.time.now_us())
    assert place.go(61) == [first.event.id]
    assert place.outbox.superseded == []


# The thread


class Told(Handler):
    """Remembers."""

    def __init__(self):
        self.events = []
        self.told = threading.Event()

    async def handle(self, event):
        self.events.append(event)
        self.told.set()


def real(handler, found=(), plugins=None, **options):
    time = Time()
    outbox = FakeOutbox(time, found)
    options = HandlerOptions(**({"name": "ops", "kind": "test"} | options))
    made = [Configured(options, handler)]
    return Dispatcher(outbox, outbox, made, plugins or no_plugins(), time.clock), outbox


def test_it_is_woken(monkeypatch):
    """A commit of this process makes it look, without waiting for the second to pass."""
    monkeypatch.setattr(module, "LOOK_S", 3600.0)
    handler = Told()
    dispatcher, outbox = real(handler)
    dispatcher.start()
    assert outbox.registered == ["ops"]
    outbox.add(a_delivery())
    dispatcher.wake()
    assert handler.told.wait(WAIT_S)
    dispatcher.close()
    assert len(outbox.of(Outcome.DONE)) == 1
    assert handler.events == [a_delivery().event]


def test_without_handlers_there_is_no_thread():
    """Those of before are told that they rest."""
    time = Time()
    outbox = FakeOutbox(time)
    before = threading.active_count()
    dispatcher = Dispatcher(outbox, outbox, [], no_plugins(), time.clock)
    dispatcher.start()
    dispatcher.wake()
    assert threading.active_count() == before
    assert outbox.registered == []
    dispatcher.close()


def test_closing_gives_back_what_did_not_end(monkeypatch):
    """A handler that blocks is left behind, in its daemon thread, and its delivery is anybody's."""
    monkeypatch.setattr(module, "DRAIN_S", 0.01)
    monkeypatch.setattr(module, "CLOSE_S", 0.01)
    gate, began = threading.Event(), threading.Event()

    class Blocked(Handler):
        def handle(self, event):
            began.set()
            gate.wait(WAIT_S)

    dispatcher, outbox = real(Blocked(), deliveries(3), concurrency=1)
    with structlog.testing.capture_logs() as logs:
        dispatcher.start()
        assert began.wait(WAIT_S)
        dispatcher.close()
    assert not dispatcher._thread.is_alive()
    assert [result.outcome for result in outbox.results] == [Outcome.RELEASED] * 3
    assert [entry["event"] for entry in logs] == ["handler.left_behind"]
    gate.set()


def test_closing_lets_what_runs_come_to_its_end():
    """For a moment: it is stored as done."""
    gate, began = threading.Event(), threading.Event()

    class Slow(Handler):
        def handle(self, event):
            began.set()
            gate.wait(WAIT_S)

    dispatcher, outbox = real(Slow(), deliveries(1))
    dispatcher.start()
    assert began.wait(WAIT_S)
    dispatcher._stopping.set()
    gate.set()
    dispatcher.close()
    assert [result.outcome for result in outbox.results] == [Outcome.DONE]


def test_errors_of_the_store_end_nothing(monkeypatch):
    """They are told, and it goes on a little later."""
    monkeypatch.setattr(module, "AFTER_ERROR_S", 0.0)
    handler = Told()
    dispatcher, outbox = real(handler, deliveries(1))
    errors = [UnavailableError("busy", "The database is locked."), ZeroDivisionError()]
    claim = outbox.claim

    def failing(*arguments):
        if errors:
            raise errors.pop(0)
        return claim(*arguments)

    outbox.claim = failing
    with structlog.testing.capture_logs() as logs:
        dispatcher.start()
        assert handler.told.wait(WAIT_S)
        dispatcher.close()
    assert [entry["event"] for entry in logs] == ["dispatch.put_off", "dispatch.failed"]


class Hooked:
    """Counts what it is told."""

    def __init__(self):
        self.calls = []

    @hookimpl
    def meterite_startup(self):
        self.calls.append("startup")

    @hookimpl
    async def meterite_shutdown(self):
        self.calls.append("shutdown")


class Rude:
    @hookimpl
    def meterite_startup(self):
        raise SystemExit(1)


def test_plugins_are_told_of_start_and_end():
    """Startup before the first event, shutdown after the last; what one raises is nobody else's business."""
    plugin = Hooked()
    handler = Told()
    handler.calls = plugin.calls
    dispatcher, _ = real(handler, deliveries(1), no_plugins(Rude(), plugin))
    with structlog.testing.capture_logs() as logs:
        dispatcher.start()
        assert handler.told.wait(WAIT_S)
        assert plugin.calls == ["startup"]
        dispatcher.close()
    assert plugin.calls == ["startup", "shutdown"]
    assert [entry["event"] for entry in logs] == ["plugin.raised"]


def test_a_plugin_that_hangs_at_the_end_is_not_waited_for(monkeypatch):
    """It is told, and left."""
    monkeypatch.setattr(module, "CLOSE_S", 0.01)
    gate = threading.Event()

    class Hanging:
        @hookimpl
        def meterite_shutdown(self):
            gate.wait(WAIT_S)

    dispatcher, _ = real(Told(), (), no_plugins(Hanging()))
    with structlog.testing.capture_logs() as logs:
        dispatcher.start()
        dispatcher.close()
    assert [entry["event"] for entry in logs] == ["plugin.slow"]
    gate.set()


def test_masks_are_boolean():
    """As the outbox wants them."""
    assert wanted_by(Interest(orgs=frozenset({"x"})))(a_row(transition())).dtype == np.bool_
