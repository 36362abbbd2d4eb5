"""Events as the store makes them: by the program's own rendering, so that samples can't differ from it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from meterite.model.event import TYPE_BITS, EventType
from meterite.model.event_row import Document, EventRow, MetricName
from meterite.model.limits import LATE, TIME_NONE, TRANSITION, AlarmState
from meterite.model.metric import SERIES_ORDINAL_BITS

RECORDED_AT_US = 1_700_000_000_000_000
METRIC = 1
STATES = {EventType.ABOVE_MAX: AlarmState.ABOVE, EventType.BELOW_MIN: AlarmState.BELOW}
READING = {"reading": 101.5, "reading_at": "2023-11-14T22:13:20Z"}
DOCUMENTS = {
    EventType.SILENT: {
        "expected_every": "5m",
        "current_reading": 101.5,
        "current_reading_at": "2023-11-14T22:08:20Z",
    },
    EventType.RESUMED: READING,
    EventType.CHANGED: {
        "change": "updated",
        "before": {"max_reading": 100},
        "after": {"max_reading": 120},
    },
    EventType.DEAD: {
        "handler": "ops",
        "attempts": 7,
        "first_at": "2023-11-14T22:13:20Z",
        "error": "answered 410 Gone",
        "event": {
            "id": "018bcfe5-6800-7000-8000-000000040000",
            "type": "meterite.reading.above_max",
            "subject": "M1",
            "time": "2023-11-14T22:13:20Z",
        },
    },
}


def sample(
    type_=EventType.ABOVE_MAX,
    *,
    number=1,
    labels=None,
    at_us=RECORDED_AT_US,
    org="org_01",
    late=False,
    low=0.0,
    unit="kWh",
    **changes,
):
    """An event of a type, about one reading of 101.5; ``changes`` are the event's own attributes."""
    transitions, documents = np.empty(0, TRANSITION), []
    if type_ in DOCUMENTS:
        documents = [Document(type_, METRIC, DOCUMENTS[type_])]
    else:
        transitions = _transitions(type_, LATE if late else 0, low)
    row = EventRow(
        number << 16, org, at_us, transitions, documents, {METRIC: MetricName("M1", "Meter 1", unit)}
    )
    return replace(row.event(0, tuple(sorted((labels or {}).items()))), **changes)


def _transitions(type_, flags, low):
    rows = np.zeros(1, TRANSITION)
    state = STATES.get(type_, AlarmState.OK)
    rows["series"] = METRIC << SERIES_ORDINAL_BITS
    rows["kind"], rows["flags"], rows["state"], rows["count"] = TYPE_BITS[type_], flags, state, 1
    rows["since"] = RECORDED_AT_US if state else TIME_NONE
    rows["low"], rows["high"] = low, 100
    for name in ("first", "last", "extreme"):
        rows[name], rows[f"{name}_at"] = 101.5, RECORDED_AT_US
    return rows
