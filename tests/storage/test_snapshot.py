"""Snapshots of the SQLite store beside what compaction and damage do to the rows they name."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import replace

import numpy as np
import pytest

from meterite.model.errors import DamagedError
from meterite.model.metric import MetricSpec
from meterite.storage import journal_index, journal_sort, run_writer
from meterite.storage.compaction import Compactor
from meterite.storage.interface import Span
from meterite.storage.maintenance import verify
from meterite.storage.snapshot import RowGroups
from meterite.storage.work import EVERYTHING, Limits
from storage.place import AT, Clock, push, read, read_around_damage, scan
from storage.place import EVERYTHING as WHOLE
from storage.sqlite_place import sqlite_place

SWEEPING = replace(EVERYTHING, snapshot_grace_s=0.0)
ONCE = Limits(journal_readings=1, fan_in=100, quiet_s=1e9, look_s=0)


@pytest.fixture
def place():
    with sqlite_place() as place:
        yield place


@pytest.fixture
def store(place):
    store = place.store(Clock())
    store.open()
    yield store
    store.close()


@pytest.fixture
def here(store):
    return store.catalog.org_id("here")


@pytest.fixture
def series(store):
    return store.catalog.create("here", MetricSpec(code="m", name="m")).series_first


def finish(store, limits=EVERYTHING):
    compactor = Compactor(store, limits)
    assert any(not compactor.run_once() for _ in range(1000))
    compactor.close()


def rows(store, query):
    with store.database.reading() as conn:
        return conn.exec_driver_sql(query).all()


def change(store, statement):
    with store.database.writing() as conn:
        conn.exec_driver_sql(statement)


def read_too_late(store, here):
    """The error of a view whose rows are compacted and swept before it reads on."""
    view = store.view(here)
    view.cuts(WHOLE, 100)  # the directories, too, were read in time
    finish(store, SWEEPING)
    with pytest.raises(DamagedError) as caught:
        scan(view)
    view.close()
    store.flush_damage()
    return caught.value.code


def test_row_groups_that_were_swept_are_no_damage(store, here, series, place):
    """A stream that outlives them is cut; the next one reads all, and nothing is in quarantine."""
    push(store, here, (series, AT, 1.0), (series, AT + 1, 2.0))
    finish(store, ONCE)
    push(store, here, (series, AT + 2, 3.0))
    assert read_too_late(store, here) == "snapshot-outlived"
    assert len(read(store, here)) == 3
    assert verify(place.url).ok


def test_journal_rows_that_were_swept_leave_no_silent_gap(store, here, series, place):
    """A stream that outlives them ends in an error, not as if there were fewer readings."""
    push(store, here, (series, AT, 1.0))
    push(store, here, (series, AT + 1, 2.0))
    assert read_too_late(store, here) == "snapshot-outlived"
    assert len(read(store, here)) == 2
    assert verify(place.url).ok


def test_a_journal_row_that_is_missing_is_damage(store, here, series):
    """Nobody compacted it: reading and compacting tell of its gap, and the rest goes on."""
    for n in range(3):
        push(store, here, (series, AT + n, float(n)))
    assert len(read(store, here)) == 3
    (_, (middle,), _) = rows(store, "SELECT id FROM journal ORDER BY id")
    change(store, f"DELETE FROM journal WHERE id = {middle}")
    for settle in (lambda: None, lambda: finish(store)):
        settle()
        found, gaps = read_around_damage(store, here)
        assert [value for *_, value in found] == [0.0, 2.0]
        assert len(gaps) == 1


@pytest.fixture
def restarted(place):
    """Opens the place anew: a process that knows nothing."""
    with ExitStack() as stack:

        def restarted():
            store = place.store(Clock())
            store.open()
            stack.callback(store.close)
            return store

        yield restarted


COLUMNS = {
    "org": 2,
    "series_first": 5 << 32,
    "series_last": 1,
    "at_first": AT + 100,
    "at_last": AT,
    "count": 1,
    "recorded_at": 7,
}


@pytest.mark.parametrize("compacted", [False, True])
@pytest.mark.parametrize(("column", "value"), COLUMNS.items())
def test_a_journal_row_of_damaged_columns(store, here, series, restarted, column, value, compacted):
    """Its bounds are believed no more: whoever asks for what it held is told of the gap, and nobody else is."""
    there = store.catalog.org_id("there")
    other = store.catalog.create("there", MetricSpec(code="m", name="m")).series_first
    push(store, here, *[(series, AT + n, 1.0) for n in range(10)])
    push(store, here, (series, AT + 50, 1.0))
    push(store, there, (other, AT, 1.0))
    change(store, f"UPDATE journal SET {column} = {value} WHERE id = (SELECT min(id) FROM journal)")
    store = restarted()
    if compacted:
        finish(store)
    for first, last, count, gaps in (
        (AT + 5, AT + 6, 0, 1),
        (AT + 9, AT + 60, 1, 1),
        (AT + 10, AT + 60, 1, 0),
    ):
        with closing(store.view(here)) as view:
            span = Span(series, series, first, last)
            assert (len(scan(view, span)), len(view.gaps(span))) == (count, gaps)
    assert read_around_damage(store, there) == ([(other, AT, 1.0)], [])
    finish(store)
    assert rows(store, "SELECT org, kind FROM quarantine") == [(here, "journal")]
    assert rows(store, "SELECT count(*) FROM journal") == [(1,)]
    assert len(store.gaps(here, np.array([series >> 32]))) == 1


def test_a_journal_row_damaged_after_it_was_compacted(store, here, series, place, restarted):
    """What it held is in runs: no gap is told, and it is swept as if it were whole."""
    push(store, here, (series, AT, 1.0))
    stream = store.view(here)
    finish(store)
    change(store, "UPDATE journal SET at_last = 0")
    stream.close()
    store = restarted()
    assert read_around_damage(store, here) == ([(series, AT, 1.0)], [])
    finish(store)
    assert rows(store, "SELECT count(*) FROM journal") == [(0,)]
    assert verify(place.url).ok


def test_a_journal_row_that_compaction_misses_is_damage(store, here, series):
    """It is noticed by whoever reads first."""
    for n in range(3):
        push(store, here, (series, AT + n, float(n)))
    compactor = Compactor(store, EVERYTHING)
    assert store.states(here, np.array([series >> 32]))[0].current is not None
    change(store, "DELETE FROM journal WHERE id = (SELECT min(id) FROM journal)")
    assert any(not compactor.run_once() for _ in range(100))
    compactor.close()
    assert len(rows(store, "SELECT 1 FROM quarantine WHERE kind = 'journal'")) == 1
    assert [value for *_, value in read(store, here)] == [1.0, 2.0]


@pytest.fixture
def two_row_groups(store, here, series, monkeypatch):
    """Of one size; their ids."""
    monkeypatch.setattr(journal_sort, "ROW_GROUP_READINGS", 8)
    monkeypatch.setattr(run_writer, "ROW_GROUP_READINGS", 8)
    push(store, here, *[(series, AT + n, float(n)) for n in range(16)])
    finish(store)
    store.parts.groups = RowGroups(0)
    (first,), (second,) = rows(store, "SELECT id FROM segment ORDER BY id")
    return first, second


@pytest.mark.parametrize("reader", ["a reader", "an erasure of it", "an erasure beside it"])
def test_a_row_group_in_anothers_place_is_damage(store, here, two_row_groups, reader):
    """Whole as it is, it isn't what the directory names; whoever meets it first puts it in quarantine."""
    first, second = two_row_groups
    change(
        store, f"UPDATE segment SET data = (SELECT data FROM segment WHERE id = {first}) WHERE id = {second}"
    )
    if reader == "a reader":
        assert len(read_around_damage(store, here)[0]) == 8
    else:
        erased = AT + (15 if reader == "an erasure of it" else 0)
        store.erase(here, store.catalog.metric("here", "m"), erased, erased, ())
        finish(store)
    assert rows(store, "SELECT kind, row_id FROM quarantine") == [("segment", second)]
    found, gaps = read_around_damage(store, here)
    assert {at for _, at, _ in found} <= set(range(AT, AT + 8))
    assert len(gaps) == 1


