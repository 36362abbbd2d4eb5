"""Which runs of an org are live, with their bounds, and how far its journal is in them: one checked row an org.

What this file guarantees: what a flip made true is read as it was written, or is known to be damaged. No column of
``run`` decides what is read: a bound, a ``live_at`` or a whole row that damage took is found by this list. Where the
list itself is damaged, the rows of ``run`` are believed, and that is told.
docs/format/tables.md has the layout.
"""

from __future__ import annotations

import struct
import threading
import zlib
from collections import OrderedDict
from dataclasses import dataclass
from functools import cached_property
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from sqlalchemy.dialects.sqlite import insert as upsert

from meterite.model.errors import DamagedError
from meterite.storage.database import driver_of
from meterite.storage.row_fetch import fetch_blob
from meterite.storage.schema import live_runs as live_runs_table
from meterite.storage.sections import damaged

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from numpy.typing import NDArray
    from sqlalchemy import Connection

LIVE_RUN: Final = np.dtype(
    [
        ("id", "<i8"),
        ("window", "<i8"),
        ("seq_first", "<i8"),
        ("seq_last", "<i8"),
        ("applied_seq", "<i8"),
        ("series_first", "<i8"),
        ("series_last", "<i8"),
        ("at_first", "<i8"),
        ("at_last", "<i8"),
        ("count", "<i8"),
        ("bytes", "<i8"),
        ("live_at", "<i8"),
        ("groups", "<u4"),
        ("directory_crc", "<u4"),
    ]
)
"""A run as its row has it; ``directory_crc`` is its directory's, in that one's bytes 4 to 7."""

LIVE_RUNS: Final = "live_runs"
"""The kind under which a damaged list is in quarantine; its ``row_id`` is the org."""
_MAGIC: Final = b"MLR1"
_HEADER: Final = struct.Struct("<4sIIqq")
_CHECKED_FROM: Final = 8
_ORGS_KEPT: Final = 1024
_SELECT: Final = "SELECT data FROM live_runs WHERE org = ?"
RUN_COLUMNS: Final = (LIVE_RUN.names or ())[:-1]
"""What a row of ``run`` has as well."""
_FROM_ROWS: Final = (
    f"SELECT {', '.join(RUN_COLUMNS)}, substr(directory, 5, 4) FROM run"  # noqa: S608 -- our own names
    " WHERE org = ? AND live_at IS NOT NULL AND dead_at IS NULL ORDER BY id"
)


@dataclass(frozen=True, slots=True)
class Run:
    """The sorted row groups that one compaction wrote. The fields are those of :data:`LIVE_RUN`."""

    id: int
    window: int
    seq_first: int
    seq_last: int
    applied_seq: int
    series_first: int
    series_last: int
    at_first: int
    at_last: int
    count: int
    bytes: int
    live_at: int
    groups: int
    directory_crc: int

    def made_live(self, now_us: int) -> Run:
        values = list(_VALUES(self))
        values[_LIVE_AT] = now_us
        return Run(*values)


_LIVE_AT: Final = Run.__slots__.index("live_at")
_VALUES: Final[Callable[[Run], tuple[int, ...]]] = attrgetter(*Run.__slots__)


@dataclass(frozen=True, eq=False)
class LiveRuns:
    """``rows`` by id. Journal rows up to ``compacted_seq`` lie in them. ``fault`` says what is wrong with the list.

    A flip of few runs among thousands makes no object of the others: it happens while the writer's lock is held.
    """

    org_id: int
    compacted_seq: int
    rows: NDArray[np.void]
    fault: str = ""

    @staticmethod
    def of(org_id: int, compacted_seq: int, runs: Iterable[Run], fault: str = "") -> LiveRuns:
        return LiveRuns(org_id, compacted_seq, _rows_of(runs), fault)

    @cached_property
    def runs(self) -> tuple[Run, ...]:
        return tuple(Run(*row) for row in self.rows.tolist())

    @cached_property
    def ids(self) -> frozenset[int]:
        return frozenset(self.rows["id"].tolist())

    def changed(
        self,
        *,
        compacted_seq: int | None = None,
        dead: Collection[int] = (),
        live: Collection[Run] = (),
    ) -> LiveRuns:
        """After a flip; its ``live`` runs take the place of those of the same id."""
        gone = np.array([*dead, *(run.id for run in live)], np.int64)
        rows = np.concatenate([self.rows[~np.isin(self.rows["id"], gone)], _rows_of(live)])
        seq = self.compacted_seq if compacted_seq is None else compacted_seq
        return LiveRuns(self.org_id, seq, rows[np.argsort(rows["id"])])


