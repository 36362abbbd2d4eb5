"""Conflicts, erasure and the newest readings, each against a dict that does the same the slow way."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meterite.model.columns import Columns
from meterite.model.metric import ConflictPolicy
from meterite.storage.resolve import (
    POLICY_KINDS,
    Policies,
    resolve,
    top_two,
    top_two_rows,
)

NAN_BITS = [0x7FF8000000000000, 0x7FF8000000000001, 0xFFF8000000000002, 0x7FF0000000000002]
METRICS = {1: "last", 2: "first", 3: "min", 4: "max", 5: "sum", 6: "sum"}
POLICIES = Policies(
    np.arange(2, 7), np.array([POLICY_KINDS[ConflictPolicy(METRICS[m])] for m in range(2, 7)], np.uint8)
)


@dataclass(frozen=True)
class Row:
    series: int
    at: int
    bits: int
    seq: int

    @property
    def value(self) -> float:
        return struct.unpack("<d", struct.pack("<Q", self.bits))[0]


def bits_of(value: float) -> int:
    return struct.unpack("<Q", struct.pack("<d", value))[0]


values = st.one_of(
    st.sampled_from(NAN_BITS),
    st.sampled_from([0.0, -0.0, 1.0, math.inf, -math.inf, 1e308]).map(bits_of),
    st.floats(-100, 100).map(bits_of),
)
rows_lists = st.lists(
    st.builds(
        Row,
        st.builds(lambda metric, ordinal: metric << 32 | ordinal, st.integers(1, 6), st.integers(0, 1)),
        st.integers(0, 3),
        values,
        st.integers(1, 6),
    ),
    max_size=60,
)


def columns_of(rows: list[Row]) -> Columns:
    return Columns(
        np.array([r.series for r in rows], np.int64),
        np.array([r.at for r in rows], np.int64),
        np.array([r.bits for r in rows], np.uint64).view(np.float64),
        np.array([r.seq for r in rows], np.int64),
    )


def rows_of(columns: Columns) -> list[Row]:
    fields = (columns.series, columns.at_us, columns.values.view(np.uint64), columns.seq)
    return [Row(*row) for row in zip(*(f.tolist() for f in fields), strict=True)]


def winner(rows: list[Row], policy: str) -> Row:
    """The specification: ``rows`` go from the oldest to the newest."""
    numbers = [r for r in rows if not math.isnan(r.value)]
    if not numbers:
        return rows[-1] if policy == "last" else rows[0]
    if policy == "sum":
        total = numbers[0].value
        for r in numbers[1:]:
            if math.isfinite(total):
                total += r.value
        return Row(rows[0].series, rows[0].at, bits_of(total), numbers[-1].seq)
    pick = {"last": lambda rs: rs[-1], "first": lambda rs: rs[0]}
    by_value = {"min": min, "max": max}
    return pick[policy](numbers) if policy in pick else by_value[policy](numbers, key=lambda r: r.value)


def oracle(rows: list[Row], *, complete: bool = True) -> list[Row]:
    by_key: dict[tuple[int, int], list[Row]] = {}
    for r in sorted(rows, key=lambda r: r.seq):
        by_key.setdefault((r.series, r.at), []).append(r)
    result = []
    for key in sorted(by_key):
        policy = METRICS[key[0] >> 32]
        kept = by_key[key]
        result += kept if policy == "sum" and not complete else [winner(kept, policy)]
    return result


@given(rows_lists)
@settings(max_examples=300, deadline=None)
def test_conflicts_are_resolved_as_the_policy_says(rows):
    """All policies side by side, bits and seq of the winner; partly resolved rows finish alike."""
    assert rows_of(resolve(columns_of(rows), POLICIES)) == oracle(rows)
    partly = resolve(columns_of(rows), POLICIES, complete=False)
    assert rows_of(partly) == oracle(rows, complete=False)
    assert rows_of(resolve(partly, POLICIES)) == oracle(rows)


@given(rows_lists, st.sets(st.integers(1, 6)), st.randoms(use_true_random=False))
@settings(max_examples=200, deadline=None)
def test_it_does_not_matter_in_which_parts_rows_are_resolved(rows, seqs, random):
    """Any seqs may be resolved apart from the others, in part, and put before or behind them."""
    parts = [
        resolve(columns_of([r for r in rows if (r.seq in seqs) is wanted]), POLICIES, complete=False)
        for wanted in (True, False)
    ]
    random.shuffle(parts)
    assert rows_of(resolve(Columns.concat(parts), POLICIES)) == oracle(rows)


@given(rows_lists, st.lists(st.integers(0, 6), min_size=1, max_size=3).map(sorted))
@settings(max_examples=200, deadline=None)
def test_it_does_not_matter_when_the_oldest_were_added_up(rows, upto):
    """What lies before any commit may have been resolved for good, sums too, be they infinite or out of range."""
    done = Columns.empty()
    before = 0
    for seq in [*upto, 6]:
        part = columns_of([r for r in rows if before < r.seq <= seq])
        done = resolve(Columns.concat([done, part]), POLICIES)
        before = seq
    assert rows_of(done) == oracle(rows)


def test_an_infinite_sum_stays():
    """The first infinity decides, whether it was pushed or overflowed; the sum is as new as its newest number."""
    odd = [(1.0, 1), (math.inf, 2), (-math.inf, 3), (math.nan, 4)], [(1e308, 1), (1e308, 2), (-math.inf, 3)]
    for readings in odd:
        rows = [Row(5 << 32, 0, bits_of(value), seq) for value, seq in readings]
        assert rows_of(resolve(columns_of(rows), POLICIES)) == [Row(5 << 32, 0, bits_of(math.inf), 3)]


@given(rows_lists, st.integers(0, 60))
@settings(max_examples=100, deadline=None)
def test_a_commit_may_be_cut_anywhere(rows, cut):
    """Within a seq arrival decides, also where the rows of a seq are resolved in two parts."""
    parts = [resolve(columns_of(part), POLICIES, complete=False) for part in (rows[:cut], rows[cut:])]
    assert rows_of(resolve(Columns.concat(parts), POLICIES)) == oracle(rows)


@pytest.mark.parametrize("size", [3, 9, 200])
def test_sums_are_added_one_after_the_other(size):
    """Bit for bit as a plain loop adds, where adding in pairs would differ."""
    numbers = np.random.default_rng(size).normal(0, 1e6, size)
    rows = [Row(5 << 32, 0, bits_of(v), seq) for seq, v in enumerate(numbers.tolist())]
    assert rows_of(resolve(columns_of(rows[::-1]), POLICIES)) == oracle(rows)


def test_sorted_columns_are_returned_as_they_are():
    """Nothing is copied where there is nothing to do."""
    columns = columns_of([Row(1 << 32, at, bits_of(1.0), 9 - at) for at in range(9)])
    assert resolve(columns, Policies.none()) is columns
    assert resolve(Columns.empty(), POLICIES).values.size == 0


def test_the_input_is_not_written_to():
    """Columns may be read-only views of a row group."""
    rows = [Row(5 << 32, 0, bits_of(v), 1) for v in (1.0, 2.0)]
    columns = columns_of(rows)
    for column in (columns.series, columns.at_us, columns.values, columns.seq):
        column.flags.writeable = False
    assert resolve(columns, POLICIES).values.tolist() == [3.0]
    assert rows_of(columns) == rows


@given(rows_lists)
@settings(max_examples=200, deadline=None)
def test_the_two_newest_of_each_metric(rows):
    """By time, then by series, over all series of the metric; there may be only one."""
    resolved = [r for r in oracle(rows) if math.isfinite(r.value)]
    metrics = sorted({r.series >> 32 for r in resolved})
    metric, current_at, current_value, last_at, last_value, has_last = top_two(columns_of(resolved))
    assert metric.tolist() == metrics
    _, current, last = top_two_rows(columns_of(resolved))
    for i, m in enumerate(metrics):
        newest = sorted((r for r in resolved if r.series >> 32 == m), key=lambda r: (r.at, r.series))[::-1]
        assert (current_at[i], current_value[i]) == (newest[0].at, newest[0].value)
        assert resolved[current[i]] == newest[0]
        assert has_last[i] == (len(newest) > 1)
        if has_last[i]:
            assert (last_at[i], last_value[i]) == (newest[1].at, newest[1].value)
            assert resolved[last[i]] == newest[1]
        else:
            assert (last_at[i], last_value[i], last[i]) == (0, 0.0, -1)
