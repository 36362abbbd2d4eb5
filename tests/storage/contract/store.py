"""What every store has to hold to: tests against ``storage/interface.py``, which know no backend.

A backend's test file says where a database of its own may lie, and inherits them all:

    class TestSqliteStore(StoreTests):
        def new_place(self):
            return sqlite_place()
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import ExitStack, closing
from datetime import timedelta
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from meterite.model.metric import MetricSpec
from meterite.storage.interface import Span
from storage.contract.catalog import CatalogTests
from storage.contract.commits import CommitTests
from storage.contract.events import EventTests
from storage.contract.groups import GroupTests
from storage.contract.once import OnceTests
from storage.contract.outbox import OutboxTests
from storage.contract.reading import ReadingTests
from storage.machine import StoreAgainstDict, filled
from storage.place import (
    DAY,
    EVERYTHING,
    YEAR_2030,
    Clock,
    Place,
    read,
    read_around_damage,
    to_the_end,
)

if TYPE_CHECKING:
    from contextlib import AbstractContextManager


class StoreTests(
    CatalogTests, CommitTests, EventTests, GroupTests, OnceTests, OutboxTests, ReadingTests, ABC
):
    """Tests that say ``settle`` run twice: on readings as they were committed, and on compacted ones."""

    machine: ClassVar[type[StoreAgainstDict]] = StoreAgainstDict
    """A backend may add rules of its own."""

    @abstractmethod
    def new_place(self) -> AbstractContextManager[Place]:
        """A place without anything in it, for as long as the context lasts."""

    @pytest.fixture
    def place(self):
        with self.new_place() as place:
            yield place

    @pytest.fixture
    def clock(self):
        return Clock()

    @pytest.fixture
    def start(self, place, clock):
        """Opens one more store on the place: another worker."""
        with ExitStack() as stack:

            def start():
                store = place.store(clock)
                store.open()
                stack.callback(store.close)
                return store

            yield start

    @pytest.fixture
    def store(self, start):
        return start()

    @pytest.fixture
    def here(self, store):
        return store.catalog.org_id("here")

    @pytest.fixture
    def there(self, store):
        return store.catalog.org_id("there")

    @pytest.fixture
    def metric(self, store):
        return store.catalog.create("here", MetricSpec(code="metric", name="A metric"))

    @pytest.fixture(params=["as committed", "compacted"])
    def settle(self, request, place):
        def settle(store):
            if request.param == "compacted":
                to_the_end(place.compaction(store))

        return settle

    @pytest.fixture
    def pair(self, place):
        pair = filled(place)
        yield pair
        pair.close()

    def test_against_a_dict(self):
        """See StoreAgainstDict: every step is followed by a look at all readings, current and last."""
        run_state_machine_as_test(
            lambda: self.machine(self.new_place),
            settings=settings(
                max_examples=40,
                stateful_step_count=20,
                deadline=timedelta(seconds=20),
                suppress_health_check=list(HealthCheck),
            ),
        )

    def test_another_start_reads_the_same(self, pair, settle):
        """All that a store answered, it answers after it was closed and opened again."""
        settle(pair.store)
        pair.restart()
        pair.check()
        pair.restart()
        pair.check()

    def test_closing_twice(self, place, clock):
        """The second time does nothing; nor does closing what was never opened."""
        store = place.store(clock)
        store.close()
        store.open()
        store.close()
        store.close()

    def test_damage_costs_what_was_damaged(self, pair, settle):
        """The rest goes on answering with a sentence for each gap, takes readings, and is compacted; a check and
        ``problems`` tell of it; the other org notices nothing.
        """
        settle(pair.store)
        here, there = pair.org_ids.values()
        all_here, all_there = read(pair.store, here), read(pair.store, there)
        pair.store.close()
        pair.place.damage(here)
        assert pair.place.faults()
        pair.store = pair.opened()
        found, gaps = read_around_damage(pair.store, here)
        assert len(found) < len(all_here)
        assert gaps
        assert all(gap.endswith(".") for gap in gaps)
        assert pair.store.problems()
        ids = {name: [] for name in pair.org_ids}
        for (name, _), known in pair.known.items():
            ids[name].append(known.metric.id)
        pair.store.states(here, np.array(ids["here"]))
        assert pair.store.gaps(here, np.array(ids["here"]))
        assert pair.store.gaps(here, np.array([1 << 30])) == []
        assert pair.store.gaps(there, np.array(ids["there"])) == []
        assert (read(pair.store, there), read_around_damage(pair.store, there)[1]) == (all_there, [])
        with closing(pair.store.view(here)) as view:
            far = YEAR_2030 + 500 * DAY
            assert view.gaps(Span(EVERYTHING.series_first, EVERYTHING.series_last, far, far)) == []
        for step in range(3):
            pair.push([("here", "last", 0, YEAR_2030 + (step + 1) * DAY, 1.0)])
            settle(pair.store)
            assert len(read_around_damage(pair.store, here)[0]) == len(found) + step + 1
        pair.restart()
        assert read_around_damage(pair.store, here)[1]

    def test_what_a_worker_learns_of_anothers_compaction(self, pair):
        """A store that held readings and states in memory reads the same after another one compacted."""
        other = pair.opened()
        ids = np.arange(1, 12)
        before = [other.states(n, ids) for n in pair.org_ids.values()]
        to_the_end(pair.place.compaction(pair.store))
        pair.push([("here", "last", 0, YEAR_2030 + DAY, 7.0)])
        mine, pair.store = pair.store, other
        pair.check()
        assert [other.states(n, ids) for n in pair.org_ids.values()] != before
        pair.store = mine
        other.close()

    def test_compactions_of_two_workers_step_in_turns(self, pair):
        """Neither undoes the other's work, and both come to an end."""
        other = pair.opened()
        compactions = [pair.place.compaction(store) for store in (pair.store, other)]
        assert any(not sum(compaction.run_once() for compaction in compactions) for _ in range(1000))
        for compaction in compactions:
            compaction.close()
        pair.check()
        other.close()
        assert pair.place.faults() == []

    def test_a_compaction_that_is_stopped_does_nothing(self, pair):
        compaction = pair.place.compaction(pair.store)
        compaction.stop()
        assert not compaction.run_once()
        compaction.close()
        pair.check()

    def test_a_workers_own_compaction(self, place, clock):
        """It may be had before the store is open, and finds nothing to do in an empty one."""
        store = place.store(clock)
        compaction = store.compaction()
        store.open()
        to_the_end(compaction)
        store.close()

    def test_the_cookies_secret(self, store, start):
        """One for all workers, kept, and long."""
        secret = store.cookie_secret()
        other = start()
        assert other.cookie_secret() == secret
        store.close()
        other.close()
        assert start().cookie_secret() == secret
        assert len(secret) >= 32

    def test_nothing_stands_in_the_way_of_a_new_store(self, store):
        assert store.problems() == []

    def test_the_clock_is_the_one_that_was_given(self, store, clock):
        assert store.clock is clock
