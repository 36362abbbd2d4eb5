"""Alarms written down, and old events gone: what is left says the same as all of it did."""

from __future__ import annotations

import sqlite3
import struct
import zlib
from contextlib import closing
from itertools import count

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meterite.model.event import EventType
from meterite.model.event_row import Document, EventRow
from meterite.model.limits import ABOVE_MAX, BELOW_MIN, CLEARED, QUIET, TRANSITION, AlarmState
from meterite.storage import alarm_snapshot, event_upkeep
from meterite.storage.alarm_snapshot import AlarmSnapshot, decode_part, encode_parts, load_alarms
from meterite.storage.compaction import Compactor
from meterite.storage.database import driver_of
from meterite.storage.event_interface import Outcome, Result
from meterite.storage.event_upkeep import EventUpkeep
from meterite.storage.maintenance import verify
from meterite.storage.work import Limits, Work
from storage.raised import SECOND, YEAR_2030, Raised, changed, transition

DAY = 86_400 * SECOND


@pytest.fixture
def raised(tmp_path):
    raised = Raised(tmp_path / "m.db")
    yield raised
    raised.close()


def upkeep(raised, keep_s=None):
    return EventUpkeep(Work(raised.store, Limits(look_s=0, events_keep_s=keep_s)))


def to_the_end(raised, keep_s=None):
    steps = upkeep(raised, keep_s)
    assert any(not steps.step() for _ in range(1000))


def alarms(raised, org="here"):
    """As a store has them that knows nothing yet."""
    other = raised.opened()
    try:
        with other.database.reading() as conn:
            return load_alarms(
                driver_of(conn), other.event_reader, other.catalog.org_id(org)
            ), other.events.alerts(org)
    finally:
        other.close()


def some_alarms(raised):
    """Two series outside, one of them muted; one pending; one whose clearing wasn't told; a silent metric; some that
    came to rest.
    """
    a, b, c, d = (raised.metric(code) for code in "abcd")
    (e,) = raised.series(d, (("host", "e"),))
    raised.raise_(
        transition(a.series_first, value=11.0, since=5),
        transition(b.series_first),
        Document(EventType.SILENT, c.id, {}),
        Document(EventType.SILENT, d.id, {}),
    )
    raised.raise_(
        transition(b.series_first, CLEARED),
        transition(c.series_first, 0, flags=QUIET, state=AlarmState.BELOW, since=9),
        transition(d.series_first, 0, flags=QUIET, pending=AlarmState.ABOVE, pending_since=5),
        transition(e, 0, flags=QUIET, told=AlarmState.ABOVE),
        Document(EventType.RESUMED, d.id, {}),
    )
    return a, b, c, d


def test_a_snapshot_says_what_the_rows_say(raised, monkeypatch):
    """Written once an org has had so many rows, or so many events; one stays, in parts."""
    monkeypatch.setattr(event_upkeep, "SNAPSHOT_ROWS", 4)
    monkeypatch.setattr(alarm_snapshot, "PART_ALARMS", 2)
    metrics = some_alarms(raised)
    raised.metric("x", org="there")
    expected = alarms(raised)
    assert len(expected[0][0]) == 4
    assert [alert.state for alert in expected[1]] == [AlarmState.ABOVE, AlarmState.BELOW, None]
    assert expected[0][1] == {metrics[2].id}
    to_the_end(raised)
    assert raised.rows("SELECT count(*) FROM alarm") == [(0,)]
    for _ in range(2):
        last = raised.raise_(changed(metrics[0].id))
    to_the_end(raised)
    assert raised.rows("SELECT event_row, number, parts FROM alarm") == [(last, 0, 2), (last, 1, 2)]
    assert alarms(raised) == expected
    raised.raise_(transition(metrics[0].series_first, CLEARED), transition(max(expected[0][0]), CLEARED))
    assert len(alarms(raised)[0][0]) == 2
    for _ in range(3):
        last = raised.raise_(changed(metrics[0].id))
    to_the_end(raised)
    assert raised.rows("SELECT event_row, number, parts FROM alarm") == [(last, 0, 1)]
    monkeypatch.setattr(event_upkeep, "SNAPSHOT_EVENTS", 2)
    last = raised.raise_(changed(metrics[0].id), changed(metrics[0].id))
    to_the_end(raised)
    assert raised.rows("SELECT event_row FROM alarm") == [(last,)]
    assert verify(f"sqlite:///{raised.path}").ok


