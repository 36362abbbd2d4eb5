"""Journal rows: what came is what is read, and damage is found by lengths or by the checksum."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meterite.model.columns import Batch
from meterite.model.errors import DamagedError
from meterite.storage.journalrow import (
    columns_hold,
    decode_journal,
    encode_journal,
    extent_of,
    journal_checksum,
)

int64s = st.integers(-(2**63), 2**63 - 1)
near = st.integers(1_767_225_600_000_000, 1_767_225_600_000_000 + 2**32)
value_bits = st.integers(0, 2**64 - 1)


@st.composite
def batches(draw) -> Batch:
    series = sorted(draw(st.sets(int64s, min_size=1, max_size=300)))
    at = draw(st.lists(draw(st.sampled_from([int64s, near])), min_size=1, max_size=40))
    n = len(at)
    index = draw(st.lists(st.integers(0, len(series) - 1), min_size=n, max_size=n))
    values = draw(st.lists(value_bits, min_size=n, max_size=n))
    return batch_of(series, index, at, np.array(values, np.uint64).view(np.float64))


def batch_of(series, index, at, values) -> Batch:
    return Batch(
        np.array(series, np.int64),
        np.array(index, np.uint32),
        np.array(at, np.int64),
        np.asarray(values, np.float64),
    )


@given(batches(), int64s)
@settings(max_examples=80, deadline=None)
def test_a_batch_comes_back_as_it_came(batch, seq):
    """Order, bits of the values, times anywhere in int64, one series or many."""
    columns = decode_journal(encode_journal(batch), seq)
    assert columns.series.tolist() == batch.series[batch.series_index].tolist()
    assert columns.at_us.tolist() == batch.at_us.tolist()
    assert columns.values.tobytes() == batch.values.tobytes()
    assert columns.seq.tolist() == [seq] * len(batch)


@pytest.mark.parametrize(
    ("distinct", "width"), [(1, 0), (2, 1), (256, 1), (257, 2), (65_536, 2), (65_537, 4)]
)
def test_the_index_is_as_wide_as_it_must_be(distinct, width):
    """The last series of the table is found at every width."""
    blob = encode_journal(batch_of(range(distinct), [0, distinct - 1], [5, 6], [1, 2]))
    assert blob[12] == width
    assert decode_journal(blob, 1).series.tolist() == [0, distinct - 1]


@pytest.mark.parametrize(("span", "kind"), [(2**32 - 1, 1), (2**32, 0)])
def test_times_are_offsets_where_they_fit(span, kind):
    """Up to 2**32 - 1 us apart; beyond that they stand in full."""
    at = [-7, *range(8), span - 7]
    blob = encode_journal(batch_of([1], [0] * 10, at, np.ones(10)))
    assert blob[13] == kind
    assert decode_journal(blob, 1).at_us.tolist() == at


@pytest.mark.parametrize("count", [1, 12])
def test_any_flipped_byte_and_any_cut_is_found(count):
    """By the decoder itself where lengths or order suffer, by the checksum in any case."""
    blob = encode_journal(
        batch_of([3, 9], [0, 1] * 6, range(12), range(12)) if count > 1 else batch_of([3], [0], [1], [2])
    )
    columns = (65_536, 1, 3, 9, 0, 11, 12, 1_767_225_600_000_000)
    checksum = journal_checksum(*columns, blob)
    for place in range(len(blob)):
        flipped = bytearray(blob)
        flipped[place] ^= 1 << place % 8
        assert journal_checksum(*columns, bytes(flipped)) != checksum
        try:
            assert len(decode_journal(bytes(flipped), 1)) == count
        except DamagedError:
            assert place < len(blob) - 8 * count
        with pytest.raises(DamagedError):
            decode_journal(blob[:place], 1)
    with pytest.raises(DamagedError):
        decode_journal(blob + b"\0", 1)


def test_the_checksum_covers_the_other_columns():
    """A row that was moved to another org, or whose bounds were changed, isn't taken for good."""
    columns = [65_536, 1, 3, 9, 0, 11, 12, 1_767_225_600_000_000]
    checksum = journal_checksum(*columns, b"data")
    assert columns_hold(columns, checksum)
    for i in range(len(columns)):
        changed = [c + (j == i) for j, c in enumerate(columns)]
        assert journal_checksum(*changed, b"data") != checksum
        assert not columns_hold(changed, checksum)
        for other in (None, "3", 1.0, b"", 1 << 70):
            assert not columns_hold([other if j == i else c for j, c in enumerate(columns)], checksum)


@given(st.lists(int64s, min_size=8, max_size=8), st.binary(max_size=9))
def test_the_columns_checksum_is_the_upper_half(columns, data):
    """It fits into a signed column, and doesn't depend on the data."""
    checksum = journal_checksum(*columns, data)
    assert -(2**63) <= checksum < 2**63
    assert checksum >> 32 == journal_checksum(*columns, b"other") >> 32
    assert columns_hold(columns, checksum)
    for other in (checksum ^ 1 << 40, None, "7", 1.0):
        assert not columns_hold(columns, other)


def test_a_blob_knows_what_it_holds():
    """The bounds of its readings, where the columns that say so are damaged; garbage is damage."""
    assert extent_of(encode_journal(batch_of([3, 9], [1, 0, 1], [7, 5, 6], [1, 2, 3]))) == (3, 9, 5, 7)
    for garbage in (b"", b"MJN1", encode_journal(batch_of([3], [0], [1], [2]))[:-1]):
        with pytest.raises(DamagedError):
            extent_of(garbage)


@given(st.binary(max_size=120), st.integers(0, 9), st.integers(0, 5), st.integers(0, 5), st.integers(0, 3))
@settings(max_examples=200, deadline=None)
def test_garbage_is_refused_or_has_as_many_rows_as_it_says(body, count, distinct, width, kind):
    """No exception but DamagedError leaves the decoder."""
    header = struct.pack("<4sIIBB2x", b"MJN1", count, distinct, width, kind)
    for blob in (body, header + body, header + body[: 8 * distinct + (width + 16) * count]):
        try:
            assert len(decode_journal(blob, 1)) == count
        except DamagedError:
            continue


def test_forged_tables_are_damage():
    """An index beyond the table, series out of order, times that would wrap around."""
    good = encode_journal(batch_of([3, 9], [0, 1] * 4, range(8), range(8)))
    index, base = 16 + 16, 16 + 16 + 8
    for place, piece in ((index, b"\2"), (16, struct.pack("<q", 9)), (base, struct.pack("<q", 2**63 - 2))):
        forged = good[:place] + piece + good[place + len(piece) :]
        with pytest.raises(DamagedError):
            decode_journal(forged, 1)
