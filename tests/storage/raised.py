"""A store in which events are raised by hand; used by the tests of events, alarms and deliveries."""

from __future__ import annotations

import numpy as np

from meterite.model.event import EventType
from meterite.model.event_row import Document, MetricName
from meterite.model.limits import ABOVE_MAX, BELOW_MIN, CLEARED, QUIET, TIME_NONE, TRANSITION, AlarmState
from meterite.model.metric import MetricSpec
from meterite.model.standing import NOTHING, Judged
from meterite.storage.database import driver_of
from meterite.storage.event_rows import Names, encode_events, encode_name, insert_event_row
from meterite.storage.journal import Clock, read_clock, write_clock
from meterite.storage.schema import EVENT_ROW_BITS
from meterite.storage.store import SqliteStore

YEAR_2030 = 1_893_456_000_000_000
SECOND = 1_000_000
STATES = {ABOVE_MAX: AlarmState.ABOVE, BELOW_MIN: AlarmState.BELOW, CLEARED: AlarmState.OK, 0: AlarmState.OK}


def transition(series, kind=ABOVE_MAX, *, since=7, value=11.5, **fields):
    """A row of TRANSITION, as the crossing leaves the series; ``fields`` say otherwise. Quiet: nothing was told."""
    row = np.zeros(1, TRANSITION)
    state = STATES[kind]
    values = {"series": series, "kind": kind, "count": 1, "low": 0.0, "high": 10.0, "state": state}
    values |= {"since": since if fields.get("state", state) else TIME_NONE, "pending_since": TIME_NONE}
    values["told"] = 0 if fields.get("flags", 0) & QUIET else fields.get("state", state)
    values |= dict.fromkeys(("first_at", "last_at", "extreme_at"), since)
    values |= dict.fromkeys(("first", "last", "extreme"), value)
    for name, each in (values | fields).items():
        row[name] = each
    return row


def changed(metric_id, **data):
    return Document(EventType.CHANGED, metric_id, data)


class Raised:
    """Opens the file; ``raise_`` is one commit. The clock stands still unless it is moved."""

    def __init__(self, path):
        self.path = path
        self.now = YEAR_2030
        self.store = self.opened()
        self.names = {}

    def opened(self):
        store = SqliteStore(self.path, clock=lambda: self.now)
        store.open()
        return store

    def metric(self, code, org="here", **spec):
        metric = self.store.catalog.create(org, MetricSpec(code=code, name=code.upper(), **spec))
        self.names[metric.id] = MetricName(code, code.upper(), spec.get("unit"))
        return metric

    def series(self, metric, *labels):
        return self.store.catalog.series(self.store.catalog.org_id(metric.org), metric, list(labels))

    def raise_(self, *events, org="here"):
        """One commit of transitions, such as no readings might make, and documents; answers the last row's id."""
        transitions = [e for e in events if not isinstance(e, Document)]
        documents = [e for e in events if isinstance(e, Document)]
        org_id = self.store.catalog.org_id(org)
        with self.store.database.writing() as conn:
            clock = read_clock(conn)
            after = Clock(clock.seq + 1, clock.next_recorded_at(self.now), clock.catalog_version)
            write_clock(conn, after)
            first = after.seq << EVENT_ROW_BITS
            found = Judged.of(np.concatenate(transitions)) if transitions else NOTHING
            names = Names((id_, encode_name(id_, name)) for id_, name in self.names.items())
            rows = encode_events(found, documents, names)
            for row_id, row in enumerate(rows, first):
                insert_event_row(driver_of(conn), row_id, org_id, row, after.recorded_at)
            return first + len(rows) - 1

    def all(self, org="here", **filters):
        """All pages' events."""
        found, after = [], None
        while True:
            page = self.store.events.select(org, after=after, **filters)
            found += page.events
            if page.next is None:
                return found
            after = page.next

    def rows(self, query, *values):
        with self.store.database.reading() as conn:
            return driver_of(conn).execute(query, values).fetchall()

    def close(self):
        self.store.close()
