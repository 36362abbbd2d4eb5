"""Row groups, the form in which compacted readings rest: sorted columns of up to 65,536 readings, compressed.

What this file guarantees: a blob that opens as a :class:`RowGroup` passed its checksum and its lengths;
any other bytes answer :class:`DamagedError`, here or when a column is first asked for. A column that nobody
asks for isn't decoded. The directory of a run lists its row groups with their checksums and bounds, so that
a reader skips what it doesn't need. Both are laid down to the byte in docs/format/row-group.md.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from meterite.model.columns import Columns, type_f64, type_i64, type_u32
from meterite.storage.decimals import decode_values, encode_values
from meterite.storage.grid import decode_times, encode_times
from meterite.storage.sections import (
    damaged,
    decode_rows,
    decode_section,
    encode_indexed,
    encode_rows,
    encode_section,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray


ROW_GROUP_READINGS: Final = 65_536
"""As many readings go into one row group; a reader takes up to sixteen times as many."""

_MAGIC: Final = b"MRG1"
_HEADER: Final = struct.Struct("<4sI II 5I 6q")
_CHECKED_FROM: Final = 8
_COUNT_LAST: Final = ROW_GROUP_READINGS * 16
_I64: Final = np.dtype("<i8")
_U32: Final = np.dtype("<u4")


@dataclass(frozen=True, slots=True)
class Bounds:
    """How many readings, and the smallest and largest series, time and seq among them."""

    count: int
    series_first: int
    series_last: int
    at_first: int
    at_last: int
    seq_first: int
    seq_last: int


def _bounds_of(columns: Columns) -> Bounds:
    return Bounds(
        len(columns),
        int(columns.series[0]),
        int(columns.series[-1]),
        int(columns.at_us.min()),
        int(columns.at_us.max()),
        int(columns.seq.min()),
        int(columns.seq.max()),
    )


def encode_row_group(columns: Columns) -> bytes:
    """The blob of columns sorted by (series, at, seq); at least one reading."""
    count = len(columns)
    assert 0 < count <= _COUNT_LAST
    series = columns.series
    ends = np.append(np.flatnonzero(series[1:] != series[:-1]) + 1, count).astype(_U32)
    sections = [
        encode_section(series[ends - 1].astype(_I64, copy=False)),
        encode_section(ends),
        encode_times(columns.at_us, ends),
        encode_values(columns.values),
        encode_indexed(columns.seq.astype(_I64, copy=False)),
    ]
    bounds = _bounds_of(columns)
    header = _HEADER.pack(
        _MAGIC,
        0,
        count,
        len(ends),
        *map(len, sections),
        bounds.series_first,
        bounds.series_last,
        bounds.at_first,
        bounds.at_last,
        bounds.seq_first,
        bounds.seq_last,
    )
    checked = b"".join([header[_CHECKED_FROM:], *sections])
    return b"".join([_MAGIC, struct.pack("<I", zlib.crc32(checked)), checked])


class RowGroup:
    """A checked blob whose columns are decoded when first asked for and kept, as read-only arrays."""

    __slots__ = ("_at", "_ends", "_sections", "_seq", "_series", "_table", "_values", "bounds", "nbytes")

    def __init__(self, blob: bytes | memoryview) -> None:
        view = memoryview(blob)
        if len(view) < _HEADER.size or bytes(view[:4]) != _MAGIC:
            raise damaged("no row group begins here")
        _, crc, count, distinct, *rest = _HEADER.unpack_from(view)
        if zlib.crc32(view[_CHECKED_FROM:]) != crc:
            raise damaged("a row group fails its checksum")
        stops = list(accumulate(rest[:5], initial=_HEADER.size))
        if stops[-1] != len(view) or not 0 < distinct <= count <= _COUNT_LAST:
            raise damaged("a row group's lengths don't fit")
        self.bounds: Final = Bounds(count, *rest[5:])
        self.nbytes = 0
        self._sections = [view[stops[i] : stops[i + 1]] for i in range(5)]
        self._table: type_i64 | None = None
        self._ends: type_u32 | None = None
        self._series: type_i64 | None = None
        self._at: type_i64 | None = None
        self._values: type_f64 | None = None
        self._seq: type_i64 | None = None
        self._check_ends(distinct)

    def _check_ends(self, distinct: int) -> None:
        """Every row belongs to one series, and the series ascend: :meth:`rows_of` relies on it."""
        table: type_i64 = self._decode(0, _I64, distinct)
        ends: type_u32 = self._decode(1, _U32, distinct)
        ascend = bool((table[1:] > table[:-1]).all() and (ends[1:] > ends[:-1]).all())
        if not ascend or ends[0] == 0 or ends[-1] != self.bounds.count:
            raise damaged("a row group's series table doesn't fit its rows")
        self._table, self._ends = table, ends

    def _decode(self, section: int, dtype: np.dtype[Any], count: int) -> NDArray[Any]:
        return self._kept(decode_section(self._sections[section], dtype, count))

    def _kept(self, column: NDArray[Any]) -> NDArray[Any]:
        self.nbytes += column.nbytes
        return column

    @property
    def series_table(self) -> type_i64:
        """The distinct series, ascending."""
        assert self._table is not None
        return self._table

    @property
    def ends(self) -> type_u32:
        """For each series of the table the number of the row after its last."""
        assert self._ends is not None
        return self._ends

    @property
    def series(self) -> type_i64:
        if self._series is None:
            lengths = self.ends.astype(np.int64)
            lengths[1:] -= self.ends[:-1]
            series = np.repeat(self.series_table, lengths)
            series.flags.writeable = False
            self.nbytes += series.nbytes
            self._series = series
        return self._series

    @property
    def at_us(self) -> type_i64:
        if self._at is None:
            self._at = self._kept(decode_times(self._sections[2], self.bounds.count, self.ends))
        return self._at

    @property
    def values(self) -> type_f64:
        if self._values is None:
            self._values = self._kept(decode_values(self._sections[3], self.bounds.count))
        return self._values

    @property
    def seq(self) -> type_i64:
        if self._seq is None:
            self._seq = self._decode(4, _I64, self.bounds.count)
        return self._seq

    def columns(self) -> Columns:
        return Columns(self.series, self.at_us, self.values, self.seq)

    def rows_of(self, series_first: int, series_last: int) -> slice:
        """The rows of the series from first to last, both included; an empty slice where there are none."""
        low = int(self.series_table.searchsorted(series_first, "left"))
        high = int(self.series_table.searchsorted(series_last, "right"))
        start = int(self.ends[low - 1]) if low else 0
        stop = int(self.ends[high - 1]) if high else 0
        return slice(start, max(start, stop))


# ------------------------------------------------------------------------------------------------------------
# The directory of a run.

DIRECTORY: Final = np.dtype(
    [
        ("crc", "<u4"),
        ("count", "<u4"),
        ("bytes", "<u4"),
        ("series_first", "<i8"),
        ("series_last", "<i8"),
        ("at_first", "<i8"),
        ("at_last", "<i8"),
        ("seq_first", "<i8"),
        ("seq_last", "<i8"),
        ("first_at", "<i8"),
        ("last_at", "<i8"),
    ]
)
"""A row group each, in the order of the run. ``first_at`` and ``last_at`` belong to its outermost rows."""

_DIRECTORY_MAGIC: Final = b"MRD1"


def directory_entry(blob: bytes, columns: Columns) -> NDArray[np.void]:
    """An array of one :data:`DIRECTORY` row; ``np.concatenate`` makes a directory of them."""
    bounds = _bounds_of(columns)
    (crc,) = struct.unpack_from("<I", blob, 4)
    row = (
        crc,
        bounds.count,
        len(blob),
        bounds.series_first,
        bounds.series_last,
        bounds.at_first,
        bounds.at_last,
        bounds.seq_first,
        bounds.seq_last,
        int(columns.at_us[0]),
        int(columns.at_us[-1]),
    )
    return np.array([row], DIRECTORY)


def encode_directory(directory: NDArray[np.void]) -> bytes:
    return encode_rows(_DIRECTORY_MAGIC, directory)


def decode_directory(blob: bytes) -> NDArray[np.void]:
    return decode_rows(_DIRECTORY_MAGIC, blob, DIRECTORY)
