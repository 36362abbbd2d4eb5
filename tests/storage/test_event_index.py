"""Which journal rows hold events is known to whoever asks, whatever other threads asked, and goes with the rows."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing

import pytest

from meterite.model.event import parse_event_id
from meterite.storage import event_index
from meterite.storage.database import driver_of
from meterite.storage.event_index import FORGET_AFTER_S, LOOK_S, EventIndex
from storage.raised import Raised
from storage.test_events_in_journal import compact, push, where

WAIT_S = 30


@pytest.fixture
def raised(tmp_path):
    made = Raised(tmp_path / "m.db")
    yield made
    made.close()


def beside(raised):
    return [row[0] for row in raised.rows("SELECT id FROM event_beside ORDER BY id")]


class Slow(threading.Thread):
    """A reader whose transaction begins, and goes on when it is told."""

    def __init__(self, store):
        super().__init__()
        self.store, self.rows, self.newest = store, [], 0
        self.begun, self.asks = threading.Event(), threading.Event()

    def run(self):
        with self.store.database.reading() as conn:
            raw = driver_of(conn)
            raw.execute("SELECT count(*) FROM journal").fetchone()
            self.begun.set()
            assert self.asks.wait(WAIT_S)
            self.rows = [row[0] for row in self.store.event_reader.rows(raw, 0, columns="id")]
            self.newest, _ = self.store.event_reader.newest(raw)


@pytest.mark.parametrize("later", [0, 1])
def test_a_transaction_older_than_what_is_known(raised, later):
    """Finds what it sees beside readings, though that was moved before any other thread asked; no less, and no more."""
    metric = raised.metric("a", max_reading=10)
    push(raised, metric, [11.0])
    with closing(raised.opened()) as other:
        for value in (5.0, 11.0, 5.0):
            push(raised, metric, [value])
        seen = beside(raised)
        slow = Slow(other)
        slow.start()
        assert slow.begun.wait(WAIT_S)
        compact(raised)
        for _ in range(later):
            push(raised, metric, [11.0])
        assert len(other.events.select("here").events) == 4 + later
        slow.asks.set()
        slow.join(WAIT_S)
        assert slow.rows == seen
        assert slow.newest == seen[-1]
        assert where(raised) == (4, later)


def test_a_look_that_fails_midway(raised):
    """Leaves nothing behind: the next finds each row once, in order."""
    metric = raised.metric("a", max_reading=10)
    for n in range(40):
        push(raised, metric, [11.0 if n % 2 == 0 else 5.0])
    index = EventIndex()
    with raised.store.database.reading() as conn:
        raw = driver_of(conn)
        calls = iter([0] * 20)
        raw.set_progress_handler(lambda: next(calls, 1), 10)
        with pytest.raises(sqlite3.OperationalError, match="interrupted"):
            index.ids(raw)
        assert next(calls, 1)
        raw.set_progress_handler(None, 0)
        assert index.ids(raw).tolist() == beside(raised)


def test_rows_that_went_are_forgotten(raised):
    """Later than any transaction that sees them."""
    now = [0.0]
    index = EventIndex(lambda: now[0])
    metric = raised.metric("a", max_reading=10)
    other = raised.metric("b", org="there", max_reading=10)
    first = push(raised, metric, [11.0]).events[0]
    push(raised, other, [11.0])
    orgs = [raised.store.catalog.org_id(org) for org in ("here", "there")]

    def lengths():
        with raised.store.database.reading() as conn:
            return [len(index.ids(driver_of(conn), 0, org_id)) for org_id in (None, *orgs)]

    assert lengths() == [2, 1, 1]
    compact(raised)
    push(raised, metric, [5.0])
    for left in (
        [3, 2, 1],
        [3, 2, 1],
        [3, 2, 1],
        [1, 1, 0],
    ):  # too early for a look, missed, within the time, behind it
        assert lengths() == left
        now[0] += FORGET_AFTER_S / 2 + 1
    with raised.store.database.reading() as conn:
        assert parse_event_id(first)[1].row not in index.ids(driver_of(conn))


def test_a_row_that_came_meanwhile_is_kept(raised):
    """Whoever misses it since his transaction began before, however often."""
    now = [0.0]
    index = EventIndex(lambda: now[0])
    metric = raised.metric("a", max_reading=10)

    def look():
        with raised.store.database.reading() as conn:
            return index.ids(driver_of(conn)).tolist()

    def missed_by(other):
        with other.database.reading() as conn:
            raw = driver_of(conn)
            assert raw.execute("SELECT count(*) FROM journal").fetchone() == (len(rows),)
            push(raised, metric, [11.0 if len(rows) % 2 == 0 else 5.0])
            look()
            now[0] += LOOK_S
            return index.ids(raw).tolist()

    rows = []
    with closing(raised.opened()) as other:
        for _ in range(3):
            rows = missed_by(other)
            now[0] += FORGET_AFTER_S + 1
            assert look() == rows == beside(raised)


def test_a_question_looks_for_few(raised, monkeypatch):
    """A worker's commit may wait for it; by and by all are looked for, and go, but for those that are there."""
    monkeypatch.setattr(event_index, "LOOK_ROWS", 3)
    now = [0.0]
    index = EventIndex(lambda: now[0])
    metrics = [raised.metric(f"m{n}", org=f"o{n}", max_reading=10) for n in range(2)]
    looked_for = []

    def ids():
        now[0] += 2 * LOOK_S
        with raised.store.database.reading() as conn:
            raw = driver_of(conn)
            raw.set_trace_callback(
                lambda query: "json_each" in query and looked_for.append(query.count(",") + 1)
            )
            found = index.ids(raw).tolist()
            raw.set_trace_callback(None)
            return found

    def push_all():
        for n in range(60):
            push(raised, metrics[n % 2], [11.0 if n // 2 % 2 == 0 else 5.0])
            ids()

    ids()
    push_all()
    old = set(ids())
    assert len(old) == 60
    compact(raised)
    for _ in range(2):
        now[0] += FORGET_AFTER_S
        push_all()
    assert max(looked_for) == 3
    assert not old & set(ids())
    assert ids() == beside(raised)


def test_rows_on_a_malformed_page(raised):
    """Are left out, the others are known; an error that comes otherwise is an error."""
    metric, other = raised.metric("a", max_reading=10), raised.metric("b", org="there", max_reading=10)
    for n in range(40):
        push(raised, metric, [11.0 if n % 2 == 0 else 5.0] * 300)
    told = push(raised, other, [11.0]).events
    newest, count = raised.store.events.newest(), len(raised.all())
    raised.store.close()
    lost = overwrite_a_leaf(raised.path)
    raised.store = raised.opened()
    assert [event.id for event in raised.all("there")] == told
    assert len(raised.store.events.alerts("there")) == 1
    assert raised.store.events.newest() == newest
    assert count - lost <= len(raised.all()) < count
    raised.store.outbox.register(["ops"])


def overwrite_a_leaf(path):
    """In the midst of the journal; answers how many rows at most lay on it."""
    with closing(sqlite3.connect(path)) as conn:
        conn.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (size,) = conn.execute("PRAGMA page_size").fetchone()
        (root,) = conn.execute("SELECT rootpage FROM sqlite_master WHERE name = 'journal'").fetchone()
    with path.open("r+b") as file:
        file.seek((root - 1) * size)
        page = file.read(size)
        assert page[0] == 5, "an interior page"
        cells = int.from_bytes(page[3:5], "big")
        cell = int.from_bytes(page[12 + cells // 2 * 2 :][:2], "big")
        leaf = int.from_bytes(page[cell : cell + 4], "big")
        file.seek((leaf - 1) * size)
        rows = int.from_bytes(file.read(5)[3:], "big")
        file.seek((leaf - 1) * size)
        file.write(b"\xaa" * size)
    return rows
