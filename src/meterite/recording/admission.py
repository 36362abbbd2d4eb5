"""Which of a request's readings may enter: times that can be right, metrics that are there or may be made.

What this file guarantees: each row that is refused is told of once, by its place in the request, in the order of
places; where nothing is refused, nothing is copied.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from meterite.model.columns import Rejected
from meterite.model.errors import InvalidInputError
from meterite.model.time import format_rfc3339, mistaken_unit, wrong_units

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from meterite.model.auto_create import AutoCreate
    from meterite.model.columns import Decoded
    from meterite.model.errors import MeteriteError


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeRules:
    """How far ahead of the clock a reading may be, µs (None: as far as it likes), and whether units are believed."""

    future_us_max: int | None
    trusted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What the settings say about readings that come in."""

    times: TimeRules
    auto_create: AutoCreate


class Admission:
    """Gathers what is refused of some readings."""

    def __init__(self, decoded: Decoded) -> None:
        self._decoded = decoded
        self._refused: NDArray[np.bool_] | None = None
        self._rejected: list[Rejected] = []

    def check_times(self, now_us: int, rules: TimeRules) -> None:
        """Refuse what lies too far in the future, or shows by its size another unit than it is labelled with."""
        at_us, unit = self._decoded.at_us, self._decoded.unit
        if not len(at_us):
            return
        if unit is not None and not rules.trusted:
            for other, rows in wrong_units(at_us, unit):
                self._refuse_all(rows, mistaken_unit(unit, other, asked=self._decoded.unit_asked))
        if rules.future_us_max is not None:
            last = now_us + rules.future_us_max
            if int(at_us.max()) > last:
                message = (
                    f"The time lies behind {format_rfc3339(last)}, the latest that is taken (max_future)."
                )
                self._refuse_all(at_us > last, InvalidInputError("time-in-future", message))

    def refuse_keys(self, errors: Mapping[int, MeteriteError]) -> None:
        """All rows of the keys with these numbers."""
        if errors:
            index = self._decoded.key_index
            refused = np.isin(index, np.fromiter(errors, np.uint32, len(errors)))
            self._refuse(refused, lambda row: errors[int(index[row])])

    def _refuse_all(self, rows: NDArray[np.bool_], error: MeteriteError) -> None:
        self._refuse(rows, lambda _: error)

    def _refuse(self, rows: NDArray[np.bool_], error_of: Callable[[int], MeteriteError]) -> None:
        if self._refused is None:
            self._refused = np.zeros(len(self._decoded), np.bool_)
        places = self._decoded.row
        for row in np.flatnonzero(rows & ~self._refused).tolist():
            error = error_of(row)
            place = row if places is None else int(places[row])
            self._rejected.append(Rejected(place, error.code, error.message))
        self._refused |= rows

    def good(self) -> Decoded:
        """What is left, with all that was rejected."""
        decoded = self._decoded
        if self._refused is None or not self._refused.any():
            return decoded
        kept = ~self._refused
        places = np.arange(len(decoded)) if decoded.row is None else decoded.row
        return replace(
            decoded,
            key_index=decoded.key_index[kept],
            at_us=decoded.at_us[kept],
            values=decoded.values[kept],
            row=places[kept],
            rejected=sorted([*decoded.rejected, *self._rejected], key=lambda one: one.index),
        )
