"""Keeps events from growing without end: alarms are written down now and then, and old events go.

What this file guarantees: a row goes only once it is older than events are kept, every handler has looked at it, none
of its deliveries is open, and the org's alarms are written down as of behind it; labels that events need stay with
them. Each step is one short transaction, and a crash between two leaves what the next round goes on with.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import numpy as np

from meterite.model.metric import SERIES_ORDINAL_BITS
from meterite.storage.alarm_snapshot import encode_parts, read_snapshot, snapshot_row
from meterite.storage.database import PAGE_BYTES, driver_of
from meterite.storage.work import STEP_S

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator

    from meterite.model.columns import type_i64
    from meterite.storage.alarm_snapshot import AlarmSnapshot
    from meterite.storage.work import Work

SNAPSHOT_ROWS: Final = 4096
"""So many event rows of an org, or so many events, may have come since its last snapshot."""
SNAPSHOT_EVENTS: Final = 262_144
_OLD_ROWS: Final = 500
_DELIVERIES_AT_ONCE: Final = 500
_SINCE: Final = (
    "SELECT count(*), coalesce(sum(count), 0) FROM"
    " (SELECT count FROM event_row WHERE org = ? AND id > ? ORDER BY id LIMIT ?)"
)
_LOOKED_AT: Final = (
    "SELECT min(CASE cursor_ordinal WHEN 65535 THEN cursor_row + 1 ELSE cursor_row END)"
    " FROM handler WHERE active"
)
"""The first row that some handler hasn't looked at, or not at all of it."""
_OPEN: Final = "SELECT 1 FROM delivery WHERE handler = ? AND event_row = ? AND state <= 2 LIMIT 1"
_DROP_DELIVERIES: Final = (
    "DELETE FROM delivery WHERE (handler, event_row, ordinal) IN"
    " (SELECT handler, event_row, ordinal FROM delivery WHERE handler = ? AND event_row = ? LIMIT ?)"
)


