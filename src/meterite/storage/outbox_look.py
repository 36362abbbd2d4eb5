"""How far the events were looked at for a handler: what the outbox is told before it writes deliveries."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np

from meterite.model.event import EventPlace
from meterite.model.event_row import EVENT_ROW_EVENTS_MAX

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from meterite.model.event_row import EventRow

ORDINAL_LAST: Final = EVENT_ROW_EVENTS_MAX - 1


@dataclass(slots=True)
class Ahead:
    """How far a handler's events were looked at beyond its written cursor, none of them wanted."""

    written: EventPlace
    place: EventPlace
    since_us: int
    rows: int = 0


@dataclass(slots=True)
class Look:
    """One look at the events behind a place: what is wanted, and how far it went."""

    handler: int
    written: EventPlace
    place: EventPlace
    looked: int = 0
    rows: int = 0
    found: list[tuple[int, int, int, int]] = field(default_factory=list)
    """Event row, ordinal, org, series key."""

    def at(self, row: EventRow, wanted: Callable[[EventRow], NDArray[np.bool_]], limit: int) -> None:
        begin = self.place.ordinal + 1 if row.id == self.place.row else 0
        end = min(len(row), begin + limit - self.looked)
        chosen = np.flatnonzero((wanted(row) & (row.kinds() != 0))[begin:end]) + begin
        if len(chosen):
            keys = row.series_keys()[chosen].tolist()
            self.found += [
                (row.id, ordinal, row.org_id, key) for ordinal, key in zip(chosen.tolist(), keys, strict=True)
            ]
        self.looked += end - begin
        self.passed(row.id, ORDINAL_LAST if end == len(row) else end - 1)

    def passed(self, row_id: int, ordinal: int = ORDINAL_LAST) -> None:
        self.place = EventPlace(row_id, ordinal)
        self.rows += 1
