"""What the catalogue of a worker that has just started says, while several threads ask it at once."""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor

from meterite.model.check import parse_labels
from meterite.model.columns import SeriesKey
from meterite.model.errors import ExhaustedError
from meterite.model.metric import MetricSpec, made_by_readings
from meterite.storage import series
from meterite.storage.interface import SeriesLimits
from meterite.storage.store import SqliteStore


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
def opened(path):
    store = SqliteStore(path / "m.db")
    store.open()
    try:
        yield store
    finally:
        store.close()
