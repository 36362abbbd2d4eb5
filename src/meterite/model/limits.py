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

from dataclasses import dataclass, field
from enum import IntEnum
from itertools import compress
from math import isfinite
from typing import TYPE_CHECKING, Final

import numpy as np

from meterite.model.event import TYPE_BITS, EventType

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from numpy.typing import NDArray

    from meterite.model.columns import Batch, type_f64, type_i64, type_u32

ABOVE_MAX: Final = TYPE_BITS[EventType.ABOVE_MAX]
BELOW_MIN: Final = TYPE_BITS[EventType.BELOW_MIN]
CLEARED: Final = TYPE_BITS[EventType.CLEARED]

LATE: Final = 1
"""Flag: the readings are older than the series' newest."""
QUIET: Final = 2
"""Flag: no event, the row only carries the state on (muted, or pending)."""
TIME_NONE: Final = int(np.iinfo(np.int64).min)
MANY: Final = 128
"""Arrays cost 100 µs however few the readings; a walk costs a µs a reading."""

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


def interesting(
    series_index: type_u32, outside: NDArray[np.bool_], alarmed: NDArray[np.bool_]
) -> NDArray[np.intp]:
    """The rows whose series has a reading outside, or an alarm that isn't at rest: few, most of the time.

    ``outside`` is by row, ``alarmed`` by series.
    """
    if not outside.any() and not alarmed.any():
        return np.zeros(0, np.intp)
    wanted = alarmed.copy()
    wanted[series_index[outside]] = True
    return np.flatnonzero(wanted[series_index])


def judge(
    batch: Batch,
    rows: NDArray[np.intp],
    rule_of: Callable[[int], Rule],
    alarms: dict[int, Alarm],
    newest: dict[int, int],
    now_us: int,
    *,
    many: int = MANY,
) -> NDArray[np.void]:
    """Rows of :data:`TRANSITION` for the batch's ``rows``, in the order of series.

    ``rule_of`` answers a series id's limits. ``alarms`` and ``newest`` (µs) are by series id, those missing are at rest
    and without readings; both are brought up to date for the series at hand, and alarms that come to rest taken out.
    ``many`` rows and more are judged as columns where that can be, which comes to the same.
    """
    if not len(rows):
        return np.empty(0, TRANSITION)
    readings = _Readings.of(batch, rows)
    rules = [rule_of(series) for series in readings.series]
    if len(rows) < many:
        return _walked(readings, range(len(rules)), rules, alarms, newest, now_us)
    plain = _plain(readings, rules, alarms, newest, now_us)
    if plain.all():
        return _crossed(readings, rules, alarms, newest)
    walked = _walked(readings, np.flatnonzero(~plain).tolist(), rules, alarms, newest, now_us)
    if not plain.any():
        return walked
    crossed = _crossed(readings.take(plain), list(compress(rules, plain)), alarms, newest)
    found = np.concatenate([walked, crossed])
    return found[np.argsort(found["series"], kind="stable")]


@dataclass(frozen=True, slots=True)
class _Readings:
    """Readings by series: those of ``series[n]`` are from ``begin[n]`` on, ``length[n]`` of them, as they came."""

    series: list[int]
    begin: NDArray[np.intp]
    length: NDArray[np.intp]
    at_us: type_i64
    values: type_f64

    @staticmethod
    def of(batch: Batch, rows: NDArray[np.intp]) -> _Readings:
        index = batch.series_index[rows]
        order = np.argsort(index, kind="stable")
        index, rows = index[order], rows[order]
        begin = np.flatnonzero(np.append(True, index[1:] != index[:-1]))
        length = np.diff(begin, append=len(rows))
        return _Readings(
            batch.series[index[begin]].tolist(), begin, length, batch.at_us[rows], batch.values[rows]
        )

    def take(self, chosen: NDArray[np.bool_]) -> _Readings:
        """Those of the chosen series."""
        if chosen.all():
            return self
        rows = np.repeat(chosen, self.length)
        length = self.length[chosen]
        begin = np.cumsum(length) - length
        series = list(compress(self.series, chosen))
        return _Readings(series, begin, length, self.at_us[rows], self.values[rows])


def _plain(
    readings: _Readings, rules: list[Rule], alarms: dict[int, Alarm], newest: dict[int, int], now_us: int
) -> NDArray[np.bool_]:
    """By series: whether a reading's side is its state, since nothing holds it, all was told, and none is late."""
    simple = np.array(
        [
            rule.hysteresis == 0
            and rule.for_us == 0
            and now_us >= rule.mute_until_us
            and ((alarm := alarms.get(series)) is None or (not alarm.pending and alarm.told == alarm.state))
            for series, rule in zip(readings.series, rules, strict=True)
        ],
        bool,
    )
    before = np.empty_like(readings.at_us)
    before[1:] = readings.at_us[:-1]
    before[readings.begin] = [newest.get(series, TIME_NONE) for series in readings.series]
    odd = (readings.at_us < before) | ~np.isfinite(readings.values)
    return simple & ~np.logical_or.reduceat(odd, readings.begin)


def _walked(
    readings: _Readings,
    places: Iterable[int],
    rules: list[Rule],
    alarms: dict[int, Alarm],
    newest: dict[int, int],
    now_us: int,
) -> NDArray[np.void]:
    """One reading after the other."""
    found: list[tuple[int | float, ...]] = []
    for place in places:
        series, rule = readings.series[place], rules[place]
        before = alarms.get(series) or Alarm()
        alarm = Alarm(before.state, before.since_us, before.pending, before.pending_since_us, before.told)
        walk = _Walk(rule, alarm, newest.get(series, TIME_NONE), muted=now_us < rule.mute_until_us)
        rows = slice(readings.begin[place], readings.begin[place] + readings.length[place])
        for at_us, value in zip(readings.at_us[rows].tolist(), readings.values[rows].tolist(), strict=True):
            if isfinite(value):
                walk.reading(at_us, value)
        found += walk.rows(series, moved=alarm != before)
        newest[series] = walk.newest_us
        _keep(alarms, series, alarm)
    return np.array(found, TRANSITION)


