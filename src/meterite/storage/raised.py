"""Which of a commit's events one of its requests raised: what ``receipt=full`` tells of them.

What this file guarantees: ids are made for a request that asks, as many as a receipt lists; the others are counted.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np

from meterite.model.event import EventPlace, event_id
from meterite.model.limits import kinds_of
from meterite.model.metric import SERIES_ORDINAL_BITS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meterite.model.columns import type_i64
    from meterite.model.event_row import Document
    from meterite.model.standing import Judged
    from meterite.storage.event_rows import EncodedEvents
    from meterite.storage.interface import Append

EVENTS_TOLD_MAX: Final = 1000
"""To a request, of those that it raised."""


@dataclass(slots=True)
class Raised:
    """An org's events of a commit: ``rows``, which lie at ``places``, hold what was found, then the documents."""

    org_id: int
    recorded_at_us: int
    rows: list[EncodedEvents]
    found: Judged
    documents: Sequence[Document]
    places: list[int] = field(default_factory=list)

    def tell(self, append: Append, series: type_i64) -> None:
        """Those about the append's series. What two requests of one commit raised together is told to both."""
        transitions = self.found.rows()
        numbers = np.flatnonzero(
            np.isin(transitions["series"], series) & (kinds_of(transitions) != 0)
        ).tolist()
        if self.documents:
            metrics = set((series >> SERIES_ORDINAL_BITS).tolist())
            behind = enumerate(self.documents, len(transitions))
            numbers += [number for number, document in behind if document.metric_id in metrics]
        append.events = [
            event_id(self.recorded_at_us, self._place(number)) for number in numbers[:EVENTS_TOLD_MAX]
        ]
        append.events_more = len(numbers) - len(append.events)

    def _place(self, number: int) -> EventPlace:
        for row, row_id in zip(self.rows, self.places, strict=True):
            if number < row.count:
                return EventPlace(row_id, number)
            number -= row.count
        raise AssertionError("an event lies in one of the rows")
