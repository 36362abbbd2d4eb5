"""What the catalogue of a worker that has just started says, while several threads ask it at once."""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor

import pytest

from meterite.model.check import parse_labels
from meterite.model.columns import SeriesKey
from meterite.model.errors import ExhaustedError, UnavailableError
from meterite.model.metric import MetricSpec, made_by_readings
from meterite.storage import series
from meterite.storage.interface import SeriesLimits
from meterite.storage.steps import run_through
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
        make(store, "here", keys([str(n) for n in range(20)]), specs, limits, whole=True, version=0)
        monkeypatch.setattr(series, "_LOOKED_AT", 20)
        monkeypatch.setattr(series, "_LOOKED_AT_LEAST", 2)
        monkeypatch.setattr(series, "parse_labels", counted)
        made = make(store, "here", keys(["new"]), {}, limits, whole=True, version=0)
    assert [type(one) for one in made] == [ExhaustedError] * 4
    assert all("'host' has" in one.message for one in made)
    assert len(looked_at) == 21 + 3 * 3


def make(store, *args, **options):
    return run_through(store.catalog.making(*args, **options))


def test_an_org_that_makes_many_series_keeps_only_itself_waiting(tmp_path, monkeypatch):
    """Whoever makes series of it elsewhere waits for its turn, and is refused when that doesn't come in time."""
    monkeypatch.setattr(series, "LOCK_WAIT_S", 0.01)
    monkeypatch.setattr(series, "STEP_SERIES", 2)
    keys = [SeriesKey(f"m{n}") for n in range(5)]
    specs = {key.code: made_by_readings(key.code, None) for key in keys}
    with opened(tmp_path) as store, opened(tmp_path) as other:
        steps = store.catalog.making("one", keys, specs, MANY, whole=True, version=0)
        next(steps)
        for one in (store, other):
            with pytest.raises(UnavailableError):
                make(one, "one", [SeriesKey("m")], specs, MANY, whole=True, version=0)
        (made,) = make(other, "two", keys[:1], specs, MANY, whole=True, version=0)
        assert isinstance(made, int)
        ids = run_through(steps)
        assert make(other, "one", keys, {}, MANY, whole=True, version=0) == ids


def test_a_step_is_bounded_by_metrics_too(tmp_path, monkeypatch):
    """Each costs statements of its own."""
    monkeypatch.setattr(series, "STEP_METRICS", 2)
    keys = [SeriesKey(f"m{m}", (("n", n),)) for m in range(5) for n in "ab"]
    specs = {f"m{n}": made_by_readings(f"m{n}", None) for n in range(5)}
    with opened(tmp_path) as store:
        steps = store.catalog.making("one", keys, specs, MANY, whole=True, version=0)
        made = []
        with contextlib.suppress(StopIteration):
            while True:
                next(steps)
                made.append(len(store.catalog.page("one", 10)))
        assert made == [0, 0, 2, 4]
        assert len(store.catalog.page("one", 10)) == 5


@contextlib.contextmanager
def opened(path):
    store = SqliteStore(path / "m.db")
    store.open()
    try:
        yield store
    finally:
        store.close()
