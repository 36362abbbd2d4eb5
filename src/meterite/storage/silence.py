"""Silence: metrics that had no reading within ``expected_every`` of their newest.

What this file guarantees: a silence is told once, by one worker, and in one transaction with the proof that no reading
came meanwhile; the commit that brings the next reading while the metric isn't muted tells that it resumed. A metric
that never had a reading isn't silent, nor one that isn't active or is muted.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from meterite.model.duration import parse_duration
from meterite.model.event import EventType
from meterite.model.event_row import Document, MetricName
from meterite.model.number import plain_number
from meterite.model.time import format_rfc3339
from meterite.storage.alarm_snapshot import load_alarms, snapshot_row
from meterite.storage.alarms import fold_alarms
from meterite.storage.database import driver_of
from meterite.storage.journal import read_clock
from meterite.storage.schema import EVENT_ROW_BITS

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from meterite.model.metric import MetricState
    from meterite.storage.work import Work

LOOK_S: Final = 1.0
_EXPECTED_SQL: Final = (
    "SELECT id, org, expected_every, mute_until_us, code, name, unit FROM metric"
    " WHERE expected_every IS NOT NULL AND deleted_at IS NULL AND active ORDER BY id"
)

Expected = tuple[int, int, str, int | None, str, str, str | None]
"""A row of the query."""


class Silences:
    """Looked for by whoever compacts, which is one process at a time."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._looked = 0.0
        self._silent: dict[int, tuple[int, set[int]]] = {}

    def look(self) -> None:
        """Once a second at most; nothing expected costs one read."""
        if time.monotonic() - self._looked < LOOK_S:
            return
        self._looked = time.monotonic()
        by_org: dict[int, list[Expected]] = {}
        with self._work.database.reading() as conn:
            for row in driver_of(conn).execute(_EXPECTED_SQL):
                by_org.setdefault(row[1], []).append(row)
        for org_id, expected in by_org.items():
            with self._work.database.reading() as conn:
                due = self._due(conn, org_id, expected)
            if due:
                with self._work.write() as conn:
                    self._tell(conn, org_id, [row for row, _ in due])

    def _due(
        self, conn: Connection, org_id: int, expected: list[Expected]
    ) -> list[tuple[Expected, MetricState]]:
        """Those that are silent now and weren't told."""
        now_us = self._work.store.clock()
        raw, reader = driver_of(conn), self._work.store.event_reader
        seq, silent = self._silent.get(org_id, (-1, set()))
        if seq < max(0, snapshot_row(raw, org_id) >> EVENT_ROW_BITS):  # rows since may be gone
            _, silent = load_alarms(raw, reader, org_id)
        else:
            silent = set(silent)
            fold_alarms(raw, reader, org_id, seq, {}, silent)
        self._silent[org_id] = (read_clock(conn).seq, silent)
        waited = [row for row in expected if row[0] not in silent and not now_us < (row[3] or 0)]
        states = self._work.store.states_in(conn, org_id, [row[0] for row in waited])
        found = []
        for row, state in zip(waited, states, strict=True):
            if state is None or state.current is None:
                continue
            if now_us - state.current.at_us > parse_duration(row[2], place=("expected_every",)):
                found.append((row, state))
        return found

    def _tell(self, conn: Connection, org_id: int, expected: list[Expected]) -> None:
        due = self._due(conn, org_id, expected)
        if not due:
            return
        documents = [Document(EventType.SILENT, row[0], _data(row, state)) for row, state in due]
        names = {row[0]: MetricName(row[4], row[5], row[6]) for row, _ in due}
        self._work.store.events.tell(conn, org_id, documents, names)


def _data(row: Expected, state: MetricState) -> dict[str, Any]:
    assert state.current is not None
    return {
        "expected_every": row[2],
        "current_reading": plain_number(state.current.value),
        "current_reading_at": format_rfc3339(state.current.at_us),
    }
