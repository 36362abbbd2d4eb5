"""Watching limits: each commit's readings are judged before it ends, and what they mean is part of it.

What this file guarantees: a reading is committed with its event, or neither is. What is kept in memory (limits, newest
readings, alarms, by org) holds as of the commit at hand: the catalogue's version and the last ``seq`` are compared
within the transaction, and what other processes committed is folded in first. It may be dropped at any time, and is
where a commit fails.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from meterite.model.columns import Columns
from meterite.model.duration import parse_duration
from meterite.model.event import EventType
from meterite.model.event_row import Document, MetricName
from meterite.model.limits import Alarm, Rule
from meterite.model.metric import SERIES_ORDINAL_BITS
from meterite.model.number import plain_number
from meterite.model.standing import judge
from meterite.model.time import format_rfc3339
from meterite.storage.alarm_snapshot import load_alarms, snapshot_row
from meterite.storage.alarms import apply_documents, fold_alarms
from meterite.storage.database import driver_of
from meterite.storage.event_rows import Names, encode_events, encode_name
from meterite.storage.raised import Raised
from meterite.storage.schema import EVENT_ROW_BITS
from meterite.storage.snapshot import Snapshot
from meterite.storage.state import everything
from meterite.storage.tombstones import mask_erased
from meterite.storage.watch_table import Table
from meterite.storage.watermarks import NEVER, UNKNOWN, Watermarks, look_up, read_marks

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray
    from sqlalchemy import Connection

    from meterite.model.columns import Batch, type_i64
    from meterite.model.standing import Judged
    from meterite.storage.event_reader import EventReader
    from meterite.storage.journal import Clock
    from meterite.storage.snapshot import Parts

SERIES_KEPT_MAX: Final = 4_000_000
"""Over all orgs; those that wrote least recently go first."""
_RULES_SQL: Final = (
    "SELECT id, min_reading, max_reading, hysteresis, outside_for, notify, mute_until_us, expected_every, code, name,"
    " unit, deleted_at FROM metric WHERE org = ? AND "
)


@dataclass(frozen=True, slots=True)
class _Watched:
    """A metric's limits."""

    rule: Rule
    expected_us: int | None
    deleted: bool


_UNWATCHED: Final = _Watched(Rule(low=-np.inf, high=np.inf), None, deleted=True)


