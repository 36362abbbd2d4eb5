"""The whole way in one process: a reading outside, its event, a handler that is told."""

from __future__ import annotations

import asyncio
import json
import queue
import sys
from types import ModuleType

import pytest

from meterite.events import breaker
from meterite.events.hooks import Handler, HandlerOptions, Kind, Refused, Retry, hookimpl
from meterite.model.errors import SettingsError
from meterite.model.metric import MetricSpec, Notify
from meterite.service import Service
from meterite.settings import Settings
from meterite.storage.event_interface import DeliveryState

WAIT_S = 20
ORG = "org_01"


class Told:
    """A plug-in that handles events and gives a kind; ``answers`` are raised one after the other."""

    def __init__(self):
        self.events = queue.Queue()
        self.answers = []
        self.calls = []

    @hookimpl
    def meterite_handle_event(self, event):
        self.events.put(event)
        if self.answers:
            raise self.answers.pop(0)

    @hookimpl
    def meterite_handler_kinds(self):
        told = self

        class Paging(Handler):
            async def handle(self, event):
                told.calls.append(event)

        return {"pager": Kind(HandlerOptions, lambda _options, _tools: Paging())}

    def next(self):
        return self.events.get(timeout=WAIT_S)


@pytest.fixture
def told(monkeypatch):
    """Found by a dotted path."""
    module = ModuleType("told_plugin")
    module.plugin = Told()
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module.plugin


def settings(tmp_path, handlers=(), **others):
    return Settings(
        _env_file=None,
        api_tokens={"a": ORG},
        database_url=f"sqlite:///{tmp_path / 'm.db'}",
        handlers=json.dumps(list(handlers)),
        **({"plugins": "told_plugin:plugin"} | others),
    )


def run(settings, scenario):
    """The scenario with an open service."""

    async def running():
        service = Service(settings)
        await service.open()
        try:
            return await scenario(service)
        finally:
            await service.close()

    return asyncio.run(asyncio.wait_for(running(), 3 * WAIT_S))


async def metric(service, code, **limits):
    await service.catalog.create(ORG, MetricSpec(code=code, name=code, **limits))


async def states(service, event_id, wanted):
    """Once every delivery of the event is in the state that is wanted."""
    while True:
        _, _, found = await service.events.get(ORG, event_id)
        if all(delivery.state == wanted for delivery in found) and found:
            return {delivery.handler: delivery for delivery in found}
        await asyncio.sleep(0.01)


def test_a_reading_outside_is_told(tmp_path, told):
    """Once, with the reading; a reading inside isn't; what became of it can be asked for."""

    async def scenario(service):
        await metric(service, "M1", max_reading=10)
        await service.recorder.record_one(ORG, "M1", 5, None)
        await service.recorder.record_one(ORG, "M1", 11, None)
        event = await asyncio.to_thread(told.next)
        found = await states(service, event.id, DeliveryState.DONE)
        return event, found

    event, found = run(settings(tmp_path), scenario)
    assert (event.type, event.org) == ("meterite.reading.above_max", ORG)
    assert event.data["readings"]["last"]["reading"] == 11
    assert set(found) == {"plugin:told_plugin:plugin"}
    assert {delivery.attempts for delivery in found.values()} == {1}
    assert told.events.empty()


def test_what_failed_is_tried_again_and_what_was_refused_is_dead(tmp_path, told, monkeypatch):
    """The same event each time; a dead delivery raises an event of its own."""
    monkeypatch.setattr(breaker, "FIRST_S", 0.01)
    told.answers = [Retry("not now", after_s=0), ValueError("oops"), Refused("never")]

    async def scenario(service):
        await metric(service, "M1", max_reading=10)
        await service.recorder.record_one(ORG, "M1", 11, None)
        tries = [await asyncio.to_thread(told.next) for _ in range(3)]
        dead = await asyncio.to_thread(told.next)
        found = await states(service, tries[0].id, DeliveryState.DEAD)
        return tries, dead, next(iter(found.values()))

    tries, dead, delivery = run(settings(tmp_path), scenario)
    assert tries[0] == tries[1] == tries[2]
    assert (delivery.attempts, delivery.error) == (3, "never")
    assert dead.type == "meterite.delivery.dead"
    assert dead.data["event"]["id"] == tries[0].id


def test_a_stop_delivers_no_more(tmp_path, told):
    """While requests go on: what they raise is delivered by the next process."""

    async def stopped(service):
        await metric(service, "M1", max_reading=10)
        service.stop()
        await service.recorder.record_one(ORG, "M1", 11, None)

    async def started(_service):
        return await asyncio.to_thread(told.next)

    run(settings(tmp_path), stopped)
    assert told.events.empty()
    assert run(settings(tmp_path), started).subject == "M1"


