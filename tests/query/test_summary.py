"""Summaries against a plain oracle that looks at one reading after the other."""

from __future__ import annotations

import csv
import io
import json
import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meterite.model.errors import InvalidInputError
from meterite.model.time import HOUR_US, parse_rfc3339
from meterite.query.summary import (
    FUNCTIONS,
    Aggregate,
    Summary,
    parse_functions,
    summary_csv,
    summary_json,
)

ALL = (*FUNCTIONS, "p0", "p50", "p95", "p99.9", "p100")
rows = st.tuples(
    st.integers(-20, 60),
    st.integers(0, 3),
    st.floats(-1e6, 1e6) | st.integers(-5, 5).map(float) | st.just(math.nan),
)


def oracle(edges, fns, readings):
    out = []
    for start, end in pairwise(edges):
        held = sorted(row for row in readings if start <= row[0] < end and not math.isnan(row[2]))
        if not held:
            continue
        values = [value for _, _, value in held]
        known = {
            "mean": math.fsum(values) / len(values), "sum": math.fsum(values),
            "min": min(values), "max": max(values),
            "count": len(values), "first": values[0], "last": values[-1],
        }  # fmt: skip
        row = [known[fn] if fn in known else float(np.percentile(values, float(fn[1:]))) for fn in fns]
        out.append((start, *row))
    return out


def rows_of(aggregate):
    starts, columns = aggregate.rows()
    return list(zip(starts.tolist(), *(columns[fn].tolist() for fn in aggregate.fns), strict=True))


def column(readings, number, dtype):
    return np.array([reading[number] for reading in readings], dtype)


@st.composite
def questions(draw):
    fns = tuple(draw(st.lists(st.sampled_from(ALL), min_size=1, max_size=5, unique=True)))
    even = st.integers(1, 30).map(lambda width: list(range(-5, 50, width)))
    edges = draw(even | st.lists(st.integers(-10, 50), min_size=1, max_size=9, unique=True).map(sorted))
    return fns, edges


@settings(max_examples=500, deadline=None)
@given(
    questions(),
    st.lists(rows, max_size=60, unique_by=lambda row: row[:2]),
    st.lists(st.integers(0, 60), max_size=4),
    st.sampled_from(["by series", "by time", "any"]),
)
def test_a_summary_is_what_the_readings_come_to(question, readings, cuts, order):
    """Whatever the functions, the steps, the chunks and the order in them; NaN counts for nothing."""
    fns, edges = question
    if order != "any":
        readings = sorted(readings, key=lambda row: (row[1], row[0]) if order == "by series" else row[:2])
    aggregate = Aggregate(np.array(edges, np.int64), fns)
    bounds = [0, *sorted(cuts), len(readings)]
    for start, end in pairwise(bounds):
        chunk = readings[start:end]
        aggregate.add(column(chunk, 0, np.int64), column(chunk, 2, np.float64), column(chunk, 1, np.int64))
    found, expected = rows_of(aggregate), oracle(edges, fns, readings)
    assert [row[0] for row in found] == [row[0] for row in expected]
    for got, want in zip(found, expected, strict=True):
        assert got == pytest.approx(want, rel=1e-9, abs=1e-6)


@given(st.lists(st.floats(-1e3, 1e3) | st.just(math.nan), max_size=50))
def test_a_chunk_within_one_step_needs_no_times(values):
    """And says the same as with them."""
    fns = ("mean", "min", "max", "sum", "count", "p50")
    array, edges = np.array(values, np.float64), np.array([0, 10, 20], np.int64)
    whole, each = Aggregate(edges, fns), Aggregate(edges, fns)
    whole.add_whole(1, array)
    each.add(np.full(len(values), 15), array, 7)
    assert rows_of(whole) == rows_of(each)
    assert whole.step_of(10, 19) == 1
    assert [whole.step_of(*pair) for pair in ((9, 10), (-1, 5), (20, 21), (-3, -2))] == [None] * 4


