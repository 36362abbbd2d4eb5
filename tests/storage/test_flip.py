"""A flip holds only for what was read: where another compaction was faster, nothing happens.

The file lock keeps two from meeting; these tests go around it, as a file system without working locks would.
"""

from __future__ import annotations

import pytest

from meterite.model.metric import ConflictPolicy
from meterite.storage import journal_step, run_merge
from meterite.storage.compaction import Compactor
from meterite.storage.work import EVERYTHING, DroppedError, Limits, Work
from storage.machine import Pair
from storage.place import YEAR_2030
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