def test_a_derived_reading_makes_no_other(tmp_path, told):
    """``record`` writes through the service itself, though the derived reading breaks limits, too."""
    handlers = [{"name": "alarms", "kind": "record", "to": "{code}.alarm", "value": "last"}]

    async def scenario(service):
        await metric(service, "M1", max_reading=10)
        await metric(service, "M1.alarm", max_reading=10)
        await service.recorder.record_one(ORG, "M1", 11, None)
        first = await asyncio.to_thread(told.next)
        second = await asyncio.to_thread(told.next)
        for event in (first, second):
            await states(service, event.id, DeliveryState.DONE)
        view = await service.catalog.view(ORG, "M1.alarm")
        return first, second, view.state

    first, second, state = run(settings(tmp_path, handlers), scenario)
    assert (first.subject, second.subject) == ("M1", "M1.alarm")
    assert (state.current.value, state.last) == (11, None)
    assert told.events.empty()


def test_who_is_interested_in_what(tmp_path, told):
    """Handlers of one kind differ by what they ask for; each has its own deliveries."""
    handlers = [
        {"name": "a", "kind": "pager", "metrics": "a*"},
        {"name": "other", "kind": "pager", "orgs": ["org_02"]},
    ]

    async def scenario(service):
        for code in ("a1", "b1"):
            await metric(service, code, max_reading=10)
            await service.recorder.record_one(ORG, code, 11, None)
        events = [await asyncio.to_thread(told.next) for _ in range(2)]
        return [sorted(await states(service, event.id, DeliveryState.DONE)) for event in events]

    plugin = "plugin:told_plugin:plugin"
    assert run(settings(tmp_path, handlers), scenario) == [["a", plugin], [plugin]]
    assert [event.subject for event in told.calls] == ["a1"]


def test_a_gap_between_two_of_a_series(tmp_path, told):
    """The first at once; of those that come in the gap the newest, when it ends; the others say what became of them."""
    handlers = [{"name": "calm", "kind": "pager", "min_gap": "700ms"}]

    async def scenario(service):
        await metric(service, "M1", max_reading=10, notify=Notify.EVERY)
        events = []
        for value in (11, 12, 13):
            await service.recorder.record_one(ORG, "M1", value, None)
            events.append(await asyncio.to_thread(told.next))
        return [(await states(service, event.id, DeliveryState.DONE))["calm"] for event in events], events

    found, events = run(settings(tmp_path, handlers), scenario)
    assert told.calls == [events[0], events[2]]
    assert [delivery.error for delivery in found] == [None, f"superseded by {events[2].id}", None]
    assert found[2].done_at_us - found[0].done_at_us >= 700_000


def test_what_was_not_delivered_before_the_end_is_delivered_afterwards(tmp_path, told):
    """By the next process, under the same id; while the plug-in is away its deliveries rest."""
    told.answers = [Retry("not now", after_s=0)] * 1000

    async def first(service):
        await metric(service, "M1", max_reading=10)
        await service.recorder.record_one(ORG, "M1", 11, None)
        return await asyncio.to_thread(told.next)

    async def nothing(service): ...

    async def last(service):
        while (event := await asyncio.to_thread(told.next)).id in seen and told.answers:
            pass
        await states(service, event.id, DeliveryState.DONE)
        return event

    event = run(settings(tmp_path), first)
    run(settings(tmp_path, plugins=""), nothing)
    seen = {event.id}
    told.answers.clear()
    while not told.events.empty():
        told.events.get()
    assert run(settings(tmp_path), last) == event


@pytest.mark.parametrize(
    ("others", "said"),
    [
        (
            {"handlers": [{"name": "x", "kind": "pagers"}]},
            r"^handlers 'x' \(pagers\): there is no kind 'pagers'; ",
        ),
        ({"plugins": "no.such.plugin", "strict_plugins": True}, r"^strict_plugins: no\.such\.plugin"),
        ({"plugins_dir": "/no/such/place"}, r"^plugins_dir can't be used"),
    ],
)
def test_mistakes_stop_the_start(tmp_path, told, others, said):
    """Before the store is made."""

    async def nothing(service): ...

    with pytest.raises(SettingsError, match=said):
        run(settings(tmp_path, **others), nothing)
    assert not (tmp_path / "m.db").exists()


def test_no_secret_is_shown(tmp_path, told):
    """Neither by what the service keeps, nor by its parts."""
    handlers = [{"name": "ops", "kind": "webhook", "url": "https://example.com/", "secret": "whsec_aGVsbG8="}]
    service = Service(settings(tmp_path, handlers))
    assert "aGVsbG8" not in f"{service._deliveries._sources!r} {vars(service)!r}"
