"""Limits: which readings of a commit lie outside, and what that means for their series' alarm.

What this file guarantees: pure, and the same outcome for the same readings in the same order whatever commits they
came in, but for what one commit sums up (below). One reading after the other, of one series:

- not finite: as if it weren't there;
- **late** (older than the series' newest before it): outside raises its event with ``late``; the state stays;
- above ``high`` or below ``low``: the series is in that state, at once or once it was so for ``for_us`` of reading
  time without a break (**pending** until then);
- inside, but nearer to the limit that it crossed than ``hysteresis``: the state stays, what was pending is not;
- inside: the state is ok; where it was not, it is **cleared**.

A commit raises one event a series and direction, with first, last, extreme and count of its readings outside:
under ``change`` where the state was entered, under ``every`` whenever there were any; and one ``cleared``. They stand
in the order of their last crossing, so that the last one says what holds.

While muted nothing is raised, and the state goes on; **told** is the state that was raised last. A reading that isn't
late and comes when nothing is muted leaves both the same: where they differ, it raises the event of the state, as if
the series had crossed by it. So a crossing and its clearing within one mute are never told, and nothing else is missed.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import IntEnum
from math import isfinite
from typing import TYPE_CHECKING, Final

import numpy as np

from meterite.model.event import TYPE_BITS, EventType

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

ABOVE_MAX: Final = TYPE_BITS[EventType.ABOVE_MAX]
BELOW_MIN: Final = TYPE_BITS[EventType.BELOW_MIN]
CLEARED: Final = TYPE_BITS[EventType.CLEARED]

LATE: Final = 1
"""Flag: the readings are older than the series' newest."""
QUIET: Final = 2
"""Flag: no event, the row only carries the state on (muted, or pending)."""
TIME_NONE: Final = int(np.iinfo(np.int64).min)

TRANSITION: Final = np.dtype(
    [
        ("series", "<i8"),
        ("kind", "u1"),
        ("flags", "u1"),
        ("state", "u1"),
        ("pending", "u1"),
        ("told", "u1"),
        ("count", "<u4"),
        ("since", "<i8"),
        ("pending_since", "<i8"),
        ("low", "<f8"),
        ("high", "<f8"),
        ("first_at", "<i8"),
        ("first", "<f8"),
        ("last_at", "<i8"),
        ("last", "<f8"),
        ("extreme_at", "<i8"),
        ("extreme", "<f8"),
    ]
)
"""What a commit says of a series. ``kind`` is the bit of the event's type, or 0 where only the state moved; ``state``,
``since``, ``pending``, ``pending_since`` and ``told`` are the alarm as the commit leaves it (the same in all rows of
the series); times are µs, :data:`TIME_NONE` for none."""


def kinds_of(transitions: NDArray[np.void]) -> NDArray[np.uint8]:
    """The bit of each transition's type, 0 where it is quiet."""
    return np.where(transitions["flags"] & QUIET, 0, transitions["kind"]).astype(np.uint8)


class AlarmState(IntEnum):
    """Where a series stands."""

    OK = 0
    ABOVE = 1
    BELOW = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A metric's limits, and what is to be told of them."""

    low: float
    high: float
    hysteresis: float = 0.0
    for_us: int = 0
    every: bool = False
    mute_until_us: int = 0


@dataclass(slots=True)
class Alarm:
    """A series' alarm: its state, since which reading (none where it is ok), what it may become, and what was told."""

    state: int = AlarmState.OK
    since_us: int = TIME_NONE
    pending: int = AlarmState.OK
    pending_since_us: int = TIME_NONE
    told: int = AlarmState.OK

    @property
    def at_rest(self) -> bool:
        return not (self.state or self.pending or self.told)


@dataclass(slots=True)
class _Outside:
    """What one event sums up."""

    kind: int
    flags: int
    count: int = 0
    first: tuple[int, float] = (0, 0.0)
    last: tuple[int, float] = (0, 0.0)
    extreme: tuple[int, float] = (0, 0.0)
    raised: int = -1
    """When it was last raised, as a number that grows with the readings; -1 for never."""

    def add(self, at_us: int, value: float) -> None:
        if not self.count:
            self.first = self.extreme = (at_us, value)
        elif value > self.extreme[1] if self.kind == ABOVE_MAX else value < self.extreme[1]:
            self.extreme = (at_us, value)
        self.last = (at_us, value)
        self.count += 1


