"""Which commit was recorded when: blocks of seq and recorded_at, ascending.

What this file guarantees: a block that decodes passed its checksum and holds two columns of one length; other
bytes answer :class:`DamagedError`. Where a block is damaged or missing, the times of its commits aren't known, and no
reading is lost by it. docs/format/tables.md has the layout.
"""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING, Final

import numpy as np

from meterite.model.columns import NO_TIME
from meterite.model.errors import DamagedError
from meterite.storage.row_fetch import fetch_blob
from meterite.storage.schema import JOURNAL_ROW_BITS
from meterite.storage.sections import damaged, decode_section, encode_section

if TYPE_CHECKING:
    import sqlite3

    from meterite.model.columns import type_i64

COMMIT_TIMES_MAX: Final = 1 << 20
"""As many commits fit into one block."""
COMMIT_TIME: Final = "commit_time"
"""The kind of its rows in quarantine."""

_SEQ_BITS: Final = 63 - JOURNAL_ROW_BITS
_BLOCKS: Final = "SELECT seq_first FROM commit_time WHERE org = ? AND seq_last >= ? AND seq_first <= ?"
_BLOCK: Final = "SELECT data FROM commit_time WHERE org = ? AND seq_first = ?"
_JOURNAL: Final = (
    "SELECT id, recorded_at FROM journal WHERE id >= ? AND id < ? AND org = ?"
    " AND typeof(recorded_at) = 'integer' ORDER BY id"
)
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


def quarantine_id(org_id: int, seq_first: int) -> int:
    """A block's row in quarantine; with seq 0 it stands for blocks that are missing. A seq has 47 bits."""
    return (org_id << _SEQ_BITS | seq_first) & (1 << 63) - 1


def read_times(
    raw: sqlite3.Connection, org_id: int, wanted: type_i64
) -> tuple[type_i64, list[tuple[int, str]]]:
    """When each of the commits (ascending) was made, µs: those still in the journal, and those in blocks.

    ``NO_TIME`` where it isn't known any more; then also which rows are damaged (their ids in quarantine), and how.
    """
    times = np.full(len(wanted), NO_TIME, np.int64)
    faults: list[tuple[int, str]] = []
    if not len(wanted):
        return times, faults
    blocks = raw.execute(_BLOCKS, (org_id, int(wanted[0]), int(wanted[-1]))).fetchall()
    for (seq_first,) in blocks:
        try:
            blob = fetch_blob(raw, _BLOCK, (org_id, seq_first))
            _fill(times, wanted, *decode_commit_times(blob or b""))
        except DamagedError as exc:
            faults.append((quarantine_id(org_id, seq_first), exc.message))
    missing = wanted[times == NO_TIME]
    if len(missing):
        low, high = int(missing[0]) << JOURNAL_ROW_BITS, int(missing[-1]) + 1 << JOURNAL_ROW_BITS
        found = np.array(raw.execute(_JOURNAL, (low, high, org_id)).fetchall(), np.int64).reshape(-1, 2)
        _fill(times, wanted, found[:, 0] >> JOURNAL_ROW_BITS, found[:, 1])
        if not faults and (times == NO_TIME).any():
            faults.append((quarantine_id(org_id, 0), "The times of some commits are missing."))
    return times, faults


def _fill(times: type_i64, wanted: type_i64, seq: type_i64, recorded_at: type_i64) -> None:
    if not len(seq):
        return
    place = np.minimum(seq.searchsorted(wanted), len(seq) - 1)
    hit = seq[place] == wanted
    times[hit] = recorded_at[place][hit]
