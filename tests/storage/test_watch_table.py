"""The slots of an org's series: found again for a batch that comes again, in bounded memory."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from meterite.model.limits import Rule
from meterite.storage.watch_table import Table

SERIES = 20_000


@pytest.fixture
def table():
    made = Table()
    series = np.arange(SERIES)
    made.grow(
        (7 * series).tolist(), [Rule(low=0, high=1)], np.zeros(SERIES, np.intp), np.zeros(SERIES, np.int64)
    )
    return made


def test_batches_that_are_never_the_same(table):
    """Keep no more memory than the slots, twice, take; each is answered the slots of its series."""
    rng = np.random.default_rng(1)
    tracemalloc.start()
    for _ in range(100):
        chosen = np.sort(rng.choice(SERIES, SERIES - 1000, replace=False))
        assert np.array_equal(table.met(7 * chosen), chosen)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 2 * (table.standing.calm.nbytes + table.standing.rows.nbytes)


def test_batches_that_come_again(table):
    """Are known by their series: those of 50 senders, whatever of them is in one."""
    batches = [7 * np.arange(n, SERIES, 50) for n in range(50)]
    first = [table.met(series) for series in batches]
    assert all(table.met(series.copy()) is slots for series, slots in zip(batches, first, strict=True))


def test_series_that_were_not_met(table):
    """Are told of, however many others were."""
    assert table.met(np.array([7, 8])) is None
    assert table.met(np.array([], np.int64)).tolist() == []
