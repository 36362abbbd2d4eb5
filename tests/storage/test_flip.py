"""A flip holds only for what was read: where another compaction was faster, nothing happens.

The file lock keeps two from meeting; these tests go around it, as a file system without working locks would.
"""

from __future__ import annotations

import contextlib
import itertools

import pytest

from meterite.model.metric import ConflictPolicy
from meterite.storage import journal_step, run_merge, run_writer
from meterite.storage.compaction import Compactor
from meterite.storage.work import EVERYTHING, DroppedError, Limits, Work
from storage.machine import Pair
from storage.place import DAY, YEAR_2030
from storage.sqlite_place import sqlite_place


@pytest.fixture
def pair():
    """One sum a commit, so that what is there twice shows."""
    with sqlite_place() as place:
        pair = Pair(place)
        pair.create("here", ConflictPolicy.SUM)
        push(pair)
        yield pair
        pair.close()


def push(pair):
    pair.push([("here", "sum", 0, YEAR_2030, 1.0)])


def finish(pair, limits=EVERYTHING):
    compactor = Compactor(pair.store, limits)
    assert any(not compactor.run_once() for _ in range(100))
    compactor.close()


def between(monkeypatch, module, name, other):
    """``other`` is done right before the flip of the compaction at hand, once."""
    flip = getattr(module, name)

    def first(*args):
        monkeypatch.setattr(module, name, flip)
        other()
        flip(*args)

    monkeypatch.setattr(module, name, first)


def live_runs(pair):
    with pair.store.database.reading() as conn:
        return (
            conn.exec_driver_sql("SELECT id FROM run WHERE live_at IS NOT NULL AND dead_at IS NULL")
            .scalars()
            .all()
        )


def test_a_journal_is_compacted_once(pair, monkeypatch):
    """Of two that took the same rows, the second writes nothing that anybody sees."""
    between(monkeypatch, journal_step, "_flip", lambda: finish(pair))
    with pytest.raises(DroppedError):
        journal_step.compact_journal(Work(pair.store, EVERYTHING), pair.org_ids["here"])
    assert len(live_runs(pair)) == 1
    pair.check()
    push(pair)
    finish(pair)
    pair.check()


def test_runs_are_merged_once(pair, monkeypatch):
    """Likewise; and the sweep of what the first replaced harms nobody."""
    finish(pair)
    push(pair)
    finish(pair, Limits(journal_rows=1, fan_in=100))
    runs = live_runs(pair)
    assert len(runs) == 2
    with pair.store.database.reading() as conn:
        window = conn.exec_driver_sql("SELECT max(window) FROM run").scalar_one()
    between(monkeypatch, run_merge, "_replace", lambda: finish(pair))
    with pytest.raises(DroppedError):
        run_merge.merge_runs(Work(pair.store, EVERYTHING), pair.org_ids["here"], window, runs)
    assert len(live_runs(pair)) == 1
    pair.check()
    finish(pair)
    pair.check()


def test_readings_of_many_months_are_written_a_few_runs_at_a_time(pair, monkeypatch):
    """No transaction makes more of them than it may; one flip makes all of them live."""
    monkeypatch.setattr(run_writer, "FLUSH_RUNS", 4)
    months = 30
    pair.push([("here", "sum", 0, YEAR_2030 - n * 31 * DAY, 1.0) for n in range(1, months)])
    count, live = "SELECT count(*) FROM run", "SELECT count(*) FROM run WHERE live_at IS NOT NULL"
    seen = [(0, 0)]
    writing = pair.store.database.writing

    @contextlib.contextmanager
    def looked_at(**options):
        with writing(**options) as conn:
            yield conn
            seen.append(tuple(conn.exec_driver_sql(query).scalar_one() for query in (count, live)))

    monkeypatch.setattr(pair.store.database, "writing", looked_at)
    journal_step.compact_journal(Work(pair.store, EVERYTHING), pair.org_ids["here"])
    assert max(now[0] - before[0] for before, now in itertools.pairwise(seen)) == 4
    assert {live for _, live in seen} == {0, months}
    pair.check()
    finish(pair)
    pair.check()
