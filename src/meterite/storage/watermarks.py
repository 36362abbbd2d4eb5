"""The newest reading of every series: by it a reading is late, or moves an alarm on.

What this file guarantees: one blob an org holds the newest ``reading_at`` of each series up to the org's
``compacted_seq``; the journal after it is folded over it. Readings that aren't finite don't count. Where a delete
took a series' newest, the mark is :data:`UNKNOWN` until somebody needs it and looks it up; a blob that is damaged, or
was never written (files of before), says so by ``complete``, and a series that it doesn't name is looked up, too.
docs/format/tables.md has the layout.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from meterite.model.errors import DamagedError
from meterite.model.limits import TIME_NONE
from meterite.model.standing import TIME_UNKNOWN
from meterite.storage.interface import Span
from meterite.storage.row_fetch import fetch_blob
from meterite.storage.sections import damaged, decode_section, encode_section

if TYPE_CHECKING:
    import sqlite3

    from meterite.model.columns import Columns, type_i64
    from meterite.storage.snapshot import Snapshot
    from meterite.storage.tombstones import Tombstones

NEVER: Final = TIME_NONE
"""No reading yet."""
UNKNOWN: Final = TIME_UNKNOWN
"""To be looked up."""

_MAGIC: Final = b"MNW1"
_HEADER: Final = struct.Struct("<4sIIBxxxI")
_LOOK_UP_READINGS: Final = 4096
_I64: Final = np.dtype("<i8")


@dataclass(frozen=True, slots=True)
class Watermarks:
    """``series`` ascending and distinct, ``newest`` µs; not ``complete``: others may have readings."""

    series: type_i64
    newest: type_i64
    complete: bool = True

    @staticmethod
    def none(*, complete: bool) -> Watermarks:
        empty = np.zeros(0, np.int64)
        return Watermarks(empty, empty, complete)

    def folded(self, fresh: Columns, tombstones: Tombstones) -> Watermarks:
        """With deletes that came after these marks, and readings that none of those deletes hit."""
        kept = self._erased(tombstones)
        finite = np.isfinite(fresh.values)
        series = np.concatenate([kept.series, fresh.series[finite]])
        newest = np.concatenate([kept.newest, fresh.at_us[finite]])
        return Watermarks(*_newest_of(series, newest), self.complete)

    def _erased(self, tombstones: Tombstones) -> Watermarks:
        newest = self.newest.copy()
        for tombstone in tombstones:
            low = int(self.series.searchsorted(tombstone.series_first, "left"))
            high = int(self.series.searchsorted(tombstone.series_last, "right"))
            mine = newest[low:high]
            hit = mine <= tombstone.at_last
            if tombstone.series is not None:
                hit &= np.isin(self.series[low:high], tombstone.series)
            if tombstone.at_first == NEVER:
                mine[hit] = NEVER
            else:
                mine[hit & (mine >= tombstone.at_first)] = UNKNOWN
        kept = newest != NEVER
        return Watermarks(self.series[kept], newest[kept], self.complete)


def _newest_of(series: type_i64, newest: type_i64) -> tuple[type_i64, type_i64]:
    order = np.lexsort((newest, series))
    series, newest = series[order], newest[order]
    last = np.append(series[1:] != series[:-1], np.ones(min(len(series), 1), bool))
    return series[last], newest[last]


def look_up(snapshot: Snapshot, series: int) -> int:
    """The newest finite reading's µs, read from the store; :data:`NEVER` where there is none."""
    span = Span(series, series, NEVER, UNKNOWN)
    for first, last in reversed(snapshot.cuts(span, _LOOK_UP_READINGS)):
        found = NEVER
        for chunk in snapshot.scan(Span(series, series, first, last)):
            finite = np.isfinite(chunk.values)
            if finite.any():
                found = max(found, int(chunk.at_us[finite].max()))
        if found != NEVER:
            return found
    return NEVER


def encode_watermarks(marks: Watermarks) -> bytes:
    series, newest = encode_section(marks.series), encode_section(marks.newest)
    body = _HEADER.pack(_MAGIC, 0, len(marks.series), marks.complete, len(series))[8:] + series + newest
    return _MAGIC + struct.pack("<I", zlib.crc32(body)) + body


def decode_watermarks(blob: bytes) -> Watermarks:
    """DamagedError for any bytes that :func:`encode_watermarks` didn't write."""
    if len(blob) < _HEADER.size or blob[:4] != _MAGIC:
        raise damaged("no MNW1 block begins here")
    _, crc, count, complete, series_bytes = _HEADER.unpack_from(blob)
    if zlib.crc32(memoryview(blob)[8:]) != crc:
        raise damaged("an MNW1 block fails its checksum")
    body = memoryview(blob)[_HEADER.size :]
    series = decode_section(body[:series_bytes], _I64, count)
    newest = decode_section(body[series_bytes:], _I64, count)
    return Watermarks(series, newest, bool(complete))


def marks_of(blob: bytes | None, *, compacted: bool) -> Watermarks:
    """The org's marks as of its last flip. Without a blob they are complete only where nothing was compacted yet."""
    if blob is None:
        return Watermarks.none(complete=not compacted)
    try:
        return decode_watermarks(blob)
    except DamagedError:  # costs nothing but time: all that it says can be read from the readings themselves
        return Watermarks.none(complete=False)


def read_marks(raw: sqlite3.Connection, org_id: int, *, compacted: bool) -> Watermarks:
    """The same as they lie in the table."""
    try:
        blob = fetch_blob(raw, "SELECT data FROM watermark WHERE org = ?", (org_id,))
    except DamagedError:
        return Watermarks.none(complete=False)
    return marks_of(blob, compacted=compacted)
