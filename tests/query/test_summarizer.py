"""Summaries of what a store holds."""

from __future__ import annotations

import pytest

from meterite.model.errors import InvalidInputError
from meterite.model.metric import MetricSpec
from meterite.model.time import DAY_US, MINUTE_US
from meterite.query.steps import parse_steps
from meterite.query.summarizer import Summarizer
from storage.place import YEAR_2030, Clock, push, to_the_end
from storage.sqlite_place import sqlite_place

LONG_AGO = YEAR_2030 - 365 * DAY_US


@pytest.fixture
def place():
    with sqlite_place() as place:
        yield place


@pytest.fixture
def store(place):
    store = place.store(Clock())
    store.open()
    yield store
    store.close()


@pytest.fixture
def metrics(store):
    """The middle one has readings of two minutes; the others, in the same rows, of a year."""
    org = store.catalog.org_id("here")
    made = [store.catalog.create("here", MetricSpec(code=code, name=code)) for code in "abc"]
    a, b, c = (metric.series_first for metric in made)
    push(store, org, (a, LONG_AGO, 1.0), (b, YEAR_2030, 2.0), (c, YEAR_2030 + DAY_US, 3.0))
    push(store, org, (a, YEAR_2030 + DAY_US, 1.0), (b, YEAR_2030 + MINUTE_US, 4.0), (c, LONG_AGO, 3.0))
    return made


def summarized(store, metric, every, start=None, end=None):
    steps = None if every is None else parse_steps(every)
    summary, gaps = Summarizer(store, None, None)._summarize(
        "here", metric, start, end, steps, ("count", "sum"), ()
    )
    assert gaps == []
    return list(
        zip(summary.starts.tolist(), *(summary.columns[f].tolist() for f in ("count", "sum")), strict=True)
    )


@pytest.mark.parametrize("bounds", [(None, None), (LONG_AGO, YEAR_2030 + DAY_US), (None, YEAR_2030 + DAY_US)])
@pytest.mark.parametrize("compacted", [False, True])
def test_the_extent_is_that_of_the_readings(store, place, metrics, bounds, compacted):
    """Not of the rows they lie in with other metrics': those made a step of a minute too short, until they were
    compacted; and the one step began with another metric's reading.
    """
    if compacted:
        to_the_end(place.compaction(store))
    _, b, _ = metrics
    minutes = [(YEAR_2030, 1, 2.0), (YEAR_2030 + MINUTE_US, 1, 4.0)]
    assert summarized(store, b, "1m", *bounds) == minutes
    assert summarized(store, b, None, *bounds) == [(YEAR_2030, 2, 6.0)]


def test_too_many_steps_are_refused(store, metrics):
    """Where the readings themselves lie far apart."""
    a, b, _ = metrics
    for metric, every in ((a, "1m"), (b, "1us")):
        with pytest.raises(InvalidInputError, match="100000 are allowed"):
            summarized(store, metric, every)


def test_a_metric_without_readings(store, metrics):
    """Never had, erased, or not within the bounds."""
    _, b, _ = metrics
    bare = store.catalog.create("here", MetricSpec(code="d", name="d"))
    store.erase(store.catalog.org_id("here"), b, YEAR_2030, YEAR_2030 + DAY_US, ())
    for metric in (bare, b):
        for every in (None, "1m", "day"):
            assert summarized(store, metric, every) == []
            assert summarized(store, metric, every, LONG_AGO, LONG_AGO + DAY_US) == []
