"""Snapshots of answers are closed once, and never beneath a thread that reads with them."""

from __future__ import annotations

import asyncio
import threading
from types import SimpleNamespace

import numpy as np
import pytest

from meterite.lanes import Lanes
from meterite.model.columns import Columns
from meterite.model.metric import Metric, MetricSpec, MetricState
from meterite.query import select
from meterite.query.select import Selector
from meterite.storage.interface import Span


class SlowView:
    """Ten readings a slice. A thread that does ``slow`` says so, and goes on when it may."""

    def __init__(self, slow):
        self.slow = slow
        self.reading = threading.Event()
        self.go_on = threading.Event()
        self.closed = threading.Event()
        self.faults = []

    def _wait(self):
        self.reading.set()
        assert self.go_on.wait(60)
        if self.closed.is_set():
            self.faults.append("closed while it was read")

    def gaps(self, span):
        return []

    def doubts(self):
        return []

    def cuts(self, span, target):
        if self.slow == "cuts":
            self._wait()
        return [(0, 9), (10, 19), (20, 29)]

    def scan(self, span):
        at_us = np.arange(span.at_first, span.at_last + 1)
        if self.slow == "scan" and span.at_first == 10:
            self._wait()
        yield Columns(np.full(len(at_us), 1 << 32), at_us, at_us / 2, at_us)

    def recorded_at(self, seq):
        return seq

    def close(self):
        if self.closed.is_set():
            self.faults.append("closed twice")
        self.closed.set()


def selector_of(view, lanes):
    async def metric_view(org, code):
        return SimpleNamespace(
            metric=Metric(id=1, org=org, spec=MetricSpec(code=code, name="")), state=MetricState()
        )

    store = SimpleNamespace(
        view=lambda org_id: view,
        span=lambda metric, *_: Span(metric.series_first, metric.series_last, 0, 29),
        catalog=SimpleNamespace(org_id=lambda org: 1, labels=lambda ids: dict.fromkeys(ids, ())),
    )
    return Selector(store, SimpleNamespace(view=metric_view), lanes)


async def read_all(selector):
    selection = await selector.select(
        "org", "m", start_us=None, end_us=None, limit=None, descending=False, labels=()
    )
    return [at async for rows in selection.slices() for at in rows.reading_at_us.tolist()]


def test_a_snapshot_is_closed_at_the_end():
    """Once, after the last slice."""

    async def scenario():
        view, lanes = SlowView(None), Lanes()
        found = await read_all(selector_of(view, lanes))
        lanes.close()
        return found, view

    found, view = asyncio.run(scenario())
    assert found == list(range(30))
    assert view.closed.is_set()
    assert not view.faults


def test_labels_of_no_more_series_are_kept_than_may_be(monkeypatch):
    """But of those of the slice at hand, which are all there."""
    monkeypatch.setattr(select, "LABELS_KEPT", 12)

    class ManySeries(SlowView):
        def scan(self, span):
            at_us = np.arange(span.at_first, span.at_last + 1)
            yield Columns((1 << 32) + at_us % 15, at_us, at_us / 2, at_us)

    async def scenario():
        lanes = Lanes()
        selector = selector_of(ManySeries(None), lanes)
        asked = []
        selector._store.catalog.labels = lambda ids: (
            asked.append(len(ids)) or {n: (("n", str(n)),) for n in ids}
        )
        selection = await selector.select(
            "org", "m", start_us=None, end_us=None, limit=None, descending=False, labels=()
        )
        async for rows in selection.slices():
            assert [selection.labels(n) for n in rows.series.tolist()] == [
                (("n", str(n)),) for n in rows.series
            ]
            assert len(selection._labels) <= 12
        lanes.close()
        return asked

    assert asyncio.run(scenario()) == [10, 10, 10]


@pytest.mark.parametrize("slow", ["cuts", "scan"])
def test_a_client_that_leaves_while_a_thread_reads(slow):
    """The snapshot stays open until the thread has what it was at, and is closed then, though nobody waits."""

    async def scenario():
        view, lanes = SlowView(slow), Lanes()
        reading = asyncio.create_task(read_all(selector_of(view, lanes)))
        assert await asyncio.to_thread(view.reading.wait, 60)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        assert not view.closed.is_set()
        view.go_on.set()
        assert await asyncio.to_thread(view.closed.wait, 60)
        lanes.close()
        return view

    assert not asyncio.run(scenario()).faults
