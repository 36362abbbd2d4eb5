"""An org's tombstones, in memory: every snapshot needs them, and thousands would take long to read each time.

What this file guarantees: they are those of the connection's snapshot, whichever worker wrote or removed some.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from meterite.storage.database import driver_of
from meterite.storage.tombstones import Tombstones

if TYPE_CHECKING:
    import sqlite3

    from sqlalchemy import Connection

KEPT_MAX: Final = 1_000_000
"""Over all orgs; those asked least recently go first."""

_LOOK: Final = "SELECT count(*), max(seq) FROM tombstone WHERE org = ?"
_IDS: Final = "SELECT id FROM tombstone WHERE org = ?"
_ROWS: Final = (
    "SELECT id, seq, series_first, series_last, at_first, at_last, series FROM tombstone"
    " WHERE org = ? AND seq > ? ORDER BY seq"
)


class TombstoneIndex:
    """Threads may ask at once; none waits for another's query."""

    def __init__(self) -> None:
        self._orgs: OrderedDict[int, Tombstones] = OrderedDict()
        self._count = 0
        self._guard = threading.Lock()

    def tombstones(self, conn: Connection, org_id: int) -> Tombstones:
        raw = driver_of(conn)
        count, seq_last = raw.execute(_LOOK, (org_id,)).fetchone()
        if not count:
            self._keep(org_id, Tombstones.none())
            return Tombstones.none()
        known = self._orgs.get(org_id, Tombstones.none())
        if (len(known), known.seq_last) == (count, seq_last):
            return known
        found = _up_to_date(raw, org_id, known, count, seq_last)
        self._keep(org_id, found)
        return found

    def _keep(self, org_id: int, found: Tombstones) -> None:
        with self._guard:
            known = self._orgs.pop(org_id, Tombstones.none())
            self._count += len(found) - len(known)
            if len(found):
                self._orgs[org_id] = found
            while self._count > KEPT_MAX and len(self._orgs) > 1:
                _, dropped = self._orgs.popitem(last=False)
                self._count -= len(dropped)


def _up_to_date(
    raw: sqlite3.Connection, org_id: int, known: Tombstones, count: int, seq_last: int
) -> Tombstones:
    known = known.upto(seq_last)
    found = known.then(_rows_after(raw, org_id, known.seq_last))
    if len(found) != count:  # some were removed
        ids = np.array(raw.execute(_IDS, (org_id,)).fetchall(), np.int64)[:, 0]
        found = found.chosen(np.isin(found.ids, ids))
    if len(found) != count:  # what was removed by now is still there in an older snapshot
        found = _rows_after(raw, org_id, -1)
    return found


def _rows_after(raw: sqlite3.Connection, org_id: int, seq: int) -> Tombstones:
    rows: list[tuple[Any, ...]] = raw.execute(_ROWS, (org_id, seq)).fetchall()
    numbers = np.array([row[:6] for row in rows], np.int64).reshape(-1, 6)
    return Tombstones(numbers, [None if row[6] is None else np.frombuffer(row[6], "<i8") for row in rows])
