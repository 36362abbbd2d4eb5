"""What commits raise, whoever commits: two workers on one file, deletes, compaction, restarts, against a plain walk."""

from __future__ import annotations

import itertools
import math
from contextlib import closing
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meterite.model.columns import Batch, Single
from meterite.model.limits import ABOVE_MAX, BELOW_MIN, CLEARED, LATE, QUIET
from meterite.model.metric import MetricSpec
from meterite.storage.compaction import Compactor
from meterite.storage.database import driver_of
from meterite.storage.event_rows import decode_events
from meterite.storage.interface import Append
from meterite.storage.store import SqliteStore
from meterite.storage.work import EVERYTHING

MINUTE = 60_000_000
LABELS = ((), (("host", "a"),), (("host", "b"),))
VALUES = (5.0, 5.0, 15.0, 15.0, -5.0, math.nan)

READING = st.tuples(st.integers(0, 2), st.integers(-3, 1), st.sampled_from(VALUES))
"""Series, minutes to the time that has come, value: a push moves the time on by a minute."""
PUSH = st.tuples(
    st.just("push"),
    st.integers(0, 1),
    st.one_of(
        READING.map(lambda one: [one]),
        st.lists(READING, min_size=1, max_size=4),
        st.lists(READING, min_size=9, max_size=12),
    ),
)
ERASE = st.tuples(
    st.just("erase"), st.integers(0, 1), st.sampled_from([None, -6, -2]), st.sampled_from([None, -1, 2])
)
STEPS = st.lists(
    st.one_of(
        PUSH,
        PUSH,
        ERASE,
        st.tuples(st.just("compact"), st.integers(0, 1)),
        st.tuples(st.just("restart"), st.integers(0, 1)),
        st.tuples(st.just("limit"), st.integers(0, 1), st.sampled_from([10.0, 20.0])),
        st.tuples(st.just("mute"), st.integers(0, 1), st.booleans()),
    ),
    max_size=20,
)


@dataclass
class Walk:
    """One series, a reading at a time."""

    times: set[int] = field(default_factory=set)
    state: int = 0
    told: int = 0

    def read(self, at, value, high, *, muted):
        if math.isnan(value):
            return None
        side = ABOVE_MAX if value > high else BELOW_MIN if value < 0 else 0
        late = any(at < other for other in self.times)
        self.times.add(at)
        if late:
            return (side, LATE) if side and not muted else None
        self.state = side
        if muted or side == self.told:
            return None
        self.told = side
        return (side or CLEARED, 0)


class Workers:
    """Two stores on one file, and what they should have raised."""

    def __init__(self, path):
        self.path = path
        self.ticks = itertools.count(1_800_000_000_000_000, 1_000_000)
        self.stores = [self.opened(), self.opened()]
        catalog = self.stores[0].catalog
        self.metric = catalog.create("o", MetricSpec(code="a", name="A", min_reading=0, max_reading=10))
        self.org_id = catalog.org_id("o")
        self.series = catalog.series(self.org_id, self.metric, list(LABELS))
        self.walks = {series: Walk() for series in self.series}
        self.high = 10.0
        self.muted = False
        self.minute = 10
        self.expected = []

    def opened(self):
        store = SqliteStore(self.path, clock=lambda: next(self.ticks))
        store.open()
        return store

    def step(self, kind, who, *what):
        getattr(self, kind)(self.stores[who], *what)
        if kind == "restart":
            self.stores[who].close()
            self.stores[who] = self.opened()

    def push(self, store, readings):
        self.minute += 1
        rows = [(self.series[n], (self.minute + at) * MINUTE, value) for n, at, value in readings]
        version, _ = store.catalog.changed(-1)
        if len(rows) == 1:
            append = Append(self.org_id, version, Single(*rows[0]))
        else:
            series, index = np.unique(np.array([r[0] for r in rows], np.int64), return_inverse=True)
            at_us, values = np.array([r[1] for r in rows], np.int64), np.array([r[2] for r in rows])
            append = Append(self.org_id, version, Batch(series, index.astype(np.uint32), at_us, values))
        store.commit([append])
        assert append.error is None
        raised = {
            (series, *told)
            for series, at, value in rows
            if (told := self.walks[series].read(at, value, self.high, muted=self.muted)) is not None
        }
        if raised:
            self.expected.append(raised)

    def erase(self, store, first, last):
        first_us = -(2**63) if first is None else (self.minute + first) * MINUTE
        last_us = 2**63 - 1 if last is None else (self.minute + last) * MINUTE
        store.erase(self.org_id, self.metric, first_us, last_us, ())
        for walk in self.walks.values():
            walk.times = {at for at in walk.times if not first_us <= at <= last_us}

    def compact(self, store):
        compactor = Compactor(store, EVERYTHING)
        while compactor.run_once():
            pass
        compactor.close()

    def restart(self, store):
        pass

    def limit(self, store, high):
        store.catalog.update("o", "a", {"max_reading": high})
        self.high = high

    def mute(self, store, muted):
        store.catalog.update("o", "a", {"mute_until_us": 2 * 10**15 if muted else None})
        self.muted = muted

    def raised(self):
        found = []
        with self.stores[0].database.reading() as conn:
            for (data,) in driver_of(conn).execute("SELECT data FROM event ORDER BY id"):
                transitions, documents, _ = decode_events(data)
                loud = transitions[(transitions["flags"] & QUIET) == 0]
                if len(loud):
                    assert not documents
                    found.append({(r["series"], r["kind"], r["flags"]) for r in loud})
        return found

    def close(self):
        for store in self.stores:
            store.close()


