"""Current and last while others write."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from meterite.model.metric import MetricSpec, MetricState, Point
from meterite.storage import state as state_module
from meterite.storage import store as store_module
from storage.place import Clock, push
from storage.sqlite_place import sqlite_place


def test_a_metric_has_its_state_at_every_moment(monkeypatch):
    """Also while another thread is amid folding in what came since."""
    folding, go_on = threading.Event(), threading.Event()
    with sqlite_place() as place, ThreadPoolExecutor(1, thread_name_prefix="other") as pool:
        store = place.store(Clock())
        store.open()
        here = store.catalog.org_id("here")
        metrics = [store.catalog.create("here", MetricSpec(code=f"m{n}", name="")) for n in range(3)]
        ids = np.array([metric.id for metric in metrics])
        top_two_rows, state_of = state_module.top_two_rows, store_module.state_of
        others = []

        def push_all(at):
            push(store, here, *[(metric.series_first, at, 1.0) for metric in metrics])

        def pushed_and_asked():
            push_all(3)
            return store.states(here, ids)

        def paused(columns):
            if threading.current_thread().name.startswith("other"):
                folding.set()
                assert go_on.wait(60)
            return top_two_rows(columns)

        def while_another_folds(entry):
            if not others:
                others.append(pool.submit(pushed_and_asked))
                assert folding.wait(60)
            return state_of(entry)

        push_all(1)
        push_all(2)
        monkeypatch.setattr(state_module, "top_two_rows", paused)
        monkeypatch.setattr(store_module, "state_of", while_another_folds)
        found = store.states(here, ids)
        go_on.set()
        assert found == [MetricState(Point(2, 1.0), Point(1, 1.0))] * 3
        assert others[0].result() == [MetricState(Point(3, 1.0), Point(2, 1.0))] * 3
        store.close()
