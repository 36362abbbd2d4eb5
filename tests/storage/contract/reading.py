"""The part of a store's tests that is about snapshots, spans and states; ``store.py`` has the fixtures."""

from __future__ import annotations

import itertools
import math
from contextlib import closing

import numpy as np
import pytest

from meterite.model.columns import STALE_BITS, Batch, Single
from meterite.model.metric import MetricSpec, MetricState, Point
from meterite.storage.interface import Append, Span
from storage.place import (
    AT,
    DAY,
    EVERYTHING,
    YEAR_2030,
    push,
    read,
    scan,
    state_of,
    version_of,
)

A, B = (("host", "a"),), (("host", "b"), ("room", "1"))


class ReadingTests:
    """Tests of ``view``, ``span`` and ``states``."""

    def test_a_snapshot_stays_what_it_was(self, pair, settle):
        """Whatever is recorded, erased, deleted and compacted beside it; the next one is up to date."""
        settle(pair.store)
        with closing(pair.store.view(pair.org_ids["here"])) as view:
            cuts = view.cuts(EVERYTHING, 50)
            before = list(view.scan(EVERYTHING))
            recorded = [view.recorded_at(columns.seq).tolist() for columns in before]
            known = pair.known["here", "last"]
            pair.push([("here", "last", 0, at, 99.0) for _, at in list(known.readings)])
            pair.erase("here", "first", YEAR_2030 - 60 * DAY, YEAR_2030, None)
            pair.delete("here", "min")
            settle(pair.store)
            after = list(view.scan(EVERYTHING))
            assert [c.values.tolist() for c in after] == [c.values.tolist() for c in before]
            assert [c.seq.tolist() for c in after] == [c.seq.tolist() for c in before]
            assert [view.recorded_at(columns.seq).tolist() for columns in after] == recorded
            assert view.cuts(EVERYTHING, 50) == cuts
            assert view.gaps(EVERYTHING) == []
        pair.check()

    def test_a_span_of_times(self, store, here, metric, settle):
        """From the start on and before the end; open where one isn't given."""
        push(store, here, *[(metric.series_first, AT + n, float(n)) for n in range(10)])
        settle(store)

        def values(start_us, end_us):
            span = store.span(metric, start_us, end_us, ())
            return [value for *_, value in read(store, here, span)]

        assert values(AT + 2, AT + 5) == [2.0, 3.0, 4.0]
        assert values(None, AT + 1) == [0.0]
        assert values(AT + 8, None) == [8.0, 9.0]
        assert len(values(None, None)) == 10
        assert values(AT + 5, AT + 5) == []

    def test_a_span_of_labels(self, store, start, here, metric, settle):
        """The series that carry all of the labels, also those that another worker made since."""
        other = start()
        beside = store.catalog.create("here", MetricSpec(code="beside", name="Beside"))
        series = [metric.series_first, *store.catalog.series(here, metric, [A, B])]
        series += other.catalog.series(here, beside, [A])

        def found(*labels):
            return [s for s, *_ in read(store, here, store.span(metric, None, None, labels))]

        push(store, here, *[(s, AT, 1.0) for s in series])
        settle(store)
        assert found() == series[:3]
        assert found(("host", "a")) == series[1:2]
        assert found(("host", "b")) == found(("room", "1")) == found(*B) == series[2:3]
        assert found(("host", "a"), ("room", "1")) == found(("host", "c")) == found(("floor", "1")) == []
        (late,) = other.catalog.series(here, metric, [(("floor", "2"), ("host", "a"))])
        push(other, here, (late, AT, 1.0))
        assert found(("host", "a")) == [series[1], late]

    def test_readings_come_sorted(self, pair, settle):
        """By series, then by time, over all chunks, each key once."""
        settle(pair.store)
        for org_id in pair.org_ids.values():
            keys = [row[:2] for row in read(pair.store, org_id)]
            assert keys == sorted(set(keys))

    @pytest.mark.parametrize("target", [1, 20, 1 << 62])
    def test_cuts(self, pair, settle, target):
        """Slices of time, ascending, apart from each other and within the span; together they hold all of it."""
        settle(pair.store)
        metric = pair.known["here", "last"].metric
        first, last = YEAR_2030 - 80 * DAY, YEAR_2030 - 3 * DAY
        span = pair.store.span(metric, first, last + 1, ())
        with closing(pair.store.view(pair.org_ids["here"])) as view:
            whole = scan(view, span)
            cuts = view.cuts(span, target)
            edges = [edge for cut in cuts for edge in cut]
            assert edges == sorted(edges)
            assert all(end < start for (_, end), (start, _) in itertools.pairwise(cuts))
            assert first <= edges[0]
            assert edges[-1] <= last
            parts = [scan(view, Span(span.series_first, span.series_last, a, b)) for a, b in cuts]
        assert sorted(row for part in parts for row in part) == whole
        assert (len(cuts) > len(whole) / 50) if target == 20 else (len(cuts) > 1) == (target == 1)

    def test_nothing_is_cut_where_nothing_is(self, store, here, metric):
        with closing(store.view(here)) as view:
            assert view.cuts(EVERYTHING, 10) == []
            assert scan(view) == []
            assert view.gaps(EVERYTHING) == []

    def test_what_is_no_number_keeps_its_bits(self, store, start, here, metric, settle):
        """Stale markers and any other NaN, infinities and minus zero, alone in a commit and among numbers; and where
        two share a time, those of the newer. None becomes current.
        """
        odd = np.array([STALE_BITS, 0x7FF8000000000000, 0xFFF8DEADBEEF0001, 0x7FF0000000000001], np.uint64)
        values = np.concatenate(
            (odd.view(np.float64), [math.inf, -math.inf, -0.0], np.linspace(-9, 9, 50) ** 3)
        )
        series = metric.series_first
        at = AT + np.arange(len(values))
        push(store, here, *((series, int(t), math.nan) for t in at[:4]))
        for few in (slice(0, 1), slice(1, 4), slice(4, None)):
            count = len(values[few])
            batch = Batch(np.array([series]), np.zeros(count, np.uint32), at[few], values[few])
            store.commit([Append(here, version_of(store), batch)])
        store.commit([Append(here, version_of(store), Single(series, AT + 1000, float(values[0])))])
        settle(store)
        for reader in (store, start()):
            with closing(reader.view(here)) as view:
                found = np.concatenate([c.values for c in view.scan(EVERYTHING)])
            assert found.view(np.uint64).tolist() == [*values.view(np.uint64).tolist(), STALE_BITS]
            newest = [Point(int(at[n]), float(values[n])) for n in (-1, -2)]
            assert state_of(reader, here, metric.id) == MetricState(*newest)

    def test_current_and_last(self, store, here, metric, settle):
        """The two newest numbers over all series, by time and then by series; NaN and infinities aren't any."""
        series = [metric.series_first, *store.catalog.series(here, metric, [A, B])]
        without = store.catalog.create("here", MetricSpec(code="without", name="Without"))
        push(store, here, (series[1], AT, 1.0))
        settle(store)
        assert state_of(store, here, metric.id) == MetricState(Point(AT, 1.0))
        push(store, here, (series[2], AT, 2.0), (series[0], AT, 3.0))
        push(store, here, (series[0], AT + 1, math.nan), (series[0], AT + 2, math.inf))
        settle(store)
        assert state_of(store, here, metric.id) == MetricState(Point(AT, 2.0), Point(AT, 1.0))
        push(store, here, (series[0], AT - 1, 9.0))
        assert state_of(store, here, metric.id) == MetricState(Point(AT, 2.0), Point(AT, 1.0))
        store.erase(here, metric, AT, AT, A)
        assert state_of(store, here, metric.id) == MetricState(Point(AT, 2.0), Point(AT, 3.0))
        settle(store)
        store.erase(here, metric, AT, AT, ())
        assert state_of(store, here, metric.id) == MetricState(Point(AT - 1, 9.0))
        found = store.states(here, np.array([without.id, metric.id, 1 << 30], np.int64))
        assert found == [MetricState(), MetricState(Point(AT - 1, 9.0)), MetricState()]
