"""What deletes hide, against a loop over all of them; and that what is kept of them is what the table holds."""

from __future__ import annotations

from contextlib import closing, contextmanager

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meterite.model.columns import Columns
from meterite.model.metric import MetricSpec
from meterite.storage import tombstone_index
from meterite.storage.tombstone_index import TombstoneIndex
from meterite.storage.tombstones import Tombstone, Tombstones, mask_erased
from storage.place import YEAR_2030, Clock, push, read
from storage.sqlite_place import sqlite_place

SERIES = [metric << 32 | ordinal for metric in (1, 3, 6) for ordinal in (0, 1)]
INT64 = np.iinfo(np.int64)

rows_lists = st.lists(st.tuples(st.sampled_from(SERIES), st.integers(-1, 9), st.integers(1, 8)), max_size=40)
times = st.integers(-1, 9) | st.sampled_from([INT64.min, INT64.max])
tombstone_lists = st.lists(
    st.builds(
        lambda seq, first, last, at, series: Tombstone(seq, seq, first, last, series, *at),
        st.integers(0, 9),
        st.sampled_from([SERIES[0], SERIES[2], SERIES[3]]),
        st.sampled_from([SERIES[2], SERIES[3], SERIES[5]]),
        st.tuples(times, times),
        st.none() | st.lists(st.sampled_from(SERIES)).map(lambda s: np.array(sorted(set(s)), np.int64)),
    ),
    max_size=12,
)


def columns_of(rows):
    series, at_us, seq = np.array(rows, np.int64).reshape(-1, 3).T
    return Columns(series, at_us, np.arange(float(len(rows))), seq)


def hides(t, series, at, seq):
    named = t.series is None or series in t.series.tolist()
    return (
        named and seq < t.seq and t.series_first <= series <= t.series_last and t.at_first <= at <= t.at_last
    )


@given(rows_lists, tombstone_lists, st.booleans())
@settings(max_examples=500, deadline=None)
def test_tombstones_hide_what_is_older(rows, tombstones, in_order):
    """Both ends of series and times included; a reading of the tombstone's own seq stays; the order of the readings
    and of the tombstones doesn't matter.
    """
    if in_order:
        rows.sort()
    kept = [n for n, row in enumerate(rows) if not any(hides(t, *row) for t in tombstones)]
    columns = columns_of(rows)
    masked = mask_erased(columns, Tombstones.of(tombstones))
    assert masked.values.tolist() == kept
    assert (masked is columns) == (len(kept) == len(rows))


@given(tombstone_lists, st.integers(-1, 10), st.integers(-1, 10))
@settings(max_examples=200, deadline=None)
def test_some_of_them(tombstones, after, upto):
    """By seq; and those that touch bounds."""
    some = Tombstones.of(tombstones)
    seqs = sorted(t.seq for t in tombstones)
    assert [t.seq for t in some] == seqs
    assert [t.seq for t in some.after(after)] == [seq for seq in seqs if seq > after]
    assert [t.seq for t in some.upto(upto)] == [seq for seq in seqs if seq <= upto]
    assert some.upto(upto).seq_last == max((seq for seq in seqs if seq <= upto), default=0)
    assert [t.id for t in some.upto(upto).then(some.after(upto))] == [t.id for t in some]
    bounds = SERIES[1], SERIES[2], 3, 5
    mask = some.touch(*bounds).tolist()
    assert mask == [
        t.series_first <= bounds[1]
        and t.series_last >= bounds[0]
        and t.at_first <= bounds[3]
        and t.at_last >= bounds[2]
        for t in some
    ]


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


def insert(store, org, seq, metric=1):
    """As an erasure of another worker's."""
    with store.database.writing() as conn:
        conn.exec_driver_sql(
            "INSERT INTO tombstone (org, seq, metric, series, series_first, series_last, at_first, at_last)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                org,
                seq,
                metric,
                np.array([metric << 32], "<i8").tobytes(),
                metric << 32,
                metric << 32,
                seq,
                seq,
            ),
        )


