"""Which rows the journal holds, by org and in memory: the journal is keyed by id alone, to keep the WAL small.

What this file guarantees: whoever asks learns of every row that its connection sees, with its bounds, so that rows
are chosen without a look at the table. What is kept is bounded by what waits for compaction.
"""

from __future__ import annotations

import threading
from array import array
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from meterite.storage.database import driver_of
from meterite.storage.journalrow import READING_BYTES_MIN
from meterite.storage.row_fetch import sane_bounds
from meterite.storage.schema import JOURNAL_ROW_BITS

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from sqlalchemy import Connection

JOURNAL_BOUNDS: Final = np.dtype(
    [
        ("id", "<i8"),
        ("series_first", "<i8"),
        ("series_last", "<i8"),
        ("at_first", "<i8"),
        ("at_last", "<i8"),
        ("count", "<i8"),
    ]
)
"""A row of the journal without its readings. No row counts for more than its bytes can hold."""

_QUERY: Final = (
    "SELECT org, id, series_first, series_last, at_first, at_last,"  # noqa: S608 -- our own number
    f" max(0, min(count, length(data) / {READING_BYTES_MIN})) FROM journal WHERE id > ?"
)
_FIELDS: Final = len(JOURNAL_BOUNDS.names or ())
_ROWS_KEPT: Final = 512
"""An org with fewer keeps those that were compacted, too."""


class JournalIndex:
    """One for each store; any thread may ask."""

    def __init__(self) -> None:
        self._kept: dict[int, array[int]] = {}
        self._kept_max: dict[int, int] = {}
        self._dropped: dict[int, int] = {}
        self._seen = 0
        self._guard = threading.Lock()

    def rows(self, conn: Connection, org_id: int, seq_after: int) -> NDArray[np.void]:
        """:data:`JOURNAL_BOUNDS` of the org's rows of commits after ``seq_after``, by id.

        All that the connection's transaction sees, and maybe some of later commits.
        """
        before = (seq_after + 1 << JOURNAL_ROW_BITS) - 1
        with self._guard:
            self._learn(conn)
            if before < self._dropped.get(org_id, before):  # begun before the flip that let them go
                return self._select(conn, org_id, before)
            kept = self._kept.get(org_id)
            if kept is None:
                return np.empty(0, JOURNAL_BOUNDS)
            rows = np.frombuffer(kept, JOURNAL_BOUNDS)  # while this is in use the array can't grow
            return rows[rows["id"].searchsorted(before, "right") :].copy()

    def _select(self, conn: Connection, org_id: int, before: int) -> NDArray[np.void]:
        found = driver_of(conn).execute(f"{_QUERY} AND org = ? ORDER BY id", (before, org_id))
        return np.array([tuple(_sane(row)) for _, *row in found], JOURNAL_BOUNDS)

    def _learn(self, conn: Connection) -> None:
        met = set()
        for org_id, *row in driver_of(conn).execute(f"{_QUERY} ORDER BY id", (self._seen,)):
            kept = self._kept.get(org_id)
            if kept is None:
                kept = self._kept[org_id] = array("q")
            kept.extend(_sane(row))
            self._seen = row[0]
            met.add(org_id)
        for org_id in met:
            if len(self._kept[org_id]) > self._kept_max.get(org_id, _ROWS_KEPT * _FIELDS):
                self._forget_compacted(conn, org_id)

    def _forget_compacted(self, conn: Connection, org_id: int) -> None:
        query = "SELECT compacted_seq FROM org WHERE id = ?"
        (seq,) = driver_of(conn).execute(query, (org_id,)).fetchone() or (0,)
        before = (seq + 1 << JOURNAL_ROW_BITS) - 1
        kept = self._kept[org_id]
        compacted = int(np.frombuffer(kept, JOURNAL_BOUNDS)["id"].searchsorted(before, "right"))
        del kept[: compacted * _FIELDS]
        self._dropped[org_id] = max(before, self._dropped.get(org_id, before))
        self._kept_max[org_id] = max(2 * len(kept), _ROWS_KEPT * _FIELDS)


def _sane(row: list[Any]) -> array[int]:
    """Of a damaged row what can be believed: whoever reads it finds its checksum wrong."""
    try:
        return array("q", row)
    except (TypeError, OverflowError):
        return array("q", (row[0], *sane_bounds(row[1:5]), 0))
