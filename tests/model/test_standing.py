"""The compiled judge: that it is in use, what it refuses, and that it touches no memory but what it was given."""

from __future__ import annotations

import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

import sanitizers
from meterite.model import standing
from meterite.model.columns import Batch
from meterite.model.limits import ABOVE_MAX, BELOW_MIN, CLEARED, LATE, TRANSITION, Rule
from meterite.model.standing import CALM, TIME_UNKNOWN, WATCHED, at_rest

SOURCE = Path(standing.__file__).with_name("_standing.c")
FUZZ = Path(__file__).with_name("fuzz_standing.py")
RULE = Rule(low=0.0, high=10.0)
BOTH = pytest.mark.parametrize("compiled", [True, False])


def columns(readings):
    """Of (series, at, value) rows."""
    index, at_us, values = zip(*readings, strict=True)
    return np.array(index, np.uint32), np.array(at_us, np.int64), np.array(values, np.float64)


def judged(stand, readings, *, compiled, look_up=None):
    batch = Batch(np.array([1, 2, 3]), *columns(readings))
    how = {"rule_of": lambda _: RULE, "look_up": look_up, "now_us": 0, "compiled": compiled}
    return standing.judge(batch, np.arange(3), stand, **how).rows()


def test_the_extension_is_in_use():
    """``make setup`` built it: here a compiler is at hand."""
    assert standing.COMPILED


def test_both_sides_know_the_same_layout():
    """A row and a transition are what C takes them for: it copies them whole."""
    stand = at_rest([1, 2, 3], [RULE] * 3)
    found = judged(stand, [(0, 1, 11.0), (1, 2, -1.0), (2, 3, 12.0), (2, 4, 5.0)], compiled=True)
    assert found["kind"].tolist() == [ABOVE_MAX, BELOW_MIN, ABOVE_MAX, CLEARED]
    assert found["series"].tolist() == [1, 2, 3, 3]
    assert (CALM.itemsize, WATCHED.itemsize, TRANSITION.itemsize) == (24, 56, 97)
    assert stand.calm["newest"].tolist() == [1, 2, 4]
    assert stand.rows["alarmed"].tolist() == [True, True, False]


def test_metrics_and_types_of_all_events_are_told():
    """Each metric once, in the order of series; also where some series were walked."""
    series = np.array([1 << 32, 1 << 32 | 5, 7 << 32, 9 << 32])
    readings = [(0, 1, 11.0), (1, 1, 12.0), (2, 1, 5.0), (3, 1, -1.0)]
    for odd in (False, True):
        stand = at_rest(series.tolist(), [RULE] * 4)
        batch = Batch(series, *columns([*readings, (3, 0, -2.0)] if odd else readings))
        found = standing.judge(batch, np.arange(4), stand, rule_of=lambda _: RULE, look_up=None, now_us=0)
        assert (found.metrics, found.types) == ([1, 9], ABOVE_MAX | BELOW_MIN)
        assert len(found) == 3 + odd
        assert found == standing.Judged.of(found.rows())


@BOTH
@pytest.mark.parametrize("column", [0, 1, 2])
def test_columns_of_another_width(column, compiled):
    """C would take their bytes for something else: the batch isn't one."""
    given = list(columns([(0, 1, 11.0), (1, 2, 5.0)]))
    given[column] = given[column].astype(np.int16)
    how = {"rule_of": lambda _: RULE, "look_up": None, "now_us": 0, "compiled": compiled}
    with pytest.raises(AssertionError):
        standing.judge(
            Batch(np.array([1, 2, 3]), *given), np.arange(3), at_rest([1, 2, 3], [RULE] * 3), **how
        )


@BOTH
def test_a_newest_reading_is_looked_up_where_it_matters(compiled):
    """Not that of a series that is inside and at rest."""
    stand = at_rest([1, 2, 3], [RULE] * 3)
    stand.calm["newest"] = TIME_UNKNOWN
    asked = []

    def look_up(slots):
        asked.extend(slots.tolist())
        stand.calm["newest"][slots] = 50

    found = judged(stand, [(0, 1, 5.0), (1, 49, 11.0), (2, 50, 11.0)], compiled=compiled, look_up=look_up)
    assert asked == [1, 2]
    assert found["flags"].tolist() == [LATE, 0]
    assert stand.calm["newest"].tolist() == [TIME_UNKNOWN, 50, 50]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"index": np.array([3], np.uint32)}, "no series"),
        ({"slots": np.array([0, 1, 3])}, "beyond"),
        ({"slots": np.array([0, 1, -1])}, "beyond"),
        ({"at_us": np.zeros(2, np.int64)}, "lengths"),
        ({"values": np.zeros(2)}, "lengths"),
        ({"calm": np.zeros(4, CALM)}, "lengths"),
    ],
)
def test_what_does_not_fit_is_refused(change, words):
    """And changes nothing."""
    stand = at_rest([1, 2, 3], [RULE] * 3)
    before = stand.calm.tobytes(), stand.rows.tobytes()
    given = {
        "index": np.zeros(1, np.uint32),
        "at_us": np.ones(1, np.int64),
        "values": np.full(1, 11.0),
        "slots": np.arange(3),
        "calm": stand.calm,
    } | change
    with pytest.raises(ValueError, match=words):
        standing._standing.judge(*given.values(), stand.rows, 0)
    assert (stand.calm.tobytes(), stand.rows.tobytes()) == before


def test_nothing_leaks():
    """Whether events are found, newest readings are unknown, or the columns don't fit."""
    stand = at_rest([1, 2, 3], [RULE] * 3)
    some = columns([(0, 1, 11.0), (1, 1, 5.0)])
    wrong = np.array([7, 0], np.uint32), *some[1:]

    def rounds(count):
        for _ in range(count):
            stand.calm["newest"] = 0
            standing._standing.judge(*some, np.arange(3), stand.calm, stand.rows, 0)
            stand.calm["newest"] = TIME_UNKNOWN
            standing._standing.judge(*some, np.arange(3), stand.calm, stand.rows, 0)
            with pytest.raises(ValueError, match="no series"):
                standing._standing.judge(*wrong, np.arange(3), stand.calm, stand.rows, 0)
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        before = rounds(20)
        assert rounds(300) - before < 20_000
    finally:
        tracemalloc.stop()


def test_under_sanitizers(tmp_path):
    """Any commits: what a plain walk says, no access beyond a bound, nothing that C leaves undefined."""
    assert "events" in sanitizers.run(FUZZ, sanitizers.build(SOURCE, tmp_path), 5, 1)


@pytest.mark.soak
@pytest.mark.timeout(4200)
def test_under_sanitizers_for_an_hour(tmp_path):
    """The same, for longer, and never the same commits."""
    assert "events" in sanitizers.run(FUZZ, sanitizers.build(SOURCE, tmp_path), 3600, os.getpid())
