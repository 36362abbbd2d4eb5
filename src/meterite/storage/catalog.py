"""Metrics and series in SQL.

Every change of a metric takes a ``seq`` and a new catalogue version within the writer's lock, so that a commit can
see in one comparison whether what it resolved still holds. A deleted metric keeps its row, with ``deleted_at``, so
that ids are never used again and other workers learn of it. Making a metric or a series moves no version: nothing
resolved before becomes wrong by it. A change and the event that tells of it are one transaction.
"""

from __future__ import annotations

from dataclasses import fields
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

import numpy as np
from sqlalchemy import insert, select, update

from meterite.model.check import canonical_labels
from meterite.model.columns import SeriesKey
from meterite.model.errors import ConflictError, ExhaustedError, NotFoundError
from meterite.model.metric import (
    METRIC_ID_LAST,
    SERIES_ORDINAL_BITS,
    ConflictPolicy,
    Metric,
    MetricSpec,
    Notify,
)
from meterite.storage.changes import activated, deleted, name_of, updated
from meterite.storage.database import driver_of
from meterite.storage.interface import SeriesLimits
from meterite.storage.journal import Clock, read_clock, write_clock
from meterite.storage.schema import metric as metric_table
from meterite.storage.schema import org as org_table
from meterite.storage.schema import tombstone as tombstone_table
from meterite.storage.series import SeriesMaker, count_series, known_series, labels_of, live_metrics
from meterite.storage.steps import run_through

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sqlalchemy import Connection, Row

    from meterite.model.columns import Described, Labels
    from meterite.model.event_row import Document
    from meterite.model.metric import MetricState
    from meterite.storage.database import Database
    from meterite.storage.events import SqlEvents
    from meterite.storage.steps import Steps

T = TypeVar("T")
SPEC_FIELDS: Final = tuple(f.name for f in fields(MetricSpec))
ANY_VERSION: Final = 1 << 62
NO_LIMITS: Final = SeriesLimits(org_series_max=1 << 62, metric_series_max=1 << 62)


def not_found(code: str) -> NotFoundError:
    return NotFoundError(
        "metric-not-found",
        f"There is no metric {code[:200]!r}; make it with POST /metric/, or by a push to /readings (auto_create).",
    )


def _plain(value: object) -> object:
    """As it lies in the table."""
    return value.value if isinstance(value, Enum) else value


def _columns_of(spec: MetricSpec) -> dict[str, Any]:
    return {name: _plain(getattr(spec, name)) for name in SPEC_FIELDS}


def _metric_of(org: str, row: Row[Any]) -> Metric:
    values = {name: getattr(row, name) for name in SPEC_FIELDS}
    values["on_conflict"] = ConflictPolicy(values["on_conflict"])
    values["notify"] = Notify(values["notify"])
    return Metric(id=row.id, org=org, spec=MetricSpec(**values), active=bool(row.active))


class AroundDamage(Protocol):
    def __call__(self, work: Callable[[], T]) -> T: ...