def test_a_row_group_that_is_copied_is_checked(store, here, two_row_groups):
    """An erasure elsewhere in its run copies it as it lies there, but not its damage."""
    _, second = two_row_groups
    change(store, f"UPDATE segment SET data = substr(data, 1, length(data) - 1) || x'FF' WHERE id = {second}")
    store.erase(here, store.catalog.metric("here", "m"), AT, AT, ())
    finish(store)
    assert rows(store, "SELECT kind, row_id FROM quarantine") == [("segment", second)]


def test_the_index_of_the_journal_forgets_what_was_compacted(store, here, series, monkeypatch):
    """Also of orgs that nobody reads, once there is much of it."""
    monkeypatch.setattr(journal_index, "_ROWS_KEPT", 8)
    there = store.catalog.org_id("there")
    for n in range(60):
        push(store, here, (series, AT + n, 1.0))
        read(store, there)
        if n % 5 == 0:
            finish(store)
    assert len(store.parts.index._kept[here]) <= 16 * len(journal_index.JOURNAL_BOUNDS.names)
    assert len(read(store, here)) == 60


def test_the_index_of_the_journal_for_who_began_before_a_compaction(store, here, series, monkeypatch):
    """A transaction learns of all rows that it sees, whatever was forgotten since."""
    monkeypatch.setattr(journal_index, "_ROWS_KEPT", 4)

    def compacted_meanwhile():
        finish(store)
        for n in range(5):
            push(store, here, (series, AT + 10 + n, 1.0))
        read(store, here)

    for n in range(4):
        push(store, here, (series, AT + n, 1.0))
    index = store.parts.index
    with store.database.reading() as conn, ThreadPoolExecutor(1) as other:
        before = index.rows(conn, here, 0)
        other.submit(compacted_meanwhile).result()
        after = index.rows(conn, here, 0)
    assert len(before) == 4
    assert after[:4].tolist() == before.tolist()
    assert len(index._kept[here]) == 5 * len(journal_index.JOURNAL_BOUNDS.names)


