"""The series of an org that a worker watches, a slot each.

What this file guarantees: nothing but memory; who has a slot keeps it. The slots of the series of a batch are
remembered for the next batch of the same ones, in as much memory as the slots take, about.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np

from meterite.model.standing import CALM, WATCHED, Standing, alarm_of, at_rest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from meterite.model.columns import type_i64
    from meterite.model.limits import Alarm, Rule

_MET_KEPT: Final = 64
_MET_SERIES_MAX: Final = 65_536
_MET_EACH: Final = 8
"""In so many remembered batches a series may be, on the average: 128 bytes of it, as much as a slot takes."""


@dataclass(slots=True)
class Table:
    """``standing``, a slot a series that was met, and room for more; it grows by doubling."""

    slot_of: dict[int, int] = field(default_factory=dict)
    standing: Standing = field(default_factory=Standing)
    _met: OrderedDict[bytes, type_i64] = field(default_factory=OrderedDict)
    _met_series: int = 0
    _last: tuple[type_i64, type_i64] | None = None

    def __len__(self) -> int:
        return len(self.slot_of)

    @property
    def used(self) -> Standing:
        return self.standing[: len(self)]

    def grow(self, series: list[int], rules: list[Rule], rule_of: NDArray[np.intp], newest: type_i64) -> None:
        """Slots for series that have none yet, at rest; of each the number of its rule, and its newest reading."""
        begin, end = len(self), len(self) + len(series)
        if end > len(self.standing):
            room = max(64, end, 2 * len(self.standing))
            wider = Standing(np.zeros(room, CALM), np.zeros(room, WATCHED))
            wider[:begin] = self.used
            self.standing = wider
        new = at_rest(series, rules, rule_of)
        new.calm["newest"] = newest
        self.standing[begin:end] = new
        self.slot_of.update(zip(series, range(begin, end), strict=True))

    def set_alarms(self, alarms: Mapping[int, Alarm]) -> None:
        """Of series that were met."""
        for series, alarm in alarms.items():
            self.standing.set_alarm(self.slot_of[series], alarm)

    def alarms(self) -> dict[int, Alarm]:
        """Of the series that aren't at rest."""
        rows = self.used.rows
        rows = rows[rows["alarmed"]]
        return dict(zip(rows["series"].tolist(), map(alarm_of, rows), strict=True))

    def met(self, series: type_i64) -> type_i64 | None:
        """The slots of a batch's series, if all of them were met. An array that comes again is the same series."""
        if self._last is not None and self._last[0] is series:
            return self._last[1]
        key = series.tobytes()
        found = self._met.get(key)
        if found is None:
            slots = [self.slot_of.get(id_, -1) for id_ in series.tolist()]
            if -1 in slots:
                return None
            found = np.array(slots, np.int64)
            if len(series) <= _MET_SERIES_MAX:
                self._remember(key, found)
        if len(series) <= _MET_SERIES_MAX:
            self._last = series, found
        return found

    def _remember(self, key: bytes, slots: type_i64) -> None:
        self._met[key] = slots
        self._met_series += len(slots)
        while len(self._met) > _MET_KEPT or self._met_series > _MET_EACH * len(self):
            _, dropped = self._met.popitem(last=False)
            self._met_series -= len(dropped)
