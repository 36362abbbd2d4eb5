"""Writes runs: sorted readings in, row groups and their directory out, invisible until the flip.

What this file guarantees: row groups are encoded before the writer's lock is taken; a transaction writes about
``FLUSH_BYTES`` and ``FLUSH_RUNS`` at most; readings of one key stay in one row group (but where a key has over a
million).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from meterite.model.columns import Columns
from meterite.storage.journal import driver
from meterite.storage.live_runs import Run, directory_crc
from meterite.storage.rowgroup import ROW_GROUP_READINGS, directory_entry, encode_directory, encode_row_group
from meterite.storage.schema import SEGMENT_BITS
from meterite.storage.work import DroppedError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from sqlalchemy import Connection

    from meterite.storage.work import Work

FLUSH_BYTES: Final = 1 << 20
FLUSH_RUNS: Final = 64
_GROUP_LAST: Final = ROW_GROUP_READINGS * 16
_NAMES: Final = (
    "org", "window", "seq_first", "seq_last", "applied_seq", "series_first", "series_last", "at_first", "at_last",
    "count", "groups", "bytes", "directory",
)  # fmt: skip
_INSERT: Final = f"INSERT INTO run ({', '.join(_NAMES)}) VALUES ({', '.join('?' * len(_NAMES))})"  # noqa: S608 -- our own names
_UPDATE: Final = f"UPDATE run SET {', '.join(f'{name} = ?' for name in _NAMES)} WHERE id = ?"  # noqa: S608 -- our own names
_STILL_OURS: Final = "SELECT 1 FROM run WHERE id = ? AND live_at IS NULL AND dead_at IS NULL"


@dataclass(slots=True)
class _Run:
    window: int
    applied_seq: int
    id: int = 0
    entries: list[NDArray[np.void]] = field(default_factory=list)
    blobs: list[tuple[int, bytes]] = field(default_factory=list)
    finished: bool = False
    values: dict[str, Any] = field(default_factory=dict)
    """Of a finished one, as they go into its row."""


class RunWriter:
    """For runs of one org, one after the other."""

    def __init__(self, work: Work, org_id: int) -> None:
        self._work = work
        self.org_id = org_id
        self._runs: list[_Run] = []
        self._parts: list[Columns] = []
        self._buffered = 0
        self._unwritten = 0
        self.runs: list[Run] = []
        """Those that were finished and written, not yet live."""

    def begin(self, window: int, applied_seq: int) -> None:
        self._runs.append(_Run(window, applied_seq))

    def add(self, columns: Columns) -> None:
        """Readings after all those added before; equal keys not spread over two calls."""
        self._parts.append(columns)
        self._buffered += len(columns)
        if self._buffered >= ROW_GROUP_READINGS:
            self._cut(at_least=ROW_GROUP_READINGS)

    def copy(self, blob: bytes, entry: NDArray[np.void]) -> None:
        """A row group as it is, after what was added before."""
        self._cut(at_least=1)
        self._put(blob, entry)

    def finish(self) -> None:
        """The run is whole; one without readings isn't written."""
        self._cut(at_least=1)
        run = self._runs[-1]
        if run.entries:
            run.finished = True
            run.values = _values(run)
        else:
            self._runs.pop()
        if len(self._runs) >= FLUSH_RUNS:
            with self._work.write() as conn:
                self.flush(conn)

    def _cut(self, at_least: int) -> None:
        if not self._buffered:
            return
        columns = Columns.concat(self._parts)
        start = 0
        while len(columns) - start >= at_least:
            stop = _group_end(columns, start)
            group = columns.take(slice(start, stop))
            blob = encode_row_group(group)
            self._work.done.encoded_readings += len(group)
            self._work.done.encoded_bytes += len(blob)
            self._put(blob, directory_entry(blob, group))
            start = stop
        self._parts = [columns.take(slice(start, None))] if start < len(columns) else []
        self._buffered = len(columns) - start

    def _put(self, blob: bytes, entry: NDArray[np.void]) -> None:
        run = self._runs[-1]
        run.blobs.append((len(run.entries), blob))
        run.entries.append(entry)
        self._unwritten += len(blob)
        if self._unwritten >= FLUSH_BYTES:
            with self._work.write() as conn:
                self.flush(conn)

    def flush(self, conn: Connection) -> None:
        """Write what is waiting within the caller's transaction: the last of it in the flip's own.

        DroppedError where another process took a run of ours for one that a crash left, and sweeps it.
        """
        raw = driver(conn)
        for run in self._runs:
            if run.id and raw.execute(_STILL_OURS, (run.id,)).fetchone() is None:
                raise DroppedError
            values = run.values if run.finished else _unfinished(run)
            row = [self.org_id, *(values[name] for name in _NAMES[1:])]
            if not run.id:
                run.id = raw.execute(_INSERT, row).lastrowid or 0
            elif run.finished:
                raw.execute(_UPDATE, (*row, run.id))
            raw.executemany(
                "INSERT INTO segment VALUES (?,?,?)",
                [(run.id << SEGMENT_BITS | number, self.org_id, blob) for number, blob in run.blobs],
            )
            run.blobs.clear()
            if run.finished:
                self.runs.append(_written(run.id, values))
        self._runs = [run for run in self._runs if not run.finished]
        self._work.logged(self._unwritten)
        self._unwritten = 0


def _unfinished(run: _Run) -> dict[str, Any]:
    zeros = (
        "seq_first", "seq_last", "series_first", "series_last", "at_first", "at_last", "count", "groups", "bytes",
    )  # fmt: skip
    return dict.fromkeys(zeros, 0) | {
        "window": run.window,
        "applied_seq": run.applied_seq,
        "directory": b"",
    }


def _values(run: _Run) -> dict[str, Any]:
    directory = np.concatenate(run.entries)
    values: dict[str, Any] = {
        "window": run.window,
        "applied_seq": run.applied_seq,
        "count": int(directory["count"].sum(dtype=np.int64)),
        "groups": len(directory),
        "bytes": int(directory["bytes"].sum(dtype=np.int64)),
        "directory": encode_directory(directory),
    }
    for name in ("seq", "series", "at"):
        values[f"{name}_first"] = int(directory[f"{name}_first"].min())
        values[f"{name}_last"] = int(directory[f"{name}_last"].max())
    return values


def _written(run_id: int, values: dict[str, Any]) -> Run:
    numbers = {name: value for name, value in values.items() if name != "directory"}
    return Run(id=run_id, live_at=0, directory_crc=directory_crc(values["directory"]), **numbers)


def _group_end(columns: Columns, start: int) -> int:
    """Where the row group that begins at ``start`` ends: before a key that it couldn't hold whole."""
    stop = start + ROW_GROUP_READINGS
    if stop >= len(columns):
        return len(columns)
    series, at_us = columns.series, columns.at_us
    if series[stop] != series[stop - 1] or at_us[stop] != at_us[stop - 1]:
        return stop
    same = (series[start:] == series[stop]) & (at_us[start:] == at_us[stop])
    rows = np.flatnonzero(same) + start
    if rows[0] > start:
        return int(rows[0])
    return min(int(rows[-1]) + 1, start + _GROUP_LAST)
