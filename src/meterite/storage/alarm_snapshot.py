"""How an org's alarms stood behind some event row: kept, so that old event rows may go and starts are quick.

What this file guarantees: a snapshot and the event rows after it say what all event rows from the first on said. It is
written in parts, and counts only when all of them are there; a damaged one is as if it weren't there.
docs/format/events.md has the layout.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from meterite.model.errors import DamagedError
from meterite.model.event import EventType
from meterite.model.limits import ABOVE_MAX, BELOW_MIN, LATE, Alarm, kinds_of
from meterite.storage.alarms import fold_alarms
from meterite.storage.schema import EVENT_ROW_BITS
from meterite.storage.sections import damaged

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from meterite.model.event_row import Document, EventRow
    from meterite.storage.event_reader import EventReader

ALARM: Final = np.dtype(
    [
        ("series", "<i8"),
        ("state", "u1"),
        ("pending", "u1"),
        ("told", "u1"),
        ("ordinal", "<u2"),
        ("event_row", "<i8"),
        ("recorded_at", "<i8"),
        ("since", "<i8"),
        ("pending_since", "<i8"),
        ("low", "<f8"),
        ("high", "<f8"),
        ("last_at", "<i8"),
        ("last", "<f8"),
        ("extreme_at", "<i8"),
        ("extreme", "<f8"),
    ]
)
"""A series that isn't at rest, and the last event that told of it (``event_row`` 0: none did, it was muted).
``told`` is the state that an event said last, which need not be the state at hand."""
PART_ALARMS: Final = 8192
"""About 750 kB: the writer's lock isn't held for longer than that takes."""
_TOLD: Final = (
    "event_row",
    "ordinal",
    "recorded_at",
    "low",
    "high",
    "last_at",
    "last",
    "extreme_at",
    "extreme",
)
_STATE: Final = ("series", "state", "pending", "told", "since", "pending_since")
_MAGIC: Final = b"MAL1"
_HEADER: Final = struct.Struct("<4sIII")
_SILENT: Final = np.dtype([("metric", "<i8"), ("since", "<i8")])
_FOLD_TRANSITIONS: Final = 65_536


@dataclass(slots=True)
class AlarmSnapshot:
    """As of ``event_row``: ``alarms`` of :data:`ALARM`, by series; silent metrics, and since when, µs."""

    event_row: int = 0
    alarms: NDArray[np.void] = field(default_factory=lambda: np.empty(0, ALARM))
    silent: dict[int, int] = field(default_factory=dict)

    def advance(self, raw: sqlite3.Connection, reader: EventReader, org_id: int) -> None:
        """To the connection's transaction."""
        parts, waiting = [self.alarms], 0
        for columns in reader.rows(raw, self.event_row + 1, org_id):
            self.event_row = columns[0]
            row = reader.opened(raw, columns)
            if row is None:
                continue
            _fold_documents(self.silent, row.documents, row.recorded_at_us)
            if len(row.transitions):
                parts.append(alarms_of(row))
                waiting += len(row.transitions)
            if waiting > _FOLD_TRANSITIONS:
                parts, waiting = [_folded(np.concatenate(parts))], 0
        self.alarms = _folded(np.concatenate(parts)) if len(parts) > 1 else parts[0]

    def without(self, metrics: NDArray[np.int64]) -> AlarmSnapshot:
        """But for these metrics'."""
        kept = self.alarms[~np.isin(self.alarms["series"] >> 32, metrics)]
        gone = set(metrics.tolist())
        return AlarmSnapshot(
            self.event_row, kept, {id_: at for id_, at in self.silent.items() if id_ not in gone}
        )


def alarms_of(row: EventRow) -> NDArray[np.void]:
    """As each transition leaves its series, and what it tells of readings, where it is an event of being outside."""
    transitions = row.transitions
    alarms = np.zeros(len(transitions), ALARM)
    for name in _STATE:
        alarms[name] = transitions[name]
    told = np.isin(kinds_of(transitions), (ABOVE_MAX, BELOW_MIN)) & (transitions["state"] != 0)
    told &= transitions["flags"] & LATE == 0
    for name in _TOLD[3:]:
        alarms[name] = np.where(told, transitions[name], 0)
    alarms["event_row"] = np.where(told, row.id, 0)
    alarms["ordinal"] = np.where(told, np.arange(len(transitions)), 0)
    alarms["recorded_at"] = np.where(told, row.recorded_at_us, 0)
    return alarms


def _folded(alarms: NDArray[np.void]) -> NDArray[np.void]:
    """Of each series the last row, with what was last told since its state began; those at rest are left out."""
    last = alarms[_last_of(alarms["series"])]
    of = np.searchsorted(last["series"], alarms["series"])
    same = (alarms["state"] == last["state"][of]) & (alarms["since"] == last["since"][of])
    other = _newest_of(of, ~same, len(last))
    told = _newest_of(of, (alarms["event_row"] != 0) & (np.arange(len(of)) > other[of]), len(last))
    for name in _TOLD:
        last[name] = np.where(told >= 0, alarms[name][told], 0)
    kept: NDArray[np.void] = last[(last["state"] | last["pending"] | last["told"]) != 0]
    return kept