def remove(store, seq):
    with store.database.writing() as conn:
        conn.exec_driver_sql("DELETE FROM tombstone WHERE seq = ?", (seq,))


def asked(store, index, org):
    with store.database.reading() as conn:
        return [(t.seq, t.series.tolist()) for t in index.tombstones(conn, org)]


def test_what_is_kept_is_what_the_table_holds(store):
    """After each that is added or removed, at either end or in the middle, of this org or another."""
    index = TombstoneIndex()
    present = {1: [], 2: []}
    random = np.random.default_rng(1)
    for seq in range(1, 60):
        org = int(random.integers(1, 3))
        insert(store, org, seq)
        present[org].append(seq)
        for _ in range(int(random.integers(0, 3))):
            if present[org]:
                gone = present[org].pop(int(random.integers(0, len(present[org]))))
                remove(store, gone)
        if seq % 3:
            for each in (1, 2):
                assert asked(store, index, each) == [(s, [1 << 32]) for s in present[each]]
    for seq in present[1]:
        remove(store, seq)
    assert asked(store, index, 1) == []
    assert len(asked(store, index, 2)) == len(present[2]) == index._count


def test_an_older_snapshot_sees_its_own(store, place):
    """Those added since aren't there, those removed since are; and the next newer one sees its own again."""
    index = TombstoneIndex()
    for seq in (1, 2, 3):
        insert(store, 1, seq)
    other = place.store(Clock())
    other.open()
    with other.database.reading() as conn:
        conn.exec_driver_sql("SELECT 1 FROM tombstone").all()
        insert(store, 1, 4)
        remove(store, 2)
        assert [seq for seq, _ in asked(store, index, 1)] == [1, 3, 4]
        assert [t.seq for t in index.tombstones(conn, 1)] == [1, 2, 3]
    assert [seq for seq, _ in asked(store, index, 1)] == [1, 3, 4]
    other.close()


def test_what_is_kept_is_bounded(store, monkeypatch):
    """Who was forgotten is read again."""
    monkeypatch.setattr(tombstone_index, "KEPT_MAX", 5)
    index = TombstoneIndex()
    for seq in range(1, 13):
        insert(store, seq % 4 + 1, seq)
    for _ in range(2):
        for org in range(1, 5):
            assert len(asked(store, index, org)) == 3
    assert len(index._orgs) == 1
    assert index._count == 3


def test_nothing_is_read_where_nothing_changed(store):
    """10,000 tombstones cost each read of another metric 105 ms."""
    org = store.catalog.org_id("here")
    metric = store.catalog.create("here", MetricSpec(code="a", name="a"))
    push(store, org, (metric.series_first, YEAR_2030, 1.0))
    insert(store, org, 100, 77)
    statements = []

    @contextmanager
    def traced():
        with store.database.reading() as conn:
            conn.connection.dbapi_connection.set_trace_callback(statements.append)
        yield
        with store.database.reading() as conn:
            conn.connection.dbapi_connection.set_trace_callback(None)

    with traced():
        for seq in (101, 102):
            for _ in range(3):
                assert len(read(store, org)) == 1
            insert(store, org, seq, 77)
    asked = [s for s in statements if "series FROM tombstone" in s]
    assert [s.split("AND seq > ")[1].split()[0] for s in asked] == ["0", "100"]


def test_many_tombstones_hide_in_one_go(store):
    """Each alone would take a pass over the readings."""
    org = store.catalog.org_id("here")
    metric = store.catalog.create("here", MetricSpec(code="a", name="a"))
    push(store, org, *[(metric.series_first, YEAR_2030 + n, 1.0) for n in range(3000)])
    for n in range(0, 3000, 3):
        store.erase(org, metric, YEAR_2030 + n, YEAR_2030 + n, ())
    assert [at - YEAR_2030 for _, at, _ in read(store, org)] == [n for n in range(3000) if n % 3]
    with closing(store.view(org)) as view:
        assert len(view.tombstones._groups[0]) == 1
