"""How series stand, as columns, and what a commit's readings mean for all of them at once.

What this file guarantees: pure, and the same as :func:`meterite.model.limits.walk` says of each series by itself. That
is called for the few whose next state doesn't follow from their readings' sides alone (something held, pending, muted,
late or not finite), and where there are few readings: arrays cost 70 µs however few.

What is left is plain: a reading's side is its state, so that crossings are where it differs from the one before. Events
are the groups of one stable sort by series and direction.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from meterite.model.limits import (
    ABOVE_MAX,
    BELOW_MIN,
    CLEARED,
    TIME_NONE,
    TRANSITION,
    Alarm,
    AlarmState,
    walk,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from meterite.model.columns import Batch, type_f64, type_i64
    from meterite.model.limits import Rule

FEW: Final = 16
"""Readings. A walk costs 10 µs a series and 1 a reading."""

EVERY: Final = 1
HELD: Final = 2
MUTABLE: Final = 4
"""Flags of a rule: raises by every reading; has ``hysteresis`` or ``for``; says until when it is muted."""

ALARM: Final = np.dtype(
    [("state", "u1"), ("pending", "u1"), ("told", "u1"), ("since", "<i8"), ("pending_since", "<i8")],
    align=True,
)
"""The columns of :class:`Alarm`."""
AT_REST: Final = np.array((0, 0, 0, TIME_NONE, TIME_NONE), ALARM)

_KINDS: Final = np.array([CLEARED, ABOVE_MAX, BELOW_MIN], np.uint8)
"""Of an event, by the side of its readings."""
_OK: Final = int(AlarmState.OK)
_BELOW: Final = int(AlarmState.BELOW)
_SIDES: Final = 4


def flags_of(rule: Rule) -> int:
    """What a column needs to know of a rule beside its limits."""
    held = rule.hysteresis != 0 or rule.for_us != 0
    return EVERY * rule.every | HELD * held | MUTABLE * (rule.mute_until_us > 0)


def alarm_of(row: NDArray[np.void]) -> Alarm:
    """Of a row of :data:`ALARM`."""
    state, pending, told, since_us, pending_since_us = row.item()
    return Alarm(state, since_us, pending, pending_since_us, told)


def row_of(alarm: Alarm) -> tuple[int, ...]:
    """As a row of :data:`ALARM`."""
    return (alarm.state, alarm.pending, alarm.told, alarm.since_us, alarm.pending_since_us)


@dataclass(slots=True)
class Standing:
    """A place a series, ascending: its newest reading (:data:`TIME_NONE` for none), its limits, its alarm."""

    series: type_i64
    newest: type_i64
    low: type_f64
    high: type_f64
    flags: NDArray[np.uint8]
    alarm: NDArray[np.void]

    def __len__(self) -> int:
        return len(self.series)

    def take(self, chosen: NDArray[np.intp]) -> Standing:
        return Standing(
            self.series[chosen],
            self.newest[chosen],
            self.low[chosen],
            self.high[chosen],
            self.flags[chosen],
            self.alarm[chosen],
        )


@dataclass(frozen=True, slots=True)
class Readings:
    """Readings by series: those of the n-th are from ``begin[n]`` on, ``length[n]`` of them, as they came."""

    begin: NDArray[np.intp]
    length: NDArray[np.intp]
    at_us: type_i64
    values: type_f64

    @staticmethod
    def of(batch: Batch, rows: NDArray[np.intp]) -> tuple[Readings, NDArray[np.intp]]:
        """Of the batch's ``rows``; and the places in the batch of the series that have some."""
        index = batch.series_index[rows]
        order = index.argsort(kind="stable")
        index, rows = index[order], rows[order]
        begin = _begins(index)
        length = _lengths(begin, len(rows))
        return Readings(begin, length, batch.at_us[rows], batch.values[rows]), index[begin].astype(np.intp)

    def take(self, chosen: NDArray[np.intp]) -> Readings:
        """Those of the chosen series."""
        kept = np.zeros(len(self.begin), bool)
        kept[chosen] = True
        rows = np.repeat(kept, self.length)
        length = self.length[chosen]
        return Readings(np.cumsum(length) - length, length, self.at_us[rows], self.values[rows])


