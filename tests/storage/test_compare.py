"""What a request's readings replace: the counts are those of reading before and after, whatever happens meanwhile."""

from __future__ import annotations

import contextlib
import itertools
import math

import numpy as np
import pytest

from meterite.model.columns import NO_TIME, Batch, Single
from meterite.model.errors import DamagedError, UnavailableError
from meterite.model.metric import ConflictPolicy, MetricSpec
from meterite.storage import journal_sort, run_writer
from meterite.storage.compaction import Compactor
from meterite.storage.interface import Append
from meterite.storage.snapshot import Snapshot
from meterite.storage.work import EVERYTHING, Limits
from storage.place import AT, Clock, batch_of, push, read, read_around_damage, to_the_end, version_of
from storage.sqlite_place import sqlite_place

ONCE = Limits(journal_readings=1, fan_in=100, quiet_s=1e9, look_s=0)


@pytest.fixture(autouse=True)
def _small_row_groups(monkeypatch):
    monkeypatch.setattr(journal_sort, "ROW_GROUP_READINGS", 8)
    monkeypatch.setattr(run_writer, "ROW_GROUP_READINGS", 8)


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


def compared(store, org_id, rows):
    return Append(org_id, version_of(store), batch_of(rows), compare=True)


def finish(store, limits):
    to_the_end(Compactor(store, limits))


def counted(before, after, rows):
    """(replaced, unchanged), by what is read."""
    before, after = ({row[:2]: row[2] for row in found} for found in (before, after))
    keys = {row[:2] for row in rows} & before.keys()
    same = sum(repr(before[key]) == repr(after[key]) for key in keys)
    return len(keys) - same, same


@pytest.mark.parametrize("seed", range(12))
def test_against_reading_before_and_after(store, here, place, seed):
    """All policies; what was there lies in runs and in the journal, and some of it came while the request waited."""
    rng = np.random.default_rng(seed)
    metrics = [
        store.catalog.create("here", MetricSpec(code=policy, name=policy, on_conflict=policy))
        for policy in ConflictPolicy
    ]

    def some(count):
        values = rng.choice([0.5, 1.0, 2.0, math.nan], count)
        picked = rng.choice(metrics, count)
        times = AT + rng.integers(0, 12, count)
        rows = zip(picked, times.tolist(), values.tolist(), strict=True)
        return [(metric.series_first, at, value) for metric, at, value in rows]

    def erase():
        store.erase(here, rng.choice(metrics), AT + int(rng.integers(6)), AT + 8, ())

    happenings = {
        "nothing": lambda: None,
        "readings": lambda: push(store, here, *some(10)),
        "a delete": erase,
        "a flip": lambda: finish(store, ONCE),
        "a merge": lambda: finish(store, EVERYTHING),
    }
    for _ in range(3):
        push(store, here, *some(20))
        happenings[rng.choice(list(happenings))]()
    for before, after in itertools.product(happenings, repeat=2):
        happenings[before]()
        rows = some(15)
        append = compared(store, here, rows)
        if rng.integers(2):
            store.prepare(append)
        happenings[after]()
        was = read(store, here)
        store.commit([append])
        assert append.error is None
        assert (append.replaced, append.unchanged) == counted(was, read(store, here), rows), (before, after)


def test_times_that_the_commit_gives(store, here):
    """They meet readings that lie in the future; a time named twice in one request counts once."""
    metric = store.catalog.create("here", MetricSpec(code="m", name="m"))
    series = metric.series_first
    store.clock.now_us = AT
    push(store, here, *[(series, AT + n * 1_000_000, 1.0) for n in range(20)])
    finish(store, EVERYTHING)
    at_us = np.array([NO_TIME, NO_TIME, AT + 19_000_000, AT - 1])
    batch = Batch(np.array([series]), np.zeros(4, np.uint32), at_us, np.array([1.0, 2.0, 2.0, 3.0]))
    append = Append(here, version_of(store), batch, compare=True)
    was = read(store, here)
    store.commit([append])
    first = append.given_us
    assert first < AT + 19_000_000
    assert (first - AT) % 1_000_000 == 0
    rows = [(series, at) for at in (first, first + 1, AT + 19_000_000, AT - 1)]
    assert (append.replaced, append.unchanged) == counted(was, read(store, here), rows) == (1, 1)


def test_two_appends_of_one_commit(store, here):
    """Each is compared with what was there before it."""
    series = store.catalog.create("here", MetricSpec(code="m", name="m")).series_first
    push(store, here, (series, AT, 1.0))
    appends = [compared(store, here, [(series, AT, value), (series, AT + 1, value)]) for value in (1.0, 2.0)]
    store.commit(appends)
    assert [(a.replaced, a.unchanged) for a in appends] == [(0, 1), (1, 0)]


