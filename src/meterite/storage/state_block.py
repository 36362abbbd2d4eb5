"""The newest two readings of up to 1,024 metrics, as one block of packed rows.

What this file guarantees: a block that decodes passed its checksum and holds whole rows; other bytes answer
:class:`DamagedError`. docs/format/tables.md has the layout.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from meterite.storage.sections import decode_rows, encode_rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

STATE: Final = np.dtype(
    [
        ("metric", "<i8"),
        ("flags", "u1"),
        ("current_at", "<i8"),
        ("current_series", "<i8"),
        ("current_value", "<f8"),
        ("last_at", "<i8"),
        ("last_series", "<i8"),
        ("last_value", "<f8"),
    ]
)
"""A metric each, ascending. What ``flags`` doesn't announce is zero."""

HAS_CURRENT: Final = 1
HAS_LAST: Final = 2
HAD_INFINITY: Final = 4

_MAGIC: Final = b"MST1"


def encode_state_block(rows: NDArray[np.void]) -> bytes:
    assert rows.dtype == STATE
    return encode_rows(_MAGIC, rows)


def decode_state_block(blob: bytes) -> NDArray[np.void]:
    """Read-only rows; copy them to change them."""
    return decode_rows(_MAGIC, blob, STATE)
