"""Cutting a reading's time down to a second, five minutes, a week, a quarter …, on the wall clock of a time
zone.

What this file guarantees: under a day, the outcome is the latest instant not after the reading that shows
the cut wall clock; from a day on, the earliest instant of the date on which the period begins. Where that
wall clock was skipped, it is the first instant after the gap. Cutting twice is cutting once, and nothing
here overflows or raises for a time that was let in.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from meterite.model.errors import InvalidInputError
from meterite.model.time import DAY_US, HOUR_US, MINUTE_US, SECOND_US, WEEK_US, Place, excerpt
from meterite.model.zone import Zone, load_zone

if TYPE_CHECKING:
    from numpy.typing import NDArray

MONDAY_US: Final = -3 * DAY_US
"""1969-12-29, a Monday: weeks are counted from it."""

_UNDER_A_DAY: Final = {"second": (SECOND_US, 60), "minute": (MINUTE_US, 60), "hour": (HOUR_US, 24)}
_MONTHS: Final = {"month": 1, "quarter": 3, "half_year": 6, "year": 12}
_MANY: Final = re.compile(r"([1-9][0-9]?)_(second|minute|hour)")
_UTC_NAMES: Final = (None, "UTC", "Etc/UTC")


@dataclass(frozen=True, slots=True)
class Period:
    """What a wall clock is cut to: multiples of ``us`` counted from ``origin``, or else of ``months``."""

    name: str
    us: int = 0
    origin: int = 0
    months: int = 0

    @property
    def of_days(self) -> bool:
        """Whether it begins with a date, not within one."""
        return bool(self.months) or self.us % DAY_US == 0

    def cut(self, wall: NDArray[np.int64]) -> NDArray[np.int64]:
        """The wall clock at which the period of each wall clock begins."""
        if not self.months:
            return wall - (wall - self.origin) % self.us
        return from_months(to_months(wall) // self.months * self.months)


def to_months(wall: NDArray[np.int64]) -> NDArray[np.int64]:
    """Months since January 1970, floored."""
    return (wall // DAY_US).astype("M8[D]").astype("M8[M]").astype(np.int64)


def from_months(months: NDArray[np.int64]) -> NDArray[np.int64]:
    """Midnight of the month's first day, in µs."""
    return months.astype("M8[M]").astype("M8[D]").astype(np.int64) * DAY_US


def parse_truncation(name: str, *, place: Place = ("body", "truncate_reading_to")) -> Period:
    """The period of a name as in the ``datetime_truncate`` package."""
    many = _MANY.fullmatch(name)
    count, unit = (int(many.group(1)), many.group(2)) if many else (1, name)
    if unit in _UNDER_A_DAY and _UNDER_A_DAY[unit][1] % count == 0:
        return Period(name, us=count * _UNDER_A_DAY[unit][0])
    if name == "day":
        return Period(name, us=DAY_US)
    if name == "week":
        return Period(name, us=WEEK_US, origin=MONDAY_US)
    if name in _MONTHS:
        return Period(name, months=_MONTHS[name])
    raise InvalidInputError(
        "truncation-unknown",
        f"{excerpt(name)} is not a truncation: use second, minute, hour, day, week, month, quarter, "
        "half_year, year, N_second, N_minute (N dividing 60), N_hour (N dividing 24).",
        place=place,
    )


@dataclass(frozen=True, slots=True)
class Truncation:
    """A period on the wall clock of a zone; no zone is UTC."""

    period: Period
    zone: Zone | None = None

    @staticmethod
    def of(name: str, timezone: str | None = None) -> Truncation:
        zone = None if timezone in _UTC_NAMES else load_zone(str(timezone))
        return Truncation(parse_truncation(name), zone)

    def one(self, us: int) -> int:
        """The time to which a reading's time is cut."""
        period = self.period
        if self.zone is None and period.us:
            return us - (us - period.origin) % period.us
        return int(self.many(np.array([us], np.int64))[0])

    def many(self, us: NDArray[np.int64]) -> NDArray[np.int64]:
        """:meth:`one` of each."""
        if self.zone is None:
            return self.period.cut(us)
        wall = self.period.cut(self.zone.wall(us))
        return self.zone.earliest(wall) if self.period.of_days else self.zone.latest(wall, us)