def test_the_index_of_the_journal_for_who_began_before_others_asked(store, here, series):
    """What went before anybody asked for it is there for a transaction that sees it yet."""

    def compacted_meanwhile():
        finish(store)
        push(store, here, (series, AT + 10, 1.0))
        assert len(read(store, here)) == 5

    index = store.parts.index = journal_index.JournalIndex()
    for n in range(4):
        push(store, here, (series, AT + n, 1.0))
    with store.database.reading() as conn, ThreadPoolExecutor(1) as other:
        seen = conn.exec_driver_sql("SELECT id FROM journal ORDER BY id").scalars().all()
        other.submit(compacted_meanwhile).result()
        assert index.rows(conn, here, 0)["id"].tolist() == seen
    assert len(seen) == 4


def test_damage_in_a_run_that_was_replaced_is_nobodys_loss(store, here, series):
    """What took its place was written from what was still whole."""
    push(store, here, (series, AT, 1.0))
    finish(store, ONCE)
    push(store, here, (series, AT + 2, 3.0))
    view = store.view(here)
    finish(store)
    change(store, "UPDATE segment SET data = x'00' WHERE id = 1 << 20")
    store.parts.groups.forget(1 << 20)
    with pytest.raises(DamagedError) as caught:
        scan(view)
    view.close()
    assert caught.value.code == "snapshot-outlived"
    store.flush_damage()
    assert not rows(store, "SELECT 1 FROM quarantine")


def test_a_row_group_missing_in_a_live_run_is_damage(store, here, series):
    """It goes to quarantine, and its gap is told."""
    push(store, here, (series, AT, 1.0))
    finish(store, ONCE)
    store.parts.groups.forget(1 << 20)
    change(store, "DELETE FROM segment")
    found, gaps = read_around_damage(store, here)
    assert (found, len(gaps)) == ([], 1)
