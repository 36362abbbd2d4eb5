"""The part of a store's tests that is about requests sent again; ``store.py`` has the fixtures."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from meterite.model.columns import NO_TIME, Single
from meterite.model.errors import RepeatedError
from meterite.model.metric import ConflictPolicy, MetricSpec
from meterite.model.time import DAY_US
from meterite.storage.interface import Append
from meterite.storage.once import KeptReceipt, Once
from storage.place import to_the_end

AT = 1_700_000_000_000_000
ONE = Once(b"1" * 32, b"b" * 32, b'{"a": 1}')
TWO = Once(b"2" * 32, b"b" * 32)


class OnceTests:
    """Of appends with one key one is committed."""

    @pytest.fixture
    def summed(self, store):
        return store.catalog.create("here", MetricSpec(code="S", name="S", on_conflict=ConflictPolicy.SUM))

    def append(self, store, metric, once, at_us=AT, value=1.0):
        version = store.catalog.changed(-1)[0]
        return Append(
            store.catalog.org_id("here"), version, Single(metric.series_first, at_us, value), once=once
        )

    def total(self, store, here, metric):
        (state,) = store.states(here, np.array([metric.id]))
        return state.current.value

    def test_kept_with_its_readings(self, store, start, here, summed):
        """And found by every worker, with what the commit says; another key or org has none."""
        one = self.append(store, summed, ONE, NO_TIME)
        store.commit([one])
        kept = start().receipt(here, ONE.key)
        assert kept == KeptReceipt(ONE.body, one.recorded_at_us, one.given_us, 0, 0, ONE.data)
        assert store.receipt(here, TWO.key) is store.receipt(here + 1, ONE.key) is None

    def test_the_second_is_told(self, store, start, here, summed):
        """Within one commit, in a later one, and in another worker's; others beside it are committed."""
        first, second, other = (self.append(store, summed, once) for once in (ONE, ONE, TWO))
        store.commit([first, second, other])
        third = self.append(store, summed, ONE)
        start().commit([third])
        assert [type(one.error) for one in (first, second, other, third)] == [
            type(None),
            RepeatedError,
            type(None),
            RepeatedError,
        ]
        assert self.total(store, here, summed) == 2

    def test_what_is_not_committed_leaves_no_key(self, store, here, summed):
        """An append that was resolved too early, and one that nobody waits for."""
        early = self.append(store, summed, ONE)
        store.catalog.update("here", "S", {"name": "T"})
        gone = self.append(store, summed, TWO)
        gone.abandoned = True
        store.commit([early, gone])
        assert early.error is not None
        assert store.receipt(here, ONE.key) is store.receipt(here, TWO.key) is None

    def test_for_a_day(self, store, here, summed, clock, place):
        """Then the key is free, and compaction takes the old one away."""
        store.commit([self.append(store, summed, ONE)])
        store.commit([self.append(store, summed, TWO)])
        clock.now_us += DAY_US + 2
        assert store.receipt(here, ONE.key) is None
        again = self.append(store, summed, ONE)
        store.commit([again])
        assert again.error is None
        assert store.receipt(here, ONE.key) is not None
        to_the_end(place.compaction(store))
        clock.now_us -= DAY_US
        assert store.receipt(here, TWO.key) is None

    def test_workers_at_once(self, store, start, here, summed):
        """One of many commits."""
        stores = [store, start()]
        appends = [self.append(store, summed, ONE) for _ in range(8)]
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda n: stores[n % 2].commit([appends[n]]), range(8)))
        assert sum(append.error is None for append in appends) == 1
        assert self.total(store, here, summed) == 1