def judge(
    readings: Readings, standing: Standing, rule_of: Callable[[int], Rule], now_us: int, *, few: int = FEW
) -> NDArray[np.void]:
    """Rows of :data:`TRANSITION` in the order of series; ``standing`` is brought up to date.

    ``rule_of`` answers a series id's limits, and is asked for those alone that aren't plain.
    """
    if len(readings.at_us) < few:
        return _walked(readings, standing, range(len(standing)), rule_of, now_us)
    odd = _odd(readings, standing, rule_of, now_us)
    if odd is None:
        return _crossed(readings, standing)
    walked = _walked(readings, standing, np.flatnonzero(odd).tolist(), rule_of, now_us)
    plain = np.flatnonzero(~odd)
    if not len(plain):
        return walked
    some = standing.take(plain)
    crossed = _crossed(readings.take(plain), some)
    standing.newest[plain], standing.alarm[plain] = some.newest, some.alarm
    found = np.concatenate([walked, crossed])
    return found[np.argsort(found["series"], kind="stable")]


def _odd(
    readings: Readings, standing: Standing, rule_of: Callable[[int], Rule], now_us: int
) -> NDArray[np.bool_] | None:
    """By series: whether it isn't plain; None where all are."""
    alarm = standing.alarm
    odd: NDArray[np.bool_] = (
        alarm["pending"] | (alarm["told"] ^ alarm["state"]) | standing.flags & HELD
    ) != 0
    for place in np.flatnonzero(standing.flags & MUTABLE).tolist():
        odd[place] |= now_us < rule_of(int(standing.series[place])).mute_until_us
    before = np.empty_like(readings.at_us)
    before[1:] = readings.at_us[:-1]
    before[readings.begin] = standing.newest
    strange = (readings.at_us < before) | ~np.isfinite(readings.values)
    if strange.any():
        odd |= np.logical_or.reduceat(strange, readings.begin)
    return odd if odd.any() else None


def _walked(
    readings: Readings,
    standing: Standing,
    places: range | list[int],
    rule_of: Callable[[int], Rule],
    now_us: int,
) -> NDArray[np.void]:
    """One series after the other."""
    found: list[tuple[int | float, ...]] = []
    for place in places:
        series, begin = int(standing.series[place]), int(readings.begin[place])
        rows = slice(begin, begin + int(readings.length[place]))
        alarm = alarm_of(standing.alarm[place])
        own = zip(readings.at_us[rows].tolist(), readings.values[rows].tolist(), strict=True)
        made, newest_us = walk(series, rule_of(series), alarm, int(standing.newest[place]), own, now_us)
        found += made
        standing.newest[place], standing.alarm[place] = newest_us, row_of(alarm)
    return np.array(found, TRANSITION)


def _crossed(readings: Readings, standing: Standing) -> NDArray[np.void]:
    """Of plain series."""
    place = np.arange(len(standing)).repeat(readings.length)
    values, ends = readings.values, readings.begin + readings.length - 1
    side = (values > standing.high[place]).view(np.uint8)
    side |= (values < standing.low[place]).view(np.uint8) << 1
    before = np.empty_like(side)
    before[1:] = side[:-1]
    before[readings.begin] = standing.alarm["state"]
    changed = side != before
    standing.newest[:] = readings.at_us[ends]
    crossings = changed.nonzero()[0]
    if not len(crossings) and not ((standing.flags & EVERY).any() and side.any()):
        return np.empty(0, TRANSITION)
    _move(standing.alarm, side[ends], place[crossings], readings.at_us[crossings])
    events = _events(place, side, changed, standing.flags & EVERY != 0, values)
    return _rows(events, readings, standing, place)


