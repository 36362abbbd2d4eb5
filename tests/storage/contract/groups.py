"""The part of a store's tests that is about groups of series pushed together; ``store.py`` has the fixtures."""

from __future__ import annotations

from contextlib import closing

import numpy as np
import pytest

from meterite.model.columns import NO_TIME, STALE_BITS, Batch
from meterite.model.metric import MetricSpec, MetricState
from meterite.storage.interface import Append, PushGroup
from storage.place import EVERYTHING, batch_of, read, state_of, to_the_end, version_of

NONE = Batch(np.empty(0, np.int64), np.empty(0, np.uint32), np.empty(0, np.int64), np.empty(0, np.float64))


def bring(store, org_id, series, value=1.0, *, replaces="all", name='{"job":"a"}'):
    """One commit of a reading each, as a group."""
    batch = batch_of([(s, NO_TIME, value) for s in series]) if series else NONE
    append = Append(org_id, version_of(store), batch, group=PushGroup(name, replaces))
    store.commit([append])
    assert append.error is None
    return append


def stale(store, org_id):
    """The series that have stale markers, one for each, by when they were recorded."""
    found = []
    with closing(store.view(org_id)) as view:
        for columns in view.scan(EVERYTHING):
            marked = columns.take(columns.values.view(np.uint64) == STALE_BITS)
            assert marked.at_us.tolist() == view.recorded_at(marked.seq).tolist()
            found += sorted(zip(marked.at_us.tolist(), marked.series.tolist(), strict=True))
    return [series for _, series in sorted(found)]


class GroupTests:
    """Tests of ``Append.group``."""

    @pytest.fixture
    def series(self, store, here, metric):
        """Two series of one metric and one of another."""
        other = store.catalog.create("here", MetricSpec(code="other", name="Other"))
        labels = [(("host", "a"),), (("host", "b"),)]
        return [*store.catalog.series(here, metric, labels), other.series_first]

    def test_a_group_is_replaced(self, store, start, here, series, settle):
        """Its series that aren't brought again get one stale marker, bit for bit, at the commit's time, whichever
        worker replaces it and however often; what they had stays.
        """
        a, b, c = series
        bring(store, here, [a, b, c])
        settle(store)
        after = bring(start(), here, [b], 2.0)
        assert stale(store, here) == [a, c]
        bring(start(), here, [b], 3.0)
        bring(store, here, [b, c], 4.0)
        settle(store)
        assert stale(store, here) == [a, c]
        assert [value for s, _, value in read(store, here) if s == b] == [1.0, 2.0, 3.0, 4.0]
        assert next(value for s, _, value in read(store, here) if s == a) == 1.0
        assert max(at for s, at, _ in read(store, here) if s == a) == after.recorded_at_us

    def test_metrics_of_a_group_are_replaced(self, store, here, series):
        """Series of metrics that aren't brought stay in it, until all is replaced."""
        a, b, c = series
        bring(store, here, [a, c])
        bring(store, here, [b], replaces="metrics")
        assert stale(store, here) == [a]
        bring(store, here, [], replaces="metrics")
        assert stale(store, here) == [a]
        bring(store, here, [])
        assert stale(store, here) == [a, b, c]
        bring(store, here, [])
        assert stale(store, here) == [a, b, c]

    def test_groups_stand_apart(self, store, here, there, series):
        """By name and org."""
        a, b, _ = series
        bring(store, here, [a])
        bring(store, here, [b], name='{"job":"b"}')
        bring(store, there, [])
        bring(store, here, [], name='{"job":"c"}')
        assert stale(store, here) == []
        bring(store, here, [], name='{"job":"b"}')
        assert stale(store, here) == [b]

    def test_several_of_a_group_in_one_commit(self, store, here, series):
        """In their order: each sees what the one before it left."""
        a, b, c = series
        version = version_of(store)
        group = PushGroup("g", "all")
        appends = [
            Append(here, version, batch_of([(s, NO_TIME, 1.0) for s in some]), group=group)
            for some in ([a], [b], [a, c])
        ]
        store.commit(appends)
        assert sorted(stale_of(store, here)) == [a, b]
        assert [value for s, _, value in read(store, here) if s == a][::2] == [1.0, 1.0]

    def test_a_group_and_others_in_one_commit(self, store, here, series):
        """Readings outside groups, single ones too, are as ever; one commit, one time of recording."""
        a, b, c = series
        bring(store, here, [a, b])
        version = version_of(store)
        appends = [
            Append(here, version, batch_of([(c, NO_TIME, 5.0)])),
            Append(here, version, NONE, group=PushGroup('{"job":"a"}', "all")),
        ]
        store.commit(appends)
        assert stale(store, here) == [a, b]
        assert [value for s, _, value in read(store, here) if s == c] == [5.0]

    def test_what_was_left_behind_doesn_t_become_current(self, store, place, here, metric, series):
        """A marker is no reading of the metric's state, compacted or not."""
        bring(store, here, series[:1], 7.0)
        before = state_of(store, here, metric.id)
        bring(store, here, [])
        assert state_of(store, here, metric.id) == before != MetricState()
        to_the_end(place.compaction(store))
        assert state_of(store, here, metric.id) == before

    @pytest.mark.parametrize("gone", ["inactive", "deleted"])
    def test_metrics_that_take_no_readings_get_no_markers(self, store, here, metric, series, gone):
        """Their series leave the group all the same."""
        bring(store, here, series)
        store.catalog.set_active("here", "metric", active=False)
        if gone == "deleted":
            store.catalog.delete("here", "metric")
        bring(store, here, [])
        assert stale(store, here) == series[2:]
        if gone == "inactive":
            store.catalog.set_active("here", "metric", active=True)
            bring(store, here, [])
            assert stale(store, here) == series[2:]

    def test_what_is_refused_changes_no_group(self, store, here, metric, series):
        """A request that was resolved too early leaves the group as it was."""
        bring(store, here, series)
        before = version_of(store)
        store.catalog.update("here", "other", {"max_reading": 5.0})
        moved = Append(here, before, NONE, group=PushGroup('{"job":"a"}', "all"))
        store.commit([moved])
        assert moved.error is not None
        assert stale(store, here) == []
        bring(store, here, [])
        assert stale(store, here) == series

    def test_groups_are_checked(self, store, place, here, series):
        """A check of what is stored finds nothing wrong with them."""
        bring(store, here, series)
        bring(store, here, series[:1])
        store.close()
        assert place.faults() == []


def stale_of(store, org_id):
    """Series with a stale marker, however many readings they had in that commit."""
    with closing(store.view(org_id)) as view:
        return [
            series
            for columns in view.scan(EVERYTHING)
            for series in columns.series[columns.values.view(np.uint64) == STALE_BITS].tolist()
        ]