def test_a_snapshot_counts_when_it_is_whole(raised, monkeypatch):
    """After a crash between two parts, and where one is damaged, the rows say it all; the next round goes on."""
    monkeypatch.setattr(event_upkeep, "SNAPSHOT_ROWS", 1)
    monkeypatch.setattr(alarm_snapshot, "PART_ALARMS", 1)
    some_alarms(raised)
    expected = alarms(raised)
    assert upkeep(raised).step()
    assert raised.rows("SELECT number, parts FROM alarm") == [(0, 4)]
    assert alarms(raised) == expected
    assert verify(f"sqlite:///{raised.path}").ok
    to_the_end(raised)
    assert len(raised.rows("SELECT 1 FROM alarm")) == 4
    with closing(sqlite3.connect(raised.path)) as conn:
        conn.execute("UPDATE alarm SET data = x'00' WHERE number = 1")
        conn.commit()
    assert alarms(raised) == expected
    assert "alarm part 1 of org" in verify(f"sqlite:///{raised.path}").lines[0]


def test_alarms_of_deleted_metrics_end_with_the_snapshot(raised, monkeypatch):
    """Their ids never come again."""
    monkeypatch.setattr(event_upkeep, "SNAPSHOT_ROWS", 1)
    a, _, c, _ = some_alarms(raised)
    for code in "ac":
        raised.store.catalog.set_active("here", code, active=False)
        raised.store.catalog.delete("here", code)
    assert {a.series_first, c.series_first} < set(alarms(raised)[0][0])
    to_the_end(raised)
    (known, silent), alerts = alarms(raised)
    assert {series >> 32 for series in known} & {a.id, c.id} == set()
    assert (silent, alerts) == (set(), [])


def test_old_events_go(raised):
    """With their deliveries and acknowledgements; alarms stay. Nothing goes without a limit."""
    raised.store.outbox.register(["ops"])
    a, *_ = some_alarms(raised)
    while raised.store.outbox.fan_out("ops", lambda row: np.ones(len(row), bool)):
        pass
    claimed = raised.store.outbox.claim("me", "ops", 100)
    raised.store.outbox.finish("me", [Result(d, Outcome.DONE) for d in claimed])
    raised.store.events.ack("here", raised.all()[0].id)
    expected = alarms(raised)
    raised.now += DAY
    raised.raise_(changed(a.id))
    while raised.store.outbox.fan_out("ops", lambda row: np.zeros(len(row), bool)):
        pass
    raised.store.outbox.register(["log"])
    first, *_, last = raised.all()
    to_the_end(raised)
    assert raised.all()[0] == first
    to_the_end(raised, keep_s=3600)
    assert raised.all() == [last]
    for table in ("delivery", "ack"):
        assert raised.rows(f"SELECT count(*) FROM {table}") == [(0,)]
    assert alarms(raised) == expected
    assert raised.store.events.alerts("here") == expected[1]
    assert verify(f"sqlite:///{raised.path}").ok


def test_events_stay_until_each_handler_has_looked_at_them(raised):
    """And until its deliveries are over; handlers that aren't there any more keep nothing."""
    raised.store.outbox.register(["ops", "log"])
    a = raised.metric("a")
    rows = [raised.raise_(transition(a.series_first)) for _ in range(3)]
    raised.now += DAY
    to_the_end(raised, keep_s=3600)
    assert len(raised.all()) == 3
    for handler in ("ops", "log"):
        raised.store.outbox.fan_out(handler, lambda row: np.ones(len(row), bool))
    for handler, number in (("ops", 3), ("log", 1)):
        claimed = raised.store.outbox.claim("me", handler, number)
        raised.store.outbox.finish("me", [Result(d, Outcome.DONE) for d in claimed])
    to_the_end(raised, keep_s=3600)
    assert raised.rows("SELECT id FROM event") == [(row,) for row in rows[1:]]
    assert raised.rows("SELECT DISTINCT event_row FROM delivery") == [(row,) for row in rows[1:]]
    raised.store.outbox.register(["ops"])
    to_the_end(raised, keep_s=3600)
    assert raised.rows("SELECT (SELECT count(*) FROM event), (SELECT count(*) FROM delivery)") == [(0, 0)]


def test_a_large_row_goes_in_short_steps(raised, monkeypatch):
    """No transaction begins another piece after STEP_S; the event's row goes last."""
    raised.store.outbox.register(["ops"])
    a = raised.metric("a")
    raised.raise_(*[transition(a.series_first) for _ in range(2000)])
    while raised.store.outbox.fan_out("ops", lambda row: np.ones(len(row), bool)):
        pass
    raised.store.outbox.register([])
    raised.now += DAY
    monkeypatch.setattr(event_upkeep, "STEP_S", -1)
    steps = upkeep(raised, keep_s=3600)
    left = []
    while steps.step():
        left += raised.rows("SELECT (SELECT count(*) FROM delivery), (SELECT count(*) FROM event)")
    assert left[-6:] == [(2000, 1), (1500, 1), (1000, 1), (500, 1), (0, 1), (0, 0)]


