"""The newest reading of every series: folding against a dict, the blob against any bytes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meterite.model.columns import Columns
from meterite.model.errors import DamagedError
from meterite.storage.tombstones import Tombstone, Tombstones, mask_erased
from meterite.storage.watermarks import (
    NEVER,
    UNKNOWN,
    Watermarks,
    decode_watermarks,
    encode_watermarks,
    marks_of,
)

SERIES = st.integers(1, 4)
READING = st.tuples(SERIES, st.integers(0, 20), st.sampled_from([1.0, float("nan"), float("inf")]))
STEPS = st.lists(
    st.one_of(
        READING.map(lambda r: ("put", r)),
        st.tuples(SERIES, st.sampled_from([NEVER, 0, 5, 10]), st.sampled_from([7, 15, UNKNOWN])).map(
            lambda t: ("erase", t)
        ),
    ),
    max_size=25,
)


def columns(rows):
    series, at_us, values = ([row[n] for row in rows] for n in range(3))
    seq = [row[3] for row in rows]
    return Columns(
        np.array(series, np.int64), np.array(at_us, np.int64), np.array(values), np.array(seq, np.int64)
    )


def tombstone(seq, series, first, last):
    return Tombstone(
        id=seq, seq=seq, series_first=series, series_last=series, series=None, at_first=first, at_last=last
    )


def played(steps, cuts):
    """The steps folded in parts, as flips and loads would do it."""
    marks = Watermarks.none(complete=True)
    for begin, end in cuts:
        part = list(enumerate(steps))[begin:end]
        fresh = columns([(*what, seq) for seq, (kind, what) in part if kind == "put"])
        erased = Tombstones.of(tombstone(seq, *what) for seq, (kind, what) in part if kind == "erase")
        marks = marks.folded(mask_erased(fresh, erased), erased)
        marks = decode_watermarks(encode_watermarks(marks))
    return dict(zip(marks.series.tolist(), marks.newest.tolist(), strict=True))


def oracle(steps):
    there: dict[int, set[int]] = {}
    for kind, (series, first, last) in steps:
        if kind == "put":
            if np.isfinite(last):
                there.setdefault(series, set()).add(first)
        else:
            there[series] = {at for at in there.get(series, ()) if not first <= at <= last}
    return {series: max(times) for series, times in there.items() if times}


@given(STEPS, st.integers(0, 25))
def test_folding_in_parts_knows_the_newest_or_that_it_does_not(steps, cut):
    marks = played(steps, [(0, cut), (cut, len(steps))])
    expected = oracle(steps)
    for series, newest in marks.items():
        assert newest in {expected.get(series), UNKNOWN}
    assert expected.keys() <= marks.keys()


@given(STEPS.filter(lambda steps: all(kind == "put" or what[1] == NEVER for kind, what in steps)))
def test_it_is_known_where_deletes_reach_back_to_the_beginning(steps):
    marks = played(steps, [(n, n + 1) for n in range(len(steps))])
    assert {s: at for s, at in marks.items() if at != UNKNOWN} == marks == oracle(steps)


@given(st.binary(max_size=60))
def test_other_bytes_are_damage(blob):
    with pytest.raises(DamagedError):
        decode_watermarks(blob)


def test_a_flipped_bit_is_damage_and_costs_nothing_but_knowledge():
    marks = Watermarks(np.array([4, 9]), np.array([1, 2]))
    blob = bytearray(encode_watermarks(marks))
    blob[-1] ^= 1
    with pytest.raises(DamagedError):
        decode_watermarks(bytes(blob))
    assert not marks_of(bytes(blob), compacted=True).complete


def test_a_file_of_before_knows_nothing_of_what_it_compacted():
    assert not marks_of(None, compacted=True).complete
    assert marks_of(None, compacted=False).complete
