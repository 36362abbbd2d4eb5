"""Every page of the file by SQLite's own check, every row against its checksum and what the rows around it say of it.

What this file guarantees: nothing is written; what is found wrong comes out as sentences that name table and row, and
the search goes on behind it. Beside running workers it looks at each org as of one moment.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from meterite.model.columns import NO_TIME
from meterite.model.errors import DamagedError, MalformedFileError
from meterite.model.metric import SERIES_ORDINAL_BITS
from meterite.storage.audit_events import EventAudit
from meterite.storage.backlog import last_id_of
from meterite.storage.commit_times import decode_commit_times, read_times
from meterite.storage.journal import driver
from meterite.storage.journal_index import JournalIndex
from meterite.storage.journalrow import decode_journal, journal_checksum
from meterite.storage.live_runs import RUN_COLUMNS, directory_crc, read_live_runs
from meterite.storage.push_groups import faults_of_groups
from meterite.storage.rowgroup import RowGroup, decode_directory
from meterite.storage.schema import JOURNAL_ROW_BITS, SEGMENT_BITS
from meterite.storage.snapshot import Parts, RowGroups, Snapshot, compacted_seq
from meterite.storage.state import States, finite, newest_two
from meterite.storage.state_block import decode_state_block
from meterite.storage.windows import window_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from sqlalchemy import Connection

    from meterite.model.columns import Columns, type_i64
    from meterite.storage.live_runs import Run
    from meterite.storage.store import SqliteStore

STATES_LOOKED_AT: Final = 1000
_ROWS: Final = 20
_PAGE_FAULTS_MAX: Final = 20
_JOURNAL: Final = (
    "SELECT id, org, series_first, series_last, at_first, at_last, count, recorded_at, data, checksum"
    " FROM journal WHERE id > ? ORDER BY id LIMIT ?"
)
_SUMS: Final = (
    "seq_first", "seq_last", "series_first", "series_last", "at_first", "at_last", "count", "groups", "bytes",
)  # fmt: skip


class Audit:
    """One look at the whole file. Counts what it saw."""

    def __init__(self, store: SqliteStore) -> None:
        self._store = store
        self._database = store.database
        self._parts = Parts(store.database, RowGroups(0), JournalIndex(), _ignore)
        self.events = EventAudit(store.database, store.event_reader)
        self.journal_rows = 0
        self.runs = 0
        self.readings = 0
        self.states = 0

    def faults(self) -> Iterator[str]:
        yield from self._pages()
        yield from self._quarantine()
        yield from self._journal()
        yield from self._orphans()
        yield from self.events.faults()
        with self._database.reading() as conn:
            yield from faults_of_groups(driver(conn))
        with self._database.reading() as conn:
            orgs = [row[0] for row in driver(conn).execute("SELECT id FROM org ORDER BY id")]
        for org_id in orgs:
            yield from self._org(org_id)

    def _pages(self) -> Iterator[str]:
        """Rows of ours tell nothing of indexes, nor of tables that no row vouches for (receipts)."""
        try:
            yield from self._integrity(f"integrity_check({_PAGE_FAULTS_MAX})")
        except MalformedFileError:  # too damaged to be looked at as a whole
            with self._database.reading() as conn:
                query = "SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name"
                tables = [row[0] for row in driver(conn).execute(query)]
            for table in tables:
                try:
                    yield from self._integrity(f"integrity_check({table})")
                except MalformedFileError as exc:
                    yield f"SQLite's integrity_check of {table}: {exc.__cause__}"

    def _integrity(self, check: str) -> Iterator[str]:
        with self._database.reading() as conn:
            found = driver(conn).execute(f"PRAGMA {check}").fetchall()
        lines = [line for (text,) in found for line in text.splitlines()]
        if lines != ["ok"]:
            yield from (f"SQLite's integrity_check: {line}" for line in lines[:_PAGE_FAULTS_MAX])

    def _quarantine(self) -> Iterator[str]:
        with self._database.reading() as conn:
            rows = driver(conn).execute("SELECT kind, row_id, reason FROM quarantine ORDER BY id").fetchall()
        for kind, row_id, reason in rows:
            yield f"{kind} row {row_id} is in quarantine: {reason}"

    # The journal

    def _journal(self) -> Iterator[str]:
        last = -1
        while True:
            with self._database.reading() as conn:
                raw = driver(conn)
                rows = raw.execute(_JOURNAL, (last, _ROWS)).fetchall()
                orgs = [row[0] for row in raw.execute("SELECT id FROM org").fetchall()]
                compacted = {org_id: compacted_seq(conn, org_id) for org_id in orgs}
                swept = dict(raw.execute("SELECT org, max(seq) FROM flip GROUP BY org").fetchall())
                bad = {r[0] for r in raw.execute("SELECT row_id FROM quarantine WHERE kind = 'journal'")}
            if not rows:
                return
            for row in rows:
                row_id, org_id = row[0], row[1]
                self.journal_rows += 1
                if row_id in bad:
                    continue
                if org_id not in compacted:
                    yield f"journal row {row_id} belongs to org {org_id}, which isn't there."
                elif row_id <= last_id_of(compacted[org_id]) and row_id > last_id_of(swept.get(org_id, -1)):
                    yield f"journal row {row_id} is an orphan: it is compacted, and nobody will remove it."
                yield from self._journal_row(row)
            last = rows[-1][0]

    def _journal_row(self, row: tuple[Any, ...]) -> Iterator[str]:
        row_id, _, s0, s1, a0, a1, count, _, data, checksum = row
        if journal_checksum(*row[:9]) != checksum:
            yield f"journal row {row_id}: its checksum doesn't hold."
            return
        try:
            columns = decode_journal(data, row_id >> JOURNAL_ROW_BITS)
        except DamagedError as exc:
            yield f"journal row {row_id}: {exc.message}"
            return
        if not len(columns) or _bounds(columns)[2:] != (s0, s1, a0, a1, count):
            yield f"journal row {row_id}: its bounds aren't its readings'."

    # What belongs to nothing

    def _orphans(self) -> Iterator[str]:
        run_id = 0
        while True:  # from run to run: the segments of one are not all looked at
            with self._database.reading() as conn:
                raw = driver(conn)
                query = "SELECT id >> 20 FROM segment WHERE id >= ? ORDER BY id LIMIT 1"
                row = raw.execute(query, (run_id << SEGMENT_BITS,)).fetchone()
                if row is None:
                    break
                if raw.execute("SELECT 1 FROM run WHERE id = ?", row).fetchone() is None:
                    yield f"segments of run {row[0]} are orphans: there is no such run."
            run_id = row[0] + 1
        for what, query in (
            ("series", "SELECT id FROM series WHERE metric NOT IN (SELECT id FROM metric)"),
            ("metric", "SELECT id FROM metric WHERE org NOT IN (SELECT id FROM org)"),
            ("run", "SELECT id FROM run WHERE org NOT IN (SELECT id FROM org)"),
        ):
            with self._database.reading() as conn:
                found = [row[0] for row in driver(conn).execute(f"{query} LIMIT 100")]
            for row_id in found:
                yield f"{what} row {row_id} is an orphan: what it belongs to isn't there."

    # One org

    def _org(self, org_id: int) -> Iterator[str]:
        self._store.streams.enter()
        try:
            with self._database.reading() as conn:
                snapshot = Snapshot(self._parts, conn, org_id, close=_ignore)
                yield from _live_runs(conn, org_id)
            for run in snapshot.runs:
                self.runs += 1
                yield from self._run(snapshot, run)
            yield from self._commit_times(org_id)
            if not snapshot.quarantined:
                yield from self._states(org_id)
        except DamagedError as exc:
            yield f"org {org_id}: {exc.message}"
        finally:
            self._store.streams.leave()

    def _run(self, snapshot: Snapshot, run: Run) -> Iterator[str]:
        with self._database.reading() as conn:
            names = ", ".join(_SUMS)
            query = f"SELECT directory, {names} FROM run WHERE id = ?"  # noqa: S608 -- our own names
            row = driver(conn).execute(query, (run.id,)).fetchone()
            if row is None:
                yield f"run {run.id} is missing; the list of live runs names it."
                return
            blob, *stored = row
            low, high = run.id << SEGMENT_BITS, run.id + 1 << SEGMENT_BITS
            query = "SELECT count(*) FROM segment WHERE id >= ? AND id < ?"
            (segments,) = driver(conn).execute(query, (low, high)).fetchone()
        try:
            directory = decode_directory(blob)
        except DamagedError as exc:
            yield f"run {run.id}: {exc.message}"
            return
        if directory_crc(blob) != run.directory_crc:
            yield f"run {run.id}: its directory isn't the one that the list of live runs means."
        if not len(directory) or _sums(directory) != stored:
            yield f"run {run.id}: its counts or bounds aren't its directory's."
        if segments != len(directory):
            yield f"run {run.id} has {segments} segments, its directory names {len(directory)}."
        previous: tuple[int, int] | None = None
        for number in range(len(directory)):
            segment_id = low | number
            if ("segment", segment_id) in snapshot.bad:
                continue
            entry = directory[number]
            first = int(entry["series_first"]), int(entry["first_at"])
            if previous is not None and first < previous:
                yield f"segment {segment_id} isn't in its place within run {run.id}."
            previous = int(entry["series_last"]), int(entry["last_at"])
            yield from self._segment(snapshot, run, segment_id, entry)

    def _segment(self, snapshot: Snapshot, run: Run, segment_id: int, entry: np.void) -> Iterator[str]:
        with self._database.reading() as conn:
            row = driver(conn).execute("SELECT data, org FROM segment WHERE id = ?", (segment_id,)).fetchone()
        if row is None:
            yield f"segment {segment_id} is missing."
            return
        try:
            group = RowGroup(row[0])
            columns = group.columns()
        except DamagedError as exc:
            yield f"segment {segment_id}: {exc.message}"
            return
        self.readings += len(columns)
        crc = int.from_bytes(row[0][4:8], "little")
        names = ("seq_first", "seq_last", "series_first", "series_last", "at_first", "at_last", "count")
        bounds = _bounds(columns)
        stored = tuple(int(entry[name]) for name in names)
        header = tuple(getattr(group.bounds, name) for name in names)
        if (crc, len(row[0])) != (entry["crc"], entry["bytes"]) or not bounds == stored == header:
            yield f"segment {segment_id} isn't what run {run.id}'s directory says."
        if not _is_sorted(columns):
            yield f"segment {segment_id}: its readings aren't sorted."
        if row[1] != snapshot.org_id or {window_of(bounds[4]), window_of(bounds[5])} != {run.window}:
            yield f"segment {segment_id} isn't of run {run.id}'s org and month."
        yield from self._references(snapshot, segment_id, columns)

    def _references(self, snapshot: Snapshot, segment_id: int, columns: Columns) -> Iterator[str]:
        """Readings belong to series that are there and to commits whose time is known."""
        series = np.unique(columns.series)
        with self._database.reading() as conn:
            known = _known_series(conn, snapshot.org_id, series)
        if not np.isin(series, known).all():
            yield f"segment {segment_id} holds readings of series that aren't there."
        with self._database.reading() as conn:
            times, _ = read_times(driver(conn), snapshot.org_id, np.unique(columns.seq))
        if (times == NO_TIME).any():
            yield f"segment {segment_id} holds readings of commits whose time isn't known."

    def _commit_times(self, org_id: int) -> Iterator[str]:
        after = -1
        query = (
            "SELECT seq_first, seq_last, data FROM commit_time WHERE org = ? AND seq_first > ?"
            " ORDER BY seq_first LIMIT 1"
        )
        while True:
            with self._database.reading() as conn:
                row = driver(conn).execute(query, (org_id, after)).fetchone()
            if row is None:
                return
            try:
                seq, recorded_at = decode_commit_times(row[2])
                ascend = bool((seq[1:] > seq[:-1]).all() and (recorded_at[1:] > recorded_at[:-1]).all())
                if not len(seq) or (seq[0], seq[-1]) != row[:2] or not ascend:
                    yield f"commit times of org {org_id} from seq {row[0]} aren't what their row says."
            except DamagedError as exc:
                yield f"commit times of org {org_id} from seq {row[0]}: {exc.message}"
            after = row[0]

    def _states(self, org_id: int) -> Iterator[str]:
        """Current and last, as kept and as the readings have them."""
        with self._database.reading() as conn:
            snapshot = Snapshot(self._parts, conn, org_id, close=_ignore)
            query = "SELECT id FROM metric WHERE org = ? AND deleted_at IS NULL ORDER BY id"
            metrics = [row[0] for row in driver(conn).execute(query, (org_id,))]
            metrics = metrics[:: len(metrics) // STATES_LOOKED_AT + 1]
            entries = States().entries(conn, snapshot, metrics)
            blocks = driver(conn).execute("SELECT block, data FROM state WHERE org = ?", (org_id,)).fetchall()
        for block, data in blocks:
            try:
                decode_state_block(data)
            except DamagedError as exc:
                yield f"state block {block} of org {org_id}: {exc.message} It is made anew by the next compaction."
        for metric_id, entry in zip(metrics, entries, strict=True):
            self.states += 1
            if finite(entry or ()) != newest_two(snapshot, metric_id):
                yield f"metric {metric_id}: its current or last reading isn't what its readings say."


def _live_runs(conn: Connection, org_id: int) -> Iterator[str]:
    """The list against the rows that say the same."""
    raw = driver(conn)
    live = read_live_runs(conn, org_id)
    if live.fault:
        yield f"live_runs row of org {org_id}: {live.fault}"
    (seq,) = raw.execute("SELECT compacted_seq FROM org WHERE id = ?", (org_id,)).fetchone()
    if seq != live.compacted_seq:
        yield f"org {org_id}: its compacted_seq is {seq}, the list of live runs has {live.compacted_seq}."
    names = ", ".join(RUN_COLUMNS)
    query = f"SELECT {names} FROM run WHERE org = ? AND live_at IS NOT NULL AND dead_at IS NULL"  # noqa: S608 -- our own names
    rows = {row[0]: row for row in raw.execute(query, (org_id,))}
    for run in live.runs:
        if rows.pop(run.id, None) != tuple(getattr(run, name) for name in RUN_COLUMNS):
            yield f"run {run.id}: its row isn't what the list of live runs says."
    for run_id in rows:
        yield f"run {run_id} says that it is live; the list of live runs doesn't name it."


def _ignore(*_args: object) -> None:
    """Damage is told, not noted; and no snapshot of ours is counted."""


def _bounds(columns: Columns) -> tuple[int, ...]:
    outer = [int(f(c)) for c in (columns.seq, columns.series, columns.at_us) for f in (np.min, np.max)]
    return (*outer, len(columns))


def _sums(directory: NDArray[np.void]) -> list[int]:
    lows = [int(directory[name].min()) for name in _SUMS[0:6:2]]
    highs = [int(directory[name].max()) for name in _SUMS[1:6:2]]
    outer = [bound for pair in zip(lows, highs, strict=True) for bound in pair]
    totals = [int(directory[name].sum(dtype=np.int64)) for name in ("count", "bytes")]
    return [*outer, totals[0], len(directory), totals[1]]


def _is_sorted(columns: Columns) -> bool:
    rising = None
    for column in (columns.seq, columns.at_us, columns.series):
        later, same = column[1:] > column[:-1], column[1:] == column[:-1]
        rising = later | same if rising is None else later | (same & rising)
    return rising is None or bool(rising.all())


def _known_series(conn: Connection, org_id: int, series: type_i64) -> type_i64:
    """Those of the ids that are there; a deleted metric's are, without a row."""
    metrics = np.unique(series >> SERIES_ORDINAL_BITS).tolist()
    known: list[int] = []
    for metric_id in metrics:
        row = driver(conn).execute("SELECT org, deleted_at FROM metric WHERE id = ?", (metric_id,)).fetchone()
        if row is None or row[0] != org_id:
            continue
        first = metric_id << SERIES_ORDINAL_BITS
        mine = series[(series >= first) & (series < metric_id + 1 << SERIES_ORDINAL_BITS)]
        if row[1] is not None:
            known += mine.tolist()
            continue
        known.append(first)
        query = "SELECT id FROM series WHERE id >= ? AND id <= ?"
        rows = driver(conn).execute(query, (int(mine[0]), int(mine[-1])))
        known += [row[0] for row in rows]
    return np.array(known, np.int64)
