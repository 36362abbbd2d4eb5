"""What the catalogue of a worker that has just started says, while several threads ask it at once."""

from __future__ import annotations

import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from meterite.model.check import parse_labels
from meterite.model.columns import SeriesKey
from meterite.model.errors import ExhaustedError, UnavailableError
from meterite.model.metric import MetricSpec, made_by_readings
from meterite.storage import series
from meterite.storage.interface import SeriesLimits
from meterite.storage.store import SqliteStore

MANY = SeriesLimits(org_series_max=1000, metric_series_max=1000)


def test_who_asks_first_after_a_start_finds_the_metric(tmp_path, monkeypatch):
    """Another thread may learn which number the org has between any two transactions of the one that asks."""
    with opened(tmp_path) as store:
        made = store.catalog.create("here", MetricSpec(code="m", name="M"))
    with opened(tmp_path) as store, ThreadPoolExecutor(1) as other:
        reading = store.database.reading

        @contextlib.contextmanager
        def between():
            with reading() as conn:
                yield conn
            with monkeypatch.context() as alone:
                alone.setattr(store.database, "reading", reading)
                other.submit(store.catalog.org_id, "here").result(10)

        monkeypatch.setattr(store.database, "reading", between)
        assert store.catalog.metric("here", "m") == made


def test_why_series_are_refused_is_bounded(tmp_path, monkeypatch):
    """However many metrics of a request are full: of the first many series are looked at, of the others few."""
    limits = SeriesLimits(org_series_max=1000, metric_series_max=21)
    looked_at = []

    def counted(text):
        looked_at.append(text)
        return parse_labels(text)

    def keys(names):
        return [SeriesKey(code, (("host", name), ("rack", "r"))) for code in "abcd" for name in names]

    specs = {code: made_by_readings(code, None) for code in "abcd"}
    with opened(tmp_path) as store:
        store.catalog.make("here", keys([str(n) for n in range(20)]), specs, limits, whole=True, version=0)
        monkeypatch.setattr(series, "_LOOKED_AT", 20)
        monkeypatch.setattr(series, "_LOOKED_AT_LEAST", 2)
        monkeypatch.setattr(series, "parse_labels", counted)
        made = store.catalog.make("here", keys(["new"]), {}, limits, whole=True, version=0)
    assert [type(one) for one in made] == [ExhaustedError] * 4
    assert all("'host' has" in one.message for one in made)
    assert len(looked_at) == 21 + 3 * 3


@contextlib.contextmanager
def making(store, monkeypatch, *keys, limits=MANY):
    """While the block runs the store is between two transactions of a request of org one; yields its outcomes."""
    writing = store.database.writing
    begun, go_on = threading.Event(), threading.Event()
    outcomes = []

    @contextlib.contextmanager
    def paused():
        with writing() as conn:
            yield conn
        begun.set()
        assert go_on.wait(30)

    store.catalog.org_id("one")
    monkeypatch.setattr(series, "_NEW_SERIES", 2)
    monkeypatch.setattr(store.database, "writing", paused)
    with ThreadPoolExecutor(1) as pool:
        specs = {key.code: made_by_readings(key.code, None) for key in keys}
        done = pool.submit(store.catalog.make, "one", keys, specs, limits, whole=True, version=0)
        try:
            assert begun.wait(30)
            yield outcomes
        finally:
            go_on.set()
        outcomes += done.result(30)


def test_an_org_that_makes_many_series_keeps_no_other_waiting(tmp_path, monkeypatch):
    """Neither one that makes some nor one that registers a metric; the org itself waits for its turn."""
    keys = [SeriesKey(f"m{n}") for n in range(5)]
    specs = {"m": made_by_readings("m", None)}
    monkeypatch.setattr(series, "LOCK_WAIT_S", 0.01)
    monkeypatch.setattr(series, "REGISTER_WAIT_S", 30)
    with opened(tmp_path) as store, opened(tmp_path) as other:
        with making(store, monkeypatch, *keys) as outcomes:
            (made,) = other.catalog.make("two", [SeriesKey("m")], specs, MANY, whole=True, version=0)
            assert isinstance(made, int)
            assert other.catalog.create("two", MetricSpec(code="n", name="N")).spec.code == "n"
            with pytest.raises(UnavailableError):
                other.catalog.make("one", [SeriesKey("m")], specs, MANY, whole=True, version=0)
        assert all(isinstance(one, int) for one in outcomes)
        assert other.catalog.make("one", keys, {}, MANY, whole=True, version=0) == outcomes


def test_who_registers_a_metric_is_not_refused_while_series_are_made(tmp_path, monkeypatch):
    """It goes on after a short wait; if it takes the last room, the request that had found it free is refused."""
    monkeypatch.setattr(series, "REGISTER_WAIT_S", 0.01)
    keys = [SeriesKey(f"m{n}") for n in range(5)]
    limits = SeriesLimits(org_series_max=5, metric_series_max=5)
    with opened(tmp_path) as store, opened(tmp_path) as other:
        with making(store, monkeypatch, *keys, limits=limits) as outcomes:
            other.catalog.create("one", MetricSpec(code="new", name="New"))
        assert [type(one) for one in outcomes] == [int] * 4 + [ExhaustedError]
        made = [metric.spec.code for metric in other.catalog.page("one", 10)]
        assert sorted(made) == ["m0", "m1", "m2", "m3", "new"]


@contextlib.contextmanager
def opened(path):
    store = SqliteStore(path / "m.db")
    store.open()
    try:
        yield store
    finally:
        store.close()
