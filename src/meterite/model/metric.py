"""The master record of what is measured, and what may be said about it."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from meterite.model.columns import Described

DEFAULT_MIN_READING: Final = -9999999.0
DEFAULT_MAX_READING: Final = 9999999.0
METRIC_ID_LAST: Final = 2**31 - 1
SERIES_ORDINAL_BITS: Final = 32


class ConflictPolicy(StrEnum):
    """What becomes of two readings of one series at one time."""

    LAST = "last"
    FIRST = "first"
    MIN = "min"
    MAX = "max"
    SUM = "sum"


class Notify(StrEnum):
    """Of which readings outside the limits there is an event."""

    CHANGE = "change"
    """Of those that cross a limit, and of coming back."""
    EVERY = "every"


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricSpec:
    """What a user says of a metric. Validated at the edge: see ``model/check.py``."""

    code: str
    name: str
    min_reading: float = DEFAULT_MIN_READING
    max_reading: float = DEFAULT_MAX_READING
    truncate_reading_to: str | None = None
    unit: str | None = None
    description: str | None = None
    timezone: str | None = None
    on_conflict: ConflictPolicy = ConflictPolicy.LAST
    notify: Notify = Notify.CHANGE
    hysteresis: float = 0.0
    """How far inside the limit that was crossed a reading must lie to clear it."""
    outside_for: str | None = None
    """A duration: readings must have been outside for so long before there is an event."""
    expected_every: str | None = None
    """A duration: without a reading for so long the metric is silent."""
    mute_until_us: int | None = None
    """Until then there are no events of readings and of silence."""


def made_by_readings(code: str, described: Described | None) -> MetricSpec:
    """A metric that nobody registered: named by its code, and without limits, since nobody said any."""
    unit, description = ("", "") if described is None else (described.unit, described.description)
    return MetricSpec(
        code=code,
        name=code,
        min_reading=-sys.float_info.max,
        max_reading=sys.float_info.max,
        unit=unit or None,
        description=description or None,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """A metric as the catalogue holds it. ``id`` is 1 … 2³¹−1 and never used again."""

    id: int
    org: str
    spec: MetricSpec
    active: bool = True

    @property
    def code(self) -> str:
        return self.spec.code

    @property
    def series_first(self) -> int:
        """The id of the series without labels, and the first of all the metric's series."""
        return self.id << SERIES_ORDINAL_BITS

    @property
    def series_last(self) -> int:
        return (self.id + 1 << SERIES_ORDINAL_BITS) - 1

    def with_active(self, active: bool) -> Metric:
        return replace(self, active=active)


@dataclass(frozen=True, slots=True)
class Point:
    """One reading of a metric's state: µs since 1970 UTC, value."""

    at_us: int
    value: float


@dataclass(frozen=True, slots=True)
class MetricState:
    """The newest reading of a metric over all its series by (reading_at, series id), and the one before it."""

    current: Point | None = None
    last: Point | None = None
