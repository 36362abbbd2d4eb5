"""What readings raise lies in their journal row, and goes to ``event_row`` when that goes: the same event always."""

from __future__ import annotations

import re
from contextlib import closing

import numpy as np
import pytest

from meterite.model.columns import Batch
from meterite.model.event import EventPlace, parse_event_id
from meterite.model.metric import SERIES_ORDINAL_BITS
from meterite.storage import events
from meterite.storage.backlog import COMMIT_WAL_BYTES, Backlog
from meterite.storage.compaction import Compactor
from meterite.storage.database import driver_of
from meterite.storage.event_reader import _BESIDE, _COUNT, _GIVEN, EVENT_COLUMNS
from meterite.storage.interface import Append
from meterite.storage.maintenance import verify
from meterite.storage.store import SqliteStore
from meterite.storage.work import EVERYTHING
from storage.raised import SECOND, YEAR_2030, Raised


@pytest.fixture
def raised(tmp_path):
    made = Raised(tmp_path / "m.db")
    yield made
    made.close()


def push(raised, metric, values, series=None):
    """Of one series, or of one each."""
    ids = np.array([metric.series_first] if series is None else series, np.int64)
    index = np.zeros(len(values), np.uint32) if series is None else np.arange(len(values), dtype=np.uint32)
    raised.now += SECOND
    at_us = raised.now + np.arange(len(values), dtype=np.int64)
    append = Append(
        raised.store.catalog.org_id(metric.org),
        raised.store.catalog.changed(-1)[0],
        Batch(ids, index, at_us, np.array(values, float)),
        compare=True,
    )
    raised.store.commit([append])
    assert append.error is None
    return append


def compact(raised):
    compactor = Compactor(raised.store, EVERYTHING)
    while compactor.run_once():
        pass
    compactor.close()


def reopened(raised):
    """As a worker that knows nothing yet."""
    raised.store.close()
    raised.store = raised.opened()


def where(raised):
    """Rows of their own, and rows beside readings."""
    return raised.rows("SELECT (SELECT count(*) FROM event_row), count(events) FROM journal")[0]


def test_an_event_is_the_same_in_both_places(raised):
    """Its id, what is told of it, its acknowledgement, its delivery and the alarm; none is there twice."""
    metric = raised.metric("a", max_reading=10)
    other = raised.metric("b", org="there", max_reading=10)
    raised.store.outbox.register(["ops"])
    push(raised, metric, [5.0])
    told = push(raised, metric, [11.0, 12.0])
    push(raised, other, [99.0])
    assert where(raised) == (0, 2)

    def looks():
        return (
            [event.to_dict() for event in raised.all()],
            [event.to_dict() for event in raised.all("there")],
            raised.store.events.alerts("here"),
            raised.store.events.get("here", told.events[0]),
            raised.store.events.newest(),
            raised.store.outbox.counts(),
        )

    raised.store.events.ack("here", told.events[0])
    before = looks()
    assert [event["id"] for event in before[0]] == told.events
    assert before[-1][0].behind == 2
    compact(raised)
    assert where(raised) == (2, 0)
    assert looks() == before
    assert raised.store.outbox.fan_out("ops", lambda row: np.ones(len(row), bool)) is False
    deliveries = raised.store.outbox.claim("me", "ops", 10)
    assert [delivery.event.id for delivery in deliveries][:1] == told.events
    assert len(deliveries) == 2


def test_what_waits_is_counted_with_its_events(raised):
    """A commit that raises much is as much to compact, and has logged as much."""
    metric = raised.metric("a", max_reading=10)
    push(raised, metric, [5.0])
    push(raised, metric, [11.0])
    ((size, of_events),) = raised.rows("SELECT sum(length(data)), sum(length(events)) FROM journal")
    backlog = Backlog()
    with raised.store.database.reading() as conn:
        logged = backlog.refresh(conn)
    (waiting,) = backlog.orgs.values()
    assert of_events > 0
    assert (waiting.bytes, waiting.readings) == (size + of_events, 2)
    assert logged == size + of_events + 2 * COMMIT_WAL_BYTES


def test_a_cursor_meets_each_once(raised):
    """A page at a time, while rows behind it move."""
    metric = raised.metric("a", max_reading=10)
    for n in range(6):
        push(raised, metric, [11.0 if n % 2 == 0 else 5.0])
    whole = [event.id for event in raised.all()]
    first = raised.store.events.select("here", limit=2)
    compact(raised)
    push(raised, metric, [11.0])
    rest = raised.store.events.select("here", after=first.next, limit=10)
    assert [event.id for event in (*first.events, *rest.events)][:6] == whole
    assert len(rest.events) == 5
    assert where(raised) == (6, 1)


