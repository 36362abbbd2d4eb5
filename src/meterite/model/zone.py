"""Time zones as arrays: which wall clock an instant shows, and which instants show a wall clock.

What this file guarantees: the answers come from the pinned ``tzdata`` package, whatever the machine has
installed; they are exact to the transition, from the first one known to 2262; arrays cost no Python step
per element. A wall clock is held as µs, as if it were UTC's.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache, lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING, Final
from zoneinfo import ZoneInfo

import numpy as np

from meterite.model.errors import InvalidInputError
from meterite.model.time import AT_FIRST_US, AT_LAST_US, DAY_US, EPOCH, SECOND_US, Place, excerpt

if TYPE_CHECKING:
    from numpy.typing import NDArray

ZONES_MAX: Final = 700
"""More than tzdata has, so that no zone is ever computed twice; each takes about 10 kB."""

_FOREVER: Final = 2**62
_RULE_PROBE_US: Final = 5 * DAY_US
_SECOND: Final = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class Zone:
    """Period i begins at the instant ``begins[i]`` and shows that plus ``offset[i]``, all in µs.

    ``first_wall[i]`` is the first wall clock of period i, ``end_wall[i]`` the one after its last. A gap
    lies where ``first_wall[i] > end_wall[i - 1]``, and what is shown twice where it is less.
    """

    name: str
    begins: NDArray[np.int64]
    offset: NDArray[np.int64]
    first_wall: NDArray[np.int64]
    end_wall: NDArray[np.int64]

    def period(self, us: NDArray[np.int64]) -> NDArray[np.intp]:
        found: NDArray[np.intp] = np.searchsorted(self.begins, us, side="right")
        return found - 1

    def wall(self, us: NDArray[np.int64]) -> NDArray[np.int64]:
        """The wall clock shown at each instant."""
        return us + self.offset[self.period(us)]

    def earliest(self, wall: NDArray[np.int64]) -> NDArray[np.int64]:
        """The earliest instant that shows each wall clock, or the end of the gap it lies in."""
        period = np.searchsorted(self.end_wall, wall, side="right")
        instant: NDArray[np.int64] = np.maximum(wall - self.offset[period], self.begins[period])
        return instant

    def latest(self, wall: NDArray[np.int64], us: NDArray[np.int64]) -> NDArray[np.int64]:
        """The latest instant not after ``us`` that shows ``wall``, or the end of the gap it lies in.

        ``wall`` is not after the wall clock of ``us``. Where it is from before the period of ``us`` began,
        it was shown in an earlier one or, being at or after that one's end, never.
        """
        period = self.period(us)
        while True:
            earlier = wall < self.first_wall[period]
            earlier[earlier] = wall[earlier] < self.end_wall[period[earlier] - 1]
            if not earlier.any():
                break
            period = period - earlier
        instant: NDArray[np.int64] = np.maximum(wall - self.offset[period], self.begins[period])
        return instant


@cache
def zone_names() -> frozenset[str]:
    """Every IANA name there is."""
    names = files("tzdata").joinpath("zones").read_text("ascii").split()
    return frozenset(names) - {"Factory"}


def check_timezone(name: str, *, place: Place = ("body", "timezone")) -> str:
    """The name itself, where it is one that IANA gave; a path, ``localtime`` or an abbreviation is none."""
    if name in zone_names():
        return name
    raise InvalidInputError(
        "timezone-unknown",
        f"{excerpt(name)} is not an IANA time zone: use a name like Europe/Berlin or UTC.",
        place=place,
    )


@lru_cache(maxsize=ZONES_MAX)
def load_zone(name: str) -> Zone:
    """The zone of an IANA name (:func:`check_timezone` has seen it)."""
    file = files("tzdata").joinpath("zoneinfo", *check_timezone(name).split("/"))
    with file.open("rb") as stream:
        info = ZoneInfo.from_file(stream, key=name)
    instants = [us for us in _explicit_transitions(file.read_bytes()) if AT_FIRST_US < us < AT_LAST_US]
    instants += _rule_transitions(info, instants[-1] if instants else AT_FIRST_US)
    begins, offsets = [-_FOREVER], [_offset_us(info, min([*instants, 0]) - SECOND_US)]
    for instant in instants:
        offset = _offset_us(info, instant)
        if offset != offsets[-1]:
            begins.append(instant)
            offsets.append(offset)
    return _zone(name, begins, offsets)


def _zone(name: str, begins: list[int], offsets: list[int]) -> Zone:
    starts, offset = np.array(begins, np.int64), np.array(offsets, np.int64)
    end_wall = np.append(starts[1:], _FOREVER) + offset
    # The wall clock of a period's end rises from period to period: none is as short as the step that
    # follows it.
    assert (np.diff(end_wall) > 0).all()
    return Zone(name, starts, offset, starts + offset, end_wall)


def _explicit_transitions(data: bytes) -> list[int]:
    """The 64-bit transition times of a TZif file (RFC 8536, section 3), in µs."""
    isut, isstd, leaps, times, types, chars = struct.unpack(">6l", data[20:44])
    second = 44 + times * 5 + types * 6 + chars + leaps * 8 + isstd + isut
    count = struct.unpack(">l", data[second + 32 : second + 36])[0]
    return [at * SECOND_US for at in struct.unpack(f">{count}q", data[second + 44 : second + 44 + 8 * count])]


def _rule_transitions(info: ZoneInfo, after: int) -> list[int]:
    """What the file's last line (a rule without end) makes of the time after its table."""
    found = []
    start, offset = max(after, 0), _offset_us(info, max(after, 0))
    for end in range(start + _RULE_PROBE_US, AT_LAST_US + _RULE_PROBE_US, _RULE_PROBE_US):
        later = _offset_us(info, end)
        if later != offset:
            found.append(_change(info, end - _RULE_PROBE_US, end, offset))
            offset = later
    return found


def _change(info: ZoneInfo, before: int, after: int, offset: int) -> int:
    """The instant between the two at which the offset stops being ``offset``."""
    before, after = before // SECOND_US, after // SECOND_US
    while after - before > 1:
        middle = (before + after) // 2
        if _offset_us(info, middle * SECOND_US) == offset:
            before = middle
        else:
            after = middle
    return after * SECOND_US


def _offset_us(info: ZoneInfo, us: int) -> int:
    shown: datetime = (EPOCH + timedelta(microseconds=us)).astimezone(info)
    offset = shown.utcoffset()
    assert offset is not None
    return offset // _SECOND * SECOND_US
