"""Metrics from which nothing comes: told once, ended once, whoever looks and whoever records."""

from __future__ import annotations

import numpy as np
import pytest

from meterite.model.columns import Batch
from meterite.model.metric import MetricSpec
from meterite.storage.interface import Append
from meterite.storage.store import SqliteStore

MINUTE = 60_000_000
YEAR_2030 = 1_893_456_000_000_000
SILENT, RESUMED = "meterite.metric.silent", "meterite.metric.resumed"
HOST = (("host", "a"),)


class Site:
    """Two workers on one file; minutes are since 2030, and the clock's."""

    def __init__(self, path, **spec):
        self.minute = 0.0
        self.workers = [self.opened(path) for _ in range(2)]
        fields = {"code": "M1", "name": "n", "expected_every": "5m"} | spec
        self.metric = self.workers[0].catalog.create("a", MetricSpec(**fields))

    def opened(self, path):
        store = SqliteStore(path, clock=lambda: YEAR_2030 + int(self.minute * MINUTE))
        store.open()
        return store

    def push(self, *minutes, worker=0, labels=(), value=1.0):
        store = self.workers[worker]
        org_id = store.catalog.org_id("a")
        (series,) = store.catalog.series(org_id, self.metric, [labels])
        at_us = np.array([YEAR_2030 + int(minute * MINUTE) for minute in minutes], np.int64)
        values = np.full(len(minutes), value)
        batch = Batch(np.array([series]), np.zeros(len(minutes), np.uint32), at_us, values)
        append = Append(org_id, store.catalog.changed(0)[0], batch)
        store.commit([append])
        assert append.error is None

    def look(self, minute, worker=0):
        """Whoever compacts looks, at that minute."""
        self.minute = minute
        compaction = self.workers[worker].compaction()
        compaction.run_once()
        compaction.close()
        return self.told()

    def told(self):
        events = self.workers[1].events.select("a", types=(SILENT, RESUMED)).events
        return [event.type for event in events]

    def change(self, **changes):
        self.workers[0].catalog.update("a", "M1", changes)


@pytest.fixture
def site(tmp_path):
    one = Site(tmp_path / "m.db")
    yield one
    for store in one.workers:
        store.close()


def test_silence_is_told_once(site):
    """Once the newest reading is older than ``expected_every``, by the first of the workers that looks."""
    assert site.look(100) == []
    site.push(100)
    assert site.look(105) == []
    assert site.look(105.1) == [SILENT]
    assert site.look(106, worker=1) == [SILENT]
    assert site.look(200) == [SILENT]
    (alert,) = site.workers[0].events.alerts("a")
    assert (alert.silent, alert.since_us) == (True, YEAR_2030 + int(105.1 * MINUTE))


@pytest.mark.parametrize("worker", [0, 1])
@pytest.mark.parametrize("labels", [(), HOST])
def test_the_next_reading_ends_it_once(site, worker, labels):
    """Of whichever series, through whichever worker; and silence may come again."""
    site.push(100)
    site.look(110)
    site.minute = 111
    site.push(110.5, worker=worker, labels=labels)
    site.push(110.6, worker=1 - worker)
    assert site.told() == [SILENT, RESUMED]
    assert site.workers[0].events.alerts("a") == []
    assert site.look(115) == [SILENT, RESUMED]
    assert site.look(116) == [SILENT, RESUMED, SILENT]


def test_what_was_gathered_meanwhile_resumes_once(site):
    """Hours that come in order, all older than ``expected_every`` but the last: one event, not one a commit."""
    site.push(0)
    assert site.look(120) == [SILENT]
    for minute in range(1, 115):
        site.push(minute, worker=minute % 2, labels=HOST if minute % 3 else ())
        assert site.look(120, worker=minute % 2) == [SILENT]
    site.push(114.5, 115.5, 119)
    assert site.look(120) == [SILENT, RESUMED]
    (event,) = site.workers[0].events.select("a", types=[RESUMED]).events
    assert event.data["reading_at"] == "2030-01-01T01:55:30Z"


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_ends_nothing(site, value):
    """It is no reading that anybody expects."""
    site.push(0)
    site.look(10)
    site.push(10, value=value)
    assert site.told() == [SILENT]


def test_muted_and_inactive_metrics_are_not_looked_for(site):
    """Once they are no more, they are."""
    site.push(0)
    site.change(mute_until_us=YEAR_2030 + 30 * MINUTE)
    assert site.look(20) == []
    site.workers[0].catalog.set_active("a", "M1", active=False)
    assert site.look(40) == []
    site.workers[0].catalog.set_active("a", "M1", active=True)
    assert site.look(41) == [SILENT]


def test_a_silence_that_ends_while_muted_is_told_as_ended_afterwards(site):
    """By the first reading behind the mute, whoever records it; until then it is an alert."""
    site.push(0)
    assert site.look(10) == [SILENT]
    site.change(mute_until_us=YEAR_2030 + 30 * MINUTE)
    site.minute = 20
    site.push(19, worker=1)
    site.push(20)
    assert site.told() == [SILENT]
    assert len(site.workers[1].events.alerts("a")) == 1
    assert site.look(40) == [SILENT]
    site.push(34)
    assert site.told() == [SILENT]
    site.push(39, worker=1)
    site.push(40)
    assert site.told() == [SILENT, RESUMED]
    assert site.workers[0].events.alerts("a") == []


def test_a_longer_expectation_is_not_a_reading(site):
    """The silence goes on until a reading comes; where nothing is expected any more, with any newer one."""
    site.push(0)
    site.look(10)
    site.change(expected_every="2h")
    assert site.look(11) == [SILENT]
    site.change(expected_every=None)
    site.push(-1)
    assert site.told() == [SILENT]
    site.push(1)
    assert site.told() == [SILENT, RESUMED]


def test_after_a_restart(site, tmp_path):
    """A worker that has nothing in memory knows of the silence, and ends it."""
    site.push(0)
    site.look(10)
    site.workers[0].close()
    site.workers[0] = site.opened(tmp_path / "m.db")
    site.push(9)
    assert site.told() == [SILENT, RESUMED]
