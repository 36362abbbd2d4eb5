"""What the catalogue of a worker that has just started says, while several threads ask it at once."""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor

from meterite.model.metric import MetricSpec
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


@contextlib.contextmanager
def opened(path):
    store = SqliteStore(path / "m.db")
    store.open()
    try:
        yield store
    finally:
        store.close()
