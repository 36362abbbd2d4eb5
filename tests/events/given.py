"""Events to be delivered in tests, rendered by the program itself."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from meterite.model.event import TYPE_BITS, EventPlace, EventType
from meterite.model.event_row import EventRow, MetricName
from meterite.model.limits import LATE, TRANSITION, AlarmState
from meterite.model.metric import SERIES_ORDINAL_BITS
from meterite.model.time import SECOND_US
from meterite.storage.event_interface import Delivery

RECORDED_AT_US = 1_767_225_600_000_000
STATES = {EventType.ABOVE_MAX: AlarmState.ABOVE, EventType.BELOW_MIN: AlarmState.BELOW}


def transition(type_=EventType.ABOVE_MAX, *, metric=1, late=False, quiet=0):
    """Two readings: 11 and then, after a minute, 12; the worst, in between, was 13.5."""
    row = np.zeros(1, TRANSITION)
    row["series"] = metric << SERIES_ORDINAL_BITS
    row["kind"], row["flags"] = TYPE_BITS[type_], (LATE if late else 0) | quiet
    row["state"], row["count"] = STATES.get(type_, AlarmState.OK), 2
    row["since"], row["low"], row["high"] = RECORDED_AT_US, 0, 10
    for name, value, after_s in (("first", 11, 0), ("last", 12, 60), ("extreme", 13.5, 30)):
        row[name], row[f"{name}_at"] = value, RECORDED_AT_US + after_s * SECOND_US
    return row


def a_row(*transitions, number=1, org="org_01", names=None, documents=(), at_us=RECORDED_AT_US):
    """An event row; metrics are called ``M1`` … unless told otherwise."""
    names = names or {n: MetricName(f"M{n}", f"Meter {n}") for n in range(1, 10)}
    found = np.concatenate(transitions) if transitions else np.empty(0, TRANSITION)
    return EventRow(number << 16, org, at_us, found, list(documents), names)


def an_event(
    number=0, type_=EventType.ABOVE_MAX, *, code="M1", org="org_01", labels=None, late=False, **changes
):
    """``changes`` go into its data."""
    names = {1: MetricName(code, "Meter 1")}
    row = a_row(transition(type_, late=late), number=number + 1, org=org, names=names)
    event = row.event(0, tuple(sorted((labels or {}).items())))
    return replace(event, data=dict(event.data) | changes)


def a_delivery(number=0, *, handler="ops", attempts=0, first_at_us=RECORDED_AT_US, **event):
    """Of :func:`an_event`."""
    place = EventPlace((number + 1) << 16, 0)
    return Delivery(handler, place, an_event(number, **event), attempts, first_at_us)
