"""What holds is told again to a handler whose receiver forgets it: by a store, a dispatcher, Debian's Alertmanager."""

from __future__ import annotations

import threading
import time
from contextlib import closing
from itertools import chain

import pluggy
import pytest

from events.handlers.alertmanager_program import Program, alerts
from meterite.events import reminders
from meterite.events.configure import Configured
from meterite.events.courier import Clock
from meterite.events.dispatch import Dispatcher
from meterite.events.handler import Handler, HandlerOptions
from meterite.events.handlers.alertmanager import REMIND_S, Alertmanager, AlertmanagerOptions
from meterite.events.hooks import Hooks, hookimpl
from meterite.events.plugins import Plugins
from meterite.model.event import EventType
from meterite.model.event_row import Document
from meterite.model.limits import BELOW_MIN, CLEARED
from storage.raised import Raised, transition

WAIT_S = 20
EVERY_S = 60.0


class Forgetful(Handler):
    """Notes what it is reminded of; ``meanwhile`` happens while it is."""

    remind_s = EVERY_S

    def __init__(self, error=None):
        self.reminded = []
        self.meanwhile = lambda: None
        self._error = error

    async def handle(self, event):
        pass

    async def remind(self, events, *, over=False):
        self.reminded.append(([(event.org, event.type, event.subject) for event in events], over))
        self.meanwhile()
        if self._error:
            raise self._error


class Counted:
    """The store's events; how often it was asked what holds is counted."""

    def __init__(self, events):
        self._events = events
        self.asked = 0

    def alarmed(self):
        self.asked += 1
        return self._events.alarmed()

    def __getattr__(self, name):
        return getattr(self._events, name)


class Worker:
    """A dispatcher that is led by hand, with a clock that is moved by hand. Deliveries and reminders end in a pass."""

    def __init__(self, raised, handler, options=None, plugins=(), store=None):
        self.now_s = 0.0
        self.raised = raised
        self.handler = handler
        self.store = store or raised.store
        self.events = Counted(self.store.events)
        found = Plugins(pluggy.PluginManager("meterite"))
        found.manager.add_hookspecs(Hooks)
        for plugin in plugins:
            found.manager.register(plugin)
        options = options or HandlerOptions(name="ops", kind="test")
        self.dispatcher = Dispatcher(
            self.store.outbox,
            self.events,
            [Configured(options, handler)],
            found,
            Clock(lambda: self.now_s, lambda: raised.now),
        )
        self.store.outbox.register(["ops"])
        self._woken = threading.Event()

    def go(self, seconds=0.0):
        """Until nothing is open: deliveries are done, and what was begun has ended."""
        self.now_s += seconds
        until = time.monotonic() + WAIT_S
        while time.monotonic() < until:
            self.dispatcher.run_once()
            [post] = self.dispatcher._posts
            counts = self.store.outbox.counts()
            if (
                not (counts[0].open or counts[0].behind)
                and not post.courier.is_busy
                and not post.reminders._told
            ):
                return
            self.dispatcher._woken.wait(0.05)
        pytest.fail("it doesn't end")

    def close(self):
        self.dispatcher._end()


@pytest.fixture
def raised(tmp_path):
    with closing(Raised(tmp_path / "m.db")) as made:
        yield made


@pytest.fixture
def worker(raised):
    """And its handler as ``worker.handler``."""
    with closing(Worker(raised, Forgetful())) as made:
        yield made


def test_an_alertmanager_that_was_restarted_learns_what_holds(raised, tmp_path):
    """Outside and silent, within a minute; what was cleared isn't there, and what is cleared then resolves it."""
    raised.now = int(time.time() * 1e6)
    outside, silent = raised.metric("outside"), raised.metric("silent")
    one, other = raised.series(outside, (("host", "a"),), (("host", "b"),))
    with Program(tmp_path) as alertmanager:
        options = AlertmanagerOptions(
            name="ops", kind="alertmanager", url=alertmanager.url, allow_private=True
        )
        with closing(Worker(raised, Alertmanager(options), options)) as worker:
            raised.raise_(transition(one), transition(other))
            raised.raise_(transition(other, CLEARED))
            data = {
                "expected_every": "5m",
                "current_reading": 1,
                "current_reading_at": "2030-01-01T00:00:00Z",
            }
            raised.raise_(Document(EventType.SILENT, silent.id, data))
            worker.go()
            before = labels_of(alertmanager)
            assert before == [("MeteriteOutsideLimits", "outside", "a"), ("MeteriteSilent", "silent", None)]
            alertmanager.restart()
            assert labels_of(alertmanager) == []
            worker.go(REMIND_S)
            assert labels_of(alertmanager) == before
            raised.now = int(time.time() * 1e6)
            raised.raise_(transition(one, CLEARED))
            raised.raise_(Document(EventType.RESUMED, silent.id, {"reading": 1, "reading_at": ""}))
            worker.go()
            assert labels_of(alertmanager) == []
            worker.go(REMIND_S)
            assert labels_of(alertmanager) == []


def labels_of(alertmanager):
    found = [alert["labels"] for alert in alerts(alertmanager.url)]
    return sorted((labels["alertname"], labels["metric"], labels.get("host")) for labels in found)


