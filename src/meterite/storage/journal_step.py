"""The first step of compaction: a prefix of an org's journal becomes runs, one a month.

What this file guarantees: the new runs, the org's ``compacted_seq``, states, watermarks and commit times change in one
small transaction, and only if ``compacted_seq`` is still what it was when the prefix was read; so a reading lies
either in the journal or in a run, never in both and never in neither. A damaged row stays where it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from sqlalchemy import insert
from sqlalchemy.dialects.sqlite import insert as upsert

from meterite.model.columns import Columns
from meterite.model.errors import DamagedError
from meterite.model.metric import SERIES_ORDINAL_BITS
from meterite.storage.commit_times import (
    COMMIT_TIME,
    decode_commit_times,
    encode_commit_times,
    quarantine_id,
)
from meterite.storage.flip_runs import flip_runs
from meterite.storage.journal import driver, read_clock, write_clock
from meterite.storage.journal_sort import JournalSorter, newest_keys
from meterite.storage.resolve import resolve
from meterite.storage.row_fetch import checked_data, fetch_blob, sane_bounds
from meterite.storage.run_writer import FLUSH_BYTES, RunWriter
from meterite.storage.schema import JOURNAL_ROW_BITS
from meterite.storage.schema import commit_time as commit_time_table
from meterite.storage.schema import flip as flip_table
from meterite.storage.schema import state as state_table
from meterite.storage.schema import watermark as watermark_table
from meterite.storage.snapshot import compacted_seq, pieces_of
from meterite.storage.state import BLOCK_BITS, encode_block, everything, fold_fresh, read_block
from meterite.storage.tombstones import mask_erased
from meterite.storage.watermarks import encode_watermarks, read_marks
from meterite.storage.work import blocked

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from sqlalchemy import Connection, Table

    from meterite.model.columns import type_i64
    from meterite.storage.snapshot import Snapshot
    from meterite.storage.state import Entry
    from meterite.storage.work import Work

COMMIT_TIMES_BLOCK: Final = 65_536


@dataclass(frozen=True, slots=True)
class _Prefix:
    """Rows of commits after ``from_seq`` up to ``upto``: the snapshot's journal but for damaged ones."""

    snapshot: Snapshot
    from_seq: int
    upto: int
    rows: NDArray[np.void]


@dataclass(frozen=True, slots=True)
class _Flip:
    """What becomes true together."""

    prefix: _Prefix
    writer: RunWriter
    blocks: list[dict[str, Any]]
    times: list[dict[str, Any]]
    marks: dict[str, Any]


def compact_journal(work: Work, org_id: int) -> None:
    """DroppedError where another was faster, DamagedError where a row turned out damaged (it is noted)."""
    with work.database.reading() as conn:
        prefix = _take_prefix(work, conn, org_id)
    work.store.flush_damage()  # a damaged row is in quarantine before the flip passes it by
    sorter = JournalSorter(int(prefix.rows["count"].sum()))
    times = list(_read_rows(work, prefix, sorter))
    sorter.finish()
    writer = RunWriter(work, org_id)
    newest, windows = _write_runs(work, prefix, sorter, writer)
    metrics = set(np.unique(sorter.series >> SERIES_ORDINAL_BITS).tolist())
    count = len(sorter)
    del sorter
    with work.database.reading() as conn:
        blocks = _state_blocks(conn, prefix, newest, metrics)
        commit_times = _commit_times(work, conn, org_id, times)
        marks = _watermarks(conn, prefix, newest)
    _flip(work, _Flip(prefix, writer, blocks, commit_times, marks))
    work.backlog.bury(org_id, prefix.upto)
    work.dirty.update((org_id, window) for window in windows)
    work.done.flips += 1
    work.done.journal_readings += count


def _take_prefix(work: Work, conn: Connection, org_id: int) -> _Prefix:
    work.learn(conn)
    from_seq = compacted_seq(conn, org_id)
    work.backlog.bury(org_id, from_seq)
    waiting = work.backlog.orgs.get(org_id)
    limits = work.limits
    upto = read_clock(conn).seq
    if waiting is not None:
        rows = waiting.prefix(limits.prefix_readings, limits.prefix_rows, limits.prefix_bytes)
        if rows < len(waiting.ids):
            upto = (waiting.ids[rows] >> JOURNAL_ROW_BITS) - 1
    snapshot = work.snapshot(conn, org_id, upto)
    return _Prefix(snapshot, from_seq, upto, snapshot.journal_rows(everything()))


def _read_rows(work: Work, prefix: _Prefix, sorter: JournalSorter) -> Iterator[tuple[int, int]]:
    """Fill the sorter; answers seq and time of each row."""
    snapshot = prefix.snapshot
    for rows in pieces_of(prefix.rows):
        work.check()
        for row in snapshot.fetch_journal(rows):
            try:
                sorter.add(checked_data(row), row[0] >> JOURNAL_ROW_BITS)
            except DamagedError as exc:
                snapshot.note_journal(row[0], row[2:6], exc.message)
                raise
            yield row[0] >> JOURNAL_ROW_BITS, row[7]


