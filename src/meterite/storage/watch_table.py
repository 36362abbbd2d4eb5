"""The columns in which a worker watches an org's series, a slot each.

What this file guarantees: nothing but memory; who has a slot keeps it. What is found out about the series of a batch
(their slots, and limits that hold for all of them) is remembered for the next batch of the same ones, until a limit
changes.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np

from meterite.model.standing import ALARM, AT_REST, Standing, flags_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from meterite.model.columns import Batch, type_i64
    from meterite.model.limits import Rule

_MET_KEPT: Final = 64
_MET_SERIES_MAX: Final = 65_536
_NO_ROWS: Final = np.zeros(0, np.intp)
_COLUMNS: Final = ("series", "newest", "low", "high", "flags", "alarm", "alarmed")


@dataclass(frozen=True, slots=True)
class Met:
    """The slots of a batch's series; ``low`` and ``high`` are the narrowest of their limits.

    ``place`` is the same as ``slots``: a slice where they lie side by side, as those of series met together do.
    """

    slots: NDArray[np.intp]
    place: slice | NDArray[np.intp]
    low: float
    high: float

    def outside(self, table: Table, batch: Batch, least: float, greatest: float) -> NDArray[np.intp]:
        """Which rows are; their values lie from ``least`` to ``greatest``, or are NaN where these are.

        The narrowest limits tell of most batches that none is, and of the others which may be.
        """
        if self.low <= least and greatest <= self.high:
            return _NO_ROWS
        values = batch.values
        rows = ((values > self.high) | (values < self.low)).nonzero()[0]
        slots = self.slots[batch.series_index[rows]]
        values = values[rows]
        return rows[(values > table.high[slots]) | (values < table.low[slots])]


@dataclass(slots=True)
class Table:
    """Columns with a row (slot) a series that was met; they grow by doubling. ``alarmed``: isn't at rest."""

    slot_of: dict[int, int] = field(default_factory=dict)
    series: type_i64 = field(default_factory=lambda: np.zeros(0, np.int64))
    newest: type_i64 = field(default_factory=lambda: np.zeros(0, np.int64))
    low: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    high: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    flags: NDArray[np.uint8] = field(default_factory=lambda: np.zeros(0, np.uint8))
    alarm: NDArray[np.void] = field(default_factory=lambda: np.zeros(0, ALARM))
    alarmed: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, bool))
    _met: OrderedDict[bytes, Met] = field(default_factory=OrderedDict)

    def __len__(self) -> int:
        return len(self.slot_of)

    def grow(self, series: list[int]) -> slice:
        """Slots for series that have none yet, at rest; the other columns are for the caller to fill."""
        begin, end = len(self), len(self) + len(series)
        if end > len(self.series):
            size = max(64, end, 2 * len(self.series))
            for name in _COLUMNS:
                column = getattr(self, name)
                wider = np.zeros(size, column.dtype)
                wider[:begin] = column[:begin]
                setattr(self, name, wider)
        self.series[begin:end] = series
        self.alarm[begin:end] = AT_REST
        self.slot_of.update(zip(series, range(begin, end), strict=True))
        return slice(begin, end)

    def set_rules(self, slots: NDArray[np.intp], rules: list[Rule]) -> None:
        """Of series just met; :meth:`change_rules` of others."""
        self.low[slots] = [rule.low for rule in rules]
        self.high[slots] = [rule.high for rule in rules]
        self.flags[slots] = [flags_of(rule) for rule in rules]

    def change_rules(self, slots: NDArray[np.intp], rules: list[Rule]) -> None:
        self.set_rules(slots, rules)
        self._met.clear()

    def set_alarms(self, slots: NDArray[np.intp], alarms: NDArray[np.void]) -> None:
        self.alarm[slots] = alarms
        self.alarmed[slots] = (alarms["state"] | alarms["pending"] | alarms["told"]) != 0

    def met(self, series: type_i64) -> Met | None:
        """What is known of a batch's series, if all of them were met."""
        key = series.tobytes()
        found = self._met.get(key)
        if found is None:
            places = [self.slot_of.get(id_, -1) for id_ in series.tolist()]
            if -1 in places:
                return None
            slots = np.array(places, np.intp)
            first, last = places[0], places[-1]
            side_by_side = len(places) == last - first + 1 and bool((slots[1:] > slots[:-1]).all())
            place = slice(first, last + 1) if side_by_side else slots
            found = Met(slots, place, float(self.low[slots].max()), float(self.high[slots].min()))
            if len(series) <= _MET_SERIES_MAX:
                self._met[key] = found
                if len(self._met) > _MET_KEPT:
                    self._met.popitem(last=False)
        return found

    def advance(self, met: Met, batch: Batch, rows: NDArray[np.bool_] | slice = slice(None)) -> None:
        """The newest readings, by the batch's ``rows``."""
        index, at_us = batch.series_index[rows], batch.at_us[rows]
        if isinstance(met.place, slice):
            np.maximum.at(self.newest[met.place], index, at_us)
        else:
            np.maximum.at(self.newest, met.slots[index], at_us)

    def standing(self, slots: NDArray[np.intp]) -> Standing:
        return Standing(
            self.series[slots],
            self.newest[slots],
            self.low[slots],
            self.high[slots],
            self.flags[slots],
            self.alarm[slots],
        )
