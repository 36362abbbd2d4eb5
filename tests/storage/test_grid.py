"""Times kept as steps on straight lines: exact, cheap where they come at an interval, damage never taken for data."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meterite.model.errors import DamagedError
from meterite.storage.grid import GRID, decode_times, encode_times
from meterite.storage.sections import encode_section

NEW_YEAR = 1_767_225_600_000_000
MS = 1000

int64s = st.integers(-(2**63), 2**63 - 1)
apart = st.one_of(
    st.just(10_000_000), st.integers(0, 3), st.integers(9_000_000, 11_000_000), st.integers(0, 2**40)
)


def section_of(*series: np.ndarray) -> tuple[bytes, int, np.ndarray]:
    ends = np.cumsum([len(s) for s in series]).astype(np.uint32)
    return encode_times(np.concatenate(series), ends), int(ends[-1]), ends


def cost(*series: np.ndarray) -> float:
    """Bytes a reading, after the section was found to hold what went in."""
    section, count, ends = section_of(*series)
    assert decode_times(memoryview(section), count, ends).tobytes() == np.concatenate(series).tobytes()
    return len(section) / count


def regular(count: int, first: int = 0, step_ms: int = 10_000) -> np.ndarray:
    return NEW_YEAR + first * MS + np.arange(count) * step_ms * MS


def jittered(count: int, seed: int, step_ms: int = 10_000) -> np.ndarray:
    """±150 ms: 301 values, of which one costs 8.23 bits, 1.03 bytes."""
    jitter = np.random.default_rng(seed).integers(-150, 151, count) * MS
    return regular(count, 7 * seed, step_ms) + jitter


@given(st.lists(st.lists(int64s, min_size=1, max_size=60).map(sorted), min_size=1, max_size=3))
@settings(max_examples=60, deadline=None)
def test_any_times_come_back(series):
    """The ends of int64 among them."""
    cost(*(np.array(s, np.int64) for s in series))


@given(
    st.lists(st.tuples(int64s, st.lists(apart, min_size=9, max_size=60)), min_size=1, max_size=4),
    st.sampled_from([1, 1000, 1_000_000]),
)
@settings(max_examples=150, deadline=None)
def test_any_intervals_come_back(series, unit):
    """Duplicates, gaps, several intervals, in each of the units."""
    columns = [
        (start >> 12) // unit * unit + np.cumsum(np.array(deltas, np.int64) // unit * unit)
        for start, deltas in series
    ]
    cost(*columns)


def test_an_interval_without_jitter_costs_next_to_nothing():
    """Whether all series have the same interval or each one its own, long or short."""
    assert cost(*(regular(4000, n) for n in range(16))) < 0.004
    assert cost(*(regular(4000, n, 1000 + 500 * n) for n in range(16))) < 0.006
    assert cost(*(regular(65, n) for n in range(1000))) < 0.05


def test_jitter_costs_its_own_information_once():
    """1.03 bytes instead of the 1.13 that its differences take; with ever shorter series, some more."""
    section, *_ = section_of(*(jittered(4000, n) for n in range(16)))
    assert section[0] == GRID
    assert cost(*(jittered(4000, n) for n in range(16))) < 1.04
    assert cost(*(jittered(65, n) for n in range(1000))) < 1.13


def test_a_missing_reading_is_a_step_of_two():
    """A hundredth of the readings missing, and a gap of days: a few bits for each."""
    rng = np.random.default_rng(5)
    series = [jittered(4000, n)[rng.random(4000) > 0.01] for n in range(16)]
    series[3][2000:] += 3 * 86_400_000_000
    section, *_ = section_of(*series)
    assert section[0] == GRID
    assert cost(*series) < 1.08


def test_intervals_that_drift_and_times_without_any():
    """A pause after each reading, whose errors add up; random times: no dearer than their differences."""
    rng = np.random.default_rng(6)
    pauses = NEW_YEAR + np.cumsum(rng.integers(10_000_000, 10_002_000, 20_000))
    assert cost(pauses) < 1.42
    random = NEW_YEAR + np.sort(rng.integers(0, 10**12, 20_000))
    assert cost(random) <= len(encode_section(random)) / 20_000


@pytest.mark.parametrize("lengths", [[9] * 50, [1] * 400 + [4000], [1]])
def test_short_series_beside_long_ones(lengths):
    """Those that are too short to tell their interval take that of the others, or none."""
    cost(*(jittered(length, n) for n, length in enumerate(lengths)))


@given(st.integers(0, 700), st.binary(min_size=1, max_size=40), st.booleans())
@settings(max_examples=200, deadline=None)
def test_wrong_bytes_are_damage_or_as_many_times(place, garbage, cut):
    """Whatever is written over a section, no other number of times comes out of it."""
    rng = np.random.default_rng(7)
    section, count, ends = section_of(*(jittered(200, n)[rng.random(200) > 0.1] for n in range(2)))
    assert section[0] == GRID
    forged = section[:place] if cut else section[:place] + garbage + section[place + len(garbage) :]
    try:
        assert len(decode_times(memoryview(forged), count, ends)) == count
    except DamagedError:
        return
