"""Compaction: what is to be done next, by one process at a time, in steps that give way to requests.

What this file guarantees: at no moment is a reading seen twice or not at all; a crash anywhere leaves rows that nobody
sees, and they are swept later; the writer's lock is held for well under 50 ms at a time. docs/architecture.md tells
the way of a reading.
"""

from __future__ import annotations

import fcntl
import os
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from meterite.model.errors import DamagedError, MalformedFileError
from meterite.storage.event_upkeep import EventUpkeep
from meterite.storage.journal import driver
from meterite.storage.journal_step import compact_journal
from meterite.storage.live_runs import read_live_runs
from meterite.storage.once import ReceiptSweep
from meterite.storage.row_fetch import sane_bounds
from meterite.storage.run_merge import (
    apply_tombstones,
    choose_runs,
    merge_runs,
    unapplied,
    windows_to_look_at,
)
from meterite.storage.silence import Silences
from meterite.storage.snapshot import compacted_seq
from meterite.storage.sweep import Sweeper
from meterite.storage.windows import window_starts
from meterite.storage.work import Done, DroppedError, Limits, StoppedError, Work

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection

    from meterite.storage.backlog import Waiting
    from meterite.storage.live_runs import Run
    from meterite.storage.store import SqliteStore
    from meterite.storage.tombstones import Tombstone

_DELETE_TOMBSTONE = "DELETE FROM tombstone WHERE id = ?"


