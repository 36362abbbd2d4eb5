"""Which commit was recorded when: blocks of seq and recorded_at, ascending.

What this file guarantees: a block that decodes passed its checksum and holds two columns of one length; other
bytes answer :class:`DamagedError`. docs/format/tables.md has the layout.
"""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING, Final

import numpy as np

from meterite.storage.sections import damaged, decode_section, encode_section

if TYPE_CHECKING:
    from meterite.model.columns import type_i64

COMMIT_TIMES_MAX: Final = 1 << 20
"""As many commits fit into one block."""

_MAGIC: Final = b"MCT1"
_HEADER: Final = struct.Struct("<4sIII")
_LENGTHS: Final = struct.Struct("<II")
_CHECKED_FROM: Final = 8
_I64: Final = np.dtype("<i8")


def encode_commit_times(seq: type_i64, recorded_at: type_i64) -> bytes:
    count = len(seq)
    assert len(recorded_at) == count <= COMMIT_TIMES_MAX
    first = encode_section(seq.astype(_I64, copy=False))
    second = encode_section(recorded_at.astype(_I64, copy=False))
    checked = b"".join([_LENGTHS.pack(count, len(first)), first, second])
    return b"".join([_MAGIC, struct.pack("<I", zlib.crc32(checked)), checked])


def decode_commit_times(blob: bytes) -> tuple[type_i64, type_i64]:
    """(seq, recorded_at)."""
    view = memoryview(blob)
    if len(view) < _HEADER.size or bytes(view[:4]) != _MAGIC:
        raise damaged("no block of commit times begins here")
    _, crc, count, first = _HEADER.unpack_from(view)
    if zlib.crc32(view[_CHECKED_FROM:]) != crc:
        raise damaged("a block of commit times fails its checksum")
    middle = _HEADER.size + first
    if middle > len(view) or count > COMMIT_TIMES_MAX:
        raise damaged("a block of commit times has lengths that don't fit")
    seq: type_i64 = decode_section(view[_HEADER.size : middle], _I64, count)
    recorded_at: type_i64 = decode_section(view[middle:], _I64, count)
    return seq, recorded_at