@pytest.fixture
def workers(tmp_path):
    with closing(Workers(tmp_path / "m.db")) as made:
        yield made


@settings(max_examples=150, deadline=None)
@given(steps=STEPS)
def test_each_commit_raises_what_its_readings_mean(tmp_path_factory, steps):
    """Whichever worker commits, and whatever was deleted, compacted, restarted or changed in between."""
    with closing(Workers(tmp_path_factory.mktemp("watch") / "m.db")) as workers:
        for step in steps:
            workers.step(*step)
        assert workers.raised() == workers.expected


@pytest.mark.parametrize("back", [5.0, -5.0])
def test_another_workers_alarm_ends_here(workers, back):
    """Both know the series; one worker's alarm is the other's before its next commit, and the other way round."""
    for who, value in enumerate([5.0, 15.0, back, 15.0, back, 15.0]):
        workers.step("push", who % 2, [(0, 0, value)])
    assert workers.raised() == workers.expected
    assert len(workers.expected) == 5


def test_it_is_late_only_by_what_is_left_after_a_delete(workers):
    """All of it, and a part, which leaves the newest to be looked up."""
    workers.step("push", 0, [(0, -8, 5.0), (0, -4, 5.0), (0, 0, 5.0)])
    workers.step("erase", 1, -5, None)
    workers.step("push", 0, [(0, -10, 15.0), (0, -6, 15.0)])
    workers.step("erase", 0, None, None)
    workers.step("push", 0, [(0, -9, -5.0)])
    assert workers.raised() == workers.expected
    assert workers.expected[0] == {(workers.series[0], ABOVE_MAX, LATE), (workers.series[0], ABOVE_MAX, 0)}


def test_a_file_that_was_compacted_before_there_were_events(workers):
    """Nothing says what the newest readings are: they are looked up where it matters."""
    workers.step("push", 0, [(0, 0, 5.0)])
    workers.step("compact", 0)
    with workers.stores[0].database.writing() as conn:
        driver_of(conn).execute("DELETE FROM watermark")
    workers.step("restart", 0)
    workers.step("push", 0, [(0, -9, 15.0)])
    assert workers.raised() == workers.expected == [{(workers.series[0], ABOVE_MAX, LATE)}]


def test_a_commit_that_fails_raises_nothing_and_is_forgotten(workers, monkeypatch):
    """The events go with the readings; and what was learned in the commit isn't believed afterwards."""
    workers.step("push", 0, [(0, 1, 5.0)])
    store = workers.stores[0]
    with monkeypatch.context() as broken:
        broken.setattr(store.journal, "_insert", lambda *_: 1 / 0)
        append = Append(
            workers.org_id, store.catalog.changed(-1)[0], Single(workers.series[0], 9 * MINUTE, 15.0)
        )
        with pytest.raises(ZeroDivisionError):
            store.commit([append])
    assert workers.raised() == []
    workers.step("push", 0, [(0, 2, 15.0)])
    assert workers.raised() == workers.expected == [{(workers.series[0], ABOVE_MAX, 0)}]


@pytest.mark.parametrize("first", [5.0, 15.0])
def test_what_held_when_a_mute_ended_is_told(workers, first):
    """A crossing or a clearing by one worker, told by the other, behind compaction and a restart; once."""
    workers.step("push", 0, [(0, 0, first)])
    workers.step("mute", 1, True)
    workers.step("push", 0, [(0, 0, 20.0 - first)])
    workers.step("compact", 0)
    workers.step("restart", 1)
    workers.step("mute", 0, False)
    for who in (1, 0, 1):
        workers.step("push", who, [(0, 0, 20.0 - first)])
    kinds = [ABOVE_MAX] if first == 5.0 else [ABOVE_MAX, CLEARED]
    assert workers.raised() == workers.expected == [{(workers.series[0], kind, 0)} for kind in kinds]
