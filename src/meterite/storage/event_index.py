"""Which journal rows hold events, in memory: in the file an index would be a page more for commits that raise some.

What this file guarantees: whoever asks learns of every such row that its connection sees, by org and in order. Rows
that were removed since may still be among them for some minutes, since a transaction that began before sees them yet.
What is kept is bounded by what waits for compaction.
"""

from __future__ import annotations

import threading
import time
from array import array
from bisect import bisect_left
from typing import TYPE_CHECKING, Final

from meterite.storage.journal_index import NO_ORG

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable

_LAST: Final = "SELECT id FROM journal ORDER BY id DESC LIMIT 1"
_NEW: Final = "SELECT id, org FROM journal WHERE id > ? AND id <= ? AND events IS NOT NULL ORDER BY id"
_THERE: Final = "SELECT 1 FROM journal WHERE id = ?"
FORGET_AFTER_S: Final = 60
"""Between two looks for rows that were removed; one that both miss is forgotten. Transactions are shorter by far."""


class EventIndex:
    """One for each store; any thread may ask."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._of: dict[int | None, array[int]] = {None: array("q")}
        self._removed: set[int] = set()
        self._seen = 0
        self._clock = clock
        self._looked_at = clock()
        self._guard = threading.Lock()

    def ids(self, raw: sqlite3.Connection, first: int = 0, org_id: int | None = None) -> array[int]:
        """From ``first`` on, ascending, of one org or of all."""
        with self._guard:
            self._learn(raw)
            ids = self._of.get(org_id)
            return array("q") if ids is None else ids[bisect_left(ids, first) :]

    def _learn(self, raw: sqlite3.Connection) -> None:
        (last,) = raw.execute(_LAST).fetchone() or (0,)
        if last <= self._seen:
            return
        for row_id, org_id in raw.execute(_NEW, (self._seen, last)):
            own = org_id if isinstance(org_id, int) else NO_ORG
            self._of.setdefault(own, array("q")).append(row_id)
            self._of[None].append(row_id)
        self._seen = last
        if self._clock() - self._looked_at > FORGET_AFTER_S:
            self._looked_at = self._clock()
            self._forget(raw)

    def _forget(self, raw: sqlite3.Connection) -> None:
        missing = {id_ for id_ in self._of[None] if raw.execute(_THERE, (id_,)).fetchone() is None}
        gone = missing & self._removed
        self._removed = missing - gone
        if gone:
            for org_id, ids in list(self._of.items()):
                kept = self._of[org_id] = array("q", [id_ for id_ in ids if id_ not in gone])
                if org_id is not None and not kept:
                    del self._of[org_id]