def test_nothing_is_asked_while_nothing_holds(raised, worker):
    """Once after each change, however long it lasts, and nobody is reminded."""
    [series] = raised.series(raised.metric("m"), ())
    worker.go(EVERY_S)
    worker.go(EVERY_S)
    assert worker.events.asked == 1
    raised.raise_(transition(series))
    raised.raise_(transition(series, CLEARED))
    for _ in range(3):
        worker.go(EVERY_S)
    assert worker.events.asked == 2
    assert worker.handler.reminded == []


def test_as_often_as_it_says_while_it_holds(raised, worker):
    """Not sooner; and no more once it is over."""
    [series] = raised.series(raised.metric("m"), ())
    raised.raise_(transition(series, BELOW_MIN))
    worker.go(EVERY_S - 1)
    assert worker.handler.reminded == []
    worker.go(1)
    worker.go(EVERY_S - 1)
    worker.go(1)
    assert worker.handler.reminded == [([("here", EventType.BELOW_MIN, "m")], False)] * 2
    raised.raise_(transition(series, CLEARED))
    worker.go(EVERY_S)
    assert len(worker.handler.reminded) == 2


def test_what_ends_while_it_is_told_is_told_to_be_over(raised, worker):
    """Its own end may have been told before; what holds goes on."""
    one, other = raised.series(raised.metric("m"), (("s", "1"),), (("s", "2"),))
    raised.raise_(transition(one), transition(other))
    worker.handler.meanwhile = lambda: raised.raise_(transition(one, CLEARED))
    worker.go(EVERY_S)
    worker.handler.meanwhile = lambda: None
    both = [("here", EventType.ABOVE_MAX, f'm{{s="{n}"}}') for n in (1, 2)]
    until = time.monotonic() + WAIT_S
    while len(worker.handler.reminded) < 2 and time.monotonic() < until:
        worker.go()
    assert worker.handler.reminded == [(both, False), (both[:1], True)]


def test_one_of_the_workers_reminds(raised, worker, tmp_path):
    """The others take it over once it is gone, within the time that lies between two reminders."""
    [series] = raised.series(raised.metric("m"), ())
    raised.raise_(transition(series))
    told = [([("here", EventType.ABOVE_MAX, "m")], False)]
    with closing(raised.opened()) as store, closing(Worker(raised, Forgetful(), store=store)) as other:
        worker.go(EVERY_S)
        for one in (other, worker, other):
            one.go(EVERY_S)
        assert (worker.handler.reminded, other.handler.reminded) == (told * 2, [])
        worker.close()
        raised.store.close()
        other.go(EVERY_S)
        assert other.handler.reminded == told


def test_of_all_that_holds(raised, worker, monkeypatch):
    """However much: in several calls, one after the other; what ended during one of them is told to be over."""
    monkeypatch.setattr(reminders, "HOLDING_MAX", 3)
    series = sorted(raised.series(raised.metric("m"), *((("s", str(n)),) for n in range(8))))
    raised.raise_(*map(transition, series))
    cleared = iter([transition(series[4], CLEARED)])
    calls = iter(range(9))

    def meanwhile():
        if next(calls) == 1:
            raised.raise_(next(cleared))

    worker.handler.meanwhile = meanwhile
    worker.go(EVERY_S)
    told = [[subject for _, _, subject in events] for events, over in worker.handler.reminded if not over]
    assert [len(some) for some in told] == [3, 3, 2]
    assert list(chain(*told)) == [f'm{{s="{n}"}}' for n in range(8)]
    assert [events for events, over in worker.handler.reminded if over] == [
        [("here", EventType.ABOVE_MAX, 'm{s="4"}')]
    ]


@pytest.mark.parametrize(
    "options",
    [{"orgs": ["there"]}, {"types": ["meterite.reading.below_min"]}, {"metrics": ["x*"]}],
)
def test_only_of_what_it_is_interested_in(raised, options):
    """By org, type and metric, as of events."""
    [series] = raised.series(raised.metric("m"), ())
    raised.raise_(transition(series))
    handler = Forgetful()
    with closing(Worker(raised, handler, HandlerOptions(name="ops", kind="test", **options))) as worker:
        worker.go(EVERY_S)
    assert handler.reminded == []


def test_what_a_plug_in_objects_to_is_not_told_again(raised):
    """The same filter as before the event was delivered."""

    class Objecting:
        @hookimpl
        def meterite_filter_event(self, event, handler):
            return "m{" not in event.subject

    series = raised.series(raised.metric("m"), (), (("s", "1"),))
    raised.raise_(*map(transition, sorted(series)))
    handler = Forgetful()
    with closing(Worker(raised, handler, plugins=[Objecting()])) as worker:
        worker.go(EVERY_S)
    assert handler.reminded == [([("here", EventType.ABOVE_MAX, "m")], False)]


def test_a_reminder_that_fails_is_tried_the_next_time(raised):
    """And does nothing to the deliveries."""
    [series] = raised.series(raised.metric("m"), ())
    raised.raise_(transition(series))
    handler = Forgetful(error=SystemExit(3))
    with closing(Worker(raised, handler)) as worker:
        worker.go(EVERY_S)
        worker.go(EVERY_S)
    assert len(handler.reminded) == 2
