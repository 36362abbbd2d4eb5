"""Blocks of commit times: what goes in comes out, damage doesn't."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meterite.model.errors import DamagedError
from meterite.storage.commit_times import COMMIT_TIMES_MAX, decode_commit_times, encode_commit_times

int64s = st.integers(-(2**63), 2**63 - 1)


@given(st.lists(st.tuples(int64s, int64s), max_size=60))
@settings(max_examples=60, deadline=None)
def test_what_goes_in_comes_out(pairs):
    """Any two columns of one length, none at all too."""
    seq = np.array([p[0] for p in pairs], np.int64)
    recorded_at = np.array([p[1] for p in pairs], np.int64)
    again = decode_commit_times(encode_commit_times(seq, recorded_at))
    assert (again[0].tolist(), again[1].tolist()) == (seq.tolist(), recorded_at.tolist())


@pytest.mark.parametrize("count", [1, 40])
def test_any_flipped_byte_and_any_cut_is_damage(count):
    """The checksum covers everything behind it."""
    blob = encode_commit_times(np.arange(count), np.arange(count) ** 2)
    for place in range(len(blob)):
        flipped = bytearray(blob)
        flipped[place] ^= 1 << place % 8
        for bad in (bytes(flipped), blob[:place]):
            with pytest.raises(DamagedError):
                decode_commit_times(bad)


@pytest.mark.parametrize(("count", "first"), [(3, 100), (4, 25), (COMMIT_TIMES_MAX + 1, 25), (2**32 - 1, 9)])
def test_lengths_are_checked_behind_a_true_checksum(count, first):
    """Nothing is allocated for a count that no block has."""
    body = struct.pack("<II", count, first) + encode_commit_times(np.arange(3), np.arange(3))[16:]
    with pytest.raises(DamagedError):
        decode_commit_times(b"MCT1" + struct.pack("<I", zlib.crc32(body)) + body)
