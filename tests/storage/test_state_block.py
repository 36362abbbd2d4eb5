"""Blocks of the newest readings: what goes in comes out, damage doesn't."""

from __future__ import annotations

import numpy as np
import pytest

from meterite.model.errors import DamagedError
from meterite.storage.state_block import HAS_CURRENT, HAS_LAST, STATE, decode_state_block, encode_state_block

ROWS = np.array(
    [
        (1, 0, 0, 0, 0.0, 0, 0, 0.0),
        (7, HAS_CURRENT | HAS_LAST, 2**62, 7 << 32, -0.0, -5, (7 << 32) + 1, 1e300),
    ],
    STATE,
)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_what_goes_in_comes_out(count):
    """Rows of 57 bytes behind a head of 12."""
    blob = encode_state_block(ROWS[:count])
    assert len(blob) == 12 + 57 * count
    assert decode_state_block(blob).tobytes() == ROWS[:count].tobytes()


def test_any_flipped_byte_and_any_cut_is_damage():
    """The checksum covers everything behind it."""
    blob = encode_state_block(ROWS)
    for place in range(len(blob)):
        flipped = bytearray(blob)
        flipped[place] ^= 1 << place % 8
        for bad in (bytes(flipped), blob[:place], blob + b"\0"):
            with pytest.raises(DamagedError):
                decode_state_block(bad)
