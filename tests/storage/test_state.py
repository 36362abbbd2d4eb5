"""Current and last while others write."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from meterite.model.metric import MetricSpec, MetricState, Point
from meterite.storage import snapshot as snapshot_module
from meterite.storage import state as state_module
from meterite.storage import store as store_module
from meterite.storage.state import States
from storage.place import Clock, push, to_the_end
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


def test_nobody_waits_for_a_fold_with_the_writers_lock_in_hand():
    """Of another org there is nothing to wait for, and of the same the metric at hand is folded alone."""
    with sqlite_place() as place, ThreadPoolExecutor(1) as pool:
        store = place.store(Clock())
        store.open()
        orgs = [store.catalog.org_id(org) for org in ("here", "there")]
        for org in ("here", "there"):
            for code in "ab":
                metric = store.catalog.create(org, MetricSpec(code=code, name=""))
                push(store, store.catalog.org_id(org), (metric.series_first, 1, 1.0))
                push(store, store.catalog.org_id(org), (metric.series_first, 2, 2.0))
            store.catalog.set_active(org, "a", active=False)
        taken, go_on = threading.Event(), threading.Event()
        store.catalog._fold_ahead = lambda org_id: None

        def folding():
            with store._state._guards[orgs[0]]:
                taken.set()
                assert go_on.wait(60)

        held = pool.submit(folding)
        assert taken.wait(60)
        for org in ("here", "there"):
            _, state = store.catalog.delete(org, "a")
            assert state == MetricState(Point(2, 2.0), Point(1, 1.0))
        go_on.set()
        held.result()
        ids = np.array([metric.id for metric in store.catalog.page("here", 10)])
        assert store.states(orgs[0], ids) == [MetricState(Point(2, 2.0), Point(1, 1.0))]
        store.close()


@pytest.mark.parametrize("entries_max", [1, 5, 9, 1000])
def test_no_more_entries_are_kept_than_may_be(entries_max):
    """The orgs asked for longest ago go first, and one that has too many by itself is never kept; the answers are the
    same, in the journal and in blocks, with what another worker pushed and deleted between.
    """
    with sqlite_place() as place:
        store, other = place.store(Clock()), place.store(Clock())
        for one in (store, other):
            one.open()
        store._state = States(entries_max)
        orgs = {}
        for org, count in (("one", 3), ("two", 4), ("three", 8)):
            made = [store.catalog.create(org, MetricSpec(code=f"m{n}", name="")) for n in range(count)]
            orgs[store.catalog.org_id(org)] = made
        at = 0
        for way in (None, "everything", None, "everything"):
            for org_id, made in orgs.items():
                for one in (store, other):
                    at += 1
                    push(one, org_id, *[(metric.series_first, at, 0.5 * at) for metric in made])
            erased = next(iter(orgs))
            other.erase(erased, orgs[erased][0], at - 5, at, ())
            if way:
                to_the_end(place.compaction(other, way))
            for org_id, made in [*orgs.items(), *orgs.items()]:
                ids = np.array([metric.id for metric in made])
                expected = other.states(org_id, ids)
                assert store.states(org_id, ids) == expected
                assert [store.states(org_id, ids[n : n + 1]) for n in range(len(ids))] == [
                    [e] for e in expected
                ]
                kept = store._state._orgs
                assert store._state._count == sum(len(one.entries) for one in kept.values()) <= entries_max
                assert (org_id in kept) == (len(ids) <= entries_max)
        for one in (store, other):
            one.close()


def test_of_an_org_that_is_not_kept_only_what_is_asked_for_is_read(monkeypatch):
    """One block, and the rows of the journal that may hold readings of the metric."""
    with sqlite_place() as place:
        store = place.store(Clock())
        store.open()
        store._state = States(1)
        here = store.catalog.org_id("here")
        metrics = [store.catalog.create("here", MetricSpec(code=f"m{n}", name="")) for n in range(5)]
        push(store, here, *[(metric.series_first, 1, 1.0) for metric in metrics])
        to_the_end(place.compaction(store))
        for metric in metrics:
            push(store, here, (metric.series_first, 2, 2.0))
        decoded = []
        decode = snapshot_module.decode_journal
        monkeypatch.setattr(snapshot_module, "decode_journal", lambda *a: decoded.append(a) or decode(*a))
        assert store.states(here, np.array([metrics[2].id])) == [MetricState(Point(2, 2.0), Point(1, 1.0))]
        assert len(decoded) == 1
        store.close()
