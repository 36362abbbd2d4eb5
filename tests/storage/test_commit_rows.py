"""From requests to journal rows: what can be done before the writer's lock is taken is done there."""

from __future__ import annotations

import numpy as np
import pytest

from meterite.model.columns import NO_TIME, Batch, Single
from meterite.model.metric import MetricSpec
from meterite.storage import journal
from meterite.storage.database import driver_in_transaction
from meterite.storage.interface import Append
from meterite.storage.journal import encode_parts, join
from meterite.storage.journalrow import decode_journal
from storage.place import YEAR_2030, Clock, batch_of, read, version_of
from storage.sqlite_place import sqlite_place


@pytest.fixture
def store():
    with sqlite_place() as place:
        store = place.store(Clock())
        store.open()
        yield store
        store.close()


def test_joined_and_cut_in_rows_nothing_changes():
    """Every reading is there in its order, of the series that the rows' tables name and no others."""
    random = np.random.default_rng(1)
    batches = []
    for _ in range(4):
        series = np.unique(random.integers(1, 1 << 40, 3000))
        index = np.concatenate([np.arange(len(series)), random.integers(0, len(series), 60_000)])
        count = len(index)
        batches.append(
            Batch(series, index.astype(np.uint32), random.integers(0, 1 << 50, count), random.random(count))
        )
    joined = join(batches)
    ids = np.concatenate([b.series[b.series_index] for b in batches])
    assert (joined.series[joined.series_index] == ids).all()
    assert (joined.series == np.unique(ids)).all()
    start = 0
    for part, data in encode_parts(joined):
        columns = decode_journal(data, 7)
        stop = start + len(columns)
        assert len(columns) <= 65_536
        assert (columns.series == ids[start:stop]).all()
        assert (columns.at_us == joined.at_us[start:stop]).all()
        assert (columns.values == joined.values[start:stop]).all()
        assert (part.series == np.unique(ids[start:stop])).all()
        start = stop
    assert start == len(ids)


@pytest.mark.parametrize(("third", "ahead"), [(None, True), ("single", False), ("untimed", False)])
def test_requests_with_all_their_times_are_encoded_ahead(store, monkeypatch, third, ahead):
    """Joined and encoded, both of a group; two of a million readings each held the lock for 0.7 s."""
    org = store.catalog.org_id("here")
    series = store.catalog.create("here", MetricSpec(code="m", name="m")).series_first
    within = []

    def encode(batch):
        within.append(driver_in_transaction(store.database.connection()))
        return really(batch)

    really = journal.encode_journal
    monkeypatch.setattr(journal, "encode_journal", encode)
    batches = [batch_of([(series, YEAR_2030 + n, float(n))]) for n in range(2)]
    if third == "single":
        batches.append(Single(series, YEAR_2030 + 2, 2.0))
    if third == "untimed":
        batches.append(batch_of([(series, NO_TIME, 2.0)]))
    appends = [Append(org, version_of(store), batch) for batch in batches]
    store.commit(appends)
    assert {a.error for a in appends} == {None}
    assert within == [not ahead]
    assert sorted(value for *_, value in read(store, org)) == [0.0, 1.0, 2.0][: len(batches)]


def test_many_new_series_are_made_in_steps(store):
    """So that nobody waits for all of them: 20,000 held the lock for 139 ms."""
    org = store.catalog.org_id("here")
    metric = store.catalog.create("here", MetricSpec(code="m", name="m"))
    labels = [(("host", str(n)),) for n in range(5000)]
    began = 0
    writing = store.database.writing

    def counted(**options):
        nonlocal began
        began += 1
        return writing(**options)

    store.database.writing = counted
    ids = store.catalog.series(org, metric, labels)
    assert began == 3
    assert len(set(ids)) == 5000
    assert store.catalog.series(org, metric, labels) == ids
    assert began == 3
    assert store.catalog.labels(ids[:3]) == dict(zip(ids[:3], labels[:3], strict=True))
