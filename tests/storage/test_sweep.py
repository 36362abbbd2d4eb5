"""Two compactors at once, as when one lost its lock: whatever the one sweeps, the other's readings stay whole."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest

from meterite.model.metric import MetricSpec
from meterite.storage import journal_sort, journal_step, run_merge, run_writer
from meterite.storage.compaction import Compactor
from meterite.storage.interface import Append
from meterite.storage.maintenance import verify
from meterite.storage.schema import SEGMENT_BITS
from meterite.storage.work import EVERYTHING, DroppedError, Limits
from storage.place import AT, Clock, batch_of, push, read, read_around_damage, to_the_end, version_of
from storage.sqlite_place import sqlite_place

READINGS = 40


@pytest.fixture(autouse=True)
def _many_row_groups(monkeypatch):
    monkeypatch.setattr(journal_sort, "ROW_GROUP_READINGS", 4)
    monkeypatch.setattr(run_writer, "ROW_GROUP_READINGS", 4)
    monkeypatch.setattr(run_writer, "FLUSH_BYTES", 200)


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
def other(place):
    store = place.store(Clock())
    store.open()
    yield store
    store.close()


def push_some(store):
    org_id = store.catalog.org_id("here")
    series = store.catalog.create("here", MetricSpec(code="m", name="m")).series_first
    batch = batch_of([(series, AT + n, float(n)) for n in range(READINGS)])
    store.commit([Append(org_id, version_of(store), batch)])
    return org_id


@contextlib.contextmanager
def after_each_transaction(store, act):
    """Something happens whenever a write transaction of the store's has ended."""
    writing = store.database.writing

    @contextlib.contextmanager
    def and_then(**options):
        with writing(**options) as conn:
            yield conn
        act()

    store.database.writing = and_then
    try:
        yield
    finally:
        store.database.writing = writing


def sweep_all(compactor):
    compactor._sweeper.look()
    while compactor._sweeper.sweep():
        pass


@pytest.mark.parametrize("moment", range(4))
def test_a_flip_amid_a_sweep(store, other, place, monkeypatch, moment):
    """Of what the other takes for a crash's remains: either the flip holds and nothing goes, or it is dropped."""
    org_id = push_some(store)
    flip, sweeping = journal_step._flip, Compactor(other, EVERYTHING)
    outcome = []

    def flip_once(work, prepared):
        outcome.append("flipped")
        try:
            flip(work, prepared)
        except DroppedError:
            outcome[0] = "dropped"

    def beside(work, prepared):
        transactions = []

        def act():
            transactions.append(1)
            if len(transactions) == moment:
                flip_once(work, prepared)

        if moment == 0:
            flip_once(work, prepared)
        with after_each_transaction(other, act):
            sweep_all(sweeping)
        if outcome == ["dropped"]:
            raise DroppedError

    monkeypatch.setattr(journal_step, "_flip", beside)
    compactor = Compactor(store, EVERYTHING)
    compactor.run_once()
    sweeping.close()
    assert outcome == ["flipped" if moment == 0 else "dropped"]
    assert len(read(store, org_id)) == READINGS
    monkeypatch.setattr(journal_step, "_flip", flip)
    to_the_end(compactor)
    assert [value for *_, value in read(store, org_id)] == np.arange(READINGS).tolist()
    report = verify(place.url)
    assert report.ok, report.lines


def test_writing_on_after_a_sweep(store, other, place):
    """A run that another process swept half written gets no more row groups: they would belong to nothing."""
    org_id = push_some(store)
    sweeping, swept = Compactor(other, EVERYTHING), []

    def act():
        if not swept:
            swept.append(1)
            sweep_all(sweeping)

    compactor = Compactor(store, EVERYTHING)
    with after_each_transaction(store, act):
        compactor.run_once()
    assert compactor.done.dropped == 1
    sweeping.close()
    with store.database.reading() as conn:
        left = conn.exec_driver_sql("SELECT count(*) FROM segment").scalar_one()
    assert left == 0
    to_the_end(compactor)
    assert len(read(store, org_id)) == READINGS
    assert verify(place.url).ok


@pytest.mark.parametrize("listed", [True, False])
def test_damage_goes_with_the_run_that_had_it(store, other, place, monkeypatch, listed):
    """A row group that a merge read whole, and that was damaged before the merge was done, is nobody's loss: row
    group and run go, quarantine forgets it, verify agrees. Unless damage took the list of live runs: then nobody knows.
    """
    org_id = push_some(store)
    once = Limits(journal_readings=1, fan_in=100, quiet_s=1e9)
    to_the_end(Compactor(store, once))
    (series,) = {row[0] for row in read(store, org_id)}
    push(store, org_id, (series, AT, -1.0))
    to_the_end(Compactor(store, once))
    replace = run_merge._replace

    def after_damage(*args):
        place.flip_byte("segment", 1 << SEGMENT_BITS)
        found, gaps = read_around_damage(other, org_id)
        assert len(found) < READINGS
        assert gaps
        replace(*args)
        if not listed:
            with store.database.writing() as conn:
                conn.exec_driver_sql("UPDATE live_runs SET data = x'00'")

    monkeypatch.setattr(run_merge, "_replace", after_damage)
    compactor = Compactor(store, EVERYTHING)
    sweep = compactor._sweeper.sweep
    compactor._sweeper.sweep = lambda: False
    compactor.run_once()
    compactor._sweeper.sweep = sweep
    sweep_all(compactor)
    compactor.close()
    with store.database.reading() as conn:
        kinds = conn.exec_driver_sql("SELECT kind FROM quarantine ORDER BY kind").scalars().all()
        runs = conn.exec_driver_sql("SELECT count(*) FROM run").scalar_one()
    if not listed:
        assert "segment" in kinds
        assert runs > 1
        return
    assert not kinds
    assert runs == 1
    found, gaps = read_around_damage(other, org_id)
    assert [value for *_, value in found] == [-1.0, *range(1, READINGS)]
    assert not gaps
    report = verify(place.url)
    assert report.ok, report.lines
