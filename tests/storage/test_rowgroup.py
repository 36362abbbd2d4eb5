"""Row groups and the directory of a run: bit for bit, and damage is never taken for data."""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meterite.model.columns import Columns
from meterite.model.errors import DamagedError
from meterite.storage.rowgroup import (
    DIRECTORY,
    ROW_GROUP_READINGS,
    RowGroup,
    decode_directory,
    directory_entry,
    encode_directory,
    encode_row_group,
)
from meterite.storage.sections import INDEXED, RUNS, decode_section, encode_indexed, encode_section

if TYPE_CHECKING:
    from collections.abc import Callable

int64s = st.integers(-(2**63), 2**63 - 1)
bits = st.one_of(
    st.sampled_from(
        [0, 1 << 63, 0x7FF0 << 48, 0xFFF0 << 48, 0x7FF8 << 48, 0xFFF8000000000001, 0x7FF0000000000001]
    ),
    st.floats(-1e6, 1e6).map(lambda x: struct.unpack("<Q", struct.pack("<d", round(x, 2)))[0]),
    st.integers(0, 2**64 - 1),
)
series_ids = st.one_of(st.integers(0, 5).map(lambda n: 1 << 32 | n), int64s)
rows = st.lists(st.tuples(series_ids, int64s, bits, int64s), min_size=1, max_size=80)


def columns_of(rows: list[tuple[int, int, int, int]]) -> Columns:
    series, at, value_bits, seq = zip(*sorted(rows, key=lambda row: (row[0], row[1], row[3])), strict=True)
    return Columns(
        np.array(series, np.int64),
        np.array(at, np.int64),
        np.array(value_bits, np.uint64).view(np.float64),
        np.array(seq, np.int64),
    )


def assert_same(a: Columns, b: Columns) -> None:
    for name in ("series", "at_us", "values", "seq"):
        assert getattr(a, name).dtype == getattr(b, name).dtype
        assert getattr(a, name).tobytes() == getattr(b, name).tobytes(), name


def read_all(blob: bytes) -> Columns:
    return RowGroup(blob).columns()


def sample(count: int = 200) -> Columns:
    rng = np.random.default_rng(3)
    series = np.sort(rng.integers(1 << 32, (1 << 32) + 7, count))
    at = np.arange(count) * 10_000_000 + 1_767_225_600_000_000
    return Columns(series, at, np.round(rng.normal(20, 5, count), 2), rng.integers(1, 9, count))


@given(rows)
@settings(max_examples=60, deadline=None)
def test_what_goes_in_comes_out_bit_for_bit(rows):
    """NaN payloads, infinities, negative zeros and the ends of int64 among them; the bounds are true."""
    columns = columns_of(rows)
    group = RowGroup(encode_row_group(columns))
    assert_same(group.columns(), columns)
    assert group.bounds.count == len(rows)
    assert (group.bounds.series_first, group.bounds.series_last) == (columns.series[0], columns.series[-1])
    assert (group.bounds.at_first, group.bounds.at_last) == (columns.at_us.min(), columns.at_us.max())
    assert (group.bounds.seq_first, group.bounds.seq_last) == (columns.seq.min(), columns.seq.max())


@pytest.mark.parametrize("count", [1, 2, 23, 24, 1000, ROW_GROUP_READINGS])
@pytest.mark.parametrize("of", ["noise", "constant", "nan"])
def test_every_kind_of_section_keeps_the_bits(count, of):
    """Raw, compressed and constant, at the sizes where one becomes the other."""
    noise = np.random.default_rng(1).integers(0, 2**64, count, np.uint64, endpoint=False)
    column = {
        "noise": noise.view(np.float64),
        "constant": np.full(count, -0.0),
        "nan": ((noise >> 44) | (0x7FF8 << 48)).view(np.float64),
    }[of]
    section = encode_section(column)
    assert decode_section(memoryview(section), column.dtype, count).tobytes() == column.tobytes()


def section_of(column: np.ndarray, encode: Callable[[np.ndarray], bytes] = encode_section) -> bytes:
    """A section that was found to hold what went in."""
    section = encode(column)
    assert decode_section(memoryview(section), column.dtype, len(column)).tobytes() == column.tobytes()
    return section


def test_numbers_that_often_stay_the_same_are_runs():
    """NaNs that differ aren't the same; runs of which the lengths repeat, and their lengths again, nest no deeper."""
    states = np.repeat([0.0, -0.0, 1.0, np.nan] * 500, np.random.default_rng(1).integers(5, 90, 2000))
    section = section_of(states)
    assert section[0] == RUNS
    assert len(section) < 2000 * 1.3
    lengths = np.array([3])
    for _ in range(5):
        lengths = np.repeat(np.arange(len(lengths)) % 5 + 3, lengths)
        section_of(lengths)


