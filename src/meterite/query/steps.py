"""The steps of a summary: where each begins and ends.

What this file guarantees: edges ascend strictly, the first is not after ``start`` and the last not before
``end``, and there are never more steps than the limit. Fixed steps are counted from 1970-01-01T00:00Z
(whole weeks from a Monday) whatever the zone. A calendar step begins at the earliest instant of its first
date on the zone's wall clock, so that a day is 23 or 25 hours long where the clocks change; a date that a
zone skipped has no step.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from meterite.model.errors import InvalidInputError
from meterite.model.time import DAY_US, UNITS_US, WEEK_US, Place, excerpt
from meterite.model.truncate import MONDAY_US, from_months, to_months
from meterite.model.zone import Zone, check_timezone, load_zone

if TYPE_CHECKING:
    from numpy.typing import NDArray

STEP_MAX_US: Final = 366_000 * DAY_US
"""About 1,000 years: longer than all the time there is, so that a step always fits an int64."""

_EVERY: Final = ("query", "every")
_FIXED: Final = re.compile(r"([0-9]{1,18})(us|ms|s|m|h|d|w)")
_CALENDAR: Final = {"day": (1, 0), "week": (7, 0), "month": (0, 1), "quarter": (0, 3), "year": (0, 12)}


@dataclass(frozen=True, slots=True)
class Steps:
    """Fixed steps of ``width_us``, or else calendar steps of so many days or months on the zone's wall
    clock.
    """

    name: str
    tz: str
    width_us: int = 0
    days: int = 0
    months: int = 0

    def edges(self, start_us: int, end_us: int, limit: int) -> NDArray[np.int64]:
        """The n + 1 edges of the n steps that hold ``start_us`` up to, not including, ``end_us``."""
        if end_us <= start_us:
            return np.array([start_us], np.int64)
        if self.width_us:
            return self._fixed(start_us, end_us, limit)
        zone = load_zone(self.tz)
        first, last = zone.wall(np.array([start_us, end_us], np.int64)).tolist()
        if self.months:
            # One more on either side: where clocks were set back, the wall is behind what it has shown
            # already.
            begin, end = to_months(np.array([first, last], np.int64)).tolist()
            begin, end = begin // self.months - 1, end // self.months + 2
            self._check(end - begin - 3, limit)
            wall = from_months(np.arange(begin, end + 1) * self.months)
        else:
            width, origin = self.days * DAY_US, MONDAY_US if self.days == 7 else 0
            begin, end = (first - origin) // width - 1, (last - origin) // width + 2
            self._check(end - begin - 3, limit)
            wall = np.arange(begin, end + 1) * width + origin
        return self._around(zone, wall, start_us, end_us, limit)

    def _fixed(self, start_us: int, end_us: int, limit: int) -> NDArray[np.int64]:
        origin = MONDAY_US if self.width_us % WEEK_US == 0 else 0
        begin, end = (start_us - origin) // self.width_us, -((origin - end_us) // self.width_us)
        self._check(end - begin, limit)
        return np.arange(begin, end + 1, dtype=np.int64) * self.width_us + origin

    def _around(
        self, zone: Zone, wall: NDArray[np.int64], start_us: int, end_us: int, limit: int
    ) -> NDArray[np.int64]:
        edges = np.unique(zone.earliest(wall))
        begin = int(np.searchsorted(edges, start_us, side="right")) - 1
        end = int(np.searchsorted(edges, end_us, side="left"))
        self._check(end - begin, limit)
        return edges[begin : end + 1]

    def _check(self, count: int, limit: int) -> None:
        if count > limit:
            raise InvalidInputError(
                "summary-too-large",
                f"every={self.name} makes {count} steps of this range, and {limit} are allowed: "
                "ask for longer steps (every=1h, every=day), or for less time (start, end).",
                place=_EVERY,
            )


def parse_steps(text: str, tz: str | None = None, *, place: Place = _EVERY) -> Steps:
    """Steps of a text like ``15m`` or ``month``; without a zone the calendar is UTC's, as fixed steps always are."""
    zone = check_timezone(tz or "UTC", place=("query", "tz"))
    if text in _CALENDAR:
        days, months = _CALENDAR[text]
        return Steps(text, zone, days=days, months=months)
    match = _FIXED.fullmatch(text)
    width = int(match.group(1)) * UNITS_US[match.group(2)] if match else 0
    if not 0 < width <= STEP_MAX_US:
        raise InvalidInputError(
            "step-invalid",
            f"{excerpt(text)} is not a step: use a number above 0 with us, ms, s, m, h, d or w "
            "(15m), or day, week, month, quarter or year.",
            place=place,
        )
    return Steps(text, "UTC", width_us=width)