def _write_runs(
    work: Work, prefix: _Prefix, sorter: JournalSorter, writer: RunWriter
) -> tuple[Columns, list[int]]:
    """Answers the readings that may change a state, and the windows."""
    snapshot = prefix.snapshot
    tombstones = snapshot.tombstones.after(prefix.from_seq)
    live = {run.window for run in snapshot.runs}
    newest: list[Columns] = []
    windows = []
    for window, chunks in sorter.windows():
        complete = window not in live and not blocked(snapshot, window)
        writer.begin(window, prefix.upto)
        windows.append(window)
        for chunk in chunks:
            work.check()
            kept = mask_erased(chunk, tombstones)
            newest.append(newest_keys(kept))
            writer.add(resolve(kept, snapshot.policies, complete=complete))
        writer.finish()
    return Columns.concat(newest), windows


def _state_blocks(
    conn: Connection, prefix: _Prefix, newest: Columns, metrics: set[int]
) -> list[dict[str, Any]]:
    snapshot = prefix.snapshot
    erased = {t.series_first >> SERIES_ORDINAL_BITS for t in snapshot.tombstones.after(prefix.from_seq)}
    entries: dict[int, Entry] = {}
    for block in {metric_id >> BLOCK_BITS for metric_id in metrics | erased}:
        entries.update(read_block(conn, snapshot, block))
    changed = fold_fresh(entries, prefix.from_seq, newest, snapshot)
    for metric_id in metrics:  # erased at once, or NaN: the metric had a reading all the same
        if metric_id not in entries:
            entries[metric_id] = ()
            changed.add(metric_id)
    return [
        {"org": snapshot.org_id, "block": block, "seq": prefix.upto, "data": encode_block(entries, block)}
        for block in sorted({metric_id >> BLOCK_BITS for metric_id in changed})
    ]


def _watermarks(conn: Connection, prefix: _Prefix, newest: Columns) -> dict[str, Any]:
    snapshot = prefix.snapshot
    later = snapshot.tombstones.after(prefix.from_seq)
    marks = read_marks(driver(conn), snapshot.org_id, compacted=prefix.from_seq > 0).folded(newest, later)
    return {"org": snapshot.org_id, "data": encode_watermarks(marks)}


def _commit_times(
    work: Work, conn: Connection, org_id: int, times: list[tuple[int, int]]
) -> list[dict[str, Any]]:
    """The rows to write: the org's last block, where it isn't full, with the new ones after it."""
    if not times:
        return []
    both = np.array(times, np.int64)
    seq, first = np.unique(both[:, 0], return_index=True)
    recorded_at = both[first, 1]
    known_seq, known_at = _last_block(work, conn, org_id)
    if len(known_seq) < COMMIT_TIMES_BLOCK:
        seq, recorded_at = np.append(known_seq, seq), np.append(known_at, recorded_at)
    rows = []
    for start in range(0, len(seq), COMMIT_TIMES_BLOCK):
        part = slice(start, start + COMMIT_TIMES_BLOCK)
        rows.append(
            {
                "org": org_id,
                "seq_first": int(seq[part][0]),
                "seq_last": int(seq[part][-1]),
                "data": encode_commit_times(seq[part], recorded_at[part]),
            }
        )
    return rows


def _last_block(work: Work, conn: Connection, org_id: int) -> tuple[type_i64, type_i64]:
    """Empty where there is none, or a damaged one: what comes now goes into a block of its own."""
    empty = np.empty(0, np.int64), np.empty(0, np.int64)
    query = "SELECT max(seq_first) FROM commit_time WHERE org = ?"
    (seq_first,) = driver(conn).execute(query, (org_id,)).fetchone()
    if seq_first is None:
        return empty
    query = "SELECT data FROM commit_time WHERE org = ? AND seq_first = ?"
    try:
        return decode_commit_times(fetch_blob(driver(conn), query, (org_id, seq_first)) or b"")
    except DamagedError as exc:
        row_id = quarantine_id(org_id, seq_first)
        work.store.parts.damaged(COMMIT_TIME, row_id, org_id, sane_bounds(()), exc.message)
        return empty


def _flip(work: Work, flip: _Flip) -> None:
    prefix, org_id = flip.prefix, flip.prefix.snapshot.org_id
    size = sum(len(row["data"]) for row in [*flip.blocks, *flip.times, flip.marks])
    if size > FLUSH_BYTES:
        with work.write() as conn:
            flip.writer.flush(conn)
    with work.write() as conn:
        flip.writer.flush(conn)
        now = work.now()
        flip_runs(conn, org_id, now, live=flip.writer.runs, compacted=(prefix.from_seq, prefix.upto))
        _upsert(conn, state_table, flip.blocks, ("org", "block"))
        _upsert(conn, commit_time_table, flip.times, ("org", "seq_first"))
        _upsert(conn, watermark_table, [flip.marks], ("org",))
        if len(prefix.snapshot.journal):
            conn.execute(insert(flip_table).values(org=org_id, seq=prefix.upto, flipped_at=now))
        write_clock(
            conn, read_clock(conn)
        )  # the journal's last row, which counts as the clock, will be removed
    work.logged(size)


def _upsert(conn: Connection, table: Table, rows: list[dict[str, Any]], key: tuple[str, ...]) -> None:
    if rows:
        statement = upsert(table)
        changed = {name: statement.excluded[name] for name in rows[0] if name not in key}
        conn.execute(statement.on_conflict_do_update(index_elements=key, set_=changed), rows)
