"""The part of a store's tests that is about writing: commits and what erases them; ``store.py`` has the fixtures."""

from __future__ import annotations

import itertools
import math
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from meterite.model.columns import NO_TIME, Single
from meterite.model.errors import MovedError
from meterite.model.metric import ConflictPolicy, MetricSpec, MetricState, Point
from meterite.storage.interface import Append
from storage.place import (
    AT,
    DAY,
    EVERYTHING,
    YEAR_2030,
    batch_of,
    push,
    read,
    state_of,
    to_the_end,
    version_of,
)

A, B = (("host", "a"),), (("host", "b"), ("room", "1"))


class CommitTests:
    """Tests of ``commit`` and ``erase``."""

    @pytest.mark.parametrize("policy", ConflictPolicy)
    @pytest.mark.parametrize("together", [True, False])
    def test_the_policy_decides_between_readings_of_one_time(self, store, here, settle, policy, together):
        """In the order of commits, and within one in the order of its rows; NaN is only kept where nothing else is."""
        metric = store.catalog.create("here", MetricSpec(code="m", name="m", on_conflict=policy))
        series = metric.series_first
        rows = [(series, AT, v) for v in (math.nan, 3.0, 1.0, 5.0, math.nan, 2.0)]
        rows += [(series, AT + 1, math.nan)] * 2
        for commit in [rows] if together else [[row] for row in rows]:
            push(store, here, *commit)
        settle(store)
        kept = {"last": 2.0, "first": 3.0, "min": 1.0, "max": 5.0, "sum": 11.0}[policy]
        assert repr(read(store, here)) == repr([(series, AT, kept), (series, AT + 1, math.nan)])
        assert state_of(store, here, metric.id) == MetricState(Point(AT, kept))

    def test_sums_are_added_from_the_oldest_on(self, store, place, here):
        """Bit for bit, whatever was compacted in between: floats don't associate."""
        metric = store.catalog.create("here", MetricSpec(code="m", name="m", on_conflict=ConflictPolicy.SUM))
        series, total = metric.series_first, 0.0
        for values in ([1e16], [1.0, 1.0], [1.0, -1e16], [0.1, 0.2]):
            for value in values:
                total += value
            push(store, here, *[(series, AT, value) for value in values])
            assert read(store, here) == [(series, AT, total)]
            to_the_end(place.compaction(store))
            assert read(store, here) == [(series, AT, total)]

    def test_a_commit_of_many(self, store, here, there, metric):
        """Batches and single readings of several orgs, all with one time of recording; orgs don't see each other."""
        other = store.catalog.create("there", MetricSpec(code="metric", name="Theirs"))
        version = version_of(store)
        appends = [
            Append(here, version, Single(metric.series_first, AT, 1.0)),
            Append(
                there, version, batch_of([(other.series_first, AT, 2.0), (other.series_first, AT + 1, 3.0)])
            ),
            Append(here, version, batch_of([(metric.series_first, AT + 1, 4.0)])),
            Append(here, version, Single(metric.series_first, AT + 2, 5.0)),
            Append(here, version, Single(metric.series_first, AT + 3, 6.0), abandoned=True),
        ]
        store.commit(appends)
        assert [append.error for append in appends] == [None] * 5
        assert len({append.recorded_at_us for append in appends[:4]}) == 1
        assert read(store, here) == [(metric.series_first, AT + n, v) for n, v in enumerate((1.0, 4.0, 5.0))]
        assert read(store, there) == [(other.series_first, AT + n, v) for n, v in enumerate((2.0, 3.0))]
        assert state_of(store, there, metric.id) == MetricState()

    def test_a_commit_of_nothing(self, store, here):
        store.commit([])
        assert read(store, here) == []

    @pytest.mark.parametrize("change", ["deactivate", "delete", "update"])
    def test_what_was_resolved_before_a_change_is_refused_alone(
        self, store, start, here, there, metric, change
    ):
        """Whoever made the change; the others of the commit, and what was resolved since, are written."""
        catalog = start().catalog
        kept = store.catalog.create("here", MetricSpec(code="kept", name="Kept"))
        other = store.catalog.create("there", MetricSpec(code="other", name="Other"))
        before = version_of(store)
        if change == "update":
            catalog.update("here", "metric", {"max_reading": 5.0})
        else:
            catalog.set_active("here", "metric", active=False)
        if change == "delete":
            catalog.delete("here", "metric")
        moved = Append(here, before, Single(metric.series_first, AT, 1.0))
        foreign = Append(there, before, Single(other.series_first, AT, 2.0))
        fresh = Append(here, version_of(store), Single(kept.series_first, AT, 3.0))
        store.commit([moved, foreign, fresh])
        assert isinstance(moved.error, MovedError)
        assert foreign.error is fresh.error is None
        assert read(store, here) == [(kept.series_first, AT, 3.0)]
        assert read(store, there) == [(other.series_first, AT, 2.0)]

    def test_new_metrics_and_series_move_nothing(self, store, here, metric):
        """What was resolved before they were made still holds."""
        before = version_of(store)
        store.catalog.create("here", MetricSpec(code="new", name="New"))
        store.catalog.series(here, metric, [A])
        append = Append(here, before, Single(metric.series_first, AT, 1.0))
        store.commit([append])
        assert append.error is None

    def test_times_that_the_commit_gives(self, store, here, metric):
        """Each once a series, from ``given_us`` on and never after ``recorded_at_us``; no commit gives them again."""
        series = metric.series_first
        (labelled,) = store.catalog.series(here, metric, [A])
        read_back = set()
        for _ in range(3):
            version = version_of(store)
            appends = [
                *(Append(here, version, Single(series, NO_TIME, 1.0)) for _ in range(3)),
                Append(here, version, batch_of([(s, NO_TIME, 2.0) for s in (series, labelled, series)])),
                Append(here, version, batch_of([(series, AT, 3.0)])),
            ]
            store.commit(appends)
            times = {(s, at) for s, at, _ in read(store, here)} - read_back - {(series, AT)}
            read_back |= times
            assert len(times) == 6
            given = [append.given_us for append in appends]
            assert given[-1] == 0
            assert min(at for _, at in times) == min(given[:-1])
            assert {(series, at) for at in given[:3]} <= times
            assert max(at for _, at in times) <= appends[0].recorded_at_us
        assert len(read_back) == 18

    def test_recorded_at_grows_whatever_the_clock_does(self, store, start, here, metric, clock, settle):
        """It is the clock's where that moved on; of every commit, by whichever worker, a snapshot knows it."""
        stores = itertools.cycle((store, start()))
        recorded = []
        for n, now_us in enumerate((YEAR_2030 + DAY, YEAR_2030, YEAR_2030 - 9 * DAY, YEAR_2030 + 2 * DAY)):
            clock.now_us = now_us
            append = push(next(stores), here, (metric.series_first, AT + n, 1.0))
            recorded.append(append.recorded_at_us)
        assert recorded == sorted(set(recorded))
        assert recorded[0] >= YEAR_2030 + DAY
        assert recorded[2] < YEAR_2030 + 2 * DAY <= recorded[3] < YEAR_2030 + 3 * DAY
        settle(store)
        with closing(store.view(here)) as view:
            (columns,) = view.scan(EVERYTHING)
            assert view.recorded_at(columns.seq).tolist() == recorded
            assert view.recorded_at(columns.seq[::-1]).tolist() == recorded[::-1]

    def test_changes_of_the_catalogue_take_the_same_clock(self, store, here, metric, clock):
        """Where it stands behind the machine's, what is recorded later isn't dated to the future."""
        clock.now_us = 10 * DAY
        store.catalog.update("here", "metric", {"name": "Other"})
        assert push(store, here, (metric.series_first, AT, 1.0)).recorded_at_us < 11 * DAY

    @pytest.mark.parametrize("policy", ConflictPolicy)
    def test_what_a_commit_replaced(self, store, here, settle, policy):
        """By what is read afterwards: new keys count as neither."""
        metric = store.catalog.create("here", MetricSpec(code="m", name="m", on_conflict=policy))
        series = metric.series_first
        push(store, here, *[(series, AT + n, 2.0) for n in range(3)])
        settle(store)
        rows = [(series, AT, 2.0), (series, AT + 1, 1.0), (series, AT + 2, 3.0), (series, AT + 3, 4.0)]
        append = push(store, here, *rows, compare=True)
        replaced = {"last": 2, "first": 0, "min": 1, "max": 1, "sum": 3}[policy]
        assert (append.replaced, append.unchanged) == (replaced, 3 - replaced)

    def test_workers_at_once(self, store, start, here, metric):
        """Every reading is there once, and no two commits have one time."""
        stores = (store, start())
        version = version_of(store)

        def work(n):
            append = Append(here, version, Single(metric.series_first, NO_TIME, float(n)))
            stores[n % 2].commit([append])
            return append

        with ThreadPoolExecutor(4) as pool:
            appends = list(pool.map(work, range(40)))
        assert len({append.recorded_at_us for append in appends}) == 40
        found = {(at, value) for _, at, value in read(store, here)}
        assert found == {(append.given_us, append.batch.value) for append in appends}

    def test_a_commit_is_seen_by_all_workers_at_once(self, store, start, here, metric):
        """Readings and states, also where the other one has looked before."""
        other = start()
        for n in range(3):
            push(store, here, (metric.series_first, AT + n, float(n)))
            assert len(read(other, here)) == n + 1
            assert state_of(other, here, metric.id).current == Point(AT + n, float(n))

    def test_what_is_erased_stays_erased_and_may_be_pushed_again(self, store, here, settle):
        """Under every policy, since only what was recorded before is hidden; both ends of the range are in it."""
        for policy in ConflictPolicy:
            metric = store.catalog.create("here", MetricSpec(code=policy, name=policy, on_conflict=policy))
            series = metric.series_first
            push(store, here, *[(series, AT + n, 5.0) for n in range(5)])
            settle(store)
            before = push(store, here, (series, AT + 9, 5.0)).recorded_at_us
            erased_at = store.erase(here, metric, AT + 1, AT + 3, ())
            assert erased_at > before
            again = push(store, here, (series, AT + 2, 7.0))
            assert again.recorded_at_us > erased_at
            settle(store)
            span = store.span(metric, None, None, ())
            expected = [(series, AT + n, v) for n, v in ((0, 5.0), (2, 7.0), (4, 5.0), (9, 5.0))]
            assert read(store, here, span) == expected

    def test_erasing_goes_by_the_order_of_commits_not_by_clocks(self, store, here, metric, clock, settle):
        """Also where the clock was set back in between."""
        push(store, here, (metric.series_first, AT, 1.0))
        clock.now_us -= 5 * DAY
        store.erase(here, metric, AT, AT, ())
        assert read(store, here) == []
        clock.now_us -= 5 * DAY
        push(store, here, (metric.series_first, AT, 2.0))
        settle(store)
        assert read(store, here) == [(metric.series_first, AT, 2.0)]

    def test_erasing_by_labels(self, store, here, there, metric, settle):
        """Series that carry all of the labels; other metrics and orgs keep theirs."""
        series = [metric.series_first, *store.catalog.series(here, metric, [A, B])]
        beside = store.catalog.create("here", MetricSpec(code="beside", name="Beside"))
        theirs = store.catalog.create("there", MetricSpec(code="metric", name="Theirs"))
        push(store, here, *[(s, AT, 1.0) for s in (*series, beside.series_first)])
        push(store, there, (theirs.series_first, AT, 1.0))
        settle(store)
        store.erase(here, metric, AT, AT, (("host", "c"),))
        store.erase(here, metric, AT, AT, (("host", "a"), ("room", "1")))
        assert len(read(store, here)) == 4
        store.erase(here, metric, AT, AT, (("room", "1"),))
        kept = [(s, AT, 1.0) for s in (*series[:2], beside.series_first)]
        assert read(store, here) == kept
        settle(store)
        assert read(store, here) == kept
        store.erase(here, metric, EVERYTHING.at_first, EVERYTHING.at_last, ())
        assert read(store, here) == kept[2:]
        assert len(read(store, there)) == 1

    def test_a_deleted_metric_takes_its_readings_along(self, pair, settle):
        """One of the same code that is made afterwards has none of them; all others stay."""
        settle(pair.store)
        pair.delete("here", "max")
        pair.check()
        settle(pair.store)
        pair.push([("here", "max", 1, YEAR_2030, 1.0)])
        pair.check()