@pytest.fixture
def damaged(store, here):
    """Readings of "here", whose first row of the journal fails its checksum."""
    series = store.catalog.create("here", MetricSpec(code="m", name="m")).series_first
    push(store, here, (series, AT, 1.0))
    push(store, here, (series, AT + 1, 1.0))
    with store.database.writing() as conn:
        conn.exec_driver_sql(
            "UPDATE journal SET checksum = checksum + 1 WHERE id = (SELECT min(id) FROM journal)"
        )
    return series


def test_damage_is_nobody_elses_trouble(store, here, damaged):
    """The others of the group are committed, and so is the request, compared with what can be read."""
    there = store.catalog.org_id("there")
    other = store.catalog.create("there", MetricSpec(code="m", name="m")).series_first
    innocent = Append(there, version_of(store), batch_of([(other, AT, 1.0)]))
    append = compared(store, here, [(damaged, AT, 2.0), (damaged, AT + 1, 2.0)])
    store.commit([innocent, append])
    assert innocent.error is append.error is None
    assert (append.replaced, append.unchanged) == (1, 0)
    assert len(read(store, there)) == 1
    assert [value for *_, value in read(store, here)] == [2.0, 2.0]
    assert store.problems()


def test_damage_that_is_met_only_within_the_commit(store, here, damaged, place):
    """The same, where it came after the request was prepared."""
    append = compared(store, here, [(damaged, AT, 2.0), (damaged, AT + 2, 2.0)])
    store.prepare(append)
    push(store, here, (damaged, AT + 2, 1.0))
    with store.database.writing() as conn:
        conn.exec_driver_sql(
            "UPDATE journal SET checksum = checksum + 1 WHERE id = (SELECT max(id) FROM journal)"
        )
    store.commit([append])
    assert append.error is None
    assert (append.replaced, append.unchanged) == (0, 0)
    assert [value for *_, value in read(store, here)] == [2.0, 1.0, 2.0]


def test_damage_that_has_no_end_is_one_requests_trouble(store, here, damaged, monkeypatch):
    """It alone fails."""
    innocent = Append(here, version_of(store), batch_of([(damaged, AT + 5, 1.0)]))
    append = compared(store, here, [(damaged, AT + 6, 2.0)])

    def never(append):
        raise DamagedError("damaged", "Too many.")

    monkeypatch.setattr(store._comparison, "prepare", never)
    store.commit([innocent, append])
    assert innocent.error is None
    assert isinstance(append.error, DamagedError)
    assert [at for _, at, _ in read_around_damage(store, here)[0]] == [AT + 1, AT + 5]


def test_damage_that_limits_meet_is_nobodys_trouble(store, here, damaged, place):
    """A worker that starts reads the journal to judge by; a damaged row of it goes to quarantine."""
    other = place.store(Clock())
    other.open()
    push(other, here, (damaged, AT + 7, 1e9))
    assert len(read(other, here)) == 2
    other.close()


def test_few_row_groups_and_none_within_the_lock(store, here, monkeypatch):
    """Two readings at the ends of many open two row groups, before the writer's lock is taken."""
    series = store.catalog.create("here", MetricSpec(code="m", name="m")).series_first
    push(store, here, *[(series, AT + n, 1.0) for n in range(400)])
    finish(store, EVERYTHING)
    locked, opened = [False], []
    writing, row_group = store.database.writing, Snapshot.row_group

    @contextlib.contextmanager
    def told(**options):
        with writing(**options) as conn:
            locked[0] = True
            yield conn
        locked[0] = False

    def counted_group(snapshot, segment_id, entry):
        opened.append(locked[0])
        return row_group(snapshot, segment_id, entry)

    monkeypatch.setattr(store.database, "writing", told)
    monkeypatch.setattr(Snapshot, "row_group", counted_group)
    append = push(store, here, (series, AT, 2.0), (series, AT + 399, 1.0), compare=True)
    assert (append.replaced, append.unchanged) == (1, 1)
    assert opened == [False, False]


def test_those_committed_before_the_others_failed_are_told_so(store, here, monkeypatch):
    """One is prepared anew, and then the lock doesn't come: an error for all would bring the others once more."""
    series = store.catalog.create("here", MetricSpec(code="S", name="S", on_conflict="sum")).series_first
    single = Append(here, version_of(store), Single(series, AT, 1.0))
    append = compared(store, here, [(series, AT, 5.0)])
    writing, turns = store.database.writing, itertools.count()

    def locked(**options):
        if next(turns):
            raise UnavailableError("database-locked", "Another process is writing; try again.")
        return writing(**options)

    monkeypatch.setattr(store._comparison, "finish", lambda *_: False)
    with monkeypatch.context() as patched:
        patched.setattr(store.database, "writing", locked)
        store.commit([single, append])
    assert (single.error, type(append.error)) == (None, UnavailableError)
    assert [value for _, _, value in read(store, here)] == [1.0]