def _rows_of(runs: Iterable[Run]) -> NDArray[np.void]:
    return np.array([_VALUES(run) for run in runs], LIVE_RUN)


def directory_crc(directory: bytes) -> int:
    """What a list of live runs says of a directory."""
    return int.from_bytes(directory[4:8], "little")


def encode_live_runs(live: LiveRuns) -> bytes:
    header = _HEADER.pack(_MAGIC, 0, len(live.rows), live.org_id, live.compacted_seq)
    checked = header[_CHECKED_FROM:] + live.rows.tobytes()
    return _MAGIC + struct.pack("<I", zlib.crc32(checked)) + checked


def decode_live_runs(blob: bytes, org_id: int) -> LiveRuns:
    """DamagedError for bytes that weren't written for this org."""
    if len(blob) < _HEADER.size or blob[:4] != _MAGIC:
        raise damaged("no list of live runs begins here")
    _, crc, count, owner, compacted_seq = _HEADER.unpack_from(blob)
    if zlib.crc32(memoryview(blob)[_CHECKED_FROM:]) != crc:
        raise damaged("a list of live runs fails its checksum")
    if len(blob) != _HEADER.size + count * LIVE_RUN.itemsize or owner != org_id:
        raise damaged("a list of live runs isn't of this org")
    return LiveRuns(org_id, compacted_seq, np.frombuffer(blob, LIVE_RUN, offset=_HEADER.size))


def read_live_runs(conn: Connection, org_id: int) -> LiveRuns:
    """As of the connection's transaction. Where the list can't be believed, as the rows have it, with a ``fault``."""
    try:
        blob = fetch_blob(driver_of(conn), _SELECT, (org_id,))
        if blob is not None:
            return decode_live_runs(blob, org_id)
    except DamagedError as exc:
        return _by_rows(conn, org_id, exc.message)
    return _by_rows(conn, org_id, "")


def _by_rows(conn: Connection, org_id: int, fault: str) -> LiveRuns:
    """An org of which nothing was ever compacted has no list, and needs none."""
    raw = driver_of(conn)
    (seq,) = raw.execute("SELECT compacted_seq FROM org WHERE id = ?", (org_id,)).fetchone() or (0,)
    runs = [_run_of(row) for row in raw.execute(_FROM_ROWS, (org_id,)).fetchall()]
    known = tuple(run for run in runs if run is not None)
    if not fault and (seq or runs):
        fault = "A list of live runs is missing."
    return LiveRuns.of(org_id, seq, known, fault)


def _run_of(row: tuple[Any, ...]) -> Run | None:
    *numbers, directory = row
    if not all(isinstance(number, int) for number in numbers) or not isinstance(directory, bytes):
        return None
    values = (*numbers, int.from_bytes(directory, "little"))
    return Run(*values)


def write_live_runs(conn: Connection, live: LiveRuns) -> None:
    """Within the flip's transaction."""
    statement = upsert(live_runs_table).values(org=live.org_id, data=encode_live_runs(live))
    changed = {"data": statement.excluded["data"]}
    conn.execute(statement.on_conflict_do_update(index_elements=("org",), set_=changed))


def orgs_with_runs(conn: Connection) -> list[int]:
    """Orgs that have a list, or should."""
    query = "SELECT org FROM live_runs UNION SELECT id FROM org WHERE compacted_seq > 0"
    return sorted(row[0] for row in driver_of(conn).execute(query))


class LiveRunsIndex:
    """The lists as they were last read, so that one that didn't change isn't decoded again."""

    def __init__(self) -> None:
        self._kept: OrderedDict[int, tuple[bytes, LiveRuns]] = OrderedDict()
        self._guard = threading.Lock()

    def live_runs(self, conn: Connection, org_id: int) -> LiveRuns:
        """As :func:`read_live_runs`."""
        try:
            blob = fetch_blob(driver_of(conn), _SELECT, (org_id,))
            if blob is None:
                return _by_rows(conn, org_id, "")
            with self._guard:
                kept = self._kept.get(org_id)
            if kept is not None and kept[0] == blob:
                return kept[1]
            live = decode_live_runs(blob, org_id)
        except DamagedError as exc:
            return _by_rows(conn, org_id, exc.message)
        with self._guard:
            self._kept[org_id] = blob, live
            self._kept.move_to_end(org_id)
            while len(self._kept) > _ORGS_KEPT:
                self._kept.popitem(last=False)
        return live
