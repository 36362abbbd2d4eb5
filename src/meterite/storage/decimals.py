"""Values that were written as decimals are kept as integers and how many places they have; the rest beside them.

What this file guarantees: what comes out is what went in, bit for bit, since a value is kept as an integer only where
dividing it by the power of ten gives the same bits; NaN, infinities, -0.0 and whatever else isn't such a decimal lie
apart.
The layout is in docs/format/row-group.md.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from meterite.storage.sections import bits_of, damaged, decode_section, encode_section

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from meterite.model.columns import type_f64

DECIMAL: Final = 5
"""The kind of the section; the others are those of sections.py."""

_HEADER: Final = struct.Struct("<BBBII")
_LENGTH: Final = struct.Struct("<I")
_F64: Final = np.dtype("<f8")
_U32: Final = np.dtype("<u4")
_WIDTHS: Final[dict[int, np.dtype[Any]]] = {4: np.dtype("<i4"), 8: np.dtype("<i8")}
_PLACES: Final = 10
_PLACES_LAST: Final = 22
"""10 to this power is the last that a float64 holds exactly."""
_EXACT: Final = 2.0**53
_SAMPLE: Final = 512
_FEWEST: Final = 24


def encode_values(values: type_f64) -> bytes:
    """The smallest of a section of decimals and a section of floats."""
    column = np.ascontiguousarray(values, _F64)
    places = _places_of(column[:: max(1, len(column) // _SAMPLE)]) if len(column) >= _FEWEST else None
    if places is None:
        return encode_section(column)
    integers, same = _scaled(column, places)
    others = np.flatnonzero(~same)
    if not len(others):
        return _encode(integers, places)
    if len(others) * 2 > len(column):
        return encode_section(column)
    _repeat_before(integers, same)
    return min(_encode(integers, places, others, column[others]), encode_section(column), key=len)


def _places_of(sample: type_f64) -> int | None:
    """How many places most of the sample has; None where there is no telling."""
    counts = [int(_scaled(sample, places)[1].sum()) for places in range(_PLACES)]
    most = max(counts)
    return counts.index(most) if most * 2 >= len(sample) else None


def _scaled(column: type_f64, places: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """As integers, and which of them give the same bits when they are divided again."""
    scale = 10.0**places
    with np.errstate(invalid="ignore", over="ignore"):
        scaled = np.rint(column * scale)
        small = np.abs(scaled) < _EXACT
    if not small.all():
        scaled[~small] = 0.0
    # An integer has no -0.0: adding 0.0 makes 0.0 of it, which differs in its bits.
    same = bits_of((scaled + 0.0) / scale) == bits_of(column)
    return scaled.astype(np.int64), same


def _repeat_before(integers: NDArray[np.int64], same: NDArray[np.bool_]) -> None:
    """In the place of what lies apart stands the integer before it: the cheapest to keep."""
    places = np.where(same, np.arange(len(same)), 0)
    integers[:] = integers[np.maximum.accumulate(places)]


def _encode(
    integers: NDArray[np.int64],
    places: int,
    others: NDArray[np.intp] | None = None,
    apart: type_f64 | None = None,
) -> bytes:
    narrow = int(integers.min()) >= -(2**31) and int(integers.max()) < 2**31
    width = 4 if narrow else 8
    section = encode_section(integers.astype(_WIDTHS[width]))
    count = 0 if others is None else len(others)
    parts = [_HEADER.pack(DECIMAL, places, width, count, len(section)), section]
    if others is not None and apart is not None:
        rows = encode_section(others.astype(_U32))
        parts += [_LENGTH.pack(len(rows)), rows, encode_section(apart)]
    return b"".join(parts)


def decode_values(section: memoryview, count: int) -> type_f64:
    """The ``count`` values, as an array of its own that must not be written to."""
    if not len(section) or section[0] != DECIMAL:
        return decode_section(section, _F64, count)
    if len(section) < _HEADER.size:
        raise damaged("a section of decimals is too short")
    _, places, width, others, size = _HEADER.unpack_from(section)
    if places > _PLACES_LAST or width not in _WIDTHS or others > count:
        raise damaged("a section of decimals doesn't fit its numbers")
    stop = _HEADER.size + size
    integers = decode_section(section[_HEADER.size : stop], _WIDTHS[width], count)
    values: type_f64 = integers / 10.0**places if places else integers.astype(_F64)
    if others:
        _put_apart(values, section[stop:], others)
    elif stop != len(section):
        raise damaged("a section of decimals is longer than it says")
    values.flags.writeable = False
    return values


def _put_apart(values: type_f64, rest: memoryview, others: int) -> None:
    if len(rest) < _LENGTH.size:
        raise damaged("a section of decimals ends before what lies apart")
    (size,) = _LENGTH.unpack_from(rest)
    stop = _LENGTH.size + size
    rows = decode_section(rest[_LENGTH.size : stop], _U32, others)
    if int(rows.max()) >= len(values):
        raise damaged("a section of decimals names a row that it doesn't have")
    values[rows] = decode_section(rest[stop:], _F64, others)
