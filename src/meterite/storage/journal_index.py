"""Which rows of the journal are whose.

What this file guarantees: :meth:`JournalIndex.ids` names every row of the org that the connection's snapshot sees,
whichever worker wrote it.
"""

from __future__ import annotations

import threading
from array import array
from bisect import bisect_right
from typing import TYPE_CHECKING

from meterite.storage.database import driver_of as driver
from meterite.storage.schema import JOURNAL_ROW_BITS

if TYPE_CHECKING:
    from sqlalchemy import Connection


class JournalIndex:
    """Ids of the journal's rows by org, in memory: the journal is keyed by id alone, to keep the WAL small."""

    def __init__(self) -> None:
        self._ids: dict[int, array[int]] = {}
        self._dropped: dict[int, int] = {}
        self._seen = 0
        self._guard = threading.Lock()

    def ids(self, conn: Connection, org_id: int, seq_after: int) -> list[int]:
        """The org's rows of commits after ``seq_after``, ascending, as of the connection's snapshot."""
        with self._guard:
            rows = driver(conn).execute("SELECT id, org FROM journal WHERE id > ? ORDER BY id", (self._seen,))
            for row_id, row_org in rows:
                self._ids.setdefault(row_org, array("q")).append(row_id)
                self._seen = row_id
            kept = self._ids.get(org_id)
            if kept is None:
                return []
            before = (seq_after + 1 << JOURNAL_ROW_BITS) - 1
            if before < self._dropped.get(
                org_id, before
            ):  # a snapshot begun before the flip that let them go
                query = "SELECT id FROM journal WHERE id > ? AND org = ? ORDER BY id"
                return [row[0] for row in driver(conn).execute(query, (before, org_id))]
            place = bisect_right(kept, before)
            if place > 4096:  # compacted long ago
                del kept[:place]
                self._dropped[org_id] = before
                place = 0
            return kept[place:].tolist()
