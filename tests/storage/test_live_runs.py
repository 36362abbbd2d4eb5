"""What damage to the rows that say what is read costs: nothing, or a gap that is told."""

from __future__ import annotations

from contextlib import ExitStack, closing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meterite.model.errors import DamagedError
from meterite.model.metric import MetricSpec
from meterite.storage import journal_sort, run_writer
from meterite.storage.compaction import Compactor
from meterite.storage.interface import Span
from meterite.storage.live_runs import LiveRuns, Run, decode_live_runs, encode_live_runs
from meterite.storage.maintenance import verify
from meterite.storage.work import EVERYTHING, Limits
from storage.place import AT, DAY, Clock, push, read, read_around_damage, scan, to_the_end
from storage.sqlite_place import sqlite_place

ONCE = Limits(journal_readings=1, fan_in=100, quiet_s=1e9, look_s=0)
MONTH = 40 * DAY
int64s = st.integers(-(2**63), 2**63 - 1)
runs = st.builds(Run, *[int64s] * 12, *[st.integers(0, 2**32 - 1)] * 2)


@given(int64s, int64s, st.lists(runs, max_size=5))
def test_a_list_comes_back_as_it_was(org_id, seq, found):
    """Of no run, too; for its own org alone, and not with a byte changed, cut or added."""
    live = LiveRuns.of(org_id, seq, tuple(found))
    blob = encode_live_runs(live)
    back = decode_live_runs(blob, org_id)
    assert (back.org_id, back.compacted_seq, back.runs) == (org_id, seq, tuple(found))
    other = bytes([blob[-1] ^ 1])
    for wrong, owner in (
        (blob, org_id ^ 1),
        (blob[:-1] + other, org_id),
        (blob[:-1], org_id),
        (blob + other, org_id),
    ):
        with pytest.raises(DamagedError):
            decode_live_runs(wrong, owner)


def test_garbage_is_no_list():
    """No exception but DamagedError."""
    for garbage in (b"", b"MLR1", b"MLR1" + bytes(40), bytes(100)):
        with pytest.raises(DamagedError):
            decode_live_runs(garbage, 1)


class Stored:
    """Two months, two runs each of 12 readings, and something in the journal; another org beside it."""

    def __init__(self, place, stack):
        self.place = place
        self._stack = stack
        self.store = self.opened()
        self.here, self.there = (self.store.catalog.org_id(name) for name in ("here", "there"))
        self.series, other = (
            self.store.catalog.create(name, MetricSpec(code="m", name="m")).series_first
            for name in ("here", "there")
        )
        push(self.store, self.there, (other, AT, 1.0))
        for turn in range(2):
            rows = [(self.series, AT + m * MONTH + turn * 12 + n, 1.0) for m in range(2) for n in range(12)]
            push(self.store, self.here, *rows)
            self.finish(ONCE)
        push(self.store, self.here, (self.series, AT + 100, 1.0))

    def opened(self):
        store = self.place.store(Clock())
        store.open()
        self._stack.callback(store.close)
        return store

    def change(self, *statements):
        """And a process begins that knows nothing."""
        with self.store.database.writing() as conn:
            for statement in statements:
                conn.exec_driver_sql(statement)
        self.store = self.opened()

    def rows(self, query):
        with self.store.database.reading() as conn:
            return conn.exec_driver_sql(query).all()

    def finish(self, limits=EVERYTHING):
        to_the_end(Compactor(self.store, limits))

    def narrow(self):
        """The first month's second run."""
        return Span(self.series, self.series, AT + 15, AT + 20)


@pytest.fixture
def stored(monkeypatch):
    monkeypatch.setattr(journal_sort, "ROW_GROUP_READINGS", 4)
    monkeypatch.setattr(run_writer, "ROW_GROUP_READINGS", 4)
    with sqlite_place() as place, ExitStack() as stack:
        yield Stored(place, stack)


WITHOUT_LOSS = {
    "series_first": 9 << 32,
    "series_last": 1,
    "at_first": AT + 70 * MONTH,
    "at_last": AT,
    "seq_first": 1000,
    "seq_last": 0,
    "applied_seq": 1000,
    "count": 5,
    "groups": 1,
    "bytes": 5,
    "window": 5,
    "org": 2,
    "live_at": "NULL",
    "dead_at": 1,
    "directory": "x'00'",
}