class SqlCatalog:
    """``states`` answers current and last of metrics within a transaction (on_conflict is fixed by a reading).

    ``around_damage`` does a thing again after a damaged row in its way was put in quarantine.
    """

    def __init__(
        self,
        database: Database,
        states: Callable[[Connection, int, list[int]], list[MetricState | None]],
        around_damage: AroundDamage,
        events: SqlEvents,
        clock: Callable[[], int],
    ) -> None:
        self._database = database
        self._events = events
        self._states = states
        self._around_damage = around_damage
        self._now = clock
        self._org_ids: dict[str, int] = {}
        self._maker = SeriesMaker(database, _columns_of)

    def org_id(self, org: str) -> int:
        """The org's number in the database; the first use makes it."""
        known = self._org_ids.get(org)
        if known is None:
            with self._database.reading() as conn:
                known = conn.execute(select(org_table.c.id).where(org_table.c.name == org)).scalar()
            if known is None:
                known = self._make_org(org)
            self._org_ids[org] = known
        return known

    def _make_org(self, org: str) -> int:
        with self._database.writing() as conn:
            known = conn.execute(select(org_table.c.id).where(org_table.c.name == org)).scalar()
            if known is not None:
                return int(known)
            return int(conn.execute(insert(org_table).values(name=org)).inserted_primary_key[0])  # type: ignore[index]  # a row was inserted

    def changed(self, since: int) -> tuple[int, list[tuple[int, str]]]:
        with self._database.reading() as conn:
            version = read_clock(conn).catalog_version
            if version == since:
                return version, []
            orgs = conn.execute(select(org_table.c.id).where(org_table.c.catalog_version > since)).scalars()
            query = select(metric_table.c.org, metric_table.c.code).where(
                metric_table.c.org.in_(orgs.all()), metric_table.c.version > since
            )
            return version, [(row.org, row.code) for row in conn.execute(query)]

    def metric(self, org: str, code: str) -> Metric | None:
        org_id = self.org_id(
            org
        )  # first: a new org's takes a write, which no reading transaction may be around
        with self._database.reading() as conn:
            row = self._row(conn, org_id, code)
        return None if row is None else _metric_of(org, row)

    def _row(self, conn: Connection, org_id: int, code: str) -> Row[Any] | None:
        columns = metric_table.c
        return conn.execute(
            select(metric_table).where(
                columns.org == org_id, columns.code == code, columns.deleted_at.is_(None)
            )
        ).first()

    def _by_id(self, conn: Connection, metric_id: int) -> Row[Any]:
        return conn.execute(select(metric_table).where(metric_table.c.id == metric_id)).one()

    def _live(self, conn: Connection, org_id: int, code: str) -> Row[Any]:
        row = self._row(conn, org_id, code)
        if row is None:
            raise not_found(code)
        return row

    def page(self, org: str, limit: int, after: int = 0) -> list[Metric]:
        columns = metric_table.c
        query = select(metric_table).where(
            columns.org == self.org_id(org), columns.deleted_at.is_(None), columns.id > after
        )
        with self._database.reading() as conn:
            return [_metric_of(org, row) for row in conn.execute(query.order_by(columns.id).limit(limit))]

    def create(self, org: str, spec: MetricSpec) -> Metric:
        org_id = self.org_id(org)
        values = _columns_of(spec)
        with self._database.writing() as conn:
            if self._row(conn, org_id, spec.code) is not None:
                raise ConflictError("metric-exists", f"A metric {spec.code[:200]!r} is registered already.")
            version = read_clock(conn).catalog_version
            result = conn.execute(
                insert(metric_table).values(org=org_id, active=True, series_next=1, version=version, **values)
            )
            metric_id = int(result.inserted_primary_key[0])  # type: ignore[index]  # a row was inserted
            if metric_id > METRIC_ID_LAST:
                raise ExhaustedError("metrics-exhausted", "No more metrics can be numbered in this database.")
            count_series(conn, org_id, 1)
        return Metric(id=metric_id, org=org, spec=spec)

    def _fold_ahead(self, org_id: int) -> None:
        """Bring the states up to date before the writer's lock is taken, so that little is left to do within it."""
        with self._database.reading() as conn:
            self._states(conn, org_id, [])

    def update(self, org: str, code: str, changes: Mapping[str, object]) -> Metric:
        return self._around_damage(lambda: self._update(org, code, changes))

    def _update(self, org: str, code: str, changes: Mapping[str, object]) -> Metric:
        org_id = self.org_id(org)
        if "on_conflict" in changes:
            self._fold_ahead(org_id)
        with self._database.writing() as conn:
            row = self._live(conn, org_id, code)
            wanted = changes.get("on_conflict", row.on_conflict)
            if wanted != row.on_conflict and self._states(conn, org_id, [row.id])[0] is not None:
                raise ConflictError(
                    "policy-fixed", "on_conflict can't change once the metric has had a reading."
                )
            values = {name: _plain(value) for name, value in changes.items()}
            moved = self._change(conn, org_id, row.id, values)
            before, metric = _metric_of(org, row), _metric_of(org, self._by_id(conn, row.id))
            self._tell(conn, org_id, moved, metric, updated(before, metric))
            return metric

    def set_active(self, org: str, code: str, *, active: bool) -> Metric:
        org_id = self.org_id(org)
        with self._database.writing() as conn:
            row = self._live(conn, org_id, code)
            if bool(row.active) == active:
                word = "active" if active else "inactive"
                raise ConflictError(f"metric-{word}", f"The metric is {word} already.")
            moved = self._change(conn, org_id, row.id, {"active": active})
            metric = _metric_of(org, row).with_active(active)
            self._tell(conn, org_id, moved, metric, activated(metric))
            return metric

    def delete(self, org: str, code: str) -> tuple[Metric, MetricState | None]:
        """The metric and its last state. Its readings are hidden at once by a tombstone over all of it."""
        return self._around_damage(lambda: self._delete(org, code))

    def _delete(self, org: str, code: str) -> tuple[Metric, MetricState | None]:
        org_id = self.org_id(org)
        self._fold_ahead(org_id)
        with self._database.writing() as conn:
            row = self._live(conn, org_id, code)
            if row.active:
                raise ConflictError("metric-active", "Deactivate the metric before you delete it.")
            state = self._states(conn, org_id, [row.id])[0]
            moved = self._change(conn, org_id, row.id, {"deleted_at": self._now()})
            count_series(conn, org_id, -row.series_next)
            metric = _metric_of(org, row)
            self._tell(conn, org_id, moved, metric, deleted(metric))
            conn.execute(
                insert(tombstone_table).values(
                    org=org_id,
                    seq=moved.seq,
                    metric=row.id,
                    series=None,
                    series_first=metric.series_first,
                    series_last=metric.series_last,
                    at_first=int(np.iinfo(np.int64).min),
                    at_last=int(np.iinfo(np.int64).max),
                )
            )
        return metric, state

    def _tell(
        self, conn: Connection, org_id: int, moved: Clock, metric: Metric, document: Document | None
    ) -> None:
        if document is not None:
            self._events.insert(driver_of(conn), moved, org_id, [document], name_of(metric))

    def _change(self, conn: Connection, org_id: int, metric_id: int, values: dict[str, Any]) -> Clock:
        moved = self._move(conn, org_id)
        version = moved.catalog_version
        conn.execute(
            update(metric_table).where(metric_table.c.id == metric_id).values(version=version, **values)
        )
        return moved

    def _move(self, conn: Connection, org_id: int) -> Clock:
        """The next seq and catalogue version, the org's from now on."""
        clock = read_clock(conn)
        moved = Clock(clock.seq + 1, clock.next_recorded_at(self._now()), clock.catalog_version + 1)
        write_clock(conn, moved)
        conn.execute(
            update(org_table).where(org_table.c.id == org_id).values(catalog_version=moved.catalog_version)
        )
        return moved

    def metrics(self, org: str, codes: Sequence[str]) -> list[Metric]:
        """Those of the codes that are there."""
        org_id = self.org_id(org)
        with self._database.reading() as conn:
            return [_metric_of(org, row) for row in live_metrics(conn, org_id, codes).values()]

    def describe(self, org: str, described: Mapping[str, Described]) -> None:
        """Fill in units and descriptions that metrics lack, all in one change of the catalogue."""
        org_id = self.org_id(org)
        with self._database.writing() as conn:
            changes: dict[int, dict[str, Any]] = {}
            for code, row in live_metrics(conn, org_id, list(described)).items():
                told = described[code]
                lacking = {
                    "unit": told.unit if row.unit is None else "",
                    "description": told.description if row.description is None else "",
                }
                if any(lacking.values()):
                    changes[row.id] = {name: text for name, text in lacking.items() if text}
            if not changes:
                return
            version = self._move(conn, org_id).catalog_version
            for metric_id, values in changes.items():
                conn.execute(
                    update(metric_table)
                    .where(metric_table.c.id == metric_id)
                    .values(version=version, **values)
                )

    def find_series(self, wanted: Sequence[tuple[int, Labels]]) -> list[int]:
        """Ids of series by metric id and labels; 0 where one isn't there."""
        by_metric: dict[int, set[str]] = {}
        texts = [canonical_labels(labels) if labels else "" for _, labels in wanted]
        for (metric_id, _), text in zip(wanted, texts, strict=True):
            by_metric.setdefault(metric_id, set()).add(text)
        with self._database.reading() as conn:
            known = {
                metric_id: known_series(conn, metric_id, sorted(some - {""}))
                for metric_id, some in by_metric.items()
            }
        return [
            known[metric_id].get(text, 0) if text else metric_id << SERIES_ORDINAL_BITS
            for (metric_id, _), text in zip(wanted, texts, strict=True)
        ]

    def making(
        self,
        org: str,
        keys: Sequence[SeriesKey],
        specs: Mapping[str, MetricSpec],
        limits: SeriesLimits,
        *,
        whole: bool,
        version: int,
    ) -> Steps[list[int | ExhaustedError]]:
        org_id = self.org_id(org)
        return (yield from self._maker.making(org_id, keys, specs, limits, whole=whole, version=version))

    def series(self, org_id: int, metric: Metric, labels: Sequence[Labels]) -> list[int]:
        """Ids of the metric's series with these labels, made where they aren't there yet, without limits."""
        keys = [SeriesKey(metric.code, pairs) for pairs in labels]
        steps = self._maker.making(org_id, keys, {}, NO_LIMITS, whole=False, version=ANY_VERSION)
        made = run_through(steps)
        return [id_ for id_ in made if isinstance(id_, int)]

    def labels(self, series: Sequence[int]) -> dict[int, Labels]:
        with self._database.reading() as conn:
            return labels_of(conn, series)

    def close(self) -> None:
        self._maker.close()