class OrgWatch:
    """One org: its limits as of ``catalog_version``, its newest readings and alarms as of ``seq``."""

    def __init__(self, org_id: int) -> None:
        self.org_id = org_id
        self.seq = -1
        self.catalog_version = -1
        self.table = Table()
        self.metrics: dict[int, _Watched] = {}
        self.names = Names()
        self.silent: set[int] = set()
        """Metrics whose silence was told, and whose end was not."""
        self._complete = True

    # --- Up to date

    def learn_metrics(self, raw: sqlite3.Connection, catalog_version: int) -> None:
        """Read what changed since; a deleted metric's alarms end with it."""
        rows = raw.execute(_RULES_SQL + "version > ?", (self.org_id, self.catalog_version)).fetchall()
        changed = self._take_metrics(rows)
        self.catalog_version = catalog_version
        gone = {metric_id for metric_id in changed if self.metrics[metric_id].deleted}
        if gone:
            self.silent -= gone
            self.table.set_alarms({series: Alarm() for series in self._series_of(gone)})
        if changed and len(self.table):
            series = self._series_of(changed)
            slots = np.array([self.table.slot_of[id_] for id_ in series], np.intp)
            self.table.standing.set_rules(slots, *self._rules_of(series))

    def _series_of(self, metric_ids: set[int]) -> list[int]:
        series: type_i64 = self.table.used.rows["series"]
        found: list[int] = series[np.isin(series >> SERIES_ORDINAL_BITS, list(metric_ids))].tolist()
        return found

    def _take_metrics(self, rows: list[tuple[Any, ...]]) -> set[int]:
        for (
            id_,
            low,
            high,
            hysteresis,
            outside_for,
            notify,
            mute_until_us,
            expected_every,
            code,
            name,
            unit,
            deleted_at,
        ) in rows:
            rule = Rule(
                low=low,
                high=high,
                hysteresis=hysteresis,
                for_us=parse_duration(outside_for, place=("for",)) if outside_for else 0,
                every=notify == "every",
                mute_until_us=mute_until_us or 0,
            )
            expected_us = (
                parse_duration(expected_every, place=("expected_every",)) if expected_every else None
            )
            self.names[id_] = encode_name(id_, MetricName(code, name, unit))
            self.metrics[id_] = _Watched(rule, expected_us, deleted=deleted_at is not None)
        return {row[0] for row in rows}

    def meet(self, raw: sqlite3.Connection, series: list[int], marks: Watermarks) -> None:
        """Slots for series that weren't met before, with their newest readings where ``marks`` names them."""
        new = [id_ for id_ in series if id_ not in self.table.slot_of]
        if not new:
            return
        for metric_id in set((np.array(new) >> SERIES_ORDINAL_BITS).tolist()) - self.metrics.keys():
            # made since: that moves no version
            self._take_metrics(raw.execute(_RULES_SQL + "id = ?", (self.org_id, metric_id)).fetchall())
        newest = np.full(len(new), NEVER if self._complete else UNKNOWN, np.int64)
        if len(marks.series):
            known = dict(zip(marks.series.tolist(), marks.newest.tolist(), strict=True))
            newest[:] = [known.get(id_, unnamed) for id_, unnamed in zip(new, newest.tolist(), strict=True)]
        self.table.grow(new, *self._rules_of(new), newest)

    def take_alarms(self, raw: sqlite3.Connection, alarms: Mapping[int, Alarm]) -> None:
        """Of series as they stand now; those that came to rest, too."""
        self.meet(raw, list(alarms), Watermarks.none(complete=True))
        self.table.set_alarms(alarms)

    def load(self, raw: sqlite3.Connection, marks: Watermarks) -> None:
        """All newest readings anew, as of ``seq``."""
        self.table = Table()
        self._complete = marks.complete
        self.meet(raw, marks.series.tolist(), marks)

    def advance(self, raw: sqlite3.Connection, marks: Watermarks) -> None:
        """Newest readings of what was committed since."""
        slots = self.slots(raw, marks.series)
        newest = self.table.standing.calm["newest"]
        newest[slots] = np.maximum(newest[slots], marks.newest)

    def marks(self) -> Watermarks:
        series, newest = self.table.used.rows["series"], self.table.used.calm["newest"]
        order = np.argsort(series)
        order = order[newest[order] != NEVER]
        return Watermarks(series[order], newest[order], self._complete)

    # --- Judging

    def slots(self, raw: sqlite3.Connection, series: type_i64) -> type_i64:
        """Of a batch's series, which are met where they weren't."""
        found = self.table.met(series)
        if found is None:
            self.meet(raw, series.tolist(), Watermarks.none(complete=True))
            found = self.table.met(series)
            assert found is not None
        return found

    def judge(self, snapshot: Callable[[], Snapshot], batch: Batch, slots: type_i64, now_us: int) -> Judged:
        """The snapshot is of just before the commit."""
        standing = self.table.standing

        def look_up_all(unknown: type_i64) -> None:
            for slot in unknown.tolist():
                standing.calm["newest"][slot] = look_up(snapshot(), int(standing.rows["series"][slot]))

        return judge(batch, slots, standing, rule_of=self._rule_of, look_up=look_up_all, now_us=now_us)

    def _rules_of(self, series: list[int]) -> tuple[list[Rule], NDArray[np.intp]]:
        """The rules of their metrics, and of each series the number of its one."""
        metrics, rule_of = np.unique(np.array(series, np.int64) >> SERIES_ORDINAL_BITS, return_inverse=True)
        return [self.metrics.get(id_, _UNWATCHED).rule for id_ in metrics.tolist()], rule_of

    def _rule_of(self, series: int) -> Rule:
        return self.metrics.get(series >> SERIES_ORDINAL_BITS, _UNWATCHED).rule

    def resumed(self, batch: Batch, slots: type_i64, now_us: int) -> list[Document]:
        """An event each of the silent metrics whose silence a reading of the batch ends; asked before it is judged.

        One that is itself older than ``expected_every`` ends none: who sends hours that he gathered meanwhile resumes
        once. Where nothing is expected any more, each that is newer than its series' newest does. While the metric is
        muted none does: the silence was told, so its end must be, which is by the first such reading after the mute.
        """
        found = []
        for metric_id in self.silent & set((batch.series >> SERIES_ORDINAL_BITS).tolist()):
            watched = self.metrics.get(metric_id, _UNWATCHED)
            if now_us < watched.rule.mute_until_us:
                continue
            rows = np.flatnonzero((batch.series >> SERIES_ORDINAL_BITS == metric_id)[batch.series_index])
            at_us, expected_us = batch.at_us[rows], watched.expected_us
            if expected_us is not None:
                ending = at_us >= now_us - expected_us
            else:
                newest = self.table.standing.calm["newest"][slots[batch.series_index[rows]]]
                ending = (at_us > newest) & (newest != UNKNOWN)
            ending &= np.isfinite(batch.values[rows])
            if ending.any():
                found.append(Document(EventType.RESUMED, metric_id, _reading(batch, rows[ending][0])))
        apply_documents(found, self.silent)
        return found