@pytest.mark.parametrize("column", [*WITHOUT_LOSS, "all"])
def test_a_damaged_row_of_a_run_costs_nothing(stored, column):
    """Its columns decide nothing: all is read, nothing of it is swept, and the next merge heals it. Verify tells."""
    runs = stored.rows("SELECT id FROM run WHERE org = 1 ORDER BY id")
    damaged = runs[2][0]
    change = f"UPDATE run SET {column} = {WITHOUT_LOSS.get(column)} WHERE id = {damaged}"
    stored.change("DELETE FROM run WHERE org = 1" if column == "all" else change)
    assert not verify(stored.place.url).ok
    with closing(stored.store.view(stored.here)) as view:
        assert len(scan(view, stored.narrow())) == 6
        assert view.gaps(stored.narrow()) == []
    to_the_end(Compactor(stored.store, Limits(look_s=0)))
    assert read_around_damage(stored.store, stored.here)[1] == []
    assert len(read(stored.store, stored.here)) == 49
    stored.finish()
    assert len(read(stored.store, stored.here)) == 49
    assert len(read(stored.store, stored.there)) == 1
    assert stored.store.problems() == []
    report = verify(stored.place.url)
    assert report.ok, report.lines


def test_directories_that_changed_places(stored):
    """Each is whole, and not its run's: what they should say is read from the row groups."""
    (first,), (second,) = stored.rows("SELECT id FROM run WHERE org = 1 ORDER BY id LIMIT 2")
    swapped = (
        f"UPDATE run SET directory = (SELECT directory FROM run r WHERE r.id = {first} + {second} - run.id)"
    )
    stored.change(f"{swapped} WHERE id IN ({first}, {second})")
    assert read_around_damage(stored.store, stored.here)[1] == []
    assert len(read(stored.store, stored.here)) == 49


@pytest.mark.parametrize("damage", ["UPDATE live_runs SET data = x'00'", "DELETE FROM live_runs"])
def test_a_damaged_list_is_told(stored, damage):
    """The rows are believed, so that all is read that they name; but every answer warns, for ever."""
    others = "UPDATE live_runs SET data = (SELECT data FROM live_runs WHERE org = 2) WHERE org = 1"
    for statement in (f"{damage} WHERE org = 1", others if damage.startswith("UPDATE") else damage):
        stored.change(statement)
        for _ in range(2):
            found, gaps = read_around_damage(stored.store, stored.here)
            assert (len(found), len(gaps)) == (49, 1)
    assert stored.store.problems()
    assert read_around_damage(stored.store, stored.there)[1] == (
        [] if "WHERE org = 1" in statement else [gaps[0]]
    )


def test_after_a_damaged_list(stored):
    """The next flip writes it anew; nothing is merged, since a run may be missing from it."""
    stored.change("UPDATE live_runs SET data = x'00' WHERE org = 1")
    before = stored.rows("SELECT count(*) FROM run WHERE org = 1 AND dead_at IS NULL")
    stored.finish()
    ((after,),) = stored.rows("SELECT count(*) FROM run WHERE org = 1 AND dead_at IS NULL")
    assert after == before[0][0] + 1
    found, gaps = read_around_damage(stored.store, stored.here)
    assert (len(found), len(gaps)) == (49, 1)
    report = verify(stored.place.url)
    assert [line for line in report.lines if "live" in line] == [
        line for line in report.lines if "is in quarantine" in line
    ]


@pytest.mark.parametrize("seq", [0, 1 << 40])
def test_a_damaged_compacted_seq_costs_nothing(stored, seq):
    """Neither is anything read twice nor not at all, nor swept; the next flip writes it anew."""
    stored.change(f"UPDATE org SET compacted_seq = {seq} WHERE id = 1")
    assert len(read(stored.store, stored.here)) == 49
    stored.finish()
    assert len(read(stored.store, stored.here)) == 49
    assert verify(stored.place.url).ok


def test_a_damaged_flip_sweeps_nothing_that_waits(stored):
    """Rows of the journal that are in no run stay, whatever a row says of them."""
    stored.change("INSERT INTO flip (org, seq, flipped_at) VALUES (1, 1 << 40, 1)")
    to_the_end(Compactor(stored.store, Limits()))
    assert len(read(stored.store, stored.here)) == 49


@pytest.mark.parametrize("column", ["at_first", "series_first", "seq_first", "applied_seq", "live_at"])
def test_a_tombstone_stays_as_long_as_there_is_something_to_hide(stored, column):
    """A run's damaged row doesn't let it go before its time: what was erased would come back."""
    metric = stored.store.catalog.metric("here", "m")
    stored.store.erase(stored.here, metric, AT, AT + 11, ())
    value = {"at_first": AT + 90 * MONTH, "series_first": 9 << 32, "live_at": "NULL"}.get(column, 1 << 40)
    stored.change(f"UPDATE run SET {column} = {value} WHERE org = 1")
    to_the_end(Compactor(stored.store, Limits(tombstone_delay_s=0, look_s=0, journal_readings=1, fan_in=100)))
    assert len(read(stored.store, stored.here)) == 37
    stored.finish()
    assert len(read(stored.store, stored.here)) == 37
