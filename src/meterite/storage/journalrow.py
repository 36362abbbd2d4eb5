"""Journal rows: a batch as it came, written in microseconds, since a writer waits for it.

What this file guarantees: encoding copies columns and compresses nothing; decoding takes any bytes whatever
and answers the rows or :class:`DamagedError`. Flipped bits within a column are found by
:func:`journal_checksum`, which lies in a column of its own and covers the row's other columns too.
docs/format/journal.md has the layout.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from meterite.model.columns import Batch, Columns
from meterite.storage.sections import damaged

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from meterite.model.columns import type_f64, type_i64

READING_BYTES_MIN: Final = 12
"""A reading's part of a row: its value, and its time as an offset."""

_MAGIC: Final = b"MJN1"
_HEADER: Final = struct.Struct("<4sIIBB2x")
_CHECKED_COLUMNS: Final = struct.Struct("<8q")
_BASE: Final = struct.Struct("<q")
_INDEX: Final[dict[int, np.dtype[Any]]] = {1: np.dtype("u1"), 2: np.dtype("<u2"), 4: np.dtype("<u4")}
_I64: Final = np.dtype("<i8")
_U32: Final = np.dtype("<u4")
_F64: Final = np.dtype("<f8")
_AT_RAW: Final = 0
_AT_OFFSETS: Final = 1
_AT_RAW_BELOW: Final = 8


def encode_journal(batch: Batch) -> bytes:
    """The blob of a batch. Its seq isn't in it: the row's id has it."""
    count, distinct = len(batch.values), len(batch.series)
    width = 0 if distinct == 1 else 1 if distinct <= 1 << 8 else 2 if distinct <= 1 << 16 else 4
    parts = [b"", batch.series.tobytes()]
    if width:
        parts.append(batch.series_index.astype(_INDEX[width]).tobytes())
    at_us, kind = batch.at_us, _AT_RAW
    if count >= _AT_RAW_BELOW:
        base = int(at_us.min())
        if int(at_us.max()) - base < 1 << 32:
            kind = _AT_OFFSETS
            parts += (_BASE.pack(base), (at_us - base).astype(_U32).tobytes())
    if kind == _AT_RAW:
        parts.append(at_us.tobytes())
    parts.append(batch.values.tobytes())
    parts[0] = _HEADER.pack(_MAGIC, count, distinct, width, kind)
    return b"".join(parts)


@dataclass(frozen=True, slots=True)
class JournalRow:
    """A row's columns as they lie in the blob: reading i is of ``series[index[i]]``, of ``series[0]`` without index."""

    series: type_i64
    index: NDArray[Any] | None
    at_us: type_i64
    values: type_f64

    def __len__(self) -> int:
        return len(self.values)


def decode_journal(blob: bytes, seq: int) -> Columns:
    """The rows in the order in which they came, all of them of commit ``seq``."""
    row = open_journal(blob)
    series = np.full(len(row), row.series[0], np.int64) if row.index is None else row.series[row.index]
    return Columns(series, row.at_us, row.values.copy(), np.full(len(row), seq, np.int64))


def open_journal(blob: bytes) -> JournalRow:
    """The row's columns; where possible they are views of the blob."""
    if len(blob) < _HEADER.size or blob[:4] != _MAGIC:
        raise damaged("no journal row begins here")
    _, count, distinct, width, kind = _HEADER.unpack_from(blob)
    known = kind in {_AT_RAW, _AT_OFFSETS} and (width in _INDEX or (width == 0 and distinct == 1))
    at_bytes = 8 + 4 * count if kind == _AT_OFFSETS else 8 * count
    # Lengths are compared before anything is allocated.
    expected = _HEADER.size + 8 * distinct + width * count + at_bytes + 8 * count
    if not known or blob[14:16] != b"\0\0" or len(blob) != expected:
        raise damaged("a journal row's lengths don't fit")
    table = np.frombuffer(blob, _I64, distinct, _HEADER.size)
    place = _HEADER.size + 8 * distinct
    index = _open_index(blob, table, count, width, place)
    place += width * count
    at_us = _decode_at(blob, count, kind, place)
    return JournalRow(table, index, at_us, np.frombuffer(blob, _F64, count, place + at_bytes))


def extent_of(blob: bytes) -> tuple[int, int, int, int]:
    """The smallest and largest series and time, by the blob's own account. DamagedError."""
    row = open_journal(blob)
    if not len(row):
        raise damaged("a journal row is empty")
    return int(row.series[0]), int(row.series[-1]), int(row.at_us.min()), int(row.at_us.max())


def _open_index(
    blob: bytes, table: NDArray[np.int64], count: int, width: int, place: int
) -> NDArray[Any] | None:
    if not (table[1:] > table[:-1]).all():
        raise damaged("a journal row's series don't ascend")
    if width == 0:
        return None
    index = np.frombuffer(blob, _INDEX[width], count, place)
    if count and int(index.max()) >= len(table):
        raise damaged("a journal row names a series that it doesn't hold")
    return index


def _decode_at(blob: bytes, count: int, kind: int, place: int) -> type_i64:
    if kind == _AT_RAW:
        return np.frombuffer(blob, _I64, count, place).copy()
    base: int
    (base,) = _BASE.unpack_from(blob, place)
    offsets = np.frombuffer(blob, _U32, count, place + 8)
    if count and base + int(offsets.max()) >= 1 << 63:
        raise damaged("a journal row's times pass the end of time")
    at_us: type_i64 = offsets.astype(np.int64) + base
    return at_us


def journal_checksum(
    id: int,  # noqa: A002 -- the column's own name
    org: int,
    series_first: int,
    series_last: int,
    at_first: int,
    at_last: int,
    count: int,
    recorded_at: int,
    data: bytes,
) -> int:
    """What stands in the row's column ``checksum``, signed: crc32 over the other columns; and over them and the blob.

    The first is the upper half: who chooses rows by their columns doesn't read blobs.
    """
    columns = _CHECKED_COLUMNS.pack(id, org, series_first, series_last, at_first, at_last, count, recorded_at)
    head = zlib.crc32(columns)
    return (head << 32 | zlib.crc32(data, head)) - (head >> 31 << 64)


def columns_hold(columns: Sequence[Any], checksum: Any) -> bool:
    """Whether a row's first eight columns are those that were written; of any type, since damage knows none."""
    try:
        return bool(zlib.crc32(_CHECKED_COLUMNS.pack(*columns)) == checksum >> 32 & 0xFFFFFFFF)
    except (TypeError, struct.error):
        return False
