"""``record``: which reading an event becomes, and that it never makes another one."""

from __future__ import annotations

import asyncio

import pytest
from pydantic import ValidationError

from events.given import an_event
from meterite.events.handlers.record import RecordHandler, RecordOptions
from meterite.events.hooks import EventType, Refused, Retry, Tools
from meterite.model.errors import NotFoundError, UnavailableError

AT_US = 1_767_225_660_000_000  # of the last reading


class Recorded(list):
    """Remembers what was recorded, or fails with ``error``."""

    error = None

    async def __call__(self, org, code, value, at_us, labels):
        if self.error is not None:
            raise self.error
        self.append((org, code, value, at_us, labels))


@pytest.fixture
def recorded():
    return Recorded()


def handler(recorded, targets=None, **options):
    options = RecordOptions.model_validate(
        {"name": "alarms", "kind": "record", "to": "{code}.alarm"} | options
    )
    return RecordHandler(options, Tools(recorded), [] if targets is None else targets)


@pytest.mark.parametrize(
    ("value", "written"), [("state", 1.0), ("count", 2.0), ("first", 11.0), ("last", 12.0), ("extreme", 13.5)]
)
def test_what_is_written(recorded, value, written):
    """The chosen value, at the time of the last reading, under the event's org and labels."""
    event = an_event(labels={"host": "b", "area": "a"})
    asyncio.run(handler(recorded, value=value).handle(event))
    labels = (("area", "a"), ("host", "b"))
    assert recorded == [("org_01", "M1.alarm", written, AT_US, labels)]


@pytest.mark.parametrize(
    ("type_", "state"), [(EventType.ABOVE_MAX, 1.0), (EventType.BELOW_MIN, -1.0), (EventType.CLEARED, 0.0)]
)
def test_states(recorded, type_, state):
    """``state`` is 1 above, -1 below and 0 when cleared; without labels where they aren't wanted."""
    event = an_event(type_=type_, labels={"host": "b"})
    asyncio.run(handler(recorded, to="alarms", labels=False).handle(event))
    assert recorded == [("org_01", "alarms", state, AT_US, ())]


def test_late_readings_leave_the_state(recorded):
    """What came late raises its event and changes no state; its other values are written all the same."""
    asyncio.run(handler(recorded).handle(an_event(late=True)))
    assert recorded == []
    asyncio.run(handler(recorded, value="last").handle(an_event(late=True)))
    assert len(recorded) == 1


def test_no_loops(recorded):
    """Events of a metric that any such handler may write to are passed over by all of them."""
    targets = []
    own = handler(recorded, targets, to="{code}.alarm")
    other = handler(recorded, targets, to="alarms", metrics="*")
    for code in ("M1.alarm", "M1.alarm.alarm", "alarms"):
        asyncio.run(own.handle(an_event(code=code)))
        asyncio.run(other.handle(an_event(code=code)))
    assert recorded == []
    for code in (".alarm", "alarms2", "M1.alarm2"):
        asyncio.run(own.handle(an_event(code=code)))
    assert [row[1] for row in recorded] == [".alarm.alarm", "alarms2.alarm", "M1.alarm2.alarm"]


def test_what_the_recorder_says(recorded):
    """What may be better later is tried again, the rest is refused with the recorder's own sentence."""
    recorded.error = UnavailableError("queue-full", "Too many wait.")
    with pytest.raises(Retry, match=r"^Too many wait\.$"):
        asyncio.run(handler(recorded).handle(an_event()))
    recorded.error = NotFoundError("metric-not-found", "There is no metric.")
    with pytest.raises(Refused, match=r"^There is no metric\.$"):
        asyncio.run(handler(recorded).handle(an_event()))


@pytest.mark.parametrize(
    "options",
    [
        {"to": "{code}"},
        {"to": "{code}{code}"},
        {"to": ".."},
        {"to": ""},
        {"types": ["meterite.metric.silent"]},
    ],
)
def test_options_that_cannot_be_used(recorded, options):
    """The event's own metric, no code at all, and types that are about no reading are refused at the start."""
    with pytest.raises(ValidationError):
        handler(recorded, **options)