def test_the_compactor_does_it(raised):
    """Where nothing else is to be done."""
    a = raised.metric("a")
    raised.raise_(transition(a.series_first))
    raised.now += DAY
    compactor = Compactor(raised.store, Limits(events_keep_s=3600, look_s=0, idle_s=0))
    assert any(not compactor.run_once() for _ in range(100))
    compactor.close()
    assert raised.all() == []


def test_labels_stay_as_long_as_events_name_them(raised):
    """A deleted metric's events are the same for ever; its labels go after the last of them may have gone."""
    metric = raised.metric("a")
    (series,) = raised.series(metric, (("host", "x"),))
    raised.raise_(transition(series))
    (event,) = raised.all()
    raised.now += SECOND
    raised.store.catalog.set_active("here", "a", active=False)
    raised.store.catalog.delete("here", "a")

    def compact(keep_s):
        compactor = Compactor(raised.store, Limits(events_keep_s=keep_s, look_s=0, tombstone_delay_s=0))
        assert any(not compactor.run_once() for _ in range(100))
        compactor.close()

    compact(None)
    assert not raised.rows("SELECT 1 FROM tombstone")
    other = raised.opened()
    assert other.events.get("here", event.id) == (event, None)
    other.close()
    raised.now += DAY
    compact(3600)
    compact(3600)
    assert raised.rows("SELECT * FROM series") == []


kinds = st.sampled_from([ABOVE_MAX, BELOW_MIN, CLEARED, 0])
transitions = st.builds(
    lambda series, kind, pending, told, since, quiet: transition(
        series, kind, pending=pending, told=told, since=since, flags=QUIET * quiet, value=float(since)
    ),
    st.integers(1, 4),
    kinds,
    st.sampled_from(list(AlarmState)),
    st.sampled_from(list(AlarmState)),
    st.integers(1, 3),
    st.booleans(),
)


@given(st.lists(st.lists(transitions, min_size=1, max_size=4), max_size=8), st.integers(0, 8))
@settings(deadline=None)
def test_any_cut_into_snapshot_and_rows_says_the_same(commits, cut):
    """Folding all rows, and folding the later ones upon what the earlier ones left, through its bytes."""
    ids = count(1)
    rows = [
        EventRow(next(ids), "o", YEAR_2030, np.concatenate([np.empty(0, TRANSITION), *c])) for c in commits
    ]

    def folded(start, some):
        parts = [start, *(alarm_snapshot.alarms_of(row) for row in some)]
        return alarm_snapshot._folded(np.concatenate(parts))

    whole = folded(np.empty(0, alarm_snapshot.ALARM), rows)
    half = folded(np.empty(0, alarm_snapshot.ALARM), rows[:cut])
    (part,) = encode_parts(AlarmSnapshot(1, half, {3: 4}))
    again, silent = decode_part(part)
    assert silent == {3: 4}
    assert folded(again, rows[cut:]).tobytes() == whole.tobytes()
    last = {}
    for row in rows:
        for each in row.transitions:
            last[int(each["series"])] = each
    outside = {s: int(e["state"]) for s, e in last.items() if e["state"] or e["pending"] or e["told"]}
    assert dict(zip(whole["series"].tolist(), whole["state"].tolist(), strict=True)) == outside


def test_a_reader_that_knows_the_document_alone():
    """docs/format/events.md suffices to read a part of a snapshot, in plain Python."""
    row = EventRow(
        9, "o", YEAR_2030, transition(1 << 32, value=11.5, since=5, pending=2, pending_since=6, told=1)
    )
    (part,) = encode_parts(AlarmSnapshot(9, alarm_snapshot.alarms_of(row), {3: 4}))
    magic, crc, n, m = struct.unpack_from("<4sIII", part)
    assert (magic, crc, n, m, len(part)) == (b"MAL1", zlib.crc32(part[8:]), 1, 1, 16 + 93 + 16)
    fields = struct.unpack_from("<qBBBHqqqqddqdqd", part, 16)
    assert fields == (1 << 32, 1, 2, 1, 0, 9, YEAR_2030, 5, 6, 0.0, 10.0, 5, 11.5, 5, 11.5)
    assert struct.unpack_from("<qq", part, 16 + 93) == (3, 4)
