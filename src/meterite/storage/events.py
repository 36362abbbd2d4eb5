"""Events in SQL: one row an org a commit, written in the transaction of what it tells of.

What this file guarantees: an event is there exactly if what it tells of is; ids of rows grow with the commits, so that
who read up to a row missed nothing; every question names its org, and another org's event is not found.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from meterite.model.errors import UnavailableError
from meterite.model.limits import TRANSITION
from meterite.storage.event_rows import encode_events, event_checksum
from meterite.storage.schema import EVENT_ROW_BITS

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from meterite.model.event_row import Document
    from meterite.storage.database import Database
    from meterite.storage.event_rows import Name

_INSERT: Final = "INSERT INTO event VALUES (?,?,?,?,?,?,?,?,?)"
_LAST: Final = "SELECT max(id) FROM event"
_NONE: Final = np.empty(0, TRANSITION)


class SqlEvents:
    """Events of all orgs."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def insert(
        self,
        raw: sqlite3.Connection,
        seq: int,
        org_id: int,
        *,
        transitions: NDArray[np.void] = _NONE,
        documents: Sequence[Document] = (),
        names: Mapping[int, Name],
        recorded_at_us: int,
    ) -> int:
        """Within the caller's transaction, whose commit is ``seq``; answers the last row's id, 0 for nothing.

        ``transitions`` are of TRANSITION; ``names`` has all metrics that the events are about.
        """
        rows = encode_events(transitions, documents, names)
        if not rows:
            return 0
        (last,) = raw.execute(_LAST).fetchone()
        row_id = seq << EVENT_ROW_BITS
        if last is not None and last >= row_id:
            row_id = last + 1
        for row in rows:
            if row_id >> EVENT_ROW_BITS != seq:
                raise UnavailableError("commit-full", "Too many events in one commit; try again.")
            bounds = (row.metric_first, row.metric_last, row.types, row.count, recorded_at_us)
            checksum = event_checksum(row_id, org_id, *bounds, row.data)
            raw.execute(_INSERT, (row_id, org_id, *bounds, checksum, row.data))
            row_id += 1
        return row_id - 1