def _move(
    alarm: NDArray[np.void], state: NDArray[np.uint8], place: NDArray[np.intp], at_us: type_i64
) -> None:
    """To ``state``, by crossings at ``place``, of which the last one counts."""
    since = alarm["since"]
    since[place] = at_us
    since[state == _OK] = TIME_NONE
    alarm["state"] = alarm["told"] = state


@dataclass(frozen=True, slots=True)
class _Events:
    """By what raised them last, which is by series, too: side, count of readings, and which rows to tell of."""

    raised: NDArray[np.intp]
    side: NDArray[np.uint8]
    count: NDArray[np.intp]
    first: NDArray[np.intp]
    last: NDArray[np.intp]
    extreme: NDArray[np.intp]


def _events(
    place: NDArray[np.intp],
    side: NDArray[np.uint8],
    changed: NDArray[np.bool_],
    every: NDArray[np.bool_],
    values: type_f64,
) -> _Events:
    """A group a series and side, of readings outside and of clearings; those that nothing raised are left out.

    There is one at least.
    """
    rows = (side.astype(bool) | changed).nonzero()[0]
    key = place[rows] * _SIDES + side[rows]
    order = key.argsort(kind="stable")
    rows, key = rows[order], key[order]
    begin = _begins(key)
    count = _lengths(begin, len(rows))
    first, last = rows[begin], rows[begin + count - 1]
    raised = np.maximum.reduceat(np.where(changed[rows], rows, -1), begin)
    if every.any():
        raised = np.where(every[place[first]], last, raised)
    extreme = _extremes(values[rows], side[rows], begin, count, rows)
    cleared = side[last] == _OK  # of several the last one is told
    first, extreme, count = (np.where(cleared, *two) for two in ((last, first), (last, extreme), (1, count)))
    told = (raised >= 0).nonzero()[0]
    told = told[raised[told].argsort()]
    return _Events(raised[told], side[last[told]], count[told], first[told], last[told], extreme[told])


def _extremes(
    values: type_f64,
    side: NDArray[np.uint8],
    begin: NDArray[np.intp],
    count: NDArray[np.intp],
    rows: NDArray[np.intp],
) -> NDArray[np.intp]:
    """The first of the farthest outside, by group."""
    if len(begin) == len(rows):
        return rows
    weight = np.where(side == _BELOW, -values, values)
    farthest = (weight == np.maximum.reduceat(weight, begin).repeat(count)).nonzero()[0]
    found: NDArray[np.intp] = rows[farthest[farthest.searchsorted(begin)]]
    return found


def _rows(
    events: _Events, readings: Readings, standing: Standing, place: NDArray[np.intp]
) -> NDArray[np.void]:
    found: NDArray[Any] = np.zeros(len(events.raised), TRANSITION)
    of = place[events.raised]
    found["series"], found["kind"] = standing.series[of], _KINDS[events.side]
    alarm = standing.alarm[of]
    found["state"] = found["told"] = alarm["state"]
    found["since"], found["pending_since"] = alarm["since"], TIME_NONE
    found["low"], found["high"] = standing.low[of], standing.high[of]
    found["count"] = events.count
    at_us, values = readings.at_us, readings.values
    found["first_at"], found["first"] = at_us[events.first], values[events.first]
    found["last_at"], found["last"] = at_us[events.last], values[events.last]
    found["extreme_at"], found["extreme"] = at_us[events.extreme], values[events.extreme]
    return found


def _begins(ascending: NDArray[Any]) -> NDArray[np.intp]:
    """Where each distinct value stands first; there is one at least."""
    differs = np.empty(len(ascending), bool)
    differs[0] = True
    np.not_equal(ascending[1:], ascending[:-1], out=differs[1:])
    return differs.nonzero()[0]


def _lengths(begin: NDArray[np.intp], end: int) -> NDArray[np.intp]:
    lengths = np.empty_like(begin)
    lengths[-1] = end
    lengths[:-1] = begin[1:]
    lengths -= begin
    return lengths
