"""Which rows the journal holds, by org and in memory: the journal is keyed by id alone, to keep the WAL small.

What this file guarantees: whoever asks learns of every row that its connection sees, with its bounds, so that rows
are chosen without a look at the table. A row is listed only if the checksum of its columns holds; of others it is told
whose they are and what they may have held. What is kept is bounded by what waits for compaction.
"""

from __future__ import annotations

import threading
from array import array
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from meterite.model.errors import DamagedError
from meterite.model.metric import SERIES_ORDINAL_BITS
from meterite.storage.database import driver_of
from meterite.storage.journalrow import columns_hold, extent_of
from meterite.storage.live_runs import read_live_runs
from meterite.storage.row_fetch import fetch_blob, sane_bounds
from meterite.storage.schema import JOURNAL_ROW_BITS

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

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
"""A row of the journal without its readings."""

_QUERY: Final = (
    "SELECT id, org, series_first, series_last, at_first, at_last, count, recorded_at, checksum"
    " FROM journal WHERE id > ?"
)
_FIELDS: Final = len(JOURNAL_BOUNDS.names or ())
_FLIPS: Final = "SELECT seq FROM sqlite_sequence WHERE name = 'flip'"
"""How many there were ever: no row goes before its flip was."""
NO_ORG: Final = -1
"""Whose a row is that names none."""
_ROWS_KEPT: Final = 512
"""An org with fewer keeps those that were compacted, too."""


@dataclass(frozen=True, slots=True)
class Fault:
    """A row whose columns can't be believed. ``org_id`` and bounds are its readings', as far as can be known."""

    row_id: int
    org_id: int
    series_first: int
    series_last: int
    at_first: int
    at_last: int
    kind: str = "journal"
    reason: str = "The checksum of its columns doesn't hold."

    @property
    def bounds(self) -> tuple[int, int, int, int]:
        return self.series_first, self.series_last, self.at_first, self.at_last


class JournalIndex:
    """One for each store; any thread may ask."""

    def __init__(self) -> None:
        self._kept: dict[int, array[int]] = {}
        self._kept_max: dict[int, int] = {}
        self._dropped: dict[int, int] = {}
        self._faults: dict[int, Fault] = {}
        self._seen = 0
        self._flips = 0
        self._guard = threading.Lock()

    def rows(self, conn: Connection, org_id: int, seq_after: int) -> NDArray[np.void]:
        """:data:`JOURNAL_BOUNDS` of the org's rows of commits after ``seq_after``, by id.

        All that the connection's transaction sees, and maybe some of later commits.
        """
        before = (seq_after + 1 << JOURNAL_ROW_BITS) - 1
        with self._guard:
            self._learn(conn)
            # Begun before a flip that let rows go, known ones or such as were gone when the index learned behind them.
            if before < self._dropped.get(org_id, before) or _flips(conn) < self._flips:
                return self._select(conn, org_id, before)
            kept = self._kept.get(org_id)
            if kept is None:
                return np.empty(0, JOURNAL_BOUNDS)
            rows = np.frombuffer(kept, JOURNAL_BOUNDS)  # while this is in use the array can't grow
            return rows[rows["id"].searchsorted(before, "right") :].copy()

    def faults(self, conn: Connection) -> dict[int, Fault]:
        """Rows that aren't listed, of all orgs, by their id."""
        with self._guard:
            self._learn(conn)
            return dict(self._faults)

    def _select(self, conn: Connection, org_id: int, before: int) -> NDArray[np.void]:
        found = driver_of(conn).execute(f"{_QUERY} AND org = ? ORDER BY id", (before, org_id))
        good = [row for row in found if columns_hold(row[:8], row[8])]
        return np.array([(row[0], *row[2:7]) for row in good], JOURNAL_BOUNDS)

    def _learn(self, conn: Connection) -> None:
        met: set[int] = set()
        for row in driver_of(conn).execute(f"{_QUERY} ORDER BY id", (self._seen,)):
            if not columns_hold(row[:8], row[8]):
                if row[0] not in self._faults:
                    self._faults[row[0]] = _fault_of(driver_of(conn), row)
                continue
            if not met:
                self._flips = max(self._flips, _flips(conn))
            self._seen = row[0]
            kept = self._kept.get(row[1])
            if kept is None:
                kept = self._kept[row[1]] = array("q")
            kept.append(row[0])
            kept.extend(row[2:7])
            met.add(row[1])
        for org_id in met:
            if len(self._kept[org_id]) > self._kept_max.get(org_id, _ROWS_KEPT * _FIELDS):
                self._forget_compacted(conn, org_id)

    def _forget_compacted(self, conn: Connection, org_id: int) -> None:
        before = (read_live_runs(conn, org_id).compacted_seq + 1 << JOURNAL_ROW_BITS) - 1
        kept = self._kept[org_id]
        compacted = int(np.frombuffer(kept, JOURNAL_BOUNDS)["id"].searchsorted(before, "right"))
        del kept[: compacted * _FIELDS]
        self._dropped[org_id] = max(before, self._dropped.get(org_id, before))
        self._kept_max[org_id] = max(2 * len(kept), _ROWS_KEPT * _FIELDS)


def _flips(conn: Connection) -> int:
    (count,) = driver_of(conn).execute(_FLIPS).fetchone() or (0,)
    assert isinstance(count, int)
    return count


def _fault_of(raw: sqlite3.Connection, row: tuple[Any, ...]) -> Fault:
    """The blob says what the row held; whose that is, the metric."""
    try:
        blob = fetch_blob(raw, "SELECT data FROM journal WHERE id = ?", row[:1])
        bounds: Sequence[int] = extent_of(blob or b"")
    except DamagedError:
        bounds = sane_bounds(())
    metric_id = bounds[0] >> SERIES_ORDINAL_BITS
    found = raw.execute("SELECT org FROM metric WHERE id = ?", (metric_id,)).fetchone()
    org_id = found[0] if found else row[1]
    first, last, at_first, at_last = bounds
    return Fault(row[0], org_id if isinstance(org_id, int) else NO_ORG, first, last, at_first, at_last)