class Compactor:
    """Call :meth:`run_once` in a loop, from one thread; pause where it answers False. :meth:`stop` from any thread."""

    def __init__(self, store: SqliteStore, limits: Limits | None = None) -> None:
        self._work = Work(store, limits or Limits())
        self._work.pause = self._between
        self._sweeper = Sweeper(self._work)
        self._receipts = ReceiptSweep(self._work)
        self._silences = Silences(self._work)
        self._events = EventUpkeep(self._work)
        self._lock = Path(f"{store.database.path}.compact.lock")
        self._fd = -1
        self._looked = self._busy = 0.0
        self._tombstones_next = 0.0
        self._first_seen: dict[int, float] = {}
        self._upto_id: int | None = None
        self._idle = False
        self._in_a_row = 0

    @property
    def done(self) -> Done:
        return self._work.done

    def stop(self) -> None:
        """Let :meth:`run_once` end soon; what it was doing is done again by the next."""
        self._work.stopping.set()

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def only_until_now(self) -> None:
        """Take what is in the journal at this moment, and leave what comes later."""
        with self._work.database.reading() as conn:
            (last,) = driver(conn).execute("SELECT max(id) FROM journal").fetchone()
        self._upto_id = -1 if last is None else last

    def run_once(self) -> bool:
        """One step; whether there was anything to do. UnavailableError where the disk is full or the file locked.

        AsideError where something failed that nobody expected; it is left alone for a while.
        """
        return bool(self.attempt())

    def attempt(self) -> bool | None:
        """The same; None where it is another process's turn."""
        with self._alone() as alone:
            if not alone:
                return None
            try:
                worked = self._step()
                self._work.store.flush_damage()  # what no reader stumbles over is told all the same
                return worked  # noqa: TRY300 -- the others go on below
            except StoppedError:
                return False
            except DroppedError:
                self._work.done.dropped += 1
            except MalformedFileError:  # nothing to go around: at once it would be the same again
                self._looked = 0.0
                raise
            except DamagedError:
                self._work.store.flush_damage()
            except BaseException:
                self._looked = 0.0
                raise
            self._looked = 0.0
            return True

    @contextmanager
    def _alone(self) -> Iterator[bool]:
        """Whether this process may compact now. The lock dies with its holder."""
        if self._fd < 0:
            self._fd = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        try:
            yield True
        finally:
            fcntl.flock(self._fd, fcntl.LOCK_UN)

    def _step(self) -> bool:
        self._work.store.flush_damage()
        with self._work.database.reading() as conn:
            if self._work.learn(conn):
                self._busy, self._idle = time.monotonic(), False
        self._silences.look()
        self._work.checkpoint()
        org_id = self._due()
        if org_id is not None and self._in_a_row < self._work.limits.fan_in:
            self._in_a_row += 1
            self._compact_journal(org_id)
            self._sweeper.sweep()
            return True
        self._in_a_row = 0  # the rest gets its turn, too, where some journal is due at every moment
        self._look()
        worked = self._merge() or self._tombstones() or self._sweeper.sweep() or self._events.step()
        worked = worked or self._receipts.step(time.monotonic())
        return worked or org_id is not None or self._tidy()

    def _between(self) -> None:
        """In the middle of long work: the journal's turn."""
        with self._work.database.reading() as conn:
            self._work.learn(conn)
        org_id = self._due()
        if org_id is not None:
            self._compact_journal(org_id)
        self._silences.look()
        self._work.checkpoint()

    # The journal

    def _compact_journal(self, org_id: int) -> None:
        with self._work.turn_of(("journal of org", org_id)):
            compact_journal(self._work, org_id)

    def _due(self) -> int | None:
        """The org with the most readings among those whose journal is to be compacted."""
        limits, now = self._work.limits, self._work.now()
        best: tuple[int, int] | None = None
        for org_id, waiting in list(self._work.backlog.orgs.items()):
            if (best is None or waiting.readings > best[0]) and self._is_due(waiting, limits, now):
                if self._work.is_aside(("journal of org", org_id)) or not self._bury(org_id):
                    continue
                if waiting.ids and self._is_due(waiting, limits, now):
                    best = waiting.readings, org_id
        return None if best is None else best[1]

    def _bury(self, org_id: int) -> bool:
        """Forget what is in runs by now; False where there is no such org, since damage made one up."""
        parts = self._work.store.parts
        with self._work.database.reading() as conn:
            known = driver(conn).execute("SELECT 1 FROM org WHERE id = ?", (org_id,)).fetchone()
            seq = compacted_seq(conn, org_id)
            faults = parts.index.faults(conn)
        if known is not None:
            self._work.backlog.bury(org_id, seq)
            return True
        for row_id in self._work.backlog.drop(org_id):
            fault = faults.get(row_id)
            if fault is None:
                parts.damaged("journal", row_id, org_id, sane_bounds(()), "It belongs to no org.")
            else:
                parts.damaged("journal", row_id, fault.org_id, fault.bounds, fault.reason)
        self._work.store.flush_damage()
        return False

    def _is_due(self, waiting: Waiting, limits: Limits, now: int) -> bool:
        if self._upto_id is not None and waiting.ids[0] > self._upto_id:
            return False
        return (
            waiting.readings >= limits.journal_readings
            or waiting.bytes >= limits.journal_bytes
            or len(waiting.ids) >= limits.journal_rows
            or now - waiting.recorded_at[0] >= limits.journal_age_s * 1e6
        )

    # Runs

    def _look(self) -> None:
        """Now and then go through the run table, for what no memory names."""
        now = time.monotonic()
        known = self._looked and now - self._looked < self._work.limits.look_s
        if known and not self._work.look:
            return
        self._work.look = False
        self._sweeper.look()
        if not known and not (self._work.limits.last_tier and self._looked):
            with self._work.database.reading() as conn:
                self._work.dirty |= windows_to_look_at(conn)
        self._looked = now

    def _merge(self) -> bool:
        later = {key for key in self._work.dirty if self._work.is_aside(("month", key[1], "of org", key[0]))}
        self._work.dirty -= later
        try:
            while self._work.dirty:
                key = self._work.dirty.pop()
                with self._work.turn_of(("month", key[1], "of org", key[0])):
                    if self._merge_window(*key):
                        self._work.dirty.add(key)
                        return True
            return False
        finally:
            self._work.dirty |= later

    def _merge_window(self, org_id: int, window: int) -> bool:
        closes = int(window_starts(window + 1, window + 1)[0])
        with self._work.database.reading() as conn:
            chosen = choose_runs(conn, self._work.limits, org_id, window, self._work.now(), closes)
        return bool(chosen) and merge_runs(self._work, org_id, window, chosen)

    # Tombstones

    def _tombstones(self) -> bool:
        delay = self._work.limits.tombstone_delay_s
        now = time.monotonic()
        if now < self._tombstones_next:
            return False
        with self._work.database.reading() as conn:
            orgs = [row[0] for row in driver(conn).execute("SELECT DISTINCT org FROM tombstone ORDER BY org")]
        # A whole round of all orgs, so that one that can't be served doesn't keep the others waiting.
        worked = [org_id for org_id in orgs if self._turn_for_tombstones(org_id, delay)]
        if not worked:
            self._tombstones_next = now + min(60.0, delay)
        return bool(worked)

    def _turn_for_tombstones(self, org_id: int, delay: float) -> bool:
        if self._work.is_aside(("tombstones of org", org_id)):
            return False
        with self._work.turn_of(("tombstones of org", org_id)):
            return self._tombstones_of(org_id, delay)

    def _tombstones_of(self, org_id: int, delay: float) -> bool:
        with self._work.database.reading() as conn:
            snapshot = self._work.snapshot(conn, org_id)
        now = time.monotonic()
        old = {t.id for t in snapshot.tombstones if now - self._first_seen.setdefault(t.id, now) >= delay}
        worked = False
        if any(t.id in old and t.seq > snapshot.compacted_seq for t in snapshot.tombstones):
            self._compact_journal(org_id)
            worked = True
        for run in snapshot.runs:
            hiding = unapplied(snapshot, run)
            if len(hiding):
                rewrite = any(t.id in old for t in hiding)
                worked |= apply_tombstones(self._work, snapshot, run, hiding, rewrite=rewrite)
        return self._drop_tombstones(org_id, list(snapshot.tombstones)) or worked

    def _drop_tombstones(self, org_id: int, tombstones: list[Tombstone]) -> bool:
        """Those that hide nothing any more. Proven within the transaction."""
        dropped = 0
        for start in range(0, len(tombstones), 100):
            with self._work.database.reading() as conn:
                spent = _spent(conn, org_id, tombstones[start : start + 100])
            if spent:
                with self._work.write() as conn:
                    for tombstone in _spent(conn, org_id, spent):
                        dropped += driver(conn).execute(_DELETE_TOMBSTONE, (tombstone.id,)).rowcount
                        self._first_seen.pop(tombstone.id, None)
        if dropped:
            self._work.look = True  # labels of deleted metrics
        return dropped > 0

    # The file

    def _tidy(self) -> bool:
        """When nothing has come for a while: empty the log, and give back much free space."""
        if self._idle or time.monotonic() - self._busy < self._work.limits.idle_s:
            return False
        free, pages = self._sweeper.free_pages()
        if free > self._work.limits.free_pages_max and free * 4 > pages:
            self._sweeper.vacuum()
            return True
        if self._work.database.wal_bytes():
            self._work.checkpoint(truncate=True)
        self._idle = not self._work.database.wal_bytes()
        self._busy = time.monotonic()  # where a reader is in the way, not at once again
        return False

    def shrink(self) -> int:
        """Give all free pages back, in steps, and empty the log; answers the pages that the file had too many."""
        free, _ = self._sweeper.free_pages()
        while self._sweeper.vacuum():
            self._work.checkpoint()
        self._work.checkpoint(truncate=True)
        return free


def _spent(conn: Connection, org_id: int, tombstones: list[Tombstone]) -> list[Tombstone]:
    """Those that have nothing to hide any more, in the journal or in a run."""
    live = read_live_runs(conn, org_id)
    if live.fault:
        return []
    return [t for t in tombstones if t.seq <= live.compacted_seq and not any(_hides(t, r) for r in live.runs)]


def _hides(tombstone: Tombstone, run: Run) -> bool:
    return (
        max(run.applied_seq, run.seq_first) < tombstone.seq
        and run.series_first <= tombstone.series_last
        and run.series_last >= tombstone.series_first
        and run.at_first <= tombstone.at_last
        and run.at_last >= tombstone.at_first
    )