@dataclass(slots=True)
class _Walk:
    """One series' way through its readings of a commit."""

    rule: Rule
    alarm: Alarm
    newest_us: int
    muted: bool
    step: int = 0
    above: _Outside = field(default_factory=lambda: _Outside(ABOVE_MAX, 0))
    below: _Outside = field(default_factory=lambda: _Outside(BELOW_MIN, 0))
    late_above: _Outside = field(default_factory=lambda: _Outside(ABOVE_MAX, LATE))
    late_below: _Outside = field(default_factory=lambda: _Outside(BELOW_MIN, LATE))
    cleared: _Outside = field(default_factory=lambda: _Outside(CLEARED, 0))

    def reading(self, at_us: int, value: float) -> None:
        rule = self.rule
        self.step += 1
        outside = (
            AlarmState.ABOVE if value > rule.high else AlarmState.BELOW if value < rule.low else AlarmState.OK
        )
        if at_us < self.newest_us:
            if outside:
                late = self.late_above if outside == AlarmState.ABOVE else self.late_below
                late.add(at_us, value)
                late.raised = self.step
            return
        self.newest_us = at_us
        if outside:
            self._outside(outside, at_us, value)
        else:
            self._inside(value)
        if self.alarm.state != self.alarm.told and not self.muted:
            self._tell(outside, at_us, value)

    def _outside(self, outside: AlarmState, at_us: int, value: float) -> None:
        alarm = self.alarm
        if outside != alarm.state:
            if alarm.pending != outside:
                alarm.pending, alarm.pending_since_us = outside, at_us
            if at_us - alarm.pending_since_us >= self.rule.for_us:
                alarm.state, alarm.since_us = outside, alarm.pending_since_us
        if outside == alarm.state:
            alarm.pending, alarm.pending_since_us = AlarmState.OK, TIME_NONE
            sums = self.above if outside == AlarmState.ABOVE else self.below
            sums.add(at_us, value)
            if self.rule.every:
                sums.raised = self.step

    def _inside(self, value: float) -> None:
        alarm, rule = self.alarm, self.rule
        alarm.pending, alarm.pending_since_us = AlarmState.OK, TIME_NONE
        if alarm.state == AlarmState.ABOVE and value > rule.high - rule.hysteresis:
            return
        if alarm.state == AlarmState.BELOW and value < rule.low + rule.hysteresis:
            return
        alarm.state, alarm.since_us = AlarmState.OK, TIME_NONE

    def _tell(self, outside: AlarmState, at_us: int, value: float) -> None:
        """By the reading at hand, which after a mute may lie elsewhere than a state that is held."""
        alarm = self.alarm
        alarm.told = alarm.state
        if alarm.state == AlarmState.OK:
            self.cleared = sums = _Outside(CLEARED, 0)
        else:
            sums = self.above if alarm.state == AlarmState.ABOVE else self.below
        if alarm.state == AlarmState.OK or alarm.state != outside:
            sums.add(at_us, value)
        sums.raised = self.step

    def rows(self, series: int, *, moved: bool) -> list[tuple[int | float, ...]]:
        """A row an event, in the order of their last crossing; one quiet row where only the state moved."""
        raised = [
            sums
            for sums in (self.late_above, self.late_below, self.above, self.below, self.cleared)
            if sums.raised >= 0
        ]
        raised.sort(key=lambda sums: sums.raised)
        if self.muted or not raised:
            return [self._row(series, _Outside(0, QUIET))] if moved else []
        return [self._row(series, sums) for sums in raised]

    def _row(self, series: int, sums: _Outside) -> tuple[int | float, ...]:
        alarm, rule = self.alarm, self.rule
        return (
            *(series, sums.kind, sums.flags, alarm.state, alarm.pending, alarm.told, sums.count),
            *(alarm.since_us, alarm.pending_since_us, rule.low, rule.high),
            *(*sums.first, *sums.last, *sums.extreme),
        )


def walk(
    series: int, rule: Rule, alarm: Alarm, newest_us: int, readings: Iterable[tuple[int, float]], now_us: int
) -> tuple[list[tuple[int | float, ...]], int]:
    """Rows of :data:`TRANSITION`, and the newest reading's µs; one reading after the other. ``alarm`` moves on."""
    before = replace(alarm)
    way = _Walk(rule, alarm, newest_us, muted=now_us < rule.mute_until_us)
    for at_us, value in readings:
        if isfinite(value):
            way.reading(at_us, value)
    return way.rows(series, moved=alarm != before), way.newest_us
