"""Which journal rows hold events, in memory: in the file an index would be a page more for commits that raise some.

What this file guarantees: whoever asks learns of every such row that its connection sees, by org and in order, if its
transaction began after the first question. Rows that its connection sees in the table, or not at all, may be among
them: that a row went is known a minute or two later. What is kept is bounded by what waits for compaction; no question
but the first looks at much more than what is new. Who writes the journal asks before it does so.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from array import array
from bisect import bisect_left
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from meterite.model.errors import MalformedFileError
from meterite.storage.database import translate
from meterite.storage.journal_index import NO_ORG

if TYPE_CHECKING:
    from collections.abc import Callable, Container

_LAST: Final = "SELECT id FROM journal ORDER BY id DESC LIMIT 1"
_LAST_APART: Final = "SELECT id FROM event_row ORDER BY id DESC LIMIT 1"
_BESIDE: Final = (
    "SELECT id, org FROM journal WHERE id > ? AND id <= ? AND typeof(events) <> 'null' ORDER BY id"
)
"""What type a value has says the row's head: no page with readings is read."""
_APART: Final = "SELECT id, org FROM event_row WHERE id > ? AND id <= ? ORDER BY id"
_THERE: Final = "SELECT id FROM journal WHERE id IN (SELECT value FROM json_each(?))"
FORGET_AFTER_S: Final = 60
"""A row that is missing for so long is forgotten. Transactions are shorter by far."""
LOOK_S: Final = 0.1
LOOK_ROWS: Final = 512
"""So often a question looks for so many, or for twice as many as are new since: about a µs each."""


class EventIndex:
    """One for each store; any thread may ask."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._ids = array("q")
        self._orgs = array("q")
        self._of: dict[int, array[int]] = {}
        self._missing: dict[int, float] = {}
        self._seen: int | None = None
        self._looked_for = 0
        self._new = 0
        self._clock = clock
        self._looked_at = clock()
        self._guard = threading.Lock()

    def ids(self, raw: sqlite3.Connection, first: int = 0, org_id: int | None = None) -> array[int]:
        """From ``first`` on, ascending, of one org or of all."""
        with self._guard:
            self._learn(raw)
            if self._clock() - self._looked_at >= LOOK_S:
                self._look(raw, max(LOOK_ROWS, 2 * self._new))
            ids = self._ids if org_id is None else self._of.get(org_id, array("q"))
            return ids[bisect_left(ids, first) :]

    def _learn(self, raw: sqlite3.Connection) -> None:
        (last,) = raw.execute(_LAST).fetchone() or (0,)
        if self._seen is None:
            self._add(_rows(raw, _BESIDE, 0, last))
            self._seen = max(last, *(raw.execute(_LAST_APART).fetchone() or (0,)))
        elif last > self._seen:
            # What was moved to the table before anybody asked is beside readings yet for who began before that.
            new = _rows(raw, _BESIDE, self._seen, last) | _rows(raw, _APART, self._seen, last)
            self._add(new)
            self._seen = last
            self._new += len(new)

    def _add(self, new: dict[int, Any]) -> None:
        for row_id in sorted(new):
            own = new[row_id] if isinstance(new[row_id], int) else NO_ORG
            self._ids.append(row_id)
            self._orgs.append(own)
            self._of.setdefault(own, array("q")).append(row_id)

    def _look(self, raw: sqlite3.Connection, count: int) -> None:
        """For the next ``count``."""
        self._looked_at, self._new = self._clock(), 0
        begin = bisect_left(self._ids, self._looked_for)
        some, orgs = self._ids[begin : begin + count], self._orgs[begin : begin + count]
        self._looked_for = some[-1] + 1 if len(some) == count else 0
        there = {row[0] for row in raw.execute(_THERE, (json.dumps(some.tolist()),))}
        gone = {id_: org_id for id_, org_id in zip(some, orgs, strict=True) if self._is_gone(id_, there)}
        if gone:
            kept = [(id_, org_id) for id_, org_id in zip(some, orgs, strict=True) if id_ not in gone]
            self._ids[begin : begin + count] = array("q", [id_ for id_, _ in kept])
            self._orgs[begin : begin + count] = array("q", [org_id for _, org_id in kept])
            for org_id in set(gone.values()):
                self._forget(org_id, gone)
            for id_ in gone:
                del self._missing[id_]

    def _is_gone(self, row_id: int, there: set[int]) -> bool:
        if row_id in there:
            self._missing.pop(row_id, None)  # who began before it came missed it
            return False
        return self._looked_at - self._missing.setdefault(row_id, self._looked_at) > FORGET_AFTER_S

    def _forget(self, org_id: int, gone: Container[int]) -> None:
        own = self._of[org_id] = array("q", [id_ for id_ in self._of[org_id] if id_ not in gone])
        if not own:
            del self._of[org_id]


def _rows(raw: sqlite3.Connection, query: str, after: int, upto: int) -> dict[int, Any]:
    """Org by id. Where a page is malformed, but for the rows on it: both ways up to there."""
    try:
        return dict(raw.execute(query, (after, upto)))
    except sqlite3.DatabaseError as exc:
        if not isinstance(translate(exc), MalformedFileError):
            raise
    return {
        row_id: org_id
        for order in ("", " DESC")
        for row_id, org_id in _until_malformed(raw, query + order, after, upto)
    }


def _until_malformed(raw: sqlite3.Connection, query: str, *values: int) -> list[tuple[int, Any]]:
    """The driver is a row ahead, and with the error loses that, so it is asked for once more without the next."""
    rows: list[tuple[int, Any]] = []
    with suppress(sqlite3.DatabaseError):
        rows.extend(raw.execute(query, values))
    with suppress(sqlite3.DatabaseError):
        rows = raw.execute(f"{query} LIMIT {len(rows) + 1}", values).fetchall()
    return rows