def _newest_of(of: NDArray[np.intp], chosen: NDArray[np.bool_], count: int) -> NDArray[np.intp]:
    """For each of ``count`` the last place in ``of`` that is chosen; -1 for none."""
    places = np.flatnonzero(chosen)
    newest = np.full(count, -1)
    np.maximum.at(newest, of[places], places)
    return newest


def _last_of(series: NDArray[np.int64]) -> NDArray[np.intp]:
    """Where each distinct value stands last; in the order of the values."""
    _, from_behind = np.unique(series[::-1], return_index=True)
    places: NDArray[np.intp] = len(series) - 1 - from_behind
    return places


def _fold_documents(silent: dict[int, int], documents: Sequence[Document], recorded_at_us: int) -> None:
    for document in documents:
        if document.type == EventType.SILENT:
            silent.setdefault(document.metric_id, recorded_at_us)
        elif document.type == EventType.RESUMED:
            silent.pop(document.metric_id, None)


def encode_parts(snapshot: AlarmSnapshot) -> list[bytes]:
    """At least one; silent metrics lie in the first."""
    count = max(1, -(-len(snapshot.alarms) // PART_ALARMS))
    silent = np.array(sorted(snapshot.silent.items()), np.int64).reshape(-1, 2)
    return [
        _encode(snapshot.alarms[n * PART_ALARMS : (n + 1) * PART_ALARMS], silent[: None if n == 0 else 0])
        for n in range(count)
    ]


def _encode(alarms: NDArray[np.void], silent: NDArray[np.int64]) -> bytes:
    body = alarms.tobytes() + silent.astype("<i8").tobytes()
    checked = struct.pack("<II", len(alarms), len(silent)) + body
    return _HEADER.pack(_MAGIC, zlib.crc32(checked), len(alarms), len(silent)) + body


def decode_part(data: bytes) -> tuple[NDArray[np.void], dict[int, int]]:
    """Alarms and silent metrics of a part."""
    if len(data) < _HEADER.size or data[:4] != _MAGIC:
        raise damaged("no MAL1 block begins here")
    _, crc, alarms, silent = _HEADER.unpack_from(data)
    if zlib.crc32(memoryview(data)[8:]) != crc:
        raise damaged("an MAL1 block fails its checksum")
    place = _HEADER.size + alarms * ALARM.itemsize
    if place + silent * _SILENT.itemsize != len(data):
        raise damaged("an MAL1 block's length doesn't fit its rows")
    pairs: list[tuple[int, int]] = np.frombuffer(data, _SILENT, silent, place).tolist()
    rows: NDArray[Any] = np.frombuffer(data, ALARM, alarms, _HEADER.size)
    return rows, dict(pairs)


def snapshot_row(raw: sqlite3.Connection, org_id: int) -> int:
    """Up to which event row the org's newest whole snapshot holds; 0 where there is none."""
    query = (
        "SELECT event_row FROM alarm WHERE org = ? GROUP BY event_row HAVING count(*) = max(parts)"
        " ORDER BY event_row DESC LIMIT 1"
    )
    row = raw.execute(query, (org_id,)).fetchone()
    return 0 if row is None else int(row[0])


def read_snapshot(raw: sqlite3.Connection, org_id: int) -> AlarmSnapshot:
    """The newest whole one; an empty one from before all events where there is none, or it is damaged."""
    event_row = snapshot_row(raw, org_id)
    query = "SELECT data FROM alarm WHERE org = ? AND event_row = ? ORDER BY number"
    try:
        parts = [decode_part(row[0]) for row in raw.execute(query, (org_id, event_row))]
    except DamagedError:
        parts = []
    if not parts:
        return AlarmSnapshot()
    return AlarmSnapshot(event_row, np.concatenate([alarms for alarms, _ in parts]), parts[0][1])


def load_alarms(
    raw: sqlite3.Connection, reader: EventReader, org_id: int
) -> tuple[dict[int, Alarm], set[int]]:
    """Alarms by series and silent metrics, as of the connection's transaction."""
    snapshot = read_snapshot(raw, org_id)
    rows = snapshot.alarms[list(_STATE)].tolist()
    alarms = {
        series: Alarm(state, since_us, pending, pending_since_us, told)
        for series, state, pending, told, since_us, pending_since_us in rows
    }
    silent = set(snapshot.silent)
    fold_alarms(raw, reader, org_id, snapshot.event_row >> EVENT_ROW_BITS, alarms, silent)
    return {series: alarm for series, alarm in alarms.items() if not alarm.at_rest}, silent
