"""Sorted inputs become one stream, chunk by chunk, as if all of it had been resolved at once."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from meterite.model.columns import Columns
from meterite.storage.merge import Piece, merge, sort_unresolved
from meterite.storage.resolve import POLICY_KINDS, Policies, resolve

SERIES = 1 << 32
POLICIES = st.sampled_from(
    [Policies.none(), *(Policies(np.array([1]), np.array([k], np.uint8)) for k in POLICY_KINDS.values())]
)
keys = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 3)), max_size=12)


def columns_of(rows, seq):
    series, at = (np.array([row[n] for row in rows], np.int64) for n in range(2))
    return Columns(
        series + SERIES, at, 0.1 + np.arange(len(rows)) * 1.7 + seq[0], np.array(seq[: len(rows)], np.int64)
    )


def pieces_of(columns, size):
    """Pieces of a few rows: a key may begin in one and end in another, or fill several."""
    cut = [columns.take(slice(n, n + size)) for n in range(0, len(columns), size)]
    ends = [((int(c.series[0]), int(c.at_us[0])), (int(c.series[-1]), int(c.at_us[-1]))) for c in cut]
    return [Piece(first, last, lambda c=c: c) for (first, last), c in zip(ends, cut, strict=True)]


@given(inputs=st.lists(keys, min_size=1, max_size=4), size=st.integers(1, 4), policies=POLICIES)
def test_merging_is_resolving(inputs, size, policies):
    """Whatever the inputs and their pieces; the older input holds the smaller seqs."""
    sorted_inputs = [
        sort_unresolved(columns_of(rows, range(n * 100, n * 100 + 50))) for n, rows in enumerate(inputs)
    ]
    expected = resolve(sort_unresolved(Columns.concat(sorted_inputs)), policies)
    merged = Columns.concat(list(merge([pieces_of(c, size) for c in sorted_inputs], policies, [])))
    for name in ("series", "at_us", "values", "seq"):
        np.testing.assert_array_equal(getattr(merged, name), getattr(expected, name))