class EventUpkeep:
    """Used by whoever compacts, which is one process at a time."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._looked = 0.0
        self._steps: Iterator[None] | None = None
        self._newest: dict[int, int] = {}

    def step(self) -> bool:
        """One step of a round, which begins now and then; whether there was anything to do."""
        if self._steps is None:
            now = time.monotonic()
            if self._looked and now - self._looked < self._work.limits.look_s:
                return False
            self._looked = now
            self._steps = self._round()
        steps, self._steps = self._steps, None  # where a step fails, the next round begins anew
        if next(steps, self) is self:
            return False
        self._steps = steps
        return True

    def _round(self) -> Iterator[None]:
        for org_id in self._due():
            yield from self._write_down(org_id)
        yield from self._retire()

    # Alarms

    def _due(self) -> list[int]:
        """Orgs with many events since their last snapshot. Those without new ones since the last look cost nothing."""
        with self._work.database.reading() as conn:
            newest = dict(
                driver_of(conn).execute("SELECT org, max(id) FROM event_row GROUP BY org").fetchall()
            )
        due = []
        for org_id, row_id in newest.items():
            if self._newest.get(org_id) == row_id:
                continue
            with self._work.database.reading() as conn:
                raw = driver_of(conn)
                since = snapshot_row(raw, org_id)
                rows, events = raw.execute(_SINCE, (org_id, since, SNAPSHOT_ROWS)).fetchone()
            if rows >= SNAPSHOT_ROWS or events >= SNAPSHOT_EVENTS:
                due.append(org_id)
        self._newest = newest
        return due

    def _write_down(self, org_id: int) -> Iterator[None]:
        """A new snapshot, part by part; then the old one goes, likewise."""
        with self._work.database.reading() as conn:
            raw = driver_of(conn)
            snapshot = read_snapshot(raw, org_id)
            snapshot.advance(raw, self._work.store.event_reader, org_id)
            snapshot = snapshot.without(_deleted(raw, snapshot))
            query = "SELECT event_row, number FROM alarm WHERE org = ? AND event_row <> ?"
            old = raw.execute(query, (org_id, snapshot.event_row)).fetchall()
        parts = encode_parts(snapshot)
        for number, data in enumerate(parts):
            with self._work.write() as conn:
                driver_of(conn).execute(
                    "INSERT OR REPLACE INTO alarm (org, event_row, number, parts, data) VALUES (?,?,?,?,?)",
                    (org_id, snapshot.event_row, number, len(parts), data),
                )
            self._work.logged(len(data))
            yield
        for key in old:
            with self._work.write() as conn:
                driver_of(conn).execute(
                    "DELETE FROM alarm WHERE org = ? AND event_row = ? AND number = ?", (org_id, *key)
                )
            yield

    # Old events

    def _retire(self) -> Iterator[None]:
        keep_s = self._work.limits.events_keep_s
        if keep_s is None:
            return
        before = self._work.now() - int(keep_s * 1e6)
        after, written_down = -1, dict[int, int]()
        while True:
            with self._work.database.reading() as conn:
                rows = self._old(driver_of(conn), after, before)
            if not rows:
                return
            for org_id, last in {org_id: row_id for row_id, org_id in rows}.items():
                if written_down.get(org_id, -1) < last:
                    yield from self._behind(org_id, last)
                    written_down[org_id] = last
            yield from self._remove([row_id for row_id, _ in rows])
            after = rows[-1][0]

    def _old(self, raw: sqlite3.Connection, after: int, before: int) -> list[tuple[int, int]]:
        """Id and org of the oldest rows behind one, as far as they may go by age and handlers' cursors."""
        (bound,) = raw.execute(_LOOKED_AT).fetchone()
        query = "SELECT id, org, recorded_at FROM event_row WHERE id > ? ORDER BY id LIMIT ?"
        rows = raw.execute(query, (after, _OLD_ROWS)).fetchall()
        return [
            (row_id, org_id)
            for row_id, org_id, recorded_at in rows
            if recorded_at < before and (bound is None or row_id < bound)
        ]

    def _behind(self, org_id: int, row_id: int) -> Iterator[None]:
        with self._work.database.reading() as conn:
            written_down = snapshot_row(driver_of(conn), org_id)
        if written_down < row_id:
            yield from self._write_down(org_id)

    def _remove(self, rows: list[int]) -> Iterator[None]:
        with self._work.database.reading() as conn:
            handlers = dict(driver_of(conn).execute("SELECT id, active FROM handler ORDER BY id").fetchall())
        told = [handler for handler, active in handlers.items() if active]
        waiting = [row_id for row_id in rows if not self._is_open(told, row_id)]
        waiting.reverse()
        while waiting:
            with self._work.write() as conn:
                gone = _remove_some(driver_of(conn), list(handlers), waiting)
            self._work.done.swept_rows += gone
            self._work.logged(gone * PAGE_BYTES)
            yield

    def _is_open(self, handlers: list[int], row_id: int) -> bool:
        """A transaction each: a row may have many deliveries."""
        self._work.check()
        with self._work.database.reading() as conn:
            raw = driver_of(conn)
            return any(raw.execute(_OPEN, (handler, row_id)).fetchone() is not None for handler in handlers)


def _remove_some(raw: sqlite3.Connection, handlers: list[int], waiting: list[int]) -> int:
    """From the end of ``waiting``, which is shortened; the event's row goes last."""
    until = time.monotonic() + STEP_S
    gone = 0
    while waiting:
        row_id = waiting[-1]
        for handler in handlers:
            while raw.execute(_DROP_DELIVERIES, (handler, row_id, _DELIVERIES_AT_ONCE)).rowcount:
                gone += 1
                if time.monotonic() > until:
                    return gone
        raw.execute("DELETE FROM ack WHERE event_row = ?", (row_id,))
        raw.execute("DELETE FROM event_row WHERE id = ?", (row_id,))
        waiting.pop()
        gone += 1
        if time.monotonic() > until:
            return gone
    return gone


def _deleted(raw: sqlite3.Connection, snapshot: AlarmSnapshot) -> type_i64:
    """The metrics among the snapshot's that are deleted."""
    metrics = set(np.unique(snapshot.alarms["series"] >> SERIES_ORDINAL_BITS).tolist()) | set(snapshot.silent)
    query = "SELECT 1 FROM metric WHERE id = ? AND deleted_at IS NULL"
    gone = [metric_id for metric_id in metrics if raw.execute(query, (metric_id,)).fetchone() is None]
    return np.array(sorted(gone), np.int64)
