"""Times that come at an interval are kept as steps on each series' straight line and what they differ from it.

A jitter around a line costs its own information once; from reading to reading it would be paid for twice. A missing
reading is a step of two, and costs no more than that. The layout is in docs/format/row-group.md.

What this file guarantees: what comes out is what went in; a section is written so only where that makes it smaller.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from meterite.storage.sections import damaged, decode_section, encode_section

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from meterite.model.columns import type_f64, type_i64, type_u32

GRID: Final = 6
"""The kind of the section; the others are those of sections.py."""

_HEADER: Final = struct.Struct("<BqIII")
_I64: Final = np.dtype("<i8")
_U32: Final = np.dtype("<u4")
_SINGLE: Final = encode_section(np.ones(2, _U32))
"""The section of hops where no reading is missing."""
_UNITS: Final = (1_000_000, 1000)
_READINGS_EACH: Final = 8
"""Of series that are shorter on average a line costs more than it is worth."""
_LONG: Final = 16
"""Series from so many readings on say themselves what their interval is."""
_PROBES: Final = 9
_SPAN_LAST: Final = 1 << 52
"""142 years: within it sums of times as floats are as exact as an interval needs."""
_FEW_HOPS: Final = 512
"""Where steps of more than one interval take less than this part of the times' bytes, no other section is smaller."""


def encode_times(at_us: type_i64, ends: type_u32) -> bytes:
    """The smaller of a grid and a section of times; ``ends`` as in :class:`RowGroup`."""
    grid = _encode_grid(at_us, ends.astype(np.intp))
    if grid is not None and grid[1]:
        return grid[0]
    section = encode_section(at_us.astype(_I64, copy=False))
    return section if grid is None else min(grid[0], section, key=len)


def _encode_grid(at_us: type_i64, ends: NDArray[np.intp]) -> tuple[bytes, bool] | None:
    """The section, and whether no other can be smaller; None where the times are no grid."""
    if len(at_us) < len(ends) * _READINGS_EACH or int(at_us.max()) - int(at_us.min()) > _SPAN_LAST:
        return None
    starts = np.concatenate(([0], ends[:-1]))
    hops = _hops(at_us, starts, ends)
    if hops is None:
        return None
    unit = _unit_of(at_us)
    slots = _slots(hops, starts, ends)
    steps = _steps(at_us, slots, starts, ends, unit)
    if int(slots.max()) * int(np.abs(steps).max()) >> 62:
        return None
    rest = at_us - slots * np.repeat(steps, ends - starts)
    bases = np.minimum.reduceat(rest, starts)
    rest -= np.repeat(bases, ends - starts)
    if unit != 1:
        rest //= unit
    if int(rest.max()) >> 32:
        return None
    sections = [encode_section(bases), encode_section(steps), encode_section(hops.astype(_U32))]
    header = _HEADER.pack(GRID, unit, *map(len, sections))
    # What is left is packed as times would be, by its differences where these are smaller.
    surely = len(sections[2]) * _FEW_HOPS < at_us.nbytes
    return b"".join([header, *sections, encode_section(rest.astype(_U32))]), surely


def _unit_of(at_us: type_i64) -> int:
    """The coarsest of seconds, milliseconds and microseconds that all times are whole in."""
    for unit in _UNITS:
        if not (at_us[:64] % unit).any() and not (at_us % unit).any():
            return unit
    return 1


def _hops(at_us: type_i64, starts: NDArray[np.intp], ends: NDArray[np.intp]) -> type_i64 | None:
    """How many intervals lie between a reading and the one before; 1 at a series' first."""
    lengths = ends - starts
    probes = starts[:, None] + (np.maximum(lengths - 2, 0)[:, None] * np.arange(_PROBES)) // (_PROBES - 1)
    after = np.minimum(probes + 1, ends[:, None] - 1)
    guess = np.median(at_us[after] - at_us[probes], axis=1)
    long = lengths >= _LONG
    if not long.any():
        return None
    guess[~long] = np.median(guess[long])
    if not (guess >= 1).all():
        return None
    deltas = np.diff(at_us, prepend=at_us[0]).astype(np.float64)
    hops = np.rint(deltas / np.repeat(guess, lengths))
    hops[starts] = 1.0
    if hops.max() > 1.0:
        hops = np.rint(deltas / np.repeat(_mean_of_single(deltas, hops, starts, guess), lengths))
        hops[starts] = 1.0
    return hops.astype(np.int64) if hops.min() >= 0.0 and hops.max() < 2**31 else None


def _mean_of_single(deltas: type_f64, hops: type_f64, starts: NDArray[np.intp], guess: type_f64) -> type_f64:
    """A better guess: where an interval is a little off, a long gap is many intervals off."""
    single = hops == 1.0
    single[starts] = False
    count = np.add.reduceat(single, starts, dtype=np.int64)
    total = np.add.reduceat(np.where(single, deltas, 0.0), starts)
    mean: type_f64 = np.where(count >= _LONG // 2, total / np.maximum(count, 1), guess)
    return mean


def _slots(hops: NDArray[Any], starts: NDArray[np.intp], ends: NDArray[np.intp]) -> type_i64:
    """On which place of its line each reading stands; 0 is a series' first."""
    slots = np.cumsum(hops, dtype=np.int64)
    slots -= np.repeat(slots[starts], ends - starts)
    return slots


def _steps(
    at_us: type_i64, slots: type_i64, starts: NDArray[np.intp], ends: NDArray[np.intp], unit: int
) -> type_i64:
    """The interval of each series by least squares, in whole units; short series take that of the others."""
    lengths = ends - starts
    x = slots.astype(np.float64)
    y = (at_us - np.repeat(at_us[starts], lengths)).astype(np.float64)

    def total(column: type_f64) -> type_f64:
        sums: type_f64 = np.add.reduceat(column, starts)
        return sums

    mean_x = total(x) / lengths
    x -= np.repeat(mean_x, lengths)
    above, below = total(x * y), total(x * x)
    steps = np.rint(above / np.maximum(below, 1.0) / unit) * unit
    short = (lengths < _LONG) | (below == 0.0)
    if not short.all():
        steps[short] = np.rint(np.median(steps[~short]) / unit) * unit
    return steps.astype(np.int64)


def decode_times(section: memoryview, count: int, ends: type_u32) -> type_i64:
    """The ``count`` times, as an array of its own that must not be written to."""
    if not len(section) or section[0] != GRID:
        return decode_section(section, _I64, count)
    if len(section) < _HEADER.size:
        raise damaged("a grid of times is too short")
    _, unit, *sizes = _HEADER.unpack_from(section)
    parts, place = [], _HEADER.size
    for size in sizes:
        parts.append(section[place : place + size])
        place += size
    stops = ends.astype(np.intp)
    starts = np.concatenate(([0], stops[:-1]))
    lengths = stops - starts
    bases = decode_section(parts[0], _I64, len(stops))
    steps = decode_section(parts[1], _I64, len(stops))
    if parts[2] == _SINGLE:
        places = np.arange(1, count + 1)
    else:
        places = np.cumsum(decode_section(parts[2], _U32, count), dtype=np.int64)
    at_us: type_i64 = decode_section(section[place:], _U32, count).astype(np.int64)
    if unit != 1:
        at_us *= unit
    # Bytes that are damaged may overflow here: numbers come out that are wrong, as the checksum says.
    at_us += np.repeat(bases - places[starts] * steps, lengths)
    same = bool((steps == steps[0]).all())
    places *= steps[0] if same else np.repeat(steps, lengths)
    at_us += places
    at_us.flags.writeable = False
    return at_us
