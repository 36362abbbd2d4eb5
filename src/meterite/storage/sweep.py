"""Removes what nobody can see any more, in small steps.

What this file guarantees: a row goes only after a moment at which no process had a snapshot open that might need it,
or after the grace for snapshots; labels stay as long as events may name them; no transaction begins another row after
``STEP_S``. Damaged rows of the journal and of live runs stay. Those of dead runs go, and so does what quarantine says
of them: a run dies only when each of its row groups was read whole and written anew.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

from meterite.model.limits import ABOVE_MAX, BELOW_MIN, CLEARED
from meterite.storage.backlog import last_id_of
from meterite.storage.database import PAGE_BYTES
from meterite.storage.journal import driver
from meterite.storage.live_runs import orgs_with_runs, read_live_runs
from meterite.storage.schema import MOVE_EVENTS, SEGMENT_BITS
from meterite.storage.snapshot import compacted_seq
from meterite.storage.work import STEP_S

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator, Sequence

    from sqlalchemy import Connection

    from meterite.storage.work import Work

_DEAD_METRICS = (
    "SELECT id, org, deleted_at FROM metric WHERE deleted_at IS NOT NULL"
    " AND id NOT IN (SELECT metric FROM tombstone)"
    " AND EXISTS (SELECT 1 FROM series WHERE series.metric = metric.id)"
)

_OF_READINGS = ABOVE_MAX | BELOW_MIN | CLEARED
_QUARANTINED = "SELECT id, org FROM quarantine WHERE kind = 'segment' AND row_id >= ? AND row_id < ?"
_CLAIM = "UPDATE run SET dead_at = ? WHERE id = ? AND live_at IS NULL AND dead_at IS NULL"


class Sweeper:
    """Knows what is dead without looking for it, but for what another process left."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._purge: list[int] = []

    def look(self) -> None:
        """Find dead runs, runs that a crash left unfinished, and labels of deleted metrics. None of our own is open."""
        with self._work.database.reading() as conn:
            raw = driver(conn)
            rows = raw.execute("SELECT id, dead_at FROM run WHERE live_at IS NULL OR dead_at IS NOT NULL")
            dead = {run_id: dead_at or 0 for run_id, dead_at in rows}
            for org_id in orgs_with_runs(conn) if dead else ():
                for run_id in read_live_runs(conn, org_id).ids:  # damage alone calls such a one dead
                    dead.pop(run_id, None)
            self._work.dead = dead
            self._purge = self._without_events(raw, raw.execute(_DEAD_METRICS).fetchall())

    def _without_events(self, raw: sqlite3.Connection, metrics: list[tuple[int, int, int]]) -> list[int]:
        """Those that were deleted before the oldest event of readings that their org still has."""
        oldest = {}
        for org_id in {org_id for _, org_id, _ in metrics}:
            rows = self._work.store.event_reader.rows(raw, 0, org_id, columns="id, recorded_at, types")
            oldest[org_id] = next((at_us for _, at_us, types in rows if types & _OF_READINGS), math.inf)
        return [metric_id for metric_id, org_id, deleted_at in metrics if deleted_at < oldest[org_id]]

    def sweep(self) -> bool:
        """One round; whether anything went."""
        with self._work.database.reading() as conn:
            flips = driver(conn).execute("SELECT id, org, seq, flipped_at FROM flip ORDER BY id").fetchall()
        # What is dead by now can't be seen by a snapshot opened later.
        dead = dict(self._work.dead)
        self._work.backlog.forget_dead_but({row[1] for row in flips})
        if not (flips or dead or self._purge):
            return False
        nobody = self._work.store.streams.none_open()
        before = self._work.now() - int(self._work.limits.snapshot_grace_s * 1e6)
        swept = False
        for flip_id, org_id, seq, flipped_at in flips:
            if nobody or flipped_at <= before:
                self._journal(flip_id, org_id, seq)
                swept = True
        for run_id, dead_at in dead.items():
            if nobody or dead_at <= before:
                self._run(run_id)
                swept = True
        if nobody and self._purge:
            self._labels(self._purge.pop())
            swept = True
        return swept

    def _journal(self, flip_id: int, org_id: int, seq: int) -> None:
        with self._work.database.reading() as conn:
            self._work.learn(conn)
            bad = driver(conn).execute("SELECT row_id FROM quarantine WHERE kind = 'journal'").fetchall()
            damaged = {row[0] for row in bad} | self._faults(conn)
            seq = min(seq, compacted_seq(conn, org_id))
        ids = [row_id for row_id in self._work.backlog.dead(org_id, seq) if row_id not in damaged]
        self._delete(ids, MOVE_EVENTS, "DELETE FROM journal WHERE id = ?")
        self._work.backlog.removed(org_id, seq)
        self._delete([flip_id], "DELETE FROM flip WHERE id = ?")

    def _faults(self, conn: Connection) -> set[int]:
        """Damaged rows that nobody compacted; whose they are their readings say, and not their column."""
        faults = self._work.store.parts.index.faults(conn).values()
        return {f.row_id for f in faults if f.row_id > last_id_of(compacted_seq(conn, f.org_id))}

    def _run(self, run_id: int) -> None:
        if not self._is_dead(run_id):
            self._work.dead.pop(run_id, None)
            return
        first = run_id << SEGMENT_BITS
        with self._work.database.reading() as conn:
            rows = driver(conn).execute(
                "SELECT id FROM segment WHERE id >= ? AND id < ?", (first, run_id + 1 << SEGMENT_BITS)
            )
            ids = [row[0] for row in rows]
            kept = driver(conn).execute(_QUARANTINED, (first, run_id + 1 << SEGMENT_BITS)).fetchall()
            # Where the list is damaged, the run's own row calls it dead, and that may be damage, too.
            doubtful = {org_id for _, org_id in kept if read_live_runs(conn, org_id).fault}
        if not doubtful:
            self._delete(ids, "DELETE FROM segment WHERE id = ?")
            self._delete([row_id for row_id, _ in kept], "DELETE FROM quarantine WHERE id = ?")
            self._delete([run_id], "DELETE FROM run WHERE id = ? AND dead_at IS NOT NULL")
        self._work.dead.pop(run_id, None)

    def _is_dead(self, run_id: int) -> bool:
        """Whether nobody can make it live any more. One that was left unfinished is declared dead by this."""
        query = "SELECT dead_at FROM run WHERE id = ?"
        with self._work.database.reading() as conn:
            row = driver(conn).execute(query, (run_id,)).fetchone()
        if row is None or row[0] is not None:
            return True
        with self._work.write() as conn:
            claimed = driver(conn).execute(_CLAIM, (self._work.now(), run_id)).rowcount
        return claimed == 1

    def _labels(self, metric_id: int) -> None:
        with self._work.database.reading() as conn:
            rows = driver(conn).execute("SELECT id FROM series WHERE metric = ?", (metric_id,))
            ids = [row[0] for row in rows]
        self._delete(ids, "DELETE FROM series WHERE id = ?")

    def _delete(self, ids: list[int], *statements: str) -> None:
        """By all statements, of each id in one transaction."""
        waiting = iter(ids)
        left = len(ids)
        while left:
            with self._work.write() as conn:
                gone = _delete_some(conn, statements, waiting)
            left -= gone
            self._work.done.swept_rows += gone
            self._work.logged(gone * PAGE_BYTES)
            self._work.checkpoint()

    def vacuum(self) -> bool:
        """Give some free pages back to the file system; whether there were any."""
        until = time.monotonic() + STEP_S
        with self._work.write() as conn:
            raw = driver(conn)
            (left,) = raw.execute("PRAGMA freelist_count").fetchone()
            while left and time.monotonic() < until:
                raw.execute("PRAGMA incremental_vacuum(16)").fetchall()
                (left,) = raw.execute("PRAGMA freelist_count").fetchone()
        self._work.logged(1 << 20)
        return bool(left)

    def free_pages(self) -> tuple[int, int]:
        """Free pages, and all."""
        with self._work.database.reading() as conn:
            raw = driver(conn)
            (free,), (pages,) = (
                raw.execute(f"PRAGMA {name}").fetchone() for name in ("freelist_count", "page_count")
            )
        return free, pages


def _delete_some(conn: Connection, statements: Sequence[str], ids: Iterator[int]) -> int:
    until = time.monotonic() + STEP_S
    raw = driver(conn)
    gone = 0
    for row_id in ids:
        for statement in statements:
            raw.execute(statement, (row_id,))
        gone += 1
        if time.monotonic() > until:
            break
    return gone