@pytest.mark.parametrize("apart", [1, 1000, 1 << 40])
@pytest.mark.parametrize("each", [1, 10])
def test_which_commit_brought_a_reading_costs_next_to_nothing(apart, each):
    """Each commit brings one or ten readings of each series; between an org's commits are others' or none."""
    seq = np.cumsum(np.random.default_rng(1).integers(1, apart + 1, 4000 // each))
    section = section_of(np.tile(np.repeat(seq, each), 16), encode_indexed)
    assert section[0] == INDEXED
    table = len(encode_section(seq))
    assert len(section) - table < 0.006 * 64_000


@given(st.lists(st.integers(0, 9), min_size=1, max_size=90), st.integers(0, 2**40), int64s)
@settings(max_examples=100, deadline=None)
def test_few_distinct_integers_come_back(numbers, apart, first):
    """Also at the ends of int64, where their difference has no room."""
    section_of(np.clip(np.array(numbers) * apart, 0, 2**63 - 1 - max(first, 0)) + first, encode_indexed)
    section_of(np.array([-(2**63), 2**63 - 1] * 20), encode_indexed)


@given(st.integers(0, 120), st.binary(min_size=1, max_size=20), st.booleans(), st.booleans())
@settings(max_examples=200, deadline=None)
def test_wrong_bytes_of_runs_and_tables_are_damage_or_as_many_numbers(place, garbage, cut, indexed):
    """Whatever is written over a section, no other number of numbers comes out of it."""
    column = np.repeat([5, 9, 7, 2**50], [30, 20, 60, 90])
    section = section_of(column, encode_indexed if indexed else encode_section)
    forged = section[:place] if cut else section[:place] + garbage + section[place + len(garbage) :]
    try:
        assert len(decode_section(memoryview(forged), column.dtype, 200)) == 200
    except DamagedError:
        return


def test_sections_lie_in_sections_three_deep_at_most():
    """Bytes that go on for ever are damage, not a reader out of stack."""
    index = encode_section(np.arange(4, dtype=np.uint32))
    section = encode_section(np.arange(4))
    for _ in range(3):
        section = bytes((INDEXED,)) + struct.pack("<II", 4, len(section)) + section + index
    assert decode_section(memoryview(section), np.dtype("<i8"), 4).tolist() == [0, 1, 2, 3]
    section = bytes((INDEXED,)) + struct.pack("<II", 4, len(section)) + section + index
    with pytest.raises(DamagedError):
        decode_section(memoryview(section), np.dtype("<i8"), 4)


def test_a_column_is_decoded_when_asked_for():
    """The count of decoded bytes grows column by column, and no column is decoded twice."""
    group = RowGroup(encode_row_group(sample()))
    start = group.nbytes
    assert group.values is group.values
    assert group.nbytes == start + 1600
    group.columns()
    assert group.nbytes == start + 4 * 1600
    with pytest.raises(ValueError, match="read-only"):
        group.values[0] = 1


@given(rows, series_ids, series_ids)
@settings(max_examples=60, deadline=None)
def test_rows_of_a_range_of_series(rows, first, last):
    """Both ends are included; an empty range gives an empty slice."""
    columns = columns_of(rows)
    group = RowGroup(encode_row_group(columns))
    expected = columns.series[(columns.series >= first) & (columns.series <= last)]
    assert columns.series[group.rows_of(first, last)].tolist() == expected.tolist()


@pytest.mark.parametrize("count", [1, 30])
def test_any_flipped_byte_and_any_cut_is_damage(count):
    """The checksum covers everything behind it."""
    blob = encode_row_group(sample(count))
    for place in range(len(blob)):
        flipped = bytearray(blob)
        flipped[place] ^= 1 << place % 8
        with pytest.raises(DamagedError):
            read_all(bytes(flipped))
        with pytest.raises(DamagedError):
            read_all(blob[:place])
    with pytest.raises(DamagedError):
        read_all(blob + b"\0")


@given(st.binary(max_size=300), st.integers(0, 300), st.booleans())
@settings(max_examples=200, deadline=None)
def test_bytes_with_a_true_checksum_are_still_checked(garbage, place, at_end):
    """Where the checksum was made for wrong bytes, columns come out of their lengths or nothing does."""
    blob = encode_row_group(sample())
    body = blob[8:]
    body = body[:place] + garbage if at_end else body[:place] + garbage + body[place + len(garbage) :]
    forged = blob[:4] + struct.pack("<I", zlib.crc32(body)) + body
    try:
        columns = read_all(forged)
    except DamagedError:
        return
    assert len(columns.series) == len(columns.at_us) == len(columns.values) == len(columns.seq)


def test_a_directory_says_what_its_row_groups_hold():
    """Checksum, bytes, bounds, and the times of the first and last row."""
    columns = [sample(50), sample(70)]
    blobs = [encode_row_group(c) for c in columns]
    directory = np.concatenate([directory_entry(b, c) for b, c in zip(blobs, columns, strict=True)])
    again = decode_directory(encode_directory(directory))
    assert again.dtype == DIRECTORY
    assert again.tobytes() == directory.tobytes()
    assert again["count"].tolist() == [50, 70]
    assert again["bytes"].tolist() == [len(b) for b in blobs]
    assert again["crc"].tolist() == [zlib.crc32(b[8:]) for b in blobs]
    assert again["last_at"].tolist() == [c.at_us[-1] for c in columns]


def test_a_damaged_directory_is_refused():
    """Every flipped byte and every cut."""
    blob = encode_directory(directory_entry(encode_row_group(sample()), sample()))
    for place in range(len(blob)):
        flipped = bytearray(blob)
        flipped[place] ^= 0x10
        for bad in (bytes(flipped), blob[:place]):
            with pytest.raises(DamagedError):
                decode_directory(bad)