def test_first_and_last_are_by_time_then_series():
    """Two series may have a reading at one time; the smaller id is before the greater."""
    edges = np.array([0, 100], np.int64)
    for flip in (1, -1):
        aggregate = Aggregate(edges, ("first", "last"))
        for series, value in [(2, 20.0), (1, 10.0), (3, 30.0)][::flip]:
            aggregate.add(np.array([5]), np.array([value]), series)
        assert rows_of(aggregate) == [(0, 10.0, 30.0)]
    assert aggregate.needs_time


def test_infinities_count():
    """They are values like others: the mean of both is none, and percentiles go on."""
    aggregate = Aggregate(np.array([0, 10]), ("count", "min", "max", "mean", "p0", "p50", "p100"))
    aggregate.add(np.arange(4), np.array([math.inf, math.inf, -math.inf, math.nan]))
    assert rows_of(aggregate)[0][:4] == (0, 3, -math.inf, math.inf)
    assert math.isnan(rows_of(aggregate)[0][4])
    assert rows_of(aggregate)[0][5:] == (-math.inf, math.inf, math.inf)


def test_percentiles_have_a_bound():
    """Beyond it the summary is refused, and the others don't have it."""
    edges, values = np.array([0, 10]), np.ones(6)
    aggregate = Aggregate(edges, ("p50",), percentile_readings_max=10)
    aggregate.add_whole(0, values)
    with pytest.raises(InvalidInputError, match="at most 10"):
        aggregate.add(np.arange(6), values)
    free = Aggregate(edges, ("mean",), percentile_readings_max=10)
    for _ in range(5):
        free.add_whole(0, values)
    assert rows_of(free) == [(0, 1.0)]


def test_nothing_comes_to_nothing():
    """No readings, no steps: no rows, whatever is asked."""
    for edges in ([0], [0, 1, 5]):
        aggregate = Aggregate(np.array(edges, np.int64), ALL)
        aggregate.add(np.empty(0, np.int64), np.empty(0), np.empty(0, np.int64))
        assert rows_of(aggregate) == []


def test_functions_are_named():
    """Each once, in the order they were asked for."""
    assert parse_functions("mean,p95,mean,p99.9,p0,p100") == ("mean", "p95", "p99.9", "p0", "p100")
    assert parse_functions("mean, max ,mean") == ("mean", "max")


@pytest.mark.parametrize(
    "text", ["", "median", "mean,", "p101", "p100.1", "p", "p-1", "P95", "mean max", "p1e1", "p95\n", "p95."]
)
def test_what_is_no_function_is_refused(text):
    """With a word on which there are."""
    with pytest.raises(InvalidInputError, match="p95"):
        parse_functions(text)


def test_at_most_so_many_functions():
    """The work is bounded."""
    with pytest.raises(InvalidInputError, match="At most"):
        parse_functions(",".join(f"p{n}" for n in range(40)))


def an_hourly_summary():
    aggregate = Aggregate(parse_rfc3339("2026-01-01") + np.arange(4) * HOUR_US, ("mean", "max", "count"))
    aggregate.add_whole(0, np.array([1.0, 2.0]))
    aggregate.add_whole(2, np.array([math.inf, -math.inf]))
    return Summary.of(aggregate, every="1h", tz="UTC")


def test_a_summary_as_json():
    """Rows of steps that have readings; no number is written as null, an infinity as text."""
    assert summary_json(an_hourly_summary()) == (
        b'{"every":"1h","tz":"UTC","rows":['
        b'{"start":"2026-01-01T00:00:00Z","mean":1.5,"max":2,"count":2},'
        b'{"start":"2026-01-01T02:00:00Z","mean":null,"max":"+Inf","count":2}]}'
    )


def test_a_summary_as_csv():
    """A header and the rows; no number is an empty cell."""
    assert summary_csv(an_hourly_summary()) == (
        b"start,mean,max,count\n2026-01-01T00:00:00Z,1.5,2,2\n2026-01-01T02:00:00Z,,+Inf,2\n"
    )


def test_an_empty_summary_is_text_too():
    """Still JSON, still a header."""
    empty = Summary.of(Aggregate(np.array([0, 1]), ("mean", "p50")), every=None, tz="UTC")
    assert json.loads(summary_json(empty)) == {"every": None, "tz": "UTC", "rows": []}
    assert list(csv.reader(io.StringIO(summary_csv(empty).decode()))) == [["start", "mean", "p50"]]
