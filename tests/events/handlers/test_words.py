"""Events as sentences."""

from __future__ import annotations

import pytest

from events.handlers.samples import sample
from meterite.events.handlers.words import details, title
from meterite.model.event import Event, EventType


@pytest.mark.parametrize(
    ("type_", "said"),
    [
        (EventType.ABOVE_MAX, "Meter 1 (M1) is above its maximum of 100 kWh: 101.5 kWh"),
        (EventType.BELOW_MIN, "Meter 1 (M1) is below its minimum of 0 kWh: 101.5 kWh"),
        (EventType.CLEARED, "Meter 1 (M1) is within its limits again: 101.5 kWh"),
        (
            EventType.SILENT,
            "Meter 1 (M1) is silent since 2023-11-14T22:08:20Z, a reading is expected every 5m",
        ),
        (EventType.RESUMED, "Meter 1 (M1) has readings again: 101.5 kWh"),
        (EventType.CHANGED, "Meter 1 (M1) was updated: max_reading"),
        (EventType.DEAD, "ops was not told of meterite.reading.above_max for M1: answered 410 Gone"),
    ],
)
def test_title(type_, said):
    assert title(sample(type_)) == said


def test_a_late_reading_is_called_so():
    assert title(sample(late=True)).endswith("101.5 kWh (a late reading)")


def test_without_a_unit():
    assert title(sample(unit=None)) == "Meter 1 (M1) is above its maximum of 100: 101.5"


def test_a_limit_that_is_not_there():
    assert "limits: any to 100" in details(sample(low=float("-inf")))


def test_a_type_of_the_future():
    event = Event(id="1", type="meterite.new", source="/", subject="M1", time="t", org="o", data={})
    assert title(event) == "M1: meterite.new"
    assert details(event).splitlines() == ["org: o", "metric: M1", "recorded: t", "event: 1"]


def test_details():
    event = sample(labels={"host": "a"})
    assert details(event).splitlines() == [
        "org: org_01",
        "metric: Meter 1 (M1)",
        "label host: a",
        "readings: 1, the furthest 101.5 at 2023-11-14T22:13:20Z",
        "limits: 0 to 100",
        f"recorded: {event.time}",
        f"event: {event.id}",
    ]
    assert "error: answered 410 Gone" in details(sample(EventType.DEAD))


@pytest.mark.parametrize("type_", list(EventType))
def test_every_type_has_words(type_):
    assert str(type_) not in title(sample(type_))
    assert details(sample(type_))