def _reading(batch: Batch, row: int) -> dict[str, Any]:
    value, at_us = float(batch.values[row]), int(batch.at_us[row])
    return {"reading": plain_number(value), "reading_at": format_rfc3339(at_us)}


class Watch:
    """What a worker keeps of all orgs. Used by who holds the writer's lock, so by one thread at a time."""

    def __init__(self, parts: Parts, reader: EventReader) -> None:
        self._parts = parts
        self._reader = reader
        self._orgs: OrderedDict[int, OrgWatch] = OrderedDict()
        self._own_seq = -1
        self._foreign_seq = -1

    def judge(
        self, conn: Connection, clock: Clock, batches: list[tuple[int, Batch]], recorded_at_us: int
    ) -> list[Raised]:
        """Judge the readings of commit ``clock.seq + 1`` by org; answers what they raise, for the commit to write.

        Before the readings themselves are written; ``clock`` is as of the transaction, and shows what isn't ours.
        """
        if clock.seq != self._own_seq:
            self._foreign_seq = clock.seq
        raised = []
        for org_id, batch in batches:
            org = self._up_to_date(conn, clock, org_id)
            raw = driver_of(conn)
            slots = org.slots(raw, batch.series)
            resumed = org.resumed(batch, slots, recorded_at_us) if org.silent else []
            found = org.judge(lambda: self._snapshot(conn, org_id), batch, slots, recorded_at_us)  # noqa: B023 -- called at once
            if found.transitions or resumed:
                rows = encode_events(found, resumed, org.names)
                raised.append(Raised(org_id, recorded_at_us, rows, found, resumed))
        return raised

    def _up_to_date(self, conn: Connection, clock: Clock, org_id: int) -> OrgWatch:
        org = self._orgs.get(org_id)
        if org is None:
            org = self._orgs[org_id] = OrgWatch(org_id)
        self._orgs.move_to_end(org_id)
        raw = driver_of(conn)
        if org.catalog_version != clock.catalog_version:
            org.learn_metrics(raw, clock.catalog_version)
        if self._foreign_seq > org.seq:
            self._fold(conn, org)
        org.seq = clock.seq + 1  # what follows is ours; where it fails, all is forgotten
        return org

    def _fold(self, conn: Connection, org: OrgWatch) -> None:
        """What other processes committed, or all anew where some of that was compacted meanwhile."""
        raw = driver_of(conn)
        snapshot = self._snapshot(conn, org.org_id)
        if org.seq < max(snapshot.compacted_seq, snapshot_row(raw, org.org_id) >> EVENT_ROW_BITS, 0):
            alarms, org.silent = load_alarms(raw, self._reader, org.org_id)
            marks = read_marks(raw, org.org_id, compacted=snapshot.compacted_seq > 0)
            org.load(raw, _after(snapshot, marks, snapshot.compacted_seq))
            org.take_alarms(raw, alarms)
            return
        moved: dict[int, Alarm] = {}
        fold_alarms(raw, self._reader, org.org_id, org.seq, moved, org.silent)
        if snapshot.tombstones.seq_last > org.seq:
            alarms = org.table.alarms()
            org.load(raw, _after(snapshot, org.marks(), org.seq))
            org.take_alarms(raw, alarms | moved)
        else:
            org.advance(raw, _after(snapshot, Watermarks.none(complete=True), org.seq))
            org.take_alarms(raw, moved)

    def committed(self, seq: int) -> None:
        """The transaction of :meth:`judge` is on disk."""
        self._own_seq = seq
        series = sum(len(org.table) for org in self._orgs.values())
        while series > SERIES_KEPT_MAX and len(self._orgs) > 1:
            _, dropped = self._orgs.popitem(last=False)
            series -= len(dropped.table)

    def failed(self) -> None:
        """The transaction was rolled back: what was learned in it is forgotten."""
        self._orgs.clear()

    def _snapshot(self, conn: Connection, org_id: int) -> Snapshot:
        return Snapshot(self._parts, conn, org_id, close=_nothing)


def _after(snapshot: Snapshot, marks: Watermarks, seq: int) -> Watermarks:
    """The marks, true as of ``seq``, brought up to the snapshot by its journal and deletes."""
    fresh = Columns.concat(list(snapshot.journal_columns(everything(), seq)))
    later = snapshot.tombstones.after(seq)
    return marks.folded(mask_erased(fresh, later), later)


def _nothing() -> None:
    pass