def _keep(alarms: dict[int, Alarm], series: int, alarm: Alarm) -> None:
    if alarm.at_rest:
        alarms.pop(series, None)
    else:
        alarms[series] = alarm


@dataclass(frozen=True, slots=True)
class _Sums:
    """Events by kind and the series' place: which row raised it last, of how many rows, and which to tell of."""

    kind: NDArray[np.uint8]
    place: NDArray[np.intp]
    raised: NDArray[np.intp]
    count: NDArray[np.intp]
    first: NDArray[np.intp]
    last: NDArray[np.intp]
    extreme: NDArray[np.intp]

    @staticmethod
    def concat(*parts: _Sums) -> _Sums:
        """By series, and within one in the order of what raised them last."""
        columns = [np.concatenate([getattr(part, name) for part in parts]) for name in _Sums.__slots__]
        order = np.lexsort((columns[2], columns[1]))
        return _Sums(*(column[order] for column in columns))


def _crossed(
    readings: _Readings, rules: list[Rule], alarms: dict[int, Alarm], newest: dict[int, int]
) -> NDArray[np.void]:
    """The same as :func:`_walked` for plain series, all at once."""
    low, high = (np.array([getattr(rule, name) for rule in rules]) for name in ("low", "high"))
    every = np.array([rule.every for rule in rules], bool)
    place = np.repeat(np.arange(len(rules)), readings.length)
    side = np.where(
        readings.values > high[place],
        np.uint8(AlarmState.ABOVE),
        np.where(readings.values < low[place], np.uint8(AlarmState.BELOW), np.uint8(AlarmState.OK)),
    )
    before = np.empty_like(side)
    before[1:] = side[:-1]
    before[readings.begin] = [
        alarms[series].state if series in alarms else AlarmState.OK for series in readings.series
    ]
    changed = side != before
    ends = readings.begin + readings.length - 1
    newest.update(zip(readings.series, readings.at_us[ends].tolist(), strict=True))
    state = side[ends]
    since = np.where(state == AlarmState.OK, TIME_NONE, _since(readings, place, changed, alarms))
    for n in np.flatnonzero(np.logical_or.reduceat(changed, readings.begin)).tolist():
        _keep(alarms, readings.series[n], Alarm(int(state[n]), int(since[n]), told=int(state[n])))
    sums = _Sums.concat(
        _outside(ABOVE_MAX, side == AlarmState.ABOVE, changed, readings.values, place, every),
        _outside(BELOW_MIN, side == AlarmState.BELOW, changed, -readings.values, place, every),
        _cleared(changed & (side == AlarmState.OK), place, len(rules)),
    )
    found = _rows_of(sums, readings)
    found["state"], found["since"] = state[sums.place], since[sums.place]
    found["told"] = found["state"]
    found["low"], found["high"] = low[sums.place], high[sums.place]
    return found


def _since(
    readings: _Readings, place: NDArray[np.intp], changed: NDArray[np.bool_], alarms: dict[int, Alarm]
) -> type_i64:
    since = np.array(
        [alarms[series].since_us if series in alarms else TIME_NONE for series in readings.series], np.int64
    )
    since[place[changed]] = readings.at_us[changed]  # of several the last one stays
    return since


def _outside(
    kind: int,
    here: NDArray[np.bool_],
    entered: NDArray[np.bool_],
    weight: type_f64,
    place: NDArray[np.intp],
    every: NDArray[np.bool_],
) -> _Sums:
    """Of the rows ``here``; the extreme is the first of the greatest ``weight``."""
    count = np.bincount(place[here], minlength=len(every))
    first, last, extreme, raised = (np.full(len(every), -1, np.intp) for _ in range(4))
    rows = np.flatnonzero(here)
    last[place[rows]] = rows
    first[place[rows[::-1]]] = rows[::-1]
    greatest = np.full(len(every), -np.inf)
    np.maximum.at(greatest, place[rows], weight[rows])
    best = rows[weight[rows] == greatest[place[rows]]][::-1]
    extreme[place[best]] = best
    crossing = np.flatnonzero(here & entered)
    raised[place[crossing]] = crossing
    raised = np.where(every, last, raised)
    told = np.flatnonzero(raised >= 0)
    kinds = np.full(len(told), kind, np.uint8)
    return _Sums(kinds, told, raised[told], count[told], first[told], last[told], extreme[told])


def _cleared(cleared: NDArray[np.bool_], place: NDArray[np.intp], count: int) -> _Sums:
    """Of several the last."""
    raised = np.full(count, -1, np.intp)
    rows = np.flatnonzero(cleared)
    raised[place[rows]] = rows
    told = np.flatnonzero(raised >= 0)
    rows = raised[told]
    kinds = np.full(len(told), CLEARED, np.uint8)
    return _Sums(kinds, told, rows, np.ones(len(told), np.intp), rows, rows, rows)


def _rows_of(sums: _Sums, readings: _Readings) -> NDArray[np.void]:
    """All but the alarm and the limits."""
    found = np.zeros(len(sums.place), TRANSITION)
    found["series"] = np.array(readings.series, np.int64)[sums.place]
    found["kind"] = sums.kind
    found["pending_since"] = TIME_NONE
    found["count"] = sums.count
    for name in ("first", "last", "extreme"):
        rows = getattr(sums, name)
        found[f"{name}_at"], found[name] = readings.at_us[rows], readings.values[rows]
    return found