def test_what_does_not_fit_beside_the_readings(raised, monkeypatch):
    """More events than one row holds: the others are rows of their own, numbered behind the commit's journal rows."""
    monkeypatch.setattr("meterite.storage.event_rows.EVENT_ROW_EVENTS_MAX", 2)
    metric = raised.metric("a", max_reading=10)
    labels = [(("n", str(n)),) for n in range(5)]
    told = push(raised, metric, [11.0] * 5, sorted(raised.series(metric, *labels)))
    assert where(raised) == (2, 1)
    places = [parse_event_id(id_)[1] for id_ in told.events]
    (row,) = raised.rows("SELECT id FROM journal")[0]
    assert places == [EventPlace(row + n // 2, n % 2) for n in range(5)]
    assert [event.id for event in raised.all()] == told.events
    compact(raised)
    assert [event.id for event in raised.all()] == told.events


def test_asking_costs_no_look_at_all_rows(raised):
    """What is asked of the table goes by its keys, of the journal by ids; nothing is sorted."""
    queries = []
    with raised.store.database.reading() as conn:
        raw = driver_of(conn)
        raw.set_trace_callback(queries.append)
        columns, values = events._Filter(1, EventPlace(1, 0), 127, [3], True).columns()
        list(raised.store.event_reader.rows(raw, 1))
        list(raised.store.event_reader.rows(raw, 1, 1, columns=columns, values=values))
        raised.store.event_reader.newest(raw)
        raised.store.event_reader.row(raw, 1)
        raw.set_trace_callback(None)
    queries += [
        f"SELECT {EVENT_COLUMNS} FROM event_beside AS event WHERE id IN ({_GIVEN}) ORDER BY id",
        _COUNT,
        _BESIDE,
    ]
    for query in queries:
        values = ("[1, 2]",) * query.count("?")
        plan = " | ".join(str(row[3]) for row in raised.rows(f"EXPLAIN QUERY PLAN {query}", *values))
        assert "TEMP B-TREE" not in plan, (query, plan)
        if "WHERE" in query:
            assert re.search(r"SCAN (?!json_each)", plan) is None, (query, plan)


def test_another_worker_learns_of_rows(raised):
    """What it asked for before others committed, too; and what was moved is there once."""
    metric = raised.metric("a", max_reading=10)
    other = SqliteStore(raised.store.database.path, clock=lambda: raised.now)
    other.open()
    with closing(other):
        for n in range(6):
            push(raised, metric, [11.0 if n % 2 == 0 else 5.0])
            assert [e.id for e in other.events.select("here").events] == [e.id for e in raised.all()]
            assert other.events.newest() == raised.store.events.newest()
            if n == 3:
                compact(raised)
        assert len(other.events.select("here").events) == 6


def test_series_of_events_beside_readings_keep_their_labels(raised):
    """Until the events are gone, though the metric is."""
    metric = raised.metric("a", max_reading=10)
    (series,) = raised.series(metric, (("host", "x"),))
    push(raised, metric, [11.0], [series])
    raised.store.catalog.update("here", "a", {"active": False})
    raised.store.catalog.delete("here", "a")
    compact(raised)
    raised.now = YEAR_2030
    compact(raised)
    (event,) = [one for one in raised.all() if one.data.get("labels")]
    assert event.data["labels"] == {"host": "x"}
    assert event.data["metric"]["id"] == series >> SERIES_ORDINAL_BITS


@pytest.mark.parametrize(
    "damage",
    ["events_types = NULL", "events_count = 'x'", "events_checksum = CAST(x'ff' AS TEXT)", "events = x'00'"],
)
def test_a_damaged_event_beside_readings(raised, damage):
    """Is told and left out; its org's pushes and alerts go on, and so does the sweep, of this org and of others."""
    metric, other = raised.metric("a", max_reading=10), raised.metric("b", org="there", max_reading=10)
    push(raised, metric, [11.0])
    with raised.store.database.writing() as conn:
        conn.exec_driver_sql(f"UPDATE journal SET {damage}")
    reopened(raised)
    push(raised, metric, [12.0])
    push(raised, other, [12.0])
    assert [event.data["readings"]["count"] for event in raised.all()] == [1]
    assert len(raised.store.events.alerts("here")) == 1
    compact(raised)
    assert where(raised) == (3, 0)
    assert len(raised.all()) == 1
    assert len(raised.all("there")) == 1
    assert raised.rows("SELECT kind FROM quarantine") == [("event",)]
    verify(f"sqlite:///{raised.store.database.path}")  # falls over nothing


def test_bytes_that_damage_calls_a_text(raised):
    """Are the bytes that they were."""
    metric = raised.metric("a", max_reading=10)
    told = push(raised, metric, [11.0])
    with raised.store.database.writing() as conn:
        conn.exec_driver_sql("UPDATE journal SET events = CAST(events AS TEXT)")
    reopened(raised)
    assert [event.id for event in raised.all()] == told.events
    compact(raised)
    assert [event.id for event in raised.all()] == told.events
